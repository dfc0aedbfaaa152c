"""How sessions spread within a tier, by policy. Draws are seeded; the bounds are what chance allows, not what came out.

Where chance decides, of n draws with probability p the count lies within 5 standard deviations, √(n·p·(1 − p)), of n·p
but for one seed in a million.
"""

from __future__ import annotations

from collections import Counter
from math import sqrt
from random import Random
from typing import Any

import pytest

from proxy.selection import LEAST_SHARE, Candidate, Wish, assign


def candidate(number: int, **fields: Any) -> Candidate:
    return Candidate(number, f"r{number}", f"http://r{number}", **fields)


def spread(fleet: list[Candidate], policy: str, sessions: int, seed: int = 7) -> list[int]:
    """`sessions` that come and stay: how many each of `fleet` gets."""
    wishes = [Wish(number) for number in range(sessions)]
    counted = Counter(found.id for found in assign(wishes, fleet, policy, Random(seed)).values())
    return [counted[each.id] for each in fleet]


def draws(fleet: list[Candidate], policy: str, number: int, seed: int = 7) -> list[int]:
    """`number` sessions that come one after the other and leave at once."""
    rng, counted = Random(seed), Counter[int]()
    for _ in range(number):
        (found,) = assign([Wish(1)], fleet, policy, rng).values()
        found.sessions -= 1
        counted[found.id] += 1
    return [counted[each.id] for each in fleet]


def deviation(number: int, part: float) -> float:
    return 5 * sqrt(number * part * (1 - part))


# --- least_sessions -------------------------------------------------------------------------------------------------


def test_least_sessions_shares_by_weight() -> None:
    """Sessions ÷ weight is the same everywhere: to the session."""
    assert spread([candidate(1), candidate(2, weight=2), candidate(3, weight=0.5)], "least_sessions", 700) == [
        200, 400, 100,
    ]  # fmt: skip


def test_least_sessions_breaks_ties_by_insertion_order() -> None:
    """The one that was added first, however the candidates are given."""
    assert spread([candidate(2), candidate(1), candidate(3)], "least_sessions", 1) == [0, 1, 0]


def test_least_sessions_fills_up_who_has_fewer() -> None:
    """An uneven start is evened out before anybody else gets one."""
    assert spread([candidate(1, sessions=10), candidate(2)], "least_sessions", 10) == [0, 10]


def test_least_sessions_scales_the_share_in_slow_start() -> None:
    """Half of its share: about half of what the other has; and one with none is not overrun."""
    full, half = spread([candidate(1), candidate(2, share=0.5)], "least_sessions", 300)
    assert half == pytest.approx(full / 2, abs=1)
    assert spread([candidate(1), candidate(2, share=LEAST_SHARE)], "least_sessions", 9) == [9, 0]


# --- round_robin ----------------------------------------------------------------------------------------------------


def test_round_robin_takes_turns() -> None:
    """Exactly, whatever the sessions they have and the weights."""
    fleet = [candidate(1, sessions=9), candidate(2, weight=5), candidate(3)]
    assert draws(fleet, "round_robin", 300) == [100, 100, 100]
    found = assign([Wish(n) for n in range(6)], fleet, "round_robin", Random(1))
    assert [each.id for each in found.values()] == [1, 2, 3, 1, 2, 3]


def test_round_robin_goes_on_where_it_was() -> None:
    """From the table's `last_turn`, written by any process; a new replica comes first."""
    fleet = [candidate(1, last_turn=8), candidate(2, last_turn=7), candidate(3)]
    found = assign([Wish(n) for n in range(4)], fleet, "round_robin", Random(1))
    assert [each.id for each in found.values()] == [3, 2, 1, 3]
    assert [each.last_turn for each in fleet] == [11, 10, 12]


@pytest.mark.parametrize("share", [LEAST_SHARE, 0.5])
def test_round_robin_lets_turns_pass_in_slow_start(share: float) -> None:
    """Of n it gets one turn in n − 1 others and 1/share chances."""
    number = 4000
    fleet = [candidate(1), candidate(2), candidate(3, share=share)]
    part = 1 / (2 + 1 / share)
    assert abs(draws(fleet, "round_robin", number)[2] - number * part) < deviation(number, part)


def test_round_robin_of_replicas_that_are_all_in_slow_start_serves_all_the_same() -> None:
    """A cluster that has just been started: nobody waits for a chance."""
    assert sum(draws([candidate(n, share=LEAST_SHARE) for n in (1, 2, 3)], "round_robin", 200)) == 200


# --- random ---------------------------------------------------------------------------------------------------------


def test_random_draws_by_weight() -> None:
    """Among replicas without sessions: of two drawn by weight the one with less load. Ties go to the first."""
    number = 4000
    fleet = [candidate(1, weight=1), candidate(2, weight=3)]
    both_second = (3 / 4) ** 2  # the second is taken only where it was drawn twice: idle replicas tie
    assert abs(draws(fleet, "random", number)[1] - number * both_second) < deviation(number, both_second)


def test_random_keeps_loads_together() -> None:
    """Two choices: the fullest of 10 has hardly more than the mean, where one choice would have 3 deviations more."""
    counts = spread([candidate(n) for n in range(1, 11)], "random", 1000)
    assert sum(counts) == 1000
    assert max(counts) <= 100 + 10
    assert min(counts) >= 100 - 20


def test_random_loads_by_weight() -> None:
    """In the long run sessions ÷ weight is about the same."""
    one, three = spread([candidate(1), candidate(2, weight=3)], "random", 4000)
    assert three / one == pytest.approx(3, rel=0.1)


def test_random_scales_the_share_in_slow_start() -> None:
    """It is drawn less often, and counts as more loaded than it is."""
    full, slow = spread([candidate(1), candidate(2, share=LEAST_SHARE)], "random", 1000)
    assert 0 < slow < 1000 * LEAST_SHARE * 2
    assert full + slow == 1000


def test_random_is_not_always_the_same() -> None:
    """Two processes that draw do not draw alike."""
    fleets = [[candidate(n, sessions=1, weight=n) for n in range(1, 6)] for _ in range(2)]
    first, second = (draws(fleet, "random", 50, seed) for seed, fleet in enumerate(fleets))
    assert first != second

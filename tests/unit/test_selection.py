"""Who gets which replica: tiers, stickiness, and the line in its order (design, decision 11)."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.selection import LEAST_SHARE, POLICIES, Candidate, Wish, assign, choose, ramp

candidates = st.lists(
    st.builds(
        Candidate,
        id=st.integers(1, 50),
        name=st.just("r"),
        url=st.just("http://r"),
        primary=st.booleans(),
        available=st.booleans(),
        stale=st.booleans(),
        weight=st.floats(0, exclude_min=True, allow_infinity=False),
        share=st.floats(LEAST_SHARE, 1),
        slots=st.none() | st.integers(0, 4),
        sessions=st.integers(0, 5),
        last_turn=st.integers(0, 20),
    ),
    unique_by=lambda candidate: candidate.id,
    max_size=8,
)
wishes = st.lists(
    st.builds(
        Wish,
        id=st.integers(1, 10_000),
        avoid=st.frozensets(st.integers(1, 50), max_size=8),
        sticky=st.none() | st.integers(1, 50),
    ),
    unique_by=lambda wish: wish.id,
    max_size=20,
).map(lambda line: sorted(line, key=lambda wish: wish.id))
policies = st.sampled_from(sorted(POLICIES))


def candidate(number: int, **fields: Any) -> Candidate:
    return Candidate(number, f"r{number}", f"http://r{number}", **fields)


def line(length: int, **fields: Any) -> list[Wish]:
    return [Wish(number, **fields) for number in range(1, length + 1)]


def served(wishes: list[Wish], fleet: list[Candidate], policy: str = "least_sessions", seed: int = 1) -> dict[int, int]:
    """By id of the wish: the id of its replica."""
    return {wish: found.id for wish, found in assign(wishes, fleet, policy, Random(seed)).items()}


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize(("weight", "share"), [(5e-324, LEAST_SHARE), (1.7e308, 1.0)])
def test_no_weight_is_too_much_for_a_turn(policy: str, weight: float, share: float) -> None:
    """Nor too little: whatever one replica says of itself, sessions are placed."""
    fleet = [candidate(number, weight=weight, share=share) for number in (1, 2)]
    assert len(served(line(4), fleet, policy)) == 4


# --- tiers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_the_primary_is_filled_first(policy: str) -> None:
    """Whatever the policy, and however small its weight; the rest share when it is full."""
    fleet = [candidate(1, slots=2), candidate(2, primary=True, slots=2, weight=0.01), candidate(3, slots=2)]
    given_ = served(line(5), fleet, policy)
    assert [given_[1], given_[2]] == [2, 2]
    assert {given_[3], given_[4], given_[5]} == {1, 3}


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_slow_start_does_not_beat_a_tier(policy: str) -> None:
    """A primary that has just recovered is filled before the others all the same."""
    fleet = [candidate(1), candidate(2, primary=True, share=LEAST_SHARE, slots=3)]
    assert set(served(line(3), fleet, policy).values()) == {2}


def test_a_fresh_replica_comes_before_a_stale_primary() -> None:
    """A stale word still stands, but behind one that was seen lately (design, decision 12)."""
    fleet = [candidate(1, primary=True, stale=True), candidate(2, slots=1)]
    assert served(line(2), fleet) == {1: 2, 2: 1}


@pytest.mark.parametrize(
    "fields", [{"available": False}, {"slots": 0}, {"slots": 2, "sessions": 2}, {"slots": 2, "sessions": 5}]
)
def test_a_replica_that_is_not_free_is_never_offered(fields: dict[str, Any]) -> None:
    """Not even where it is the primary and the only one. Over its slots: they were edited down."""
    assert served(line(1), [candidate(1, primary=True, **fields)]) == {}


def test_a_replica_without_slots_takes_all() -> None:
    """Unlimited: nobody knows how many it can hold."""
    assert len(served(line(500), [candidate(1)])) == 500


# --- one session ------------------------------------------------------------------------------------------------------


def test_a_replica_that_failed_a_session_is_not_given_to_it() -> None:
    """Where it is the only free one, the session waits, and the next in line gets it."""
    assert served([Wish(1, frozenset({1})), Wish(2)], [candidate(1)]) == {2: 1}
    assert served([Wish(1, frozenset({1}))], [candidate(1, primary=True), candidate(2)]) == {1: 2}


def test_a_key_returns_to_its_replica() -> None:
    """Past tiers and loads; but not to one that is full, unavailable or has failed this session."""
    rest = candidate(2, primary=True)
    assert served([Wish(1, sticky=1)], [candidate(1, sessions=50, stale=True), rest]) == {1: 1}
    assert served([Wish(1, sticky=1)], [candidate(1, sessions=1, slots=1), rest]) == {1: 2}
    assert served([Wish(1, sticky=1)], [candidate(1, available=False), rest]) == {1: 2}
    assert served([Wish(1, frozenset({1}), sticky=1)], [candidate(1), rest]) == {1: 2}
    assert served([Wish(1, sticky=9)], [candidate(1), rest]) == {1: 2}


def test_nothing_is_chosen_of_nothing() -> None:
    """None, not an error."""
    assert choose(Wish(1), [], "random", Random(1)) is None


# --- the line ---------------------------------------------------------------------------------------------------------


def test_the_line_is_served_in_its_order() -> None:
    """Three slots: the first three."""
    assert list(served(line(9), [candidate(1, slots=1), candidate(2, slots=2)])) == [1, 2, 3]


def test_a_newcomer_never_overtakes() -> None:
    """It would like the free replica, by its key; the head of the line wants just any."""
    assert served([Wish(1), Wish(2, sticky=1)], [candidate(1, slots=1)]) == {1: 1}


def test_slow_start_withholds_no_slot_from_who_waits() -> None:
    """All of the slots of a replica in its slow start are given at once, where there are no others."""
    for policy in POLICIES:
        fleet = [candidate(1, share=LEAST_SHARE, slots=7), candidate(2, slots=1, sessions=1)]
        assert len(served(line(9), fleet, policy)) == 7


@given(wishes, candidates, policies, st.integers())
def test_nobody_gets_what_they_must_not_have(
    wanting: list[Wish], fleet: list[Candidate], policy: str, seed: int
) -> None:
    """Never more than a replica's slots, never an unavailable one, never one that has failed the session."""
    before = {each.id: each.sessions for each in fleet}
    given_ = assign(wanting, fleet, policy, Random(seed))
    by_id = {wish.id: wish for wish in wanting}
    for id_, found in given_.items():
        assert found.available
        assert found.id not in by_id[id_].avoid
    for each in fleet:
        taken = sum(found is each for found in given_.values())
        assert each.sessions == before[each.id] + taken
        assert not taken or each.slots is None or each.sessions <= each.slots


@given(wishes, candidates, policies, st.integers())
def test_nobody_is_passed_over_while_something_they_may_have_is_free(
    wanting: list[Wish], fleet: list[Candidate], policy: str, seed: int
) -> None:
    """So order is kept: what was free when one was passed over has failed them, and is for who comes after."""
    sessions = {each.id: each.sessions for each in fleet}
    given_ = assign(wanting, fleet, policy, Random(seed))
    for wish in wanting:
        if wish.id in given_:
            sessions[given_[wish.id].id] += 1
            continue
        free = [c for c in fleet if c.available and (c.slots is None or sessions[c.id] < c.slots)]
        assert all(c.id in wish.avoid for c in free)
    assert list(given_) == sorted(given_)


@given(wishes, candidates, policies, st.integers())
def test_the_best_tier_that_is_free_is_taken(
    wanting: list[Wish], fleet: list[Candidate], policy: str, seed: int
) -> None:
    """For each in turn, except where a key leads elsewhere."""
    sessions = {each.id: each.sessions for each in fleet}
    given_ = assign(wanting, fleet, policy, Random(seed))
    for wish in (wish for wish in wanting if wish.id in given_):
        found = given_[wish.id]
        free = [c for c in fleet if c.available and (c.slots is None or sessions[c.id] < c.slots)]
        allowed = [c for c in free if c.id not in wish.avoid]
        if found.id != wish.sticky:
            best = min((c.stale, not c.primary) for c in allowed)
            assert (found.stale, not found.primary) == best
        sessions[found.id] += 1


# --- slow start -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("healthy_for", "slow_start", "share"),
    [
        (None, 30, 1), (0, 30, LEAST_SHARE), (1, 30, LEAST_SHARE), (15, 30, 0.5), (29.99, 30, 29.99 / 30), (30, 30, 1),
        (1e9, 30, 1), (0, 0, 1), (-1, 30, 1), (-172_800, 30, 1),
    ],
)  # fmt: skip
def test_the_share_grows_with_the_time_since_recovery(healthy_for: float, slow_start: float, share: float) -> None:
    """From LEAST_SHARE to 1; a clock that was put back starts nothing anew."""
    assert ramp(healthy_for, slow_start) == pytest.approx(share)

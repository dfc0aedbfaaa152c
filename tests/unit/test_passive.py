"""Passive health: the whole machine, with time as an argument (issue 4, part 2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicas.passive import (
    EJECT_AFTER,
    EJECT_SECONDS,
    FULL_SECONDS,
    MAX_EJECT_SECONDS,
    MAX_FULL_SECONDS,
    NEW,
    Outcome,
    Passive,
    learn,
    may_eject,
)

NOW = 1_790_000_000.0
TWO_DAYS = 2 * 86_400.0
CONNECTED, FAILED, REJECTED, ROOM = Outcome.CONNECTED, Outcome.FAILED, Outcome.REJECTED, Outcome.ROOM


def after(known: Passive, *outcomes: Outcome, now: float = NOW, may: bool = True) -> Passive:
    for outcome in outcomes:
        known = learn(known, outcome, now, may_eject=may)
    return known


def ejected_for(known: Passive, now: float = NOW) -> float:
    assert known.ejected(now)
    assert known.ejected_until is not None
    return known.ejected_until - now


def full_for(known: Passive, now: float = NOW) -> float:
    assert known.full(now)
    assert known.full_until is not None
    return known.full_until - now


# --- ejection ---------------------------------------------------------------------------------------------------------


def test_three_failures_in_a_row_eject() -> None:
    """Not two; and one connect between them begins the count anew."""
    assert not after(NEW, *[FAILED] * (EJECT_AFTER - 1)).ejected(NOW)
    assert not after(NEW, FAILED, FAILED, CONNECTED, FAILED, FAILED).ejected(NOW)
    assert ejected_for(after(NEW, *[FAILED] * EJECT_AFTER)) == EJECT_SECONDS


def test_an_ejection_ends_by_itself() -> None:
    """After its time, to the moment."""
    known = after(NEW, *[FAILED] * EJECT_AFTER)
    assert known.ejected(NOW + EJECT_SECONDS - 0.01)
    assert not known.ejected(NOW + EJECT_SECONDS)


def test_one_failure_ejects_again_for_twice_as_long() -> None:
    """5, 10, 20, 40, and 60 s from then on."""
    known, now, seconds = after(NEW, FAILED, FAILED), NOW, []
    for _ in range(7):
        known = after(known, FAILED, now=now)
        seconds.append(round(ejected_for(known, now), 3))
        now += seconds[-1]
        assert not known.ejected(now)
    assert seconds == [5, 10, 20, 40, 60, 60, 60]


def test_a_connect_forgets_everything() -> None:
    """Also one that began before the ejection: it shows that the replica takes sessions."""
    again = after(NEW, *[FAILED] * EJECT_AFTER, CONNECTED)
    assert again == NEW
    assert ejected_for(after(again, *[FAILED] * EJECT_AFTER)) == EJECT_SECONDS


def test_failures_of_attempts_that_began_before_the_ejection_count_for_nothing() -> None:
    """A burst of 50 clients is one ejection, not one of 60 s."""
    once = after(NEW, *[FAILED] * EJECT_AFTER)
    assert after(once, *[FAILED] * 50, now=NOW + 1) == once


def test_what_must_not_be_ejected_is_as_soon_as_it_may() -> None:
    """Its failures are counted meanwhile; the next one ejects it."""
    known = after(NEW, *[FAILED] * 5, may=False)
    assert not known.ejected(NOW)
    assert ejected_for(after(known, FAILED)) == EJECT_SECONDS


@pytest.mark.parametrize(
    ("ejected", "others", "allowed"),
    [
        (0, 0, False), (0, 1, True), (1, 1, False), (0, 2, True), (1, 2, False), (1, 3, True), (2, 3, False),
        (49, 99, True), (50, 99, False),
    ],
)  # fmt: skip
def test_at_most_half_are_ejected_at_a_time(ejected: int, others: int, allowed: bool) -> None:
    """Of all active and healthy ones, so that an only one never is: what hits more than half is not theirs alone."""
    gone = after(NEW, *[FAILED] * EJECT_AFTER)
    assert may_eject([gone] * ejected + [NEW] * (others - ejected), NOW) is allowed


# --- rejections -------------------------------------------------------------------------------------------------------


def test_a_rejection_counts_as_full_for_longer_each_time() -> None:
    """1, 2, 4, 8 s, and 10 s from then on."""
    known, now, seconds = NEW, NOW, []
    for _ in range(6):
        known = after(known, REJECTED, now=now)
        seconds.append(round(full_for(known, now), 3))
        now += seconds[-1]
        assert not known.full(now)
    assert seconds == [1, 2, 4, 8, 10, 10]


def test_room_forgets_rejections() -> None:
    """A session has begun there, or has left it."""
    known = after(NEW, REJECTED, REJECTED, ROOM)
    assert not known.full(NOW)
    assert full_for(after(known, REJECTED)) == FULL_SECONDS


def test_a_burst_of_rejections_is_one() -> None:
    """Ten sessions that were sent there before anybody knew: full for 1 s, not for 10."""
    once = after(NEW, REJECTED)
    assert after(once, *[REJECTED] * 9, now=NOW + 0.2) == once


def test_rejections_and_failures_are_apart() -> None:
    """Who rejects a session has been connected to; room says nothing about connects."""
    assert not after(NEW, FAILED, FAILED, ROOM, REJECTED).ejected(NOW)
    assert after(NEW, FAILED, FAILED, ROOM, REJECTED, FAILED).ejected(NOW)
    assert after(NEW, REJECTED, CONNECTED).full(NOW)


# --- clocks and chance ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [TWO_DAYS, -TWO_DAYS])
def test_a_clock_that_jumps_keeps_nothing_shut(jump: float) -> None:
    """Two days on or back: neither ejected nor full for longer than either can be."""
    known = after(NEW, *[FAILED] * EJECT_AFTER, REJECTED)
    assert not known.ejected(NOW + jump)
    assert not known.full(NOW + jump)


@pytest.mark.parametrize("jump", [TWO_DAYS, -TWO_DAYS])
def test_the_machine_goes_on_after_a_clock_that_jumps(jump: float) -> None:
    """What it learns then counts from then."""
    known = after(after(NEW, *[FAILED] * EJECT_AFTER, REJECTED), FAILED, REJECTED, now=NOW + jump)
    assert ejected_for(known, NOW + jump) == 2 * EJECT_SECONDS
    assert full_for(known, NOW + jump) == 2 * FULL_SECONDS


@given(st.lists(st.tuples(st.sampled_from(Outcome), st.floats(0, 100)), max_size=60), st.floats(1e9, 4e9))
def test_whatever_happens_it_keeps_its_bounds(happened: list[tuple[Outcome, float]], now: float) -> None:
    """What ejects is at once ejected, never for more than a minute; the same for full, and 10 s."""
    known = NEW
    for outcome, later in happened:
        now += later
        before, known = known, learn(known, outcome, now, may_eject=True)
        if known.ejections > before.ejections:
            assert 0 < ejected_for(known, now) <= MAX_EJECT_SECONDS + 0.001
        if known.rejections > before.rejections:
            assert 0 < full_for(known, now) <= MAX_FULL_SECONDS + 0.001
        assert not known.ejected(now + MAX_EJECT_SECONDS + 0.001)
        assert not known.full(now + MAX_FULL_SECONDS + 0.001)

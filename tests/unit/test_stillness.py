"""How long a count was seen standing still (design, decision 8)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replicas.stillness import MAX_COUNTED_SECONDS, Stillness


def seen(*reads: tuple[object, float] | None) -> Stillness:
    """None: a read that failed."""
    stillness = Stillness()
    for read in reads:
        if read is None:
            stillness.forget_last_read()
        else:
            stillness.see(*read)
    return stillness


def test_nothing_is_known_of_what_was_seen_once() -> None:
    """It may just have moved."""
    assert seen((5, 100.0)).seconds == 0


def test_what_stands_still_is_timed_from_the_first_read() -> None:
    """By the reads between which it did not move."""
    assert seen((5, 100.0), (5, 101.0), (5, 102.5)).seconds == 2.5


def test_what_moves_is_timed_anew() -> None:
    """Whatever it moves to."""
    assert seen((5, 0.0), (5, 2.0), (6, 3.0)).seconds == 0
    assert seen((5, 0.0), (5, 2.0), (4, 3.0), (4, 4.0)).seconds == 1


def test_time_in_which_nothing_was_read_counts_little() -> None:
    """A watcher that was stopped for an hour has seen nothing of that hour."""
    assert seen((5, 0.0), (5, 3600.0)).seconds == MAX_COUNTED_SECONDS


def test_an_outage_counts_nothing() -> None:
    """Nobody could count; what was seen before it stands."""
    assert seen((5, 0.0), (5, 1.0), None, (5, 31.0)).seconds == 1
    assert seen((5, 0.0), (5, 1.0), None, (5, 31.0), (5, 32.0)).seconds == 2


def test_it_says_whether_the_last_read_found_it_moved() -> None:
    """Not of the first, before which nothing is known."""
    assert not seen((5, 0.0)).moved
    assert seen((5, 0.0), (6, 1.0)).moved
    assert not seen((5, 0.0), (6, 1.0), (6, 2.0)).moved


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 30), st.booleans()), max_size=40))
def test_never_longer_than_it_was_and_never_more_than_was_looked_at(reads: list[tuple[int, float, bool]]) -> None:
    """Upper bounds of what may be held against who counts."""
    stillness, now, since, value = Stillness(), 0.0, 0.0, None
    looks = 0
    for moves, later, fails in reads:
        now += later
        if fails:
            stillness.forget_last_read()
            continue
        if moves or value is None:
            value, since, looks = (value or 0) + 1, now, 0
        looks += 1
        seconds = stillness.see(value, now)
        assert 0 <= seconds <= now - since + 1e-6
        assert seconds <= (looks - 1) * MAX_COUNTED_SECONDS

"""What is left on a replica at its drain's deadline is closed, one after the other (issue 4, part 4)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from proxy.census import Drain
from proxy.claims import Claim, Seat
from proxy.deadlines import REASON, SPREAD_SECONDS, Deadlines

OPENED = datetime(2026, 1, 1, tzinfo=UTC)
STEP_SECONDS = 0.5


def claim(uid: str, replica: int | None = 1) -> Claim:
    seat = None if replica is None else Seat(replica, "r", "http://r")
    return Claim(uid, "client", None, OPENED, seat=seat)


class Watch:
    """A process that looks every half second, from `now` on, by its own monotonic clock."""

    def __init__(self, claims: list[Claim], now: float = 1000.0) -> None:
        self.now = self.began = now
        self.claims = claims
        self.ended: dict[str, float] = {}
        self._deadlines = Deadlines(self._end)

    def _end(self, uid: str, reason: str) -> None:
        assert reason == REASON
        self.ended[uid] = self.now - self.began
        self.claims = [each for each in self.claims if each.uid != uid]

    def look(self, drains: dict[int, Drain], seconds: float = STEP_SECONDS) -> None:
        until = self.now + seconds
        while self.now < until:
            self._deadlines.see(drains, list(self.claims), self.now)
            self.now += STEP_SECONDS


def test_what_is_left_is_closed_spread_over_ten_seconds() -> None:
    """Nothing before the deadline, the first at it, the last within 10 s, and never many at once."""
    watch = Watch([claim(f"s{number}") for number in range(40)])
    watch.look({1: Drain(1, 30)}, 29.5)
    assert watch.ended == {}
    watch.look({1: Drain(1, 30)}, 11)
    assert len(watch.ended) == 40
    times = sorted(watch.ended.values())
    assert times[0] == pytest.approx(30, abs=STEP_SECONDS)
    assert 30 + SPREAD_SECONDS * 0.9 <= times[-1] <= 30 + SPREAD_SECONDS + STEP_SECONDS
    assert max(sum(moment <= time < moment + 1 for time in times) for moment in times) <= 6


def test_a_session_that_ends_itself_keeps_the_others_to_their_moment() -> None:
    """Half of them leave after the deadline: the rest is closed no earlier for it."""
    watch = Watch([claim(f"s{number}") for number in range(10)])
    watch.look({1: Drain(1, 0)})
    watch.claims = [each for each in watch.claims if each.uid == "s9"]
    watch.look({1: Drain(1, 0)}, 12)
    assert watch.ended["s9"] == pytest.approx(9, abs=STEP_SECONDS)


def test_other_replicas_and_waiting_sessions_are_left_alone() -> None:
    """Whoever drains without a deadline, too."""
    watch = Watch([claim("drained", 1), claim("other", 2), claim("waiting", None), claim("slow", 3)])
    watch.look({1: Drain(1, 1), 3: Drain(1, None)}, 60)
    assert set(watch.ended) == {"drained"}


def test_a_drain_that_is_undone_closes_nothing() -> None:
    """Before its deadline, and in the midst of it: who is left then stays."""
    watch = Watch([claim(f"s{number}") for number in range(10)])
    watch.look({1: Drain(1, 5)}, 4)
    watch.look({}, 30)
    assert watch.ended == {}
    watch.look({1: Drain(2, 5)}, 8)
    ended = len(watch.ended)
    assert 0 < ended < 10
    watch.look({}, 30)
    assert len(watch.ended) == ended


def test_a_new_drain_counts_from_its_own_beginning() -> None:
    """It was undone and done again between two looks: nobody is closed by the first one's count."""
    watch = Watch([claim("s")])
    watch.look({1: Drain(1, 5)}, 4)
    watch.look({1: Drain(2, 5)}, 4.5)
    assert watch.ended == {}
    watch.look({1: Drain(2, 5)}, 1)
    assert "s" in watch.ended


def test_an_edited_deadline_counts_from_its_edit() -> None:
    """Nobody is closed by a deadline that an operator has just put off, nor at once by a new one."""
    watch = Watch([claim("s")])
    watch.look({1: Drain(1, 5)}, 4)
    watch.look({1: Drain(1, 20)}, 19.5)
    assert watch.ended == {}
    watch.look({1: Drain(1, 20)}, 1.5)
    assert watch.ended["s"] == pytest.approx(24, abs=2 * STEP_SECONDS)


def test_an_edit_in_the_midst_of_the_closing_puts_the_rest_off() -> None:
    """Those that are still there get the new deadline, spread again."""
    watch = Watch([claim(f"s{number}") for number in range(10)])
    watch.look({1: Drain(1, 0)}, 5)
    left = [each.uid for each in watch.claims]
    watch.look({1: Drain(1, 60)}, 59)
    assert [each.uid for each in watch.claims] == left
    watch.look({1: Drain(1, 60)}, 12)
    assert len(watch.ended) == 10


def test_every_process_counts_by_its_own_clock() -> None:
    """One that sees the drain later closes later; what either clock shows is nothing to the other."""
    early, late = Watch([claim("a")], now=5.0), Watch([claim("b")], now=9e9)
    for watch in (early, late):
        watch.look({1: Drain(1, 10)}, 12)
        assert next(iter(watch.ended.values())) == pytest.approx(10, abs=STEP_SECONDS)


def test_who_is_not_gone_at_once_is_told_again() -> None:
    """A client that does not read: the process's own ending is what bounds it."""
    told: list[str] = []
    deadlines = Deadlines(lambda uid, reason: told.append(uid))
    for now in (0.0, 0.5, 1.0):
        deadlines.see({1: Drain(1, 0)}, [claim("s")], now)
    assert told == ["s"] * 3

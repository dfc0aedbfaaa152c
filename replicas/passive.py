"""PURE. Passive health: what sessions find out about a replica, beside what the prober does.

The theory. A replica whose connects fail EJECT_AFTER times in a row is ejected: no session goes there for a while. When
that is over it gets its next chance with one failure to spare: a connect that fails ejects it again, for twice as long;
one that succeeds forgets everything. A replica that rejects a session counts as full for a while that doubles too,
until a session begins there or leaves it. The prober's verdict comes on top of both.

    connects fail ──3 in a row──▶ ejected 5 s ──over──▶ one chance ──fails──▶ ejected 10 s, 20 s … 60 s
                                                             └──succeeds──▶ as new

Called by the proxy at placement; the admin and /status show what it says. Times are Unix seconds of the wall clock,
because several processes share them; one that is further ahead than any can be was written before the clock jumped,
and counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

EJECT_AFTER = 3
EJECT_SECONDS, MAX_EJECT_SECONDS = 5.0, 60.0
FULL_SECONDS, MAX_FULL_SECONDS = 1.0, 10.0
# Of all active and healthy replicas at most this part is ejected at a time: what hits more of them is not theirs alone.
MAX_EJECTED_PART = 0.5


class Outcome(Enum):
    """What an attempt to give a replica a session came to."""

    CONNECTED = "connected"  # and the session has begun
    FAILED = "failed"  # refused, hung, no WebSocket, or one that was lost before the session had begun
    REJECTED = "rejected"  # `session_rejected`: it has no room
    ROOM = "room"  # a session has begun there, or has left it


@dataclass(frozen=True)
class Passive:
    """What is known of one replica."""

    failures: int = 0  # connects that failed in a row
    ejections: int = 0  # in a row
    ejected_until: float | None = None
    rejections: int = 0  # in a row
    full_until: float | None = None

    def ejected(self, now: float) -> bool:
        return _ahead(self.ejected_until, now, MAX_EJECT_SECONDS)

    def full(self, now: float) -> bool:
        """Has it rejected a session shortly before?"""
        return _ahead(self.full_until, now, MAX_FULL_SECONDS)


NEW = Passive()


def learn(known: Passive, outcome: Outcome, now: float, *, may_eject: bool) -> Passive:
    """The machine: old, what happened → new. `may_eject`: may one more replica be ejected (see `may_eject` below)?"""
    if outcome is Outcome.CONNECTED:
        return replace(known, failures=0, ejections=0, ejected_until=None)
    if outcome is Outcome.ROOM:
        return replace(known, rejections=0, full_until=None)
    if outcome is Outcome.REJECTED:
        if known.full(now):
            return known  # an attempt that began before
        seconds = _doubled(FULL_SECONDS, known.rejections, MAX_FULL_SECONDS)
        return replace(known, rejections=known.rejections + 1, full_until=now + seconds)
    if known.ejected(now):
        return known  # the same
    failures = known.failures + 1
    if failures < EJECT_AFTER or not may_eject:
        return replace(known, failures=failures)
    seconds = _doubled(EJECT_SECONDS, known.ejections, MAX_EJECT_SECONDS)
    return replace(known, failures=EJECT_AFTER - 1, ejections=known.ejections + 1, ejected_until=now + seconds)


def may_eject(others: Iterable[Passive], now: float) -> bool:
    """May one more be ejected, beside `others` (all other active and healthy replicas)?"""
    others = list(others)
    ejected = sum(other.ejected(now) for other in others)
    return ejected + 1 <= MAX_EJECTED_PART * (len(others) + 1)


def _ahead(until: float | None, now: float, most: float) -> bool:
    return until is not None and 0 < until - now <= most


def _doubled(seconds: float, times: int, most: float) -> float:
    return min(most, seconds * 2.0 ** min(times, 16))

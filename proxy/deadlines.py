"""Close what is left on a replica whose drain has a deadline, spread over SPREAD_SECONDS.

Used by placement.py with every look. Each process counts the deadline from when it first sees a drain, on its own
monotonic clock: a clock that jumps closes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from proxy.census import Drain
from proxy.claims import Claim

# So that all their clients do not come back in one moment.
SPREAD_SECONDS = 10.0
REASON = "replica_drained"


class Deadlines:
    """Of all drains that this process sees."""

    def __init__(self, end: Callable[[str, str], None]) -> None:
        self._end = end  # uid, reason
        self._seen: dict[tuple[int, Drain], float] = {}  # when first
        self._due: dict[str, float] = {}  # uid → when it is to end

    def see(self, drains: Mapping[int, Drain], claims: Iterable[Claim], now: float) -> None:
        """`now` in seconds of a monotonic clock."""
        current = {(replica, drain) for replica, drain in drains.items() if drain.deadline_seconds is not None}
        self._seen = {key: self._seen.get(key, now) for key in current}
        over = {
            replica: since + drain.deadline_seconds
            for (replica, drain), since in self._seen.items()
            if drain.deadline_seconds is not None and now >= since + drain.deadline_seconds
        }
        left = [claim for claim in claims if claim.seat is not None and claim.seat.replica in over]
        for number, claim in enumerate(left):
            assert claim.seat is not None
            due = over[claim.seat.replica] + SPREAD_SECONDS * number / len(left)
            if now >= self._due.setdefault(claim.uid, due):
                self._end(claim.uid, REASON)
        self._due = {claim.uid: self._due[claim.uid] for claim in left}

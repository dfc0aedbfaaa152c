"""PURE. How long has a count been seen standing still? (design, decision 8: leases are observed, not compared)

Used for the prober's lease (lease.py) and for router processes (proxy/census.py). Only time in which the watcher could
read counts, by its own monotonic clock: no clock of another machine is ever asked, so one that jumps moves nothing.
"""

from __future__ import annotations

# Between two reads no more than this is counted as seen: what was not looked at (the watcher was stopped, or its
# database slow) is no evidence against who counts.
MAX_COUNTED_SECONDS = 2.0


class Stillness:
    """One watcher's view of one count."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.moved = False  # between the last two reads
        self._seen: object = None
        self._seen_at: float | None = None  # None after a read that failed

    def see(self, value: object, now: float) -> float:
        """`value` was read by a read that began at `now`, in seconds of a monotonic clock; give `seconds`."""
        self.moved = self._seen not in (None, value)
        if value != self._seen:
            self.seconds = 0.0
        elif self._seen_at is not None:
            self.seconds += min(now - self._seen_at, MAX_COUNTED_SECONDS)
        self._seen, self._seen_at = value, now
        return self.seconds

    def forget_last_read(self) -> None:
        """The database was away: the time until the next read counts for nothing (nobody else could count either)."""
        self._seen_at = None

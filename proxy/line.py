"""One client's wait: for a turn, and then in the line, where it hears its place until it has a seat.

Used by placement.py. The line itself is in the database; here is only what one who stands in it is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxy.claims import Claim, Seat

# A waiting client hears its place at least every 5 s: a timer of half a second reminds it after so long.
TELL_SECONDS = 4.0

QUEUE_TIMEOUT = "queue_timeout"

Tell = Callable[[int, int], None]  # its position, from 1, and how many wait


class Refused(Exception):
    """There is no slot for this session, and there will be none: `reason` is one of settling.py or placement.py."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Waiter:
    """Wants a seat. In line from when a turn has found nothing for it."""

    def __init__(self, claim: Claim, tell: Tell) -> None:
        self.claim = claim
        self.seat: asyncio.Future[Seat] = asyncio.get_running_loop().create_future()
        self.in_line_since: float | None = None
        self._tell = tell
        self._told: tuple[int, int] | None = None
        self._told_at = 0.0

    def give(self, seat: Seat) -> None:
        self.claim.seat = seat
        if not self.seat.done():
            self.seat.set_result(seat)

    def refuse(self, reason: str) -> None:
        if not self.seat.done():
            self.seat.set_exception(Refused(reason))

    def hear(self, position: int, depth: int, now: float) -> None:
        """Tell the client its place where that has changed. Never a higher one than before.

        It can be one further back than it was: when a session that had a replica comes back to the head of the line.
        """
        position = self.claim.position = min(position, self.claim.position or position)
        if (position, depth) != self._told:
            self._told, self._told_at = (position, depth), now
            self._tell(position, depth)

    def remind(self, now: float, timeout_seconds: float) -> None:
        """Tell the client again what it was told last, where that is long ago, and when it has waited for too long.

        Also while the database is away.
        """
        if self.in_line_since is not None and now - self.in_line_since > timeout_seconds:
            self.refuse(QUEUE_TIMEOUT)
        elif self._told is not None and now - self._told_at >= TELL_SECONDS and not self.seat.done():
            self._told_at = now
            self._tell(*self._told)

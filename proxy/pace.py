"""Connects to a replica in slow start: one at a time, and one more for each that has succeeded (1, 2, 4, …).

Used by search.py around each attempt. Per router process. Only the connects wait: the slot is the session's already, so
that none is withheld from who waits for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime

from proxy.claims import Seat


class _Ramp:
    def __init__(self) -> None:
        self.connecting = self.connected = 0
        self.since: datetime | None = None  # the slow start that it is of; None: no look has seen it yet
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        while self.connecting > self.connected:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                else:
                    self._wake()  # it was our turn: the next one's
                raise
        self.connecting += 1

    def leave(self, connected: bool) -> None:
        self.connecting -= 1
        self.connected += connected
        for _ in range(min(self.connected + 1 - self.connecting, len(self._waiting))):
            self._wake()

    def _wake(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return


_ramps: dict[int, _Ramp] = {}


def keep_only(young: Mapping[int, datetime]) -> None:
    """`young`: the replicas that are in slow start, and since when. Any other slow start begins anew, if one comes."""
    for replica, ramp in list(_ramps.items()):
        ramp.since = ramp.since or young.get(replica)
        if ramp.since is None or ramp.since != young.get(replica):
            del _ramps[replica]  # who waits in it is woken by those that connect


@asynccontextmanager
async def paced(seat: Seat) -> AsyncIterator[None]:
    """Wait for our turn to connect; an exception inside says that the connect has failed."""
    if not seat.slow_start:
        yield
        return
    ramp = _ramps.setdefault(seat.replica, _Ramp())
    await ramp.enter()
    connected = False
    try:
        yield
        connected = True
    finally:
        ramp.leave(connected)

"""Wake other router processes through the channel layer: a slot is for one of theirs, the line has moved.

Used by placement.py. Only a nudge (design, decision 9): what has happened is in the database, and is read again on a
timer anyway. Without Redis there is nothing to do here; with Redis away nobody waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from channels.layers import get_channel_layer
from django.conf import settings

logger = logging.getLogger("proxy.placement")

# A send that takes longer is given up: the timer does it.
SEND_SECONDS = 0.5
RETRY_SECONDS = 1.0


def _channel(process: int) -> str:
    return f"router-process-{process}"


class Nudges:
    """One process's sending and hearing of nudges. Both are tasks of the owner."""

    def __init__(self, seat_given: Callable[[], None], line_moved: Callable[[], None]) -> None:
        self._heard = {"seat": seat_given, "line": line_moved}
        self._layer = get_channel_layer() if settings.REDIS_URL else None
        # Bounded by the number of processes: a second nudge to the same one says nothing new.
        self._to: dict[int, str] = {}
        self._due = asyncio.Event()
        self._away = False

    def send(self, *, seated: set[int], moved: set[int]) -> None:
        """Never waits, and may come to nothing. A slot is for a client of `seated`; in `moved` the line has moved."""
        if self._layer is not None and (seated or moved):
            self._to |= dict.fromkeys(moved - self._to.keys(), "line") | dict.fromkeys(seated, "seat")
            self._due.set()

    async def deliver(self) -> None:
        """Send what `send` was given, for ever."""
        while self._layer is not None:
            await self._due.wait()
            self._due.clear()
            to, self._to = self._to, {}
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await asyncio.gather(
                        *(self._layer.send(_channel(process), {"type": what}) for process, what in to.items())
                    )
            except Exception as fault:  # whatever a Redis client raises: none of it may reach a session
                self._lost(fault)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._found()

    async def listen(self, process: int) -> None:
        """Pass on each nudge to `process`, for ever."""
        while self._layer is not None:
            try:
                nudge = await self._layer.receive(_channel(process))
            except Exception as fault:
                self._lost(fault)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._found()
                self._heard.get(nudge["type"], _unknown)()

    def _lost(self, fault: Exception) -> None:
        if not self._away:
            logger.warning("Redis does not answer (%s); the timer does its work", type(fault).__name__)
        self._away = True

    def _found(self) -> None:
        if self._away:
            logger.warning("Redis answers again")
        self._away = False


def _unknown() -> None:
    """A nudge of another version of the router."""

"""How a link's connection is read: how much at once, and when not at all.

Made by wire.py. Must not know frames, nor the other side: it is told when there is no room there, and when more has
been read than is handled in one turn of the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

# Read at once; greater after a full read, until one is small or the other side takes no more: that takes a third
# off a frame's cost at 50 and 500 sessions (bench/). All of them from the heap (memory.py).
READ_BYTES, GREAT_READ_BYTES, SMALL_READ_BYTES = 256 * 1024, 512 * 1024, 64 * 1024


class Intake:
    """Begins with `begin()`, paused, and ends with `end()`."""

    __slots__ = ("_great", "_loop", "_more", "_take", "_transport", "_turn", "paused")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._take: Callable[[], None] | None = None
        self._great = False  # may a read be one of GREAT_READ_BYTES?
        self._more = False  # has more been read than was taken? Then nothing is read
        self._turn: asyncio.Handle | None = None
        self.paused = True

    def begin(self, transport: Any, take: Callable[[], None]) -> None:
        """`take`: handle some more of what has been read."""
        self._transport, self._take = transport, take
        transport.pause_reading()

    def end(self) -> None:
        self._transport = self._take = None
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    @property
    def holds(self) -> bool:
        """Does the peer have to wait, for whatever reason?"""
        return self.paused or self._more

    def has_read(self, size: int) -> None:
        if self._great is not (size >= (SMALL_READ_BYTES if self._great else READ_BYTES)):
            self._resize(not self._great)

    def pause(self) -> None:
        self.paused = True
        self._resize(False)
        self._transport.pause_reading()

    def resume(self) -> None:
        self.paused = False
        if self._more:
            self._schedule()
        else:
            self._transport.resume_reading()

    def ask_for_turn(self) -> None:
        """More has been read than is taken at once: others first."""
        self._more = True
        if self._transport is not None:
            self._transport.pause_reading()
            self._schedule()

    def _schedule(self) -> None:
        if self._turn is None:
            self._turn = self._loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._turn = None
        if self.paused or self._take is None:
            return
        self._more = False
        try:
            self._take()
        except BaseException:
            if self._transport is not None:
                self._transport.abort()  # as it would be, had it been raised while reading
            raise
        if self._transport is not None and not self._more and not self.paused:
            self._transport.resume_reading()

    def _resize(self, great: bool) -> None:
        if hasattr(self._transport, "max_size"):  # asyncio's own; others read as they see fit
            self._great, self._transport.max_size = great, GREAT_READ_BYTES if great else READ_BYTES

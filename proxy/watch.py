"""Is a peer still there, and does it do its part? One watch a link of wire.py, on one timer.

Any octet from the peer is a sign of life, and so is a KiB that it has taken of what it was sent. A peer that gives no
sign for a ping interval is pinged. One that takes, or inside a frame sends, less than a KiB in the stall limit is given
up. While we keep a peer from sending, or have more for it than it takes, its silence means nothing. Must not end a
session: it tells its link.
"""

from __future__ import annotations

import asyncio
import fcntl
import select
import termios
from typing import Protocol

from django.conf import settings

from proxy.errors import POLICY_VIOLATION, Close
from proxy.intake import Intake

# Less than this in a stall limit is a stall.
PROGRESS_BYTES = 1024
# The longest time from one look to the next.
LOOK_SECONDS = 5.0
# While reading is paused the event loop reports no departure: it is looked for, this often.
DEPARTURE_LOOK_SECONDS = 0.5

# At the end: for a peer that takes what was written, but slowly; and from one look at that to the next.
GOODBYE_SECONDS, GOODBYE_LOOK_SECONDS = 600.0, 0.5


class Watched(Protocol):
    """A link, as its watch sees it. `heard_at` is the loop's time; `received` and `written` count all octets."""

    heard_at: float
    received: int
    written: int
    intake: Intake

    @property
    def unsent(self) -> int: ...
    @property
    def received_frames(self) -> int: ...
    @property
    def partial(self) -> bool: ...
    def ping(self) -> None: ...
    def refuse(self, close: Close | None, why: str) -> None: ...
    def abort(self, why: str) -> None: ...


class Watch:
    """Begins when it is made, ends with `end()`. `fd` is the peer's socket, -1 where there is none to ask."""

    __slots__ = (
        "_asked_at", "_departure_timer", "_dribbled", "_fd", "_finds_departures", "_frames_mark", "_interval", "_link",
        "_looked_at", "_loop", "_period", "_received_mark", "_stall_limit", "_stalled", "_taken_mark", "_timeout",
        "_timer",
    )  # fmt: skip

    def __init__(self, link: Watched, fd: int, *, finds_departures: bool) -> None:
        """`finds_departures`: does an end of its side behind octets that we do not read mean that the peer has left?"""
        self._link: Watched | None = link
        self._fd = fd
        self._finds_departures = finds_departures and fd >= 0
        self._loop = asyncio.get_running_loop()
        self._interval: float = settings.ROUTER_PING_INTERVAL_SECONDS
        self._timeout: float = settings.ROUTER_PING_TIMEOUT_SECONDS
        self._stall_limit: float = settings.ROUTER_STALL_TIMEOUT_SECONDS
        self._period = min(LOOK_SECONDS, self._interval / 4, self._timeout / 4, self._stall_limit / 6)
        self._asked_at: float | None = None
        self._stalled = self._dribbled = 0.0
        self._taken_mark = self._received_mark = self._frames_mark = 0
        self._looked_at = self._loop.time()
        self._timer = self._loop.call_later(self._period, self._look)
        self._departure_timer: asyncio.TimerHandle | None = None

    def end(self) -> None:
        """The connection is lost: nothing is looked at any more."""
        self._link = None
        self._timer.cancel()
        if self._departure_timer is not None:
            self._departure_timer.cancel()

    def taken(self) -> int:
        """How many of the octets that were written the peer's host has taken."""
        if self._link is None:
            return 0
        return self._link.written - self._link.unsent - _in_the_kernel(self._fd)

    def outstanding(self) -> bool:
        """Is there anything that was written and the peer's host has not taken?"""
        return self._link is not None and self.taken() < self._link.written

    async def wait(self, future: asyncio.Future[None], seconds: float, patience: float) -> bool:
        """Wait for `future` for so long, and longer as long as the peer takes of what was written. Is it done?

        `patience`: seconds in which the peer must take PROGRESS_BYTES of that.
        """
        deadline = self._loop.time() + GOODBYE_SECONDS
        idle, taken = 0.0, 0
        while not future.done() and self._loop.time() < deadline:
            await asyncio.wait({future}, timeout=min(seconds, GOODBYE_LOOK_SECONDS))
            if idle >= (max(seconds, patience) if self.outstanding() else seconds):
                break
            idle, before, taken = idle + min(seconds, GOODBYE_LOOK_SECONDS), taken, self.taken()
            if taken - before >= PROGRESS_BYTES:
                idle = 0.0
        return future.done()

    def reading_paused(self) -> None:
        """Told by the link when it stops reading."""
        if self._finds_departures and self._departure_timer is None:
            self._departure_timer = self._loop.call_later(DEPARTURE_LOOK_SECONDS, self._look_for_departure)

    def _look(self) -> None:
        now = self._loop.time()
        # Of the time that passed no more counts than a look should take to come: after a stall of our own loop, or of
        # the whole process, what the peers did meanwhile is still to be read.
        elapsed = min(now - self._looked_at, 2 * self._period)
        self._looked_at = now
        wait = self._period
        if self._link is not None:
            self._look_at_output(self._link, elapsed, now)
        if self._link is not None:
            self._look_at_input(self._link, elapsed)
        if self._link is not None:
            wait = self._look_at_silence(self._link, now)
        if self._link is not None:
            self._timer = self._loop.call_later(wait, self._look)

    def _look_at_output(self, link: Watched, elapsed: float, now: float) -> None:
        taken = self.taken()
        if taken - self._taken_mark >= PROGRESS_BYTES:
            self._taken_mark, self._stalled = taken, 0.0
            link.heard_at = now
        elif not link.unsent:
            self._stalled = 0.0
        else:
            self._stalled += elapsed
            if self._stalled >= self._stall_limit:
                _refuse(link, "takes too little of what it is sent")

    def _look_at_input(self, link: Watched, elapsed: float) -> None:
        received, frames = link.received, link.received_frames
        moved = received - self._received_mark >= PROGRESS_BYTES or frames != self._frames_mark
        if moved or link.intake.holds or not link.partial:
            self._received_mark, self._frames_mark, self._dribbled = received, frames, 0.0
            return
        self._dribbled += elapsed
        if self._dribbled >= self._stall_limit:
            _refuse(link, "sends too little inside a frame")

    def _look_at_silence(self, link: Watched, now: float) -> float:
        """Ping, or give up; gives the time until the next look."""
        if link.intake.holds or link.unsent:
            self._asked_at = None
            return self._period
        if self._asked_at is not None and link.heard_at >= self._asked_at:
            self._asked_at = None
        if self._asked_at is None:
            due = link.heard_at + self._interval - now
            if due > 0:
                return min(due, self._period)
            self._asked_at = now
            link.ping()
            return min(self._timeout, self._period)
        left = self._asked_at + self._timeout - now
        if left <= 0:
            link.refuse(None, "no answer to a ping")  # it is not there any more
        return min(max(left, 0.0), self._period)

    def _look_for_departure(self) -> None:
        link, self._departure_timer = self._link, None
        if link is None or not link.intake.paused:
            return
        look = select.poll()
        look.register(self._fd, select.POLLRDHUP)
        if look.poll(0):
            link.abort("vanished")  # it closed its connection behind what we have not read
            return
        # Where even its FIN is stuck behind octets that the kernel has no room for, a frame of ours makes it say RST.
        # An answer is not expected: it would be stuck there too.
        if not link.unsent:
            link.ping()
        self._departure_timer = self._loop.call_later(DEPARTURE_LOOK_SECONDS, self._look_for_departure)


def _refuse(link: Watched, why: str) -> None:
    link.refuse(Close(POLICY_VIOLATION, why), why)


def _in_the_kernel(fd: int) -> int:
    """Octets that the peer's host has not acknowledged (SIOCOUTQ, of the same number as TIOCOUTQ; Linux)."""
    if fd < 0:
        return 0
    try:
        return int.from_bytes(fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0"), "little")
    except OSError:
        return 0

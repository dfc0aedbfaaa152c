"""Clients of the placement tests: what each was told in the line, when it was served, and how it ended.

A visitor reads all the time, so that its times are the wire's and not the test's.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.acceptance.moments import Moment
from tests.acceptance.servers import Router
from tests.raw import CLOSE, PATIENCE_SECONDS, Peer, frame, raw_client
from tests.slotted_replica import LEAVE

# The contract: a place in the line is told at once, and at least so often. No client hears nothing for longer than 3 s
# (faults.md, 50); what is usual is measured where the line is.
TELL_SECONDS = 5.0
FIRST_SECONDS = 3.0


class Told(NamedTuple):
    at: float
    position: int
    depth: int
    moment: Moment


@dataclass
class Visitor:
    """One client's session. Times are of time.monotonic(); what it may wait for at most is counted by Moments."""

    peer: Peer
    opened_at: float
    routers: tuple[int, ...] = ()  # the processes that it may wait for
    told: list[Told] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    messages: list[str | bytes] = field(default_factory=list)  # those of its replica
    served_at: float | None = None
    ended_at: float | None = None
    close: tuple[int | None, str] | None = None  # None after the end: it was cut off
    reader: asyncio.Task[None] | None = None
    _left: Moment | None = None  # any line: it was served, or had ended
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._came = Moment(*self.routers)

    @property
    def position(self) -> int | None:
        return self.told[-1].position if self.told and self.served_at is None else None

    @property
    def over(self) -> bool:
        return self.ended_at is not None

    async def read(self) -> None:
        with contextlib.suppress(ConnectionError):
            while (found := await self._frame()) is not None:
                now = time.monotonic()
                if found.opcode == CLOSE:
                    code = int.from_bytes(found.payload[:2], "big") if found.payload else None
                    self.close = code, found.payload[2:].decode()
                    await self.peer.send(frame(CLOSE, found.payload[:2], mask=self.peer.new_mask))
                    break
                self._take(found.payload.decode() if found.opcode == 1 else found.payload, now)
                self._news.set()
        self.ended_at = time.monotonic()
        self._left = self._left or Moment(*self.routers)
        self.peer.writer.close()
        self._news.set()

    async def _frame(self) -> Any:
        """As peer.frame(), but as patient as a test that waits for minutes."""
        while True:
            try:
                return await self.peer.frame()
            except TimeoutError:
                continue

    def _take(self, message: str | bytes, now: float) -> None:
        words = json.loads(message) if isinstance(message, str) and message.startswith("{") else {}
        if words.get("type") == "queue_status":
            self.told.append(Told(now, words["position"], words["queue_depth"], Moment(*self.routers)))
        elif words.get("type") == "error":
            self.errors.append(words)
        else:
            self.served_at = self.served_at or now
            self._left = self._left or Moment(*self.routers)
            self.messages.append(message)

    async def until(self, condition: Any, seconds: float = PATIENCE_SECONDS, what: str = "what was waited for") -> None:
        """Until `condition(self)` holds; an AssertionError after `seconds`, or when the session ends before."""
        began = Moment(*self.routers)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS + 2 * seconds):
                while not condition(self) and not self.over and (left := seconds - began.ago) > 0:
                    self._news.clear()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._news.wait(), left)
        assert condition(self), f"not within {seconds:g} s: {what}; {self.story}"

    async def queued(self, seconds: float = 10) -> None:
        await self.until(lambda visitor: visitor.told, seconds, "its place in the line")

    async def served(self, seconds: float = PATIENCE_SECONDS) -> None:
        await self.until(lambda visitor: visitor.served_at is not None, seconds, "its turn")

    async def end(self, seconds: float = PATIENCE_SECONDS) -> tuple[int | None, str] | None:
        """How it ended, as soon as it has."""
        await self.until(lambda visitor: visitor.over, seconds, "its end")
        return self.close

    async def leave(self) -> None:
        """Close, and wait for the answer."""
        if not self.over:
            with contextlib.suppress(ConnectionError):
                await self.peer.close()
            await self.end()

    async def have_it_end(self) -> None:
        """The replica closes."""
        await self.peer.say(LEAVE)
        await self.end()

    @property
    def refusal(self) -> tuple[str, int | None, str]:
        """The one error frame and the close that it got."""
        assert len(self.errors) == 1, self.story
        assert self.close is not None, self.story
        return self.errors[0]["code"], *self.close

    @property
    def story(self) -> str:
        return f"told {self.told}, served at {self.served_at}, errors {self.errors}, close {self.close}"

    def check_line(self) -> None:
        """What it heard in the line: at once, often enough, positions that only fall, never less than 1."""
        if not self.told:
            return
        positions = [told.position for told in self.told]
        assert positions == sorted(positions, reverse=True), self.story
        assert all(1 <= told.position <= told.depth for told in self.told), self.story
        assert self._came.until(self.told[0].moment) <= FIRST_SECONDS, self.story
        moments = [told.moment for told in self.told] + [self._left or Moment(*self.routers)]
        gaps = [before.until(after) for before, after in itertools.pairwise(moments)]
        assert max(gaps) <= TELL_SECONDS, self.story


async def visitor(router: Router | int, **options: Any) -> Visitor:
    """Connect, and begin to read."""
    port, pids = (router, ()) if isinstance(router, int) else (router.port, (router.process.pid,))
    peer = await raw_client(port, **options)
    found = Visitor(peer, time.monotonic(), pids)
    found.reader = asyncio.create_task(found.read(), name="visitor")
    return found


async def served(router: Router | int) -> Visitor:
    """A visitor that has been served."""
    found = await visitor(router)
    await found.served()
    return found


async def line_up(routers: Iterable[Router]) -> list[Visitor]:
    """A client a router, in the line in this order: each comes when the one before has heard its place."""
    line = []
    for router in routers:
        line.append(await visitor(router))
        await line[-1].queued()
    return line


async def leave_all(visitors: list[Visitor]) -> None:
    await asyncio.gather(*(found.leave() for found in visitors))


def percentile(values: list[float], part: float) -> float:
    """The smallest of `values` that so many of them do not exceed."""
    return sorted(values)[math.ceil(len(values) * part) - 1]


async def within(seconds: float, measure: Callable[[], Awaitable[float]], tries: int = 4) -> None:
    """Does `measure` give no more than `seconds`, in one of `tries`? A machine that lets processes wait is no failure.

    For times alone: what must hold every time `measure` asserts by itself.
    """
    measured = list[float]()
    while len(measured) < tries:
        measured.append(await measure())
        if measured[-1] <= seconds:
            return
    raise AssertionError(f"more than {seconds:g} s each time: {measured}")

"""This router process: its placement, the sessions it carries, and its end in order.

consumers.py registers each session here; daphne.py, or an ASGI server's lifespan, says when the process begins and
ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from django.conf import settings

from proxy import admission, instruments
from proxy.instruments import Moved
from proxy.placement import Placement
from proxy.traffic import Carrying, Count, Traffic
from replicas.instruments import watch

logger = logging.getLogger("proxy.process")

# What is left at a drain's deadline is closed over so long, so that not all clients come back in one moment.
SPREAD_SECONDS = 5.0
# To write down that we drain, and at the end what has ended; what is not written then is found by the other processes.
STOP_SECONDS = 2.0
DRAIN_REASON = "router_shutdown"


class Carried(Protocol):
    """A session as its process sees it."""

    def dismiss(self, reason: str) -> None:
        """Begin to end it: the client hears 1012 and `reason`, the replica 1001."""

    def abandon(self) -> None:
        """Say goodbye in a hurry: the process ends."""

    def carrying(self) -> Carrying | None:
        """What it has carried so far; None: its end was told to `traffic`."""

    def moved(self) -> Moved | None:
        """The same for `instruments`."""


# One a process; tests have a loop each.
_placements: WeakKeyDictionary[asyncio.AbstractEventLoop, Placement] = WeakKeyDictionary()
# Each until both sides have been told of its end.
_carried: dict[str, tuple[Carried, asyncio.Task[None]]] = {}
traffic = Traffic()
_metrics: asyncio.Task[None] | None = None
draining = False
stopping = False


def begin() -> None:
    """The event loop runs: join the census, learn what operators have set, and begin to measure."""
    global _metrics
    placement().start()
    _metrics = asyncio.create_task(watch(instruments.EXPOSED), name="metrics")


def placement() -> Placement:
    """The running loop's."""
    loop = asyncio.get_running_loop()
    if loop not in _placements:
        _placements[loop] = Placement(dismiss, carried)
    return _placements[loop]


def carry(uid: str, session: Carried, story: asyncio.Task[None]) -> None:
    """Keep a session until its story is over."""
    _carried[uid] = session, story
    story.add_done_callback(lambda _: _carried.pop(uid, None))


def dismiss(uid: str, reason: str) -> None:
    """End one session, if it is still there."""
    if uid in _carried:
        _carried[uid][0].dismiss(reason)


def carried(now: float) -> Count:
    """What this process has carried, `now` by the loop's clock."""
    each = ((uid, session.carrying()) for uid, (session, _) in _carried.items())
    return traffic.count(((uid, carrying) for uid, carrying in each if carrying is not None), now)


def _moved() -> Iterator[Moved]:
    """Of each live session. Also from another thread: the list is taken in one step."""
    for session, _ in list(_carried.values()):
        if (moved := session.moved()) is not None:
            yield moved


instruments.carried.live = _moved


async def drain() -> None:
    """Take no new sessions, let those there are go on for ROUTER_DRAIN_SECONDS, then close them one after the other."""
    global draining
    draining = True
    if not settings.ROUTER_DRAIN_SECONDS:
        return
    logger.warning("draining: %d sessions go on for up to %g s", len(_carried), settings.ROUTER_DRAIN_SECONDS)
    with contextlib.suppress(TimeoutError):  # a database that is frozen must not have us outlast who waits for our end
        async with asyncio.timeout(STOP_SECONDS):
            await placement().drain()
    await _all_gone(settings.ROUTER_DRAIN_SECONDS)
    left = list(_carried)
    for uid in left:
        dismiss(uid, DRAIN_REASON)
        await asyncio.sleep(SPREAD_SECONDS / len(left))
    await _all_gone(SPREAD_SECONDS)
    logger.warning("drained: %d sessions left", len(_carried))


async def _all_gone(seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while stories := [story for _, story in _carried.values()]:
                await asyncio.wait(stories)


async def end() -> None:
    """Tell every client 1012 and every replica 1001, and write down that they have ended; within a few seconds.

    Also those that open meanwhile: the server waits for this, and then ends the loop under any that is left.
    """
    global stopping
    stopping = True
    told: set[str] = set()
    while _carried:
        await asyncio.sleep(0)  # a story that is cancelled before its first step would not be told at all
        for uid, (session, _) in _carried.items():
            if uid not in told:
                session.abandon()
        told |= _carried.keys()
        await asyncio.wait([story for _, story in _carried.values()])
    if asyncio.get_running_loop() in _placements:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.gather(placement().stop(), admission.end())
    if _metrics is not None and not _metrics.done():
        _metrics.cancel()
        await asyncio.wait({_metrics})


async def lifespan(scope: Any, receive: Any, send: Any) -> None:
    """ASGI's lifespan protocol: how a server other than Daphne says that it begins and ends."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            begin()
        else:
            await end()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return

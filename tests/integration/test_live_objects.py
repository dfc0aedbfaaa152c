"""What remains in memory of a session that has ended: nothing, and without the garbage collector.

A reference cycle would keep each session's buffers until a full collection. Here whole sessions run in this process:
the consumer under an ASGI server that takes over as Daphne does, real sockets on both sides.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from proxy import process
from proxy.claims import Claim, Ended
from proxy.consumers import StreamConsumer
from proxy.holding import Hold
from proxy.line import Waiter
from proxy.links import TAKE_OVER
from proxy.messages import MessageLink
from proxy.models import LIVE, Session
from proxy.opening import Opening
from proxy.placement import Placement
from proxy.scanner import Scanner
from proxy.search import Search
from proxy.session import SessionLog
from proxy.watch import Watch
from proxy.wire import WireLink
from tests.integration.clients import Client, db, until
from tests.integration.placing import add_replica
from tests.raw import BINARY, CLOSE, Peer, frame, raw_replica

OURS = (
    WireLink, Watch, Opening, Search, Scanner, Hold, StreamConsumer, MessageLink, SessionLog, Claim, Waiter, Ended,
)  # fmt: skip


def live() -> Counter[str]:
    """How many of each are there now? The collector is off: what only a cycle keeps counts."""
    return Counter(type(found).__name__ for found in gc.get_objects() if type(found) in OURS)


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.asynccontextmanager
async def session() -> Any:
    """A client of a consumer in this process, taken over as daphne.py does it."""
    ours, theirs = socket.socketpair()
    received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    received.put_nowait({"type": "websocket.connect"})

    def lost() -> None:
        received.put_nowait({"type": "websocket.disconnect", "code": 1006})

    async def connect() -> WireLink:
        link = WireLink(client=True, when_lost=lost)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: link, ours)
        return link

    async def send(message: dict[str, Any]) -> None:
        message[TAKE_OVER].connect = connect

    scope = {"type": "websocket", "path": "/v1/stream", "headers": [], "query_string": b"", "client": ("test", 1)}
    application = asyncio.create_task(StreamConsumer.as_asgi()(scope, received.get, send))
    reader, writer = await asyncio.open_connection(sock=theirs)
    peer = Peer(reader, writer, client=True)
    try:
        yield peer
    finally:
        if not writer.is_closing():
            writer.close()
        async with asyncio.timeout(30):
            await application


async def ends_by_close(client: Peer) -> None:
    await client.say("hello")
    assert await client.message() == "hello"
    await client.close()
    await client.rest()


async def ends_by_a_reset(client: Peer) -> None:
    await client.say("x" * 3_000_000)
    assert await client.message()
    client.abort()


async def ends_while_it_does_not_read(client: Peer) -> None:
    client.fall_silent()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(client.send(frame(BINARY, b"x" * 500_000, mask=b"mask") * 40), 1)
    client.abort()


async def ends_by_garbage(client: Peer) -> None:
    await client.send(frame(BINARY, b"no mask"))
    assert (await client.rest()).close == (1002, "frame without a mask")


async def ends_by_its_replica(client: Peer) -> None:
    await client.say("die")
    last = await client.rest()
    assert (last.close and last.close[0]) == 1011


async def talk(peer: Peer) -> None:
    """Echo, but die when told to, in the middle of a frame."""
    while (found := await peer.frame()) is not None:
        if found.payload == b"die":
            await peer.send(frame(BINARY, b"x" * 300_000)[:100_000])
            peer.abort()
            return
        await peer.send(frame(found.opcode, found.payload, fin=found.fin))
        if found.opcode == CLOSE:
            return


@pytest.mark.parametrize(
    "use", [ends_by_close, ends_by_a_reset, ends_while_it_does_not_read, ends_by_garbage, ends_by_its_replica]
)
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_nothing_remains_of_ended_sessions(
    use: Callable[[Peer], Awaitable[None]], without_collector: None, database: str
) -> None:
    """Ten sessions that end in one way leave no link, scanner, watch, hold, claim or consumer behind, nor a task."""
    async with raw_replica(talk) as replica:
        await db(add_replica, url=replica.url, max_sessions=None)
        placement = process.placement()
        await placement.ready()
        before, tasks = live(), len(asyncio.all_tasks())
        for _ in range(10):
            async with session() as client:
                await use(client)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                while len(asyncio.all_tasks()) > tasks or live() != before:
                    await asyncio.sleep(0.01)
        assert (live(), len(asyncio.all_tasks())) == (before, tasks)
        assert await db(lambda: (Session.objects.count(), Session.objects.filter(LIVE).count())) == (10, 0)
        await placement.stop()


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_nothing_remains_of_one_that_waited(
    placement: Placement, without_collector: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does who reminds the line remember whom it has reminded last."""
    monkeypatch.setattr("proxy.placement.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("proxy.line.TELL_SECONDS", 0.1)
    await db(add_replica)
    holder = Client(placement)
    await holder.task
    before = live()

    async def wait_and_leave() -> None:
        waiting = Client(placement)
        await until(lambda: len(waiting.told) > 2)
        await waiting.leave()
        del waiting.task  # the test's own cycle

    await wait_and_leave()
    with contextlib.suppress(TimeoutError):
        await until(lambda: live() == before)
    assert live() == before
    holder.end()


async def test_the_count_can_fail(without_collector: None) -> None:
    """An object in a cycle is still counted: so is one that a session would leave."""
    before = live()
    link = MessageLink(lambda message: asyncio.sleep(0), False)
    link.source = link
    del link
    assert live() - before == Counter(MessageLink=1)

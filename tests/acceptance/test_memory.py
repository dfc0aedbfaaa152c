"""What sessions cost: clients that do not read (no more than their buffers), idle ones, and nothing after the end.

On the raw path: elsewhere the server has buffers of its own. RSS is the router's, from /proc.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Iterator

import pytest

from tests.acceptance.neighbours import descriptors, rss_kib, until
from tests.acceptance.servers import PATIENT, Router
from tests.raw import BINARY, Peer, frame, raw_client, raw_replica

MIB_KIB = 1024
FRAGMENT_KIB = 1024  # of a message that is larger, no more than such a piece is in the router at once
# The kernel sees to it that a client that does not read takes little: its buffer is this.
RECEIVE_BUFFER = 65_536
IDLE_SESSIONS, IDLE_KIB = 5_000, 40
ROUNDS = 7


async def settled_rss(router: Router) -> int:
    """Once it has stopped to grow."""
    was, now = -1, rss_kib(router)
    while now > was:
        await asyncio.sleep(1)
        was, now = now, rss_kib(router)
    return now


@pytest.mark.parametrize("router_settings", [{"ROUTER_STALL_TIMEOUT_SECONDS": "600"}])
@pytest.mark.parametrize("message_kib", [64, 8 * 1024])
async def test_clients_that_never_read_cost_a_mebibyte_each_at_most(own_router: Router, message_kib: int) -> None:
    """100 replicas send as fast as they can to clients that take nothing. A second round costs no more (memory.py)."""
    chunk = frame(BINARY, b"v" * (message_kib * 1024))
    allowed = MIB_KIB + min(message_kib, FRAGMENT_KIB)

    async def flood(peer: Peer) -> None:
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(peer.rest())
            while not listening.done():
                await peer.send(chunk)

    async def round_of(number: int) -> int:
        clients = []
        for _ in range(number):
            client = await raw_client(own_router.port, receive_buffer=RECEIVE_BUFFER)
            client.fall_silent()
            clients.append(client)
        grown = await settled_rss(own_router)
        for client in clients:
            client.abort()
        await until(lambda: descriptors(own_router) <= before, 30, "their sockets are gone")
        return grown

    async with raw_replica(flood) as replica:
        await own_router.place(replica.url)
        before = descriptors(own_router) + 10
        await round_of(1)
        start = rss_kib(own_router)
        warm, first = await round_of(100), await round_of(100)
        assert warm - start <= 100 * allowed, f"{(warm - start) / 100:.0f} KiB a client"
        # What a client happens to cost differs between rounds, upwards; of what piles up from session to session there
        # is more after each of them. (The first round also fills the heap. Object by object: test_live_objects.py.)
        rounds, grown = [warm, first], warm - start
        while grown > (warm - start) / 8:
            assert len(rounds) < ROUNDS, f"each round took more: {start} {rounds}"
            found = await round_of(100)
            grown = found - max(rounds[1:])
            rounds.append(found)


@contextlib.contextmanager
def file_descriptors(number: int) -> Iterator[None]:
    """Allow this process, and those that it starts, so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < number:
        pytest.skip(f"needs {number} file descriptors a process, has {hard}: raise the hard limit (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, number), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Before own_router in a test's arguments: it inherits the limit."""
    with file_descriptors(2 * IDLE_SESSIONS + 500):
        yield


class Idle(asyncio.Protocol):
    """A client that has asked for an upgrade, and then says nothing and hears nothing."""

    def __init__(self) -> None:
        self.head, self.open = b"", asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(  # type: ignore[attr-defined]
            b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )

    def data_received(self, data: bytes) -> None:
        self.head += data
        if self.head.endswith(b"begin") and not self.open.done():
            self.open.set_result(None)

    def connection_lost(self, fault: Exception | None) -> None:
        if not self.open.done():
            self.open.set_exception(AssertionError(f"ended before it had begun ({fault}): {self.head!r}"))


# That a machine opens so many slowly is no fault of theirs.
@pytest.mark.parametrize("router_settings", [PATIENT])
async def test_idle_sessions_cost_40_kib_each_at_most(many_descriptors: None, own_router: Router) -> None:
    """13: 5,000 sessions that have begun and are silent (two sockets and two links each); all go when they leave."""
    loop = asyncio.get_running_loop()
    async with raw_replica(first=frame(BINARY, b"begin")) as replica:
        await own_router.place(replica.url)

        async def open_idle(number: int) -> list[Idle]:
            opened = []
            for _ in range(number):
                _, idle = await loop.create_connection(Idle, "127.0.0.1", own_router.port)
                await asyncio.wait_for(idle.open, 60)
                opened.append(idle)
            return opened

        before = descriptors(own_router) + 10
        sessions = await open_idle(50)  # what only the first ones cost: pools, threads, caches
        start = rss_kib(own_router)
        for part in await asyncio.gather(*(open_idle(IDLE_SESSIONS // 10) for _ in range(10))):
            sessions += part
        each = (await settled_rss(own_router) - start) / IDLE_SESSIONS
        for idle in sessions:
            idle.transport.abort()  # type: ignore[attr-defined]
        await until(lambda: descriptors(own_router) <= before, 60, "their sockets are gone")
    assert each <= IDLE_KIB, f"{each:.1f} KiB a session"

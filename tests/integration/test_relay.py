"""The relay and the replica's link where time matters: silence, stalls, slow look-ups, bounded goodbyes.

In this process, so that the settings can be fractions of a second; the replicas are real servers.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from django.test import override_settings
from twisted.internet.testing import StringTransport
from websockets.asyncio.server import ServerConnection

from proxy.errors import Close
from proxy.forwarding import Handshake
from proxy.relay import relay
from proxy.upstream import CLOSE_SECONDS, ReplicaLink, ReplicaUnreachable, open_replica
from proxy.wire import WireLink
from tests.fake_replica import fake_replica, raw_server

PLAIN = Handshake(query="", subprotocol=None, headers=())
QUICK_PINGS = override_settings(ROUTER_PING_INTERVAL_SECONDS=0.2, ROUTER_PING_TIMEOUT_SECONDS=0.2)


@pytest.fixture
async def client() -> AsyncIterator[WireLink]:
    transport = StringTransport()
    transport.registerProducer(object(), True)
    link = WireLink(transport, 1024 * 1024)
    yield link
    if not link.lost:
        link.connection_lost()


def upgraded(then: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> Any:
    """A server's talk: the handshake done right, then `then`."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = next(line.split(": ")[1] for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key"))
        magic = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(magic) + b"\r\n\r\n"
        )
        await then(reader, writer)

    return talk


async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As a stopped process: the connection stands, nothing comes, nothing is read."""
    await asyncio.sleep(3600)


@QUICK_PINGS
async def test_a_silent_replica_is_found_by_a_ping(client: WireLink) -> None:
    """What its client gets is that of a lost replica: worker_failed and 1011."""
    async with raw_server(upgraded(stay_silent)) as replica:
        link = await open_replica(replica.url, PLAIN, 2)
        client.heard_at = time.monotonic() + 3600  # this client is not what the test is about
        async with asyncio.timeout(5):
            ending = await relay(client, link, "s1")
    assert (ending.by, ending.why) == ("replica", "no answer to a ping")
    assert ending.to_client == Close(1011, "replica_lost")


@QUICK_PINGS
async def test_a_silent_client_is_found_by_a_ping() -> None:
    """A half-open connection: the replica hears 1001."""
    transport = StringTransport()
    transport.registerProducer(object(), True)
    link = WireLink(transport, 1024)
    transport.abortConnection = link.connection_lost  # type: ignore[method-assign]  (what a real one leads to)
    async with fake_replica() as replica:
        upstream = await open_replica(replica.url, PLAIN, 2)
        async with asyncio.timeout(5):
            ending = await relay(link, upstream, "s1")
        await upstream.close(Close(1000))
    assert (ending.by, ending.to_replica) == ("client", Close(1001))
    assert transport.value().startswith(b"\x89\x00")  # it was asked


@QUICK_PINGS
async def test_a_replica_that_is_held_back_is_not_taken_for_dead(client: WireLink) -> None:
    """While the client takes nothing the replica's answers cannot be read: its silence means nothing."""

    async def flood(connection: ServerConnection) -> None:
        while True:
            await connection.send(b"v" * 65_536)

    async with fake_replica(flood) as replica:
        link = await open_replica(replica.url, PLAIN, 2)
        client.heard_at = time.monotonic() + 3600
        client.pauseProducing()
        relaying = asyncio.create_task(relay(client, link, "s1"))
        seen = await replica.wait_seen()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.5):  # several ping intervals and timeouts
                await seen.over.wait()
        assert not seen.over.is_set()
        assert not relaying.done()
        relaying.cancel()
        await asyncio.wait({relaying})
        await link.close(Close(1001))


async def test_a_slow_look_up_is_bounded_and_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connect timeout covers DNS, and the event loop goes on (faults.md, 34)."""

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(1.5)
        raise socket.gaierror(socket.EAI_AGAIN, "slow")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    started = time.monotonic()
    with pytest.raises(ReplicaUnreachable, match=r"no WebSocket within 0\.3 s"):
        await open_replica("http://slow.example:8000", PLAIN, 0.3)
    assert time.monotonic() - started < 1
    assert ticks > 5
    ticking.cancel()


async def test_names_that_hang_do_not_stop_the_look_ups_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio's own few resolver threads would all be taken by one name server that does not answer."""
    resolve, released = socket.getaddrinfo, threading.Event()

    def hang_for_some(host: Any, *arguments: Any, **options: Any) -> Any:
        if host == "slow.example":
            released.wait(20)
        return resolve("localhost", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang_for_some)
    try:
        async with fake_replica() as replica:
            hanging = [open_replica("http://slow.example:8000", PLAIN, 0.5) for _ in range(20)]
            found = asyncio.gather(*hanging, return_exceptions=True)
            await asyncio.sleep(0)
            link = await open_replica(replica.url.replace("127.0.0.1", "localhost"), PLAIN, 2)
            await link.close(Close(1000))
            assert all(isinstance(error, ReplicaUnreachable) for error in await found)
    finally:
        released.set()


async def test_a_goodbye_to_a_replica_that_stopped_reading_is_bounded() -> None:
    """Its connection is aborted after CLOSE_SECONDS, and nothing of it stays."""
    async with raw_server(upgraded(stay_silent)) as replica:
        link = await open_replica(replica.url, PLAIN, 2)
        sending = asyncio.create_task(_flood(link))
        await asyncio.wait({sending}, timeout=0.2)
        started = time.monotonic()
        await link.close(Close(1001))
        assert time.monotonic() - started < CLOSE_SECONDS + 1
        sending.cancel()
        await asyncio.wait({sending})


async def _flood(link: ReplicaLink) -> None:
    while True:
        await link.send(b"x" * 1_000_000)


async def test_a_cancelled_connect_leaves_nothing_open() -> None:
    """The server sees its connection end at once."""
    reached, over = asyncio.Event(), asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        await reader.read(-1)
        over.set()

    async with raw_server(hang) as replica:
        opening = asyncio.create_task(open_replica(replica.url, PLAIN, 10))
        async with asyncio.timeout(5):
            await reached.wait()
            opening.cancel()
            await asyncio.wait({opening})
            await over.wait()


@pytest.mark.parametrize(
    "octets", [b"\xc1\x00", b"\x83\x00", b"\x81\x85\0\0\0\0hello", b"\x80\x01x", b"\x89\x7e\x00\x80" + b"x" * 128]
)
async def test_garbage_from_a_replica_is_a_lost_replica(client: WireLink, octets: bytes) -> None:
    """RSV bits, reserved opcodes, masked frames, a continuation of nothing, a long ping (faults.md, 31)."""

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x81\x02hi" + octets)
        await reader.read(-1)

    async with raw_server(upgraded(send)) as replica:
        link = await open_replica(replica.url, PLAIN, 2)
        async with asyncio.timeout(5):
            ending = await relay(client, link, "s1")
        await link.close(Close(1001))
    assert ending.to_client == Close(1011, "replica_lost")
    assert "s1" in (ending.error_frame or "")


@override_settings(ROUTER_MAX_MESSAGE_BYTES=1000)
async def test_a_replicas_message_over_the_limit_ends_with_1009(client: WireLink) -> None:
    """As the table of close codes says, whoever sent it."""

    async def talk(connection: ServerConnection) -> None:
        await connection.send(b"x" * 1001)
        await connection.wait_closed()

    async with fake_replica(talk) as replica:
        link = await open_replica(replica.url, PLAIN, 2)
        async with asyncio.timeout(5):
            ending = await relay(client, link, "s1")
        await link.close(ending.to_replica or Close(None))
    assert ending.to_client is not None
    assert ending.to_client.code == 1009

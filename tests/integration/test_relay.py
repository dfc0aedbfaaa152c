"""Opening a replica, and the relay once it is open: where time or a bound matters.

In this process, so that the settings can be fractions of a second; the replicas are real servers, and the client is a
real socket (tests/wire_peers.py). What happens before a session has begun is in test_opening.py.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any

import pytest
from django.test import override_settings
from websockets.asyncio.server import ServerConnection

from proxy import frames
from proxy.errors import Close, Ending
from proxy.messages import MessageLink
from proxy.opening import Opening
from proxy.scanner import FRAGMENT_BYTES
from proxy.upstream import ReplicaUnreachable, open_replica
from tests.fake_replica import fake_replica, handshake_answer, raw_server, upgraded
from tests.wire_peers import PLAIN, relayed, wired


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
    assert ticks > 2, "blocked, it had one at most"
    ticking.cancel()


async def test_names_that_hang_do_not_stop_the_look_ups_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio's own few resolver threads would all be taken by one name server that does not answer."""
    resolve, released, asked = socket.getaddrinfo, threading.Event(), 0

    def hang_for_some(host: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal asked
        if host == "hanging.example":
            asked += 1
            released.wait(20)
        return resolve("localhost", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang_for_some)
    try:
        async with fake_replica() as replica:
            hanging = [open_replica("http://hanging.example:8000", PLAIN, 0.5) for _ in range(20)]
            found = asyncio.gather(*hanging, return_exceptions=True)
            await asyncio.sleep(0)
            link = await open_replica(replica.url.replace("127.0.0.1", "localhost"), PLAIN, 2)
            await link.close(Close(1000))
            assert all(isinstance(error, ReplicaUnreachable) for error in await found)
            assert asked == 1  # for all of them together
    finally:
        released.set()


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


async def test_frames_that_come_with_the_handshake_are_not_lost() -> None:
    """A first message of 200 KB in one piece with the 101, and a head that comes octet by octet (facts: websockets)."""
    first = frames.build(frames.BINARY, b"v" * 200_000)

    for size in (1_000_000, 1):

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int = size) -> None:
            answer = await handshake_answer(reader)
            head = answer[: len(answer) if size == 1 else 0]
            for at in range(0, len(head), size):
                writer.write(head[at : at + size])
                await writer.drain()
                await asyncio.sleep(0)
            writer.write(answer[len(head) :] + first)
            await reader.read(-1)

        async with raw_server(talk) as replica, wired(client=True, start=False) as client:
            opening = Opening(client.link, "s1")
            relaying = asyncio.create_task(relayed(client, opening, replica.url))
            found = await client.receives(lambda frames: bool(frames))
            assert [frame.data for frame in found] == [b"v" * 200_000]
            client.socket.close()
            await relaying
            opening.end()


@pytest.mark.parametrize(
    "octets", [b"\xc1\x00", b"\x83\x00", b"\x81\x85\0\0\0\0hello", b"\x80\x01x", b"\x89\x7e\x00\x80" + b"x" * 128]
)
async def test_garbage_from_a_replica_is_a_lost_replica(octets: bytes) -> None:
    """RSV bits, reserved opcodes, masked frames, a continuation of nothing, a long ping (faults.md, 31)."""

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x81\x02hi" + octets)
        await reader.read(-1)

    async with raw_server(upgraded(send)) as replica, wired(client=True, start=False) as client:
        opening = Opening(client.link, "s1")
        ending = await relayed(client, opening, replica.url)
        opening.end()
    assert isinstance(ending, Ending)
    assert ending.to_client == Close(1011, "replica_lost")
    assert "s1" in (ending.error_frame or "")


@override_settings(ROUTER_MAX_MESSAGE_BYTES=1000)
async def test_a_replicas_message_over_the_limit_ends_with_1009() -> None:
    """As the table of close codes says, whoever sent it."""

    async def talk(connection: ServerConnection) -> None:
        await connection.send("begun")
        await connection.send(b"x" * 1001)
        await connection.wait_closed()

    async with fake_replica(talk) as replica, wired(client=True, start=False) as client:
        opening = Opening(client.link, "s1")
        ending = await relayed(client, opening, replica.url)
        opening.end()
    assert isinstance(ending, Ending)
    assert ending.to_client is not None
    assert ending.to_client.code == 1009


async def test_a_replica_lost_inside_a_message_leaves_no_error_frame() -> None:
    """Once a fragment has gone out, a text frame would be part of that message: the close alone says it."""

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frames.build(frames.BINARY, b"v" * 3_000_000)[:2_000_000])
        await writer.drain()

    async with raw_server(upgraded(send)) as replica, wired(client=True, start=False) as client:
        opening = Opening(client.link, "s1")
        relaying = asyncio.create_task(relayed(client, opening, replica.url))
        (fragment,) = await client.receives(lambda frames: bool(frames))
        ending = await relaying
        opening.end()
    assert (len(fragment.data), fragment.fin) == (FRAGMENT_BYTES, False)
    assert isinstance(ending, Ending)
    assert (ending.error_frame, ending.to_client) == (None, Close(1011, "replica_lost"))


async def test_another_close_is_the_replicas_answer() -> None:
    """It is passed on, begun or not."""

    async def talk(connection: ServerConnection) -> None:
        await connection.close(4002, "no such preset")

    async with fake_replica(talk) as replica, wired(client=True, start=False) as client:
        opening = Opening(client.link, "s1")
        ending = await relayed(client, opening, replica.url)
        opening.end()
    assert isinstance(ending, Ending)
    assert (ending.to_client, ending.error_frame) == (Close(4002, "no such preset"), None)


async def test_bytes_are_octets_also_where_the_client_takes_messages() -> None:
    """Not characters: bytes up and down are compared."""

    async def send(message: dict[str, Any]) -> None: ...

    link = MessageLink(send, secure=False)
    link.start(lambda units: None)
    await link.message_received("é" * 1000)
    await link.message_received(b"abc")
    assert (link.received_frames, link.received_bytes) == (2, 2003)


async def test_messages_of_next_to_nothing_are_bounded_and_hold_up_nobody() -> None:
    """Each costs more than its payload: the replica is paused for them too, and others have their turn in between."""
    given, turns = 0, 0
    paused: list[bool] = []

    async def send(message: dict[str, Any]) -> None:
        nonlocal given
        given += 1

    class Source:
        def pause_reading(self) -> None:
            paused.append(True)

        def resume_reading(self) -> None:
            paused.append(False)

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    link: Any = MessageLink(send, secure=False)
    link.source = Source()
    taking_turns = asyncio.create_task(take_turns())
    link.write([frames.build(frames.BINARY, b"")] * 10_000)
    assert paused[0]
    async with asyncio.timeout(10):
        await link.writable()
    taking_turns.cancel()
    assert given == 10_000
    assert paused[-1] is False
    assert turns >= 10_000 // link.MANY_MESSAGES - 1

"""A session until it has begun (proxy/opening.py): what is held, what is replayed, and what begins it.

In this process, so that the bounds can be small; the replicas are real servers, and the client is a real socket
(tests/wire_peers.py). The relay itself is in test_relay.py.
"""

from __future__ import annotations

import asyncio
import errno
import io
import json
from typing import Any

import pytest
from django.test import override_settings
from websockets.asyncio.server import ServerConnection
from websockets.frames import Opcode

from proxy import frames, holding
from proxy.errors import Close, Ending
from proxy.frames import CloseFrame
from proxy.opening import Opening
from proxy.relay import NotBegun, relay
from proxy.scanner import FRAGMENT_BYTES, Scanner
from proxy.upstream import open_replica
from tests.fake_replica import fake_replica, raw_server, upgraded
from tests.wire_peers import PLAIN, relayed, wired

KEY = b"\x01\x02\x03\x04"
QUEUED = json.dumps({"type": "queue_status", "position": 1, "queue_depth": 1})
REJECTED = json.dumps({"type": "error", "code": "session_rejected", "message": "all slots are taken"})
SURROGATE = b'{"type": "error", "code": "session_rejected", "message": "\xed\xa0\x80"}'


@pytest.mark.parametrize("code", [None, 1001, 1011, 1012, 1013])
async def test_what_a_client_sent_is_given_to_the_next_replica(code: int | None) -> None:
    """A replica that is lost, or cannot go on, before the session has begun: all is held (faults.md, 26)."""
    given: list[str | bytes] = []

    async def give_up(connection: ServerConnection) -> None:
        await connection.send(QUEUED)
        given.append(await connection.recv())
        if code is None:
            connection.transport.abort()
        else:
            await connection.close(code)

    async with fake_replica(give_up) as first, fake_replica() as second, wired(client=True, start=False) as client:
        opening = Opening(client.link, "s1")
        client.protocol.send_text(b"init", fin=False)
        client.protocol.send_ping(b"held?")  # answered, and not held
        client.protocol.send_continuation(b" one", fin=True)
        client.protocol.send_binary(b"two")
        await client.sends()
        outcome = await relayed(client, opening, first.url)
        assert isinstance(outcome, NotBegun)
        assert outcome.rejection is None
        assert opening.repeatable
        relaying = asyncio.create_task(relayed(client, opening, second.url))
        found = await client.receives(lambda frames: len(frames) == 4)
        assert [(frame.opcode, frame.data) for frame in found] == [
            (Opcode.PONG, b"held?"),
            (Opcode.TEXT, QUEUED.encode()),
            (Opcode.TEXT, b"init one"),
            (Opcode.BINARY, b"two"),
        ]
        assert not opening.repeatable
        assert holding.held_by_all() == 0
        client.socket.close()
        await relaying
        opening.end()
    assert given == ["init one"]


async def test_a_rejection_is_withheld_until_its_close() -> None:
    """The client hears of it only where no other replica is left; then once, with its close."""

    async def reject(connection: ServerConnection) -> None:
        await connection.send(REJECTED)
        await connection.close(1013, "busy")

    async with fake_replica(reject) as replica, wired(client=True, start=False) as client:
        opening = Opening(client.link, "s1")
        outcome = await relayed(client, opening, replica.url)
        opening.end()
        assert isinstance(outcome, NotBegun)
        assert outcome.rejection is not None
        assert (outcome.rejection.error_frame, outcome.rejection.to_client) == (REJECTED, Close(1013, "busy"))
        client.link.write([frames.build(frames.TEXT, b"end")])
        assert [frame.data for frame in await client.receives(bool)] == [b"end"]


async def test_a_rejection_that_something_follows_was_no_last_word() -> None:
    """It goes on, before what follows."""

    async def talk(connection: ServerConnection) -> None:
        await connection.send(REJECTED)
        await connection.send("after all")
        await connection.close(1000)

    async with fake_replica(talk) as replica, wired(client=True, start=False) as client:
        opening = Opening(client.link, "s1")
        relaying = asyncio.create_task(relayed(client, opening, replica.url))
        found = await client.receives(lambda frames: len(frames) == 2)
        await relaying
        opening.end()
    assert [frame.data for frame in found] == [REJECTED.encode(), b"after all"]


@pytest.mark.parametrize(
    "said",
    [b'{"type": "error", "code"', b"[" * 4000, b'["error"]', b'{"type": "ltx2_stream_start"}', b"\xff", SURROGATE],
    ids=["broken", "deep", "a list", "another type", "not UTF-8", "a rejection that is not UTF-8"],
)
async def test_any_other_message_begins_the_session(said: bytes) -> None:
    """Whatever it is: only queue_status and error come before a beginning."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frames.build(frames.TEXT, said))

    async with raw_server(upgraded(talk)) as replica, wired(client=True, start=False) as client:
        opening = Opening(client.link, "s1")
        ending = await relayed(client, opening, replica.url)
        opening.end()
    assert opening.begun
    assert isinstance(ending, Ending)


@override_settings(ROUTER_HOLD_BYTES=100_000)
async def test_past_the_bound_of_a_hold_the_client_waits_until_it_has_a_replica() -> None:
    """Its reading is paused, nothing is lost; but then it is for this replica or none."""
    message = b"x" * 1_000_000

    async with fake_replica() as replica, wired(client=True, start=False) as client:
        opening = Opening(client.link, "s1")
        sending = asyncio.create_task(client.sends(frames.build(frames.BINARY, message, KEY) * 3))
        async with asyncio.timeout(5):
            while not client.link.intake.paused:
                await asyncio.sleep(0.005)
        assert holding.held_by_all() <= 100_000 + FRAGMENT_BYTES + 262_144
        relaying = asyncio.create_task(relayed(client, opening, replica.url))
        found = await client.receives(lambda frames: len(frames) == 3)
        await sending
        assert [frame.data == message for frame in found] == [True] * 3
        client.socket.close()
        await relaying
        opening.end()
    assert holding.held_by_all() == 0


@override_settings(ROUTER_HOLD_TOTAL_BYTES=100_000)
async def test_the_bound_of_all_holds_together_holds_too() -> None:
    """One client's init must not be another's chance to exhaust the memory."""
    frame = frames.build(frames.BINARY, b"x" * 60_000, KEY)
    async with wired(client=True, start=False) as one, wired(client=True, start=False) as two:
        openings = [Opening(one.link, "s1"), Opening(two.link, "s2")]
        for peer in (one, two):
            await peer.sends(frame)
        async with asyncio.timeout(5):
            while not two.link.intake.paused:
                await asyncio.sleep(0.005)
        for opening in openings:
            opening.end()
    assert holding.held_by_all() == 0


async def test_a_client_that_closes_at_once_is_heard_to_its_end() -> None:
    """All that it sent, then its close, also where its replica opens only then."""
    async with fake_replica(quiet) as replica, wired(client=True, start=False) as client:
        opening = Opening(client.link, "s1")
        client.protocol.send_binary(b"x" * 100_000)
        client.protocol.send_close(4000, "bye")
        await client.sends()
        ending = await relayed(client, opening, replica.url)
        seen = await replica.wait_seen()
        async with asyncio.timeout(5):
            await seen.over.wait()
        opening.end()
    assert isinstance(ending, Ending)
    assert (seen.messages, seen.close_code, seen.close_reason) == ([b"x" * 100_000], 4000, "bye")


async def test_a_client_that_closes_behind_much_is_heard_by_a_slow_replica() -> None:
    """However long the replica takes for it: only one that takes nothing is given up."""
    message = b"x" * 12_000_000

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(262_144):
            received.append(data)
            await asyncio.sleep(0.01)

    received: list[bytes] = []
    async with raw_server(upgraded(slow)) as replica, wired(client=True, start=False) as client:
        opening = Opening(client.link, "s1")
        sending = asyncio.create_task(
            client.sends(frames.build(frames.BINARY, message, KEY) + frames.build_close(4000, "bye", KEY))
        )
        relaying = asyncio.create_task(relayed(client, opening, replica.url))
        await sending
        ending = await relaying
        opening.end()
    assert isinstance(ending, Ending)
    octets = b"".join(received)
    scanner = Scanner(masked=True, max_message_bytes=48 * 1024 * 1024)
    last = scanner.feed(octets)[-1]
    assert (scanner.frames, scanner.payload_bytes) == (12, len(message))
    assert last == CloseFrame(4000, "bye")


async def test_while_a_replica_does_not_take_what_is_held_its_client_is_heard() -> None:
    """Its ping is answered and its close seen: the replay has its own push-back, and the hold has room."""

    async def look_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frames.build(frames.TEXT, QUEUED.encode()))
        await released.wait()

    released = asyncio.Event()
    async with raw_server(upgraded(look_away)) as replica, wired(client=True, start=False) as client:
        opening = Opening(client.link, "s1")
        await client.sends(frames.build(frames.BINARY, b"x" * 12_000_000, KEY))
        link = await open_replica(replica.url, PLAIN, 2)
        relaying = asyncio.create_task(relay(client.link, link, opening, "s1"))
        async with asyncio.timeout(5):
            while not link.unsent:
                await asyncio.sleep(0.005)
        client.protocol.send_ping(b"still there?")
        await client.sends()
        assert (await client.hears(Opcode.PONG)).data == b"still there?"
        client.protocol.send_close(4001, "enough")
        await client.sends()
        async with asyncio.timeout(5):
            assert (await asyncio.shield(client.link.gone)).close == Close(4001, "enough")
        released.set()
        link.abort()
        await relaying
        opening.end()


@pytest.mark.parametrize("when", ["it is held", "it is replayed"])
async def test_a_full_disk_ends_the_session_and_says_so(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """1011: what cannot be held can be given to nobody."""

    class FullDisk(io.BytesIO):
        def write(self, data: Any) -> int:
            if when == "it is held":
                raise OSError(errno.ENOSPC, "no space left on device")
            return super().write(data)

        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(holding.tempfile, "SpooledTemporaryFile", lambda size: FullDisk())
    async with fake_replica() as replica, wired(client=True, start=False) as client:
        opening = Opening(client.link, "s1")
        await client.sends(frames.build(frames.BINARY, b"x" * 1000, KEY))
        async with asyncio.timeout(5):
            while not client.link.received_frames:
                await asyncio.sleep(0.005)
        ending = await relayed(client, opening, replica.url)
        opening.end()
    assert isinstance(ending, Ending)
    assert (ending.to_client, ending.to_replica) == (Close(1011, "internal_error"), Close(1001))
    assert json.loads(ending.error_frame or "")["code"] == "worker_failed"


async def quiet(connection: ServerConnection) -> None:
    async for message in connection:
        connection.seen.messages.append(message)  # type: ignore[attr-defined]

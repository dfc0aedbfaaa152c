"""A session from 101 to close, as a client and a replica see it (contract A1, design: close codes).

Real servers on both sides; every test runs on daphne and on uvicorn.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from tests.acceptance.servers import MAX_MESSAGE_BYTES, Router
from tests.fake_replica import echo, fake_replica

WORKER_FAILED = {"type": "error", "code": "worker_failed", "retryable": True}


def client(router: Router, **options: Any) -> connect:
    return connect(
        options.pop("url", router.stream_url), **{"compression": None, "max_size": None, "proxy": None} | options
    )


async def rest_of(connection: ClientConnection) -> list[str | bytes]:
    """Every message until the close; a session ends within seconds or the test fails."""
    messages = []
    async with asyncio.timeout(15):
        try:
            while True:
                messages.append(await connection.recv())
        except ConnectionClosed:
            return messages


def ended_with(connection: ClientConnection) -> tuple[int | None, str | None]:
    return connection.close_code, connection.close_reason


async def test_messages_keep_their_type_and_order(router: Router) -> None:
    """Text stays text and binary binary, empty ones too, in the order in which they were sent."""
    sent: list[str | bytes] = ["", b"", "hello", b"\x00\xff", "é" * 1000, b"x" * 70_000, "", b""]
    async with fake_replica() as replica:
        await router.place(replica.url)
        async with client(router) as connection:
            for message in sent:
                await connection.send(message)
            assert [await connection.recv() for _ in sent] == sent


@pytest.mark.parametrize("kind", [str, bytes])
async def test_a_message_of_43_mib_passes_both_ways(router: Router, kind: type) -> None:
    """A client's init with its image, and a replica's snapshot, arrive byte-identical (A7.4, faults.md 8)."""
    size = 43 * 1024 * 1024
    message = os.urandom(size) if kind is bytes else os.urandom(size // 2).hex()
    async with fake_replica() as replica:
        await router.place(replica.url)
        async with client(router) as connection:
            await connection.send(message)
            received = await connection.recv()
    assert type(received) is kind
    assert hashlib.sha256(_octets(received)).digest() == hashlib.sha256(_octets(message)).digest()


async def test_fragments_with_pings_between_arrive_as_one_message(router: Router) -> None:
    """A fragmented message is delivered whole, whatever control frames come between its fragments."""
    async with fake_replica() as replica:
        await router.place(replica.url)
        async with client(router) as connection:
            connection.protocol.send_text(b"one ", fin=False)
            connection.protocol.send_ping(b"between")
            connection.protocol.send_continuation(b"two ", fin=False)
            connection.protocol.send_ping(b"again")
            connection.protocol.send_continuation(b"three", fin=True)
            connection.send_data()
            assert await connection.recv() == "one two three"


async def test_a_replica_that_speaks_first_is_heard(router: Router) -> None:
    """The bridge never waits for the client to speak first (contract B)."""

    async def talk(connection: ServerConnection) -> None:
        await connection.send('{"type": "queue_status"}')
        await echo(connection)

    async with fake_replica(talk) as replica:
        await router.place(replica.url)
        async with client(router) as connection:
            async with asyncio.timeout(5):
                assert await connection.recv() == '{"type": "queue_status"}'


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1008, 1011, 1012, 1013, 3000, 4001, 4999])
async def test_a_replicas_close_reaches_the_client(router: Router, code: int) -> None:
    """The replica's code and reason are the client's, after all the data sent before (A7.2, faults.md 32)."""

    async def talk(connection: ServerConnection) -> None:
        for _ in range(20):
            await connection.send(b"v" * 65_536)
        await connection.close(code, "rëason")

    async with fake_replica(talk) as replica:
        await router.place(replica.url)
        async with client(router) as connection:
            assert await rest_of(connection) == [b"v" * 65_536] * 20
            assert ended_with(connection) == (code, "rëason")


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1008, 1011, 3000, 4001, 4999])
async def test_a_clients_close_reaches_the_replica(router: Router, code: int) -> None:
    """The client's code and reason are the replica's, after all the data sent before; the client gets its echo."""

    async def talk(connection: ServerConnection) -> None:
        async for message in connection:
            connection.seen.messages.append(message)  # type: ignore[attr-defined]

    async with fake_replica(talk) as replica:
        await router.place(replica.url)
        connection = await client(router)
        seen = await replica.wait_seen()
        for _ in range(20):
            await connection.send(b"v" * 65_536)
        await connection.close(code, "rëason")
        async with asyncio.timeout(5):
            await seen.over.wait()
        assert (seen.close_code, seen.close_reason) == (code, "rëason")
        assert seen.messages == [b"v" * 65_536] * 20
        assert ended_with(connection) == (code, "rëason")


async def test_a_client_that_vanishes_is_gone_for_the_replica_within_a_second(router: Router) -> None:
    """A reset connection reaches the replica as 1001 (faults.md, 1)."""
    async with fake_replica() as replica:
        await router.place(replica.url)
        connection = await client(router)
        seen = await replica.wait_seen()
        connection.transport.abort()
        started = router.moment()
        async with asyncio.timeout(60):
            await seen.over.wait()
        assert seen.close_code == 1001
        assert started.ago < 1


async def test_a_replica_that_dies_leaves_an_error_frame_and_1011(router: Router) -> None:
    """What it sent arrives, then exactly one worker_failed frame with the session's id, then 1011 (A7.3)."""

    async def talk(connection: ServerConnection) -> None:
        await connection.send(b"v" * 65_536)
        connection.transport.abort()

    async with fake_replica(talk) as replica:
        await router.place(replica.url)
        async with client(router) as connection:
            video, error = await rest_of(connection)
            assert ended_with(connection)[0] == 1011
    assert video == b"v" * 65_536
    frame = json.loads(error)
    assert frame | WORKER_FAILED == frame
    assert frame["message"].startswith("router bridge failed: ")
    session = frame["message"].rpartition("(session ")[2].rstrip(")")
    assert session == replica.seen[0].request.headers["X-Request-ID"]
    assert replica.url.rpartition(":")[2] not in error
    assert "127.0.0.1" not in error


async def test_a_message_over_the_limit_ends_with_1009(router: Router) -> None:
    """The client is told 1009 and the replica 1001 (faults.md, 7)."""
    async with fake_replica() as replica:
        await router.place(replica.url)
        connection = await client(router)
        seen = await replica.wait_seen()
        with contextlib.suppress(ConnectionClosed):
            await connection.send(b"x" * (MAX_MESSAGE_BYTES + 1))
        assert await rest_of(connection) == []
        assert ended_with(connection)[0] == 1009
        async with asyncio.timeout(5):
            await seen.over.wait()
        assert seen.close_code == 1001


def _octets(message: str | bytes) -> bytes:
    return message.encode() if isinstance(message, str) else message

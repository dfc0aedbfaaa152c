"""Which replica a session goes to, and what happens when that one does not take it (contract A2, faults.md 2, 20–25).

Real servers on both sides; every test runs on daphne and on uvicorn.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.acceptance.certificates import server_tls
from tests.acceptance.servers import Router
from tests.acceptance.test_sessions import client, ended_with, rest_of
from tests.fake_replica import fake_replica, raw_server
from tests.ports import free_port

Bytes = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(-1)  # until the router gives up and closes


def answers(response: bytes) -> Bytes:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        await writer.drain()
        await reader.read(-1)

    return talk


async def test_the_healthy_primary_gets_every_session(router: Router) -> None:
    """While the primary is healthy nobody else gets a session (contract A2)."""
    async with fake_replica() as primary, fake_replica() as other:
        await router.place(primary.url, other.url)
        for _ in range(3):
            async with client(router) as connection:
                await connection.send("hello")
                await connection.recv()
    assert (len(primary.seen), len(other.seen)) == (3, 0)


@pytest.mark.parametrize("status", ["unknown", "unhealthy"])
async def test_no_healthy_replica_is_said_at_once(router: Router, status: str) -> None:
    """UNKNOWN and UNHEALTHY replicas get nothing; the client hears gpu_unavailable and 1013 (faults.md, 39)."""
    async with fake_replica() as replica:
        await router.place(replica.url, status=status)
        started = router.moment()
        async with client(router) as connection:
            (frame,) = await rest_of(connection)
            assert ended_with(connection) == (1013, "no_healthy_replica")
        assert started.ago < 1
    assert json.loads(frame) == {
        "type": "error",
        "code": "gpu_unavailable",
        "message": "router: no healthy replica available",
        "retryable": True,
    }
    assert replica.connections == 0


async def test_a_refused_connect_goes_to_the_next_replica(router: Router) -> None:
    """A replica that is dead but still marked healthy costs a session next to nothing (A7.7, faults.md 20)."""
    async with fake_replica() as other:
        await router.place(f"http://127.0.0.1:{free_port()}", other.url)
        started = router.moment()
        async with client(router) as connection:
            await connection.send("hello")
            assert await connection.recv() == "hello"
        assert started.ago < 0.5


async def test_a_hung_handshake_goes_to_the_next_replica(router: Router) -> None:
    """A replica that accepts TCP and says nothing costs the connect timeout, here 2 s (A7.7, faults.md 21)."""
    async with raw_server(hang) as hung, fake_replica() as other:
        await router.place(hung.url, other.url)
        started, began = router.moment(), time.monotonic()
        async with client(router) as connection:
            await connection.send("hello")
            assert await connection.recv() == "hello"
        assert time.monotonic() - began >= 2
        assert started.ago < 3


BROKEN_HANDSHAKES = {
    "502": b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
    "503": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    "404": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    "wrong accept": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "closes": b"",
}


@pytest.mark.parametrize("fault", BROKEN_HANDSHAKES)
async def test_a_broken_handshake_goes_to_the_next_replica(router: Router, fault: str) -> None:
    """Whatever a replica answers instead of a good 101, the session begins elsewhere (faults.md, 23 and 25)."""
    response = BROKEN_HANDSHAKES[fault]

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with raw_server(answers(response) if response else close) as broken, fake_replica() as other:
        await router.place(broken.url, other.url)
        async with client(router) as connection:
            await connection.send("hello")
            assert await connection.recv() == "hello"
    assert broken.connections == 1


@pytest.mark.parametrize("status", [502, 503])
async def test_when_no_replica_is_left_the_client_hears_worker_failed(router: Router, status: int) -> None:
    """Every attempt failed: one worker_failed frame, then 1011 (faults.md, 23)."""
    async with fake_replica(status=status) as one, fake_replica(status=status) as two:
        await router.place(one.url, two.url)
        async with client(router) as connection:
            (frame,) = await rest_of(connection)
            assert ended_with(connection)[0] == 1011
    assert json.loads(frame)["code"] == "worker_failed"
    assert (one.connections, two.connections) == (1, 1)
    for secret in (one.url, two.url, "127.0.0.1", str(status)):
        assert secret not in frame


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_of_the_credentials_is_final(router: Router, status: int) -> None:
    """The next replica would refuse the same credentials: worker_failed and 1011 at once (faults.md, 22)."""
    async with fake_replica(status=status) as one, fake_replica() as two:
        await router.place(one.url, two.url)
        async with client(router) as connection:
            (frame,) = await rest_of(connection)
            assert ended_with(connection)[0] == 1011
    assert json.loads(frame)["code"] == "worker_failed"
    assert two.connections == 0


async def test_a_redirect_is_a_failure_and_not_followed(router: Router) -> None:
    """A redirect could lead a session anywhere (A7.11, faults.md 24)."""
    async with fake_replica() as elsewhere, fake_replica() as other:
        location = elsewhere.url.replace("http", "ws") + "/v1/stream"
        async with fake_replica(status=302, headers={"Location": location}) as redirecting:
            await router.place(redirecting.url, other.url)
            async with client(router) as connection:
                await connection.send("hello")
                assert await connection.recv() == "hello"
        assert (elsewhere.connections, len(other.seen)) == (0, 1)


@pytest.mark.parametrize("fault", ["unknown CA", "wrong host", "expired"])
async def test_a_bad_certificate_fails_closed(router: Router, fault: str) -> None:
    """No session goes over TLS that does not prove who the replica is (faults.md, 33)."""
    async with fake_replica(tls=server_tls(fault)) as untrusted, fake_replica() as other:
        await router.place(untrusted.url, other.url)
        async with client(router) as connection:
            await connection.send("hello")
            assert await connection.recv() == "hello"
    assert (untrusted.connections, len(other.seen)) == (0, 1)


async def test_a_replica_with_a_private_ca_is_trusted_by_setting(router: Router) -> None:
    """An https replica is reached by wss, its certificate checked against ROUTER_UPSTREAM_CA_FILE too."""
    async with fake_replica(tls=server_tls()) as replica:
        await router.place(replica.url)
        async with client(router) as connection:
            await connection.send("hello")
            assert await connection.recv() == "hello"


async def test_a_name_that_does_not_resolve_goes_to_the_next_replica(router: Router) -> None:
    """A failing look-up is bounded like a connect (faults.md, 34)."""
    async with fake_replica() as other:
        await router.place("http://no-such-host.invalid:8000", other.url)
        started = router.moment()
        async with client(router) as connection:
            await connection.send("hello")
            assert await connection.recv() == "hello"
        assert started.ago < 2


@pytest.mark.parametrize("leaving", ["close", "vanish"])
async def test_a_client_that_leaves_during_a_connect_leaves_no_orphan(router: Router, leaving: str) -> None:
    """The connect is cancelled, and the replica behind it never sees a session (faults.md, 2)."""
    reached, over = asyncio.Event(), asyncio.Event()

    async def hang_noting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        await reader.read(-1)
        over.set()

    async with raw_server(hang_noting) as hung, fake_replica() as other:
        await router.place(hung.url, other.url)
        connection = await client(router)
        await connection.send("x" * 5_000_000)  # a large init must not hide the departure
        async with asyncio.timeout(5):
            await reached.wait()
            started = router.moment()
            if leaving == "close":
                await connection.close(4000, "changed my mind")
                assert ended_with(connection) == (4000, "changed my mind")
            else:
                connection.transport.abort()
            await over.wait()
        assert started.ago < 1.9  # before the connect's own timeout of 2 s
        assert other.connections == 0


async def test_a_ping_is_answered_while_the_client_waits(router: Router) -> None:
    """A client that waits for its replica keeps its connection by its own pings."""
    async with raw_server(hang) as hung:
        await router.place(hung.url)
        async with client(router) as connection:
            async with asyncio.timeout(1.9):
                await (await connection.ping(b"are you there"))
            await rest_of(connection)
            assert ended_with(connection)[0] == 1011

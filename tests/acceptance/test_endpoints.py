"""Where Daphne listens: TLS, a Unix socket, a socket handed over by number. Sessions are the same on all of them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_django.plugin import DjangoDbBlocker
from websockets.asyncio.client import connect, unix_connect

from tests.acceptance.certificates import AUTHORITY, write_server_certificate
from tests.acceptance.neighbours import descriptors, jam, rss_kib, until
from tests.acceptance.servers import Router, running_router
from tests.acceptance.test_client_faults import CHUNK, IN_BETWEEN, Flood
from tests.acceptance.test_client_floods import crumbs
from tests.acceptance.test_sessions import ended_with, rest_of
from tests.acceptance.test_torn_frames import LARGE, assert_lost
from tests.fake_replica import fake_replica
from tests.raw import BINARY, TEXT, Peer, close_frame, frame, hold_on, raw_client, raw_replica, soon

PLAIN = {"compression": None, "max_size": None, "proxy": None}


@contextlib.contextmanager
def running_secure(var: Path, blocker: DjangoDbBlocker, **settings: Any) -> Iterator[Router]:
    """A router on daphne that speaks TLS."""
    key, certificate = write_server_certificate(var)
    command = ["daphne", "-e", f"ssl:{{port}}:privateKey={key}:certKey={certificate}:interface=127.0.0.1"]
    with running_router("daphne", var, blocker, command=command, **settings) as router:
        router.process.wait_until(router.answers)
        yield router


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Router]:
    quick = {"ROUTER_STALL_TIMEOUT_SECONDS": 3, "ROUTER_PING_INTERVAL_SECONDS": 1}
    with running_secure(tmp_path_factory.mktemp("secure"), django_db_blocker, **quick) as router:
        yield router


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Router]:
    """Whose stall limit is the usual one: for tests that jam a session, which takes a busy machine its time."""
    with running_secure(tmp_path_factory.mktemp("patient"), django_db_blocker) as router:
        yield router


@pytest.fixture(scope="module")
def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


async def test_messages_and_closes_over_tls(secure: Router, trusting: ssl.SSLContext) -> None:
    """Both ways, of all sizes up to 43 MiB, byte for byte, and each side's close code for the other."""
    url, messages = f"wss://localhost:{secure.port}/v1/stream", ["", b"", "hello", b"x" * 70_000, os.urandom(43 << 20)]
    async with fake_replica() as replica:
        await secure.place(replica.url)
        async with connect(url, ssl=trusting, **PLAIN) as client:
            for message in messages:
                await client.send(message)
                received = await client.recv()
                assert type(received) is type(message)
                assert received == message or hashlib.sha256(received).digest() == hashlib.sha256(message).digest()  # type: ignore[arg-type]
            await client.close(4001, "rëason")
            assert ended_with(client) == (4001, "rëason")
        async with asyncio.timeout(10):
            await replica.seen[0].over.wait()
        assert (replica.seen[0].close_code, replica.seen[0].close_reason) == (4001, "rëason")
        assert replica.seen[0].request.headers["X-Forwarded-Proto"] == "https"

    async def leave(peer: Peer) -> None:
        await peer.send(frame(BINARY, LARGE) + close_frame(1013, "later"))
        await peer.rest()

    async with raw_replica(leave) as replica:
        await secure.place(replica.url)
        async with connect(url, ssl=trusting, **PLAIN) as client:
            assert await rest_of(client) == [LARGE]
            assert ended_with(client) == (1013, "later")


@pytest.mark.parametrize("torn", [False, True])
async def test_a_lost_replica_over_tls(secure: Router, trusting: ssl.SSLContext, torn: bool) -> None:
    """The error frame and 1011, or 1011 alone behind a fragment of a large message; never half a frame."""
    async with raw_replica(hold_on) as replica:
        await secure.place(replica.url)
        client = await raw_client(secure.port, tls=trusting)
        peer = await replica.wait_peer()
        await peer.send(frame(BINARY, b"video"))
        assert await client.message() == b"video"
        reading = asyncio.create_task(client.rest())
        await peer.send(frame(BINARY, LARGE)[: 5_000_000 if torn else 500_000])
        while peer.writer.transport.get_write_buffer_size():
            await asyncio.sleep(0.01)
        peer.writer.write_eof()
        assert_lost(await reading, inside_a_message=torn)


async def test_a_client_that_hangs_up_behind_crumbs_over_tls(secure: Router, trusting: ssl.SSLContext) -> None:
    """All of them reach the replica, although they are handed on in more turns than the connection has."""
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def collect(peer: Peer) -> None:
        received.set_result(await peer.reader.read())

    async with raw_replica(collect, first=frame(BINARY, b"begin")) as replica:
        await secure.place(replica.url)
        seen, before = len(secure.log), descriptors(secure)
        client = await raw_client(secure.port, tls=trusting)
        assert await client.message() == b"begin"
        octets = crumbs(client.new_mask) * 10
        await client.send(octets + close_frame(4001, mask=client.new_mask))
        client.writer.close()
        assert (await soon(received)).startswith(octets)
        await until(lambda: descriptors(secure) <= before, 30, "both sockets are gone")
    assert "Traceback" not in secure.log[seen:]


async def test_a_client_that_does_not_read_is_pushed_back_over_tls(patient: Router, trusting: ssl.SSLContext) -> None:
    """Its replica is held back, the router does not fill up; when it reads again it gets all."""
    count = 1500
    flood = Flood(limit=count * len(CHUNK))
    async with raw_replica(flood) as replica:
        await patient.place(replica.url)
        client = await raw_client(patient.port, tls=trusting, receive_buffer=65_536)
        client.fall_silent()
        before = rss_kib(patient)
        peer = await replica.wait_peer()
        await jam(peer, client)
        assert flood.sent < min(IN_BETWEEN, flood.limit)
        assert rss_kib(patient) - before < 8 * 1024
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(count):
            assert await client.message() == b"video" * 13_000
        await client.close()
        assert (await client.rest()).close == (1000, "")


async def test_a_client_that_never_reads_is_ended_over_tls(secure: Router, trusting: ssl.SSLContext) -> None:
    """After the stall limit its replica hears 1001, and 10 s later at most its socket is closed."""
    flood = Flood()
    async with raw_replica(flood) as replica:
        await secure.place(replica.url)
        before = descriptors(secure)
        client = await raw_client(secure.port, tls=trusting, receive_buffer=65_536)
        client.fall_silent()
        heard = await soon(flood.last)
        assert (heard.close and heard.close[0]) == 1001
        await until(lambda: descriptors(secure) <= before, 10, "the client's socket is closed")
        client.abort()


async def test_a_session_on_a_unix_socket(tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> None:
    """`daphne -u PATH`: messages, a large one, and a close."""
    path = str(tmp_path / "router.sock")
    with running_router("daphne", tmp_path, django_db_blocker, command=["daphne", "-u", path]) as router:
        await asyncio.to_thread(router.process.wait_until, lambda: os.path.exists(path))
        async with fake_replica() as replica:
            await router.place(replica.url)
            async with unix_connect(path, uri="ws://localhost/v1/stream", compression=None, max_size=None) as client:
                for message in ("hello", b"", LARGE):
                    await client.send(message)
                    assert await client.recv() == message
                await client.close(4001)
                assert ended_with(client)[0] == 4001
            async with asyncio.timeout(10):
                await replica.seen[0].over.wait()
            assert replica.seen[0].close_code == 4001


async def test_sessions_on_a_socket_given_by_number(tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> None:
    """`daphne --fd N`: the socket that systemd or a supervisor listens on."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
        port, fd = listening.getsockname()[1], listening.fileno()
        with running_router(
            "daphne", tmp_path, django_db_blocker, command=["daphne", "--fd", str(fd)], pass_fds=[fd]
        ) as router:
            async with fake_replica() as replica:
                await router.place(replica.url)
                async with connect(f"ws://127.0.0.1:{port}/v1/stream", open_timeout=30, **PLAIN) as client:
                    for message in ("hello", b"", LARGE):
                        await client.send(message)
                        assert await client.recv() == message
                    await client.close(4001)
                    assert ended_with(client)[0] == 4001


async def test_a_client_that_leaves_behind_a_paused_read_is_found_over_tls_too(
    patient: Router, trusting: ssl.SSLContext
) -> None:
    """Its replica takes nothing, so it is not read; the replica hears 1001 all the same (design, decision 2)."""
    over = asyncio.Event()

    async def look_away(peer: Peer) -> None:
        await peer.send(frame(TEXT, b"begun"))
        peer.fall_silent()
        await over.wait()

    async with raw_replica(look_away) as replica:
        await patient.place(replica.url)
        client = await raw_client(patient.port, tls=trusting)
        peer = await replica.wait_peer()

        async def flood() -> None:
            while True:
                await client.send(frame(BINARY, b"x" * 65_000, mask=b"abcd"))

        flooding = asyncio.create_task(flood())
        await jam(client, peer)
        flooding.cancel()
        ended = patient.log.count(" ended: ")
        client.abort()
        await until(lambda: patient.log.count(" ended: ") > ended, 2.5, "its departure is found")
        over.set()

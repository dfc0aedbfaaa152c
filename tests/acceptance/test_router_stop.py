"""What sessions hear when a router process is stopped, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import struct
from pathlib import Path

import pytest

from tests.acceptance.servers import Router
from tests.acceptance.test_sessions import client, ended_with, rest_of
from tests.acceptance.visitors import served, visitor
from tests.fake_replica import fake_replica
from tests.raw import CLOSE, Peer, raw_client, raw_replica
from tests.slotted_replica import slotted_replica


async def test_sigterm_tells_both_sides_and_exits_0(own_router: Router) -> None:
    """Clients hear 1012 and replicas 1001, where plain Daphne would just drop them (A7.9)."""
    async with fake_replica() as replica:
        await own_router.place(replica.url)
        async with client(own_router) as connection:
            await connection.send("hello")
            await connection.recv()
            own_router.process.process.send_signal(signal.SIGTERM)
            assert await rest_of(connection) == []
            assert ended_with(connection) == (1012, "router_shutdown")
        async with asyncio.timeout(5):
            await replica.seen[0].over.wait()
        assert replica.seen[0].close_code == 1001
    assert await asyncio.to_thread(own_router.process.process.wait, 10) == 0


async def test_after_sessions_no_socket_of_them_remains(router: Router) -> None:
    """Closed, refused, vanished and failed sessions all give their file descriptors back."""
    descriptors = Path(f"/proc/{router.process.pid}/fd")

    async def count_settles_at(expected: int) -> None:
        async with asyncio.timeout(10):
            while len(os.listdir(descriptors)) > expected:
                await asyncio.sleep(0.05)

    async with fake_replica() as replica:
        await router.place(replica.url)
        async with client(router) as connection:  # what a first session opens for good (threads, database)
            await connection.send("hello")
            await connection.recv()
        await replica.seen[0].over.wait()
        before = len(os.listdir(descriptors))
        for index in range(12):
            connection = await client(router)
            await connection.send("hello")
            await connection.recv()
            if index % 3 == 0:
                await connection.close()
            elif index % 3 == 1:
                connection.transport.abort()
            else:
                await connection.send(b"\xff" * 10)
                await connection.close(4001)
        await count_settles_at(before)
        await router.place("http://127.0.0.1:1")
        for _ in range(3):
            async with client(router) as connection:
                await rest_of(connection)
        await count_settles_at(before)


async def test_who_waits_is_told_that_there_is_no_gpu(own_router: Router) -> None:
    """Also without a drain (ROUTER_DRAIN_SECONDS=0): a session of another process may be had at once."""
    async with slotted_replica() as replica:
        await own_router.place(replica.url)
        there = await served(own_router)
        await own_router.place(replica.url, status="unhealthy", queue_when_down=True)
        waiting = await visitor(own_router)
        await waiting.queued()
        own_router.process.process.send_signal(signal.SIGTERM)
        await waiting.end()
        assert waiting.refusal == ("gpu_unavailable", 1012, "router_draining")
        assert await there.end() == (1012, "router_shutdown")
        assert there.errors == []
        assert await asyncio.to_thread(own_router.process.process.wait, 10) == 0


@pytest.mark.parametrize("router_settings", [{"ROUTER_DRAIN_SECONDS": "30"}])
async def test_a_second_sigterm_cuts_goodbyes_short(own_router: Router) -> None:
    """A client and a replica that do not answer their close: each has heard it, once, and is cut off within 2 s, not 5.

    That is seen by how it ends: by a reset, where a goodbye at leisure closes the connection after its 5 s.
    """

    async def cut_off(peer: Peer) -> None:
        with pytest.raises(ConnectionResetError):
            assert await peer.frame() is None

    async with raw_replica() as replica:
        await own_router.place(replica.url)
        clients, replicas = list[Peer](), list[Peer]()
        for number in (1, 2):
            clients.append(await raw_client(own_router.port))
            await clients[-1].say("hello")
            replicas.append(await replica.wait_peer(number))
            assert await replicas[-1].message() == "hello"
            await replicas[-1].say("begun")
            assert await clients[-1].message() == "begun"
        own_router.process.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(own_router.process.wait_for, "draining: 2 sessions")
        await replicas[0].close(4001, "the replica's")
        await clients[1].close(4002, "the client's")
        assert await clients[0].frame() == (CLOSE, True, struct.pack("!H", 4001) + b"the replica's")
        assert await replicas[1].frame() == (CLOSE, True, struct.pack("!H", 4002) + b"the client's")
        assert (await clients[1].rest()).close == (4002, "the client's")
        assert (await replicas[0].rest()).close == (4001, "the replica's")
        own_router.process.process.send_signal(signal.SIGTERM)
        await asyncio.gather(cut_off(clients[0]), cut_off(replicas[1]))
        assert await asyncio.to_thread(own_router.process.process.wait, 10) == 0
    assert own_router.log.count(" ended: ") == 2
    with contextlib.closing(sqlite3.connect(own_router.database)) as database:
        rows = database.execute("SELECT close_code, ended_at IS NOT NULL FROM proxy_session ORDER BY id").fetchall()
    assert rows == [(4001, 1), (4002, 1)]

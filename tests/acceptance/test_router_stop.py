"""What sessions hear when a router process is stopped, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from tests.acceptance.servers import Router
from tests.acceptance.test_sessions import client, ended_with, rest_of
from tests.fake_replica import fake_replica


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

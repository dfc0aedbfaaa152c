"""No timer of the server's ends a session that waits or is idle: a replica may take minutes to have something to say.

Daphne pings, and ends connections, by options of its own; on a connection that was taken over none of it may happen.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from pytest_django.plugin import DjangoDbBlocker
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection

from tests.acceptance.certificates import AUTHORITY, write_server_certificate
from tests.acceptance.neighbours import until
from tests.acceptance.servers import Router, running_router
from tests.fake_replica import echo, fake_replica
from tests.raw import soon

QUEUED = '{"type": "queue_status", "position": 1, "queue_depth": 1}'
# Daphne's own timers, all shorter than the tests. (With these, plain Daphne ends a session within 3 s.)
TURNED_DOWN = (
    "--ping-interval",
    "1",
    "--ping-timeout",
    "1",
    "--websocket_timeout",
    "3",
    "--websocket_connect_timeout",
    "2",
)


async def keep_alive(router: Router, connection: ClientConnection, every: float, until: float) -> None:
    """Ping as a browser or a proxy might do, which cuts off whoever does not answer."""
    while time.monotonic() < until:
        asked = router.moment()
        await soon(await connection.ping())
        assert asked.ago < every
        await asyncio.sleep(min(every, max(0, until - time.monotonic())))


async def sit(
    router: Router, waiting_seconds: float, idle_seconds: float, keepalive: float, url: str = "", **tls: Any
) -> None:
    """One client waits for a slot that a replica's queue gives it late, another has begun and says nothing."""
    free = asyncio.Event()

    async def queue(connection: ServerConnection) -> None:
        if len(replica.seen) == 1:
            await echo(connection)
        await connection.send(QUEUED)
        await free.wait()
        await echo(connection)

    async with fake_replica(queue) as replica:
        await router.place(replica.url)
        plain: dict[str, Any] = {"ping_interval": None, "compression": None, "proxy": None, **tls}
        async with connect(url or router.stream_url, **plain) as idle:
            await idle.send("hello")
            assert await idle.recv() == "hello"
            async with connect(url or router.stream_url, **plain) as waiting:
                assert await waiting.recv() == QUEUED
                started = time.monotonic()
                await keep_alive(router, waiting, keepalive, started + waiting_seconds)
                free.set()
                await waiting.send("init")
                assert await waiting.recv() == "init"
                await keep_alive(router, waiting, keepalive, started + idle_seconds)
                for connection in (waiting, idle):
                    await connection.send("still here")
                    assert await connection.recv() == "still here"
            await idle.close()
        for seen in replica.seen:
            async with asyncio.timeout(10):
                await seen.over.wait()
            assert seen.close_code == 1000
    await until(lambda: router.log.count(" ended: ") == 2, 10, "both sessions have ended")


@pytest.mark.parametrize("over", ["TCP", "TLS"])
async def test_daphnes_own_timers_end_no_session(over: str, tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> None:
    """With all of them turned down to a few seconds, a client that waits and one that is idle live on.

    Over TLS frames go through Daphne's transport: there a ping or a close of its own would reach the client.
    """
    key, chain = write_server_certificate(tmp_path)
    tls = ["daphne", "-e", f"ssl:{{port}}:privateKey={key}:certKey={chain}:interface=127.0.0.1"]
    command = tls if over == "TLS" else None
    with running_router("daphne", tmp_path, django_db_blocker, command=command, options=TURNED_DOWN) as router:
        router.process.wait_until(router.answers)
        if over == "TLS":
            trusting = ssl.create_default_context()
            AUTHORITY.configure_trust(trusting)
            await sit(router, 6, 9, keepalive=1, url=f"wss://localhost:{router.port}/v1/stream", ssl=trusting)
        else:
            await sit(router, 6, 9, keepalive=1)


@pytest.mark.soak
async def test_minutes_of_silence_end_no_session(own_router: Router) -> None:
    """2 minutes before a session begins, with a keepalive of 20 s; 3 minutes idle. All else as in production."""
    await sit(own_router, 120, 180, keepalive=20)

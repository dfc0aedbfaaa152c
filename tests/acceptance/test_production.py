"""PostgreSQL and Redis, as in production: real servers, stopped and started under the router."""

from __future__ import annotations

import asyncio
import json
import socket
import time
import urllib.request
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.acceptance.test_sessions import ended_with, rest_of
from tests.backing_servers import Postgres
from tests.fake_replica import fake_replica
from tests.ports import free_port
from tests.processes import BIN, manage, managing, migrated, running, wait_until


async def test_a_fleet_on_postgresql_and_redis(postgres: Postgres, redis_url: str, tmp_path: Path) -> None:
    """Two probers, one works; a session streams; the database stops and comes back: live sessions never notice."""
    port = free_port()
    settings = {"DATABASE_URL": postgres.url, "REDIS_URL": redis_url}
    daphne = [str(BIN / "daphne"), "-p", str(port), "routerproject.asgi:application"]
    await asyncio.to_thread(migrated, tmp_path, **settings)

    async with fake_replica() as replica:
        file = tmp_path / "replicas.yaml"
        file.write_text(
            f"router:\n  replicas: [{{url: '{replica.url}', name: a, primary: true}}]\n"
            "  health_check: {interval_seconds: 0.3, timeout_seconds: 1}\n"
        )
        out = (await asyncio.to_thread(manage, tmp_path, "loadreplicas", str(file), **settings)).stdout
        assert "+ added: a" in out
        with (
            running("router", daphne, tmp_path, **settings) as router,
            managing("first", ["runhealthchecks"], tmp_path, **settings) as first,
        ):
            await asyncio.to_thread(first.wait_for, "this prober")
            with managing("second", ["runhealthchecks"], tmp_path, **settings) as second:
                await asyncio.to_thread(second.wait_for, "another prober")
                assert await asyncio.to_thread(first.stop) == 0
                await asyncio.to_thread(second.wait_for, "this prober")
                await asyncio.to_thread(wait_until, lambda: _ready(port), 20, "/readyz")

                url = f"ws://127.0.0.1:{port}/v1/stream"
                async with connect(url, proxy=None) as live:
                    await live.send("before")
                    assert await live.recv() == "before"
                    await asyncio.to_thread(postgres.stop)
                    started = time.monotonic()
                    async with connect(url, proxy=None) as refused:
                        (frame,) = await rest_of(refused)
                        assert ended_with(refused) == (1013, "router_unavailable")
                    assert time.monotonic() - started < 3
                    assert json.loads(frame)["code"] == "gpu_unavailable"
                    assert str(postgres.port) not in str(frame)
                    assert not await asyncio.to_thread(_ready, port)
                    await live.send("during")
                    assert await live.recv() == "during"
                    await asyncio.to_thread(postgres.start)
                    await asyncio.to_thread(wait_until, lambda: _ready(port), 20, "/readyz after the outage")
                    async with connect(url, proxy=None) as later:
                        await later.send("after")
                        assert await later.recv() == "after"
                    await live.send("still here")
                    assert await live.recv() == "still here"
                await asyncio.to_thread(second.wait_for, "the database answers again")
            assert router.process.poll() is None


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("setting", ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"])
def test_postgresql_bounds_every_wait(postgres: Postgres, tmp_path: Path, setting: str) -> None:
    """No statement may keep a session's client waiting for more than 2.5 s."""
    code = f"from django.db import connection as c; k = c.cursor(); k.execute('SHOW {setting}'); print(k.fetchone())"
    out = manage(tmp_path, "shell", "-v0", "-c", code, DATABASE_URL=postgres.url).stdout
    assert "2500ms" in out


def test_a_database_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    """A server that accepts and says nothing is no reason to wait for ever (connect_timeout, 2 s)."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"postgres://u@127.0.0.1:{silent.getsockname()[1]}/n"
        code = (
            "import time; from django.db import connection, OperationalError\n"
            "started = time.monotonic()\n"
            "try: connection.ensure_connection()\n"
            "except OperationalError: print('gave up after', round(time.monotonic() - started, 1))"
        )
        out = manage(tmp_path, "shell", "-v0", "-c", code, DATABASE_URL=url).stdout
    assert float(out.split()[-1]) <= 3


def test_the_channel_layer_is_redis_where_it_is_set(redis_url: str, tmp_path: Path) -> None:
    """A nudge goes round; without REDIS_URL the layer is in memory."""
    code = (
        "from asgiref.sync import async_to_sync as s; from channels.layers import get_channel_layer\n"
        "layer = get_channel_layer()\n"
        "async def round():\n"
        "    await layer.send('nudge', {'type': 'slot.free'}); return await layer.receive('nudge')\n"
        "print(type(layer).__name__, s(round)())"
    )
    with_redis = manage(tmp_path, "shell", "-v0", "-c", code, REDIS_URL=redis_url).stdout
    assert with_redis.split(" ", 1) == ["RedisChannelLayer", "{'type': 'slot.free'}\n"]
    without = manage(tmp_path, "shell", "-v0", "-c", code).stdout
    assert without.split(" ", 1) == ["InMemoryChannelLayer", "{'type': 'slot.free'}\n"]

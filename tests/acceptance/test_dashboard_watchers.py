"""Watchers of the dashboard on real sockets, on both kinds of server: what is sent, and who does not read.

And that a process serves its own metrics on either, once.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytest_django.plugin import DjangoDbBlocker
from websockets.asyncio.client import ClientConnection, connect

from tests.acceptance.servers import Router, running_router
from tests.ports import free_port
from tests.processes import manage, wait_until
from tests.scraping import scrape

REPLICAS, POINTS = 100, 2000  # so that a snapshot is some 4 MB: more than sockets and buffers hold of several
ROUNDS = 5
# Prints the cookie of an operator's session.
PREPARE = f"""
from importlib import import_module
from django.conf import settings
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.utils import timezone
from replicas.models import Replica, ReplicaHealth
request = HttpRequest()
request.session = import_module(settings.SESSION_ENGINE).SessionStore()
user = User.objects.create_superuser("root")
login(request, user, backend=settings.AUTHENTICATION_BACKENDS[-1])
request.session.save()
latencies = [[1764000000.0 + number, 12.5] for number in range({POINTS})]
for number in range({REPLICAS}):
    url = f"http://127.0.0.1:{{number + 1}}"
    replica = Replica.objects.create(name=f"r{{number}}", url=url)
    ReplicaHealth.objects.create(
        replica=replica, url=url, status="healthy", checked_at=timezone.now(), latencies=latencies
    )
print(f"{{settings.SESSION_COOKIE_NAME}}={{request.session.session_key}}")
"""


@dataclass
class Watched:
    router: Router
    cookie: str
    metrics: int

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[ClientConnection]:
        """A page that takes in one message beside the one that it reads, and then reads no further."""
        with socket.socket() as socket_:
            socket_.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            socket_.connect(("127.0.0.1", self.router.port))
            origin = f"http://127.0.0.1:{self.router.port}"
            async with connect(
                f"ws://127.0.0.1:{self.router.port}/dashboard/live",
                sock=socket_, additional_headers={"Cookie": self.cookie, "Origin": origin},
                max_size=None, max_queue=1, ping_interval=None, compression=None,
            ) as watcher:  # fmt: skip
                yield watcher

    def change_all(self, latency_ms: float) -> None:
        with closing(sqlite3.connect(self.router.database, timeout=20)) as database, database:
            changed = database.execute("UPDATE replicas_replicahealth SET last_latency_ms = ?", [latency_ms])
            assert changed.rowcount == REPLICAS


@pytest.fixture(params=["daphne", "uvicorn"])
def watched(request: pytest.FixtureRequest, tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> Any:
    metrics = free_port()
    listen = {"ROUTER_METRICS_LISTEN": f"127.0.0.1:{metrics}"}
    with running_router(request.param, tmp_path, django_db_blocker, **listen) as router:
        cookie = manage(tmp_path, "shell", "-v0", "-c", PREPARE).stdout.strip()
        yield Watched(router, cookie, metrics)


async def hear(watcher: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(30):
        return dict(json.loads(await watcher.recv()))


async def test_who_does_not_read_gathers_nothing_and_holds_up_nobody(watched: Watched) -> None:
    """It gets what was under way, and then the newest; the other page has heard every change meanwhile."""
    async with watched.watching() as slow, watched.watching() as brisk:
        first = await hear(brisk)
        assert (first["type"], len(first["replicas"])) == ("snapshot", REPLICAS)
        assert len(first["replicas"][0]["latencies"]) == POINTS
        for number in range(ROUNDS):
            await asyncio.to_thread(watched.change_all, float(number + 1))
            while (message := await hear(brisk)).get("replicas", [{}])[0].get("latency_ms") != number + 1:
                pass
            assert message["type"] == "changes"
            assert len(message["replicas"]) == REPLICAS
        kept = [await hear(slow)]
        assert kept[0]["type"] == "snapshot"
        while kept[-1].get("replicas", [{}])[0].get("latency_ms") != ROUNDS:
            kept.append(await hear(slow))
        whole = [message for message in kept if "replicas" in message]
        assert len(whole) <= ROUNDS - 2, [message["at"] for message in whole]

        # As often as it was started: a second one would find its port taken, and say so.
        wait_until(lambda: "metrics are served" in watched.router.log)
        assert watched.router.log.count("metrics are served") == 1
        assert "metrics cannot be served" not in watched.router.log
        assert ("sessions_total",) in await scrape(watched.metrics)
    assert "Traceback" not in watched.router.log

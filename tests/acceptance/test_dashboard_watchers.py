"""Watchers of the dashboard on real sockets, on both kinds of server: what is sent, and who does not read.

And that a process serves its own metrics on either, once.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytest_django.plugin import DjangoDbBlocker
from websockets.asyncio.client import ClientConnection, connect

from tests.acceptance.servers import Router, running_router
from tests.ports import free_port
from tests.processes import manage, wait_until
from tests.raw import raw_client
from tests.scraping import scrape

REPLICAS, POINTS = 100, 2000  # a snapshot of 4 MB, which is all that the kernel takes for one that does not read
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

    @property
    def headers(self) -> dict[str, str]:
        return {"Cookie": self.cookie, "Origin": f"http://localhost:{self.router.port}"}

    def watching(self) -> connect:
        """A page that reads."""
        url = f"ws://localhost:{self.router.port}/dashboard/live"
        return connect(url, additional_headers=self.headers, max_size=None, compression=None, proxy=None)

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
    path, window = "/dashboard/live", 65_536
    slow = await raw_client(watched.router.port, path=path, headers=watched.headers, receive_buffer=window)
    async with watched.watching() as brisk:
        first = await hear(brisk)
        assert (first["type"], len(first["replicas"])) == ("snapshot", REPLICAS)
        assert len(first["replicas"][0]["latencies"]) == POINTS
        for number in range(ROUNDS):
            await asyncio.to_thread(watched.change_all, float(number + 1))
            while (message := await hear(brisk)).get("replicas", [{}])[0].get("latency_ms") != number + 1:
                pass
            assert message["type"] == "changes"
            assert len(message["replicas"]) == REPLICAS
        kept = [json.loads(await slow.message() or "")]
        assert kept[0]["type"] == "snapshot"
        while kept[-1].get("replicas", [{}])[0].get("latency_ms") != ROUNDS:
            kept.append(json.loads(await slow.message() or ""))
        whole = [message for message in kept if "replicas" in message]
        assert len(whole) <= ROUNDS - 2, [message["at"] for message in whole]

        # As often as it was started: a second one would find its port taken, and say so.
        wait_until(lambda: "metrics are served" in watched.router.log)
        assert watched.router.log.count("metrics are served") == 1
        assert "metrics cannot be served" not in watched.router.log
        assert ("sessions_total",) in await scrape(watched.metrics)
    assert "Traceback" not in watched.router.log

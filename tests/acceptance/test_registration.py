"""A streaming server adds itself over HTTP, is probed, and is gone when it no longer says that it is there.

A real router, a real prober, and a server that says so for a while (issue 6, section 1).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import httpx
import pytest
from pytest_django.plugin import DjangoDbBlocker

from api.models import Scope
from replicas import tokens
from replicas.models import Replica
from tests.acceptance.cluster import Cluster, running_cluster
from tests.integration.http_servers import answering, http_server
from tests.processes import managing

TOKEN = tokens.new_token(tokens.API)
TTL_SECONDS = 5.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Cluster]:
    var = tmp_path_factory.mktemp("registration")
    with running_cluster(var, django_db_blocker) as found, managing("prober", ["runhealthchecks"], var) as prober:
        prober.wait_for("this prober")
        found.let_in(TOKEN, Scope.REGISTER, "gpus")
        yield found


async def test_a_server_comes_and_goes_by_itself(cluster: Cluster) -> None:
    """Renewed it stays, for longer than its time to live; then it is drained, and then removed."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    base = f"http://127.0.0.1:{cluster.routers[0].port}/api/v1/replicas/gpu-1"
    async with (
        http_server(answering(b'{"status": "ok"}')) as server,
        httpx.AsyncClient(trust_env=False, timeout=60) as http,
    ):
        said = {"url": server.url, "ttl_seconds": TTL_SECONDS}

        asked = 0.0

        async def renew() -> int:
            nonlocal asked
            asked = time.monotonic()
            return (await http.put(base, json=said, headers=headers)).status_code

        assert await renew() == 201
        healthy = Replica.objects.filter(health__status="healthy")
        await cluster.until(lambda db: healthy.using(db).exists(), 10, "its first probe")
        until = time.monotonic() + 1.2 * TTL_SECONDS
        while time.monotonic() < until:
            assert await renew() == 200
            assert await cluster.ask(lambda db: Replica.objects.using(db).get().state) == "active"
            await asyncio.sleep(0.5)  # as such a server does
        await cluster.until(lambda db: Replica.objects.using(db).get().lapsed, 2 * TTL_SECONDS, "its lapse")
        assert time.monotonic() - asked >= TTL_SECONDS
        assert await cluster.ask(lambda db: Replica.objects.using(db).get().state) == "draining"
        await cluster.until(lambda db: not Replica.objects.using(db).exists(), 3 * TTL_SECONDS, "its removal")
        assert await renew() == 201
        assert (await http.delete(base, headers=headers)).status_code == 204
        assert not await cluster.ask(lambda db: Replica.objects.using(db).exists())

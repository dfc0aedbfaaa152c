"""SIGTERM ends a process while requests hang in it: PostgreSQL stands still, with their connections open."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path

import httpx
import psycopg
from pytest_django.plugin import DjangoDbBlocker

from replicas import tokens
from tests.acceptance.cluster import running_cluster
from tests.backing_servers import Postgres

# What asks, and the table that its answer waits for: threads of the API, of /status, and Django's own.
ASKED = {"/api/v1/replicas": "api_apitoken", "/status": "replicas_replica", "/admin/": "django_session"}
END_SECONDS = 8.0  # less than whoever stops a container waits
WAITS = "SELECT count(DISTINCT relation) FROM pg_locks WHERE NOT granted"


async def test_requests_that_hang_do_not_hold_up_the_end(
    postgres: Postgres, tmp_path: Path, django_db_blocker: DjangoDbBlocker
) -> None:
    headers = {"Authorization": f"Bearer {tokens.new_token(tokens.API)}", "Cookie": f"sessionid={'a' * 32}"}
    with running_cluster(tmp_path, django_db_blocker, DATABASE_URL=postgres.url) as cluster:
        process = cluster.routers[0].process.process
        base = f"http://127.0.0.1:{cluster.routers[0].port}"
        async with httpx.AsyncClient(trust_env=False, base_url=base, headers=headers, timeout=None) as http:  # noqa: S113
            with psycopg.connect(postgres.url) as other, psycopg.connect(postgres.url, autocommit=True) as looking:
                other.execute(f"LOCK TABLE {', '.join(ASKED.values())}")

                async def ask(path: str) -> None:
                    while True:  # each waits for its lock for 2.5 s
                        with contextlib.suppress(httpx.HTTPError):
                            await http.get(path)
                        await asyncio.sleep(0.05)

                asking = [asyncio.create_task(ask(path)) for path in ASKED]
                async with asyncio.timeout(60):
                    while looking.execute(WAITS).fetchone() != (len(ASKED),):
                        await asyncio.sleep(0.01)
                postgres.freeze()
                try:
                    process.send_signal(signal.SIGTERM)
                    assert await asyncio.to_thread(process.wait, END_SECONDS) == 0
                finally:
                    postgres.thaw()
                    for task in asking:
                        task.cancel()
                    await asyncio.gather(*asking, return_exceptions=True)

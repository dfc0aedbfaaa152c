"""An operator asks for a probe now: the prober reads a count that has grown (Replica.probe_asked)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.integration.http_servers import http_server
from tests.integration.test_prober import Table, load, until, working
from tests.processes import managing, migrated

HOURLY = "  health_check: {interval_seconds: 3600, timeout_seconds: 1, failure_threshold: 1, recovery_threshold: 1}\n"


async def test_a_probe_that_is_asked_for_comes_at_once(tmp_path: Path) -> None:
    """Once for each wish, whatever the interval is; its result counts like any other, and is drawn."""
    migrated(tmp_path)
    table = Table(tmp_path)
    async with http_server() as asked, http_server() as other:
        await load(tmp_path, asked.url, other.url, rest=HOURLY)
        with managing("prober", ["runhealthchecks"], tmp_path) as prober:
            await until(working(prober))
            await until(lambda: all(table.health(server.url) == "healthy" for server in (asked, other)))
            for wish in (2, 3):
                table.query("UPDATE replicas_replica SET probe_asked = probe_asked + 1 WHERE url = ?", asked.url)
                await until(lambda wish=wish: len(asked.requests) == wish)
            await until(lambda: table.health(asked.url, "consecutive_successes") == 3)
            assert await asyncio.to_thread(prober.stop) == 0
    assert (len(asked.requests), len(other.requests)) == (3, 1)
    points = json.loads(table.health(asked.url, "latencies"))
    assert 1 <= len(points) <= 3
    assert all(at % 30 == 0 and milliseconds > 0 for at, milliseconds in points)


async def test_a_new_prober_takes_no_old_wish_for_a_new_one(tmp_path: Path) -> None:
    """It probes all once, as always; and goes on with the latencies that it finds."""
    migrated(tmp_path)
    table = Table(tmp_path)
    async with http_server() as server:
        await load(tmp_path, server.url, rest=HOURLY)
        table.query("UPDATE replicas_replica SET probe_asked = 7")
        for number in (1, 2):
            with managing(f"prober-{number}", ["runhealthchecks"], tmp_path) as prober:
                await until(lambda number=number: table.health(server.url, "consecutive_successes") == number)
                assert await asyncio.to_thread(prober.stop) == 0
    assert len(server.requests) == 2

"""runhealthchecks as a real process against real servers (contract A4, faults.md 37, 38, 52, 53)."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.http_servers import answering, hangs, http_server
from tests.ports import free_port
from tests.processes import Running, manage, managing, migrated

FAST = "  health_check: {interval_seconds: 0.2, timeout_seconds: 1, failure_threshold: 2, recovery_threshold: 2}\n"


@pytest.fixture
def var(tmp_path: Path) -> Path:
    migrated(tmp_path)
    return tmp_path


class Table:
    """The database of the prober under test, read and edited as another process would."""

    def __init__(self, var: Path) -> None:
        self.path = var / "router.sqlite3"

    def query(self, sql: str, *values: Any) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.path, timeout=5)) as connection, connection:
            return connection.execute(sql, values).fetchall()

    def health(self, url: str, column: str = "status") -> Any:
        rows = self.query(f"SELECT {column} FROM replicas_replicahealth WHERE url = ?", url)  # noqa: S608
        return rows[0][0] if rows else None


async def until(condition: Callable[[], Any], timeout: float = 10) -> None:
    """Servers of the test run in this loop, so that it must not block."""
    async with asyncio.timeout(timeout):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.02)


async def load(var: Path, *urls: str, rest: str = FAST) -> None:
    file = var / "replicas.yaml"
    entries = "".join(f"    - {{url: '{url}', name: r{index}}}\n" for index, url in enumerate(urls))
    file.write_text(f"router:\n  replicas:\n{entries}{rest}")
    await asyncio.to_thread(manage, var, "loadreplicas", str(file), "--prune")


def working(running: Running) -> Callable[[], bool]:
    return lambda: "holds the lease and works" in running.log and "another prober" not in running.log


async def test_health_follows_the_server(var: Path) -> None:
    """Healthy at the first success, unhealthy after the threshold, healthy again; each change is kept, and why."""
    table, answer = Table(var), answering()

    async def changing(head: str, writer: asyncio.StreamWriter) -> None:
        await answer(head, writer)

    async with http_server(changing) as server:
        await load(var, server.url)
        with managing("prober", ["runhealthchecks"], var) as prober:
            await until(lambda: table.health(server.url) == "healthy")
            answer = answering(b'{"status": "warming"}')
            await until(lambda: table.health(server.url) == "unhealthy")
            assert table.health(server.url, "last_error") == "warming"
            answer = answering(b'{"status": "ready", "total_gpus": 2, "available_gpus": 2}')
            await until(lambda: table.health(server.url) == "healthy")
            assert table.health(server.url, "reported_slots") == 2
            assert await asyncio.to_thread(prober.stop) == 0
    changes = table.query("SELECT old_status, new_status, reason FROM replicas_healthtransition ORDER BY id")
    assert changes == [
        ("unknown", "healthy", "probe succeeded"),
        ("healthy", "unhealthy", "warming"),
        ("unhealthy", "healthy", "probe succeeded"),
    ]
    assert "replica r0: healthy → unhealthy (warming)" in prober.log


async def test_a_hung_replica_delays_nobody(var: Path) -> None:
    """The period of the good one is the interval, not interval + timeout of the other (contract A4)."""
    async with http_server() as good, http_server(hangs) as hung:
        await load(var, hung.url, good.url)
        with managing("prober", ["runhealthchecks"], var):
            await until(lambda: len(hung.requests) >= 3, timeout=20)
            spans = [later - sooner for sooner, later in zip(good.times, good.times[1:], strict=False)]
            # In the time of one hung probe (1 s) the good one is probed every 0.2 s ± 10 %.
            assert sorted(spans)[len(spans) // 2] < 0.5
            assert len(good.requests) > 2 * len(hung.requests)


async def test_one_probe_at_a_time_for_a_replica(var: Path) -> None:
    """A server that takes longer than the interval is never asked twice at once."""
    at_once = most = 0

    async def slow(head: str, writer: asyncio.StreamWriter) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.5)
        at_once -= 1
        await answering()(head, writer)

    async with http_server(slow) as server:
        await load(var, server.url)
        with managing("prober", ["runhealthchecks"], var):
            await until(lambda: len(server.requests) >= 3)
    assert most == 1


async def test_edits_are_followed_within_a_second(var: Path) -> None:
    """Additions, another path, another interval, a disabled and a deleted replica: without a restart."""
    table = Table(var)
    async with http_server() as one, http_server() as two:
        await load(var, one.url, rest="  health_check: {interval_seconds: 3600}\n")
        with managing("prober", ["runhealthchecks"], var):
            await until(lambda: table.health(one.url) == "healthy")
            await load(var, one.url, two.url, rest="")
            await until(lambda: table.health(two.url) == "healthy", timeout=2)
            table.query("UPDATE replicas_routersettings SET interval_seconds = 0.1, health_path = '/readyz'")
            await until(lambda: "GET /readyz" in one.requests[-1], timeout=2)
            table.query("UPDATE replicas_replica SET state = 'disabled' WHERE url = ?", one.url)
            await until(lambda: table.health(one.url) == "unknown", timeout=2)
            count = len(one.requests)
            table.query("DELETE FROM replicas_healthtransition")
            table.query("DELETE FROM replicas_replicahealth WHERE url = ?", two.url)
            table.query("DELETE FROM replicas_replica WHERE url = ?", two.url)
            seen = len(two.requests)
            table.query("UPDATE replicas_replica SET state = 'active' WHERE url = ?", one.url)
            await until(lambda: len(one.requests) > count + 10)
            assert len(two.requests) < seen + 15  # it was probed every 0.1 s before


async def test_an_edited_url_begins_anew(var: Path) -> None:
    """What was seen at the old address counts for nothing at the new one."""
    table = Table(var)
    async with http_server() as server:
        await load(var, server.url)
        nowhere = f"http://127.0.0.1:{free_port()}"
        with managing("prober", ["runhealthchecks"], var):
            await until(lambda: table.health(server.url) == "healthy")
            table.query("UPDATE replicas_replica SET url = ?", nowhere)
            await until(lambda: table.health(nowhere) == "unhealthy")
            assert table.health(nowhere, "last_ok_at") is None


async def test_sigterm_finishes_the_round_and_exits_0(var: Path) -> None:
    """A probe in flight is finished and written; the lease is released, so that the next one begins at once."""
    table, asked = Table(var), asyncio.Event()

    async def slow(head: str, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await asyncio.sleep(0.5)
        await answering()(head, writer)

    async with http_server(slow) as server:
        await load(var, server.url)
        with managing("prober", ["runhealthchecks"], var) as prober:
            await asked.wait()
            assert await asyncio.to_thread(prober.stop) == 0
        assert table.health(server.url) == "healthy"
        assert table.query("SELECT holder FROM replicas_proberlease") == [("",)]


async def test_a_second_signal_ends_it_at_once(var: Path) -> None:
    """Even while a probe hangs."""
    async with http_server(hangs) as server:
        await load(var, server.url, rest="  health_check: {timeout_seconds: 60}\n")
        with managing("prober", ["runhealthchecks"], var) as prober:
            await until(lambda: server.requests)
            code = await asyncio.to_thread(_signal_until_it_ends, prober)
            assert code == 128 + signal.SIGINT
        assert Table(var).query("SELECT holder FROM replicas_proberlease") == [("",)]


def _signal_until_it_ends(prober: Running) -> int:
    """The first signal may not have been handled yet when the second comes: they would be one."""
    for _ in range(100):
        prober.process.send_signal(signal.SIGINT)
        with contextlib.suppress(Exception):
            return prober.process.wait(0.1)
    raise AssertionError("it does not end")


SLOW_NAMES = """
import socket, time
real = socket.getaddrinfo
def look_up(host, *rest):
    if b"hanging" in (host if isinstance(host, bytes) else str(host).encode()):
        time.sleep(30)
    return real(host, *rest)
socket.getaddrinfo = look_up
"""


async def test_a_look_up_that_hangs_holds_up_no_end(var: Path) -> None:
    """It cannot be interrupted: SIGTERM and --once do not wait for it."""
    (var / "sitecustomize.py").write_text(SLOW_NAMES)
    await load(var, "http://hanging.invalid:8000")
    with managing("prober", ["runhealthchecks"], var, PYTHONPATH=var) as prober:
        await until(lambda: Table(var).health("http://hanging.invalid:8000") == "unhealthy")
        assert await asyncio.to_thread(prober.stop, timeout=5) == 0
    started = time.monotonic()
    done = await asyncio.to_thread(manage, var, "runhealthchecks", "--once", check=False, PYTHONPATH=var)
    assert time.monotonic() - started < 10
    assert (done.returncode, "the name look-up hangs" in done.stdout) == (1, True)


async def test_of_two_probers_one_works_and_one_says_that_it_waits(var: Path) -> None:
    """Killed, the other takes over within 15 s; nothing is counted twice (faults.md, 53)."""
    table = Table(var)
    async with http_server() as server:
        await load(var, server.url)
        with managing("first", ["runhealthchecks"], var) as first:
            await until(working(first))
            with managing("second", ["runhealthchecks"], var) as second:
                await until(lambda: "another prober" in second.log)
                assert f":{first.pid})" in second.log
                before, asked = table.health(server.url, "consecutive_successes"), len(server.requests)
                await until(lambda: len(server.requests) >= asked + 10)
                await until(lambda: table.health(server.url, "consecutive_successes") > before)
                counted = table.health(server.url, "consecutive_successes")
                assert counted <= len(server.requests)
                first.process.kill()
                await until(lambda: "this prober" in second.log, timeout=15)
                await until(lambda: table.health(server.url, "consecutive_successes") > counted)


async def test_a_prober_that_was_stopped_and_comes_back_writes_nothing(var: Path) -> None:
    """Its lease is another's by then: what it found meanwhile is thrown away, and it waits."""
    table = Table(var)
    async with http_server() as server:
        await load(var, server.url)
        with (
            managing("first", ["runhealthchecks"], var) as first,
            managing("second", ["runhealthchecks"], var) as second,
        ):
            await until(lambda: working(first)() or working(second)())
            holder, other = (first, second) if working(first)() else (second, first)
            await until(lambda: "another prober" in other.log)
            holder.process.send_signal(signal.SIGSTOP)
            await until(lambda: "this prober" in other.log, timeout=15)
            epoch = table.query("SELECT epoch FROM replicas_proberlease")[0][0]
            holder.process.send_signal(signal.SIGCONT)
            await until(lambda: "has taken over the lease" in holder.log)
            assert table.query("SELECT epoch FROM replicas_proberlease") == [(epoch,)]


async def test_a_locked_database_is_waited_for(var: Path) -> None:
    """Logged once, retried, and nothing of what was found meanwhile is lost."""
    table = Table(var)
    async with http_server() as server:
        await load(var, server.url)
        with managing("prober", ["runhealthchecks"], var) as prober:
            await until(lambda: table.health(server.url) == "healthy")
            with contextlib.closing(sqlite3.connect(table.path, isolation_level=None)) as lock:
                lock.execute("BEGIN IMMEDIATE")
                await until(lambda: "the database does not answer" in prober.log, timeout=15)
                asked = len(server.requests)
                await until(lambda: len(server.requests) > asked + 10)  # probing goes on
                assert "answers again" not in prober.log  # it is read all the time
                lock.execute("ROLLBACK")
            await until(lambda: "the database answers again" in prober.log)
            await until(lambda: table.health(server.url, "consecutive_successes") > asked)
            assert prober.log.count("the database does not answer") == 1
            assert await asyncio.to_thread(prober.stop) == 0


async def test_once_probes_all_and_says_whether_a_session_could_be_placed(var: Path) -> None:
    """A table, the health written, exit code 0 or 1."""
    table = Table(var)
    async with http_server() as server:
        await load(var, server.url, f"http://127.0.0.1:{free_port()}")
        done = await asyncio.to_thread(manage, var, "runhealthchecks", "--once", check=False)
        assert done.returncode == 0, done.stderr
        assert "unknown → healthy" in done.stdout
        assert "connection refused" in done.stdout
        assert table.health(server.url) == "healthy"
        table.query("UPDATE replicas_replica SET state = 'draining'")
        done = await asyncio.to_thread(manage, var, "runhealthchecks", "--once", check=False)
        assert (done.returncode, "No session could be placed" in done.stdout) == (1, True)
        asked, networks = len(server.requests), {"ROUTER_REPLICA_NETWORKS": "10.0.0.0/8"}
        done = await asyncio.to_thread(manage, var, "runhealthchecks", "--once", check=False, **networks)
        assert "address not allowed: outside ROUTER_REPLICA_NETWORKS (127.0.0.1)" in done.stdout
        assert len(server.requests) == asked


async def test_once_writes_nothing_while_a_prober_works(var: Path) -> None:
    """Or its probe would be counted among the other's."""
    table = Table(var)
    async with http_server() as server:
        await load(var, server.url, rest="  health_check: {interval_seconds: 3600}\n")
        with managing("prober", ["runhealthchecks"], var) as prober:
            await until(lambda: table.health(server.url, "consecutive_successes") == 1)
            done = await asyncio.to_thread(manage, var, "runhealthchecks", "--once", check=False)
            assert f":{prober.pid} is at work" in done.stdout
            assert "unknown →" not in done.stderr
            assert done.returncode == 0
            assert table.health(server.url, "consecutive_successes") == 1


async def test_once_takes_over_from_a_prober_that_died(var: Path) -> None:
    """A lease without a beat is nobody's: what it finds is written, and the lease is free again."""
    table = Table(var)
    async with http_server() as server:
        await load(var, server.url)
        table.query("INSERT INTO replicas_proberlease VALUES (1, 7, 7, 'dead:1', '2020-01-01 00:00:00')")
        done = await asyncio.to_thread(manage, var, "runhealthchecks", "--once")
        assert "Not written" not in done.stdout
        assert table.health(server.url) == "healthy"
        assert table.query("SELECT epoch, holder FROM replicas_proberlease") == [(8, "")]


def test_a_bad_interval_is_refused(var: Path) -> None:
    """With the option, the value and what is allowed."""
    done = manage(var, "runhealthchecks", "--interval", "0", check=False)
    assert done.returncode == 1
    assert "--interval 0: must be greater than 0" in done.stderr


async def test_the_history_is_pruned(var: Path) -> None:
    """Transitions older than ROUTER_HISTORY_DAYS go, younger ones stay."""
    table = Table(var)
    async with http_server() as server:
        await load(var, server.url)
        (row,) = table.query("SELECT id FROM replicas_replica")
        for at in ("2020-01-01 00:00:00", "2020-01-02 00:00:00"):
            table.query(
                "INSERT INTO replicas_healthtransition (replica_id, at, old_status, new_status, reason)"
                " VALUES (?, ?, 'unknown', 'healthy', 'old')",
                row[0],
                at,
            )
        with managing("prober", ["runhealthchecks"], var):
            await until(lambda: table.health(server.url) == "healthy")
            await until(lambda: table.query("SELECT reason FROM replicas_healthtransition") == [("probe succeeded",)])

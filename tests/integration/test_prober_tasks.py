"""The prober in this process: what its tasks do when one of them fails, when it stops, and when the loop stalls."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.utils import timezone

from replicas import database, prober
from replicas.models import HealthTransition, ProberLease, Replica, ReplicaHealth, RouterSettings
from replicas.prober import Prober
from replicas.signals import pruning
from tests.integration.http_servers import answering, hangs, http_server

pytestmark = pytest.mark.django_db(transaction=True)


async def until(condition: Callable[[], Any], timeout: float = 10) -> None:
    def holds() -> Any:
        try:
            return condition()
        finally:
            connection.close()  # of a thread that may not be used again

    async with asyncio.timeout(timeout):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(made: Prober) -> AsyncIterator[asyncio.Task[None]]:
    """`made` at work; stopped at the end, if the test has not."""
    task = asyncio.create_task(made.run())
    try:
        yield task
    finally:
        made.stop()
        await asyncio.wait({task}, timeout=15)
        assert task.done()


async def add(url: str, **values: Any) -> Replica:
    return await Replica.objects.acreate(url=url, **values)


def health(replica: Replica) -> ReplicaHealth | None:
    return ReplicaHealth.objects.filter(replica=replica).first()


def healthy(replica: Replica) -> Callable[[], bool]:
    return lambda: getattr(health(replica), "status", "") == "healthy"


async def test_a_dead_side_task_ends_the_prober(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never silently half-working: the error comes out, and the lease is released for another prober."""

    async def broken(_: object) -> None:
        raise RuntimeError("a fault of the program")

    monkeypatch.setattr(prober, "prune", broken)
    with pytest.raises(ExceptionGroup) as failed:
        await Prober().run()
    assert failed.group_contains(RuntimeError, match="a fault of the program")
    assert (await ProberLease.objects.aget()).holder == ""


async def test_a_stop_waits_for_no_interval() -> None:
    """Probes in flight are finished; who only sleeps until the next one is not waited for."""
    async with http_server() as server:
        replica = await add(server.url)
        made = Prober(interval_seconds=3600)
        async with running(made) as task:
            await until(healthy(replica))
            started = time.monotonic()
            made.stop()
            await task
            assert time.monotonic() - started < 1


async def test_a_stop_during_a_probe_waits_for_that_probe_alone() -> None:
    """It is finished and written; the interval after it is not waited for."""
    await RouterSettings.objects.acreate(timeout_seconds=30)

    async def slow(head: str, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        await answering()(head, writer)

    async with http_server(slow) as server:
        replica = await add(server.url)
        made = Prober(interval_seconds=3600)
        async with running(made) as task:
            await until(lambda: server.requests)
            made.stop()
            async with asyncio.timeout(5):
                await task
    assert (await ReplicaHealth.objects.aget(replica=replica)).status == "healthy"


async def test_a_stop_is_bounded_by_the_probe_s_deadline() -> None:
    """A hung probe is finished as what it is, a timeout, and written."""
    await RouterSettings.objects.acreate(timeout_seconds=0.5)
    async with http_server(hangs) as server:
        replica = await add(server.url)
        made = Prober()
        async with running(made) as task:
            await until(lambda: server.requests)
            started = time.monotonic()
            made.stop()
            await task
            assert time.monotonic() - started < 2
    assert (await ReplicaHealth.objects.aget(replica=replica)).last_error == "timeout after 0.5 s"


async def test_a_stop_while_waiting_for_the_lease_is_at_once() -> None:
    """And leaves the lease to its holder."""
    await ProberLease.objects.acreate(epoch=3, holder="other:1")
    made = Prober()
    async with running(made) as task:
        await asyncio.sleep(0.1)
        made.stop()
        async with asyncio.timeout(1):
            await task
    assert (await ProberLease.objects.aget()).holder == "other:1"


async def test_a_write_that_fails_during_the_stop_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last write puts down what the one under way could not."""
    failing, real_write = asyncio.Event(), prober.write
    loop = asyncio.get_running_loop()

    def fail_once(*args: Any) -> None:
        if not failing.is_set():
            loop.call_soon_threadsafe(failing.set)
            time.sleep(0.3)
            raise OperationalError("database is locked")
        real_write(*args)

    monkeypatch.setattr(prober, "write", fail_once)
    async with http_server() as server:
        replica = await add(server.url)
        made = Prober(interval_seconds=3600)
        async with running(made) as task:
            await until(lambda: server.requests)
            await failing.wait()
            made.stop()
            await task
    assert (await ReplicaHealth.objects.aget(replica=replica)).status == "healthy"


async def test_a_stalled_event_loop_makes_no_replica_unhealthy() -> None:
    """Deadlines that come up late together say something of this process alone (faults.md, 58)."""
    await RouterSettings.objects.acreate(timeout_seconds=0.4, failure_threshold=1)

    async def slow(head: str, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.1)
        await answering()(head, writer)

    async with http_server(slow) as server:
        replica = await add(server.url)
        async with running(Prober(interval_seconds=0.1)):
            await until(healthy(replica))
            for _ in range(3):
                count = len(server.requests)
                while len(server.requests) == count:
                    await asyncio.sleep(0.005)
                time.sleep(1.0)  # noqa: ASYNC251  (the stall, in the middle of a probe)
                while len(server.requests) < count + 5:
                    await asyncio.sleep(0.005)
    assert await HealthTransition.objects.filter(new_status="unhealthy").acount() == 0


async def test_the_period_is_the_interval_whatever_a_probe_takes() -> None:
    """From start to start: 0.4 s, not 0.4 s and the 0.3 s of the answer."""

    async def slow(head: str, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        await answering()(head, writer)

    async with http_server(slow) as server:
        await add(server.url)
        async with running(Prober(interval_seconds=0.4)):
            await until(lambda: len(server.times) >= 6)
    gaps = [later - sooner for sooner, later in zip(server.times, server.times[1:], strict=False)]
    assert 0.34 < statistics.median(gaps) < 0.5  # a loaded machine delays one, not all


async def test_a_draining_replica_is_probed_and_a_disabled_one_is_not() -> None:
    """What an operator drains they may want back."""
    async with http_server() as draining, http_server() as disabled:
        replica = await add(draining.url, state="draining")
        off = await add(disabled.url, state="disabled")
        await ReplicaHealth.objects.acreate(
            replica=off, url=off.url, status="healthy", checked_at=timezone.now(), consecutive_successes=5
        )
        async with running(Prober(interval_seconds=0.1)):
            await until(healthy(replica))
            await until(lambda: health(off).status == "unknown")  # type: ignore[union-attr]
    assert disabled.requests == []
    change = await HealthTransition.objects.aget(replica=off)
    assert (change.old_status, change.new_status, change.reason) == ("healthy", "unknown", "disabled")


async def test_the_rooms_above_prune_in_small_steps(settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes again until all receivers have nothing left, each time a short job of the database thread."""
    monkeypatch.setattr(database, "PRUNE_ROWS", 2)
    settings.ROUTER_HISTORY_DAYS = 3
    replica, left, seen = await add("http://a"), [250, 250, 0], []
    for days in (1, 4, 5, 6, 7, 8):
        at = timezone.now() - timedelta(days=days)
        await HealthTransition.objects.acreate(replica=replica, at=at, old_status="unknown", new_status="healthy")

    def receiver(before: Any, **_: Any) -> int:
        seen.append(before)
        return left.pop(0)

    pruning.connect(receiver)
    work = database.Database()
    try:
        await database.prune(work)
    finally:
        pruning.disconnect(receiver)
        await work.close()
    assert (left, len(seen)) == ([], 3)
    assert abs(timezone.now() - timedelta(days=3) - seen[0]) < timedelta(minutes=1)
    assert await HealthTransition.objects.acount() == 1


def test_once_without_a_database_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a line, not in a traceback."""

    def away(*_: object, **__: object) -> None:
        raise OperationalError("unable to open database file")

    monkeypatch.setattr("replicas.once.Lease.try_to_take", away)
    with pytest.raises(CommandError, match="The database does not answer: unable to open database file"):
        call_command("runhealthchecks", "--once")

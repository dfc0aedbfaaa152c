"""A router process that dies or stands still, on PostgreSQL and Redis (issue 4, 6.2; faults.md 55 and 58)."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import pytest
from pytest_django.plugin import DjangoDbBlocker

from proxy.census import VANISHED
from proxy.models import RouterProcess, Session
from tests.acceptance.cluster import Cluster, running_cluster
from tests.acceptance.visitors import leave_all, line_up, served, visitor
from tests.backing_servers import redis_server, running_postgres
from tests.slotted_replica import slotted_replica, slotted_replicas

# faults.md 55; the issue allows 12.
SLOTS_BACK_SECONDS = 10.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Cluster]:
    var = tmp_path_factory.mktemp("lease")
    with running_postgres() as postgres, redis_server(var) as redis:
        settings = {"DATABASE_URL": postgres.url, "REDIS_URL": redis.url}
        with running_cluster(var, django_db_blocker, processes=4, **settings) as found:
            yield found


async def test_a_process_that_is_killed_gives_its_slots_back(cluster: Cluster) -> None:
    """kill -9 of one of four while all slots are taken: its clients come back and are served; nothing leaks."""
    async with slotted_replicas(5, slots=2) as replicas:
        await cluster.configure()
        await cluster.place(*replicas)
        first = await cluster.last_id()
        live = [await served(cluster.routers[number % 4]) for number in range(10)]
        line = await line_up(cluster.routers)
        killed, others = cluster.routers[0], cluster.routers[1:]
        row = await cluster.row_of(killed)
        cut, kept = [*live[0::4], line[0]], [*live[1::4], *live[2::4], *live[3::4]]
        assert await asyncio.to_thread(killed.process.stop, signal.SIGKILL) == -signal.SIGKILL
        cluster.routers.remove(killed)
        killed_at = time.monotonic()
        for lost in cut:
            assert await lost.end(2) is None

        again = [await visitor(others[number % 3]) for number in range(4)]
        for waiting in again:
            await waiting.queued()
        for waiting in line[1:]:  # three slots are back, for the three that waited longest
            await waiting.served(SLOTS_BACK_SECONDS)
        assert time.monotonic() - killed_at <= SLOTS_BACK_SECONDS
        await leave_all(kept[:4])
        for waiting in again:
            await waiting.served(2)
        for found in [*line, *again]:
            found.check_line()
        assert [replica.most for replica in replicas] == [2] * 5

        await leave_all([*kept[4:], *line[1:], *again])
        await cluster.empty()
        dead = await cluster.ask(lambda db: RouterProcess.objects.using(db).get(pk=row.pk))
        assert dead.ended_at is not None
        assert dead.why == VANISHED
        theirs = [session for session in await cluster.since(first) if session.process_id == row.pk]
        assert [session.why for session in theirs] == [VANISHED] * 4
        assert all(not replica.live for replica in replicas)
    await asyncio.to_thread(cluster.start)


async def test_a_stall_of_5_seconds_kills_nobody(cluster: Cluster) -> None:
    """A process that stands still for 5 s keeps its sessions, its slots and its clients' places in the line (58)."""
    async with slotted_replica(slots=4) as replica:
        await cluster.configure()
        await cluster.place(replica)
        stalled, other = cluster.routers[0], cluster.routers[1]
        live = [await served(stalled), await served(stalled), await served(other), await served(other)]
        line = await line_up((stalled, other))
        os.kill(stalled.process.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(5)  # the fault itself
        finally:
            os.kill(stalled.process.pid, signal.SIGCONT)
        beat = (await cluster.row_of(stalled)).beat
        await cluster.until(
            lambda db: RouterProcess.objects.using(db).filter(
                name__endswith=f":{stalled.process.pid}", beat__gt=beat + 1
            )
        )
        assert (await cluster.row_of(stalled)).ended_at is None
        assert "had been given up" not in stalled.log
        assert [session.url for session in await cluster.live()] == [replica.url] * 4 + [None] * 2
        for found in live:
            await found.peer.say("still here")
            await found.until(lambda found: "still here" in found.messages, 5)
        await live[0].leave()
        await line[0].served(1)
        await live[2].leave()
        await line[1].served(1)
        assert replica.most == 4
        await leave_all([*live, *line])
        await cluster.empty()


async def test_a_process_that_stalls_too_long_takes_back_what_is_left(cluster: Cluster) -> None:
    """15 s: it is ended, and its slots are given away; it wakes, keeps what there is room for, and ends the rest."""
    async with slotted_replica(slots=4) as replica:
        await cluster.configure()
        await cluster.place(replica)
        stalled, other = cluster.routers[0], cluster.routers[1]
        row = await cluster.row_of(stalled)
        mine = [await served(stalled) for _ in range(4)]
        line = [await visitor(other), await visitor(other)]
        for waiting in line:
            await waiting.queued()
        os.kill(stalled.process.pid, signal.SIGSTOP)
        stopped_at = time.monotonic()
        try:
            for waiting in line:
                await waiting.served(SLOTS_BACK_SECONDS)
            assert time.monotonic() - stopped_at <= SLOTS_BACK_SECONDS
            assert (await cluster.row_of(stalled)).why == VANISHED
            await asyncio.sleep(15 - (time.monotonic() - stopped_at))  # the fault itself
        finally:
            os.kill(stalled.process.pid, signal.SIGCONT)
        for lost in mine[2:]:
            assert await lost.end(5) == (1012, "slot_lost")
        await cluster.until(lambda db: RouterProcess.objects.using(db).filter(pk=row.pk, ended_at=None))
        for kept in mine[:2]:
            await kept.peer.say("still here")
            await kept.until(lambda found: "still here" in found.messages, 5)
        assert [session.process_id == row.pk for session in await cluster.live()] == [True, True, False, False]
        waiting = await visitor(stalled)
        await waiting.queued()
        await mine[0].leave()
        await waiting.served(1)
        await leave_all([*mine, *line, waiting])
        await cluster.empty()
        assert not await cluster.ask(lambda db: Session.objects.using(db).filter(process=row.pk, ended_by="").exists())

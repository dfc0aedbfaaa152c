"""New sessions while a replica is broken (issue 4, section 6, point 4; faults.md 20, 21, 27, 28, 36, 61).

Two processes on PostgreSQL without Redis. What a fault adds is measured against sessions of the same run without it.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator

import pytest
from django.utils import timezone
from pytest_django.plugin import DjangoDbBlocker

from proxy.models import Session
from replicas.models import ReplicaHealth
from tests.acceptance.cluster import Cluster, running_cluster
from tests.acceptance.visitors import Visitor, leave_all, percentile, served, visitor, within
from tests.backing_servers import running_postgres
from tests.slotted_replica import SlottedReplica, slotted_replica, slotted_replicas

SESSIONS, AT_ONCE = 200, 8
# What the contract allows a fault to add, p99.
REFUSED_SECONDS, HUNG_SECONDS = 0.2, 2.2


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Cluster]:
    var = tmp_path_factory.mktemp("failover")
    with (
        running_postgres() as postgres,
        running_cluster(var, django_db_blocker, processes=2, DATABASE_URL=postgres.url) as found,
    ):
        yield found


async def sessions(cluster: Cluster, count: int) -> list[float]:
    """`count` sessions, some at a time; how long each took to its replica's first frame. None may fail."""
    numbers, took = iter(range(count)), list[float]()

    async def one_after_the_other() -> None:
        for number in numbers:
            started = time.monotonic()
            found = await served(cluster.routers[number % 2])
            took.append(time.monotonic() - started)
            assert found.errors == []
            await found.leave()

    async with asyncio.TaskGroup() as everyone:
        for _ in range(AT_ONCE):
            everyone.create_task(one_after_the_other())
    return took


async def break_in(primary: SlottedReplica, fault: str) -> None:
    if fault == "killed":
        primary.die()
    elif fault == "refusing":
        primary.refuse()
    else:
        primary.mode = fault


@pytest.mark.alone
@pytest.mark.parametrize(
    ("fault", "allowed"),
    [("killed", REFUSED_SECONDS), ("refusing", REFUSED_SECONDS), ("hang", HUNG_SECONDS), ("reject", REFUSED_SECONDS)],
)
async def test_no_session_fails_while_another_replica_is_free(cluster: Cluster, fault: str, allowed: float) -> None:
    """0 of 200, and what the broken primary costs them is bounded."""

    async def added() -> float:
        """Seconds, p99."""
        async with slotted_replicas(3, slots=100) as replicas:
            primary = replicas[0]
            await cluster.configure()
            await cluster.place(*replicas)
            usual = statistics.median(await sessions(cluster, 60))
            assert [replica.attempts for replica in replicas] == [60, 0, 0]
            there = [await served(router) for router in cluster.routers]
            await break_in(primary, fault)
            took = await sessions(cluster, SESSIONS)
            assert primary.attempts < 62 + SESSIONS / 4, "it is tried again now and then, not by every session"
            await see_what_became_of(there, fault)
            await cluster.empty()
            return percentile(took, 0.99) - usual

    await within(allowed, added)


async def see_what_became_of(there: list[Visitor], fault: str) -> None:
    """Sessions that were on the primary before."""
    if fault == "killed":
        for lost in there:
            close = await lost.end(1)
            assert close is not None
            assert close[0] == 1011
            assert lost.errors[0]["code"] == "worker_failed"
        return
    for found in there:
        await found.peer.say("still here")
        await found.until(lambda found: "still here" in found.messages, 5)
    await leave_all(there)


async def test_a_primary_that_is_whole_again_is_filled_first_again(cluster: Cluster) -> None:
    """After its ejection, or once its rejection is forgotten, sessions find it again by themselves."""
    async with slotted_replicas(2, slots=100) as replicas:
        await cluster.configure()
        await cluster.place(*replicas)
        replicas[0].refuse()
        await sessions(cluster, 20)
        before = len(replicas[0].stays)
        await replicas[0].recover()
        deadline = time.monotonic() + 10
        while len(replicas[0].stays) == before:
            assert time.monotonic() < deadline
            await leave_all([await served(cluster.routers[0])])
        elsewhere = len(replicas[1].stays)
        await sessions(cluster, 20)
        assert len(replicas[1].stays) == elsewhere


async def test_a_full_fleet_that_loses_a_replica_loses_nobody_in_the_line(cluster: Cluster) -> None:
    """One of two replicas hangs while clients wait: they are served by the other, in their order."""
    async with slotted_replicas(2, slots=1) as (sick, well):
        await cluster.configure()
        await cluster.place(sick, well)
        first, second = await served(cluster.routers[0]), await served(cluster.routers[1])
        line = []
        for number in range(4):
            line.append(await visitor(cluster.routers[number % 2]))
            await line[-1].queued()
        sick.mode = "hang"
        await first.leave()  # the head of the line is given the sick one, and comes back
        order: list[Visitor] = []
        await second.leave()
        while len(order) < 4:
            waiting = [found for found in line if found not in order]
            await asyncio.wait(
                [asyncio.create_task(found.served(20)) for found in waiting], return_when=asyncio.FIRST_COMPLETED
            )
            order += [found for found in waiting if found.served_at is not None]
            await order[-1].leave()
        assert {found.errors == [] for found in line} == {True}
        assert well.most == 1
        for found in line:
            found.check_line()
        await cluster.empty()


async def test_a_recovered_replica_is_ramped_up_and_no_slot_is_withheld(cluster: Cluster) -> None:
    """61: 100 wait; its connects grow 1, 2, 4 … a process, and all 100 are there long before slow start is over."""
    connecting, most = 0, list[int]()

    async with slotted_replica(slots=100) as replica:
        await cluster.configure(queue_when_down=True, slow_start_seconds=30)
        await cluster.place(replica, status="unhealthy")
        line = await asyncio.gather(*(visitor(cluster.routers[number % 2]) for number in range(100)))
        for waiting in line:
            await waiting.queued()

        accept = replica._connected

        async def slowly(*ends: object) -> None:
            nonlocal connecting
            connecting += 1
            most.append(connecting)
            await asyncio.sleep(0.05)
            connecting -= 1
            await accept(*ends)  # type: ignore[arg-type]

        replica.refuse()
        replica._connected = slowly  # type: ignore[method-assign]
        await replica.recover()
        now = timezone.now()
        await cluster.ask(
            lambda db: ReplicaHealth.objects.using(db).update(status="healthy", status_since=now, checked_at=now)
        )
        for waiting in line:
            await waiting.served(10)
        assert most[0] == 1
        assert max(most[:2]) <= 2
        assert max(most[:6]) <= 4 * len(cluster.routers)
        assert replica.most == 100
        assert (
            await cluster.ask(lambda db: Session.objects.using(db).filter(url=replica.url, attempts=1).count()) == 100
        )
        await leave_all(line)
        await cluster.empty()

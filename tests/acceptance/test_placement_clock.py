"""57: the clock of one of two processes jumps by two days, there and back, and nothing closes or comes free."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone
from pytest_django.plugin import DjangoDbBlocker

from tests.acceptance.cluster import running_cluster
from tests.acceptance.visitors import leave_all, line_up, served, visitor
from tests.jumping_clock import jump
from tests.slotted_replica import slotted_replica, slotted_replicas

TWO_DAYS = 2 * 24 * 3600.0
# A process whose count is seen standing still would be dead by then (proxy/census.py).
BEATS = 10


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    file = tmp_path / "clock"
    jump(file, 0)
    return file


@pytest.mark.parametrize("days", [2, -2])
async def test_a_clock_that_jumps_closes_and_frees_nothing(
    tmp_path: Path, clock: Path, django_db_blocker: DjangoDbBlocker, days: int
) -> None:
    """Live sessions, slots, the line and a drain's deadline: all as if there were no clock on the wall."""
    with running_cluster(tmp_path, django_db_blocker, processes=1) as cluster:
        through = [sys.executable, "-m", "tests.jumping_clock", str(clock)]
        await asyncio.to_thread(cluster.start, through=through)
        async with slotted_replicas(2, slots=4) as (replica, drained):
            await cluster.configure(queue_timeout_seconds=60)
            await cluster.place(replica, drained)
            there = [await served(cluster.routers[number % 2]) for number in range(8)]
            line = await line_up(cluster.routers)
            await cluster.edit(drained, state="draining", drain_deadline_seconds=60, drains=1)

            jump(clock, days * 24 * 3600)
            await cluster.beats(BEATS)
            assert all(not found.over for found in [*there, *line])
            assert [row.url is not None for row in await cluster.live()] == [True] * 8 + [False] * 2
            for found in there:
                await found.peer.say("still here")
                await found.until(lambda found: "still here" in found.messages, 5)

            # And what comes now is placed, by both.
            await there[0].leave()
            await line[0].served(1)
            await there[1].leave()
            await line[1].served(1)
            newcomer = await visitor(cluster.routers[1])
            await newcomer.queued()
            moved = (await cluster.live())[-1].opened_at - timezone.now()
            assert abs(moved - timedelta(days=days)) < timedelta(minutes=1), "the clock did jump"

            jump(clock, 0)
            await cluster.beats(3)
            assert all(not found.over for found in [*there[2:], *line, newcomer])
            await line[0].leave()
            await newcomer.served(1)
            assert (replica.most, drained.most) == (4, 4)
            for found in [*line, newcomer]:
                found.check_line()
            assert all(row.ended_at is None for row in await cluster.processes())
            assert "Traceback" not in "".join(router.log for router in cluster.routers)
            await leave_all([*there[2:], line[1], newcomer])
            await cluster.empty()


async def test_what_is_known_of_a_replica_outlives_no_jump(
    tmp_path: Path, clock: Path, django_db_blocker: DjangoDbBlocker
) -> None:
    """A replica counted as full when the clock was two days ahead is not full for two days."""
    with running_cluster(tmp_path, django_db_blocker, processes=0) as cluster:
        jump(clock, TWO_DAYS)
        through = [sys.executable, "-m", "tests.jumping_clock", str(clock)]
        router = await asyncio.to_thread(cluster.start, through=through)
        async with slotted_replica(slots=1) as replica:
            await cluster.configure()
            await cluster.place(replica)
            replica.mode = "reject"
            rejected = await visitor(router)
            await rejected.queued()
            jump(clock, 0)
            await replica.recover()
            await rejected.served(2)
            await rejected.leave()

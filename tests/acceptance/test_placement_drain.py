"""Operators' wishes (issue 4, section 4; faults.md 56): drains, disconnects, edits. Two processes on SQLite.

What the admin and the commands write into the tables is written here; that they write it is tested with them.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from django.db.models import F
from django.utils import timezone
from pytest_django.plugin import DjangoDbBlocker

from proxy.models import LIVE, Session
from replicas.models import Replica
from tests.acceptance.cluster import Cluster, running_cluster
from tests.acceptance.visitors import Visitor, leave_all, line_up, served, visitor
from tests.slotted_replica import SlottedReplica, slotted_replicas

OBEYED_SECONDS = 1.0
SPREAD_SECONDS = 10.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("drain"), django_db_blocker, processes=2) as found:
        yield found


async def still_there(visitors: list[Visitor]) -> None:
    """Each of them is served as before."""
    words = f"still here at {time.monotonic()}"
    for found in visitors:
        await found.peer.say(words)
    for found in visitors:
        await found.until(lambda found: words in found.messages, 5, "its echo")


async def drain(cluster: Cluster, replica: SlottedReplica, deadline: float | None = None) -> None:
    await cluster.edit(replica, state="draining", drain_deadline_seconds=deadline, drains=F("drains") + 1)


async def test_a_draining_replica_takes_no_new_session(cluster: Cluster) -> None:
    """Neither newcomers nor those in the line, on either process; live ones go on, and it fills again afterwards."""
    async with slotted_replicas(2, slots=2) as (drained, other):
        await cluster.configure()
        await cluster.place(drained, other)
        there = [await served(router) for router in cluster.routers]
        await drain(cluster, drained)
        elsewhere = [await served(router) for router in cluster.routers]
        assert [len(replica.stays) for replica in (drained, other)] == [2, 2]
        line = await line_up(cluster.routers)
        await still_there(there)
        await there[0].leave()  # its slot is nobody's
        await elsewhere[0].leave()
        await line[0].served(OBEYED_SECONDS)
        assert line[1].served_at is None
        assert len(drained.stays) == 2
        await cluster.edit(drained, state="active")
        await line[1].served(OBEYED_SECONDS)
        assert len(drained.stays) == 3
        await leave_all([*there, *elsewhere, *line])


async def test_a_line_behind_a_fleet_that_drains_is_told_so(cluster: Cluster) -> None:
    """With every replica draining there is nothing to wait for: no_healthy_replica within 1 s; live ones go on."""
    async with slotted_replicas(1, slots=1) as (drained,):
        await cluster.configure()
        await cluster.place(drained)
        there = await served(cluster.routers[0])
        line = await line_up(cluster.routers)
        await drain(cluster, drained)
        for waiting in line:
            await waiting.end(OBEYED_SECONDS)
            assert waiting.refusal == ("gpu_unavailable", 1013, "no_healthy_replica")
        await still_there([there])
        await there.leave()


async def test_a_drain_with_a_deadline_ends_what_is_left(cluster: Cluster) -> None:
    """1012 spread over 10 s from the deadline on, on both processes; nobody else is touched."""
    async with slotted_replicas(2, slots=40) as (drained, other):
        await cluster.configure()
        await cluster.place(drained, other)
        there = [await served(cluster.routers[number % 2]) for number in range(20)]
        began = time.monotonic()
        await drain(cluster, drained, deadline=1.5)
        elsewhere = [await served(router) for router in cluster.routers]
        for found in there:
            await found.end(15)
            assert found.close == (1012, "replica_drained")
            assert found.errors == []
        ended = sorted((found.ended_at or 0) - began for found in there)
        assert 1.5 <= ended[0] <= 1.5 + 2 * OBEYED_SECONDS
        assert ended[-1] <= 1.5 + SPREAD_SECONDS + OBEYED_SECONDS
        # One a process each second; 20 over 10 s.
        assert max(Counter(int(at) for at in ended).values()) <= 6, ended
        assert ended[-1] - ended[0] >= 0.7 * SPREAD_SECONDS
        await still_there(elsewhere)
        await leave_all(elsewhere)
        await cluster.empty()


async def test_a_deadline_that_is_taken_back_ends_nobody(cluster: Cluster) -> None:
    """The replica is active again before the time is over; a later drain counts anew."""
    async with slotted_replicas(1, slots=4) as (drained,):
        await cluster.configure()
        await cluster.place(drained)
        there = [await served(router) for router in cluster.routers]
        await drain(cluster, drained, deadline=4)
        await asyncio.sleep(1)  # of the four seconds
        await cluster.edit(drained, state="active")
        await leave_all([await served(router) for router in cluster.routers])
        await cluster.beats(5)  # the first deadline is past
        await still_there(there)
        again = time.monotonic()
        await drain(cluster, drained, deadline=2)
        for found in there:
            assert await found.end(15) == (1012, "replica_drained")
            assert found.ended_at is not None
            assert found.ended_at - again >= 2
        await cluster.empty()


async def test_a_session_is_disconnected_by_its_row(cluster: Cluster) -> None:
    """1012 with the operator's reason within 1 s, whichever process holds it, also in the line; nobody else."""
    async with slotted_replicas(1, slots=4) as (replica,):
        await cluster.configure()
        await cluster.place(replica)
        there = [await served(cluster.routers[number % 2]) for number in range(4)]
        line = [await visitor(cluster.routers[0])]
        await line[0].queued()
        rows = {row.client: row.pk for row in await cluster.live()}
        reason = "maintenance: " + "é" * 50
        for victim in (line[0], there[0], there[1]):
            row = rows[f"127.0.0.1:{victim.peer.ports[0]}"]
            asked = time.monotonic()
            await cluster.ask(
                lambda db, row=row: Session.objects.using(db).filter(pk=row).update(disconnect_reason=reason)
            )
            assert await victim.end(3) == (1012, reason)
            assert (victim.ended_at or 0) - asked <= OBEYED_SECONDS
            assert victim.errors == []
        await still_there(there[2:])
        ended = await cluster.ask(lambda db: list(Session.objects.using(db).filter(disconnect_reason=reason)))
        await cluster.until(
            lambda db: not Session.objects.using(db).filter(LIVE, disconnect_reason=reason).exists(), OBEYED_SECONDS
        )
        assert len(ended) == 3
        assert [stay.close for stay in replica.stays if not stay.live] == [(1001, "")] * 2
        await leave_all(there[2:])


EDITS: dict[str, dict[str, Any]] = {
    "weight": {"weight": 7.5},
    "name": {"name": "renamed"},
    "fewer slots": {"max_sessions": 1},
    "no primary": {"primary": False},
    "disabled": {"state": "disabled"},
    "another URL": {"url": "http://127.0.0.1:9"},
    "deleted": {"deleted_at": "now", "primary": False},
}


@pytest.mark.parametrize("edit", EDITS)
async def test_an_edit_cuts_nothing(cluster: Cluster, edit: str) -> None:
    """56: whatever happens to a replica's row, its sessions live on, hold their slots, and are logged to their end."""
    changes = {name: timezone.now() if value == "now" else value for name, value in EDITS[edit].items()}
    async with slotted_replicas(2, slots=2) as (edited, other):
        await cluster.configure()
        await cluster.place(edited, other)
        first = await cluster.last_id()
        there = [await served(router) for router in cluster.routers]
        await cluster.edit(edited, **changes)
        newcomer = await served(cluster.routers[0])
        assert len(other.stays) == 1
        await still_there([*there, newcomer])
        rows = await cluster.live()
        assert [row.url for row in rows] == [edited.url, edited.url, other.url]
        if edit == "fewer slots":  # its second slot is gone: one must leave before there is room again
            await leave_all([await served(cluster.routers[0])])
            assert len(edited.stays) == 2
        await leave_all([*there, newcomer])
        await cluster.empty()
        assert [row.ended_by for row in (await cluster.since(first))[:3]] == ["client"] * 3


async def test_a_row_that_is_gone_for_good_cuts_nothing(cluster: Cluster) -> None:
    """Deleted with its row, and entered again with the same URL: its live sessions still count as its slots."""
    async with slotted_replicas(1, slots=2) as (replica,):
        await cluster.configure()
        await cluster.place(replica)
        there = [await served(router) for router in cluster.routers]
        await cluster.ask(lambda db: Replica.everything.using(db).all().delete())
        await still_there(there)
        await cluster.ask(lambda db: cluster._place(db, (replica,), primary=True, status="healthy"))
        waiting = await visitor(cluster.routers[0])
        await waiting.queued()
        await there[1].leave()
        await waiting.served(OBEYED_SECONDS)
        assert replica.most == 2
        await leave_all([*there, waiting])
        await cluster.empty()

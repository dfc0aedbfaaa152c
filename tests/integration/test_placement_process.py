"""Placement and its process: given up and back again, wishes and deadlines, drain and stop (proxy/placement.py)."""

from __future__ import annotations

import asyncio
import time

import pytest

from proxy import census
from proxy.claims import Batch
from proxy.models import RouterProcess, Session
from proxy.placement import ROUTER_DRAINING, SLOT_LOST, Placement
from proxy.settling import settle
from replicas.models import Replica
from tests.integration.clients import Client, Processes, busy, db, until, until_db
from tests.integration.placing import add_replica, live, most_over

pytestmark = pytest.mark.usefixtures("database")

# --- the census -------------------------------------------------------------------------------------------------------


def bury(process: int) -> None:
    beat = RouterProcess.objects.get(pk=process).beat
    while not census.bury(process, beat):
        beat = RouterProcess.objects.get(pk=process).beat


async def test_a_process_that_was_given_up_goes_on_where_there_is_room(
    processes: Processes, placement: Placement
) -> None:
    """It was only slow. Its session notices nothing; the line is as it was; what comes is served."""
    await db(add_replica, max_sessions=2)
    holder, other, waiting = (Client(placement) for _ in range(3))
    await until(lambda: waiting.told)
    assert placement.process is not None
    await db(bury, placement.process)
    await until_db(lambda: live() == 3)
    assert processes.told_to_end == []
    holder.end()
    assert (await asyncio.wait_for(waiting.task, 10)).name == "a"
    assert other.seat == "a"


async def test_a_process_that_was_given_up_ends_what_has_no_room_any_more(processes: Processes) -> None:
    """Another one has taken the slot."""
    await db(add_replica)
    slow, other = processes.add(), processes.add()
    holder = Client(slow)
    await holder.task
    waiting = Client(other)
    await until(lambda: waiting.told)
    assert slow.process is not None

    def bury_and_give_away() -> None:
        bury(slow.process or 0)
        assert other.process is not None
        settle(other.process, Batch())

    await db(bury_and_give_away)
    assert (await asyncio.wait_for(waiting.task, 10)).name == "a"
    await until(lambda: processes.told_to_end == [(holder.claim.uid, SLOT_LOST)])
    assert await db(most_over) <= 0


async def test_a_dead_process_gives_its_slots_back_within_twelve_seconds(processes: Processes) -> None:
    """Nobody tells: its count stands still."""
    await db(add_replica)
    dead, other = processes.add(), processes.add()
    await Client(dead).task
    waiting = Client(other)
    await until(lambda: waiting.told)
    await processes.crash(dead)
    died = time.monotonic()
    assert (await asyncio.wait_for(waiting.task, 13)).name == "a"
    assert time.monotonic() - died <= 12


async def test_an_operators_wish_is_heard(processes: Processes, placement: Placement) -> None:
    """Within a look, whichever process holds the session."""
    await db(add_replica)
    client = Client(placement)
    await client.task
    await db(lambda: Session.objects.update(disconnect_reason="maintenance"))
    await until(lambda: (client.claim.uid, "maintenance") in processes.told_to_end)


async def test_a_drains_deadline_is_heard(processes: Processes, placement: Placement) -> None:
    """Those on that replica; not those on another."""
    a = await db(add_replica, "a")
    await db(add_replica, "b")
    first, second = Client(placement), Client(placement)
    await asyncio.gather(first.task, second.task)
    await db(lambda: Replica.objects.filter(pk=a.pk).update(state="draining", drains=1, drain_deadline_seconds=0.5))
    drained = first if first.seat == "a" else second
    await until(lambda: processes.told_to_end)
    assert {uid for uid, _ in processes.told_to_end} == {drained.claim.uid}


# --- its end ----------------------------------------------------------------------------------------------------------


async def test_a_draining_process_takes_nobody(placement: Placement) -> None:
    """Who waits is told, who comes is told; who has a slot keeps it."""
    await db(add_replica)
    holder = Client(placement)
    await holder.task
    waiting = Client(placement)
    await until(lambda: waiting.told)
    await placement.drain()
    assert await waiting.refused() == ROUTER_DRAINING
    waiting.end()
    late = Client(placement)
    assert await late.refused() == ROUTER_DRAINING
    late.end()
    await until_db(lambda: live() == 1)
    assert await db(lambda: RouterProcess.objects.get().draining)


async def test_a_process_that_stops_leaves_nothing(processes: Processes) -> None:
    """What has ended is written as it ended, and the rest with the process; no thread, no task."""
    await db(add_replica, max_sessions=2)
    stopping, other = processes.add(), processes.add()
    ended, holder, waiting = (Client(stopping) for _ in range(3))
    await asyncio.gather(ended.task, holder.task)
    behind = Client(other)
    await until(lambda: behind.told and waiting.told)
    ended.end()
    waiting.task.cancel()
    await asyncio.wait({waiting.task})
    waiting.end()
    processes.all.remove(stopping)
    await stopping.stop()
    rows = await db(lambda: dict(Session.objects.values_list("uid", "why")))
    assert (rows[ended.claim.uid], rows[waiting.claim.uid], rows[holder.claim.uid]) == ("closed", "closed", "stopped")
    assert (await asyncio.wait_for(behind.task, 2)).name == "a"
    assert not [task for task in asyncio.all_tasks() if task is stopping._life]


async def test_a_process_that_stops_in_the_midst_of_a_turn_leaves_nothing(processes: Processes) -> None:
    """The turn is under way in the thread, and is finished there."""
    await db(add_replica)
    stopping = processes.add()
    await stopping.ready()
    with busy():
        client = Client(stopping)
        await until(lambda: client.claim.uid in stopping._claims and not stopping._batch)
        await client.leave()
        stop = asyncio.create_task(stopping.stop())
        await asyncio.sleep(0)
    await stop
    processes.all.remove(stopping)
    assert await db(live) == 0
    assert await db(lambda: RouterProcess.objects.get().why) == "stopped"


async def test_a_placement_that_never_began_stops(processes: Processes) -> None:
    """Nothing to write."""
    await Placement(lambda uid, reason: None).stop()
    assert await db(RouterProcess.objects.count) == 0

"""One process's part in placement, with a real database and no server: seats and the line (proxy/placement.py)."""

from __future__ import annotations

import asyncio
import time

import pytest

from proxy.claims import EXHAUSTED, NO_HEALTHY_REPLICA, QUEUE_FULL
from proxy.line import QUEUE_TIMEOUT
from proxy.placement import Placement
from replicas.models import PlacementRecord
from replicas.passive import Outcome
from tests.integration.clients import Client, Processes, busy, db, until, until_db
from tests.integration.placing import add_replica, configure, line, live, set_health

pytestmark = pytest.mark.usefixtures("database")

# --- seats ------------------------------------------------------------------------------------------------------------


async def test_a_session_gets_a_seat_and_gives_it_back(placement: Placement) -> None:
    """And the next has it."""
    await db(add_replica)
    first = Client(placement)
    assert (await first.task).name == "a"
    second = Client(placement)
    await until(lambda: second.told)
    first.end()
    assert (await second.task).name == "a"
    second.end()
    await until_db(lambda: live() == 0)
    assert placement._claims == placement._waiters == {}


async def test_many_that_come_at_once_are_served_in_order(placement: Placement) -> None:
    """A hundred over one slot: one after the other, as they came."""
    await db(add_replica)
    clients = [Client(placement) for _ in range(100)]
    for client in clients:
        assert (await asyncio.wait_for(client.task, 10)).name == "a"
        assert sum(each.seat is not None for each in clients) == clients.index(client) + 1
        client.end()
    await until_db(lambda: live() == 0)


async def test_one_that_comes_free_in_one_process_is_for_who_waits_in_another(processes: Processes) -> None:
    """Within a second, without Redis; and within each process in the order of the whole line."""
    await db(add_replica)
    one, other = processes.add(), processes.add()
    holder = Client(one)
    await holder.task
    waiting = [Client(one), Client(other), Client(one), Client(other)]
    await until(lambda: all(client.told for client in waiting))
    order = await db(line)
    by_uid = {client.claim.uid: client for client in waiting}
    for uid in order:
        freed = time.monotonic()
        holder.end()
        holder = by_uid[uid]
        await asyncio.wait_for(asyncio.shield(holder.task), 10)
        assert time.monotonic() - freed < 1
    holder.end()
    await until_db(lambda: live() == 0)


async def test_one_whose_replica_is_no_use_gets_another(placement: Placement) -> None:
    """Again and again, until none is left; what was found out is in the record."""
    for name in "ab":
        await db(add_replica, name)
    client, had = Client(placement), []
    for _ in range(2):
        seat = await client.task
        had.append(seat.name)
        client.claim.avoid[seat.replica] = time.time()
        placement.learned(seat.replica, Outcome.FAILED)
        client.ask()
    assert await client.refused() == EXHAUSTED
    client.end()
    assert sorted(had) == ["a", "b"]
    await until_db(lambda: live() == 0)
    assert await db(lambda: set(PlacementRecord.objects.values_list("failures", flat=True))) == {1}


async def test_refusals_say_why(placement: Placement) -> None:
    """At once: none healthy, the line full, nobody may wait."""
    replica = await db(add_replica, status="unhealthy")
    assert await Client(placement).refused() == NO_HEALTHY_REPLICA
    await db(set_health, replica, "healthy")
    await db(configure, queue_max_length=1)
    await Client(placement).task
    waiting = Client(placement)
    await until(lambda: waiting.told)
    assert await Client(placement).refused() == QUEUE_FULL
    await db(configure, queue_max_length=0)
    assert await Client(placement).refused() == QUEUE_FULL
    # Who waits is told when nothing is left to wait for.
    await db(set_health, replica, "unhealthy")
    assert await waiting.refused() == NO_HEALTHY_REPLICA


# --- the line ---------------------------------------------------------------------------------------------------------


async def test_who_waits_hears_its_place(placement: Placement) -> None:
    """At once, on every change, and nothing else."""
    await db(add_replica)
    holder = Client(placement)
    await holder.task
    clients = [Client(placement) for _ in range(3)]
    await until(lambda: all(client.told for client in clients))
    assert [client.told for client in clients] == [[(1, 3)], [(2, 3)], [(3, 3)]]
    await clients[1].leave()
    await until(lambda: clients[2].told[-1] == (2, 2))
    holder.end()
    await until(lambda: clients[2].told[-1] == (1, 1))
    assert clients[2].told == [(3, 3), (2, 2), (1, 1)]
    assert clients[0].seat == "a"


async def test_no_silence_is_longer_than_five_seconds(placement: Placement) -> None:
    """Though nothing changes, and though the database is away meanwhile (contract B)."""
    await db(add_replica)
    holder, client = Client(placement), Client(placement)
    await until(lambda: len(client.told) >= 2, 6)
    with busy():
        await until(lambda: len(client.told) >= 4, 15)
    gaps = [later - earlier for earlier, later in zip(client.told_at, client.told_at[1:], strict=False)]
    assert max(gaps) <= 5
    assert client.told == [(1, 1)] * len(client.told)
    holder.end()
    assert (await asyncio.wait_for(client.task, 10)).name == "a"


async def test_who_waits_too_long_is_told(placement: Placement) -> None:
    """And leaves the line; those behind it are not held up."""
    await db(add_replica)
    holder = Client(placement)
    await holder.task
    await db(configure, queue_timeout_seconds=0.5)
    client = Client(placement)
    assert await client.refused() == QUEUE_TIMEOUT
    client.end()
    await until_db(lambda: live() == 1)


async def test_who_waits_too_long_is_told_while_the_database_is_away(placement: Placement) -> None:
    """By the settings that were read last."""
    await db(configure, queue_timeout_seconds=2.0)
    await db(add_replica)
    await until(lambda: placement.settings.queue_timeout_seconds == 2)
    await Client(placement).task
    client = Client(placement)
    await until(lambda: client.told)
    with busy():
        began = time.monotonic()
        assert await client.refused() == QUEUE_TIMEOUT
        assert time.monotonic() - began < 4


async def test_settings_count_without_a_restart(placement: Placement) -> None:
    """As last read: within a look."""
    await db(configure, affinity="cookie:sid")
    await until(lambda: placement.settings.affinity == "cookie:sid")


async def test_a_replica_that_recovers_is_found_by_those_who_wait(placement: Placement) -> None:
    """Nobody nudges: the prober writes it, and each look settles."""
    replica = await db(add_replica, status="unhealthy")
    await db(configure, queue_when_down=True)
    client = Client(placement)
    await until(lambda: client.told)
    await db(set_health, replica, "healthy")
    assert (await asyncio.wait_for(client.task, 2)).name == "a"

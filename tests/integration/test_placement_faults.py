"""Placement and what goes wrong: clients that leave at any moment, rows that cannot be written, no database."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from proxy import census, settling
from proxy.models import RouterProcess, Session
from proxy.placement import DatabaseAway, Placement
from replicas.models import Replica
from routerproject.databases import from_url
from tests.backing_servers import Postgres
from tests.databases import apart, pointed_at, prepare
from tests.integration.clients import Client, Processes, away, busy, db, until, until_db
from tests.integration.placing import add_replica, ending, live

pytestmark = pytest.mark.usefixtures("database")

# --- leaving ----------------------------------------------------------------------------------------------------------


async def test_who_leaves_at_any_moment_leaves_no_slot(placement: Placement) -> None:
    """Before its turn, within it, in the line and in the very step in which it is seated."""
    await db(add_replica, max_sessions=3)
    for steps in range(60):
        client = Client(placement)
        for _ in range(steps % 20):
            await asyncio.sleep(0.0005 if steps >= 20 else 0)
        await client.leave()
    last = Client(placement)
    assert (await last.task).name == "a"
    last.end()
    await until_db(lambda: live() == 0)
    assert placement._claims == placement._waiters == {}


@pytest.mark.parametrize("returns", [False, True])
async def test_who_leaves_while_its_turn_is_taken_leaves_no_slot(placement: Placement, returns: bool) -> None:
    """Its row is written after it has left: as one that arrives, or that comes back for another replica."""
    await db(add_replica, "a")
    await db(add_replica, "b")
    client = Client(placement)
    if returns:
        seat = await client.task
        client.claim.avoid[seat.replica] = time.time()
    with busy():
        if returns:
            client.ask()
        await until(lambda: client.claim.uid in placement._waiters and not placement._batch)
        await client.leave()
    await until_db(lambda: Session.objects.count() == 1 and live() == 0)


async def test_who_is_seated_and_leaves_in_one_step_gives_its_slot_back(placement: Placement) -> None:
    """The seat came, and nobody took it."""
    await db(add_replica)
    holder = Client(placement)
    await holder.task
    client = Client(placement)
    await until(lambda: client.told)
    holder.end()
    await until(lambda: client.claim.seat is not None)
    await client.leave()
    await until_db(lambda: live() == 0)


async def test_who_leaves_before_its_turn_is_in_the_log_alone(placement: Placement) -> None:
    """It never had a slot and never stood in the line."""
    await db(add_replica)
    with busy():
        first = Client(placement)
        await until(lambda: first.claim.uid in placement._claims and not placement._batch)
        late = Client(placement)
        await until(lambda: late.claim in placement._batch.arrivals)
        await late.leave()
    await first.task
    first.end()
    await until_db(lambda: live() == 0)
    rows = await db(lambda: dict(Session.objects.values_list("uid", "placed_at")))
    assert rows.keys() == {first.claim.uid, late.claim.uid}
    assert rows[late.claim.uid] is None


# --- one session's trouble --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_a_replica_that_is_deleted_in_the_moment_of_a_turn_costs_nobody_a_session(
    placement: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server finds that out at the commit: the whole turn fails, and is taken again. (SQLite has one writer.)"""
    await db(add_replica, "a", primary=True)
    await db(add_replica, "b", max_sessions=2)
    real = settling.write_arrivals

    def while_it_is_deleted(*arguments: Any) -> Any:
        monkeypatch.undo()
        made = real(*arguments)
        deletion = threading.Thread(target=lambda: apart(lambda: Replica.objects.filter(name="a").delete()))
        deletion.start()
        deletion.join()
        return made

    monkeypatch.setattr(settling, "write_arrivals", while_it_is_deleted)
    client, other = Client(placement), Client(placement)
    await asyncio.gather(client.task, other.task)
    assert {client.seat, other.seat} == {"b"}
    assert await db(live) == 2


async def test_what_no_database_takes_fails_alone(placement: Placement) -> None:
    """One session's row can never be written: the others in its turn come and go as if it were not there."""
    await db(add_replica, max_sessions=9)
    holders = [Client(placement) for _ in range(3)]
    await asyncio.gather(*(holder.task for holder in holders))
    poison = Client(placement)
    poison.claim.opened_at = "never"  # type: ignore[assignment]
    others = [Client(placement) for _ in range(3)]
    for holder in holders:
        holder.end()
    await asyncio.wait_for(asyncio.gather(*(other.task for other in others)), 5)
    await until_db(lambda: live() == 3)
    reasons = await db(lambda: set(Session.objects.exclude(ended_at=None).values_list("why", flat=True)))
    assert reasons == {"closed"}
    await poison.leave()
    for other in others:
        other.end()
    await until_db(lambda: live() == 0)


async def test_an_ending_that_no_database_takes_fails_alone(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row is ended as a stray; the others' are ended with what they say."""
    monkeypatch.setattr("proxy.placement.TIDY_SECONDS", 0.5)
    placement = processes.add()
    await db(add_replica, max_sessions=9)
    clients = [Client(placement) for _ in range(3)]
    await asyncio.gather(*(client.task for client in clients))
    placement.ended(ending(clients[0].claim, bytes_up=2**70))
    for client in clients[1:]:
        client.end()
    await until_db(lambda: live() == 0, 20)
    rows = await db(lambda: dict(Session.objects.values_list("uid", "why")))
    assert rows[clients[0].claim.uid] == "given up"
    assert [rows[client.claim.uid] for client in clients[1:]] == ["closed"] * 2


# --- the database is away ---------------------------------------------------------------------------------------------


async def test_who_comes_while_the_database_is_away_hears_it_within_three_seconds(placement: Placement) -> None:
    """Who has a slot notices nothing; who waits goes on waiting; all is well after."""
    await db(add_replica)
    holder, waiting = Client(placement), Client(placement)
    await until(lambda: waiting.told)
    with away():
        began = time.monotonic()
        late = Client(placement)
        with pytest.raises(DatabaseAway):
            await late.task
        assert time.monotonic() - began < 3
        late.end()
        holder.end()
        assert not waiting.task.done()
    assert (await asyncio.wait_for(waiting.task, 5)).name == "a"
    waiting.end()
    await until_db(lambda: live() == 0)
    uids = await db(lambda: set(Session.objects.values_list("uid", flat=True)))
    assert {holder.claim.uid, waiting.claim.uid} <= uids
    assert await db(lambda: Session.objects.get(uid=holder.claim.uid).why) == "closed"


async def test_a_process_that_begins_without_a_database_begins_when_it_is_there(processes: Processes) -> None:
    """Its clients hear the truth meanwhile."""
    await db(add_replica)
    with away():
        late = processes.add()
        began = time.monotonic()
        with pytest.raises(DatabaseAway):
            await Client(late).task
        assert time.monotonic() - began < 3
        assert late.process is None
    assert (await asyncio.wait_for(Client(late).task, 5)).name == "a"


@pytest.fixture
def own_server(database: str, postgres: Postgres) -> Iterator[Postgres]:
    """A PostgreSQL that the test may stop, and that the code under test uses."""
    config = from_url(postgres.url)
    prepare(config)
    with pointed_at(config):
        yield postgres


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_a_server_that_stops_for_longer_than_a_lease_frees_no_slot(
    own_server: Postgres, processes: Processes
) -> None:
    """Two processes, one of which has a session: neither is given up, and what ended meanwhile is written after."""
    await db(add_replica, max_sessions=2)
    one, other = processes.add(), processes.add()
    holder, leaver = Client(one), Client(other)
    await asyncio.gather(holder.task, leaver.task)
    await asyncio.to_thread(own_server.stop)
    stopped = time.monotonic()
    leaver.end()
    while time.monotonic() - stopped < census.DEAD_SECONDS + 2:
        began = time.monotonic()
        with pytest.raises(DatabaseAway):
            await Client(one).task
        assert time.monotonic() - began < 3
    await asyncio.to_thread(own_server.start)
    async with asyncio.timeout(10):
        while True:  # one that comes too early hears once more that it is away
            with contextlib.suppress(DatabaseAway):
                late = Client(other)
                await late.task
                break
    rows = await db(lambda: dict(Session.objects.filter(ended_at=None).values_list("uid", "process")))
    assert rows == {holder.claim.uid: one.process, late.claim.uid: other.process}
    assert await db(lambda: Session.objects.get(uid=leaver.claim.uid).why) == "closed"
    assert await db(lambda: RouterProcess.objects.filter(ended_at=None).count()) == 2
    assert processes.told_to_end == []

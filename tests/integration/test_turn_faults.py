"""Turns in which something stands still, or the server refuses for a moment: PostgreSQL's own bounds and words."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import psycopg
import pytest
from django.db import Error as DatabaseFault
from django.db import OperationalError, connection, transaction

import proxy.turn
from proxy import settling
from proxy.claims import Batch
from proxy.placement import Placement
from proxy.settling import settle
from proxy.turn import Asked, brief_turn, turn
from replicas.passive import Outcome
from tests.databases import apart, empty
from tests.integration.clients import Client, db, until, until_db
from tests.integration.placing import Process, add_replica, configure, ending, new_claim, row
from tests.processes import wait_until

# What the server knows of who has the turn.
HOLDER = """
SELECT state, wait_event FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE locktype = 'advisory' AND granted
"""

pytestmark = [
    pytest.mark.usefixtures("database"),
    pytest.mark.parametrize("database", ["postgresql"], indirect=True),
]


@pytest.mark.parametrize("kind", [turn, brief_turn])
def test_who_stands_still_in_its_turn_loses_it(kind: Callable[[], Any]) -> None:
    """The server ends its transaction; others take theirs. So it must know that nothing is under way."""
    add_replica()
    process, claim = Process(), new_claim()
    began, end = threading.Event(), threading.Event()

    def stand_still() -> None:
        with contextlib.suppress(DatabaseFault), kind():
            Asked("SELECT 1").rows()
            began.set()
            end.wait(30)

    still = threading.Thread(target=partial(apart, stand_still))
    still.start()
    assert began.wait(10)
    deadline = time.monotonic() + 12
    try:
        while claim.seat is None and time.monotonic() < deadline:
            try:
                process.settle([claim])
            except DatabaseFault:  # it waited for its turn for too long
                connection.close()
    finally:
        end.set()
        still.join(10)
    assert claim.seat is not None


@pytest.mark.parametrize("kind", [turn, brief_turn])
def test_a_server_that_can_bounds_a_turn_itself(kind: Callable[[], Any]) -> None:
    """PostgreSQL has that from 17 on. Of a turn alone: nothing is left of it for what its connection does next."""
    bound = "SELECT current_setting('server_version_num')::int >= 170000, current_setting('transaction_timeout', true)"
    with kind():
        ((newer, within),) = Asked(bound).rows()
    ((_, after),) = Asked(bound).rows()
    assert (within, after) == (("6s", "0") if newer else (None, None))


def test_wherever_it_is_stopped_the_server_knows_that_it_thinks(monkeypatch: pytest.MonkeyPatch) -> None:
    """At each call of a function within a turn (SIGSTOP may come at any): who holds the lock has no statement open."""
    config = connection.get_connection_params()
    for unwanted in ("cursor_factory", "context", "prepare_threshold"):
        config.pop(unwanted, None)
    places: list[str] = []
    with psycopg.connect(**config, autocommit=True) as watcher:

        def look(frame: FrameType, event: str, argument: object) -> None:
            # One look is not enough to tell: what a server waits for is read later than its state.
            deadline = time.monotonic() + 60
            while (state := watcher.execute(HOLDER).fetchone()) is not None and state[0] == "active":
                if time.monotonic() > deadline:
                    raise AssertionError(f"{state} at {frame.f_code.co_qualname}")
            if state is not None:
                places.append(frame.f_code.co_name)

        process, batch = _scene()
        # Thousands of looks take longer than a turn may.
        monkeypatch.setattr(proxy.turn, "DEADLINE_SECONDS", 600)
        with connection.cursor() as cursor:
            cursor.execute("SET idle_in_transaction_session_timeout = 0")
        sys.setprofile(look)
        try:
            settle(process.id, batch)
        finally:
            sys.setprofile(None)
            connection.close()
    assert len(places) > 1000


def test_at_whatever_it_reads_it_loses_its_turn_when_it_stands_still() -> None:
    """Also where it is Django that reads: what was sent last tells the server that nothing is under way."""
    read: list[str] = []
    while (still := Still(*_scene(), len(read))).reach():
        claim = new_claim()
        try:
            Process().settle([claim])  # within the bound of a statement
        finally:
            still.end()
        assert claim.id is not None, still.read
        read.append(still.read)
        empty()
    still.end()
    # All that a turn reads was among them: how many statements Django makes of it differs between its versions.
    for part in (
        "FROM proxy_routerprocess", "AND url IS NULL ORDER BY id", "GROUP BY url", "FROM replicas_routersettings",
        'FROM "replicas_replica"', "RETURNING uid, id",
    ):  # fmt: skip
        assert any(part in statement for statement in read), part


def _scene() -> tuple[Process, Batch]:
    """A turn with everything in it that there can be."""
    a, b = add_replica("a", max_sessions=3), add_replica("b", max_sessions=1)
    configure(policy="round_robin", affinity="query:k")
    process = Process()
    lost, over = [claim for claim in process.place(5, key="k") if claim.seat is not None][:2]
    lost.avoid[a.pk] = time.time()
    unseen = ending(new_claim())
    outcomes = [(b.pk, Outcome.FAILED)]
    return process, Batch([new_claim(key="k")], [lost], [ending(over), unseen], outcomes, again=True)


class Still:
    """A turn that stops when it has read for this number of times."""

    def __init__(self, process: Process, batch: Batch, number: int) -> None:
        self._process, self._batch, self._number = process, batch, number
        self._stands = False
        self.read = ""  # what it was reading
        self._reached, self._go_on = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=partial(apart, self._work))

    def reach(self) -> bool:
        """False: it has not that many."""
        self._thread.start()
        assert self._reached.wait(10)
        return self._stands

    def end(self) -> None:
        self._go_on.set()
        self._thread.join(10)

    def _work(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET idle_in_transaction_session_timeout = 300")  # of 2,500 ms
        with contextlib.suppress(DatabaseFault), connection.execute_wrapper(self._watched):
            settle(self._process.id, self._batch)
        self._reached.set()

    def _watched(self, execute: Callable[..., Any], *statement: Any) -> Any:
        cursor = execute(*statement)
        fetch = cursor._fetch_pipeline  # psycopg's, before any rows are given in a pipeline
        cursor._fetch_pipeline = lambda: (fetch(), self._count(statement[0]))
        return cursor

    def _count(self, statement: str) -> None:
        if self._number == 0:
            self._stands, self.read = True, statement
            self._reached.set()
            assert self._go_on.wait(30)
        self._number -= 1


@pytest.mark.parametrize("kind", [turn, brief_turn])
def test_who_is_cut_off_in_its_turn_is_evicted(monkeypatch: pytest.MonkeyPatch, kind: Callable[[], Any]) -> None:
    """Where even the server's bound does not reach it: between a statement and its Sync. Its process may live on."""
    add_replica()
    other, claim = Process(), new_claim()
    monkeypatch.setattr(proxy.turn, "DEADLINE_SECONDS", 0.2)  # of 6
    monkeypatch.setattr(proxy.turn, "_lock", lambda: Asked(proxy.turn.LOCK))  # as before PostgreSQL 17
    began, end = threading.Event(), threading.Event()

    def stand_still() -> None:
        connection.ensure_connection()
        sends_each = connection.connection.pipeline()  # psycopg's own
        with contextlib.suppress(DatabaseFault), connection.wrap_database_errors, sends_each, transaction.atomic():
            Asked(proxy.turn.LOCK)
            began.set()
            end.wait(30)

    still = threading.Thread(target=partial(apart, stand_still))
    still.start()
    assert began.wait(10)
    wait_until(lambda: _holder() == ("active", "ClientRead"))
    try:
        with pytest.raises(OperationalError), kind():
            Asked("SELECT 1").rows()  # the server's bound of 2.5 s is for the one who waits
        other.settle([claim])
    finally:
        end.set()
        still.join(10)
    assert claim.seat is not None


def _holder() -> Any:
    with connection.cursor() as cursor:
        cursor.execute(HOLDER)
        return cursor.fetchone()


def _read_only(on: bool) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = off")
        cursor.execute(f"ALTER DATABASE postgres SET default_transaction_read_only = {'on' if on else 'off'}")
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")


async def test_an_ending_outlasts_a_database_that_is_read_only_for_a_moment(placement: Placement) -> None:
    """As after a failover: Django calls it an InternalError."""
    await db(add_replica)
    client = Client(placement)
    await client.task
    await db(_read_only, True)
    try:
        placement.ended(ending(client.claim, code=4001))
        await asyncio.sleep(2)  # the fault itself
    finally:
        await db(_read_only, False)
    await until_db(lambda: row(client.claim).ended_at is not None, 15)
    found = await db(row, client.claim)
    assert (found.ended_by, found.why, found.close_code) == ("client", "closed", 4001)


def _rename(table: str, to: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO {to}")


async def test_an_ending_outlasts_a_table_that_is_away_for_a_moment(
    placement: Placement, caplog: pytest.LogCaptureFixture
) -> None:
    """As while a database is restored: Django calls it a ProgrammingError, and it is not the session's."""
    await db(add_replica)
    client = Client(placement)
    await client.task
    await db(_rename, "proxy_session", "elsewhere")
    try:
        placement.ended(ending(client.claim, code=4001))
        await until(lambda: "the database does not answer" in caplog.text, 10)
    finally:
        await db(_rename, "elsewhere", "proxy_session")
    await until_db(lambda: row(client.claim).ended_at is not None, 15)
    found = await db(row, client.claim)
    assert (found.ended_by, found.why, found.close_code) == ("client", "closed", 4001)


async def test_an_ending_outlasts_a_stall_in_the_midst_of_a_turn(
    placement: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn is lost, and taken again."""
    await db(add_replica)
    client = Client(placement)
    await client.task
    real, stalled = settling.assess, list[bool]()

    def stall(*arguments: Any) -> Any:
        if not stalled and arguments[3]:
            stalled.append(True)
            time.sleep(3)  # the fault itself
        return real(*arguments)

    monkeypatch.setattr(settling, "assess", stall)
    placement.ended(ending(client.claim, code=4001))
    await until_db(lambda: row(client.claim).ended_at is not None, 20)
    found = await db(row, client.claim)
    assert (found.ended_by, found.why, found.close_code) == ("client", "closed", 4001)

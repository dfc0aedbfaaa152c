"""Turns in which something stands still, or the server refuses for a moment: PostgreSQL's own bounds and words."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.db import Error as DatabaseFault
from django.db import connection

from proxy import settling
from proxy.placement import Placement
from proxy.turn import Asked, brief_turn, turn
from tests.databases import apart
from tests.integration.clients import Client, db, until_db
from tests.integration.placing import Process, add_replica, ending, new_claim, row

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

"""What others do with the database does not delay placement: it has a thread and a connection of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest
from django.db import connection, transaction

from proxy.placement import Placement
from replicas import acts
from replicas.config import parse
from replicas.loading import load
from replicas.models import Replica, ReplicaState
from tests.databases import apart, at_once
from tests.integration.clients import Client, db
from tests.integration.placing import Process, add_replica, new_claim

pytestmark = pytest.mark.usefixtures("database")

# Of SQLite, whose reader is busy in this process: no sleep that it has lets other threads run.
COUNT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000000) SELECT count(*) FROM n"


class Query:
    """What a page of the admin asks for, and much too long, until it is ended."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.interrupt = lambda: None

    def run(self) -> None:
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute("SET statement_timeout = 0; SELECT pg_backend_pid()")
                cursor.nextset()
                self.interrupt = partial(_cancel, cursor.fetchone()[0])
                self.began.set()
                cursor.execute("SELECT pg_sleep(60)")
            else:
                self.interrupt = connection.connection.interrupt
                self.began.set()
                cursor.execute(COUNT)


def _cancel(backend: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_cancel_backend(%s)", [backend])


async def test_a_slow_query_delays_no_placement(placement: Placement) -> None:
    """Sessions come and go beside it."""
    await db(partial(add_replica, max_sessions=2))
    query = Query()
    page = asyncio.create_task(asyncio.to_thread(apart, query.run))
    try:
        assert await asyncio.to_thread(query.began.wait, 10)
        for _ in range(20):
            began = time.monotonic()
            client = Client(placement)
            async with asyncio.timeout(2):
                await client.task
            client.end()
            assert time.monotonic() - began < 2
        assert not page.done()
    finally:
        await asyncio.to_thread(apart, query.interrupt)
        with pytest.raises(Exception, match=r"cancel|interrupted"):
            await page


ACTS: dict[str, Callable[[Replica], object]] = {
    "a file is loaded": lambda replica: load(parse(f"router: {{replicas: [{{url: '{replica.url}', weight: 2}}]}}")),
    "the mark is moved": acts.make_primary,
    "one is drained": lambda replica: acts.set_state(replica, ReplicaState.DRAINING),
}


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_placement_waits_for_no_operator(act: Callable[[Replica], object]) -> None:
    """A long file, a slow page: until their transaction ends, sessions go where they went before."""
    replica, process, claim = add_replica(), Process(), new_claim()
    with transaction.atomic():
        act(replica)
        at_once([partial(process.settle, [claim])])
    assert claim.seat is not None

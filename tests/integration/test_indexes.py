"""What placement and the dashboard ask for all the time is flat in the sessions that have ended.

Both databases use the indexes, with 10,000 live and 100,000 ended sessions. Work is counted by the database itself,
time is not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dashboard.snapshot import read_state
from proxy import census
from proxy.claims import Access
from proxy.models import RouterProcess, Session
from proxy.pulse import Sampler
from tests.databases import plan
from tests.integration.placing import Process, add_replica, configure, new_claims

pytestmark = pytest.mark.usefixtures("database")

LIVE, ENDED, WAITING, REPLICAS = 10_000, 100_000, 50, 20
KEY = "k" * 32
MINE = Access(address="192.0.2.1", token=1, max_sessions=LIVE, new_sessions_per_minute=LIVE)
INDEXES = {
    "session_slots", "session_line", "session_of_process", "session_to_disconnect", "session_by_key",
    "session_address_live", "session_token_live", "session_opened",
}  # fmt: skip


@pytest.fixture
def busy(database: str, monkeypatch: pytest.MonkeyPatch) -> Process:
    """A router in the midst of its life; one process has a share of the live sessions, one key half of all history.

    Its clock stands: what was opened in the last seconds stays that, however long a busy machine takes to count.
    """
    limits = {"max_sessions_per_address": LIVE, "new_sessions_per_minute": LIVE}
    configure(affinity="cookie:sid", policy="round_robin", queue_max_length=1000, **limits)
    replicas = [add_replica(f"r{number}", max_sessions=LIVE // REPLICAS) for number in range(REPLICAS)]
    processes = [Process() for _ in range(4)]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = 0")  # as long as it takes, on a busy machine too
            cursor.execute("SET idle_in_transaction_session_timeout = 0")
    at = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: at)
    monkeypatch.setattr(time, "time", at.timestamp)
    never = "NULL" if connection.vendor == "sqlite" else "NULL::timestamptz"
    _insert(
        f"""SELECT 'old' || n AS uid, CASE WHEN mod(n, 2) = 0 THEN '{KEY}' ELSE 'other' || n END,
            {processes[0].id}, {replicas[0].pk}, 'http://r0:8000', %s, %s FROM numbers""",  # noqa: S608
        ENDED, at - timedelta(hours=1), at - timedelta(minutes=2),
    )  # fmt: skip
    _insert(
        f"""SELECT 'live' || n AS uid, NULL, {processes[0].id} + mod(n, 4), {replicas[0].pk} + mod(n, {REPLICAS}),
            'http://r' || (mod(n, {REPLICAS})) || ':8000', %s, {never} FROM numbers""",  # noqa: S608
        LIVE, at,
    )  # fmt: skip
    processes[1].settle(new_claims(WAITING, key=KEY))
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("VACUUM ANALYZE proxy_session")
    return processes[0]


def _insert(select: str, number: int, *moments: Any) -> None:
    values = [connection.ops.adapt_datetimefield_value(moment) for moment in moments]
    with connection.cursor() as cursor:
        cursor.execute(
            f"""INSERT INTO proxy_session (uid, affinity_key, process_id, replica_id, url, opened_at, ended_at,
                address, token, replica_name, client, attempts, avoid, frames_up, bytes_up, frames_down, bytes_down,
                ended_by, why)
                SELECT chosen.*, CASE WHEN mod(length(uid), 2) = 0 THEN '192.0.2.1' ELSE uid END, mod(length(uid), 9),
                'r', 'c', 1, '{{}}', 0, 0, 0, 0, '', '' FROM (
                WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {number})
                {select}) AS chosen""",  # noqa: S608
            values,
        )


def a_turn(process: Process) -> None:
    """All that a turn can have to do."""
    gone = new_claims(3)
    for claim, uid in zip(gone, ("live4", "live8", "live12"), strict=True):
        claim.id = Session.objects.get(uid=uid).pk
    come = new_claims(2, key=KEY)
    for claim in come:
        claim.access = MINE
    process.settle(come, endings=gone)


def asked(work: Callable[[], Any]) -> list[str]:
    with CaptureQueriesContext(connection) as queries:
        work()
    begins = ("SELECT", "UPDATE", "WITH")
    return [query["sql"] for query in queries if query["sql"].startswith(begins) and "proxy_session" in query["sql"]]


def works(process: Process) -> dict[str, Callable[[], Any]]:
    waiting = list(Session.objects.filter(url=None, ended_at=None).values_list("pk", flat=True))
    return {
        "settle": partial(a_turn, process),
        "look": partial(census.look, process.id, waiting),
        "strays": partial(census.end_strays, process.id, list(mine(process))),
        "state": read_state,
        "sample": partial(Sampler().take, timezone.now()),
    }


def mine(process: Process) -> Any:
    return Session.objects.filter(process=process.id, ended_at=None).values_list("pk", flat=True)


def test_the_hot_queries_use_the_indexes(busy: Process) -> None:
    """All of the partial ones, as EXPLAIN says; and no query reads the whole table."""
    used = ""
    for name, work in works(busy).items():
        for query in asked(work):
            found = plan([query])
            used += found
            for word in ("Seq Scan on proxy_session", "SCAN proxy_session"):
                lines = [line for line in found.splitlines() if word in line and "INDEX" not in line]
                assert not lines, f"{name}: {query}\n{found}"
    assert {name for name in INDEXES if name in used} == INDEXES


def test_no_work_grows_with_what_has_ended(busy: Process) -> None:
    """Rows that are read, or steps that are taken, with the history and without: hardly any difference."""
    full = {name: effort(work) for name, work in works(busy).items()}
    Session.objects.exclude(ended_at=None).delete()
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("VACUUM ANALYZE proxy_session")
    empty = {name: effort(work) for name, work in works(busy).items()}
    for name in full:
        assert full[name] <= empty[name] * 1.2 + 1000, (full, empty)


def effort(work: Callable[[], Any]) -> int:
    """How much the database does for it: rows (PostgreSQL), steps of its machine (SQLite)."""
    try:
        with transaction.atomic():
            counted = _rows_read(asked(work)) if connection.vendor == "postgresql" else _steps(work)
            raise _Undo
    except _Undo:
        return counted


class _Undo(Exception):
    """What was done to find out how much it is."""


def _steps(work: Callable[[], Any]) -> int:
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 100
        return 0

    connection.connection.set_progress_handler(step, 100)
    try:
        work()
    finally:
        connection.connection.set_progress_handler(None, 0)
    return steps


def _rows_read(queries: list[str]) -> int:
    rows = 0

    def count(node: dict[str, Any]) -> None:
        nonlocal rows
        rows += node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
        for below in node.get("Plans", []):
            count(below)

    with connection.cursor() as cursor:
        for query in queries:
            cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + query)
            (found,) = cursor.fetchone()
            count((json.loads(found) if isinstance(found, str) else found)[0]["Plan"])
    return int(rows)


def test_a_dead_processs_end_is_found_by_its_index(busy: Process) -> None:
    """All of its live sessions, in one update."""
    assert RouterProcess.objects.filter(ended_at=None).count() == 4
    queries = asked(lambda: census.bury(busy.id, 0))
    assert "session_of_process" in plan(queries)
    assert not mine(busy).exists()

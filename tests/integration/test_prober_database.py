"""The prober and a database that hangs, or that can be read and not written (replicas/database.py)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from pathlib import Path

import pytest
from django.db import OperationalError

from replicas import database
from replicas.database import Database
from tests.backing_servers import Postgres
from tests.processes import managing, migrated


async def test_work_that_hangs_is_a_fault_and_the_next_gets_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can interrupt it: it is left behind."""
    monkeypatch.setattr(database, "DEADLINE_SECONDS", 0.2)
    work, ended = Database(), threading.Event()
    with pytest.raises(OperationalError, match=r"no answer within 0.2 s"):
        await work(ended.wait)
    assert await work(lambda: "done") == "done"
    ended.set()
    await work.close()


async def test_work_that_nobody_waits_for_any_more_holds_up_the_next_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its caller's patience was shorter than the deadline: admission's is."""
    monkeypatch.setattr(database, "DEADLINE_SECONDS", 0.3)
    work, ended = Database(), threading.Event()
    try:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await work(ended.wait)
        async with asyncio.timeout(5):
            while (found := await tried(work)) is None:
                pass
        assert found == "done"
    finally:
        ended.set()
        await work.close()


async def tried(work: Database) -> str | None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            return await work(lambda: "done")
    return None


async def test_who_waits_for_their_turn_is_not_blamed_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline is for the work, not for the queue before it."""
    monkeypatch.setattr(database, "DEADLINE_SECONDS", 0.5)
    work = Database()
    await asyncio.gather(*(work(lambda: time.sleep(0.2)) for _ in range(5)))
    await work.close()


async def test_a_database_answers_again_when_it_does_what_failed(caplog: pytest.LogCaptureFixture) -> None:
    """A locked SQLite is read all the time; an outage of reads is over when a read succeeds."""

    def fail() -> None:
        raise OperationalError("database is locked")

    def read() -> None: ...

    async def told(*calls: tuple[object, bool]) -> list[str]:
        caplog.clear()
        for call, writes in calls:
            with contextlib.suppress(OperationalError):
                await work(call, writes=writes)  # type: ignore[arg-type]
        return [record.levelname for record in caplog.records]

    caplog.set_level(logging.WARNING)
    work = Database()
    assert await told((fail, True), (read, False), (fail, True), (read, False)) == ["ERROR"]
    assert await told((read, True)) == ["WARNING"]
    assert await told((fail, False), (fail, False), (read, False)) == ["ERROR", "WARNING"]
    await work.close()


def test_a_frozen_postgres_is_named_and_holds_up_no_end(tmp_path: Path, postgres: Postgres) -> None:
    """Its connections stay open and say nothing: the prober says so, works on, and ends when it is told to."""
    migrated(tmp_path, DATABASE_URL=postgres.url)
    with managing("prober", ["runhealthchecks"], tmp_path, DATABASE_URL=postgres.url) as prober:
        prober.wait_for("holds the lease and works")
        postgres.freeze()
        try:
            prober.wait_for("the database does not answer")
            postgres.thaw()
            prober.wait_for("the database answers again")
            postgres.freeze()
            assert prober.stop(timeout=15) == 0
        finally:
            postgres.thaw()

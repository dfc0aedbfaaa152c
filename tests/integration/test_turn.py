"""One at a time, over all processes, and none that comes too late (proxy/turn.py)."""

from __future__ import annotations

import asyncio
import errno
import os
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.db import OperationalError
from django.db.models import Count

from proxy.claims import Batch, Claim
from proxy.models import Session
from proxy.settling import settle
from proxy.turn import turn
from replicas import database as replicas_database
from replicas.database import Database
from tests.databases import apart, at_once
from tests.integration.placing import Process, add_replica, configure, live, most_over, new_claim
from tests.processes import wait_until

pytestmark = pytest.mark.usefixtures("database")

RACES = 1000


class Holder:
    """Another process in the midst of its turn, until it is told to end it."""

    def __init__(self) -> None:
        self._end, began = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: apart(partial(self._hold, began)))
        self._thread.start()
        assert began.wait(10)

    def _hold(self, began: threading.Event) -> None:
        with turn():
            began.set()
            self._end.wait(30)

    def end(self) -> None:
        self._end.set()
        self._thread.join(10)


def test_of_two_processes_one_gets_the_last_slot() -> None:
    """A thousand times, at the same moment, with connections of their own: single winners, never two, never none."""
    configure(queue_max_length=0)
    add_replica()
    winners: list[list[Claim]] = [[]]
    seated: queue.SimpleQueue[Claim] = queue.SimpleQueue()

    def next_race() -> None:
        winners.append([seated.get() for _ in range(seated.qsize())])

    start = threading.Barrier(2, next_race, timeout=30)

    def race(process: Process) -> None:
        for _ in range(RACES):
            claim = new_claim()
            # Both know that the last winner has left: whoever is first may have the slot.
            process.settle([claim], endings=winners[-1])
            if claim.seat is not None:
                seated.put(claim)
            start.wait()

    at_once([partial(race, Process()), partial(race, Process())])
    assert [len(each) for each in winners[1:]] == [1] * RACES
    assert Session.objects.filter(placed_at__isnull=False).count() == RACES
    by_process = Session.objects.filter(placed_at__isnull=False).values_list("process").annotate(Count("id"))
    assert min(number for _, number in by_process.order_by()) > RACES / 20  # they were races, not one's procession


def test_many_processes_never_overbook() -> None:
    """Eight that come and go at random over three replicas: at no time more sessions than slots."""
    for number in range(3):
        add_replica(f"r{number}", max_sessions=2)
    over: list[int] = []

    def live_on(process: Process) -> None:
        claims = []
        for _ in range(25):
            claims += process.place(2)
            over.append(most_over())
            process.settle(endings=[claims.pop(0) for _ in range(len(claims) // 2)])
        process.settle(endings=claims)

    at_once([partial(live_on, Process()) for _ in range(8)])
    assert max(over) <= 0
    assert live() == 0


async def test_a_turn_that_comes_after_it_was_given_up_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What repeats it has been settled meanwhile, perhaps: an arrival twice, a session where it was before."""
    monkeypatch.setattr(replicas_database, "DEADLINE_SECONDS", 0.2)
    process = await asyncio.to_thread(apart, lambda: (add_replica(), Process())[1])
    threads = threading.active_count()
    holder = await asyncio.to_thread(Holder)
    database = Database("late", "tests")
    claim = new_claim()
    with pytest.raises(OperationalError, match=r"no answer within 0.2 s"):
        await database(partial(settle, process.id, Batch([claim])), writes=True)
    await asyncio.to_thread(holder.end)
    await database.close()
    await asyncio.to_thread(wait_until, lambda: not any(t.name == "late" for t in threading.enumerate()))
    assert await asyncio.to_thread(apart, live) == 0
    assert threading.active_count() <= threads + 2


def test_a_turn_waits_for_the_one_before_it() -> None:
    """In the server's line, or the kernel's."""
    add_replica()
    process, claim = Process(), new_claim()
    holder = Holder()
    late = threading.Thread(target=lambda: apart(lambda: process.settle([claim])))
    late.start()
    late.join(0.2)
    assert late.is_alive()
    assert claim.id is None
    holder.end()
    late.join(10)
    assert claim.seat is not None


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_lock_file_that_cannot_be_opened_is_a_databases_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptors are scarce for a moment: placement tries again, as with any fault of the database."""
    process = Process()
    real: Callable[..., int] = os.open

    def scarce(path: Any, *arguments: Any) -> int:
        if str(path).endswith("-turn"):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", scarce)
    with pytest.raises(OperationalError, match="Too many open files"):
        process.settle()


async def test_a_turn_that_stands_still_costs_the_others_one_thread(
    database: str, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """SQLite: one was stopped (SIGSTOP) with the file's lock. Each try of another would leave a thread waiting."""
    if database != "sqlite":
        return
    monkeypatch.setattr(replicas_database, "DEADLINE_SECONDS", 0.3)
    settings.DATABASE_TIMEOUT_SECONDS = 0.1
    process = await asyncio.to_thread(apart, lambda: (add_replica(), Process())[1])
    holder = await asyncio.to_thread(Holder)
    late = Database("late", "tests")
    try:
        for _ in range(5):
            with pytest.raises(OperationalError):
                await late(partial(settle, process.id, Batch([new_claim()])), writes=True)
        assert sum(thread.name == "late" for thread in threading.enumerate()) <= 2  # who waits in line, and who asks
    finally:
        await asyncio.to_thread(holder.end)
    claim = new_claim()
    await late(partial(process.settle, [claim]), writes=True)
    assert claim.seat is not None
    await late.close()

"""Clients of a placement with a real database and no server, and the router processes that they come to.

The fixtures `processes` and `placement` are in conftest.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from django.db import Error as DatabaseFault
from django.db import connection, transaction

from proxy.claims import Seat
from proxy.line import Refused
from proxy.models import RouterProcess
from proxy.placement import Placement
from proxy.turn import turn
from tests.databases import apart
from tests.integration.placing import ending, new_claim


async def db(work: Callable[..., Any], *arguments: Any, **fields: Any) -> Any:
    """The test's own look at the database, beside the loop."""
    return await asyncio.to_thread(apart, partial(work, *arguments, **fields))


async def until(condition: Callable[[], Any], timeout: float = 10) -> None:
    """Of this loop."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)


async def until_db(condition: Callable[[], Any], timeout: float = 10) -> None:
    """Of the database."""
    async with asyncio.timeout(timeout):
        while not await db(condition):
            await asyncio.sleep(0.02)


class Client:
    """A session: it asks for a seat, is told its place, and ends."""

    def __init__(self, placement: Placement) -> None:
        self.placement, self.claim = placement, new_claim()
        self.told: list[tuple[int, int]] = []
        self.told_at: list[float] = []
        self.task = self.ask()

    def ask(self) -> asyncio.Task[Seat]:
        self.task = asyncio.create_task(self.placement.seat(self.claim, self._tell))
        return self.task

    def _tell(self, position: int, depth: int) -> None:
        self.told.append((position, depth))
        self.told_at.append(time.monotonic())

    @property
    def seat(self) -> str | None:
        done = self.task.done() and not self.task.cancelled() and self.task.exception() is None
        return self.task.result().name if done else None

    async def refused(self) -> str:
        with pytest.raises(Refused) as refused:
            async with asyncio.timeout(10):
                await self.task
        return refused.value.reason

    async def leave(self) -> None:
        """As the consumer does it, wherever it is."""
        self.task.cancel()
        await asyncio.wait({self.task})
        self.end()

    def end(self) -> None:
        self.placement.ended(ending(self.claim))


class Processes:
    """Router processes in one loop, each with its own placement, thread and connection."""

    def __init__(self) -> None:
        self.all: list[Placement] = []
        self.told_to_end: list[tuple[str, str]] = []

    def add(self) -> Placement:
        self.all.append(Placement(lambda uid, reason: self.told_to_end.append((uid, reason))))
        self.all[-1].start()
        return self.all[-1]

    async def crash(self, placement: Placement) -> None:
        """As kill -9: nothing is written any more."""
        assert placement._life is not None
        placement._life.cancel()
        await asyncio.wait({placement._life})


@contextlib.contextmanager
def meanwhile(doing: Callable[[], contextlib.AbstractContextManager[None]]) -> Iterator[None]:
    """Another process is in the midst of `doing`."""
    began, end = threading.Event(), threading.Event()

    def hold() -> None:
        while not end.is_set():
            with contextlib.suppress(DatabaseFault), doing():  # who waits ends a turn that takes too long: again, then
                began.set()
                while not end.wait(0.5):
                    RouterProcess.objects.exists()  # PostgreSQL ends a transaction that does nothing for long
            connection.close()

    thread = threading.Thread(target=lambda: apart(hold))
    thread.start()
    assert began.wait(10)
    try:
        yield
    finally:
        end.set()
        thread.join()


def busy() -> contextlib.AbstractContextManager[None]:
    """Another process is in the midst of its turn."""
    return meanwhile(turn)


def away() -> contextlib.AbstractContextManager[None]:
    """Nobody can write: another program has locked the tables, and no place in the line of turns."""
    return meanwhile(_locked)


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    with transaction.atomic(), connection.cursor() as cursor:  # of SQLite, the whole file
        if connection.vendor == "postgresql":
            cursor.execute("LOCK TABLE proxy_session, proxy_routerprocess")
        yield

"""Database work in one thread of its own.

Used by prober.py, once.py and the proxy's placement. The event loop never waits for the database: probes and frames
go on while it is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from django.conf import settings
from django.db import Error as DatabaseFault
from django.db import OperationalError, connection
from django.utils import timezone

from replicas.models import HealthTransition
from replicas.signals import pruning
from replicas.worker import Worker

# For one piece of work. Each statement has a bound of its own (settings.DATABASE_TIMEOUT_SECONDS), but that is the
# server's to keep: one that is frozen, with its connections open, keeps none.
DEADLINE_SECONDS = 6.0
PRUNE_ROWS = 500  # a batch
PRUNE_PAUSE_SECONDS = 0.05

Result = TypeVar("Result")


class Database:
    """All database work of one kind (a prober's, or placement's), one call after the other in a thread of its own."""

    def __init__(self, thread: str = "prober-database", log: str = "replicas.prober") -> None:
        self._thread, self._logger = thread, logging.getLogger(log)
        self._worker = Worker(thread)
        self._turn = asyncio.Lock()
        self._away = False
        self._write_failed = False

    async def __call__(self, work: Callable[[], Result], *, writes: bool = False) -> Result:
        """Run `work` in the thread. Raises its exception; a database's fault is logged once until it is over.

        After a fault of work that `writes` it is over when such work succeeds: a locked SQLite can still be read.
        """
        try:
            async with self._turn:
                result = await self._run(work)
        except DatabaseFault as fault:
            if not self._away:
                self._logger.error("the database does not answer (%s); trying on", str(fault).partition("\n")[0])
            self._away = True
            self._write_failed |= writes
            raise
        if self._away and (writes or not self._write_failed):
            self._logger.warning("the database answers again")
            self._away = self._write_failed = False
        return result

    async def _run(self, work: Callable[[], Result]) -> Result:
        worker = self._worker
        job = worker.submit(partial(_guarded, work))
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                result: Result = await asyncio.wrap_future(job)
                return result
        except TimeoutError as late:
            self._leave(worker, job)
            raise OperationalError(f"no answer within {DEADLINE_SECONDS:g} s") from late
        except asyncio.CancelledError:
            # Nobody waits for it any more. But who comes next must not stand behind it for ever.
            asyncio.get_running_loop().call_later(DEADLINE_SECONDS, self._leave, worker, job)
            raise

    def _leave(self, worker: Worker, job: Future[Any]) -> None:
        """The thread cannot be interrupted. Left behind with its connection, it ends when the server answers."""
        if worker is self._worker and not job.done():
            worker.abandon()
            self._worker = Worker(self._thread)

    async def close(self) -> None:
        with contextlib.suppress(DatabaseFault):
            await self._run(connection.close)
        self._worker.stop()


def _guarded(work: Callable[[], Result]) -> Result:
    try:
        return work()
    except DatabaseFault:
        connection.close()  # the next call gets a new connection: this one may be dead
        raise


async def prune(database: Database) -> None:
    """Delete what is older than ROUTER_HISTORY_DAYS, here and in the rooms above.

    In batches, with pauses: SQLite's lock is held shortly each time, and a placement finds it free between two.
    """
    before = timezone.now() - timedelta(days=settings.ROUTER_HISTORY_DAYS)

    def prune_here() -> int:
        old = HealthTransition.objects.filter(at__lt=before).values_list("pk", flat=True)[:PRUNE_ROWS]
        return HealthTransition.objects.filter(pk__in=list(old)).delete()[0]

    def prune_above() -> int:
        return sum(int(deleted or 0) for _, deleted in pruning.send(sender=HealthTransition, before=before))

    for prune_some in (prune_here, prune_above):
        while await database(prune_some, writes=True):  # noqa: ASYNC110  (a pause, not a wait for an event)
            await asyncio.sleep(PRUNE_PAUSE_SECONDS)

"""A prober's database work, in one thread of its own.

Called by prober.py and once.py. The event loop never waits for the database: probes go on while it is away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

from django.conf import settings
from django.db import Error as DatabaseFault
from django.db import connection
from django.utils import timezone

from replicas.models import HealthTransition
from replicas.signals import pruning

logger = logging.getLogger("replicas.prober")

PRUNE_ROWS = 500  # a batch
PRUNE_PAUSE_SECONDS = 0.05

Result = TypeVar("Result")


class Database:
    """All of a prober's database work, one call after the other in one thread of its own."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prober-database")
        self._away = False

    async def __call__(self, work: Callable[[], Result]) -> Result:
        """Run `work` in the thread. Raises its exception; a database's fault is logged once until it is over."""
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work)
        except DatabaseFault as fault:
            if not self._away:
                logger.error("the database does not answer (%s); trying on", fault)
            self._away = True
            raise
        if self._away:
            logger.warning("the database answers again")
        self._away = False
        return result

    def _guarded(self, work: Callable[[], Result]) -> Result:
        try:
            return work()
        except DatabaseFault:
            connection.close()  # the next call gets a new connection: this one may be dead
            raise

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, lambda: connection.close())
        self._thread.shutdown()


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
        while await database(prune_some):  # noqa: ASYNC110  (a pause, not a wait for an event)
            await asyncio.sleep(PRUNE_PAUSE_SECONDS)

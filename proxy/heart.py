"""This process's sign of life, and its watch over that of all others (design, decision 8).

Used by placement.py, whose database thread it shares.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from django.db import Error as DatabaseFault

from proxy import census
from proxy.claims import ProcessEnded
from replicas.database import Database
from replicas.stillness import Stillness

logger = logging.getLogger("proxy.placement")


class Heart:
    """`given_up` is awaited when others have ended this process."""

    def __init__(self, database: Database, given_up: Callable[[], Awaitable[None]]) -> None:
        self._database, self._given_up = database, given_up
        self._others: dict[int, Stillness] = {}

    async def beat(self, process: int) -> None:
        """Count up, and end those that do not, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                counts = await self._database(partial(census.beat, process), writes=True)
                await self._watch(counts, began)
            except DatabaseFault:  # logged
                for other in self._others.values():
                    other.forget_last_read()
            except ProcessEnded:
                await self._given_up()
            await asyncio.sleep(census.BEAT_SECONDS)

    async def _watch(self, counts: dict[int, int], now: float) -> None:
        self._others = {process: self._others.get(process) or Stillness() for process in counts}
        for process, count in counts.items():
            still = self._others[process].see(count, now)
            if still >= census.DEAD_SECONDS and await self._database(partial(census.bury, process, count), writes=True):
                logger.warning("router process %d has vanished; its sessions are ended", process)

"""This process's sign of life, and its watch over that of all others (design, decision 8).

With it goes out what the process has carried; and of all processes the eldest samples what they do together.

Used by placement.py, whose database thread it shares.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

from django.db import Error as DatabaseFault

from proxy import census
from proxy.claims import ProcessEnded
from proxy.pulse import Sampler
from proxy.traffic import Count
from replicas.database import Database
from replicas.stillness import Stillness

logger = logging.getLogger("proxy.placement")


class Heart:
    """`given_up` is awaited when others have ended this process. `carried`: its traffic, by the loop's time."""

    def __init__(
        self, database: Database, given_up: Callable[[], Awaitable[None]], carried: Callable[[float], Count]
    ) -> None:
        self._database, self._given_up, self._carried = database, given_up, carried
        self._count_at = 0.0  # the next count is due then
        self._sampler = Sampler()
        self._others: dict[int, Stillness] = {}

    async def beat(self, process: int) -> None:
        """Count up, and end those that do not, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                beat = partial(census.beat, process, self._count(began))
                counts = await self._database(beat, writes=True)
                await self._watch(counts, began)
                if all(process < other for other in counts):
                    await self._sample()
            except DatabaseFault:  # logged
                for other in self._others.values():
                    other.forget_last_read()
            except ProcessEnded:
                await self._given_up()
            await asyncio.sleep(census.BEAT_SECONDS)

    def _count(self, now: float) -> Count | None:
        """Of this process's traffic, with each beat; more seldom where it has very many sessions."""
        if now < self._count_at:
            return None
        count = self._carried(now)
        self._count_at = now + count.good_for_seconds - census.BEAT_SECONDS / 2
        return count

    async def _sample(self) -> None:
        if (at := self._sampler.due(time.time())) is not None:
            await self._database(partial(self._sampler.take, at), writes=True)

    async def _watch(self, counts: dict[int, int], now: float) -> None:
        self._others = {process: self._others.get(process) or Stillness() for process in counts}
        for process, count in counts.items():
            still = self._others[process].see(count, now)
            if still >= census.DEAD_SECONDS and await self._database(partial(census.bury, process, count), writes=True):
                logger.warning("router process %d has vanished; its sessions are ended", process)

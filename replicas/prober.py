"""The loop that probes all replicas and keeps their health rows (contract A4).

`Prober.run` is what `manage.py runhealthchecks` runs. One task a replica, each with its own clock, so that a slow
replica delays nobody else's probe. Knows no argparse and installs no signal handlers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from dataclasses import dataclass
from functools import partial

from django.db import Error as DatabaseFault

from replicas import instruments, prober_instruments, registration
from replicas.database import Database, prune
from replicas.health import Health, Thresholds
from replicas.lease import BEAT_SECONDS, Lease, LeaseLost, own_name
from replicas.models import Replica, RouterSettings
from replicas.probe import http_client, probe
from replicas.record import Known, Record, write

logger = logging.getLogger("replicas.prober")

FOLLOW_SECONDS = 0.5  # additions, edits and deletions are seen within a second
# So often a probing task looks whether a probe is wanted now; with FOLLOW_SECONDS it begins within a second.
ASKED_SECONDS = 0.25
RETRY_SECONDS = 1.0
# Pause between two writes: results of a large fleet gather, and SQLite's write lock is left to the placements.
GATHER_SECONDS = 0.05
JITTER = 0.1
# First probes of new replicas are spread over this time, so that they are not one burst; a large fleet takes longer.
SPREAD_SECONDS = 0.4
FIRST_PROBES_PER_SECOND = 500
PRUNE_SECONDS = 3600.0
GIVE_UP_SECONDS = 0.3


@dataclass(frozen=True)
class Plan:
    """How to probe: the health_check block as it is now."""

    path: str
    interval_seconds: float
    timeout_seconds: float
    thresholds: Thresholds


def read_plan(interval_seconds: float | None) -> tuple[Plan, list[Replica]]:
    """How to probe, and whom; `interval_seconds` overrides the settings' own. To be run in the database thread."""
    row = RouterSettings.current()
    plan = Plan(row.health_path, interval_seconds or row.interval_seconds, row.timeout_seconds, row.thresholds)
    return plan, list(Replica.objects.with_health())


class Prober:
    """Probes while it holds the lease, waits while another does, until `stop` is called."""

    def __init__(self, interval_seconds: float | None = None) -> None:
        self._interval_seconds = interval_seconds
        self._database = Database()
        self._lease = Lease(own_name())
        self._client = http_client()
        self._stopping = asyncio.Event()
        self._writing = asyncio.Lock()
        self._begin_anew()

    def _begin_anew(self) -> None:
        """What was known before the lease was taken counts no more: another prober may have worked meanwhile."""
        self._plan: Plan
        self._record = Record()
        self._unwritten = asyncio.Event()
        self._probes: dict[int, asyncio.Task[None]] = {}
        self._in_flight: set[int] = set()
        # Counts of Replica.probe_asked as last read: one that has grown since is an operator who wants a probe now.
        self._asked: dict[int, int] = {}
        self._renewals = registration.Renewals()

    def stop(self) -> None:
        """Finish the probes in flight, write what they found, release the lease; then `run` returns."""
        self._stopping.set()

    async def give_up_lease(self) -> None:
        """For a hard exit: so that no other prober waits for a beat. In a moment or not at all; raises nothing."""
        with contextlib.suppress(DatabaseFault, TimeoutError):
            async with asyncio.timeout(GIVE_UP_SECONDS):
                await self._database(self._lease.release, writes=True)

    async def run(self) -> None:
        """Work until `stop`. Raises only what is a fault of the program: that ends the process, loudly."""
        metrics = asyncio.create_task(instruments.watch(prober_instruments.EXPOSED), name="prober: metrics")
        try:
            while not self._stopping.is_set():
                if await self._wait_for_lease():
                    prober_instruments.lease(self._lease.epoch)
                    try:
                        await self._hold_lease()
                    except* LeaseLost:
                        logger.warning("another prober has taken over the lease; this one waits again")
                    finally:
                        prober_instruments.lease(None)
        finally:
            metrics.cancel()
            await asyncio.wait({metrics})
            await self._client.aclose()
            await self._database.close()

    async def _wait_for_lease(self) -> bool:
        loop, told = asyncio.get_running_loop(), ""
        while not self._stopping.is_set():
            try:
                holder = await self._database(partial(self._lease.try_to_take, loop.time()))
            except DatabaseFault:
                self._lease.forget_last_read()
            else:
                if self._lease.held:
                    logger.info("this prober (%s) holds the lease and works", holder)
                    return True
                if holder != told:
                    logger.warning("another prober (%s) holds the lease and works; this one waits", holder)
                    told = holder
            await self._pause(RETRY_SECONDS)
        return False

    async def _hold_lease(self) -> None:
        self._begin_anew()
        try:
            # A side task that ends with an error ends all of them: never a prober that works by halves.
            async with asyncio.TaskGroup() as group:
                follow = group.create_task(self._follow(group), name="prober: follow the table of replicas")
                side_tasks = [
                    group.create_task(self._beat(), name="prober: beat"),
                    group.create_task(self._write_as_it_comes(), name="prober: write health"),
                    group.create_task(self._prune_hourly(), name="prober: prune history"),
                ]
                await self._stopping.wait()
                follow.cancel()
                await self._finish_round()
                for task in side_tasks:
                    task.cancel()
        finally:
            await self._last_write()

    # --- probing ---

    async def _follow(self, group: asyncio.TaskGroup) -> None:
        """Keep one probing task a replica, as the table says now."""
        while True:
            try:
                read_at = asyncio.get_running_loop().time()
                self._plan, replicas = await self._database(lambda: read_plan(self._interval_seconds))
                await self._probe_these(replicas, group)
                await self._expire(*self._renewals.see(replicas, read_at))
            except DatabaseFault:  # logged; until it is over the last that was read stands
                self._renewals.forget_last_read()
            await asyncio.sleep(FOLLOW_SECONDS)

    async def _expire(self, lapsing: list[Replica], going: list[Replica]) -> None:
        if lapsing or going:
            for line in await self._database(partial(registration.expire, lapsing, going), writes=True):
                logger.warning(line)

    async def _probe_these(self, replicas: list[Replica], group: asyncio.TaskGroup) -> None:
        new = sum(replica.pk not in self._probes for replica in replicas)
        spread = max(SPREAD_SECONDS, new / FIRST_PROBES_PER_SECOND)
        for replica in replicas:
            known = self._record.known.get(replica.pk) or self._record.add(replica)
            known.name = replica.name
            self._asked[replica.pk] = replica.probe_asked
            if known.url != replica.url:
                await self._stop_probing(replica.pk)
                self._record.move(known, replica.url)
            if replica.state == Replica.State.DISABLED:
                await self._stop_probing(replica.pk)
                if known.health != Health():
                    self._record.reset(known, "disabled")
            elif replica.pk not in self._probes:
                self._probes[replica.pk] = group.create_task(
                    self._probe_regularly(known, spread), name=f"prober: probe {replica.name}"
                )
        for gone in set(self._record.known) - {replica.pk for replica in replicas}:
            await self._stop_probing(gone)
            self._record.remove(gone)
            del self._asked[gone]
        self._unwritten.set()

    async def _stop_probing(self, replica_id: int) -> None:
        if task := self._probes.pop(replica_id, None):
            task.cancel()
            await asyncio.wait({task})

    async def _probe_regularly(self, known: Known, spread: float) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(random.uniform(0, spread))  # noqa: S311  (spreads load, keeps no secret)
        while True:
            started, asked = loop.time(), self._asked.get(known.id)
            self._in_flight.add(known.id)
            try:
                result, report = await probe(self._client, known.url, self._plan.path, self._plan.timeout_seconds)
            finally:
                self._in_flight.discard(known.id)
            prober_instruments.probed(result, loop.time() - started)
            self._record.observe(known, result, report, self._plan.thresholds)
            self._unwritten.set()
            if self._stopping.is_set():
                return
            jitter = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
            # From start to start: the period is the interval, however long a probe takes. In short steps, because
            # the interval may be edited meanwhile, and an operator may want a probe now.
            while (left := started + self._plan.interval_seconds * jitter - loop.time()) > 0:
                if self._asked.get(known.id) != asked:
                    break
                await asyncio.sleep(min(left, ASKED_SECONDS))

    async def _finish_round(self) -> None:
        for replica_id, task in self._probes.items():
            if replica_id not in self._in_flight:
                task.cancel()
        if self._probes:
            await asyncio.wait(self._probes.values(), timeout=self._plan.timeout_seconds + 1)
        for task in self._probes.values():
            task.cancel()

    # --- the database ---

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            with contextlib.suppress(DatabaseFault):  # logged; a waiter that reads no better counts no time
                await self._database(self._lease.beat, writes=True)

    async def _write_as_it_comes(self) -> None:
        while True:
            await self._unwritten.wait()
            self._unwritten.clear()
            written = await self._write()
            if not written:
                self._unwritten.set()
            await asyncio.sleep(GATHER_SECONDS if written else RETRY_SECONDS)

    async def _write(self) -> bool:
        """Write all that is not written yet; False while the database is away. Raises LeaseLost.

        Shielded: where the caller is cancelled, the thread goes on, and what it could not write must be put back.
        """
        return await asyncio.shield(self._write_batch())

    async def _write_batch(self) -> bool:
        async with self._writing:
            batch = self._record.take()
            if batch is None:
                return True
            try:
                await self._database(lambda: write(batch, self._lease), writes=True)
            except DatabaseFault:
                self._record.put_back(batch)
                return False
            return True

    async def _last_write(self) -> None:
        if not self._lease.held:
            return
        with contextlib.suppress(DatabaseFault, LeaseLost):
            if await self._write():
                await self._database(self._lease.release, writes=True)
                return
        logger.warning("stopped without the last write: the lease is another's or the database is away")

    async def _prune_hourly(self) -> None:
        while True:
            with contextlib.suppress(DatabaseFault):  # logged; an hour's delay does no harm
                await prune(self._database)
            await asyncio.sleep(PRUNE_SECONDS)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

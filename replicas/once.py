"""Probe every replica once: what `manage.py runhealthchecks --once` runs.

For deployment scripts and for a look at the fleet. Writes what it found unless a prober is at work, which is known by
its beat: a lease that a dead prober left behind is taken over as a prober would.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from functools import partial

from django.db import Error as DatabaseFault

from replicas.database import Database
from replicas.health import HEALTHY
from replicas.lease import Lease, LeaseLost, own_name
from replicas.models import Replica
from replicas.probe import http_client, probe_all
from replicas.prober import read_plan
from replicas.record import Known, Record, write

WATCH_SECONDS = 0.5


@dataclass(frozen=True)
class OnceResult:
    """What `--once` found: each replica's row before, what is known after, and whether it was written."""

    replicas: list[tuple[Replica, Known | None]]
    lease_holder: str
    written: bool

    @property
    def placeable(self) -> bool:
        """Could a session be placed now?"""
        return any(replica.active and known and known.health.status == HEALTHY for replica, known in self.replicas)


async def probe_once() -> OnceResult:
    """Probe every replica that is not disabled, once; write what was found if no prober is at work.

    Takes BEAT_SECONDS longer where one is, and TAKEOVER_SECONDS where one died with the lease. Raises Django's
    database errors.
    """
    database, lease, record, client = Database(), Lease(own_name()), Record(), http_client()
    try:
        holder = await _lease_holder(database, lease)
        plan, replicas = await database(lambda: read_plan(None))  # after the lease: no older than the last write
        probed = {r.pk: record.add(r) for r in replicas if r.state != Replica.State.DISABLED}
        urls = [known.url for known in probed.values()]
        found = await probe_all(client, urls, plan.path, plan.timeout_seconds)
        for known, (result, report) in zip(probed.values(), found, strict=True):
            record.observe(known, result, report, plan.thresholds)
        written = await _write(database, lease, record)
        return OnceResult([(r, probed.get(r.pk)) for r in replicas], holder, written)
    finally:
        with contextlib.suppress(DatabaseFault):
            await database(lease.release)
        await client.aclose()
        await database.close()


async def _lease_holder(database: Database, lease: Lease) -> str:
    """Whose the lease is: ours, if it was free or is not beaten; else that of a prober that was seen at work."""
    loop = asyncio.get_running_loop()
    while True:
        holder = await database(partial(lease.try_to_take, loop.time()))
        if lease.held or lease.seen_beating:
            return holder
        await asyncio.sleep(WATCH_SECONDS)


async def _write(database: Database, lease: Lease, record: Record) -> bool:
    if not lease.held:
        return False
    if (batch := record.take()) is not None:
        try:
            await database(lambda: write(batch, lease), writes=True)
        except LeaseLost:
            return False
    return True

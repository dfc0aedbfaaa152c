"""Probe every replica once: what `manage.py runhealthchecks --once` runs.

For deployment scripts and for a look at the fleet. Writes what it found unless a prober is at work.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from replicas.database import Database
from replicas.health import HEALTHY
from replicas.lease import Lease, own_name
from replicas.models import Replica
from replicas.probe import http_client, probe
from replicas.prober import read_plan
from replicas.record import Known, Record, write


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
    """Probe every replica that is not disabled, once; write what was found unless another prober holds the lease."""
    database, lease, record, client = Database(), Lease(own_name()), Record(), http_client()
    try:
        plan, replicas = await database(lambda: read_plan(None))
        holder = await database(lambda: lease.try_to_take(0.0, wait=False))
        probed = {r.pk: record.add(r) for r in replicas if r.state != Replica.State.DISABLED}
        found = await asyncio.gather(
            *(probe(client, known.url, plan.path, plan.timeout_seconds) for known in probed.values())
        )
        for known, (result, report) in zip(probed.values(), found, strict=True):
            record.observe(known, result, report, plan.thresholds)
        written = lease.held
        if written and (batch := record.take()):
            await database(lambda: write(batch, lease))
        await database(lease.release)
        return OnceResult([(r, probed.get(r.pk)) for r in replicas], holder, written)
    finally:
        await client.aclose()
        await database.close()

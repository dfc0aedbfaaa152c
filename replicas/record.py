"""What the prober knows of each replica, and how it gets into the database.

Called by prober.py. In memory is the truth while the lease is held, so that nothing is lost while the database is
away; `write` settles in one transaction all that gathered while the last one ran. Memory is touched by the event
loop alone: `write` gets a `Batch` that nobody changes any more.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from django.db import transaction
from django.utils import timezone

from replicas import latencies, prober_instruments
from replicas.health import Health, ProbeResult, Thresholds, observe
from replicas.lease import Lease
from replicas.models import HealthTransition, Replica, ReplicaHealth
from replicas.probe import Report

logger = logging.getLogger("replicas.health")

# Changes of status that wait for the database; past this the oldest are dropped. A day of a flapping fleet.
MAX_WAITING_TRANSITIONS = 10_000


@dataclass
class Known:
    """One replica as the prober knows it. `url` is where `health` was seen."""

    id: int
    name: str
    url: str
    health: Health = field(default_factory=Health)
    status_since: datetime | None = None
    report: Report = field(default_factory=Report)
    latencies: list[latencies.Point] = field(default_factory=list)


@dataclass(frozen=True)
class Batch:
    """What one write puts into the database: rows of ReplicaHealth, and transitions as (replica id, row)."""

    rows: dict[int, ReplicaHealth]
    transitions: list[HealthTransition]


class Record:
    """Health by replica id, and what of it is not written yet."""

    def __init__(self) -> None:
        self.known: dict[int, Known] = {}
        self._changed: set[int] = set()
        self._transitions: deque[HealthTransition] = deque(maxlen=MAX_WAITING_TRANSITIONS)

    def add(self, replica: Replica) -> Known:
        """Begin with what the row says of this URL; what it says of another one counts for nothing."""
        known = self.known[replica.pk] = Known(replica.pk, replica.name, replica.url)
        row: ReplicaHealth | None = getattr(replica, "health", None)
        if row is not None:
            known.health, known.status_since, known.report = _health(row), row.status_since, _report(row)
            known.latencies = row.latencies or []
            if row.url != replica.url:
                self.move(known, replica.url)
        return known

    def move(self, known: Known, url: str) -> None:
        """The replica's URL was edited: another server stands there, of which nothing is known."""
        known.url = url
        self.reset(known, "the URL was edited")

    def remove(self, replica_id: int) -> None:
        self.known.pop(replica_id, None)
        self._changed.discard(replica_id)

    def observe(self, known: Known, result: ProbeResult, report: Report, thresholds: Thresholds) -> None:
        """Count one probe."""
        known.report = report
        known.latencies = latencies.add(known.latencies, result.at.timestamp(), result.latency_ms)
        self._move(known, observe(known.health, result, thresholds), result.error or "probe succeeded")

    def reset(self, known: Known, reason: str) -> None:
        """Forget what was seen, because of `reason`."""
        known.report, known.latencies = Report(), []
        self._move(known, Health(), reason)

    def _move(self, known: Known, new: Health, reason: str) -> None:
        old, known.health = known.health, new
        self._changed.add(known.id)
        if new.status == old.status:
            return
        prober_instruments.changed(new.status)
        at = known.status_since = new.checked_at or timezone.now()
        self._transitions.append(
            HealthTransition(replica_id=known.id, at=at, old_status=old.status, new_status=new.status, reason=reason)
        )

    def take(self) -> Batch | None:
        """All that is not written yet; None when there is nothing."""
        if not self._changed and not self._transitions:
            return None
        rows = {i: _row(self.known[i]) for i in self._changed if i in self.known}
        batch = Batch(rows, list(self._transitions))
        self._changed.clear()
        self._transitions.clear()
        return batch

    def put_back(self, batch: Batch) -> None:
        """`batch` was not written: its rows are written again as they are then, its transitions as they were."""
        self._changed.update(i for i in batch.rows if i in self.known)
        later = list(self._transitions)
        self._transitions.clear()
        self._transitions.extend([*batch.transitions, *later])


def write(batch: Batch, lease: Lease) -> None:
    """Put `batch` into the database, if `lease` is still ours. Raises LeaseLost; then nothing is written.

    A replica that was deleted meanwhile is left out. Each change of status is logged in one line, once it is written:
    the log tells the same history as the table.
    """
    with transaction.atomic():
        lease.still_held()
        wanted = set(batch.rows) | {transition.replica_id for transition in batch.transitions}
        there = dict(Replica.objects.filter(pk__in=wanted).values_list("pk", "name"))
        ReplicaHealth.objects.bulk_create(
            [row for replica_id, row in batch.rows.items() if replica_id in there],
            update_conflicts=True,
            unique_fields=["replica"],
            update_fields=[f.name for f in ReplicaHealth._meta.concrete_fields if not f.primary_key],
        )
        transitions = [t for t in batch.transitions if t.replica_id in there]
        HealthTransition.objects.bulk_create(transitions)
    for t in transitions:
        logger.info("replica %s: %s → %s (%s)", there[t.replica_id], t.old_status, t.new_status, t.reason)


def _row(known: Known) -> ReplicaHealth:
    return ReplicaHealth(
        replica_id=known.id,
        url=known.url,
        status_since=known.status_since,
        reported_slots=known.report.slots,
        reported_sessions=known.report.sessions,
        reported_readiness=known.report.readiness,
        latencies=known.latencies,
        **vars(known.health),
    )


def _health(row: ReplicaHealth) -> Health:
    return Health(**{name: getattr(row, name) for name in vars(Health())})


def _report(row: ReplicaHealth) -> Report:
    return Report(row.reported_slots, row.reported_sessions, row.reported_readiness)

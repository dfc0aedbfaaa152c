"""What it all amounts to, for people: each process's traffic with its beat, and a sample of all every ten seconds.

Called by heart.py, in the placement's database thread. Nothing is decided by what is written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from django.utils import timezone

from proxy.models import FAILED, PLACED, WAITING, ProcessTraffic, Sample, Session
from proxy.traffic import Count

STEP_SECONDS = 10
STEP = timedelta(seconds=STEP_SECONDS)
# A sample is taken so long after its moment: what happened before it has been written by then.
WRITTEN_SECONDS = 1.0

# Bytes up and down of each process, by its id.
Totals = Mapping[int, tuple[int, int]]


def write_traffic(process: int, count: Count) -> None:
    """The one row of `process`."""
    row = ProcessTraffic(process_id=process, taken_at=timezone.now(), **vars(count))
    written = [field.name for field in ProcessTraffic._meta.concrete_fields if not field.primary_key]
    ProcessTraffic.objects.bulk_create([row], update_conflicts=True, unique_fields=["process"], update_fields=written)


class Sampler:
    """Of the eldest live process: when a sample is due, and what the last one knew."""

    def __init__(self) -> None:
        self._at: datetime | None = None
        self._totals: Totals = {}

    def due(self, now: float) -> datetime | None:
        """The moment of the sample that is to be taken at `now` (Unix seconds); None: it was taken."""
        at = datetime.fromtimestamp((now - WRITTEN_SECONDS) // STEP_SECONDS * STEP_SECONDS, UTC)
        return at if at != self._at else None

    def take(self, at: datetime) -> None:
        """Write the sample of `at`, unless there is one. Bytes are what has come since the last one.

        Of a process that the last one did not know, and where there is no last one, they are what its rates make of it:
        its totals may be a day old.
        """
        before = self._totals if self._at == at - STEP else {}
        rows = ProcessTraffic.objects.filter(process__ended_at=None).values_list(
            "process", "bytes_up", "bytes_down", "up_per_second", "down_per_second"
        )
        totals: dict[int, tuple[int, int]] = {}
        up = down = 0
        for process, bytes_up, bytes_down, up_rate, down_rate in rows:
            totals[process] = bytes_up, bytes_down
            up_then, down_then = before.get(
                process, (bytes_up - round(up_rate * STEP_SECONDS), bytes_down - round(down_rate * STEP_SECONDS))
            )
            up, down = up + max(0, bytes_up - up_then), down + max(0, bytes_down - down_then)
        during = at - STEP, at
        sample = Sample(
            at=at,
            sessions=Session.objects.filter(PLACED).count(),
            waiting=Session.objects.filter(WAITING).count(),
            opened=Session.objects.filter(opened_at__gte=during[0], opened_at__lt=during[1]).count(),
            failed=Session.objects.filter(FAILED, ended_at__gte=during[0], ended_at__lt=during[1]).count(),
            bytes_up=up,
            bytes_down=down,
        )
        Sample.objects.bulk_create([sample], ignore_conflicts=True)
        self._at, self._totals = at, totals

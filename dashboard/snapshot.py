"""Everything that the dashboard's first page shows, as one state: read by live.py once a second while someone watches.

Times are Unix seconds; ages are as of `at`. Its size grows with replicas and router processes, not with sessions.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Count, TextField
from django.db.models.functions import Cast

from dashboard.changes import Raw
from dashboard.replicas import replica_row
from proxy import census, pulse
from proxy.models import FAILED, LIVE, WAITING, ProcessTraffic, RouterProcess, Sample, Session
from replicas.models import ProberLease, Replica, RouterSettings
from replicas.version import VERSION
from replicas.views import prober_state

PLOTTED = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
PLOTS = ("sessions", "waiting", "opened", "failed", "bytes_up", "bytes_down")


def read_state() -> dict[str, Any]:
    """Raises a database's fault."""
    now = datetime.fromtimestamp(time.time(), UTC)
    settings = RouterSettings.current()
    replicas = list(
        Replica.everything.select_related("health", "record")
        .defer("health__latencies")
        .annotate(latencies=Cast("health__latencies", TextField()))
        .order_by("id")
    )
    live = _Live()
    processes = list(RouterProcess.objects.filter(ended_at=None).order_by("id"))
    kept = [replica for replica in replicas if replica.deleted_at is None]
    return {
        "at": now.timestamp(),
        "version": VERSION,
        "prober": _prober(kept, settings, now),
        "processes": [_process(process, live, now) for process in processes],
        "totals": _totals(kept, live, processes, now),
        "line": _line(settings, live, now),
        "replicas": [
            replica_row(each, settings, live.on_replica.get(each.pk, 0), _latencies(each), now) for each in replicas
        ],
        "plots": _plots(now),
    }


class _Live:
    """How many sessions are live, in one look: on each replica, and in each process how many are placed and wait."""

    def __init__(self) -> None:
        self.on_replica: dict[int | None, int] = {}
        self.in_process: dict[int | None, tuple[int, int]] = {}
        self.placed = self.waiting = 0
        rows = Session.objects.filter(LIVE).order_by().values_list("process", "replica")
        for process, replica, live, placed in rows.annotate(Count("id"), Count("url")):
            self.on_replica[replica] = self.on_replica.get(replica, 0) + placed
            has, waits = self.in_process.get(process, (0, 0))
            self.in_process[process] = has + placed, waits + live - placed
            self.placed, self.waiting = self.placed + placed, self.waiting + live - placed


def _latencies(replica: Replica) -> Raw:
    seen: str | None = replica.latencies  # type: ignore[attr-defined]  # annotated
    return Raw(seen if seen and replica.observed else "[]")


def _prober(replicas: list[Replica], settings: RouterSettings, now: datetime) -> dict[str, Any]:
    lease = ProberLease.objects.filter(epoch__gt=0).first()
    beaten_at = lease.beaten_at if lease is not None else None
    return {
        "state": prober_state(replicas, beaten_at, settings.stale_after, now),
        "holder": lease.holder if lease is not None else "",
        "epoch": lease.epoch if lease is not None else 0,
        "beat_age": age(beaten_at, now),
    }


def _process(process: RouterProcess, live: _Live, now: datetime) -> dict[str, Any]:
    placed, waiting = live.in_process.get(process.pk, (0, 0))
    state = "silent" if is_silent(process, now) else "draining" if process.draining else "live"
    return {
        "id": process.pk,
        "name": process.name,
        "version": process.version,
        "started_at": process.started_at.timestamp(),
        "beat_age": age(process.beaten_at, now),
        "state": state,
        "sessions": placed,
        "waiting": waiting,
    }


def is_silent(process: RouterProcess, now: datetime) -> bool:
    """For people: by the clocks of two machines. What is done about it goes by counts (census.py)."""
    return now - process.beaten_at > timedelta(seconds=census.DEAD_SECONDS)


def _totals(replicas: list[Replica], live: _Live, processes: list[RouterProcess], now: datetime) -> dict[str, Any]:
    beating = [process.pk for process in processes if not is_silent(process, now)]
    rates = ProcessTraffic.objects.filter(process__in=beating).values_list("up_per_second", "down_per_second")
    rates_up, rates_down = zip(*rates, strict=True) if rates else ((), ())
    slots = [replica.slots for replica in replicas if replica.available]
    since = now - MINUTE
    return {
        "sessions": live.placed,
        "waiting": live.waiting,
        "slots": None if None in slots else sum(filter(None, slots)),
        "bytes_up_per_second": round(sum(rates_up)),
        "bytes_down_per_second": round(sum(rates_down)),
        "opened_per_minute": Session.objects.filter(opened_at__gte=since).count(),
        "failed_per_minute": Session.objects.filter(FAILED, ended_at__gte=since).count(),
    }


def _line(settings: RouterSettings, live: _Live, now: datetime) -> dict[str, Any]:
    # The first in the line, by its own index: for MIN(opened_at) SQLite would go through all history.
    first = Session.objects.filter(WAITING).order_by("id").values_list("opened_at", flat=True).first()
    return {
        "length": live.waiting,
        "longest_wait": age(first, now),
        "max_length": settings.queue_max_length,
        "timeout_seconds": settings.queue_timeout_seconds,
    }


def _plots(now: datetime) -> dict[str, Any]:
    """One value a step, oldest first; null where nobody has sampled."""
    rows = list(Sample.objects.filter(at__gt=now - PLOTTED, at__lte=now).order_by("at").values_list("at", *PLOTS))
    values: dict[str, list[int | None]] = {name: [] for name in PLOTS}
    last: datetime | None = None
    for at, *figures in rows:
        missing = round((at - last) / pulse.STEP) - 1 if last is not None else 0
        for name, figure in zip(PLOTS, figures, strict=True):
            values[name] += [*[None] * missing, figure]
        last = at
    return {"step": pulse.STEP_SECONDS, "at": last.timestamp() if last is not None else None, **values}


def age(moment: datetime | None, now: datetime) -> float | None:
    """Seconds, not less than none."""
    return round(max(0.0, (now - moment).total_seconds()), 3) if moment is not None else None

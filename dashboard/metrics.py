"""/metrics for Prometheus: what this process has counted, and what the database knows of all of them.

Reached through routerproject's MachinePaths. While the database is away the process's own are served all the same, and
`stream_router_database_up` is 0. docs/metrics.md describes each family; a test holds the two together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from time import time

from django.db import Error as DatabaseFault
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from dashboard.database import in_time
from dashboard.snapshot import age, is_silent
from proxy import instruments
from proxy.models import LIVE, PLACED, WAITING, RouterProcess, Session
from replicas.access import guarded
from replicas.instruments import NAMESPACE, Together
from replicas.models import ProberLease, Replica, ReplicaState, RouterSettings

# As HAProxy's exporter has it: which part is wanted. Without it, both.
PROCESS, FLEET = SCOPES = ("process", "fleet")

# Its own: an operator's slow look keeps no scrape waiting. One, so that a frozen database costs one thread.
_threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="metrics")


class _Read:
    """A collector of what was read."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


@never_cache
@require_safe
@guarded("ROUTER_METRICS_ACCESS")
async def metrics(request: HttpRequest) -> HttpResponse:
    """`?scope=process` or `?scope=fleet` for one part alone."""
    wanted = set(request.GET.getlist("scope")) or set(SCOPES)
    if not wanted <= set(SCOPES):
        return HttpResponse(f"scope is {' or '.join(SCOPES)}\n", status=400, content_type="text/plain")
    parts: list[CollectorRegistry | _Read] = [instruments.EXPOSED] if PROCESS in wanted else []
    if FLEET in wanted:
        parts.append(_Read(await _fleet()))
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return HttpResponse(encode(Together(*parts)), content_type=content_type)


async def _fleet() -> list[Metric]:
    try:
        found = await in_time(read_fleet, _threads)
    except DatabaseFault:
        return [_one("database_up", "1 if the database answered this scrape in time.", 0)]
    return [_one("database_up", "1 if the database answered this scrape in time.", 1), *found]


def read_fleet() -> list[Metric]:
    """Raises a database's fault."""
    now = datetime.fromtimestamp(time(), UTC)
    replicas = list(Replica.objects.select_related("health", "record").defer("health__latencies").order_by("id"))
    settings = RouterSettings.current()
    placed = dict(
        Session.objects.filter(PLACED, replica__isnull=False)
        .order_by()
        .values_list("replica")
        .annotate(number=Count("id"))
        .values_list("replica", "number")
    )
    return [
        *_replicas(replicas, placed, now),
        *_line(settings, now),
        *_processes(now),
        *_prober(now),
    ]


def _replicas(replicas: list[Replica], placed: dict[int, int], now: datetime) -> list[Metric]:
    at, named = now.timestamp(), _names(replicas)
    families: dict[str, GaugeMetricFamily] = {}

    def family(name: str, what: str) -> None:
        families[name] = GaugeMetricFamily(f"{NAMESPACE}_{name}", what, labels=["replica"])

    family("replica_up", "1 if the prober's last verdict is healthy.")
    family("replica_available", "1 if it is active and healthy, and neither ejected nor full by its own word.")
    family("replica_primary", "1 for the primary.")
    family("replica_draining", "1 while it is drained: it keeps its sessions and takes no new ones.")
    family("replica_ejected", "1 while sessions pass it over because its connects failed.")
    family("replica_full", "1 while sessions pass it over because it has rejected one.")
    family("replica_sessions", "Live sessions, of all router processes.")
    family("replica_slots", "How many sessions it can hold; missing: as many as come.")
    family("replica_weight", "Its share, relative to the others.")
    family("replica_check_duration_seconds", "How long its last successful probe took; missing: there was none.")
    family("replica_check_age_seconds", "Since its last probe; missing: there was none.")
    family("replica_check_failures", "Probes that have failed in a row.")
    for replica in replicas:
        seen, found = replica.observed, replica.passive
        latency = seen.last_latency_ms if seen is not None else None
        ejected, full = found.ejected(at), found.full(at)
        values: dict[str, float | None] = {
            "replica_up": replica.healthy,
            "replica_available": replica.available and not ejected and not full,
            "replica_primary": replica.primary,
            "replica_draining": replica.state == ReplicaState.DRAINING,
            "replica_ejected": ejected,
            "replica_full": full,
            "replica_sessions": placed.get(replica.pk, 0),
            "replica_slots": replica.slots,
            "replica_weight": replica.weight,
            "replica_check_duration_seconds": latency / 1000 if latency is not None else None,
            "replica_check_age_seconds": age(seen.checked_at, now) if seen is not None else None,
            "replica_check_failures": seen.consecutive_failures if seen is not None else 0,
        }
        for name, value in values.items():
            if value is not None:
                families[name].add_metric([named[replica.pk]], float(value))
    available = sum(replica.available for replica in replicas)
    return [_one("active_replicas", "Replicas that are active and healthy.", available), *families.values()]


def _names(replicas: list[Replica]) -> dict[int, str]:
    """A label for each: its name, and its number where others have the same. Two samples with one label are none."""
    times = Counter(replica.name for replica in replicas)
    return {r.pk: r.name if times[r.name] == 1 else f"{r.name} #{r.pk}" for r in replicas}


def _line(settings: RouterSettings, now: datetime) -> list[Metric]:
    waiting = Session.objects.filter(WAITING)
    first = waiting.order_by("id").values_list("opened_at", flat=True).first()
    return [
        _one("current_queue", "Sessions in the line, of all router processes.", waiting.count()),
        _one("queue_limit", "How many may stand in it.", settings.queue_max_length),
        _one("queue_oldest_seconds", "Since the first in the line has come; 0: nobody waits.", age(first, now) or 0),
    ]


def _processes(now: datetime) -> list[Metric]:
    states = Counter(
        "silent" if is_silent(process, now) else "draining" if process.draining else "live"
        for process in RouterProcess.objects.filter(ended_at=None)
    )
    family = GaugeMetricFamily(f"{NAMESPACE}_processes", "Router processes, by state.", labels=["state"])
    for state in ("live", "draining", "silent"):
        family.add_metric([state], states[state])
    carried = Session.objects.filter(LIVE).count()
    return [family, _one("live_sessions", "Live sessions of all router processes, waiting ones among them.", carried)]


def _prober(now: datetime) -> list[Metric]:
    lease = ProberLease.objects.filter(epoch__gt=0).first()
    if lease is None:
        return [_one("prober_epoch", "How often the prober's lease has changed hands.", 0)]
    return [
        _one("prober_epoch", "How often the prober's lease has changed hands.", lease.epoch),
        _one(
            "prober_beat_age_seconds",
            "Since the prober's last beat; missing: none ever ran.",
            age(lease.beaten_at, now),
        ),
    ]


def _one(name: str, what: str, value: float | None) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{NAMESPACE}_{name}", what, value)

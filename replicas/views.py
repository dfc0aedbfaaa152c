"""What machines ask: /status (contract A5), /livez and /readyz.

Reached through routerproject's MachinePaths, whatever Host a load balancer names. Answers within the database's
timeout; never shows an error's text.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from django.conf import settings
from django.db import Error as DatabaseFault
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from replicas import signals
from replicas.access import guarded
from replicas.models import ProberLease, Replica, ReplicaHealth, RouterSettings

# A prober beats every 2 s, and another takes over a dead one's work within 15 s.
BEAT_STALE = timedelta(seconds=15)

# Threads of their own, not those that pages and host names share: a slow page or a hung name server must not make a
# load balancer think us dead. Two, so that one caller's slow read does not stop all others.
_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="status")


@dataclass(frozen=True)
class Fleet:
    """What one read of the database says."""

    replicas: list[Replica]
    sessions: dict[int, int]  # live, by the replica's id
    stale_after: timedelta
    beaten_at: datetime | None  # the prober's last sign of life


@never_cache
@require_safe
async def livez(request: HttpRequest) -> JsonResponse:
    """200: the process answers. Asks nobody: a database outage is no reason to restart a router with live sessions."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
@guarded("ROUTER_STATUS_ACCESS")
async def status(request: HttpRequest) -> HttpResponse:
    """All replicas as the prober last saw them. 503 while the database does not answer."""
    fleet = await _read_fleet()
    if fleet is None:
        return JsonResponse({"error": "the database does not answer"}, status=503)
    return JsonResponse({"replicas": [_shown(replica, fleet) for replica in fleet.replicas]})


@never_cache
@require_safe
async def readyz(request: HttpRequest) -> JsonResponse:
    """200 if the database answers and a replica is available, even if all its slots are taken; else 503.

    `missing` says what is. A prober that has stopped is shown but no reason for 503: its last word stands (design,
    decision 12).
    """
    fleet = await _read_fleet()
    if fleet is None:
        answer: dict[str, Any] = {"status": "not ready", "database": "no answer", "missing": ["database"]}
        return JsonResponse(answer, status=503)
    available = sum(replica.available for replica in fleet.replicas)
    missing = ([] if available else ["available replica"]) + signals.missing()
    answer = {
        "status": "not ready" if missing else "ready",
        "database": "ok",
        "replicas": {"total": len(fleet.replicas), "available": available},
        "prober": prober_state(fleet.replicas, fleet.beaten_at, fleet.stale_after, timezone.now()),
        "missing": missing,
    }
    return JsonResponse(answer, status=503 if missing else 200)


async def _read_fleet() -> Fleet | None:
    """None when the database does not answer in time."""
    try:
        async with asyncio.timeout(settings.DATABASE_TIMEOUT_SECONDS):
            return await asyncio.get_running_loop().run_in_executor(_threads, _read)
    except TimeoutError:
        return None


def _read() -> Fleet | None:
    try:
        return Fleet(
            replicas=list(Replica.objects.with_health().select_related("health", "record")),
            sessions=signals.live_sessions(),
            stale_after=RouterSettings.current().stale_after,
            beaten_at=ProberLease.objects.filter(epoch__gt=0).values_list("beaten_at", flat=True).first(),
        )
    except DatabaseFault:
        return None
    finally:
        connection.close()  # machines ask seldom, and a kept connection may have died since


def prober_state(
    replicas: list[Replica], beaten_at: datetime | None, stale_after: timedelta, now: datetime
) -> Literal["ok", "stale", "never ran"]:
    """`stale` when neither a beat nor a probe is recent, `never ran` when there was none at all."""
    probed = [r.observed.checked_at for r in replicas if r.observed and r.observed.checked_at]
    if beaten_at is None and not probed:
        return "never ran"
    beats = beaten_at is not None and now - beaten_at <= BEAT_STALE
    probes = bool(probed) and now - max(probed) <= stale_after
    return "ok" if beats or probes else "stale"


def _shown(replica: Replica, fleet: Fleet) -> dict[str, Any]:
    seen, now = replica.observed or ReplicaHealth(), timezone.now()
    return {
        "url": replica.url,
        "primary": replica.primary,
        "status": replica.status,
        "last_ok_at": _unix(seen.last_ok_at),
        "last_latency_ms": seen.last_latency_ms,
        "consecutive_failures": seen.consecutive_failures,
        "name": replica.name,
        "state": replica.state,
        "registered": replica.registered,  # it added itself
        "lapsed": replica.lapsed,  # and has not said lately that it is there: so it drains
        "weight": replica.weight,
        "max_sessions": replica.max_sessions,
        "available": replica.available,
        "checked_at": _unix(seen.checked_at),
        "stale": replica.is_stale(now, fleet.stale_after),
        "sessions": fleet.sessions.get(replica.pk, 0),
        "slots": replica.slots,
        "ejected": replica.passive.ejected(now.timestamp()),
        "full": replica.passive.full(now.timestamp()),  # as it said itself: it has rejected a session
        "consecutive_successes": seen.consecutive_successes,
        "reported_slots": seen.reported_slots,
        "reported_sessions": seen.reported_sessions,
        "reported_readiness": seen.reported_readiness or None,
    }


def _unix(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None

"""What machines ask: /status (contract A5), /livez and /readyz.

Reached through routerproject's MachinePaths, whatever Host a load balancer names. Answers within the database's
timeout; never shows an error's text.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import Error as DatabaseFault
from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from replicas.models import Replica, ReplicaHealth, RouterSettings

Fleet = tuple[list[Replica], timedelta]


@never_cache
@require_safe
async def livez(request: HttpRequest) -> JsonResponse:
    """200: the process answers. Asks nobody: a database outage is no reason to restart a router with live sessions."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
async def status(request: HttpRequest) -> JsonResponse:
    """All replicas as the prober last saw them. 503 while the database does not answer."""
    fleet = await _read_fleet()
    if fleet is None:
        return JsonResponse({"error": "the database does not answer"}, status=503)
    replicas, stale_after = fleet
    now = timezone.now()
    return JsonResponse({"replicas": [_shown(r, r.is_stale(now, stale_after)) for r in replicas]})


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
    replicas, stale_after = fleet
    available = sum(replica.available for replica in replicas)
    missing = [] if available else ["available replica"]
    answer = {
        "status": "not ready" if missing else "ready",
        "database": "ok",
        "replicas": {"total": len(replicas), "available": available},
        "prober": _prober_state(replicas, stale_after),
        "missing": missing,
    }
    return JsonResponse(answer, status=503 if missing else 200)


async def _read_fleet() -> Fleet | None:
    """The replicas and the age at which a probe is stale; None when the database does not answer in time."""
    # Its own thread, not the one that pages share: a slow page must not make a load balancer think us dead.
    try:
        async with asyncio.timeout(settings.DATABASE_TIMEOUT_SECONDS):
            return await sync_to_async(_read, thread_sensitive=False)()
    except TimeoutError:
        return None


def _read() -> Fleet | None:
    try:
        return list(Replica.objects.with_health()), RouterSettings.current().stale_after
    except DatabaseFault:
        return None
    finally:
        connection.close()  # the thread may never be used again


def _prober_state(replicas: list[Replica], stale_after: timedelta) -> str:
    """`ok`, `stale` when the last probe of any replica is old, `never ran` when there was none."""
    times = [replica.observed.checked_at for replica in replicas if replica.observed and replica.observed.checked_at]
    newest = max(times, default=None)
    if newest is None:
        return "never ran"
    return "stale" if timezone.now() - newest > stale_after else "ok"


def _shown(replica: Replica, stale: bool) -> dict[str, Any]:
    seen = replica.observed or ReplicaHealth()
    return {
        "url": replica.url,
        "primary": replica.primary,
        "status": replica.status,
        "last_ok_at": _unix(seen.last_ok_at),
        "last_latency_ms": seen.last_latency_ms,
        "consecutive_failures": seen.consecutive_failures,
        "name": replica.name,
        "state": replica.state,
        "weight": replica.weight,
        "max_sessions": replica.max_sessions,
        "available": replica.available,
        "checked_at": _unix(seen.checked_at),
        "stale": stale,
        "consecutive_successes": seen.consecutive_successes,
        "reported_slots": seen.reported_slots,
        "reported_sessions": seen.reported_sessions,
        "reported_readiness": seen.reported_readiness or None,
    }


def _unix(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None

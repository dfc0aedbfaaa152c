"""One replica as the dashboard shows it, on its first page and on the page of its history."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from proxy.selection import ramp
from replicas.models import Replica, ReplicaHealth, RouterSettings


def replica_row(
    replica: Replica, settings: RouterSettings, sessions: int, latencies: Any, now: datetime
) -> dict[str, Any]:
    """`sessions`: how many are live there. `replica` with its `health` and `record`; `latencies` as they are shown."""
    seen, found, at = replica.observed or ReplicaHealth(), replica.passive, now.timestamp()
    return {
        "id": replica.pk,
        "name": replica.name,
        "url": replica.url,
        "primary": replica.primary,
        "state": replica.state,
        "status": replica.status,
        "status_since": unix(seen.status_since),
        "checked_at": unix(seen.checked_at),
        "stale": replica.is_stale(now, settings.stale_after),
        "available": replica.available,
        "sessions": sessions,
        "slots": replica.slots,
        "weight": replica.weight,
        "last_error": seen.last_error,
        "latency_ms": round(seen.last_latency_ms, 1) if seen.last_latency_ms is not None else None,
        "latencies": latencies,
        "ejected_until": found.ejected_until if found.ejected(at) else None,
        "full_until": found.full_until if found.full(at) else None,
        "slow_start": _slow_start(replica, seen, settings, now),
        "drain_deadline_seconds": replica.drain_deadline_seconds,
        "registered": replica.registered,
        "lapsed": replica.lapsed,
        "deleted": replica.deleted_at is not None,
    }


def unix(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment is not None else None


def _slow_start(replica: Replica, seen: ReplicaHealth, settings: RouterSettings, now: datetime) -> float | None:
    """The share that it gets now; None: all of it, or it gets nothing."""
    if not replica.available or seen.status_since is None:
        return None
    share = ramp((now - seen.status_since).total_seconds(), settings.slow_start_seconds)
    return round(share, 2) if share < 1 else None

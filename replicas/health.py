"""PURE. The health of one replica as a state machine (contract A3).

    UNKNOWN ──first success──▶ HEALTHY ──failure_threshold failures in a row──▶ UNHEALTHY
                                  ▲                                                 │
                                  └────── recovery_threshold successes in a row ────┘

A replica nobody has reached yet is UNKNOWN: one success makes it HEALTHY whatever recovery_threshold is (a fresh
router must not wait), and failure_threshold failures make it UNHEALTHY. Only HEALTHY replicas get sessions. The whole
machine is `observe`: old health and one probe's result in, new health out. Called by prober.py, which stores it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

UNKNOWN = "unknown"
HEALTHY = "healthy"
UNHEALTHY = "unhealthy"
STATUSES = (UNKNOWN, HEALTHY, UNHEALTHY)


@dataclass(frozen=True)
class Thresholds:
    """How many probes in a row it takes, each ≥ 1 (the health_check block of contract A6)."""

    failure: int = 3
    recovery: int = 2


@dataclass(frozen=True)
class ProbeResult:
    """What one probe found. `error` is short and for operators: clients never see it."""

    at: datetime
    ok: bool
    latency_ms: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Health:
    """What is known of one replica. Times are aware datetimes; latency is in milliseconds."""

    status: str = UNKNOWN
    checked_at: datetime | None = None
    last_ok_at: datetime | None = None
    last_failure_at: datetime | None = None
    consecutive_successes: int = 0
    consecutive_failures: int = 0
    last_latency_ms: float | None = None
    last_error: str = ""


def observe(health: Health, result: ProbeResult, thresholds: Thresholds) -> Health:
    """The health after `result`. Raises nothing; the caller sees a transition by comparing `status`."""
    if result.ok:
        successes = health.consecutive_successes + 1
        recovered = health.status == UNKNOWN or (health.status == UNHEALTHY and successes >= thresholds.recovery)
        return replace(
            health,
            status=HEALTHY if recovered else health.status,
            checked_at=result.at,
            last_ok_at=result.at,
            consecutive_successes=successes,
            consecutive_failures=0,
            last_latency_ms=result.latency_ms,
            last_error="",
        )
    failures = health.consecutive_failures + 1
    return replace(
        health,
        status=UNHEALTHY if failures >= thresholds.failure else health.status,
        checked_at=result.at,
        last_failure_at=result.at,
        consecutive_successes=0,
        consecutive_failures=failures,
        last_error=result.error,
    )

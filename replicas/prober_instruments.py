"""What a prober measures of its own work: probes, changes of status, the lease.

Used by prober.py. Counted in the prober's memory and shown at its ROUTER_METRICS_LISTEN: no router process knows it.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from replicas.health import STATUSES, ProbeResult
from replicas.instruments import COMMON, NAMESPACE, together

PROBER = CollectorRegistry()
RESULTS = ("passed", "failed")
_checks = Counter("checks", "Probes, by result.", ["result"], namespace=NAMESPACE, registry=PROBER)
_duration = Histogram(
    "check_duration_seconds",
    "How long probes took, those that failed among them.",
    namespace=NAMESPACE,
    registry=PROBER,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0),
)
_changes = Counter(
    "check_status_changes",
    "How often a replica's status has changed, by the new status.",
    ["status"],
    namespace=NAMESPACE,
    registry=PROBER,
)
_held = Gauge("lease_held", "1 while this prober works, 0 while it waits.", namespace=NAMESPACE, registry=PROBER)
_epoch = Gauge(
    "lease_epoch", "The epoch of the lease that this prober holds or held last.", namespace=NAMESPACE, registry=PROBER
)
# From the first scrape on all of them are there: a rate from nothing is no rate.
for _result in RESULTS:
    _checks.labels(_result)
for _status in STATUSES:
    _changes.labels(_status)

EXPOSED = together(COMMON, PROBER)


def probed(result: ProbeResult, seconds: float) -> None:
    _checks.labels(RESULTS[0] if result.ok else RESULTS[1]).inc()
    _duration.observe(seconds)


def changed(status: str) -> None:
    _changes.labels(status).inc()


def lease(epoch: int | None) -> None:
    """`epoch`: of the lease that is held; None: it is not."""
    _held.set(epoch is not None)
    if epoch is not None:
        _epoch.set(epoch)

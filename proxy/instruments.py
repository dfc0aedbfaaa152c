"""What a router process measures of its sessions, in its own memory; docs/metrics.md describes each family.

session.py, search.py and placement.py tell it what happens once or a few times a session. No frame comes by here: bytes
and frames are what links count anyway, summed up when somebody asks. No label may have values without bound: codes and
outcomes are those of the contract, and "other".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import add
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from proxy.claims import LIMITS, ORIGIN_NOT_ALLOWED, UNAUTHORIZED
from proxy.errors import (
    INTERNAL_ERROR,
    POLICY_VIOLATION,
    SERVICE_RESTART,
    TRY_AGAIN_LATER,
    Ending,
)
from proxy.frames import TOO_BIG
from replicas.instruments import COMMON, NAMESPACE, together

CODES = (1000, 1001, 1002, 1003, 1007, POLICY_VIOLATION, TOO_BIG, INTERNAL_ERROR, SERVICE_RESTART, TRY_AGAIN_LATER)
# What a client is told as the reason of its close, where that is the outcome (README.md, "For client authors").
TOLD = (
    "replica_lost", "replica_unreachable", "internal_error", "no_healthy_replica", "queue_full", "queue_timeout",
    "router_draining", "router_unavailable", "router_shutdown", "replica_drained", "slot_lost",
)  # fmt: skip
OUTCOMES = (
    "client_closed", "client_vanished", "replica_closed", "session_rejected", "message_too_big", "protocol_error",
    "stalled", "disconnected", "not_admitted", *TOLD,
)  # fmt: skip

REJECTIONS = (UNAUTHORIZED, ORIGIN_NOT_ALLOWED, *LIMITS)

ROUTER = CollectorRegistry()
LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LONG = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)


def _counter(name: str, what: str, labels: tuple[str, ...] = ()) -> Counter:
    return Counter(name, what, labels, namespace=NAMESPACE, registry=ROUTER)


def _histogram(name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
    return Histogram(name, what, namespace=NAMESPACE, registry=ROUTER, buckets=buckets)


_opened = _counter("sessions", "Sessions that were accepted (101).")
_ended = _counter("sessions_ended", "Sessions that have ended, by outcome and close code.", ("outcome", "code"))
_duration = _histogram("session_duration_seconds", "From 101 to the end of a session.", LONG)
_connect = _histogram(
    "connect_time_seconds", "Time to open a replica, TCP, TLS and handshake, where that succeeded.", LATENCIES
)
_media = _histogram(
    "first_media_time_seconds", "From a replica's handshake to its first binary frame.", (*LATENCIES, 30, 60)
)
_queue = _histogram("queue_time_seconds", "Time in the line of those that had to stand in it, however it ended.", LONG)
_connection_errors = _counter("connection_errors", "Attempts to give a session to a replica that have failed.")
_retries = _counter("retry_warnings", "Attempts beyond the first of a session.")
_ejections = _counter("ejections", "Replicas ejected by turns of this process.")
_rejections = _counter("rejections", "Sessions that were not admitted, or were over a limit.", ("reason",))
for _reason in REJECTIONS:
    _rejections.labels(_reason)
_stalls = _counter("stalls", "Sessions that ended because a peer took or sent too little for too long.", ("peer",))
for _peer in ("client", "replica"):
    _stalls.labels(_peer)


class Moved(NamedTuple):
    """What one session has carried: bytes of payloads, and frames."""

    frames_up: int
    bytes_up: int
    frames_down: int
    bytes_down: int


class _Carried(Collector):
    """Sessions and what they have carried, those that live among them: added up when somebody looks.

    The look may come from another thread (ROUTER_METRICS_LISTEN): so what has ended is read before what lives, and a
    session that ends in between is missing once, never counted twice. No total ever falls: such a session, and one
    that begins anew with another replica, are waited for.
    """

    def __init__(self) -> None:
        self.live: Callable[[], Iterable[Moved]] = tuple  # process.py knows
        self._past = Moved(0, 0, 0, 0)
        self._shown = self._past

    def ended(self, moved: Moved) -> None:
        self._past = _sum(self._past, moved)

    def collect(self) -> Iterator[Metric]:
        total, number = self._past, 0
        for moved in self.live():
            total, number = _sum(total, moved), number + 1
        self._shown = total = Moved(*map(max, total, self._shown))
        yield GaugeMetricFamily(f"{NAMESPACE}_current_sessions", "Live sessions of this process.", number)
        octets = CounterMetricFamily(f"{NAMESPACE}_bytes", "Bytes of payloads carried.", labels=["direction"])
        frames = CounterMetricFamily(f"{NAMESPACE}_frames", "Data frames carried.", labels=["direction"])
        octets.add_metric(["up"], total.bytes_up)
        octets.add_metric(["down"], total.bytes_down)
        frames.add_metric(["up"], total.frames_up)
        frames.add_metric(["down"], total.frames_down)
        yield octets
        yield frames


def _sum(one: Moved, other: Moved) -> Moved:
    return Moved(*map(add, one, other))


carried = _Carried()
ROUTER.register(carried)
EXPOSED = together(COMMON, ROUTER)


def opened() -> None:
    _opened.inc()


def attempted(again: bool) -> None:
    """A replica is to be opened; `again`: the session has tried before."""
    if again:
        _retries.inc()


def attempt_failed() -> None:
    _connection_errors.inc()


def connected(seconds: float) -> None:
    _connect.observe(seconds)


def media_came(seconds: float) -> None:
    _media.observe(seconds)


def waited(seconds: float) -> None:
    _queue.observe(seconds)


def ejected(number: int) -> None:
    _ejections.inc(number)


def ended(ending: Ending, seconds: float, moved: Moved) -> None:
    carried.ended(moved)
    _ended.labels(outcome(ending), code_label(ending.code)).inc()
    _duration.observe(seconds)
    if ending.by == "router" and ending.why in REJECTIONS:
        _rejections.labels(ending.why).inc()
    elif ending.by == "router" and ending.code == POLICY_VIOLATION:
        _stalls.labels("client").inc()
    elif ending.by == "replica" and ending.to_replica is not None and ending.to_replica.code == POLICY_VIOLATION:
        _stalls.labels("replica").inc()


def code_label(code: int | None) -> str:
    if code is None:
        return "none"
    return str(code) if code in CODES else "other"


def outcome(ending: Ending) -> str:
    """One of OUTCOMES."""
    if ending.by == "client":
        return "client_closed" if ending.why == "closed" else "client_vanished"
    if ending.by == "replica":
        return {"closed": "replica_closed", "rejected": "session_rejected"}.get(ending.why, "replica_lost")
    if ending.code == POLICY_VIOLATION:
        return "not_admitted" if ending.why in REJECTIONS else "stalled"
    if ending.code == TOO_BIG:
        return "message_too_big"
    if ending.code in (SERVICE_RESTART, TRY_AGAIN_LATER, INTERNAL_ERROR):
        told = ending.to_client.reason if ending.to_client is not None else ""
        return told if told in TOLD else "disconnected"
    return "protocol_error"

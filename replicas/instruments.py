"""What every process of the router measures of itself, and how it shows it to Prometheus.

Used by the prober (prober_instruments.py) and by the router (proxy/instruments.py), which add families of their own.
docs/metrics.md describes each family; a test holds the two together. No label may have values without bound.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from django.conf import settings
from prometheus_client import (
    CollectorRegistry,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    make_wsgi_app,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from replicas.access import REFUSED, TOKEN, has_token
from replicas.version import VERSION

logger = logging.getLogger("replicas.metrics")

NAMESPACE = "stream_router"
LAG_SECONDS = 0.25  # from one look at the event loop's lag to the next
RETRY_SECONDS = 10.0
# Short, because frames wait for it.
LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

# A second family for each counter, with when it was made: process_start_time_seconds says so for all.
disable_created_metrics()  # type: ignore[no-untyped-call]
COMMON = CollectorRegistry()
ProcessCollector(namespace=NAMESPACE, registry=COMMON)
_build = Gauge(
    "process_build_info", "1; the version is in the label.", ["version"], namespace=NAMESPACE, registry=COMMON
)
_build.labels(VERSION).set(1)
LOOP_LAG = Histogram(
    "event_loop_lag_seconds",
    "How late the event loop came to a timer, looked at every quarter of a second.",
    namespace=NAMESPACE,
    registry=COMMON,
    buckets=LAG_BUCKETS,
)


class Together(Collector):
    """Several registries as one."""

    def __init__(self, *registries: Collector) -> None:
        self._registries = registries

    def collect(self) -> Iterator[Metric]:
        for registry in self._registries:
            yield from registry.collect()


def together(*registries: Collector) -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(Together(*registries))
    return made


async def watch(registry: CollectorRegistry) -> None:
    """Until cancelled: look at the event loop's lag; serve `registry` at ROUTER_METRICS_LISTEN, where that is set."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_watch_lag(), name="metrics: event loop lag")
            if settings.ROUTER_METRICS_LISTEN:
                group.create_task(_serve(registry, settings.ROUTER_METRICS_LISTEN), name="metrics: serve")
    except Exception:
        logger.exception("metrics: fault of the router; sessions and probes go on without them")


async def _watch_lag() -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_SECONDS
        await asyncio.sleep(LAG_SECONDS)
        LOOP_LAG.observe(max(0.0, loop.time() - due))


async def _serve(registry: CollectorRegistry, listen: tuple[str, int]) -> None:
    """In a thread of its own. A port that is taken is no reason not to carry sessions: it is tried again."""
    told = False
    while True:
        try:
            # It may look a name up.
            server = await asyncio.to_thread(_start, registry, *listen)
            break
        except OSError as fault:
            if not told:
                logger.error("metrics cannot be served at %s:%d (%s); trying on", *listen, fault.strerror)
            told = True
        await asyncio.sleep(RETRY_SECONDS)
    logger.info("metrics are served at %s:%d", *listen)
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        # It takes up to half a second, for which nobody is to wait.
        threading.Thread(target=_close, args=[server], name="metrics: close", daemon=True).start()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """A line for each scrape says nothing."""


def _start(registry: CollectorRegistry, host: str, port: int) -> WSGIServer:
    """Raises OSError."""
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    of_family = type("_Server", (_Server,), {"address_family": family})
    server: WSGIServer = make_server(host, port, _for_those_who_may(make_wsgi_app(registry)), of_family, _Silent)
    threading.Thread(target=server.serve_forever, name="metrics: serve", daemon=True).start()
    return server


def _for_those_who_may(show: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """As at /metrics: who asks needs the token, where ROUTER_METRICS_ACCESS says so. Staff cannot sign in here."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if settings.ROUTER_METRICS_ACCESS == TOKEN and not has_token(environ.get("HTTP_AUTHORIZATION", "")):
            start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer"), ("Content-Type", "text/plain")])
            return [f"{REFUSED}\n".encode()]
        return show(environ, start_response)

    return application


def _close(server: WSGIServer) -> None:
    server.shutdown()
    server.server_close()

"""One case through one proxy → its figures. Called by run.py; reads the proxy's /proc.

Figures are named with their unit; results.json holds them as they come from here. Without a proxy (`direct`: the client
connects to the replica) those of a proxy are left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.clock import Clock, Window
from bench.echo import echo
from bench.load import Address, Load, LoadFault
from bench.plan import OPENS_IN_FLIGHT, Case
from bench.processes import Child
from bench.traffic import ready_pattern, stream

MICROSECONDS = 1e6
MB = 1e6
FIRST_SESSIONS = 20  # before memory is read: modules and pools that the first sessions bring are not a session's cost
Figures = dict[str, float]


@dataclass(frozen=True)
class Target:
    """What clients connect to, and the processes that are measured; None for `direct`."""

    address: Address
    child: Child | None
    deflate: bool = False

    def cpu_seconds(self) -> float:
        return self.child.cpu_seconds() if self.child else 0.0

    def settle(self) -> None:
        if self.child:
            self.child.settle()


def measure(
    case: Case,
    target: Target,
    load: Load,
    warm_seconds: float,
    window_seconds: float,
    in_flight: int = OPENS_IN_FLIGHT,
) -> Figures:
    """Sessions are opened `in_flight` at a time. Raises LoadFault or Unwell when the proxy does not carry it."""
    clock = Clock(warm_seconds, window_seconds, target.cpu_seconds)
    if case.kind == "open":
        return _open(case, target, load, clock, in_flight)
    with load.sessions(target.address, case.sessions, deflate=target.deflate, in_flight=in_flight) as sessions:
        up, down = ready_pattern(case.size, True, target.deflate), ready_pattern(case.size, False, target.deflate)
        if case.kind == "echo":
            window = echo(sessions.clients, sessions.replicas, up, down, clock)
            figures = _echo_figures(window, target)
        elif case.kind == "up":
            window = stream(sessions.clients, sessions.replicas, up, clock)
            figures = _stream_figures(window, case, target)
        else:
            window = stream(sessions.replicas, sessions.clients, down, clock)
            figures = _stream_figures(window, case, target)
    target.settle()
    return figures


def prove(target: Target, load: Load, count: int = FIRST_SESSIONS) -> None:
    """Open and close some sessions: the proxy works, and what it loads at first use is loaded."""
    with load.sessions(target.address, count, deflate=target.deflate, in_flight=OPENS_IN_FLIGHT):
        pass
    target.settle()


def wait_ready(target: Target, load: Load, seconds: float) -> None:
    """Until a session works, `seconds` at most. Raises LoadFault, or Unwell when the process has ended."""

    def answers() -> bool:
        if target.child:
            target.child.must_run()
        try:
            with load.sessions(target.address, 1, deflate=target.deflate):
                return True
        except (OSError, LoadFault):
            return False

    load.run_until(_every(0.05, answers), seconds)
    if target.child:
        target.child.find_workers()


def _open(case: Case, target: Target, load: Load, clock: Clock, in_flight: int) -> Figures:
    """Sessions a second and memory a session; then frames down all of the sessions."""
    before = target.child.rss_bytes() if target.child else 0
    cpu = target.cpu_seconds()
    with load.sessions(target.address, case.sessions, deflate=target.deflate, in_flight=in_flight) as sessions:
        figures = {"opens_per_s": case.sessions / sessions.seconds}
        if target.child:
            figures["open_cpu_us"] = (target.cpu_seconds() - cpu) / case.sessions * MICROSECONDS
            target.child.settle()
            figures["kib_per_session"] = (target.child.rss_bytes() - before) / case.sessions / 1024
        down = ready_pattern(case.size, False, target.deflate)
        figures |= _stream_figures(stream(sessions.replicas, sessions.clients, down, clock), case, target)
    target.settle()
    return figures


def _stream_figures(window: Window, case: Case, target: Target) -> Figures:
    if window.frames < 1:
        raise LoadFault("not one frame came through")
    payload = window.frames * case.size / MB
    figures = {"mb_per_s": payload / window.seconds, "frames_per_s": window.frames / window.seconds}
    figures["load_busy"] = window.load_cpu / window.seconds
    if target.child:
        figures["cpu_us_per_frame"] = window.proxy_cpu / window.frames * MICROSECONDS
        figures["cpu_us_per_mb"] = window.proxy_cpu / payload * MICROSECONDS
        figures["proxy_busy"] = window.proxy_cpu / window.seconds
    return figures


def _echo_figures(window: Window, target: Target) -> Figures:
    latencies = sorted(window.latencies)
    if not latencies:
        raise LoadFault("not one echo came back")
    figures = {
        "p50_us": latencies[len(latencies) // 2] * MICROSECONDS,
        "p99_us": latencies[len(latencies) * 99 // 100] * MICROSECONDS,
        "echoes_per_s": window.frames / window.seconds,
    }
    if target.child:
        # An echo is two messages: one up, one down.
        figures["cpu_us_per_message"] = window.proxy_cpu / window.frames / 2 * MICROSECONDS
    return figures


def _every(seconds: float, condition: Callable[[], bool]) -> Callable[[], bool]:
    last = 0.0

    def asked() -> bool:
        nonlocal last
        if time.monotonic() - last < seconds:
            return False
        last = time.monotonic()
        return condition()

    return asked

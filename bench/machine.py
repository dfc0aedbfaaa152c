"""The machine: which core the proxy gets and which the load, what else ran on them, and what results name of it.

Must not name the machine itself: results are published.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cores:
    """Where who runs. `shared`: the two are one core, or two threads of one, and slow each other."""

    proxy: int
    load: int
    shared: bool


def choose_cores() -> Cores:
    """The last core for the proxy (the first has most interrupts); for the load one that shares nothing with it."""
    usable = sorted(os.sched_getaffinity(0))
    proxy = usable[-1]
    siblings = _siblings(proxy)
    others = [core for core in usable if core not in siblings]
    if others:
        return Cores(proxy, others[0], shared=False)
    return Cores(proxy, usable[0], shared=True)


def describe(cores: Cores) -> dict[str, str | int | bool]:
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 1,
        "shared_core": cores.shared,
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
    }


class Bystanders:
    """How much of the cores something else took since this was made: other work here, and the hypervisor (steal)."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._before = (_busy_and_stolen(), _own_seconds())

    def shares(self) -> dict[str, float]:
        """Of all cores' time, 0 to 1. Called when the children have ended, or their time is not counted as ours."""
        (busy, stolen), own = _busy_and_stolen(), _own_seconds()
        (busy_before, stolen_before), own_before = self._before
        all_time = (time.monotonic() - self._began) * (os.cpu_count() or 1)
        others = busy - busy_before - (own - own_before)
        return {"others": max(0.0, others / all_time), "stolen": (stolen - stolen_before) / all_time}


def raise_file_limit() -> None:
    """Sessions are two sockets here and two in a proxy, which inherits the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _busy_and_stolen() -> tuple[float, float]:
    """Seconds of all cores together: proc_stat(5), first line."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    tick = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / tick, steal / tick


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _siblings(core: int) -> set[int]:
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    if not path.exists():
        return {core}
    found: set[int] = set()
    for part in path.read_text().strip().split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()

"""`python -m bench.several`: how much more do several router processes on one socket carry than one does?

Each process is held to a quarter of a core (cgroup v1, CPU quota), so that two cores are enough: one for the load, and
on the other as many as four processes that do not take each other's time. Needs root, and says what it lacks.
Prints its figures and writes nothing. The router, the load and the case are the bench's own.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import router
from bench.load import Load
from bench.machine import choose_cores
from bench.measure import Figures, Target, measure, prove
from bench.plan import KIB, Case
from bench.processes import Child, ending_children, start

CGROUPS = Path("/sys/fs/cgroup/cpu")
PERIOD_US, QUOTA_US = 100_000, 25_000
START_SECONDS = 30.0
CASE = Case("down", 64 * KIB, sessions=40)
WARM_SECONDS, WINDOW_SECONDS = 1.0, 5.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.several", description=__doc__)
    parser.add_argument("--processes", type=int, default=2, choices=(2, 3, 4), help="compared with one")
    parser.add_argument("--rounds", type=int, default=3, help="how often; the medians count")
    options = parser.parse_args()
    if lack := _lacks():
        print(f"cannot hold processes to a part of a core: {lack}")
        return 2
    cores = choose_cores()
    os.sched_setaffinity(0, {cores.load})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    runs: dict[int, list[Figures]] = {1: [], options.processes: []}
    with tempfile.TemporaryDirectory(prefix="bench-") as name, contextlib.closing(Load()) as load:
        prepared = router.prepare(Path(name), load)
        for number in range(1, options.rounds + 1):
            for count, figures in runs.items():
                figures.append(_carried(count, prepared, load, cores.proxy))
                print(f"round {number}: {CASE.name}: {_shown(count, figures[-1])}", flush=True)
    medians = {count: _median(made) for count, made in runs.items()}
    for count, median in medians.items():
        print(f"median: {_shown(count, median)}: {median['mb_per_s'] / medians[1]['mb_per_s']:.2f} ×")
    return 0


def _carried(count: int, prepared: Path, load: Load, core: int) -> Figures:
    """What `count` processes carry together, each with its quarter. Raises LoadFault or Unwell."""
    variables = router.router_environment(router.copy(prepared))
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as shared, _quarters(count) as groups:
        command = [sys.executable, "-m", "daphne", "--fd", str(shared.fileno()), "routerproject.asgi:application"]
        with ending_children() as children:
            for index in range(count):
                name = f"router-{count}-{index}"
                children.append(start(command, prepared.parent, name, core, variables, [shared.fileno()]))
            load.run_until(lambda: all(map(_listens, children)), START_SECONDS)
            for child, group in zip(children, groups, strict=True):
                (group / "cgroup.procs").write_text(str(child.process.pid))
            together = Child(children[0].process, children[0].log_path, [child.process.pid for child in children])
            target = Target(shared.getsockname(), together)
            prove(target, load)
            before = [_opened(child) for child in children]
            figures = measure(CASE, target, load, WARM_SECONDS, WINDOW_SECONDS, in_flight=1)
            sessions = [_opened(child) - then for child, then in zip(children, before, strict=True)]
            return figures | {"fewest": min(sessions), "most": max(sessions)}


@contextlib.contextmanager
def _quarters(count: int) -> Iterator[Sequence[Path]]:
    """Groups of processes, each with a quarter of a core. At the end their processes must have ended."""
    groups = [CGROUPS / f"bench-{os.getpid()}-{index}" for index in range(count)]
    try:
        for group in groups:
            group.mkdir()
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(QUOTA_US))
        yield groups
    finally:
        for group in groups:
            with contextlib.suppress(FileNotFoundError):
                group.rmdir()


def _lacks() -> str | None:
    if os.geteuid() != 0:
        return "this needs root"
    if not (CGROUPS / "cpu.cfs_quota_us").exists():
        return f"there is no cgroup v1 CPU controller at {CGROUPS}"
    try:
        with _quarters(1):
            return None
    except OSError as error:
        return f"no group can be made at {CGROUPS}: {error.strerror}"


def _listens(child: Child) -> bool:
    child.must_run()
    return "Listening on TCP" in child.log_path.read_text()


def _opened(child: Child) -> int:
    return child.log_path.read_text().count(" opened: ")


def _median(runs: list[Figures]) -> Figures:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def _shown(count: int, figures: Figures) -> str:
    return (
        f"{count} with {figures['fewest']:.0f} to {figures['most']:.0f} sessions: {figures['mb_per_s']:.0f} MB/s, "
        f"{figures['cpu_us_per_mb']:.0f} µs of CPU a MB, {figures['proxy_busy']:.2f} cores busy"
    )


if __name__ == "__main__":
    sys.exit(main())

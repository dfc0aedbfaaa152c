"""`python -m bench.placements`: placements per second, and how long one takes, by processes and database.

Each process runs the router's own placement (proxy/placement.py) under as many sessions at once as --sessions says:
each asks for a seat, gives it back, and asks again. No WebSocket is opened: what is measured is the turn. SQLite in a
temporary folder; PostgreSQL (durable: fsync on) is started for it where it is installed. Says each figure as it comes
(stderr) and prints all of them as Markdown at the end; bench/placements.md is such a page.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from bench.machine import choose_cores, describe
from bench.processes import environment

ROOT = Path(__file__).resolve().parents[1]
BAR = 24  # characters, for the most placements a second
WORKER = "bench.placements_worker"
HEADERS = ("database", "processes", "replicas", "live", "ended", "placements a second", "", "p50 ms", "p99 ms")


@dataclass(frozen=True)
class Case:
    """One row of the table. `live` and `ended` sessions are in the table before it begins."""

    database: str
    processes: int
    replicas: int = 5
    live: int = 0
    ended: int = 0


CASES = (
    Case("sqlite", 1),
    Case("sqlite", 4),
    Case("postgres", 1),
    Case("postgres", 4),
    Case("postgres", 4, replicas=10),
    Case("postgres", 4, replicas=100),
    Case("postgres", 4, replicas=1000),
    Case("postgres", 4, live=10_000),
    Case("postgres", 4, ended=100_000),
    Case("sqlite", 4, live=10_000),
    Case("sqlite", 4, ended=100_000),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.placements", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--sessions", type=int, default=64, help="at once, over all processes")
    parser.add_argument("--only", default="", help="cases whose text has this, like 'sqlite 4'")
    options = parser.parse_args()
    measured = list[tuple[Case, float, float, float]]()
    for case in CASES:
        if options.only not in f"{case.database} {case.processes} {case.replicas} {case.live} {case.ended}":
            continue
        with tempfile.TemporaryDirectory(prefix="bench-") as name, _database(case.database) as url:
            if url is None:
                print(f"{case.database}: not installed", file=sys.stderr)
                continue
            found = _measure(case, Path(name), url, options.seconds, options.sessions)
        measured.append((case, *found))
        print(f"{case}: {found[0]:.0f} a second, p50 {found[1]:.1f} ms, p99 {found[2]:.1f} ms", file=sys.stderr)
    most = max((rate for _, rate, _, _ in measured), default=1.0)
    rows = [
        (
            *(case.database, case.processes, case.replicas, case.live, case.ended),
            *(f"{rate:.0f}", "█" * round(rate / most * BAR), f"{p50:.1f}", f"{p99:.1f}"),
        )
        for case, rate, p50, p99 in measured
    ]
    print(f"{options.sessions} sessions at once, {options.seconds:g} s a row; {machine()}.\n")
    print(tabulate(rows, HEADERS, tablefmt="github", disable_numparse=True))
    return 0


def machine() -> str:
    """What figures were measured on, in a few words."""
    found = describe(choose_cores())
    return f"{found['cpu']}, {found['cores']} cores, Linux {found['kernel']}, Python {found['python']}"


def _measure(case: Case, var: Path, url: str, seconds: float, sessions: int) -> tuple[float, float, float]:
    settings = environment(
        ROUTER_VAR_DIR=str(var),
        DJANGO_SETTINGS_MODULE="routerproject.settings",
        **({"DATABASE_URL": url} if url else {}),
    )
    run(["manage.py", "migrate", "-v", "0"], settings)
    run(["-m", WORKER, "fill", str(case.replicas), str(case.live), str(case.ended)], settings)
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", WORKER, "place", str(seconds), str(sessions // case.processes)],
            cwd=ROOT, env=settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(case.processes)
    ]  # fmt: skip
    try:
        for worker in workers:
            assert worker.stdout is not None
            worker.stdout.readline()  # it is ready
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        took = sorted(took for worker in workers for took in json.loads(worker.communicate(timeout=120)[0]))
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return len(took) / seconds, took[len(took) // 2] * 1000, took[int(len(took) * 0.99)] * 1000


def run(arguments: Sequence[str], settings: dict[str, str]) -> None:
    subprocess.run([sys.executable, *arguments], cwd=ROOT, env=settings, check=True)


@contextlib.contextmanager
def _database(kind: str) -> Iterator[str | None]:
    if kind == "sqlite":
        yield ""
        return
    from tests.backing_servers import Missing, running_postgres

    try:
        with running_postgres(durable=True) as server:
            yield server.url
    except Missing:
        yield None


if __name__ == "__main__":
    sys.exit(main())

"""`python -m bench.placements`: placements per second, and how long one takes, by processes and database.

Each process runs the router's own placement (proxy/placement.py) under as many sessions at once as --sessions says:
each asks for a seat, gives it back, and asks again. No WebSocket is opened: what is measured is the turn. SQLite in a
temporary folder; PostgreSQL (durable: fsync on) is started for it where it is installed. Prints a table and writes
nothing.
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

from bench.processes import environment

ROOT = Path(__file__).resolve().parents[1]
ROW = "{:9}{:>10}{:>9}{:>7}{:>8}{:>8}{:>8}{:>8}"
WORKER = "bench.placements_worker"


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
    print(ROW.format("database", "processes", "replicas", "live", "ended", "per s", "p50 ms", "p99 ms"))
    for case in CASES:
        if options.only not in f"{case.database} {case.processes} {case.replicas} {case.live} {case.ended}":
            continue
        with tempfile.TemporaryDirectory(prefix="bench-") as name, _database(case.database) as url:
            if url is None:
                print(f"{case.database}: not installed")
                continue
            rate, p50, p99 = _measure(case, Path(name), url, options.seconds, options.sessions)
        figures = f"{rate:.0f}", f"{p50:.1f}", f"{p99:.1f}"
        setting = case.database, case.processes, case.replicas, case.live, case.ended
        print(ROW.format(*setting, *figures), flush=True)
    return 0


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

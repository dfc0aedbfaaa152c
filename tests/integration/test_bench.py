"""The bench end to end, as small as it can be: it works, ends its children, and names what is missing. No timings."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.load import Load
from bench.machine import choose_cores
from bench.measure import Target, measure
from bench.peers import PEERS, Peer
from bench.plan import KIB, Case, Plan
from bench.run import Bench, Run
from tests.processes import ROOT, wait_until

FLOOR = next(peer for peer in PEERS if peer.name == "floor")


def run_bench(*cases: Case, peer: Peer = FLOOR) -> list[Run]:
    plan = Plan(cases, rounds=1, warm_seconds=0.02, window_seconds=0.05)
    return Bench(plan, [peer], choose_cores(), lambda text: None).run()


def children_of(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def test_the_smallest_bench_measures_the_floor(tmp_path: Path) -> None:
    """One peer, one size, one short round, by the command: three files come of it."""
    command = [sys.executable, "-m", "bench", "--quick", "--peers", "floor", "--cases", "down", "--rounds", "1"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert [(run["peer"], run["case"]) for run in results["runs"]] == [("floor", "down 64 KiB x1")]
    assert results["runs"][0]["figures"]["cpu_us_per_frame"] > 0
    assert "floor" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.svg").read_text().startswith("<svg")


def test_every_kind_of_case_gives_its_figures() -> None:
    """Down, up, echo and open; nothing that was started is left."""
    before = children_of(os.getpid())
    runs = run_bench(
        Case("open", KIB, sessions=5), Case("down", 100), Case("up", 64 * KIB), Case("echo", 100, sessions=2)
    )
    assert [run.failed for run in runs] == [""] * 4
    opened, down, up, echo = (run.figures for run in runs)
    assert {"opens_per_s", "kib_per_session", "cpu_us_per_frame"} <= opened.keys()
    assert {"cpu_us_per_frame", "cpu_us_per_mb", "mb_per_s", "load_busy", "proxy_busy"} <= down.keys() & up.keys()
    assert {"p50_us", "p99_us", "echoes_per_s", "cpu_us_per_message"} <= echo.keys()
    assert children_of(os.getpid()) == before


@pytest.mark.parametrize("kind", ["down", "up", "echo"])
def test_compressed_frames_are_counted_too(kind: str) -> None:
    """Client and replica agree on permessage-deflate without a proxy; the frames are then counted by their headers."""
    with contextlib.closing(Load()) as load:
        figures = measure(Case(kind, 100), Target(load.address, None, deflate=True), load, 0.02, 0.05)
    assert figures.get("frames_per_s", figures.get("echoes_per_s", 0)) > 0


def test_a_peer_that_breaks_fails_by_name_and_the_run_goes_on() -> None:
    """A proxy that ends at once: the case has no figures and a reason, and nothing hangs."""
    broken = Peer("broken", "ends at once", lambda site: ([sys.executable, "-c", ""], {}), lambda: "")
    assert [(run.peer, run.figures, run.failed) for run in run_bench(Case("down", 100), peer=broken)] == [
        ("broken", {}, "ended with 0")
    ]


def test_when_it_is_stopped_its_children_end(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a run leaves no proxy behind, and writes no results."""
    command = [sys.executable, "-m", "bench", "--peers", "floor", "--rounds", "1000", "--out", str(tmp_path)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        wait_until(lambda: "round 1/" in (tmp_path / "log").read_text(), 30)
        (child, *_) = children_of(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not Path(f"/proc/{child}").exists())
    assert not (tmp_path / "results.json").exists()

"""The order of a run: in each round, in each case, every peer in turn, so that a drift of the machine hits all alike.

Starts and ends the proxies and shows what runs and how much is left. Called by __main__.py and by the bench's own test.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import router
from bench.load import Load, LoadFault
from bench.machine import Cores
from bench.measure import Figures, Target, measure, prove, wait_ready
from bench.peers import Peer, Site
from bench.plan import Case, Plan
from bench.processes import Child, Unwell, ending_children, start

START_SECONDS = 30.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """One case of one peer in one round: its figures, or why there are none."""

    round: int
    case: str
    peer: str
    figures: Figures
    failed: str = ""


class Bench:
    """A whole run. `run()` gives the runs made; what it started has ended when it returns or raises."""

    def __init__(self, plan: Plan, peers: list[Peer], cores: Cores, say: Say) -> None:
        self.plan, self.cores, self.say = plan, cores, say
        self.peers = [peer for peer in peers if any(case.includes(peer.name) for case in plan.cases)]
        self.runs: list[Run] = []
        self._total = plan.rounds * sum(case.includes(peer.name) for case in plan.cases for peer in peers)
        self._began = time.monotonic()

    def run(self) -> list[Run]:
        with (
            tempfile.TemporaryDirectory(prefix="bench-") as folder,
            contextlib.closing(Load()) as load,
            ending_children() as children,
        ):
            self._folder, self._children, self._load = Path(folder), children, load
            self._router: Path | None = None
            if any(peer.is_router for peer in self.peers):
                self.say("preparing the router's database")
                self._router = router.prepare(self._folder, self._load)
            targets: dict[str, Target] = {}
            for number in range(1, self.plan.rounds + 1):
                if self.plan.fresh or not targets:
                    self._stop_all()
                    targets = self._start_all()
                for case in self.plan.cases:
                    for peer in self.peers:
                        if case.includes(peer.name):
                            self._one(number, case, peer, targets)
        return self.runs

    def _one(self, number: int, case: Case, peer: Peer, targets: dict[str, Target]) -> None:
        self.say(f"round {number}/{self.plan.rounds}  {case.name:<16} {peer.name:<16} {self._left()}")
        try:
            if peer.name not in targets:
                targets[peer.name] = self._start(peer)
                self._wait(peer, targets[peer.name])
            figures = measure(case, targets[peer.name], self._load, self.plan.warm_seconds, self.plan.window_seconds)
        except (LoadFault, Unwell, OSError) as fault:
            self._failed(number, case, peer, str(fault), targets.pop(peer.name, None))
        else:
            if number > 1 and not self.plan.fresh:
                figures.pop("kib_per_session", None)  # what earlier sessions left is used again
            self.runs.append(Run(number, case.name, peer.name, figures))

    def _failed(self, number: int, case: Case, peer: Peer, why: str, target: Target | None) -> None:
        """Remembered and shown; the peer is started anew for its next case."""
        self.runs.append(Run(number, case.name, peer.name, {}, why))
        self.say(f"FAILED: {case.name} {peer.name}: {why}\n")
        if target and target.child:
            self.say(target.child.log_tail() + "\n")
            target.child.stop()
            self._children.remove(target.child)

    def _start_all(self) -> dict[str, Target]:
        """All of them at once, then each until it answers."""
        self.say("starting the proxies")
        started = {peer.name: self._start(peer) for peer in self.peers}
        for peer in self.peers:
            try:
                self._wait(peer, started[peer.name])
            except (LoadFault, Unwell) as fault:
                target = started.pop(peer.name)
                self.say(f"FAILED to start {peer.name}: {fault}\n{target.child.log_tail() if target.child else ''}\n")
        return started

    def _start(self, peer: Peer) -> Target:
        if peer.command is None:
            return Target(self._load.address, None)
        port = _free_port()
        command, environment = peer.command(Site(self._folder, port, self._load.address[1], self._router))
        child = start(command, self._folder, f"{peer.name}-{port}", self.cores.proxy, environment)
        self._children.append(child)
        return Target(("127.0.0.1", port), child, peer.deflate)

    def _wait(self, peer: Peer, target: Target) -> None:
        wait_ready(target, self._load, START_SECONDS)
        prove(target, self._load)

    def _stop_all(self) -> None:
        stopping: list[Child] = list(self._children)
        for child in stopping:
            child.process.terminate()
        for child in stopping:
            child.stop()
        self._children.clear()

    def _left(self) -> str:
        done = len(self.runs)
        if done < len(self.peers):
            return f"{done}/{self._total}"
        left = (time.monotonic() - self._began) / done * (self._total - done)
        return f"{done}/{self._total}, about {left:.0f} s left"


def as_json(runs: list[Run]) -> list[dict[str, object]]:
    return [{name: value for name, value in asdict(run).items() if name != "failed" or value} for run in runs]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

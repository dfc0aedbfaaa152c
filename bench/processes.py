"""Child processes of the bench: started on one core, watched, their CPU time and memory read, ended whatever happens.

A child is a session of its own, so that Ctrl-C reaches the bench alone, which then ends its children; if the bench is
killed, the kernel ends them. Must not touch any process that it did not start.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
STOP_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Unwell(Exception):
    """A child ended, did not start, or broke what the bench expects of it."""


@dataclass
class Child:
    """A running proxy, all of its processes. `log` is what it printed, for the terminal only."""

    process: subprocess.Popen[bytes]
    log_path: Path
    _pids: list[int] = field(default_factory=list)

    @property
    def pids(self) -> list[int]:
        return self._pids or [self.process.pid]

    def find_workers(self) -> None:
        """Count its children too (nginx has a master and a worker). Called once it answers."""
        self._pids = list(_tree(self.process.pid))

    def cpu_seconds(self) -> float:
        """CPU time used so far: what /proc shows as utime + stime, read in nanoseconds instead of ticks of 10 ms."""
        return sum(_cpu_seconds(pid) for pid in self.pids)

    def rss_bytes(self) -> int:
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE for pid in self.pids)

    def must_run(self) -> None:
        if self.process.poll() is not None:
            raise Unwell(f"ended with {self.process.returncode}")

    def log_tail(self, lines: int = 12) -> str:
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def settle(self, seconds: float = 2.0) -> None:
        """Wait until it rests (the goodbyes of the last case are done), `seconds` at most."""
        deadline = time.monotonic() + seconds
        before = self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(0.03)
            now = self.cpu_seconds()
            if now - before < 0.0015:
                return
            before = now

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def start(
    command: Sequence[str], folder: Path, name: str, core: int, environment: dict[str, str], fds: Sequence[int] = ()
) -> Child:
    """Start `command` on `core`; its working folder is the project's, its output goes to a file in `folder`.

    It inherits `fds`.
    """

    def prepare() -> None:
        os.sched_setaffinity(0, {core})
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    log_path = folder / f"{name}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=Path(__file__).resolve().parents[1], env=environment, stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, start_new_session=True, preexec_fn=prepare, pass_fds=tuple(fds),
        )  # fmt: skip
    return Child(process, log_path)


@contextlib.contextmanager
def ending_children() -> Iterator[list[Child]]:
    """A list for running children; all that are in it at the end of the block are stopped."""
    children: list[Child] = []
    try:
        yield children
    finally:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                child.process.terminate()
        for child in children:
            child.stop()


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without settings of a router."""
    foreign = ("ROUTER_", "DATABASE_", "REDIS_", "LOG_", "DJANGO_", "WEB_CONCURRENCY", "FORWARDED_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | changes


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _tree(int(child))


def _cpu_seconds(pid: int) -> float:
    # The clock of another process (clock_getcpuclockid(3)): bits 3 and up are ~pid, 2 says "time on a CPU".
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError as error:
        raise Unwell("ended") from error

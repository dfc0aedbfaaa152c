"""The project's own commands as real processes, for tests: started, awaited, ended by their id."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import canaries
from tests.isolation import VAR_DIR

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
SQLITE = "router.sqlite3"  # in a router's var folder
FOREIGN = ("ROUTER_", "DATABASE_", "REDIS_", "LOG_")


def environment(var: Path, **changes: Any) -> dict[str, str]:
    """The environment of a process of the router: without settings of this one, with a var folder of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    ours = {
        "ROUTER_VAR_DIR": str(var),
        "DJANGO_SETTINGS_MODULE": "routerproject.settings",
        "PYTHONUNBUFFERED": "1",
        "ROUTER_DRAIN_SECONDS": "0",
        "SECRET_KEY": canaries.SECRET_KEY,
        "ROUTER_MACHINE_TOKEN": canaries.MACHINE_TOKEN,
    }
    return kept | ours | {name: str(value) for name, value in changes.items()}


def manage(var: Path, *arguments: str, check: bool = True, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run `manage.py ARGUMENTS` to its end; with `check` a failure shows what it printed. No secret may stand there."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT, env=environment(var, **settings), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    canaries.look_at((done.stdout + done.stderr).encode(), f"what manage.py {arguments[0]} printed")
    if check and done.returncode:
        raise AssertionError(f"manage.py {' '.join(arguments)} exited {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def migrated(var: Path, **settings: Any) -> None:
    """The tables of the router that has `var` and `settings`. SQLite's are a copy of those that were made first."""
    if "DATABASE_URL" in settings:
        manage(var, "migrate", "--verbosity", "0", **settings)
    elif not (var / SQLITE).exists():
        shutil.copyfile(_first_migrated(), var / SQLITE)


@functools.cache
def _first_migrated() -> Path:
    var = Path(VAR_DIR, "migrated")
    var.mkdir(exist_ok=True)  # from a try that has failed, whose cause the next one is to show again
    manage(var, "migrate", "--verbosity", "0")
    return var / SQLITE


@dataclass
class Running:
    """A process that runs; `log` is all it has printed."""

    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_for(self, text: str, timeout: float = 60) -> None:
        """Until it has printed `text`."""
        self.wait_until(lambda: text in self.log, timeout)

    def wait_until(self, condition: Callable[[], Any], timeout: float = 30) -> None:
        """Until `condition` holds, while the process runs."""
        wait_until(lambda: condition() or self._must_run(), timeout, f"what was waited for; its log:\n{self.log}")

    def stop(self, number: int = signal.SIGTERM, timeout: float = 15) -> int:
        """Send a signal and give the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout)

    def _must_run(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"ended with {self.process.returncode}:\n{self.log}")
        return False


@contextlib.contextmanager
def running(
    name: str, command: list[str], var: Path, pass_fds: Sequence[int] = (), **settings: Any
) -> Iterator[Running]:
    """Start `command` in the project's folder; at the end of the block it is stopped if it still runs."""
    log_path = var / f"{name}.log"
    with log_path.open("ab") as log:  # append: processes that share it do not write over one another
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(var, **settings), stdout=log, stderr=log, pass_fds=tuple(pass_fds)
        )
    found = Running(process, log_path)
    try:
        yield found
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        canaries.look_through(log_path)


def managing(name: str, arguments: list[str], var: Path, **settings: Any) -> contextlib.AbstractContextManager[Running]:
    """`running` for `manage.py ARGUMENTS`."""
    return running(name, [sys.executable, "manage.py", *arguments], var, **settings)


def wait_until(condition: Callable[[], Any], timeout: float = 10, what: str = "the condition") -> Any:
    """The first true value of `condition`, asked for often; an AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(0.02)
    return value

"""What `make run` does: the preparation, the first operator, and the whole of it, to its end."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from demo.management.commands.welcomedemo import first_admin, replica_available
from tests.ports import free_port
from tests.processes import BIN, ROOT, environment, manage, wait_until


def test_the_preparation_may_be_run_again(tmp_path: Path) -> None:
    """A second time it changes nothing: what someone edited meanwhile stays."""
    ports = [str(free_port()) for _ in range(3)]
    assert f"+ added: a (http://127.0.0.1:{ports[1]}), primary" in manage(tmp_path, "preparedemo", *ports).stdout
    assert (tmp_path / "static" / "admin").is_dir()
    manage(tmp_path, "shell", "-v0", "-c", "from replicas.models import *; Replica.objects.filter(name='b').delete()")
    assert "nothing was loaded" in manage(tmp_path, "preparedemo", *ports).stdout
    assert "name: b" not in manage(tmp_path, "dumpreplicas").stdout


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """Before anything is started, with the way out."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = manage(tmp_path, "preparedemo", str(free_port()), str(port), str(free_port()), check=False)
    assert done.returncode == 1
    assert f"port {port} cannot be used" in done.stderr
    assert re.search(r"make run DEMO_PORT_A=\d+", done.stderr)


@pytest.mark.django_db
def test_the_first_admin_is_made_once() -> None:
    """With a password that works and is stored as a hash; where there is an operator, nobody is made."""
    password = first_admin("admin")
    assert password is not None
    user = User.objects.get(username="admin")
    assert user.check_password(password)
    assert user.is_superuser
    assert password not in user.password
    assert first_admin("admin") is None


@pytest.mark.parametrize(
    ("ports", "words"),
    [
        (["80000", "9101", "9102"], "PORT=80000: a port is a whole number from 1 to 65535."),
        (["abc", "9101", "9102"], "PORT=abc: a port is a whole number"),
        (["9000", "0", "9102"], "DEMO_PORT_A=0: a port is a whole number"),
        (["9000", "9101", ""], "DEMO_PORT_B=: a port is a whole number"),
        (["9000", "9101", "9000"], "PORT, DEMO_PORT_A, DEMO_PORT_B must differ; they are 9000, 9101, 9000."),
    ],
)
def test_a_port_that_cannot_be_is_refused_in_words(tmp_path: Path, ports: list[str], words: str) -> None:
    """Variable, value, and what is allowed."""
    done = manage(tmp_path, "preparedemo", *ports, check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_an_earlier_runs_word_is_not_taken_for_news() -> None:
    """Only a probe of this run says that a replica is available."""
    replica = {"available": True, "checked_at": 100.0}
    assert replica_available({"replicas": [replica]}, since=99)
    assert not replica_available({"replicas": [replica]}, since=101)
    assert not replica_available({"replicas": [replica | {"available": False}]}, since=99)
    assert not replica_available({"replicas": [replica | {"checked_at": None}]}, since=99)
    assert not replica_available(None, since=99)


class Run:
    """`make run` on free ports, in a session of its own, so that its group is make and what make started there."""

    def __init__(self, var: Path) -> None:
        self.var = var
        self.ports = {name: free_port() for name in ("PORT", "DEMO_PORT_A", "DEMO_PORT_B")}
        self.log_path = var / "make.log"

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def start(self, terminal: int | None = None, **settings: str) -> None:
        """Into the log; or in `terminal`, as its controlling one."""
        # This Python's venv as it stands: -o, or make might install into it meanwhile.
        venv = BIN.parent
        command = ["make", "-o", f"{venv}/.for-run", "run", f"PYTHON={sys.executable}", f"VENV={venv}"]
        own = [] if terminal is None else ["setsid", "--ctty"]
        with self.log_path.open("wb") as log:
            output = log if terminal is None else terminal
            self.make = subprocess.Popen(
                [*own, *command, *(f"{name}={port}" for name, port in self.ports.items())],
                cwd=ROOT, env=environment(self.var, **settings), stdin=terminal, stdout=output, stderr=output,
                start_new_session=terminal is None,
            )  # fmt: skip

    def wait_for(self, words: str, timeout: float = 60) -> None:
        wait_until(lambda: words in self.log, timeout, f"{words!r} in\n{self.log}")

    def processes(self) -> dict[int, str]:
        """All that live and come from it, by the environment that they inherited, whatever group they are in."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"ROUTER_VAR_DIR={self.var}\0".encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def pid_of(self, words: str) -> int:
        """The one process whose command line has `words`; not the loop of the Procfile around it."""
        (pid,) = [pid for pid, line in self.processes().items() if words in line and "; do " not in line]
        return pid

    def is_gone(self, within: float = 10) -> None:
        self.make.wait(within)
        wait_until(lambda: not self.processes(), 2, f"left behind: {self.processes()}\n{self.log}")

    def get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://localhost:{self.ports['PORT']}{path}", timeout=5) as answer:
            return dict(json.load(answer))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    yield run
    for pid in run.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    run.make.wait(10)


def test_make_run_says_where_all_is_and_ctrl_c_ends_all(run: Run) -> None:
    """A first run: the addresses and a password when a session can be placed. A second: who the admin is."""
    run.start()
    run.wait_for("Ctrl-C stops it.")
    address = f"http://localhost:{run.ports['PORT']}"
    for word, path in (("Player", "/"), ("Dashboard", "/dashboard/"), ("Admin", "/admin/"), ("Status", "/status")):
        assert re.search(rf"{word} +{address}{path}\n", run.log)
    assert re.search(r"Password:   \S{16}", run.log)
    assert run.get("/readyz")["status"] == "ready"
    assert [replica["name"] for replica in run.get("/status")["replicas"]] == ["a", "b"]
    assert "ERROR" not in run.log
    os.killpg(run.make.pid, signal.SIGINT)
    run.is_gone()
    before = time.time()
    run.start()
    run.wait_for("Ctrl-C stops it.")
    assert max(replica["checked_at"] for replica in run.get("/status")["replicas"]) > before
    assert "Admin user: admin, with the password it has" in run.log
    assert "manage.py changepassword admin" in run.log
    assert "No replica is available" not in run.log
    os.killpg(run.make.pid, signal.SIGINT)
    run.is_gone()


def test_a_killed_replica_comes_back_and_nothing_else_stops(run: Run) -> None:
    """SIGKILL: the others go on, the prober sees it go and come back."""
    run.start()
    run.wait_for("Ctrl-C stops it.")
    wait_until(lambda: run.get("/status")["replicas"][0]["available"], 10, "a is there")
    first = run.pid_of("rundemoreplica --name a")
    router = run.pid_of("daphne")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not run.get("/status")["replicas"][0]["available"], 10, "a is seen to be down")
    wait_until(lambda: run.get("/status")["replicas"][0]["available"], 20, "a is back")
    assert run.pid_of("rundemoreplica --name a") != first
    assert run.pid_of("daphne") == router
    run.make.send_signal(signal.SIGTERM)
    run.is_gone()


@pytest.mark.parametrize("when", ["Ctrl-C stops it.", "started (pid="])
@pytest.mark.parametrize(
    ("number", "whom"), [(signal.SIGINT, "the group"), (signal.SIGTERM, "make alone"), (signal.SIGHUP, "the group")]
)
def test_however_it_is_ended_nothing_is_left(run: Run, number: int, whom: str, when: str) -> None:
    """Ctrl-C, a kill of make, the closed terminal; running, or in the middle of the start."""
    run.start()
    run.wait_for(when)
    (os.killpg if whom == "the group" else os.kill)(run.make.pid, number)
    run.is_gone()


def test_a_closed_terminal_ends_all(run: Run) -> None:
    """With a real terminal: its end is a SIGHUP, and every line printed after it fails."""
    ours, theirs = pty.openpty()
    run.start(terminal=theirs)
    os.close(theirs)
    printed = b""
    with contextlib.suppress(OSError):
        while b"started (pid=" not in printed:
            printed += os.read(ours, 65536)
    os.close(ours)
    run.is_gone()


def test_the_welcome_also_comes_where_the_status_is_not_for_anyone(run: Run) -> None:
    """It asks /readyz then, and does not say that no replica is available while two are."""
    run.start(ROUTER_STATUS_ACCESS="token", ROUTER_MACHINE_TOKEN="a-token-of-sixteen-or-more")
    run.wait_for("Ctrl-C stops it.")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        run.get("/status")
    assert run.get("/readyz")["status"] == "ready"
    assert "No replica is available" not in run.log
    run.make.send_signal(signal.SIGTERM)
    run.is_gone()


def test_without_a_replica_it_runs_and_says_what_is_missing(run: Run) -> None:
    """Both disabled by an operator: the welcome comes all the same, in its own time."""
    ports = [str(port) for port in run.ports.values()]
    manage(run.var, "preparedemo", *ports)
    manage(run.var, "shell", "-v0", "-c", "from replicas.models import *; Replica.objects.update(state='disabled')")
    run.start()
    run.wait_for("Ctrl-C stops it.", 45)
    assert "No replica is available yet: until one is, sessions are refused." in run.log
    assert f"a at http://127.0.0.1:{run.ports['DEMO_PORT_A']}: disabled, unknown" in run.log
    assert run.get("/livez") == {"status": "ok"}
    run.make.send_signal(signal.SIGTERM)
    run.is_gone()

"""The whole house: two demo replicas, a prober and a router, all real, and a client that was not written here.

Used as the fixture `fleet`: one a module, since most of its price is the starts of its processes. Whatever a test does
to it, the next one finds it as it was at first (`mend`).
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sqlite3
import time
import urllib.error
import urllib.request
from asyncio import timeout
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.ports import free_port
from tests.processes import BIN, SQLITE, Running, manage, managing, migrated, running, wait_until

INIT = {"type": "session_init_v2", "curated_prompts": ["a fox in the snow"], "stream_mode": "av_fmp4"}
HEALTH = "  health_check: {path: /readyz, interval_seconds: 0.3, timeout_seconds: 1, failure_threshold: 2}\n"
OPERATOR, PASSWORD = "ops", "operator-1"
AT_FIRST = {
    name: {
        "status": "healthy",
        "state": "active",
        "primary": name == "a",
        "ejected": False,
        "full": False,
        "sessions": 0,
    }
    for name in ("a", "b")
}


class Fleet:
    """`a` is the primary. `replicas`: their processes, by name."""

    def __init__(self, var: Path, stack: contextlib.ExitStack) -> None:
        self.var, self._stack = var, stack
        self.port, self.ports = free_port(), {"a": free_port(), "b": free_port()}
        self.replicas = dict[str, Running]()
        self._as_usual = set[str]()  # of the replicas: those that were started without options
        self._signs_in = False
        file = var / "replicas.yaml"
        file.write_text(
            f"router:\n  port: {self.port}\n  replicas:\n"
            f"    - {{url: 'http://127.0.0.1:{self.ports['a']}/', name: a, primary: true, state: active}}\n"
            f"    - {{url: 'http://127.0.0.1:{self.ports['b']}', name: b, state: active}}\n" + HEALTH
        )
        migrated(var)
        self._load()
        command = [str(BIN / "daphne"), "-b", "127.0.0.1", "-p", str(self.port), "routerproject.asgi:application"]
        self.router = stack.enter_context(running("router", command, var))
        self._start_prober()
        self.mend()

    # --- what a test does to it ---

    def start_replica(self, name: str, *options: str) -> None:
        (self._as_usual.discard if options else self._as_usual.add)(name)
        arguments = ["rundemoreplica", "--name", name, "--port", str(self.ports[name]), "--segment-seconds", "0.5"]
        self.replicas[name] = self._stack.enter_context(managing(f"replica-{name}", [*arguments, *options], self.var))

    def kill(self, *names: str) -> None:
        for name in names:
            self.replicas[name].process.kill()
        for name in names:
            self.replicas[name].process.wait()

    def end_prober(self, number: int) -> None:
        """By SIGKILL or SIGSTOP; not while it writes: nobody takes SQLite's lock from a process that is stopped."""
        wait_until(lambda: self._ends_prober(number), what="a prober that does not write")

    def _ends_prober(self, number: int) -> bool:
        self.prober.process.send_signal(number)
        with contextlib.closing(sqlite3.connect(self.var / SQLITE, timeout=1)) as database:
            try:
                database.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                self.prober.process.send_signal(signal.SIGCONT)
                return False
        return True

    def operator(self) -> tuple[str, str]:
        """Name and password of one who may do everything."""
        if not self._signs_in:
            words = ("--noinput", "--username", OPERATOR, "--email", "")
            manage(self.var, "createsuperuser", *words, DJANGO_SUPERUSER_PASSWORD=PASSWORD)
            self._signs_in = True
        return OPERATOR, PASSWORD

    def mend(self) -> None:
        """As it was at first."""
        assert self.router.process.poll() is None, self.router.log
        if self.prober.process.poll() is not None:
            self._start_prober()
        self.prober.process.send_signal(signal.SIGCONT)
        for name in self.ports:
            if name not in self._as_usual or self.replicas[name].process.poll() is not None:
                if name in self.replicas:
                    self.kill(name)
                self.start_replica(name)
        edited = ("state", "primary")
        shown = wait_until(lambda: _try(self._shown), 60)
        if any(found[part] != AT_FIRST[name][part] for name, found in shown.items() for part in edited):
            self._load()
        wait_until(lambda: all(map(self._listens, self.ports)), 30, "both replicas")
        since = time.time()
        self.router.wait_until(lambda: _try(lambda: self._probed(since) and self._shown() == AT_FIRST), 60)

    # --- what it is ---

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, json.load(refused)

    def statuses(self) -> dict[str, str]:
        return {replica["name"]: replica["status"] for replica in self.get("/status")[1]["replicas"]}

    def wait_for_status(self, **expected: str) -> None:
        wait_until(lambda: _try(lambda: expected.items() <= self.statuses().items()), 60, f"{expected}")

    @contextlib.asynccontextmanager
    async def session(self, query: str = "") -> AsyncIterator[ClientConnection]:
        address = f"ws://127.0.0.1:{self.port}/v1/stream{query}"
        async with connect(address, max_size=None, proxy=None) as connection:
            with contextlib.suppress(ConnectionClosed):  # the router may have said all that it has to say
                await connection.send(json.dumps(INIT))
            yield connection

    def _shown(self) -> dict[str, dict[str, Any]]:
        replicas = self.get("/status")[1]["replicas"]
        return {each["name"]: {part: each[part] for part in AT_FIRST["a"]} for each in replicas}

    def _listens(self, name: str) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.ports[name]), timeout=2):
            return True
        return False

    def _probed(self, since: float) -> bool:
        return all((each["checked_at"] or 0) > since for each in self.get("/status")[1]["replicas"])

    def _load(self) -> None:
        manage(self.var, "loadreplicas", str(self.var / "replicas.yaml"))

    def _start_prober(self) -> None:
        self.prober = self._stack.enter_context(managing("prober", ["runhealthchecks"], self.var))


@contextlib.contextmanager
def running_fleet(var: Path) -> Iterator[Fleet]:
    with contextlib.ExitStack() as stack:
        yield Fleet(var, stack)


def _try(ask: Any) -> Any:
    with contextlib.suppress(OSError, KeyError):  # not yet, or its database is busy with the other processes' starts
        return ask()
    return None


async def next_message(connection: ClientConnection, kind: str) -> dict[str, Any]:
    """The next message of that type; others, and video, are passed over."""
    async with timeout(20):
        while True:
            received = await connection.recv()
            if isinstance(received, str) and (message := json.loads(received))["type"] == kind:
                return message


async def replica_of(connection: ClientConnection) -> str:
    gpu: str = (await next_message(connection, "gpu_assigned"))["gpu_id"]
    return gpu.partition("/")[0]

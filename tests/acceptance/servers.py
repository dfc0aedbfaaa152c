"""The router as a real server process, and the table of replicas that it reads.

Used by the session tests, which run on daphne (raw frames) and on uvicorn (ASGI messages) alike. A router's database is
a file of its own; replicas are put there as the prober would have left them, so that a test need not wait for probes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections
from django.utils import timezone
from pytest_django.plugin import DjangoDbBlocker

from replicas.models import Replica, ReplicaHealth
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
MAX_MESSAGE_BYTES = 48 * 1024 * 1024

COMMANDS = {
    "daphne": ["daphne", "-b", "127.0.0.1", "-p", "{port}", "routerproject.asgi:application"],
    # The options that README.md names for uvicorn.
    "uvicorn": [
        "uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--ws-max-size", str(MAX_MESSAGE_BYTES),
        "--ws-per-message-deflate", "false", "--no-proxy-headers", "--log-level", "warning",
        "routerproject.asgi:application",
    ],
}  # fmt: skip


@dataclass
class Router:
    """One running router process."""

    server: str
    port: int
    process: subprocess.Popen[bytes]
    log_path: Path
    database: Path
    blocker: DjangoDbBlocker

    @property
    def stream_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/stream"

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    async def place(self, *urls: str, status: str = "healthy") -> None:
        """Make these the replicas, the first one the primary, with `status` as the prober's verdict on all."""
        await sync_to_async(self._place, thread_sensitive=False)(urls, status)

    def _place(self, urls: tuple[str, ...], status: str) -> None:
        now = timezone.now()
        alias = f"router-{self.port}"
        connections.databases[alias] = connections.databases["default"] | {"NAME": str(self.database)}
        with self.blocker.unblock():
            try:
                Replica.objects.using(alias).all().delete()
                for index, url in enumerate(urls):
                    replica = Replica(name=f"replica-{index}", url=url, primary=index == 0)
                    replica.save(using=alias)
                    ReplicaHealth(replica=replica, url=url, status=status, checked_at=now).save(using=alias)
            finally:
                connections[alias].close()
                del connections.databases[alias]


def environment(var: Path, **changes: str) -> dict[str, str]:
    """The environment of a router process: this one's without its router settings, and with a var folder of its own."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("ROUTER_", "DATABASE_", "REDIS_"))
    }
    return kept | {"ROUTER_VAR_DIR": str(var), "DJANGO_SETTINGS_MODULE": "routerproject.settings"} | changes


def manage(var: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT, env=environment(var, **changes), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip


@contextlib.contextmanager
def running_router(server: str, var: Path, blocker: DjangoDbBlocker, **settings: Any) -> Iterator[Router]:
    """A migrated router under `server` (a key of COMMANDS); ended with SIGTERM, and its log shown where it failed."""
    settings = {name: str(value) for name, value in settings.items()}
    manage(var, "migrate", "--verbosity", "0", **settings)
    port, log_path = free_port(), var / f"{server}.log"
    command = [part.format(port=port) for part in COMMANDS[server]]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]], cwd=ROOT, env=environment(var, **settings), stdout=log, stderr=log
        )
    router = Router(server, port, process, log_path, var / "router.sqlite3", blocker)
    try:
        _wait_until_it_answers(router)
        yield router
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_it_answers(router: Router) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if router.process.poll() is not None:
            raise AssertionError(f"{router.server} ended at its start:\n{router.log}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", router.port), timeout=2):
            return
        time.sleep(0.05)
    raise AssertionError(f"{router.server} does not answer:\n{router.log}")

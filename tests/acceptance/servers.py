"""The router as a real server process, and the table of replicas that it reads.

Used by the session tests, which run on daphne (raw frames) and on uvicorn (ASGI messages) alike. A router's database is
a file of its own; replicas are put there as the prober would have left them, so that a test need not wait for probes.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections, transaction
from django.utils import timezone
from pytest_django.plugin import DjangoDbBlocker

from replicas.models import Replica, ReplicaHealth, RouterSettings
from tests.acceptance.moments import Moment
from tests.ports import free_port
from tests.processes import BIN, SQLITE, Running, migrated, running

MAX_MESSAGE_BYTES = 48 * 1024 * 1024

APPLICATION = "routerproject.asgi:application"
COMMANDS = {
    "daphne": ["daphne", "-b", "127.0.0.1", "-p", "{port}"],
    # The options that README.md names for uvicorn.
    "uvicorn": [
        "uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--ws-max-size", str(MAX_MESSAGE_BYTES),
        "--ws-per-message-deflate", "false", "--no-proxy-headers", "--no-access-log",
        "--timeout-graceful-shutdown", "5",
    ],
}  # fmt: skip

# For tests whose replicas live in their own busy process, and that are not about slow ones.
PATIENT = {"ROUTER_CONNECT_TIMEOUT_SECONDS": "60", "ROUTER_FAILOVER_TIMEOUT_SECONDS": "300"}

LISTENS = {"daphne": "Listening on TCP", "uvicorn": "Uvicorn running on"}


@dataclass
class Router:
    """One running router process."""

    server: str
    port: int
    process: Running
    database: Path
    blocker: DjangoDbBlocker

    @property
    def stream_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/stream"

    @property
    def log(self) -> str:
        return self.process.log

    def moment(self) -> Moment:
        """Now, as the beginning of what this router does."""
        return Moment(self.process.pid)

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=2):
            return True
        return False

    async def place(self, *urls: str, status: str = "healthy", **settings: Any) -> None:
        """Make these the replicas, the first one the primary, with `status` as the prober's verdict on all.

        `settings`: fields of RouterSettings; the others have their defaults.
        """
        await sync_to_async(self._place, thread_sensitive=False)(urls, status, settings)

    def _place(self, urls: tuple[str, ...], status: str, settings: dict[str, Any]) -> None:
        alias = f"router-{self.port}"
        connections.databases[alias] = connections.databases["default"] | {"NAME": str(self.database)}
        with self.blocker.unblock():
            try:
                with transaction.atomic(using=alias):  # a router may be reading, for one who waits
                    self._replace(alias, urls, status, settings)
            finally:
                connections[alias].close()
                del connections.databases[alias]

    @staticmethod
    def _replace(alias: str, urls: tuple[str, ...], status: str, settings: dict[str, Any]) -> None:
        Replica.everything.using(alias).all().delete()
        RouterSettings.objects.using(alias).all().delete()
        RouterSettings(pk=1, **settings).save(using=alias)
        for index, url in enumerate(urls):
            replica = Replica(name=f"replica-{index}", url=url, primary=index == 0)
            replica.save(using=alias)
            ReplicaHealth(replica=replica, url=url, status=status, checked_at=timezone.now()).save(using=alias)


@contextlib.contextmanager
def running_router(
    server: str,
    var: Path,
    blocker: DjangoDbBlocker,
    *,
    options: Sequence[str] = (),
    command: Sequence[str] | None = None,
    pass_fds: Sequence[int] = (),
    **settings: Any,
) -> Iterator[Router]:
    """A migrated router under `server` (a key of COMMANDS); ended with the block.

    `options` go to the server too; `command` is one to take instead, for other endpoints than a port.
    """
    migrated(var, **settings)
    port = free_port()
    program, *arguments = [part.format(port=port) for part in command or COMMANDS[server]]
    line = [str(BIN / program), *arguments, *options, APPLICATION]
    with running(server, line, var, pass_fds, **settings) as process:
        router = Router(server, port, process, var / SQLITE, blocker)
        if command:
            yield router
            return
        process.wait_for(LISTENS[server])  # another server's answer would not do
        process.wait_until(router.answers)
        yield router

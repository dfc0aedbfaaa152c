"""Router processes on one database, as one host or many would run them, and what a test reads and edits there.

Used by the placement tests as `with running_cluster(var, blocker, processes=2) as cluster:`. Replicas are put into the
database as the prober would have left them. Must not reach into the processes: what it knows of them is in the tables.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import connections, transaction
from django.utils import timezone
from pytest_django.plugin import DjangoDbBlocker

from api.models import ApiToken, Scope
from proxy.models import LIVE, RouterProcess, Session
from replicas import tokens
from replicas.models import PlacementRecord, Replica, ReplicaHealth, RouterSettings
from routerproject.databases import from_url
from tests.acceptance.servers import APPLICATION, Router
from tests.ports import free_port
from tests.processes import BIN, SQLITE, migrated, running
from tests.slotted_replica import SlottedReplica

T = TypeVar("T")
_aliases = itertools.count()


class Cluster:
    """`settings`: the environment that all processes share. `routers`: those that were started."""

    def __init__(self, var: Path, blocker: DjangoDbBlocker, settings: dict[str, Any]) -> None:
        self.var, self.settings = var, settings
        self.routers: list[Router] = []
        self._blocker = blocker
        self._alias = f"cluster-{next(_aliases)}"
        self._numbers = itertools.count()
        self._running = contextlib.ExitStack()
        url = settings.get("DATABASE_URL")
        ours = from_url(url) if url else {"NAME": str(var / SQLITE)}
        self._database = connections.databases["default"] | ours
        migrated(var, **settings)

    # --- processes ---

    def start(
        self, *, ready: bool = True, fd: int | None = None, through: Sequence[str] = (), **settings: Any
    ) -> Router:
        """One more process, with `settings` on top of the shared ones. Without `ready` it is not waited for.

        `fd`: a listening socket to take instead of a port of its own. `through`: a command that runs daphne's.
        """
        port = free_port() if fd is None else _port_of(fd)
        endpoint = ["-b", "127.0.0.1", "-p", str(port)] if fd is None else ["--fd", str(fd)]
        line = [*through, str(BIN / "daphne"), *endpoint, APPLICATION]
        name, fds = f"router-{next(self._numbers)}", [] if fd is None else [fd]
        process = self._running.enter_context(running(name, line, self.var, fds, **self.settings | settings))
        router = Router("daphne", port, process, self.var / SQLITE, self._blocker)
        self.routers.append(router)
        if ready:
            self._wait_ready(router)
        return router

    def start_many(self, count: int) -> None:
        """Side by side: most of a start is imports."""
        for router in [self.start(ready=False) for _ in range(count)]:
            self._wait_ready(router)

    def _wait_ready(self, router: Router) -> None:
        router.process.wait_for("Listening on TCP")

    def end(self) -> None:
        self._running.close()

    # --- the database ---

    async def ask(self, work: Callable[[str], T]) -> T:
        """`work` in a thread; it gets the alias of the cluster's database."""
        return await sync_to_async(self._ask, thread_sensitive=False)(work)

    def _ask(self, work: Callable[[str], T]) -> T:
        connections.databases[self._alias] = dict(self._database)
        with self._blocker.unblock():
            try:
                return work(self._alias)
            finally:
                connections[self._alias].close()

    def do(self, work: Callable[[str], T]) -> T:
        """The same, from a fixture."""
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(self._ask, work).result()

    async def until(self, work: Callable[[str], Any], seconds: float = 10, what: str = "the rows") -> None:
        """Until `work` gives something true; an AssertionError after `seconds`."""
        deadline = time.monotonic() + seconds
        while not await self.ask(lambda db: bool(work(db))):
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
            await asyncio.sleep(0.05)

    async def place(self, *replicas: SlottedReplica | str, primary: bool = True, status: str = "healthy") -> None:
        """When no session lives: make these the replicas, `status` the prober's verdict; the first is the primary."""
        await self.empty()
        await self.ask(lambda db: self._place(db, replicas, primary, status))

    def _place(self, db: str, replicas: tuple[SlottedReplica | str, ...], primary: bool, status: str) -> None:
        Replica.everything.using(db).all().delete()
        for index, found in enumerate(replicas):
            url, slots = (found, None) if isinstance(found, str) else (found.url, found.slots)
            replica = Replica(name=f"replica-{index}", url=url, primary=primary and index == 0, max_sessions=slots)
            replica.save(using=db)
            ReplicaHealth(replica=replica, url=url, status=status, checked_at=timezone.now()).save(using=db)

    async def configure(self, **fields: Any) -> None:
        """What RouterSettings say; what is not named has its default again."""
        await self.ask(lambda db: self._configure(db, fields))

    def _configure(self, db: str, fields: dict[str, Any]) -> None:
        with transaction.atomic(using=db):
            RouterSettings.objects.using(db).all().delete()
            RouterSettings(pk=1, **fields).save(using=db)

    async def edit(self, replica: SlottedReplica, **fields: Any) -> None:
        """Change a replica's row."""
        changed = await self.ask(lambda db: Replica.objects.using(db).filter(url=replica.url).update(**fields))
        assert changed == 1

    async def observe(self, replica: SlottedReplica, status: str) -> None:
        """What the prober says of it now."""
        rows = ReplicaHealth.objects
        changed = await self.ask(
            lambda db: rows.using(db).filter(url=replica.url).update(status=status, checked_at=timezone.now())
        )
        assert changed == 1

    async def observe_first(self, replica: SlottedReplica, status: str) -> None:
        """The same of one that the prober has not seen yet."""
        now = timezone.now()

        def see(db: str) -> None:
            row = Replica.objects.using(db).get(url=replica.url)
            ReplicaHealth(replica=row, url=row.url, status=status, checked_at=now).save(using=db)

        await self.ask(see)

    def let_in(self, token: str, scope: Scope, name: str = "deploy") -> None:
        """Make it an API token of somebody who may do everything."""

        def make(db: str) -> None:
            user = User.objects.db_manager(db).create_superuser("ops")
            kept = {"digest": tokens.digest(token), "beginning": tokens.beginning(token)}
            ApiToken.objects.using(db).create(user=user, scope=scope, name=name, **kept)

        self.do(make)

    async def forget_outcomes(self) -> None:
        """What sessions have found out about replicas: ejections, rejections."""
        await self.ask(lambda db: PlacementRecord.objects.using(db).all().delete())

    async def live(self) -> list[Session]:
        """All live sessions, in order of arrival."""
        return await self.ask(lambda db: list(Session.objects.using(db).filter(LIVE).order_by("id")))

    async def last_id(self) -> int:
        """The newest session's, so that a test can tell its own."""
        newest = await self.ask(lambda db: Session.objects.using(db).order_by("-id").first())
        return newest.pk if newest else 0

    async def since(self, id: int) -> list[Session]:
        """Sessions that came after `id`, in order of arrival."""
        return await self.ask(lambda db: list(Session.objects.using(db).filter(pk__gt=id).order_by("id")))

    async def processes(self) -> list[RouterProcess]:
        return await self.ask(lambda db: list(RouterProcess.objects.using(db).order_by("id")))

    async def beats(self, count: int) -> None:
        """Until every process has counted up by so many seconds' worth; two, and it has read what was configured."""
        before = {row.pk: row.beat for row in await self.processes() if row.ended_at is None}

        def counted(db: str) -> bool:
            rows = RouterProcess.objects.using(db).filter(pk__in=before)
            return all(row.beat >= before[row.pk] + count for row in rows)

        await self.until(counted, 3 * count, "beats of every process")

    async def row_of(self, router: Router) -> RouterProcess:
        """A process's own row."""
        return next(row for row in await self.processes() if row.name.endswith(f":{router.process.pid}"))

    async def empty(self, seconds: float = 10) -> None:
        """Until no session lives any more."""
        await self.until(
            lambda db: not Session.objects.using(db).filter(LIVE).exists(), seconds, "the end of all sessions"
        )


def _port_of(fd: int) -> int:
    with socket.socket(fileno=os.dup(fd)) as listening:
        port: int = listening.getsockname()[1]
        return port


@contextlib.contextmanager
def running_cluster(var: Path, blocker: DjangoDbBlocker, *, processes: int = 1, **settings: Any) -> Iterator[Cluster]:
    """So many daphne processes, each on a port of its own, on SQLite unless DATABASE_URL says otherwise."""
    cluster = Cluster(var, blocker, settings)
    try:
        cluster.start_many(processes)
        yield cluster
    finally:
        cluster.end()

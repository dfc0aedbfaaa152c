"""The one reader of a process: it keeps the state that all its watchers are shown, and works only while there are any.

consumers.py watches; views.py asks for the state where a page polls. The database away, the reader tries on and says
nothing: the pages see by themselves that nothing comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

from django.conf import settings
from django.db import Error as DatabaseFault
from django.db import OperationalError

from dashboard.database import in_time
from dashboard.snapshot import read_state
from replicas.database import Database

logger = logging.getLogger("dashboard")

READ_SECONDS = 1.0
# Who polls shares what was read so short a time ago.
SHARED_SECONDS = 1.0


class Reader:
    """Of one event loop. `state`: as last read; None: not yet."""

    def __init__(self) -> None:
        self.state: dict[str, Any] | None = None
        self._read_at = 0.0
        self._watchers: set[asyncio.Event] = set()
        self._task: asyncio.Task[None] | None = None
        self._asked = asyncio.Lock()

    @contextlib.contextmanager
    def watching(self) -> Iterator[asyncio.Event]:
        """Within it `state` is read again and again; the event is set whenever it was."""
        news = asyncio.Event()
        self._watchers.add(news)
        if self.state is not None and asyncio.get_running_loop().time() - self._read_at <= SHARED_SECONDS:
            news.set()
        if self._task is None:
            self._task = asyncio.create_task(self._read_on(), name="dashboard: read")
        try:
            yield news
        finally:
            self._watchers.discard(news)
            if not self._watchers and self._task is not None:
                self._task.cancel()
                self._task = None

    async def recent(self) -> dict[str, Any]:
        """The state of this second. Raises a database's fault, in the time of one look also where many ask."""
        try:
            async with asyncio.timeout(settings.DATABASE_TIMEOUT_SECONDS), self._asked:
                loop = asyncio.get_running_loop()
                if self.state is None or loop.time() - self._read_at > SHARED_SECONDS:
                    self._keep(await in_time(read_state))
                assert self.state is not None
                return self.state
        except TimeoutError as late:
            raise OperationalError("no answer in time") from late

    def _keep(self, state: dict[str, Any]) -> None:
        self.state, self._read_at = state, asyncio.get_running_loop().time()
        for news in self._watchers:
            news.set()

    async def _read_on(self) -> None:
        # A thread and a connection that are kept while somebody watches.
        database, loop = Database("dashboard-reader", "dashboard"), asyncio.get_running_loop()
        try:
            while True:
                began = loop.time()
                try:
                    self._keep(await database(read_state))
                except DatabaseFault:
                    pass  # logged
                except Exception:
                    logger.exception("dashboard: fault of the router; it reads again")
                took = loop.time() - began
                # At most half of the time, however large the fleet: the frames' thread needs the same interpreter.
                await asyncio.sleep(max(READ_SECONDS - took, took))
        finally:
            await database.close()


_readers: WeakKeyDictionary[asyncio.AbstractEventLoop, Reader] = WeakKeyDictionary()


def reader() -> Reader:
    """The running loop's: one a process; tests have a loop each."""
    loop = asyncio.get_running_loop()
    if loop not in _readers:
        _readers[loop] = Reader()
    return _readers[loop]

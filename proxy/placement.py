"""Which replicas may take a session now, read from the database.

Called by search.py, at each search for a replica. Has its own thread and connection: a slow query of the admin never
delays a placement, and the event loop never waits for the database.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, connection
from django.utils import timezone

from proxy.selection import Candidate, rank
from replicas.models import Replica, RouterSettings

# One thread: a second one would only wait for SQLite's lock, and PostgreSQL answers in a millisecond.
_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="placement")


class DatabaseAway(Exception):
    """The database did not answer within DATABASE_TIMEOUT_SECONDS, or answered with an error."""


class _Read:
    """One reading of the database, for all that ask before it begins."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.begun = False
        self.result = loop.run_in_executor(_thread, self._run)

    def _run(self) -> list[Candidate]:
        self.begun = True
        return _read()


_latest: _Read | None = None


async def ranked_replicas() -> list[Candidate]:
    """The replicas a session may go to, best first; empty when there is none. Raises DatabaseAway.

    All that ask while one reading runs share the next one: a storm of clients costs two readings, not one each.
    """
    global _latest
    loop = asyncio.get_running_loop()
    if _latest is None or _latest.begun or _latest.loop is not loop:
        _latest = _Read(loop)
    try:
        async with asyncio.timeout(settings.DATABASE_TIMEOUT_SECONDS):
            return list(await asyncio.shield(_latest.result))
    except (DatabaseError, InterfaceError, TimeoutError) as error:
        raise DatabaseAway from error


def _read() -> list[Candidate]:
    try:
        return rank(_candidates())
    except (OperationalError, InterfaceError):
        # The connection may have died since the last session (a restarted PostgreSQL): once more on a new one.
        connection.close()
    try:
        return rank(_candidates())
    except DatabaseError:
        connection.close()
        raise


def _candidates() -> list[Candidate]:
    now, stale_after = timezone.now(), RouterSettings.current().stale_after
    return [
        Candidate(
            id=replica.pk,
            name=replica.name,
            url=replica.url,
            primary=replica.primary,
            available=replica.available,
            stale=replica.is_stale(now, stale_after),
        )
        for replica in Replica.objects.with_health()
    ]

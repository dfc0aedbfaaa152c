"""Database work of pages: in threads of their own, and never longer than anyone waits.

Not those that placement, /status or the admin use: an operator's look at a large table delays no session, and tells no
load balancer that this process is dead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.conf import settings
from django.db import Error as DatabaseFault
from django.db import OperationalError, connection

Result = TypeVar("Result")

# Two, so that one slow look does not stop all others.
_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="dashboard")


async def in_time(work: Callable[[], Result], threads: ThreadPoolExecutor = _threads, *, keep: bool = False) -> Result:
    """What `work` gives. Raises its exception, or OperationalError when it is late: then it may still be done.

    `keep`: its thread's connection stays open for the next, for work that comes often.
    """
    try:
        async with asyncio.timeout(settings.DATABASE_TIMEOUT_SECONDS):
            return await asyncio.get_running_loop().run_in_executor(threads, _kept if keep else _alone, work)
    except TimeoutError as late:
        raise OperationalError("no answer in time") from late


def _alone(work: Callable[[], Result]) -> Result:
    try:
        return work()
    finally:
        connection.close()  # people look seldom, and a kept connection may have died since


def _kept(work: Callable[[], Result]) -> Result:
    if connection.connection is not None and not connection.is_usable():
        connection.close()  # it has died since
    try:
        return work()
    except DatabaseFault:
        connection.close()
        raise

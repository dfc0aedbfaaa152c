"""The API's database work: in threads of its own, so that a program that asks a lot keeps no operator waiting."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from dashboard import database

Result = TypeVar("Result")

_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="api")
# Those that sign in and ask for tickets: their many do not wait for a slow list. Their connections stay open: a wrong
# token costs a look-up, not a new connection, so that a stranger who tries many holds out no renewal.
_signing_in = ThreadPoolExecutor(max_workers=2, thread_name_prefix="api-tokens")


async def in_time(work: Callable[[], Result]) -> Result:
    """As dashboard.database.in_time: raises OperationalError when it is late."""
    return await database.in_time(work, _threads)


async def signed_in(work: Callable[[], Result]) -> Result:
    """The same for looking up who asks."""
    return await database.in_time(work, _signing_in, keep=True)

"""Host names for probes: at most one look-up of a name at a time, in a thread that nobody waits for at the end.

Made the default executor of the loops that probe (asyncio resolves names there). A look-up cannot be interrupted: with
a pool, those of a name that hangs would pile up, round after round, until no other name is resolved.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from replicas.worker import Worker


class Resolver(ThreadPoolExecutor):
    """A thread a look-up. Who asks what is being asked already waits for that answer: threads are as many as names.

    A ThreadPoolExecutor in name only: asyncio takes no other.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pending: dict[tuple[Any, ...], Future[Any]] = {}
        self._lock = threading.Lock()

    def submit(self, look_up: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        key = (look_up, *args)
        with self._lock:
            pending = self._pending.get(key)
            if pending is None:
                worker = Worker("name look-up")
                pending = self._pending[key] = worker.submit(partial(look_up, *args, **kwargs))
                pending.add_done_callback(lambda _: self._pending.pop(key))
                worker.stop()
            return pending

    def is_asking(self, host: str) -> bool:
        """Has a look-up of `host` not come back?"""
        return any(name in (host, host.encode()) for key in list(self._pending) for name in key[1:2])

    def use(self) -> None:
        """From now on names are looked up here in the running loop."""
        asyncio.get_running_loop().set_default_executor(self)


RESOLVER = Resolver()  # one a process: its loops come and go, a look-up that hangs stays

"""A thread of one's own that the end of the process does not wait for.

Used by database.py, for calls that nothing can interrupt: a database that hangs must not hold up SIGTERM. The threads
of concurrent.futures are joined at exit, by asyncio and by Python itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

_here = threading.local()


def given_up() -> bool:
    """Asked within a job: has its owner stopped waiting for it? Then it must not begin what it has not begun."""
    worker: Worker | None = getattr(_here, "worker", None)
    return worker is not None and worker.abandoned


class Worker:
    """Runs what it is given, one after the other. Not bounded: its owner awaits what it submits."""

    def __init__(self, name: str) -> None:
        self.abandoned = False
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, job: Callable[[], Any]) -> Future[Any]:
        """What was given is done, even if nobody waits for it any more."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        self._jobs.put((future, job))
        return future

    def abandon(self) -> None:
        """`stop`, and nobody waits for the job under way."""
        self.abandoned = True
        self.stop()

    def stop(self) -> None:
        """End the thread when it has done what it was given; waits for nothing."""
        self._jobs.put(None)

    def _work(self) -> None:
        _here.worker = self
        while (given := self._jobs.get()) is not None:
            future, job = given
            try:
                future.set_result(job())
            except BaseException as error:  # it is the caller's
                future.set_exception(error)

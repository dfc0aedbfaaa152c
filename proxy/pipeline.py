"""What is said to PostgreSQL within a turn goes out in whole sets, and each set ends with its Sync.

Used by turn.py; the one module that knows psycopg's pipeline from inside. Only behind a Sync does the server know that
we think, and bounds it (idle_in_transaction_session_timeout). psycopg's own pipeline sends each statement as soon as it
is executed, its Sync later: who is stopped between the two (SIGSTOP, a paused machine) keeps the lock without a bound.
"""

from __future__ import annotations

import inspect

import psycopg
from psycopg.abc import PQGen

SEAMS = ("_communicate_gen", "_enqueue_sync", "_fetch_gen", "_sync_gen")


class InSets(psycopg.Pipeline):
    """Holds what is executed until rows are asked for, or the commit; then sends all of it, a Sync behind it, at once.

    It gathers in libpq's buffer, which `pipeline_sync` empties in one call to the kernel. A set of more than 64 KiB
    (hundreds of sessions) is sent in pieces of that size.
    """

    def _communicate_gen(self) -> PQGen[None]:
        if not self.command_queue:
            yield from super()._communicate_gen()

    def _enqueue_sync(self) -> None:
        super()._enqueue_sync()
        while self.command_queue:
            self.command_queue.popleft()()

    def _fetch_gen(self, *, flush: bool) -> PQGen[None]:
        if self.command_queue:
            yield from self._sync_gen()
        else:
            yield from super()._fetch_gen(flush=flush)


def in_sets(connection: psycopg.Connection) -> None:
    """The pipeline that `connection` begins next is one of these."""
    connection._pipeline = InSets(connection)


def seam_faults() -> list[str]:
    """What of psycopg is not as it was when this was written: then nothing here may be relied on."""
    return [
        f"psycopg {psycopg.__version__}: Pipeline.{name} is gone"
        for name in SEAMS
        if not inspect.isfunction(getattr(psycopg.Pipeline, name, None))
    ]

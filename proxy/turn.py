"""One at a time, over all processes: what reads who is where and writes it anew.

Called by settling.py and census.py, in the placement's thread. A turn is one transaction. Everything a turn has read
stays true until its end, because only turns write it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from django.conf import settings
from django.db import Error as DatabaseFault
from django.db import OperationalError, connection, transaction

from replicas.database import DEADLINE_SECONDS
from replicas.worker import given_up

# pg_advisory_xact_lock: any number that is nobody else's in this database.
ADVISORY_LOCK = 0x73_74_72_65_61_6D
LOCK = f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"
# From PostgreSQL 17 on: the server ends this transaction after so many milliseconds, whatever it waits for.
BOUNDED_LOCK = f"SELECT set_config('transaction_timeout', %s, true), pg_advisory_xact_lock({ADVISORY_LOCK})"
# Its two halves are how pg_locks shows it.
EVICT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity JOIN pg_locks USING (pid) JOIN pg_database ON oid = database
WHERE locktype = 'advisory' AND granted AND (classid, objid, objsubid) = (%s, %s, 1)
AND pg_database.datname = current_database() AND xact_start < clock_timestamp() - %s * interval '1 second'
"""

# SQLSTATE of who has waited in vain: lock_not_available, query_canceled.
WAITED_IN_VAIN = ("55P03", "57014")

# Of each process one waits in the kernel's line. It cannot be interrupted: were it given up and another came after it,
# and another, each would be a thread and a descriptor for as long as a turn stands still.
_kernels_line = threading.Lock()


@contextmanager
def turn() -> Iterator[None]:
    """Wait for our turn and begin a transaction. Raises a database's fault when it does not come in time."""
    if connection.vendor == "postgresql":
        with _evicting(), transaction.atomic():
            # The server hands it on in order of arrival, and at the latest when our connection is lost.
            _lock().rows()
            refuse_what_was_given_up()
            yield
    else:
        with _file_lock(), transaction.atomic():
            refuse_what_was_given_up()
            yield


@contextmanager
def brief_turn() -> Iterator[None]:
    """A turn whose statements go to a server together, each with all before it that nobody has asked the rows of.

    So a turn has few round trips: to the first rows that are read, to the ids of new rows, and to the commit. How
    many rows a statement has changed is not known within it, and whether this turn was given up is asked by
    `refuse_what_was_given_up`, after rows were read.
    """
    if connection.vendor == "postgresql":
        from proxy.pipeline import in_sets  # with SQLite alone psycopg is not loaded

        connection.ensure_connection()
        in_sets(connection.connection)
        with (
            _evicting(),
            connection.wrap_database_errors,
            connection.connection.pipeline(),
            transaction.atomic(),
        ):
            _lock()
            yield
    else:
        with turn():
            yield


def _lock() -> Asked:
    if cast("Any", connection).pg_version >= 17_00_00:
        return Asked(BOUNDED_LOCK, [str(int(DEADLINE_SECONDS * 1000))])
    return Asked(LOCK)


@contextmanager
def _evicting() -> Iterator[None]:
    """Who has waited in vain ends the turn of one that stands still, for all who come after.

    The server's own bound (idle_in_transaction_session_timeout) begins with our Sync. Whose connection is cut while a
    set of statements is under way (pipeline.py) has none before PostgreSQL 17. Nobody works that long: after
    DEADLINE_SECONDS its own process gives a turn up.
    """
    try:
        yield
    except OperationalError as fault:
        if getattr(fault.__cause__, "sqlstate", None) in WAITED_IN_VAIN:  # else the server has other troubles
            with contextlib.suppress(DatabaseFault), connection.cursor() as cursor:
                cursor.execute(EVICT, [*divmod(ADVISORY_LOCK, 2**32), DEADLINE_SECONDS])
        raise


class Asked:
    """A statement in SQL that was sent to the database, or will be with the next whose rows are read.

    What runs in each turn is written in SQL: to make such a statement from a query costs Django several times what the
    database takes for it, and all other processes wait for this turn.
    """

    def __init__(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        self._cursor = connection.cursor()
        self._cursor.execute(statement, parameters)

    def rows(self) -> list[Any]:
        with self._cursor:
            return cast("list[Any]", self._cursor.fetchall())


def refuse_what_was_given_up() -> None:
    """Another turn has done the same since, or will: what came later must not be overwritten by what came before.

    Asked with the lock: a turn that is given up after this ends before the one that repeats it begins.
    """
    if given_up():
        raise OperationalError("the turn came after it was given up")


@contextmanager
def _file_lock() -> Iterator[None]:
    """Wait in the kernel's line for SQLite's write lock: SQLite's own busy handler sleeps and loses to newcomers.

    Only order: BEGIN IMMEDIATE is the lock, and it alone keeps others out.
    """
    path = Path(str(connection.settings_dict["NAME"]))
    if not path.is_absolute():  # in memory, as in tests
        yield
        return
    try:
        fd = os.open(f"{path}-turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as fault:  # no descriptors, no space: over in a moment, like a database's own
        raise OperationalError(f"{path}-turn: {fault.strerror}") from fault
    try:
        if not _kernels_line.acquire(timeout=settings.DATABASE_TIMEOUT_SECONDS):
            raise OperationalError("the turn before this one still waits for its own")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        finally:
            _kernels_line.release()
        yield
    finally:
        os.close(fd)

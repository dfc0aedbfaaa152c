"""One at a time, over all processes: what reads who is where and writes it anew.

Called by settling.py and census.py, in the placement's thread. A turn is one transaction. Everything a turn has read
stays true until its end, because only turns write it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from django.db import OperationalError, connection, transaction

from replicas.worker import given_up

# pg_advisory_xact_lock: any number that is nobody else's in this database.
LOCK = "SELECT pg_advisory_xact_lock(%s)"
ADVISORY_LOCK = 0x73_74_72_65_61_6D


@contextmanager
def turn() -> Iterator[None]:
    """Wait for our turn and begin a transaction. Raises a database's fault when it does not come in time."""
    if connection.vendor == "postgresql":
        with transaction.atomic():
            # The server hands it on in order of arrival, and at the latest when our connection is lost.
            Asked(LOCK, [ADVISORY_LOCK]).rows()
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
        connection.ensure_connection()
        with connection.wrap_database_errors, connection.connection.pipeline(), transaction.atomic():
            Asked(LOCK, [ADVISORY_LOCK])
            yield
    else:
        with turn():
            yield


class Asked:
    """A statement in SQL that was sent to the database, or will be with the next whose rows are read.

    What runs in each turn is written in SQL: to make such a statement from a query costs Django several times what the
    database takes for it, and all other processes wait for this turn.
    """

    def __init__(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        self._cursor = connection.cursor()
        self._cursor.execute(statement, parameters)

    def rows(self) -> list[Any]:
        pipeline = getattr(connection.connection, "_pipeline", None)  # SQLite's connection has none
        with self._cursor:
            if pipeline is not None:
                # Only so does the server know that we think, and bounds it: who stands still loses its turn.
                pipeline.sync()
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
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)

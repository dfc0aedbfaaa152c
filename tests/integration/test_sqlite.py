"""SQLite as settings.py sets it up, with its bounded second try (routerproject/sqlite3)."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.db import OperationalError, connection, transaction

from replicas.models import Replica

pytestmark = pytest.mark.django_db(transaction=True)


@contextlib.contextmanager
def locked() -> Iterator[sqlite3.Connection]:
    """Another process's write lock."""
    with contextlib.closing(
        sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None, check_same_thread=False)
    ) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other
        if other.in_transaction:
            other.execute("ROLLBACK")


def _nothing() -> None:
    """BEGIN takes the lock, whatever comes after it."""


def _add() -> None:
    Replica.objects.create(url="http://a")


def test_it_writes_ahead_and_locks_at_the_beginning() -> None:
    """WAL, so that readers never wait; IMMEDIATE, so that check-then-write is safe."""
    with connection.cursor() as cursor:
        assert cursor.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.transaction_mode == "IMMEDIATE"


def test_readers_do_not_wait_for_a_writer() -> None:
    """A placement reads while the prober, or an operator, writes."""
    with locked():
        started = time.monotonic()
        assert Replica.objects.count() == 0
        assert time.monotonic() - started < 0.5


@pytest.mark.parametrize("in_transaction", [True, False])
def test_a_lock_that_stays_is_an_error_within_the_bound(in_transaction: bool) -> None:
    """More than one try, DATABASE_TIMEOUT_SECONDS for all of them; and the next begins with as long a first one."""
    with locked():
        started = time.monotonic()
        write = transaction.atomic(_nothing) if in_transaction else _add
        with pytest.raises(OperationalError, match="locked"):
            write()
        took = time.monotonic() - started
    assert settings.DATABASE_TIMEOUT_SECONDS - 0.1 < took < settings.DATABASE_TIMEOUT_SECONDS + 0.5
    with connection.cursor() as cursor:
        assert cursor.execute("PRAGMA busy_timeout").fetchone() == (1000,)


def test_a_lock_that_goes_is_waited_for() -> None:
    """Also longer than SQLite's own second, to the end of the bound."""
    with locked() as other:
        release = threading.Timer(2.2, other.execute, ["ROLLBACK"])
        release.start()
        Replica.objects.create(url="http://a")
        release.join()
    assert Replica.objects.count() == 1

"""Both databases under the code under test, in this process: every thread's `connection` leads to the one that is set.

Used by conftest.py's fixture `database`. Beside pytest-django's own test database, which is SQLite alone, and whose
transactions a test with several connections must not have.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from django.apps import apps
from django.core.management import call_command
from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper

Result = TypeVar("Result")
ROOMS = ("proxy", "replicas")


@contextlib.contextmanager
def pointed_at(config: dict[str, Any]) -> Iterator[None]:
    """Django's default database is the one of `config` (as databases.py makes it), in all threads."""
    before = connections.settings["default"]
    mine = connections["default"]
    connections.settings["default"] = connections.configure_settings({"default": dict(config)})["default"]
    del connections["default"]
    try:
        yield
    finally:
        connections["default"].close()
        connections.settings["default"] = before
        connections["default"] = mine


def prepare(config: dict[str, Any]) -> None:
    """Make its tables."""
    with pointed_at(config):
        call_command("migrate", verbosity=0)


def empty() -> None:
    """Take all rows of ours out; ids go on."""
    tables = [model._meta.db_table for room in ROOMS for model in apps.get_app_config(room).get_models()]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f"TRUNCATE {', '.join(tables)}")
            return
        cursor.execute("PRAGMA foreign_keys = OFF")
        for table in tables:
            cursor.execute(f"DELETE FROM {table}")  # noqa: S608
        cursor.execute("PRAGMA foreign_keys = ON")


def apart(work: Callable[[], Result]) -> Result:
    """`work`, and then the end of its thread's connection: for threads that end."""
    try:
        return work()
    finally:
        connection.close()


def at_once(works: Sequence[Callable[[], Result]]) -> list[Result]:
    """Each in a thread with a connection of its own, all let go in one moment; what they gave, or the first fault."""
    start = threading.Barrier(len(works))

    def run(work: Callable[[], Result]) -> Result:
        connection.ensure_connection()
        start.wait(30)
        return work()

    with ThreadPoolExecutor(len(works)) as threads:
        futures = [threads.submit(apart, lambda work=work: run(work)) for work in works]
        return [future.result() for future in futures]


@contextlib.contextmanager
def another_connection() -> Iterator[BaseDatabaseWrapper]:
    """As another process has it."""
    other = connections.create_connection("default")
    other.inc_thread_sharing()
    try:
        yield other
    finally:
        other.close()


def plan(queries: Iterable[str]) -> str:
    """How the database would run `queries`, as it says itself."""
    lines = []
    with connection.cursor() as cursor:
        for query in queries:
            cursor.execute(("EXPLAIN QUERY PLAN " if connection.vendor == "sqlite" else "EXPLAIN ") + query)
            lines += [str(row[-1]) for row in cursor.fetchall()]
    return "\n".join(lines)

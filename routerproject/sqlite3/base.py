"""Django's SQLite backend, with a bounded second try when another process holds the write lock.

Named by settings.py as the database engine. SQLite's busy handler sleeps in growing steps and can lose the lock to
newcomers again and again; a fresh try starts with short sleeps. Never retries inside a transaction: what ran there
before would be lost. BEGIN IMMEDIATE takes the lock, so nothing after it can find the database locked.
"""

from __future__ import annotations

import sqlite3
import time
from typing import Any

from django.conf import settings
from django.db.backends.sqlite3 import base
from django.db.backends.sqlite3.base import *  # noqa: F403  (Django looks names of a backend up in this module)


class RetryingCursor(base.SQLiteCursorWrapper):
    def execute(self, query: str, params: Any = None) -> Any:
        """Run `query`; outside a transaction, again while "locked", until DATABASE_TIMEOUT_SECONDS are over.

        One try waits up to the connection's busy timeout (1 s), the last one for what is left.
        """
        busy_seconds = settings.DATABASES["default"]["OPTIONS"]["timeout"]
        deadline = time.monotonic() + settings.DATABASE_TIMEOUT_SECONDS
        wait_seconds = busy_seconds
        try:
            while True:
                try:
                    return super().execute(query, params)
                except sqlite3.OperationalError as error:
                    left = deadline - time.monotonic()
                    if "locked" not in str(error) or self.connection.in_transaction or left <= 0:
                        raise
                    wait_seconds = min(left, busy_seconds)
                    self._set_busy(wait_seconds)
        finally:
            if wait_seconds != busy_seconds:
                self._set_busy(busy_seconds)

    def _set_busy(self, seconds: float) -> None:
        self.connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}").close()


class DatabaseWrapper(base.DatabaseWrapper):  # type: ignore[no-redef]
    def create_cursor(self, name: str | None = None) -> Any:
        return self.connection.cursor(factory=RetryingCursor)

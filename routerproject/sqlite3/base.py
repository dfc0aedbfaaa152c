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
        """Run `query`; outside a transaction, again while "locked", all within DATABASE_TIMEOUT_SECONDS.

        One try waits up to the connection's busy timeout (1 s); the last one begins early enough to end in time.
        """
        busy_seconds = settings.DATABASES["default"]["OPTIONS"]["timeout"]
        last_start = time.monotonic() + settings.DATABASE_TIMEOUT_SECONDS - busy_seconds
        while True:
            try:
                return super().execute(query, params)
            except sqlite3.OperationalError as error:
                locked = "locked" in str(error) and not self.connection.in_transaction
                if not locked or time.monotonic() >= last_start:
                    raise


class DatabaseWrapper(base.DatabaseWrapper):  # type: ignore[no-redef]
    def create_cursor(self, name: str | None = None) -> Any:
        return self.connection.cursor(factory=RetryingCursor)

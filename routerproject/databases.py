"""DATABASE_URL → Django's settings of one database, on which no wait is without a bound.

Called by settings.py. Must not import Django: settings are being made.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import environ

from routerproject.environment import Unusable

ALLOWED = (
    "sqlite:////absolute/path.sqlite3 in a folder the router may write, or postgres://user:password@host:port/name; "
    "as options those that the router does not set itself"
)
# No wait for a database is longer than this, so that a session's client hears the truth within 3 s.
TIMEOUT_SECONDS = 2.5
_TIMEOUT_MS = int(TIMEOUT_SECONDS * 1000)

SQLITE = {
    "timeout": 1,  # SQLite's own wait for a lock, a try; routerproject/sqlite3 tries again up to TIMEOUT_SECONDS
    # Check-then-write is safe from the first statement on: no lock is upgraded in mid-transaction.
    "transaction_mode": "IMMEDIATE",
    # WAL: readers (every placement) never wait for the writer. With it, NORMAL is safe against a crash.
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
}
POSTGRES = {
    "connect_timeout": 2,  # libpq takes whole seconds, 2 the least
    "tcp_user_timeout": _TIMEOUT_MS,
    "keepalives": 1,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 2,
}
# Of a session of PostgreSQL, in its `options`.
PARAMETERS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")


def sqlite(path: str) -> dict[str, Any]:
    return {"ENGINE": "routerproject.sqlite3", "NAME": path, "OPTIONS": dict(SQLITE)}


def from_url(url: str) -> dict[str, Any]:
    """The settings that `url` says, its options beside ours. Raises Unusable, or what the parser raises."""
    config: dict[str, Any] = environ.Env.db_url_config(url)
    given = config.pop("OPTIONS", {})
    if config.get("ENGINE") == "django.db.backends.sqlite3":
        _refuse_path(config["NAME"])
        ours: dict[str, Any] = SQLITE
        config["ENGINE"] = "routerproject.sqlite3"
    elif config.get("ENGINE") == "django.db.backends.postgresql":
        if not config["NAME"]:
            raise Unusable("it names no database")
        ours = {**POSTGRES, "options": _parameters(str(given.pop("options", "")))}
    else:
        raise Unusable("it is of another kind")
    if doubled := sorted(given.keys() & ours.keys()):
        raise Unusable(f"the router sets {', '.join(doubled)} itself")
    return {**config, "OPTIONS": {**given, **ours}}


def _refuse_path(name: str) -> None:
    path = Path(name)
    if name == ":memory:":
        raise Unusable("a database in memory is each thread's own, and lost")
    if not path.is_absolute():
        raise Unusable("the path is relative")
    if not path.parent.is_dir():
        raise Unusable("the folder does not exist")
    if path.is_dir():
        raise Unusable("it is a folder")
    # SQLite writes its journal beside the file.
    if not os.access(path.parent, os.W_OK | os.X_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise Unusable("the folder or the file cannot be written")


def _parameters(given: str) -> str:
    doubled = [name for name in PARAMETERS if name in given.lower()]
    if doubled:
        raise Unusable(f"the router sets {', '.join(doubled)} itself")
    return " ".join([given, *(f"-c {name}={_TIMEOUT_MS}" for name in PARAMETERS)]).strip()

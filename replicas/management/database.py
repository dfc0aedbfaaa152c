"""What the commands of this room say where the database cannot be used: a sentence, not a traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from django.core.management.base import CommandError
from django.db import Error as DatabaseFault
from django.db import ProgrammingError


@contextlib.contextmanager
def database_needed() -> Iterator[None]:
    """Raises CommandError where the block ends with a database's fault."""
    try:
        yield
    except DatabaseFault as fault:
        what = str(fault).partition("\n")[0]
        unmigrated = isinstance(fault, ProgrammingError) or "no such " in what  # PostgreSQL's way, and SQLite's
        remedy = "run `manage.py migrate` first" if unmigrated else "is it running, and DATABASE_URL right?"
        raise CommandError(f"The database does not answer: {what}; {remedy}") from fault

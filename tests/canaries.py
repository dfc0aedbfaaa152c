"""Secrets that are planted, and the look for them in all that a router process has written.

processes.py gives them to every process that a test starts, and looks through its log, or what a command has printed,
at its end; a run of all tests is so a search of all that it wrote. test_secrets.py plants the others, and looks also at
what clients were sent.
"""

from __future__ import annotations

import base64
from pathlib import Path

# In each of them. No word that a log, a page or a random name has by chance.
MARK = "c4n4ry"
# As base64 shows it, wherever in a group of three octets it begins.
_PLACES = ((0, 0, 8), (1, 2, 9), (2, 3, 10))
_ENCODED = [base64.b64encode(b"\0" * before + MARK.encode())[start:end] for before, start, end in _PLACES]


def canary(name: str, length: int = 0) -> str:
    """A secret called `name`, of `length` characters at the least."""
    return f"{MARK}-{name}-".ljust(length, "x")


SECRET_KEY = canary("secret-key", 64)
MACHINE_TOKEN = canary("machine-token", 32)
DATABASE_PASSWORD, REDIS_PASSWORD = canary("database-password"), canary("redis-password")


def found_in(octets: bytes) -> str | None:
    """Where the first canary stands, with what is around it; None: there is none."""
    for sought in (MARK.encode(), *_ENCODED):
        at = octets.find(sought)
        if at >= 0:
            return octets[max(0, at - 200) : at + 120].decode(errors="replace")
    return None


def look_through(path: Path) -> None:
    """An AssertionError that names the file, where a secret stands in it."""
    look_at(path.read_bytes(), path.name)


def look_at(octets: bytes, name: str) -> None:
    """The same for what was printed by `name`."""
    found = found_in(octets)
    assert found is None, f"a secret stands in {name}: …{found}…"

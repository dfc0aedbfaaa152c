"""Read settings from the environment: typed, checked, and with problems collected instead of raised.

Called by settings.py alone. A value that is wrong is remembered as a problem and its default used, so that
`manage.py check` (and the start of the server, see checks.py) can name every wrong variable at once instead of
dying on the first one. Must not import Django: settings are being made.
"""

from __future__ import annotations

import math
import os
import secrets
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import environ

Value = TypeVar("Value")

TRUE_WORDS = ("true", "yes", "on", "1")
FALSE_WORDS = ("false", "no", "off", "0")


@dataclass(frozen=True)
class Problem:
    """One variable that cannot be used: its name, the value as given, and what is allowed instead."""

    name: str
    value: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.name}={self.value!r} cannot be used; allowed: {self.allowed}."


@dataclass
class Environment:
    """The variables of one process. `names` is every variable asked for: the README's table is held against it."""

    source: Mapping[str, str] = field(default_factory=lambda: os.environ)
    problems: list[Problem] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def text(
        self,
        name: str,
        default: str,
        *,
        allowed: str = "any text",
        valid: Callable[[str], object] = bool,
        secret: bool = False,
    ) -> str:
        return self._read(name, default, str, valid, allowed, secret)

    def flag(self, name: str, default: bool) -> bool:
        return self._read(name, default, _flag, lambda value: True, "true or false")

    def integer(self, name: str, default: int, *, low: int, high: int, unit: str) -> int:
        return self._read(name, default, int, lambda v: low <= v <= high, f"whole {unit}, {low} to {high}")

    def seconds(self, name: str, default: float, *, low: float, high: float) -> float:
        return self._read(
            name,
            default,
            float,
            lambda v: math.isfinite(v) and low <= v <= high,
            f"seconds, {low:g} to {high:g}, fractions allowed",
        )

    def words(self, name: str, default: list[str], *, allowed: str, valid: Callable[[str], object] = bool) -> list[str]:
        """A list, separated by commas; `valid` is asked for each of its entries."""
        return self._read(
            name,
            default,
            lambda raw: [word.strip() for word in raw.split(",") if word.strip()],
            lambda value: all(valid(word) for word in value),
            f"a list separated by commas; {allowed}",
        )

    def database(self, name: str, default: dict[str, Any]) -> dict[str, Any]:
        allowed = "sqlite:////absolute/path.sqlite3 or postgres://user:password@host:port/name"
        engines = ("django.db.backends.sqlite3", "django.db.backends.postgresql")
        return self._read(
            name, default, environ.Env.db_url_config, lambda v: v.get("ENGINE") in engines, allowed, secret=True
        )

    def _read(
        self,
        name: str,
        default: Value,
        cast: Callable[[str], Value],
        valid: Callable[[Value], object],
        allowed: str,
        secret: bool = False,
    ) -> Value:
        self.names.append(name)
        # Straight from the mapping: environ's own reader takes a leading "$" in a password for a reference.
        raw = self.source.get(name, "")
        if not raw.strip():
            return default  # set but empty means unset, as compose files and unit files write it
        try:
            value = cast(raw.strip())
            usable = valid(value)
        except Exception:  # a cast may fail in any way; all of them mean the same here
            usable = False
        if usable:
            return value
        self.problems.append(Problem(name, "(hidden)" if secret else raw, allowed))
        return default


def kept_secret(path: Path) -> str:
    """The secret in `path`, made on first use (mode 0600). Safe when several processes start at once.

    Raises OSError when the folder cannot be written or the file cannot be read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # mkstemp makes the file 0600; link() either puts it there whole or finds that another process has.
        handle, draft = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_urlsafe(64))
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(draft)
    return path.read_text().strip()


def _flag(raw: str) -> bool:
    word = raw.lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise ValueError(raw)

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
from typing import TypeVar

Value = TypeVar("Value")

TRUE_WORDS = ("true", "yes", "on", "1")
FALSE_WORDS = ("false", "no", "off", "0")
SECRET_CHARACTERS = 50  # Django's own measure of a SECRET_KEY


class Unusable(ValueError):
    """A value that cannot be used; the text says what is wrong with it, and no secret."""


@dataclass(frozen=True)
class Problem:
    """One variable that cannot be used: its name, the value as given, what is allowed instead, and what is wrong."""

    name: str
    value: str
    allowed: str
    wrong: str = ""  # where `allowed` does not say it

    def __str__(self) -> str:
        why = f" ({self.wrong})" if self.wrong else ""
        return f"{self.name}={self.value!r} cannot be used{why}; allowed: {self.allowed}."


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
        return self.read(name, default, str, valid, allowed, secret)

    def flag(self, name: str, default: bool) -> bool:
        return self.read(name, default, _flag, lambda value: True, "true or false")

    def integer(self, name: str, default: int, *, low: int, high: int, unit: str) -> int:
        return self.read(name, default, int, lambda v: low <= v <= high, f"whole {unit}, {low} to {high}")

    def seconds(self, name: str, default: float, *, low: float, high: float) -> float:
        return self.read(
            name,
            default,
            float,
            lambda v: math.isfinite(v) and low <= v <= high,
            f"seconds, {low:g} to {high:g}, fractions allowed",
        )

    def words(
        self,
        name: str,
        default: list[str],
        *,
        allowed: str,
        valid: Callable[[str], object] = bool,
        may_be_empty: bool = False,
    ) -> list[str]:
        """A list, separated by commas; `valid` is asked for each of its entries. `,` alone is the empty list."""

        def usable(words: list[str]) -> bool:
            if not words and not may_be_empty:
                raise Unusable("there is nothing between the commas")
            return all(valid(word) for word in words)

        return self.read(
            name,
            default,
            lambda raw: [word.strip() for word in raw.split(",") if word.strip()],
            usable,
            f"a list separated by commas; {allowed}",
        )

    def read(
        self,
        name: str,
        default: Value,
        cast: Callable[[str], Value],
        valid: Callable[[Value], object],
        allowed: str,
        secret: bool = False,
    ) -> Value:
        """Any variable. `cast` and `valid` raise Unusable where `allowed` does not say what is wrong."""
        self.names.append(name)
        # Straight from the mapping: environ's own reader takes a leading "$" in a password for a reference.
        raw = self.source.get(name, "")
        if not raw.strip():
            return default  # set but empty means unset, as compose files and unit files write it
        wrong = ""
        try:
            value = cast(raw.strip())
            if valid(value):
                return value
        except Unusable as unusable:
            wrong = str(unusable)
        except Exception:  # noqa: S110  (a cast may fail in any way; all of them mean the same here)
            pass
        self.problems.append(Problem(name, "(hidden)" if secret else raw, allowed, wrong))
        return default


def kept_secret(path: Path) -> str:
    """The secret in `path`, made on first use (mode 0600). Safe when several processes start at once.

    Raises OSError when the folder cannot be written or the file cannot be read, and Unusable when it holds too little.
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
    secret = path.read_text(errors="replace").strip()
    if len(secret) < SECRET_CHARACTERS:
        raise Unusable(
            f"its file {path.name} holds less than {SECRET_CHARACTERS} characters; without it a new one is made"
        )
    return secret


def _flag(raw: str) -> bool:
    word = raw.lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise ValueError(raw)

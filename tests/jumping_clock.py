"""A command whose wall clock jumps: `python -m tests.jumping_clock FILE PROGRAM ARGUMENTS…`.

What the program takes for the time of day is the real one plus the number of seconds that FILE holds at the moment.
Its monotonic clock is the real one, as that of a machine whose clock is set. Knows nothing of the router.
"""

from __future__ import annotations

import datetime
import runpy
import sys
import time
from pathlib import Path
from typing import Any

_real_time, _real = time.time, datetime.datetime


def jump(file: Path, seconds: float) -> None:
    """Set the clock of the program that has `file`; called by tests."""
    draft = file.with_suffix(".draft")
    draft.write_text(str(seconds))
    draft.rename(file)


def main(file: Path, program: str, *arguments: str) -> None:
    def seconds() -> float:
        return float(file.read_text())

    class Kind(type):
        """Of the clock's datetimes all real ones are instances: no code can tell that this is not its class."""

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, _real)

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, _real)

    class Jumping(_real, metaclass=Kind):
        def __new__(cls, *given: Any, **named: Any) -> Any:
            return _real(*given, **named)

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return _real.now(tz) + datetime.timedelta(seconds=seconds())

    time.time = lambda: _real_time() + seconds()
    time.time_ns = lambda: int(time.time() * 1e9)
    datetime.datetime = Jumping  # type: ignore[misc]
    sys.argv = [program, *arguments]
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])

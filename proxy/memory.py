"""How this process uses memory: the collector's pace, and giving back to the system what sessions leave.

asgi.py calls `settle` when all is loaded, the consumer `session_ended`. Sessions hold no reference cycles of ours; the
collector is for those of the libraries under us, and for what a fault leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
from typing import Any

# Net allocations from one look of the collector to the next. Python's 700 make it look ten times while one session
# opens, a fifth of what an opening costs (bench/, sessions opened per second).
COLLECT_EVERY = 20_000
# Freed memory is given back at most this often.
TRIM_SECONDS = 5.0

_trim_is_due: asyncio.TimerHandle | None = None


def settle() -> None:
    """What is loaded now stays for ever: the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY, 20, 20)


def session_ended() -> None:
    """Have freed memory given back, soon.

    glibc's allocator keeps blocks of the size of a fragment in its heap once the first one was freed, and the heap
    grows with every round of sessions whose clients were slow, although nothing is held any more.
    """
    global _trim_is_due
    if _trim_is_due is None and _malloc_trim is not None:
        _trim_is_due = asyncio.get_running_loop().call_later(TRIM_SECONDS, _trim)


def _trim() -> None:
    global _trim_is_due
    _trim_is_due = None
    asyncio.get_running_loop().run_in_executor(None, _malloc_trim, 0)


_malloc_trim: Any = None
with contextlib.suppress(AttributeError, OSError):  # not glibc
    _malloc_trim = ctypes.CDLL(None).malloc_trim

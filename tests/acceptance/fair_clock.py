"""A clock for what a router may take at most, on a machine that is busy with other tests too.

It stands while the router's event loop, or this process's, is ready to run and has no processor, and while this one
computes: that time is not the router's. A router that computes, sleeps or waits for a peer gets nothing off.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

_known: dict[int, float] = {}


def fair_time(router: int) -> float:
    """In seconds, for the process with that id. Good when it has answered: the kernel counts a wait when it is over."""
    return time.monotonic() - time.thread_time() - _starved(router) - _starved(os.getpid())


def _starved(pid: int) -> float:
    """Seconds in which its main thread waited for a processor (Linux, Documentation/scheduler/sched-stats.rst)."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        _known[pid] = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return _known.get(pid, 0.0)

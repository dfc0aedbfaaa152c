"""How long a router took, on a machine that is busy with other tests too.

What comes off is the time for which its event loop, or this process's, was ready to run and had no processor: of those
that waited the longest wait alone. A router that computes, sleeps or waits for a peer gets nothing off.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_known: dict[int, float] = {}


class Moment:
    """Now; of use for what is over: the kernel counts a wait for a processor when it has ended.

    `routers`: the processes whose work is timed, by their ids.
    """

    def __init__(self, *routers: int) -> None:
        self._routers, self._at = routers, time.monotonic()
        self._waited = {pid: _waited(pid) for pid in (os.getpid(), *routers)}

    def until(self, later: Moment) -> float:
        """The seconds between the two."""
        return later._at - self._at - max(later._waited[pid] - waited for pid, waited in self._waited.items())

    @property
    def ago(self) -> float:
        return self.until(Moment(*self._routers))


def _waited(pid: int) -> float:
    """Seconds in which its main thread waited for a processor (Linux, Documentation/scheduler/sched-stats.rst)."""
    try:
        _known[pid] = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (FileNotFoundError, ProcessLookupError):
        if pid not in _known:  # else it has ended
            raise
    return _known[pid]

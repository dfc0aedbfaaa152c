"""PURE. When what goes through a proxy is measured: after a warm-up, for a window, with both CPU times at its edges.

Called by traffic.py and echo.py after each event; the proxy's CPU time comes from whoever makes the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

# Until all buffers on the way are full a proxy works on frames that do not come out: at 500 sessions, for seconds.
STEADY = 0.1  # of what goes in: the difference to what comes out
MOST_WARM_SECONDS = 6.0
# A window with fewer goes on, for this many times its length at most.
FEWEST_FRAMES = 20
MOST_WINDOWS = 5


@dataclass(frozen=True)
class Window:
    """What came through between two moments in the middle of the traffic."""

    seconds: float
    frames: float
    proxy_cpu: float  # seconds
    load_cpu: float
    latencies: list[float] = field(default_factory=list)  # seconds, of echoes


def steady(sent: float, received: float) -> bool:
    """Does as much come out as goes in, and anything at all?"""
    return received > 0 and abs(sent - received) <= STEADY * max(sent, received)


@dataclass
class Clock:
    """Warm-up until as much comes out as goes in, then the window; reads the CPU times at both of its edges."""

    warm_seconds: float  # at least; and how long what goes in and out is compared
    window_seconds: float
    proxy_cpu: Callable[[], float]

    def start(self) -> None:
        self._started = time.perf_counter()
        self._edge = self._started + self.warm_seconds
        self._before = (0.0, 0.0)
        self._began: tuple[float, float, float, float] | None = None
        self.window: Window | None = None

    @property
    def in_window(self) -> bool:
        return self._began is not None

    def tick(self, frames: float, sent: float) -> bool:
        """Called after every event with the frames that came and went so far; True when the window is over."""
        now = time.perf_counter()
        if now < self._edge:
            return False
        if self._began is None and now - self._started < MOST_WARM_SECONDS:
            sent_before, frames_before = self._before
            self._before = (sent, frames)
            if not steady(sent - sent_before, frames - frames_before):
                self._edge = now + self.warm_seconds
                return False
        few = self._began is not None and frames - self._began[1] < FEWEST_FRAMES
        if few and now < self._edge + MOST_WINDOWS * self.window_seconds:
            return False
        mark = (time.perf_counter(), frames, self.proxy_cpu(), time.process_time())
        if self._began is None:
            self._began = mark
            self._edge = now + self.window_seconds
            return False
        seconds, frames, proxy_cpu, load_cpu = (end - start for end, start in zip(mark, self._began, strict=True))
        self.window = Window(seconds, frames, proxy_cpu, load_cpu)
        return True

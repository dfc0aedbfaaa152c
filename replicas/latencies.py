"""PURE. How fast a replica has answered its probes lately: a point for each half minute, of the last half an hour.

Kept by record.py in the row that a probe writes anyway; drawn by the dashboard. For people, nothing is decided by it.
"""

from __future__ import annotations

STEP_SECONDS = 30
POINTS = 60

# Unix seconds of a half minute's beginning, and the slowest answer in it in milliseconds; None: a probe failed in it.
Point = list[float | int | None]


def add(points: list[Point] | None, at: float, latency_ms: float | None) -> list[Point]:
    """`points` and one probe more, which has ended `at`; oldest first. A new list: the old one may be being written.

    Of a half minute the worst is kept. What is too old goes, and what a clock that has gone back left in the future.
    """
    begin = int(at // STEP_SECONDS) * STEP_SECONDS
    kept = [point for point in points or [] if begin - POINTS * STEP_SECONDS < float(point[0] or 0) <= begin]
    worst = None if latency_ms is None else round(latency_ms, 1)
    if kept and kept[-1][0] == begin:
        before = kept.pop()[1]
        worst = None if before is None or worst is None else max(worst, before)
    return [*kept, [begin, worst]]

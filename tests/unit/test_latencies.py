"""Half an hour of a replica's latencies in sixty points (replicas/latencies.py)."""

from __future__ import annotations

from replicas.latencies import POINTS, STEP_SECONDS, Point, add

BEGIN = 1_767_225_600.0  # of a half minute


def probes(*found: tuple[float, float | None]) -> list[Point]:
    points: list[Point] = []
    for seconds, latency in found:
        points = add(points, BEGIN + seconds, latency)
    return [[point[0] - BEGIN, point[1]] for point in points if point[0] is not None]


def test_of_a_half_minute_the_worst_is_kept() -> None:
    """The slowest answer; and a failure is worse than any."""
    assert probes((1, 2.04), (6, 9.96), (11, 3)) == [[0, 10.0]]
    assert probes((1, 2), (6, None), (11, 3)) == [[0, None]]
    assert probes((1, None), (31, 4)) == [[0, None], [30, 4]]


def test_sixty_points_are_kept() -> None:
    """However often there are probes; oldest first."""
    points = probes(*((5.0 * number, float(number)) for number in range(1000)))
    assert len(points) == POINTS
    assert points == sorted(points)
    assert points[-1] == [4980, 999.0]


def test_what_is_older_than_half_an_hour_goes() -> None:
    """Also where probes are an hour apart."""
    assert probes((0, 1), (3600, 2)) == [[3600, 2]]


def test_a_clock_that_went_back_leaves_nothing_in_the_future() -> None:
    """Points are in order whatever the clock does."""
    assert probes((600, 1), (0, 2)) == [[0, 2]]


def test_the_list_that_was_is_not_changed() -> None:
    """Another thread may be writing it down."""
    before = add(None, BEGIN, 1.0)
    add(before, BEGIN + 1, 5.0)
    add(before, BEGIN + STEP_SECONDS, 5.0)
    assert before == [[BEGIN, 1.0]]

"""What a process has carried, and how fast (proxy/traffic.py)."""

from __future__ import annotations

from proxy.traffic import Carrying, Traffic


def test_totals_are_of_live_and_ended_sessions() -> None:
    """Each byte once, whenever its session was counted and when it ended."""
    traffic = Traffic()
    assert traffic.count([("a", Carrying(1, 10, 100)), ("b", Carrying(2, 1, 2))], 0).bytes_down == 102
    traffic.ended("a", 30, 300)
    traffic.ended("unseen", 5, 50)
    count = traffic.count([("b", Carrying(2, 2, 4))], 10)
    assert (count.bytes_up, count.bytes_down) == (30 + 5 + 2, 300 + 50 + 4)


def test_rates_are_of_the_time_since_the_last_count() -> None:
    """Those of the process, of what has ended too; and those of each live session."""
    traffic = Traffic()
    assert traffic.count([("a", Carrying(1, 0, 1000))], 100).down_per_second == 0
    traffic.ended("b", 0, 500)
    count = traffic.count([("a", Carrying(1, 20, 2000)), ("c", Carrying(3, 0, 50))], 110)
    assert (count.up_per_second, count.down_per_second) == (2, 155)
    assert count.sessions == {1: [20, 2000, 2, 100], 3: [0, 50, 0, 5]}


def test_one_without_a_row_is_counted_and_not_named() -> None:
    """It is being placed."""
    count = Traffic().count([("a", Carrying(None, 7, 0))], 0)
    assert (count.bytes_up, count.sessions) == (7, {})


def test_another_replica_takes_nothing_back() -> None:
    """What a replica had sent that was lost before it began was carried all the same; totals never fall."""
    traffic = Traffic()
    traffic.count([("a", Carrying(1, 10, 500))], 0)
    count = traffic.count([("a", Carrying(1, 10, 20))], 1)
    assert (count.bytes_down, count.down_per_second, count.sessions[1]) == (500, 0, [10, 20, 0, 0])
    traffic.ended("a", 10, 700)
    assert traffic.count([], 2).bytes_down == 700


def test_many_sessions_are_counted_more_seldom() -> None:
    """So that what is written a second has a bound: every second up to 500."""
    for number, seconds in ((0, 0), (500, 1), (5000, 10)):
        live = [(str(i), Carrying(i, 1, 1)) for i in range(number)]
        assert Traffic().count(live, 0).good_for_seconds == seconds


def test_a_clock_that_stands_still_gives_no_rate() -> None:
    """Nor one that divides by nothing."""
    traffic = Traffic()
    traffic.count([], 5)
    assert traffic.count([("a", Carrying(1, 9, 9))], 5).up_per_second == 0

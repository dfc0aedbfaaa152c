"""From runs to what is shown: medians, ratios, verdicts, the report's text, and a chart that is an SVG."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench import peers, plan
from bench.chart import PANELS, chart
from bench.reach import ROWS, verdicts
from bench.report import report, terminal
from bench.summary import Summary
from bench.write import write

DOWN = "down 64 KiB x1"


def results(*runs: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A results.json with these runs."""
    return {
        "quick": False,
        "date": "2026-01-02",
        "seconds": 1,
        "machine": {
            "cpu": "A <CPU> & more", "cores": 2, "kernel": "6.1", "python": "3.11.7", "shared_core": False,
            "others": 0.01, "stolen": 0.0,
        },
        "plan": {"rounds": 3, "warm_seconds": 0.1, "window_seconds": 0.5},
        "cases": [{"name": case.name, "kind": case.kind} for case in plan.FULL.cases],
        "peers": [{"name": peer.name, "label": peer.label, "version": "1.0"} for peer in peers.PEERS],
        "skipped": {},
        "runs": list(runs),
    } | changes  # fmt: skip


def made(peer: str, figure: str, *values: float, case: str = DOWN) -> list[dict[str, Any]]:
    """One run a round with this figure."""
    return [
        {"round": number, "case": case, "peer": peer, "figures": {figure: value}}
        for number, value in enumerate(values, 1)
    ]


def row(found: dict[str, Any], text: str, peer: str) -> Any:
    return next(v for v in verdicts(Summary(found)) if v.row.text.startswith(text) and v.row.peer == peer)


def test_a_figure_is_the_median_with_its_spread() -> None:
    """Of all rounds, in whatever order."""
    found = Summary(results(*made("router", "cpu_us_per_frame", 30, 10, 20))).spread(DOWN, "router", "cpu_us_per_frame")
    assert found is not None
    assert (found.median, found.low, found.high, found.runs) == (20, 10, 30, 3)


def test_a_ratio_is_that_of_the_medians_and_its_spread_that_of_the_rounds() -> None:
    """The spread pairs what was measured in the same round."""
    runs = made("router", "mb_per_s", 10, 20, 60) + made("haproxy", "mb_per_s", 10, 10, 20)
    found = Summary(results(*runs)).ratio(DOWN, "mb_per_s", "router", "haproxy")
    assert found is not None
    assert (found.median, found.low, found.high) == (2, 1, 3)


def test_what_is_added_is_taken_off_round_by_round() -> None:
    """A proxy's latency less the direct one's of the same round."""
    case = "echo 100 B x1"
    runs = made("direct", "p50_us", 10, 20, case=case) + made("router", "p50_us", 50, 80, case=case)
    found = Summary(results(*runs)).added(case, "router", "p50_us")
    assert found is not None
    assert (found.low, found.high) == (40, 60)


@pytest.mark.parametrize(("ours", "reached", "aim"), [(101, False, False), (100, True, False), (75, True, True)])
def test_a_limit_on_cost_is_reached_at_or_below_it(ours: float, reached: bool, aim: bool) -> None:
    """At most 1.0 times HAProxy, aiming at 0.75."""
    runs = made("router", "cpu_us_per_frame", ours) + made("haproxy", "cpu_us_per_frame", 100)
    verdict = row(results(*runs), "CPU per 64 KiB frame, replica", "haproxy")
    assert (verdict.reached, verdict.aim_reached) == (reached, aim)


def test_a_limit_on_speed_is_reached_at_or_above_it() -> None:
    """At least 1.0 times HAProxy."""
    runs = made("router", "mb_per_s", 99) + made("haproxy", "mb_per_s", 100)
    assert row(results(*runs), "throughput", "haproxy").reached is False


def test_many_sessions_are_compared_with_one() -> None:
    """The router's cost at 500 sessions ÷ its own cost at 1."""
    many = made("router", "cpu_us_per_frame", 13, case="open 64 KiB x500")
    verdict = row(results(*many, *made("router", "cpu_us_per_frame", 10)), "CPU per 64 KiB frame at 500", "router")
    assert verdict.ratio.median == pytest.approx(1.3)
    assert verdict.reached is True


def test_what_was_not_measured_is_not_called_reached() -> None:
    """Nor missed: a peer that is not installed leaves its rows open."""
    found = results(*made("router", "cpu_us_per_frame", 1))
    assert all(verdict.reached is None for verdict in verdicts(Summary(found)))
    assert report(found).count("not measured") == len(ROWS)


def test_rows_and_panels_name_cases_and_peers_that_exist() -> None:
    """A row that names a case of no plan would never be measured."""
    cases = {case.name: case for case in plan.FULL.cases}
    names = {peer.name for peer in peers.PEERS}
    for found in ROWS:
        assert found.peer in names
        assert cases[found.case].includes(found.peer)
        assert not found.peer_case or found.peer_case in cases
    assert all(panel.case in cases for panel in PANELS)
    assert all(set(case.peers) <= names for case in (*plan.FULL.cases, *plan.QUICK.cases))


def test_the_report_says_what_is_ahead_what_failed_and_what_was_skipped() -> None:
    """A row where a peer is ahead is there like any other."""
    runs = made("router", "cpu_us_per_frame", 20) + made("haproxy-256k", "cpu_us_per_frame", 10)
    runs.append({"round": 1, "case": DOWN, "peer": "nginx", "figures": {}, "failed": "connection closed"})
    text = report(results(*runs, skipped={"original": "pip install fastapi"}))
    assert re.search(r"\| haproxy-256k \| 2\.00 .*\| peer ahead \|", text)
    assert "nginx, down 64 KiB x1, round 1: connection closed" in text
    assert "original (`pip install fastapi`)" in text


def test_the_report_warns_of_a_machine_that_was_not_quiet() -> None:
    """Figures of a busy machine are not for quoting."""
    busy = results(machine=results()["machine"] | {"others": 0.4})
    assert "repeat on a machine that is quiet" in report(busy)
    assert "repeat on a machine that is quiet" not in report(results())
    assert "quick run" in report(results(quick=True))


def test_the_chart_is_svg_for_light_and_dark() -> None:
    """Well-formed though the CPU's name has < and &, and with a bar cut that would dwarf the others."""
    runs = [
        run
        for peer, value in (("router", 30.0), ("haproxy", 40.0), ("original-deflate", 1900.0))
        for run in made(peer, "cpu_us_per_frame", value, value * 1.1, value * 0.9)
    ]
    text = chart(results(*runs))
    root = ElementTree.fromstring(text)  # noqa: S314  (our own text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme: dark" in text
    assert "… 1,900" in text
    widths = [float(rect.attrib["width"]) for rect in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert len(widths) == 3
    assert max(widths) < 460


def test_a_chart_of_nothing_is_still_svg() -> None:
    """Every case may have failed."""
    ElementTree.fromstring(chart(results()))  # noqa: S314  (our own text)


def test_write_makes_both_files(tmp_path: Path) -> None:
    """And what it returns for the terminal has the table of reach."""
    runs = made("router", "cpu_us_per_frame", 20) + made("haproxy", "cpu_us_per_frame", 10)
    shown = write(results(*runs), tmp_path)
    assert (tmp_path / "results.md").exists()
    assert (tmp_path / "results.svg").exists()
    assert "÷ haproxy" in shown
    assert terminal(results(*runs)) in shown

"""PURE. results.json → one SVG: a few bar charts, readable on light and on dark, without any library.

Bars are medians with a whisker from least to greatest. Bars that would dwarf all others are cut, and say so with their
number. Called by write.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from bench.reach import ROUTER
from bench.summary import Spread, Summary

WIDTH, PANELS_A_ROW = 920, 2
LABEL, BAR_HEIGHT, GAP, TOP = 132, 15, 6, 48
# A bar this many times the router's is cut.
CUT = 6.0

STYLE = """\
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600; font-size: 13px } .note { font-size: 11px; fill: #57606a }
  .bar { fill: #9aa7b4 } .ours { fill: #2f6feb } .floor { fill: #d0d7de } .whisker { stroke: #24292f; stroke-width: 1 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .note { fill: #9198a1 }
    .bar { fill: #6e7b88 } .ours { fill: #58a6ff } .floor { fill: #3d444d } .whisker { stroke: #e6edf3 }
  }"""


@dataclass(frozen=True)
class Panel:
    """One bar chart: a figure of a case."""

    title: str
    note: str
    case: str
    figure: str
    without: tuple[str, ...] = ("direct",)


FEWER, MORE = "less is better", "more is better"
PANELS = (
    Panel("CPU per 64 KiB frame, replica → client, µs", FEWER, "down 64 KiB x1", "cpu_us_per_frame"),
    Panel("CPU per 64 KiB frame, client → replica, µs", FEWER, "up 64 KiB x1", "cpu_us_per_frame"),
    Panel("Throughput of one 64 KiB stream, MB/s", MORE, "down 64 KiB x1", "mb_per_s"),
    Panel("CPU per 1 MiB frame, replica → client, µs", FEWER, "down 1 MiB x1", "cpu_us_per_frame"),
    Panel("CPU per 100 B frame in a burst, µs", FEWER, "down 100 B x1", "cpu_us_per_frame"),
    Panel("CPU per 64 KiB frame at 500 sessions, µs", FEWER, "open 64 KiB x500", "cpu_us_per_frame"),
    Panel("Echo of 100 B, p50, µs", FEWER, "echo 100 B x1", "p50_us", without=()),
    Panel("Sessions opened per second", MORE, "open 64 KiB x500", "opens_per_s", without=("direct", "floor")),
    Panel("Memory per idle session, KiB", FEWER, "open 64 KiB x500", "kib_per_session"),
)


def chart(results: dict[str, Any]) -> str:
    """The SVG. Panels whose case was not measured are left out."""
    summary = Summary(results)
    drawn = [found for panel in PANELS if (found := _bars(panel, summary))]
    width = WIDTH // PANELS_A_ROW
    parts: list[str] = []
    top = 0
    for index in range(0, len(drawn), PANELS_A_ROW):
        row = drawn[index : index + PANELS_A_ROW]
        for column, (panel, bars) in enumerate(row):
            parts.append(f'<g transform="translate({column * width},{top})">\n{_panel(panel, bars, width)}\n</g>')
        top += max(TOP + len(bars) * (BAR_HEIGHT + GAP) for _, bars in row) + 10
    machine = results["machine"]
    note = (
        f"{machine['cpu']}, {results['date']}, medians of {results['plan']['rounds']} rounds, whiskers from "
        "least to greatest; bars marked … are cut"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 24}" role="img" '
        f'aria-label="The router beside its peers">\n<style>\n{STYLE}\n</style>\n'
        + "\n".join(parts)
        + f'\n<text class="note" x="8" y="{top + 10}">{escape(note)}</text>\n</svg>\n'
    )


def _bars(panel: Panel, summary: Summary) -> tuple[Panel, list[tuple[str, Spread]]] | None:
    bars = [
        (peer, found)
        for peer in summary.peers
        if peer not in panel.without and (found := summary.spread(panel.case, peer, panel.figure))
    ]
    return (panel, bars) if bars else None


def _panel(panel: Panel, bars: list[tuple[str, Spread]], width: int) -> str:
    room = width - LABEL - 80
    scale = room / _longest(bars)
    lines = [
        f'<text class="title" x="8" y="20">{escape(panel.title)}</text>',
        f'<text class="note" x="8" y="36">{panel.note}</text>',
    ]
    for index, (peer, found) in enumerate(bars):
        y = TOP + index * (BAR_HEIGHT + GAP)
        middle = y + BAR_HEIGHT / 2
        length = min(found.median * scale, room)
        cut = found.median * scale > room + 0.5
        kind = "bar ours" if peer == ROUTER else "bar floor" if peer in ("floor", "direct") else "bar"
        lines.append(f'<text x="{LABEL - 6}" y="{middle + 4:.1f}" text-anchor="end">{escape(peer)}</text>')
        lines.append(f'<rect class="{kind}" x="{LABEL}" y="{y}" width="{max(length, 1):.1f}" height="{BAR_HEIGHT}"/>')
        end = length
        if not cut:
            low, high = (LABEL + min(value * scale, room) for value in (found.low, found.high))
            lines.append(f'<path class="whisker" d="M{low:.1f} {middle:.1f}H{high:.1f}"/>')
            end = max(length, high - LABEL)
        text = f"{'… ' if cut else ''}{found.median:,.{0 if found.median >= 100 else 1 if found.median >= 1 else 2}f}"
        lines.append(f'<text x="{LABEL + end + 5:.1f}" y="{middle + 4:.1f}">{text}</text>')
    return "\n".join(lines)


def _longest(bars: list[tuple[str, Spread]]) -> float:
    """The value at a full bar: the greatest that is not to be cut."""
    medians = {peer: found.median for peer, found in bars}
    usual = medians.get(ROUTER) or sorted(medians.values())[len(medians) // 2]
    kept = [value for value in medians.values() if value <= usual * CUT] or list(medians.values())
    return max(kept) or 1.0

"""PURE. What the router is to reach beside its peers, as ratios of medians in one run, and whether it did.

The rows with a limit are the project's aims; those without show where a peer that is not named in them stands, ahead or
behind. Called by report.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.summary import Spread, Summary

ROUTER = "router"


@dataclass(frozen=True)
class Row:
    """`figure` of the router in `case` ÷ that of `peer` (in `peer_case`, if another)."""

    text: str
    case: str
    figure: str
    peer: str
    limit: float | None = None  # None: for information
    aim: float | None = None
    more_is_better: bool = False
    peer_case: str = ""

    @property
    def sign(self) -> str:
        return "≥" if self.more_is_better else "≤"


@dataclass(frozen=True)
class Verdict:
    """A row with what came out. `reached` is None where it was not measured or nothing is asked."""

    row: Row
    ratio: Spread | None

    @property
    def reached(self) -> bool | None:
        if self.ratio is None or self.row.limit is None:
            return None
        return self._within(self.row.limit)

    @property
    def aim_reached(self) -> bool | None:
        return None if self.ratio is None or self.row.aim is None else self._within(self.row.aim)

    @property
    def ahead(self) -> bool | None:
        """Is the router ahead of the peer?"""
        return None if self.ratio is None else self._within(1.0)

    def _within(self, limit: float) -> bool:
        assert self.ratio is not None
        return self.ratio.median >= limit if self.row.more_is_better else self.ratio.median <= limit


def _cpu(text: str, case: str, peer: str, limit: float | None = None, aim: float | None = None) -> Row:
    return Row(text, case, "cpu_us_per_frame", peer, limit, aim)


_DOWN, _UP = "CPU per 64 KiB frame, replica → client", "CPU per 64 KiB frame, client → replica"
_LARGE, _STREAM = "CPU per 1 MiB frame, replica → client", "throughput of one 64 KiB stream"
_MANY = "CPU per 64 KiB frame at 500 sessions"

ROWS = (
    _cpu(_DOWN, "down 64 KiB x1", "haproxy", 1.0, 0.75),
    _cpu(_DOWN, "down 64 KiB x1", "nginx", 0.4),
    _cpu(_DOWN, "down 64 KiB x1", "original", 0.5),
    _cpu(_DOWN, "down 64 KiB x1", "original-deflate", 1 / 30),
    _cpu(_DOWN, "down 64 KiB x1", "floor", 1.5),
    _cpu(_LARGE, "down 1 MiB x1", "haproxy", 1.0),
    _cpu(_LARGE, "down 1 MiB x1", "floor", 1.25),
    _cpu(_UP, "up 64 KiB x1", "haproxy", 1.0),
    _cpu(_UP, "up 64 KiB x1", "floor", 1.25),
    Row(_STREAM, "down 64 KiB x1", "mb_per_s", "haproxy", 1.0, 1.3, more_is_better=True),
    _cpu("CPU per 100 B frame in a burst", "down 100 B x1", "original", 0.5),
    Row("echo p50, 100 B", "echo 100 B x1", "p50_us", "nginx", 1.2),
    Row(
        "CPU per 64 KiB frame at 500 sessions", "open 64 KiB x500", "cpu_us_per_frame", ROUTER, 1.3,
        peer_case="down 64 KiB x1",
    ),
    Row(
        "usable sessions opened per second", "open 64 KiB x500", "opens_per_s", "original", 0.7, more_is_better=True,
    ),
    # For information: the same against peers that the aims do not name.
    _cpu(_DOWN, "down 64 KiB x1", "haproxy-256k"),
    _cpu(_DOWN, "down 64 KiB x1", "nginx-256k"),
    _cpu(_LARGE, "down 1 MiB x1", "haproxy-256k"),
    _cpu(_LARGE, "down 1 MiB x1", "nginx-256k"),
    _cpu(_UP, "up 64 KiB x1", "haproxy-256k"),
    _cpu(_UP, "up 64 KiB x1", "nginx-256k"),
    _cpu("CPU per 100 B frame in a burst", "down 100 B x1", "haproxy"),
    _cpu(_MANY, "open 64 KiB x500", "haproxy"),
    Row(_STREAM, "down 64 KiB x1", "mb_per_s", "haproxy-256k", more_is_better=True),
    Row(_STREAM, "down 64 KiB x1", "mb_per_s", "nginx-256k", more_is_better=True),
    Row("echo p50, 100 B", "echo 100 B x1", "p50_us", "haproxy"),
    Row("usable sessions opened per second", "open 64 KiB x500", "opens_per_s", "haproxy", more_is_better=True),
    Row("memory per idle session", "open 64 KiB x500", "kib_per_session", "haproxy"),
    Row("memory per idle session", "open 64 KiB x500", "kib_per_session", "nginx"),
    Row("memory per idle session", "open 64 KiB x500", "kib_per_session", "original"),
)  # fmt: skip


def verdicts(summary: Summary) -> list[Verdict]:
    return [Verdict(row, summary.ratio(row.case, row.figure, ROUTER, row.peer, row.peer_case)) for row in ROWS]

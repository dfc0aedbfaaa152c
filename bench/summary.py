"""PURE. From runs to medians: what reach.py, report.py and chart.py show.

Reads the structure of results.json, and nothing else.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Spread:
    """A figure over all rounds."""

    median: float
    low: float
    high: float
    runs: int


class Summary:
    """All figures of one results.json, asked for by case, peer and name."""

    def __init__(self, results: Mapping[str, Any]) -> None:
        self.results = results
        self._values: dict[tuple[str, str, str], dict[int, float]] = {}
        for run in results["runs"]:
            for name, value in run["figures"].items():
                self._values.setdefault((run["case"], run["peer"], name), {})[run["round"]] = value

    @property
    def peers(self) -> list[str]:
        return [peer["name"] for peer in self.results["peers"]]

    def label(self, peer: str) -> str:
        return next(str(found["label"]) for found in self.results["peers"] if found["name"] == peer)

    def spread(self, case: str, peer: str, figure: str) -> Spread | None:
        """None where it was not measured."""
        values = list(self._values.get((case, peer, figure), {}).values())
        return spread(values) if values else None

    def added(self, case: str, peer: str, figure: str) -> Spread | None:
        """The figure less that of `direct` in the same round: what the proxy adds."""
        ours, base = self._values.get((case, peer, figure), {}), self._values.get((case, "direct", figure), {})
        values = [value - base[number] for number, value in ours.items() if number in base]
        return spread(values) if values else None

    def ratio(self, case: str, figure: str, over: str, under: str, under_case: str = "") -> Spread | None:
        """Median of `over` ÷ median of `under`; low and high are those of the rounds taken alone."""
        above = self._values.get((case, over, figure), {})
        below = self._values.get((under_case or case, under, figure), {})
        rounds = [above[number] / below[number] for number in above.keys() & below.keys() if below[number]]
        if not rounds:
            return None
        middle = statistics.median(above.values()) / statistics.median(below.values())
        return Spread(middle, min(rounds), max(rounds), len(rounds))

    def failures(self) -> list[str]:
        return [
            f"{run['peer']}, {run['case']}, round {run['round']}: {run['failed']}"
            for run in self.results["runs"]
            if run.get("failed")
        ]


def spread(values: list[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values), len(values))

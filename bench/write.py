"""Results to files: results.md and results.svg from what results.json holds. Called by __main__.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.chart import chart
from bench.report import report, terminal


def write(results: dict[str, Any], folder: Path) -> str:
    """Write both, and give what is shown on the terminal."""
    (folder / "results.md").write_text(report(results))
    (folder / "results.svg").write_text(chart(results))
    return f"{terminal(results)}\n\n{results['seconds']} s; see {folder / 'results.md'} and {folder / 'results.svg'}"

"""PURE. In which order are replicas tried for a session (contract A2)?

Called by placement.py with what the database says; search.py walks the order. Must not know where the
candidates come from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """One replica as placement sees it. `url` is normalised (no trailing slash)."""

    id: int  # grows in insertion order
    name: str
    url: str
    primary: bool
    available: bool  # active and healthy
    stale: bool  # its last probe is old: its word stands, but behind a fresh one (design, decision 12)


def rank(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The available candidates: fresh before stale, the primary first, then insertion order."""
    return sorted(
        (candidate for candidate in candidates if candidate.available),
        key=lambda candidate: (candidate.stale, not candidate.primary, candidate.id),
    )

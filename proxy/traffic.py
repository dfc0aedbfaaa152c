"""How many bytes this process has carried, and how fast: read off what its links count anyway.

process.py has the one of this process: heart.py asks it for a count with the beat, session.py tells it of each end. No
frame comes by here, and nothing is written here. Bytes are those of payloads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

# A count names each live session: of one with more of them the next comes so much later that what is written a second
# stays the same.
SESSIONS_PER_SECOND = 500


class Carrying(NamedTuple):
    """What one live session has carried so far. `id`: of its row; None: it has none yet."""

    id: int | None
    up: int
    down: int


@dataclass(frozen=True)
class Count:
    """Of a process. `sessions`: id of the row → [bytes up, bytes down, up per second, down per second]."""

    bytes_up: int = 0
    bytes_down: int = 0
    up_per_second: float = 0.0
    down_per_second: float = 0.0
    sessions: dict[int, list[int]] = field(default_factory=dict)

    @property
    def good_for_seconds(self) -> float:
        """So long no other one is to be taken."""
        return len(self.sessions) / SESSIONS_PER_SECOND


class Traffic:
    """Of a process since it began. `now` is in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._up = self._down = 0
        self._seen: dict[str, tuple[int, int]] = {}  # what is in the totals, of each live session
        self._last: tuple[float, int, int] | None = None

    def ended(self, uid: str, up: int, down: int) -> None:
        """A session is over; `count` does not hear of it again."""
        self._add(*self._seen.pop(uid, (0, 0)), up, down)

    def count(self, live: Iterable[tuple[str, Carrying]], now: float) -> Count:
        """All there is, with the rates since the last count. `live`: those that have not `ended`, by uid."""
        seconds = now - self._last[0] if self._last is not None else 0.0
        seen: dict[str, tuple[int, int]] = {}
        sessions: dict[int, list[int]] = {}
        for uid, (id, up, down) in live:
            up_before, down_before = self._seen.get(uid, (0, 0))
            self._add(up_before, down_before, up, down)
            # One whose replica is another than before it had begun counts from 0 again.
            seen[uid] = max(up, up_before), max(down, down_before)
            if id is not None:
                rates = _rate(up - up_before, seconds), _rate(down - down_before, seconds)
                sessions[id] = [up, down, round(rates[0]), round(rates[1])]
        self._seen = seen
        _, up_then, down_then = self._last or (now, self._up, self._down)
        self._last = now, self._up, self._down
        return Count(
            self._up,
            self._down,
            _rate(self._up - up_then, seconds),
            _rate(self._down - down_then, seconds),
            sessions,
        )

    def _add(self, up_before: int, down_before: int, up: int, down: int) -> None:
        self._up += max(0, up - up_before)
        self._down += max(0, down - down_before)


def _rate(octets: int, seconds: float) -> float:
    return max(0, octets) / seconds if seconds > 0 else 0.0

"""PURE. Which replica does a session go to? Tiers, the policies within one, and who of the line gets what.

Called by settling.py inside its transaction, with what the database says. Must not know where its arguments come from,
nor do anything about its result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

# In slow start a replica's share begins with this part of its weight.
LEAST_SHARE = 0.1
LEAST_WEIGHT, MOST_WEIGHT = 1e-6, 1e6


@dataclass(slots=True)
class Candidate:
    """One replica as placement sees it; `sessions` is counted up while sessions are assigned.

    `available`: active, healthy, not ejected and not known to be full by a rejection. `slots` None: unlimited.
    `stale`: its last probe is old, its word stands, but behind a fresh one (design, decision 12). `share`: of its
    weight, from LEAST_SHARE to 1, less than 1 in slow start. `last_turn` grows with each placement by turns.
    """

    id: int  # grows in insertion order
    name: str
    url: str
    primary: bool = False
    available: bool = True
    stale: bool = False
    weight: float = 1.0
    share: float = 1.0
    slots: int | None = None
    sessions: int = 0
    last_turn: int = 0

    @property
    def full(self) -> bool:
        return self.slots is not None and self.sessions >= self.slots

    @property
    def free(self) -> bool:
        return self.available and not self.full

    @property
    def load(self) -> float:
        """Sessions ÷ weight. In slow start as if there were more, so that a replica with none is not overrun."""
        return (self.sessions + 1 - self.share) / self.pull

    @property
    def pull(self) -> float:
        """Weight × share; of a weight so small or large that a turn's floats might end, the nearest that is not."""
        return min(max(self.weight, LEAST_WEIGHT), MOST_WEIGHT) * self.share


Policy = Callable[[Sequence[Candidate], Random], Candidate]


def least_sessions(tier: Sequence[Candidate], rng: Random) -> Candidate:
    """The fewest sessions ÷ weight; ties by insertion order."""
    return min(tier, key=lambda candidate: (candidate.load, candidate.id))


def round_robin(tier: Sequence[Candidate], rng: Random) -> Candidate:
    """The one placed on longest ago. One in slow start lets its turn pass as often as its share says."""
    for candidate in sorted(tier, key=lambda candidate: (candidate.last_turn, candidate.id)):
        if candidate.share >= 1 or rng.random() < candidate.share:
            return candidate
    return least_sessions(tier, rng)


def weighted_random(tier: Sequence[Candidate], rng: Random) -> Candidate:
    """Of two drawn by weight, the one with the smaller load."""
    return least_sessions(rng.choices(tier, [candidate.pull for candidate in tier], k=2), rng)


POLICIES: Mapping[str, Policy] = {
    "least_sessions": least_sessions,
    "round_robin": round_robin,
    "random": weighted_random,
}


def ramp(seconds_healthy: float | None, slow_start_seconds: float) -> float:
    """The share of a replica that became healthy so long ago; None, or a time before that: not known, no slow start."""
    if seconds_healthy is None or not 0 <= seconds_healthy < slow_start_seconds:
        return 1.0
    return max(LEAST_SHARE, seconds_healthy / slow_start_seconds)


@dataclass(frozen=True, slots=True)
class Wish:
    """A session that wants a slot. `avoid`: replicas that have failed it. `sticky`: where its affinity key was last."""

    id: int
    avoid: frozenset[int] = field(default_factory=frozenset)
    sticky: int | None = None


def assign(line: Iterable[Wish], candidates: Sequence[Candidate], policy: str, rng: Random) -> dict[int, Candidate]:
    """Who gets which replica, by id of the wish. The line is served in its order; who finds nothing is passed over.

    One who is passed over was overtaken by nobody: what is free then has failed it, or there is nothing free.
    """
    free = [candidate for candidate in candidates if candidate.free]
    turn = max((candidate.last_turn for candidate in candidates), default=0)
    given: dict[int, Candidate] = {}
    for wish in line:
        if not free:
            break
        found = choose(wish, free, policy, rng)
        if found is None:
            continue
        given[wish.id] = found
        turn += 1
        found.sessions, found.last_turn = found.sessions + 1, turn
        if found.full:
            free.remove(found)
    return given


def choose(wish: Wish, free: Sequence[Candidate], policy: str, rng: Random) -> Candidate | None:
    """The best of `free` for one session, or None."""
    allowed = [c for c in free if c.id not in wish.avoid] if wish.avoid else free
    if not allowed:
        return None
    for candidate in allowed:
        if candidate.id == wish.sticky:
            return candidate
    best = min(map(_tier, allowed))
    return POLICIES[policy]([candidate for candidate in allowed if _tier(candidate) == best], rng)


def _tier(candidate: Candidate) -> tuple[bool, bool]:
    return candidate.stale, not candidate.primary

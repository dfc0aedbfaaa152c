"""PURE. What is measured: the cases, and how long and how often. Read by run.py and by everything that shows results.

A case's name is its key in results.json. Not every combination is here: those that the table of reach and the
sentences of the README need, so that all peers get five rounds within ten minutes.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB

# Opened at the same time: enough to keep a proxy busy, below every listening queue.
OPENS_IN_FLIGHT = 32


def size_text(size: int) -> str:
    """100 → "100 B", 65536 → "64 KiB"."""
    if size % MIB == 0:
        return f"{size // MIB} MiB"
    return f"{size // KIB} KiB" if size % KIB == 0 else f"{size} B"


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    kind: `down` (replica → client) and `up` as fast as it goes, `echo` one message in flight a session, `open` opens
    sessions, lets them idle, and then sends down all of them. `peers`: only these; empty means all.
    """

    kind: str
    size: int  # bytes of payload a frame
    sessions: int = 1
    peers: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.kind} {size_text(self.size)} x{self.sessions}"

    def includes(self, peer: str) -> bool:
        return not self.peers or peer in self.peers


@dataclass(frozen=True)
class Plan:
    """`rounds` times all cases, in each case all peers; `fresh`: with processes started anew for each round."""

    cases: tuple[Case, ...]
    rounds: int
    warm_seconds: float
    window_seconds: float
    fresh: bool = True


# Each peer where it tells something new: of compression, at 2 ms a frame, one size each way is enough proof (and a
# compressed MiB is over the original's limit for a message); tuned buffers matter for what is larger than them.
PLAIN = ("direct", "floor", "router", "router-messages", "haproxy", "haproxy-256k", "nginx", "nginx-256k", "original")
UNTUNED = ("direct", "floor", "router", "router-messages", "haproxy", "nginx", "original")

FULL = Plan(
    cases=(
        # First: memory a session is that of a process which has carried nothing yet.
        Case("open", 64 * KIB, sessions=500, peers=PLAIN),
        Case("down", 100, peers=UNTUNED),
        Case("down", 16 * KIB, peers=PLAIN),
        Case("down", 64 * KIB),
        Case("down", 256 * KIB, peers=PLAIN),
        Case("down", 1 * MIB, peers=PLAIN),
        Case("up", 100, peers=UNTUNED),
        Case("up", 64 * KIB),
        Case("up", 1 * MIB, peers=UNTUNED),
        Case("down", 64 * KIB, sessions=50, peers=UNTUNED),
        Case("echo", 100),
        Case("echo", 64 * KIB, peers=UNTUNED),
        Case("echo", 100, sessions=50, peers=UNTUNED),
    ),
    rounds=5,
    warm_seconds=0.15,
    window_seconds=0.4,
)

QUICK = Plan(
    cases=(
        Case("open", 64 * KIB, sessions=100, peers=("direct", "router", "haproxy", "nginx", "original")),
        Case("down", 64 * KIB, peers=UNTUNED),
        Case("up", 64 * KIB, peers=UNTUNED),
        Case("echo", 100, peers=UNTUNED),
    ),
    rounds=3,
    warm_seconds=0.1,
    window_seconds=0.2,
    fresh=False,
)

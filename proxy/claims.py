"""PURE. What placement and sessions say to each other: who wants a seat, what has gathered for a turn, what came of it.

Used by placement.py, settling.py and all that hold a claim.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from replicas.passive import Outcome

# Why a session gets no slot, ever.
NO_HEALTHY_REPLICA, QUEUE_FULL, EXHAUSTED = "no_healthy_replica", "queue_full", "exhausted"


# Why it is not admitted: for what it has shown, or because it would be more than a limit allows, of its address or its
# stream token; at once, or new ones within a minute.
UNAUTHORIZED, ORIGIN_NOT_ALLOWED = "unauthorized", "origin_not_allowed"
ADDRESS_SESSIONS, ADDRESS_RATE = "address_sessions", "address_rate"
TOKEN_SESSIONS, TOKEN_RATE = "token_sessions", "token_rate"
LIMITS = (ADDRESS_SESSIONS, ADDRESS_RATE, TOKEN_SESSIONS, TOKEN_RATE)


class ProcessEnded(Exception):
    """Others have seen this process's count stand still, and ended it: its sessions have no slots any more."""


@dataclass(frozen=True)
class Seat:
    """A slot that a session was given. `url` is normalised (no trailing slash)."""

    replica: int
    name: str
    url: str
    slow_start: bool = False


@dataclass(frozen=True)
class Access:
    """Who a client is, as limits count it. Those of its token are here, those of addresses in the router settings."""

    address: str | None = None  # None: unknown, or there is no limit
    token: int | None = None
    token_name: str = ""
    max_sessions: int = 0  # 0: no limit
    new_sessions_per_minute: int = 0


@dataclass
class Claim:
    """One session of this process as placement knows it. `id` None: it is not in the table yet.

    Belongs to the event loop: a turn reads it, and what comes of the turn is told by `Settled`.
    """

    uid: str
    client: str
    affinity_key: str | None
    opened_at: datetime
    id: int | None = None
    seat: Seat | None = None
    position: int | None = None  # the last one its client was told, in this wait or an earlier one
    avoid: dict[int, float] = field(default_factory=dict)  # replica → when it failed this session, Unix seconds
    # When it first stood in the line, in the loop's time: a replica that rejects all would have it wait for ever else.
    waits_since: float | None = None
    access: Access = Access()


@dataclass(frozen=True)
class Ended:
    """What the access log keeps of a session that is over."""

    claim: Claim
    at: datetime
    by: str
    why: str
    code: int | None = None
    first_media_at: datetime | None = None
    frames_up: int = 0
    bytes_up: int = 0
    frames_down: int = 0
    bytes_down: int = 0


@dataclass
class Batch:
    """What has gathered: sessions that come, that have lost their replica, that are over; and what was found out."""

    arrivals: list[Claim] = field(default_factory=list)
    returns: list[Claim] = field(default_factory=list)
    endings: list[Ended] = field(default_factory=list)
    outcomes: list[tuple[int, Outcome]] = field(default_factory=list)
    again: bool = False  # some of it was tried before, and may have come through though no answer said so

    def put_back(self, earlier: Batch) -> None:
        """What could not be settled, before what has come since."""
        self.again = True
        self.arrivals[:0], self.returns[:0] = earlier.arrivals, earlier.returns
        self.endings[:0], self.outcomes[:0] = earlier.endings, earlier.outcomes

    def take_one(self) -> Batch:
        """One thing of it, endings first."""
        one = Batch(again=self.again)
        pairs = [(self.endings, one.endings), (self.returns, one.returns), (self.arrivals, one.arrivals)]
        for mine, its in [*pairs, (self.outcomes, one.outcomes)]:
            if mine:
                its.append(mine.pop(0))  # type: ignore[attr-defined]  # both are of the same kind
                break
        return one

    def __len__(self) -> int:
        return len(self.arrivals) + len(self.returns) + len(self.endings) + len(self.outcomes)


@dataclass
class Settled:
    """What came of a turn, by id of the session. `ids`: those of the arrivals, by uid.

    `seats` has those of this process only. `stranded`: nothing is left to wait for. `ejected`: so many replicas were.
    Other processes to wake: `seated` have a session that was given a slot, in `moved` the line has moved.
    """

    ids: dict[str, int] = field(default_factory=dict)
    seats: dict[int, Seat] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    limited: dict[str, str] = field(default_factory=dict)  # by uid: refused by a limit, and without a row
    stranded: bool = False
    ejected: int = 0
    seated: set[int] = field(default_factory=set)
    moved: set[int] = field(default_factory=set)

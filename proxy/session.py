"""What is kept of one session: lines of the log (opened, each failed attempt, ended), and its end for the database.

Called by the consumer and search.py. Never keeps a prompt, a query or a header: they may hold what is not ours to keep.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from datetime import datetime

from django.utils import timezone

from proxy import instruments
from proxy.claims import Claim, Ended
from proxy.errors import Ending
from proxy.instruments import Moved
from proxy.links import Link
from proxy.process import placement, traffic

logger = logging.getLogger("proxy.session")


@dataclass
class SessionLog:
    """One client's WebSocket, from 101 to close. Durations are in seconds, by the monotonic clock."""

    id: str
    client: str
    replica: str = ""
    failed_attempts: int = 0
    first_media_at: datetime | None = None
    over: bool = False
    _opened_at: float = field(default_factory=time.monotonic)
    _placed_at: float | None = None

    def opened(self, path: str, request_id: str) -> None:
        """`request_id` is what its replicas see as X-Request-ID."""
        fields = {"client": self.client, "path": path}
        if request_id != self.id:
            fields["request_id"] = request_id
        instruments.opened()
        self._log(logging.INFO, "opened", **fields)

    def attempt_failed(self, replica: str, why: str) -> None:
        self.failed_attempts += 1
        instruments.attempt_failed()
        self._log(logging.WARNING, "attempt failed", replica=replica, why=why)

    def placed(self, replica: str) -> None:
        self.replica, self._placed_at = replica, time.monotonic()

    def media_came(self) -> None:
        self.first_media_at = timezone.now()
        if self._placed_at is not None:
            instruments.media_came(time.monotonic() - self._placed_at)

    def ended(self, ending: Ending, client: Link, replica: Link | None, claim: Claim | None) -> None:
        """`claim`: what placement knows of it; None: it did not come to that."""
        now = time.monotonic()
        self.over = True
        moved = moved_by(client, replica)
        traffic.ended(self.id, moved.bytes_up, moved.bytes_down)
        instruments.ended(ending, now - self._opened_at, moved)
        if claim is not None:
            placement().ended(self._for_the_database(ending, moved, claim))
        self._log(
            logging.INFO,
            "ended",
            replica=self.replica or None,
            by=ending.by,
            why=ending.why,
            code=ending.code,
            seconds=round(now - self._opened_at, 3),
            placed_after=round(self._placed_at - self._opened_at, 3) if self._placed_at else None,
            failed_attempts=self.failed_attempts,
            **moved._asdict(),
        )

    def _for_the_database(self, ending: Ending, moved: Moved, claim: Claim) -> Ended:
        return Ended(
            claim,
            at=timezone.now(),
            by=ending.by,
            why=ending.why,
            code=ending.code,
            first_media_at=self.first_media_at,
            **moved._asdict(),
        )

    def _log(self, level: int, event: str, **fields: object) -> None:
        shown = " ".join(f"{name}={_shown(value)}" for name, value in fields.items())
        logger.log(
            level, "session %s %s: %s", self.id, event, shown, extra={"session": self.id, "event": event} | fields
        )


def moved_by(client: Link, replica: Link | None) -> Moved:
    """What the two have sent so far."""
    return Moved(
        frames_up=client.received_frames,
        bytes_up=client.received_bytes,
        frames_down=replica.received_frames if replica is not None else 0,
        bytes_down=replica.received_bytes if replica is not None else 0,
    )


def _shown(value: object) -> str:
    text = "-" if value is None else str(value)
    return f'"{text}"' if " " in text else text

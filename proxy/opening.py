"""A session until it has begun: what its client sends is held, and given to one replica after the other.

A session has begun when its replica has sent any data frame other than a `queue_status` or `error` message (design,
decision 3). Until then, and no longer, a replica's short text messages are read for their type, and the client's pings
are answered by its link and not held. Made by the consumer; relay.py offers it a replica. Must not choose one.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

from proxy import frames
from proxy.errors import INTERNAL_ERROR, Close
from proxy.frames import Octets
from proxy.holding import Hold
from proxy.links import Link

logger = logging.getLogger("proxy.session")

# A longer message is not one of those that come before a session has begun.
READ_BYTES = 4096
QUEUE_STATUS, ERROR, REJECTED = "queue_status", "error", "session_rejected"


class Opening:
    """`begun`: a replica has taken the session for good. `withheld`: the rejection that its close is awaited for."""

    def __init__(self, client: Link, session: str) -> None:
        self.begun = False
        self.began: Callable[[], None] = _nothing  # called when the session has begun,
        self.media_came: Callable[[], None] = _nothing  # and with its replica's first binary frame
        self._has_media = False
        self.withheld: str | None = None
        self._client, self._session = client, session
        self._replica: Link | None = None
        self._live = False  # the replica has all that is held, and gets what comes as it comes
        self._hold = Hold()
        self._replay: asyncio.Task[None] | None = None
        client.start(self._from_client)

    @property
    def repeatable(self) -> bool:
        """Can another replica be given all that the client has sent?"""
        return self._hold.kept

    def offer(self, replica: Link) -> None:
        """Give `replica` all that the client has sent and sends, until it has begun or is withdrawn."""
        self._replica = replica
        self._client.source = replica
        if self._hold.size:
            self._replay = asyncio.create_task(self._give_all(replica), name=f"session {self._session}: replay")
        else:
            self._go_live()
        replica.start(self._from_replica)

    async def withdraw(self) -> None:
        """The replica is lost to this session: what it was given is held for the next."""
        if self._replica is not None:
            self._replica.source = None
        self._replica, self._live, self._client.source = None, False, None
        if self._replay is not None:
            self._replay.cancel()
            await asyncio.wait({self._replay})

    async def all_given(self) -> None:
        """Wait until the replica has been given all that is held, or is lost: its watch ends one that takes nothing."""
        if self._replay is not None and self._replica is not None:
            gone: asyncio.Future[Any] = self._replica.gone
            await asyncio.wait((self._replay, gone), return_when=asyncio.FIRST_COMPLETED)

    def end(self) -> None:
        """Let go of what is held, and of both links."""
        self._hold.release()
        replay, self._replay = self._replay, None  # a task that was cancelled keeps its frame, and so this object
        if replay is not None:
            replay.cancel()
        self._replica = None

    def _from_client(self, units: Sequence[Octets]) -> None:
        if self._live and self._hold.full:
            self._hold.release()  # more than may be held: this replica or none
        try:
            if self._hold.kept:
                self._hold.add(units)
        except OSError:
            if not self._live:
                self._cannot_hold()
                return
            self._hold.release()  # the replica has it all: this one or none
        if self._live and self._replica is not None:
            self._replica.write(units)
        elif self._hold.full:
            self._client.pause_reading()

    async def _give_all(self, replica: Link) -> None:
        try:
            for lump in self._hold.lumps():
                replica.write([lump])
                await replica.writable()
        except OSError:
            self._cannot_hold()
            return
        if replica.gone.done():
            return
        # Nothing is awaited from the last lump on: what comes next goes the direct way.
        self._go_live()

    def _go_live(self) -> None:
        self._live = True
        if self._replica is not None:
            self._replica.source = self._client  # not before: the replay has its own push-back, and the hold room
        self._client.resume_reading()
        self._settle()

    def _cannot_hold(self) -> None:
        logger.exception(
            "session %s: its client's frames cannot be held", self._session, extra={"session": self._session}
        )
        self._client.refuse(Close(INTERNAL_ERROR, "internal_error"), "its frames cannot be held")

    def _from_replica(self, units: Sequence[Octets]) -> None:
        octets = b"".join(units)
        for first, payload, frame in frames.split(octets):
            said = None if self.begun else _said(first, payload)
            if self.withheld is not None:
                # It goes on: what was withheld is no last word.
                self._client.send_text(self.withheld)
                self.withheld = None
            if said == REJECTED:
                self.withheld = str(payload, "utf-8")
                continue
            if said is None and first & 0x0F < frames.CLOSE and not self.begun:
                self.begun = True
                self.began()
            self._notice_media(first)
            self._client.write([frame])
        if self.begun:
            self._settle()

    def _notice_media(self, first: int) -> None:
        if first & 0x0F == frames.BINARY and not self._has_media:
            self._has_media = True
            self.media_came()

    def _until_media(self, units: Sequence[Octets]) -> None:
        """The replica's sink until its first media; what comes behind it in the same read counts with the next."""
        for unit in units:
            self._notice_media(unit[0])
        if self._has_media and self._replica is not None:
            self._replica.redirect(self._client.write)
        self._client.write(units)

    def _settle(self) -> None:
        """From here on frames pass unopened, each side straight to the other."""
        client, replica = self._client, self._replica
        if not self.begun or replica is None:
            return
        replica.redirect(client.write if self._has_media else self._until_media)
        if self._live:
            client.redirect(replica.write)
            client.answers_pings, replica.answers_pings = False, not client.by_frames
            self._hold.release()


def _nothing() -> None:
    """Nobody asked to be called."""


def _said(first: int, payload: memoryview) -> str | None:
    """Which of the messages that may come before a session has begun this frame is; None: none of them."""
    if first != frames.FIN | frames.TEXT or len(payload) > READ_BYTES:
        return None
    try:
        message = json.loads(str(payload, "utf-8"))  # from bytes it would let lone surrogates pass
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or message.get("type") not in (QUEUE_STATUS, ERROR):
        return None
    return REJECTED if message["type"] == ERROR and message.get("code") == REJECTED else str(message["type"])

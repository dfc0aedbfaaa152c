"""Find a replica that takes a session: a seat, an attempt, the next seat, and a client that may leave meanwhile.

Called by the consumer, once and again until the session has begun. Must not end a session: it says what it came to.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable
from typing import Any

from django.conf import settings

from proxy import errors, instruments
from proxy.claims import EXHAUSTED, LIMITS, NO_HEALTHY_REPLICA, QUEUE_FULL, Claim, Seat
from proxy.errors import Close, Ending
from proxy.forwarding import Handshake
from proxy.line import QUEUE_TIMEOUT, Refused
from proxy.links import Link
from proxy.pace import paced
from proxy.placement import ROUTER_DRAINING, DatabaseAway, Placement
from proxy.relay import client_departed
from proxy.session import SessionLog
from proxy.settling import AVOID_SECONDS
from proxy.upstream import ReplicaRefused, ReplicaUnreachable, open_replica
from proxy.wire import WireLink
from replicas.passive import Outcome

logger = logging.getLogger("proxy.session")

# A replica in slow start that has not come to a session is avoided by it for so long: its slots are there to be had.
NO_TURN_SECONDS = 1.0

# A replica that is open, or how the session ended meanwhile.
Found = WireLink | Ending

REFUSALS: dict[str, Callable[[], Ending]] = {
    NO_HEALTHY_REPLICA: errors.no_healthy_replica,
    QUEUE_FULL: errors.queue_full,
    QUEUE_TIMEOUT: errors.queue_timeout,
    ROUTER_DRAINING: errors.router_draining,
}


class _NoTurn(Exception):
    """A replica in slow start has its connects one after the other, and ours did not come up in time."""


class Search:
    """One session's."""

    def __init__(
        self,
        log: SessionLog,
        claim: Claim,
        placement: Placement,
        client: Link,
        handshake: Handshake,
        farewell: Callable[[WireLink, Close], None],
    ) -> None:
        """`farewell` lets go of a replica that is not wanted any more, without waiting for it."""
        self._log, self._claim, self._placement = log, claim, placement
        self._client, self._handshake, self._farewell = client, handshake, farewell
        self._attempting_seconds = 0.0
        self._attempted = False
        self._rejection: Ending | None = None
        self._without_turn: set[int] = set()  # replicas that are avoided because they have not come to us

    async def next(self) -> Found:
        """The next replica that accepts; where the client leaves first, nothing is left open."""
        search = asyncio.create_task(self._next(), name=f"session {self._log.id}: placement")
        gone: asyncio.Future[Any] = self._client.gone
        taken = False
        try:
            await asyncio.wait((search, gone), return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                return client_departed(gone.result(), self._log.id)
            taken = True
            return search.result()
        finally:
            if not taken:
                await self._abandon(search)

    def rejected(self, words: Ending) -> None:
        """The replica of the last `next` had no room: it counts as full for a while. `words`: its own."""
        self._rejection = words
        self._learned(Outcome.REJECTED)

    def lost(self) -> None:
        """The replica of the last `next` was lost before the session had begun: as good as no connect."""
        self._avoid()
        self._learned(Outcome.FAILED)

    def begun(self) -> None:
        self._learned(Outcome.CONNECTED)
        self._learned(Outcome.ROOM)

    async def _next(self) -> Found:
        """Take one seat after the other until a replica accepts."""
        while True:
            try:
                seat = await self._placement.seat(self._claim, self._tell)
            except DatabaseAway:
                uid = self._log.id
                logger.warning("session %s: the database does not answer", uid, extra={"session": uid})
                return errors.router_unavailable()
            except Refused as refused:
                if refused.reason == EXHAUSTED and self._without_turn:
                    # They have not failed and there is no other: their slots are free, and our turn will come.
                    for avoided in self._without_turn:
                        self._claim.avoid.pop(avoided, None)
                    self._without_turn.clear()
                    continue
                return self._refusal(refused.reason)
            if self._attempting_seconds >= settings.ROUTER_FAILOVER_TIMEOUT_SECONDS:
                return self._refusal(EXHAUSTED)
            began = time.monotonic()
            try:
                replica = await self._attempt(seat)
            except _NoTurn:
                self._avoid(NO_TURN_SECONDS)  # another one may be free
                self._without_turn.add(seat.replica)
            except ReplicaUnreachable as fault:
                self._log.attempt_failed(seat.name, str(fault))
                self._avoid()
                if fault.its_fault:
                    self._learned(Outcome.FAILED)
            except ReplicaRefused as fault:
                self._log.attempt_failed(seat.name, str(fault))
                return self._refusal(EXHAUSTED)
            else:
                self._log.placed(seat.name)
                return replica
            finally:
                self._attempting_seconds += time.monotonic() - began

    async def _attempt(self, seat: Seat) -> WireLink:
        """Raises _NoTurn, ReplicaUnreachable or ReplicaRefused. A connect has its whole time from when its turn comes:
        with what a wait has left of it, a replica that is only new would seem to hang, and be ejected."""
        left = settings.ROUTER_FAILOVER_TIMEOUT_SECONDS - self._attempting_seconds
        timeout = min(settings.ROUTER_CONNECT_TIMEOUT_SECONDS, left)
        async with contextlib.AsyncExitStack() as turn:
            try:
                async with asyncio.timeout(timeout):
                    await turn.enter_async_context(paced(seat))
            except TimeoutError as late:
                raise _NoTurn from late
            try:
                return await self._open(seat, timeout)
            except ReplicaUnreachable as fault:
                # With less than a connect's time there is no telling.
                fault.its_fault &= timeout >= settings.ROUTER_CONNECT_TIMEOUT_SECONDS
                raise

    async def _open(self, seat: Seat, timeout: float) -> WireLink:
        instruments.attempted(again=self._attempted)
        self._attempted = True
        began = time.monotonic()
        replica = await open_replica(seat.url, self._handshake, timeout)
        instruments.connected(time.monotonic() - began)
        return replica

    def _refusal(self, reason: str) -> Ending:
        if reason in (EXHAUSTED, QUEUE_FULL) and self._rejection is not None:
            return self._rejection  # no other replica has made it good
        if reason in REFUSALS:
            return REFUSALS[reason]()
        if reason in LIMITS:
            return errors.not_admitted(reason)
        return errors.every_attempt_failed(self._log.id, "every attempt failed")

    def _tell(self, position: int, depth: int) -> None:
        self._client.send_text(json.dumps({"type": "queue_status", "position": position, "queue_depth": depth}))

    def _avoid(self, seconds: float = AVOID_SECONDS) -> None:
        if self._claim.seat is not None:
            self._claim.avoid[self._claim.seat.replica] = time.time() - AVOID_SECONDS + seconds

    def _learned(self, outcome: Outcome) -> None:
        if self._claim.seat is not None:
            self._placement.learned(self._claim.seat.replica, outcome)

    async def _abandon(self, search: asyncio.Task[Found]) -> None:
        """End `search`; a replica that it opened in the very moment its client left gets a close.

        Also where we are cancelled, and again: nobody else would know of that replica. It takes a step or two.
        """
        search.cancel()
        while not search.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({search})
        if not search.cancelled() and search.exception() is None:
            found = search.result()
            if isinstance(found, WireLink):
                self._farewell(found, Close(errors.GOING_AWAY))

"""Find a replica that takes a session: placement, attempts in its order, and a client that may leave meanwhile.

Called by the consumer, once and again until the session has begun. Must not end a session: it says what it came to.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from django.conf import settings

from proxy import errors
from proxy.errors import Close, Ending
from proxy.forwarding import Handshake
from proxy.links import Link
from proxy.placement import DatabaseAway, ranked_replicas
from proxy.relay import client_departed
from proxy.session import Session
from proxy.upstream import ReplicaRefused, ReplicaUnreachable, open_replica
from proxy.wire import WireLink

logger = logging.getLogger("proxy.session")

# A replica that is open, how the session ended meanwhile, or None: no replica is left to try.
Found = WireLink | Ending | None


class Search:
    """One session's. Each replica is tried once."""

    def __init__(
        self, session: Session, client: Link, handshake: Handshake, farewell: Callable[[WireLink, Close], None]
    ) -> None:
        """`farewell` lets go of a replica that is not wanted any more, without waiting for it."""
        self._session, self._client, self._handshake, self._farewell = session, client, handshake, farewell
        self._tried: set[int] = set()

    async def next(self) -> Found:
        """The next replica that accepts; where the client leaves first, nothing is left open."""
        search = asyncio.create_task(self._next(), name=f"session {self._session.id}: placement")
        gone: asyncio.Future[Any] = self._client.gone
        taken = False
        try:
            await asyncio.wait((search, gone), return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                return client_departed(gone.result(), self._session.id)
            taken = True
            return search.result()
        finally:
            if not taken:
                await self._abandon(search)

    async def _next(self) -> Found:
        """Try the replicas in order until one accepts, all of this call within ROUTER_FAILOVER_TIMEOUT_SECONDS."""
        try:
            order = await ranked_replicas()
        except DatabaseAway:
            logger.warning("session %s: the database does not answer", self._session.id, exc_info=True)
            return errors.router_unavailable()
        if not order and not self._tried:
            return errors.no_healthy_replica()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + settings.ROUTER_FAILOVER_TIMEOUT_SECONDS
        for candidate in order:
            timeout = min(settings.ROUTER_CONNECT_TIMEOUT_SECONDS, deadline - loop.time())
            if candidate.id in self._tried:
                continue
            if timeout <= 0:
                break
            self._tried.add(candidate.id)
            try:
                replica = await open_replica(candidate.url, self._handshake, timeout)
            except ReplicaUnreachable as fault:
                self._session.attempt_failed(candidate.name, str(fault))
            except ReplicaRefused as fault:
                self._session.attempt_failed(candidate.name, str(fault))
                break
            else:
                self._session.placed(candidate.name)
                return replica
        return None

    async def _abandon(self, search: asyncio.Task[Found]) -> None:
        """End `search`; a replica that it opened in the very moment its client left gets a close."""
        search.cancel()
        await asyncio.wait({search})
        if not search.cancelled() and search.exception() is None:
            found = search.result()
            if isinstance(found, WireLink):
                self._farewell(found, Close(errors.GOING_AWAY))

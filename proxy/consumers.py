"""The story of one session, readable from top to bottom.

Made by Channels for each WebSocket on a stream path. The story runs as a task of its own, because Channels gives a
consumer one message at a time: a handler that waited for a replica would not hear that its client left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import uuid
from collections.abc import Iterable
from typing import Any

from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.db import Error as DatabaseFault
from django.utils import timezone

from proxy import errors, process
from proxy.admission import NotAdmitted, admit
from proxy.affinity import affinity_key
from proxy.claims import LIMITS, Claim
from proxy.credentials import credentials, without_ours, without_tickets
from proxy.errors import Close, Ending
from proxy.forwarding import Handshake, forwarded_headers, forwarded_query
from proxy.instruments import Moved
from proxy.links import TAKE_OVER, Link, TakeOver
from proxy.messages import MessageLink
from proxy.opening import Opening
from proxy.placement import DatabaseAway, Placement
from proxy.relay import relay
from proxy.search import Search
from proxy.session import SessionLog, moved_by
from proxy.traffic import Carrying
from proxy.wire import WireLink
from replicas.client_address import client_address

logger = logging.getLogger("proxy.session")

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# For a replica to hear that a session has left it, before its slot is given to the next.
ROOM_SECONDS = 0.25
# For all goodbyes together when the server is being stopped.
HURRY_SECONDS = 2.0


class StreamConsumer(AsyncWebsocketConsumer):
    """Selects a replica for one client and bridges to it (contract A1)."""

    # A layer that is not defined: with one, a failure of Redis would end the session (design, decision 9).
    channel_layer_alias = "none"

    log: SessionLog
    address: str | None
    claim: Claim | None = None
    link: Link
    handshake: Handshake
    replica: WireLink | None = None
    story: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Accept at once: whatever there is to say, the client can only hear it in-band (design, decision 1)."""
        self.address = _address(self.scope)
        self.log = SessionLog(id=uuid.uuid4().hex, client=_shown(self.address, self.scope))
        subprotocol = _first_subprotocol(self.scope["headers"])
        offer = TakeOver()
        await self.base_send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": [], TAKE_OVER: offer})
        if offer.connect is not None:
            self.link = await offer.connect()
        else:
            self.link = MessageLink(self.base_send, self.scope.get("scheme") == "wss")
        self.handshake = self._handshake(subprotocol)
        self.log.opened(self.scope["path"], self.handshake.request_id)
        self.story = asyncio.create_task(self._tell(), name=f"session {self.log.id}")
        process.carry(self.log.id, self, self.story)

    async def _tell(self) -> None:
        self.farewells: dict[WireLink, asyncio.Task[None]] = {}
        hurry = process.stopping
        try:
            ending = self._router_stops() if hurry else await self._serve()
        except asyncio.CancelledError:
            ending, hurry = self._router_stops(), True
        except Exception:
            logger.exception("session %s: fault of the router", self.log.id, extra={"session": self.log.id})
            ending = errors.router_failed(self.log.id)
        goodbye = self._say_goodbye(ending)
        over = False
        try:
            if not hurry:
                with contextlib.suppress(asyncio.CancelledError):
                    await self._slot_is_free(goodbye)
            # Before the goodbyes are over: a peer that is slow to answer its close does not make the session longer.
            self.log.ended(ending, self.link, self.replica, self.claim)
            if not hurry and not asyncio.current_task().cancelling():  # type: ignore[union-attr]  # it is a task's
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.shield(goodbye)
            # The server stops and waits for us: time for a goodbye, not for a client that does not read.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HURRY_SECONDS):
                    await asyncio.shield(goodbye)
                    over = True
        finally:
            if not over:
                self._let_go(goodbye)

    def _router_stops(self) -> Ending:
        """One that no replica has taken yet may have a session of another process at once."""
        return errors.router_stops() if self.replica is not None else errors.router_draining()

    async def _slot_is_free(self, goodbye: asyncio.Task[None]) -> None:
        """Wait a moment for the replica's answer to our close: until then it may count the session as its own."""
        if self.replica is not None:
            await asyncio.wait({goodbye, self.replica.over}, timeout=ROOM_SECONDS, return_when=asyncio.FIRST_COMPLETED)

    async def _serve(self) -> Ending:
        """Give the client to one replica after the other until its session has begun, and relay it to its end."""
        placement = process.placement()
        opening = Opening(self.link, self.log.id)
        try:
            self.claim = await self._claim(placement)
            search = Search(self.log, self.claim, placement, self.link, self.handshake, self._farewell)
            opening.began, opening.media_came = search.begun, self.log.media_came
            while True:
                found = await search.next()
                if isinstance(found, Ending):
                    if found.why in LIMITS:
                        self.claim = None  # strangers fill no table: it has no row
                    return found
                self.replica = found
                outcome = await relay(self.link, found, opening, self.log.id)
                if isinstance(outcome, Ending):
                    return outcome
                self.log.attempt_failed(self.log.replica, outcome.why)
                if not opening.repeatable:
                    return outcome.rejection or errors.replica_lost(self.log.id, outcome.why)
                if outcome.rejection is not None:
                    search.rejected(outcome.rejection)
                else:
                    search.lost()
                self.replica = None
                self._farewell(found)
        except NotAdmitted as refused:
            return errors.not_admitted(refused.reason)
        except DatabaseAway:
            return errors.router_unavailable()
        finally:
            opening.end()

    async def _claim(self, placement: Placement) -> Claim:
        """What placement gets to know. Raises NotAdmitted or DatabaseAway."""
        await placement.ready()
        query, headers, current = self.scope["query_string"], self.scope["headers"], placement.settings
        try:
            access = await admit(credentials(query, headers), self.address, current)
        except (TimeoutError, DatabaseFault) as fault:
            raise DatabaseAway from fault
        key = affinity_key(current.affinity, query, headers, settings.SECRET_KEY)
        return Claim(self.log.id, self.log.client, key, opened_at=timezone.now(), access=access)

    def _say_goodbye(self, ending: Ending) -> asyncio.Task[None]:
        """Tell both sides, before anything is awaited: also a story that is cancelled twice has told them.

        The task that is left waits for them to go.
        """
        if self.replica is not None:
            self._farewell(self.replica, ending.to_replica)
        if ending.error_frame is not None:
            self.link.send_text(ending.error_frame)
        to_client = ending.to_client or Close(None)
        self.link.say_close(to_client)
        return asyncio.create_task(self._part(to_client), name=f"session {self.log.id}: goodbye")

    async def _part(self, to_client: Close) -> None:
        """From all at the same time: a client that is slow to go must not keep a slot of the replica."""
        await self.link.close(to_client)
        if self.farewells:
            await asyncio.wait(self.farewells.values())

    def _farewell(self, replica: WireLink, close: Close | None = None) -> None:
        """Let go of `replica`, at leisure; without `close` it has left, or knows."""
        name = f"session {self.log.id}: farewell to a replica"
        replica.say_close(close or Close(None))
        self.farewells[replica] = asyncio.create_task(replica.close(close or Close(None)), name=name)

    def _let_go(self, goodbye: asyncio.Task[None]) -> None:
        """Who has not answered has had its time."""
        goodbye.cancel()
        self.link.abort()
        for replica, farewell in self.farewells.items():
            farewell.cancel()
            replica.abort()

    # --- what the process calls (process.Carried) ---

    def dismiss(self, reason: str) -> None:
        self.link.refuse(Close(errors.SERVICE_RESTART, reason), reason)

    def abandon(self) -> None:
        if self.story is not None:
            self.story.cancel()

    def carrying(self) -> Carrying | None:
        if self.log.over:
            return None
        moved = moved_by(self.link, self.replica)
        return Carrying(self.claim.id if self.claim is not None else None, moved.bytes_up, moved.bytes_down)

    def moved(self) -> Moved | None:
        return None if self.log.over else moved_by(self.link, self.replica)

    def _handshake(self, subprotocol: str | None) -> Handshake:
        return Handshake(
            query=forwarded_query(without_tickets(self.scope["query_string"])),
            subprotocol=subprotocol,
            headers=forwarded_headers(
                without_ours(self.scope["headers"], (settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME)),
                session=self.log.id,
                allowed=settings.ROUTER_FORWARD_HEADERS,
                client_address=self.scope["client"][0] if self.scope.get("client") else None,
                secure=self.link.secure,
                behind_proxy=settings.BEHIND_PROXY,
                authorization=settings.ROUTER_UPSTREAM_AUTHORIZATION,
            ),
        )

    # --- what Channels calls ---

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # The server ends us: the story's task is ours to end. Not twice, its goodbye is then under way.
            if self.story is not None and not self.story.cancelling():
                self.story.cancel()
            if self.story is not None:
                await asyncio.wait({self.story})

    async def dispatch(self, message: dict[str, Any]) -> None:
        # Past Channels' per-message database cleanup: it hops to a shared thread, and one slow query would stall
        # every session's frames (and, before the accept, outlast Daphne's handshake timeout).
        handlers = {
            "websocket.connect": self.websocket_connect,
            "websocket.receive": self.websocket_receive,
            "websocket.disconnect": self.websocket_disconnect,
        }
        await handlers[message["type"]](message)

    async def websocket_receive(self, message: dict[str, Any]) -> None:
        if isinstance(self.link, MessageLink):
            text = message.get("text")
            await self.link.message_received(message["bytes"] if text is None else text)

    async def websocket_disconnect(self, message: dict[str, Any]) -> None:
        if self.story is not None:
            if isinstance(self.link, MessageLink):
                self.link.departed(message.get("code", 1005), message.get("reason"))
            await asyncio.wait({self.story})
        raise StopConsumer


def _first_subprotocol(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The client's first one as it wrote it; what is no token (RFC 9110 §5.6.2) is none.

    Daphne's scope has it with %-escapes resolved, and Daphne then refuses it.
    """
    offered = ",".join(value.decode("latin-1") for name, value in headers if name.lower() == b"sec-websocket-protocol")
    return next((name for name in map(str.strip, offered.split(",")) if _TOKEN.fullmatch(name)), None)


def _address(scope: dict[str, Any]) -> str | None:
    """The client's; None: it came by a Unix socket, and nobody has said more."""
    peer = scope["client"][0] if scope.get("client") else None
    forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"x-forwarded-for"]
    return client_address(peer, forwarded, settings.ROUTER_TRUSTED_PROXIES)


def _shown(address: str | None, scope: dict[str, Any]) -> str:
    """For the log: with the port where it is the peer's own."""
    if settings.ROUTER_TRUSTED_PROXIES or not scope.get("client"):
        return address or "unknown"
    return "{}:{}".format(*scope["client"])

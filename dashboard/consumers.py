"""One watcher: an operator's page, live over a WebSocket. A snapshot first, then what has changed, each second.

Its client is a link like a session's (proxy/links.py): so there is push-back, and one that is slow is told the newest
state when it takes more, never all that it has missed. What it says is not listened to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import Any

from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.db import Error as DatabaseFault

from dashboard.access import may_by_session
from dashboard.changes import as_json, changes, snapshot
from dashboard.database import in_time
from dashboard.live import reader
from proxy.affinity import cookie
from proxy.errors import GOING_AWAY, INTERNAL_ERROR, TRY_AGAIN_LATER, Close
from proxy.links import TAKE_OVER, Link, TakeOver
from proxy.messages import MessageLink

logger = logging.getLogger("dashboard")

NOT_STAFF = Close(4403, "sign in as staff")
# So often it is asked again who watches: a sign-out or a permission that was taken counts from then.
ASK_AGAIN_SECONDS = 15.0
# For the goodbye when the server is being stopped.
HURRY_SECONDS = 1.0

_watches: set[asyncio.Task[None]] = set()


async def end() -> None:
    """Tell all watchers that the process ends: their pages come back by another one. Within HURRY_SECONDS."""
    for watch in _watches:
        watch.cancel()
    if _watches:
        await asyncio.wait(_watches.copy())


class LiveConsumer(AsyncWebsocketConsumer):
    """See above."""

    channel_layer_alias = "none"  # its news come from the database (design, decision 9)

    link: Link
    watch: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Accept whoever comes: why not can only be said in a close (4403), a browser shows no status."""
        offer = TakeOver()
        await self.base_send({"type": "websocket.accept", TAKE_OVER: offer})
        if offer.connect is not None:
            self.link = await offer.connect()
        else:
            self.link = MessageLink(self.base_send, self.scope.get("scheme") == "wss")
        self.link.start(lambda units: None)
        self.watch = asyncio.create_task(self._watch(), name="dashboard: watcher")
        _watches.add(self.watch)
        self.watch.add_done_callback(_watches.discard)

    async def _watch(self) -> None:
        try:
            close = await self._show()
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HURRY_SECONDS):
                    await self.link.close(Close(GOING_AWAY, "the router stops"))
            self.link.abort()
            return
        except Exception:
            logger.exception("dashboard: fault of the router")
            close = Close(INTERNAL_ERROR)
        await self.link.close(close)

    async def _show(self) -> Close:
        """Until the page is left, or may not be seen any more; gives what to say."""
        show = asyncio.create_task(self._tell(), name="dashboard: tell")
        gone: asyncio.Future[Any] = self.link.gone
        try:
            await asyncio.wait({show, gone}, return_when=asyncio.FIRST_COMPLETED)
            return show.result() if show.done() else Close(None)
        finally:
            show.cancel()
            await asyncio.wait({show})

    async def _tell(self) -> Close:
        loop = asyncio.get_running_loop()
        sent: dict[str, Any] | None = None
        try:  # before anything is read for it
            may = await self._may()
        except DatabaseFault:
            return Close(TRY_AGAIN_LATER, "the database does not answer")
        ask_at = loop.time() + ASK_AGAIN_SECONDS
        if may is None:
            return NOT_STAFF
        with reader().watching() as news:
            while True:
                if loop.time() >= ask_at:
                    with contextlib.suppress(DatabaseFault):
                        may = await self._may()
                        ask_at = loop.time() + ASK_AGAIN_SECONDS
                    if may is None:
                        return NOT_STAFF
                await news.wait()
                news.clear()
                await self.link.writable()
                # The newest: while this one took nothing there may have been several.
                state = reader().state
                assert state is not None
                if sent is not None and state["at"] == sent["at"]:
                    continue
                state = state | {"may": may}
                self.link.send_text(as_json(snapshot(state) if sent is None else changes(sent, state)))
                sent = state

    async def _may(self) -> dict[str, bool] | None:
        return await in_time(partial(may_by_session, self._session_key))

    @property
    def _session_key(self) -> str | None:
        return cookie(settings.SESSION_COOKIE_NAME, self.scope["headers"])

    # --- what Channels calls ---

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self.watch is not None:
                if not self.watch.cancelling():  # not twice: its goodbye is then under way
                    self.watch.cancel()
                await asyncio.wait({self.watch})

    async def dispatch(self, message: dict[str, Any]) -> None:
        # Past Channels' database cleanup for each message: its threads are not those that ask the database here.
        handlers = {
            "websocket.connect": self.websocket_connect,
            "websocket.receive": self.websocket_receive,
            "websocket.disconnect": self.websocket_disconnect,
        }
        await handlers[message["type"]](message)

    async def websocket_receive(self, message: dict[str, Any]) -> None:
        """Not listened to."""

    async def websocket_disconnect(self, message: dict[str, Any]) -> None:
        if self.watch is not None:
            if isinstance(self.link, MessageLink):
                self.link.departed(message.get("code", 1005), message.get("reason"))
            await asyncio.wait({self.watch})
        raise StopConsumer

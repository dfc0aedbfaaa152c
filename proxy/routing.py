"""Which WebSocket addresses there are: the stream paths, those of the rooms above, and nothing else."""

from __future__ import annotations

from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import URLRouter
from django.conf import settings
from django.urls import URLPattern, path, re_path

from proxy.consumers import StreamConsumer


class NoSuchStream(AsyncWebsocketConsumer):
    """Refuses the handshake (HTTP 403): without it a mistyped address would be an exception in the log."""

    channel_layer_alias = "none"

    async def connect(self) -> None:
        await self.close()


def application(*others: URLPattern) -> Any:
    """The ASGI application for `websocket` scopes; `others`: of the rooms above this one."""
    return URLRouter(
        [
            *others,
            *(path(p.removeprefix("/"), StreamConsumer.as_asgi()) for p in settings.ROUTER_STREAM_PATHS),
            re_path("", NoSuchStream.as_asgi()),
        ]
    )

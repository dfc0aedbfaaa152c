"""The dashboard's WebSocket address, for routerproject/asgi.py."""

from __future__ import annotations

from channels.security.websocket import AllowedHostsOriginValidator
from django.urls import path

from dashboard.consumers import LiveConsumer

# Only of pages of our own: a browser brings the operator's cookie along from any other. Who it is the consumer asks
# itself: AuthMiddlewareStack would ask before the accept, where a database that is away is an exception in the log, and
# a page cannot be told that it may not watch.
watching = path("dashboard/live", AllowedHostsOriginValidator(LiveConsumer.as_asgi()))

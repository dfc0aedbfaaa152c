"""Open a replica's WebSocket with the websockets client, which checks its handshake; its errors become ours here.

Called by search.py, which tries one replica after the other. No error of this module carries an address, a URL or
a library's text to a client: those are in `__cause__`, for the log.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from functools import cache
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI
from websockets.protocol import State

from proxy.forwarding import Handshake
from proxy.wire import WireLink
from replicas.addresses import Address
from replicas.reaching import AddressRefused, reach

# Bad request, too large, URI too long, header fields too large: what a client's headers and query can bring about.
REQUESTS_FAULT = {400, 413, 414, 431}
HEAD_END = b"\r\n\r\n"


class ReplicaUnreachable(Exception):
    """This replica did not give us a session; another may. The text is short and for the log.

    `its_fault`: does it speak against the replica? Not where the client's own handshake may be what it disliked: any
    client could then have replicas ejected.
    """

    def __init__(self, text: str, *, its_fault: bool = True) -> None:
        super().__init__(text)
        self.its_fault = its_fault


class ReplicaRefused(Exception):
    """The replica said 401 or 403: so would the next one, the credentials are the router's or the client's."""


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception:
        return exc  # a redirect is a failure (contract A7.11): it could lead anywhere


class _Connection(ClientConnection):
    """Reads no further than the opening handshake: what comes behind it is frames, for wire.py (`early`)."""

    early = b""
    _end_of_head = b""  # the last octets read, where the head's end may be cut in two

    @property
    def _opened(self) -> bool:
        return self.protocol.state is State.OPEN

    def data_received(self, data: bytes) -> None:
        if self._opened:
            self.early += data
            return
        seen = self._end_of_head + data
        end = seen.find(HEAD_END)
        self._end_of_head = seen[-len(HEAD_END) + 1 :]
        cut = len(data) if end < 0 else end + len(HEAD_END) - (len(seen) - len(data))
        super().data_received(data[:cut])
        if self._opened:
            self.early = data[cut:]
            self.transport.pause_reading()  # until the link reads on
        elif cut < len(data):
            super().data_received(data[cut:])  # the body of a refusal


async def open_replica(url: str, handshake: Handshake, timeout: float) -> WireLink:
    """Connect to the replica at `url` (http or https) within `timeout` seconds, name look-up included.

    Raises ReplicaUnreachable, or ReplicaRefused on 401/403. Cancelling it leaves nothing open.
    """
    try:
        async with asyncio.timeout(timeout):
            connection = await _open(url, handshake, await _socket(url))
    except AddressRefused as refused:
        raise ReplicaUnreachable(str(refused)) from refused
    except (OSError, InvalidHandshake, InvalidURI) as error:
        raise _translated(error, timeout) from error
    assert isinstance(connection, _Connection)
    if connection.subprotocol != handshake.subprotocol:
        connection.transport.abort()
        raise ReplicaUnreachable("it does not speak the subprotocol that the client was given", its_fault=False)
    link = WireLink(client=False, secure=url.startswith("https:"), early=connection.early)
    connection.transport.set_protocol(link)
    link.connection_made(connection.transport)
    return link


async def _socket(url: str) -> socket.socket:
    """Connected to the replica's host, at an address where a replica may be. Raises OSError, AddressRefused."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)

    async def connect(address: Address) -> socket.socket:
        family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.setblocking(False)
            await asyncio.get_running_loop().sock_connect(made, (str(address), port))
        except BaseException:
            made.close()
            raise
        return made

    return await reach(parts.hostname or "", connect, _close)


async def _close(one_too_many: socket.socket) -> None:
    one_too_many.close()


async def _open(url: str, handshake: Handshake, connected: socket.socket) -> ClientConnection:
    """Over `connected`, which is the connection's own from here on."""
    target = "ws" + url.removeprefix("http") + settings.ROUTER_UPSTREAM_PATH
    if handshake.query:
        target += "?" + handshake.query
    secure: dict[str, Any] = {"ssl": _tls()} if target.startswith("wss:") else {}
    try:
        opening = _Connect(
            target,
            sock=connected,
            subprotocols=[handshake.subprotocol] if handshake.subprotocol else None,  # type: ignore[list-item]
            additional_headers=handshake.headers,
            user_agent_header=None,
            compression=None,  # video does not compress (design, decision 6)
            proxy=None,  # the environment's proxies are not meant for replicas (contract A7.11)
            open_timeout=None,  # the caller's is for the look-up and the connect, too
            ping_interval=None,  # watch.py does it: the library's keepalive kills a replica that we hold back
            create_connection=_Connection,
            **secure,
        )
    except BaseException:
        connected.close()
        raise
    return await opening


def _translated(error: Exception, timeout: float) -> Exception:
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        if status in (401, 403):
            return ReplicaRefused(f"it answered HTTP {status}")
        return ReplicaUnreachable(f"it answered HTTP {status}", its_fault=status not in REQUESTS_FAULT)
    if isinstance(error, TimeoutError):
        return ReplicaUnreachable(f"no WebSocket within {timeout:g} s")
    if isinstance(error, ssl.SSLError):
        return ReplicaUnreachable(f"TLS failed ({error.reason or type(error).__name__})")
    if isinstance(error, OSError):
        # asyncio puts the address into strerror; the number alone says what went wrong.
        known = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        return ReplicaUnreachable(f"no connection ({known or type(error).__name__})")
    return ReplicaUnreachable(f"its handshake is wrong ({type(error).__name__})")


@cache
def _tls() -> ssl.SSLContext:
    """Replicas' certificates are always checked, against the system's CAs and ROUTER_UPSTREAM_CA_FILE."""
    context = ssl.create_default_context()
    if settings.ROUTER_UPSTREAM_CA_FILE:
        context.load_verify_locations(settings.ROUTER_UPSTREAM_CA_FILE)
    return context

"""The other end of a WireLink, for tests: a real socket, and websockets' sans-I/O protocol to speak over it.

`wired(client=True)` gives a link whose peer is a client, `wired(client=False)` one whose peer is a replica.
`relayed` is a replica's part in such a client's session.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from proxy.errors import Close, Ending
from proxy.forwarding import Handshake
from proxy.opening import Opening
from proxy.relay import NotBegun, relay
from proxy.upstream import open_replica
from proxy.wire import WireLink

PLAIN = Handshake(query="", subprotocol=None, headers=())


class Peer:
    """What is at the other end of `link`. It reads only when asked to."""

    def __init__(self, link: WireLink, sock: socket.socket, protocol: Protocol) -> None:
        self.link, self.socket, self.protocol = link, sock, protocol
        self.taken: list[bytes] = []  # what the link has handed on

    def sink(self, units: Sequence[bytes | bytearray | memoryview]) -> None:
        self.taken.append(b"".join(units))

    async def sends(self, octets: bytes = b"") -> None:
        """Send `octets`, or what `self.protocol` has been asked to send."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.socket, octets or b"".join(self.protocol.data_to_send()))

    async def receives(self, until: Callable[[list[Frame]], Any]) -> list[Frame]:
        """Read until the frames that came fulfil `until`, or to the end of the connection."""
        loop, found = asyncio.get_running_loop(), []
        while not until(found):
            async with asyncio.timeout(60):
                data = await loop.sock_recv(self.socket, 65_536)
            if not data:
                break
            self.protocol.receive_data(data)
            found += [event for event in self.protocol.events_received() if isinstance(event, Frame)]
        return found

    async def hears(self, opcode: Opcode) -> Frame:
        """Read until a frame of this kind comes, and give it."""
        return (await self.receives(lambda frames: any(f.opcode is opcode for f in frames)))[-1]

    async def link_takes(self, octets: bytes) -> None:
        """Until the link has handed on all of `octets`, and nothing else."""
        async with asyncio.timeout(60):
            while len(b"".join(self.taken)) < len(octets):
                await asyncio.sleep(0.005)
        assert b"".join(self.taken) == octets


@contextlib.asynccontextmanager
async def wired(*, client: bool, early: bytes = b"", start: bool = True) -> AsyncIterator[Peer]:
    near, far = socket.socketpair()
    far.setblocking(False)
    protocol: Protocol = (
        ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN, max_size=None)
        if client
        else ServerProtocol(state=State.OPEN, max_size=None)
    )
    link = WireLink(client=client, early=early)
    peer = Peer(link, far, protocol)
    await asyncio.get_running_loop().connect_accepted_socket(lambda: link, near)
    if start:
        link.start(peer.sink)
    try:
        yield peer
    finally:
        far.close()
        link.abort()
        await asyncio.wait({link._lost})


async def relayed(client: Peer, opening: Opening, url: str) -> Ending | NotBegun:
    """One replica's part of a session, with its goodbye."""
    link = await open_replica(url, PLAIN, 60)
    async with asyncio.timeout(60):
        outcome = await relay(client.link, link, opening, "s1")
        await link.close((outcome.to_replica if isinstance(outcome, Ending) else None) or Close(1001))
    return outcome

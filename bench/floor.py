"""The floor: two asyncio transports joined, a TCP proxy that knows nothing of WebSockets.

`python -m bench.floor PORT TO`, both ports of the loopback interface.

The least that Python's own event loop can do for a proxy: what comes on one side is written to the other, and a side
that cannot take more pauses reading of the other. A peer in the bench; no part of the router.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast


class Side(asyncio.Protocol):
    """One side of a joined pair."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.other.transport.write(data)  # type: ignore[union-attr]  # joined before it reads

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class ClientSide(Side):
    """The side that was accepted: it is not read until the other one is open."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        cast(asyncio.Transport, transport).pause_reading()
        self.task = asyncio.ensure_future(self.join())

    async def join(self) -> None:
        assert self.transport is not None
        try:
            _, side = await asyncio.get_running_loop().create_connection(Side, "127.0.0.1", self.port)
        except OSError:
            self.transport.close()
            return
        side.other, self.other = self, side
        self.transport.resume_reading()


async def main(port: int, to: int) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: ClientSide(to), "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))

"""The end of a test's own server, with nothing half accepted.

Used by every server of the tests that is made with asyncio.start_server. From a connection's accept to its handler's
first step it takes some rounds of the event loop. A server that is closed in one of them leaves the socket to the
garbage collector (Server._attach fails then, up to Python 3.12), and so does a handler that is cancelled before its
first step: a ResourceWarning, in whatever test runs when it is collected.
"""

from __future__ import annotations

import asyncio
import socket

# For the transport, its news to the protocol, the handler's task, and one to spare.
ROUNDS = 5


def refuse(server: asyncio.Server) -> None:
    """From now on the kernel refuses connections. Those that were accepted get their handlers, then it is closed."""
    loop = asyncio.get_running_loop()
    for listening in server.sockets:
        loop.remove_reader(listening.fileno())
        listening.shutdown(socket.SHUT_RDWR)
    _after(ROUNDS, server)


def _after(rounds: int, server: asyncio.Server) -> None:
    if rounds:
        asyncio.get_running_loop().call_soon(_after, rounds - 1, server)
    else:
        server.close()


async def stop_serving(server: asyncio.Server) -> None:
    """`refuse`, and wait until each connection that was accepted has its handler."""
    refuse(server)
    while server.is_serving():
        await asyncio.sleep(0)

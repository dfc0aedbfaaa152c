"""What the links do with a socket past its transport. Called by wire.py; must not know frames."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Sequence

from proxy.frames import Octets

READ_BYTES = 256 * 1024  # at once, from the heap (memory.py)
MOST_LEFT_BYTES = 64 * 1024 * 1024
FEW_PIECES = 8  # wait one by one; more are put together
# writev takes no more pieces at once (IOV_MAX).
MAX_PIECES = 1024


def write(fd: int, units: Sequence[Octets]) -> int:
    """How many octets of `units` (one or more) the kernel takes now. Raises OSError where it will never take any."""
    try:
        return os.write(fd, units[0]) if len(units) == 1 else os.writev(fd, units[:MAX_PIECES])
    except (BlockingIOError, InterruptedError):
        return 0


def behind(sent: int, units: Sequence[Octets]) -> list[Octets]:
    """What is left of `units` behind the first `sent` octets, in few pieces.

    From Python 3.12 on a transport looks at each piece that waits in it at each write: thousands of them cost seconds.
    """
    waiting: list[Octets] = []
    for unit in units:
        if sent >= len(unit):
            sent -= len(unit)
        else:
            waiting.append(memoryview(unit)[sent:] if sent else unit)
            sent = 0
    return waiting if len(waiting) <= FEW_PIECES else [b"".join(waiting)]


def left(fd: int) -> bytes:
    """What the kernel still has of a connection that is lost, up to MOST_LEFT_BYTES and one read."""
    found = bytearray()
    with contextlib.suppress(OSError):
        while fd >= 0 and len(found) < MOST_LEFT_BYTES and (data := os.read(fd, READ_BYTES)):
            found += data
    return bytes(found)


def reset_at_close(sock: socket.socket) -> None:
    """Its close is a reset, with which the kernel lets go of all that it kept for the peer."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

"""What the links do with a socket past its transport. Called by wire.py; must not know frames."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence

from proxy.frames import Octets

READ_BYTES = 256 * 1024
# writev takes no more pieces at once (IOV_MAX).
MAX_PIECES = 1024


def write(fd: int, units: Sequence[Octets]) -> int:
    """How many octets of `units` (one or more) the kernel takes now. Raises OSError where it will never take any."""
    try:
        return os.write(fd, units[0]) if len(units) == 1 else os.writev(fd, units[:MAX_PIECES])
    except (BlockingIOError, InterruptedError):
        return 0


def left(fd: int) -> Iterator[bytes]:
    """What the kernel still has of a connection that is lost."""
    while fd >= 0:
        try:
            data = os.read(fd, READ_BYTES)
        except OSError:
            return
        if not data:
            return
        yield data


def reset_at_close(sock: socket.socket) -> None:
    """Its close is a reset, with which the kernel lets go of all that it kept for the peer."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

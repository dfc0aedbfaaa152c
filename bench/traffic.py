"""Frames through open sessions, as fast as they go, and how they are counted.

Frames are ready-made, and receiving is MSG_TRUNC (tcp(7): bytes are counted and dropped uncopied), so that one core
carries both ends of more than any proxy on the other one does. Sending is a plain write, as replicas do it: sendfile(2)
would cost the proxies up to a fifth more. Called by measure.py. Must not know which proxy is measured.
"""

from __future__ import annotations

import os
import select
import socket
from functools import cache

from bench.clock import Clock, Window
from bench.frames import FrameCounter, Pattern, pattern
from bench.load import LoadFault

READ_BYTES = 1024 * 1024
SILENCE_SECONDS = 5.0
_buffer = bytearray(READ_BYTES)


class Receiver:
    """One socket that counts frames: by bytes where their length is known, else by their headers."""

    def __init__(self, sock: socket.socket, made: Pattern) -> None:
        self.sock = sock
        self.wire = made.wire
        self.bytes = 0
        self._counter = FrameCounter()

    def take(self) -> float:
        """Frames that have come since the last call, with fractions where bytes are counted."""
        try:
            if self.wire:
                count = self.sock.recv_into(_buffer, READ_BYTES, socket.MSG_TRUNC)
                self.bytes += count
                frames = count / self.wire
            else:
                count = self.sock.recv_into(_buffer)
                frames = self._counter.feed(bytes(memoryview(_buffer)[:count]))
        except BlockingIOError:
            return 0
        except OSError as error:
            raise LoadFault(f"connection lost: {os.strerror(error.errno or 0)}") from error
        if not count:
            raise LoadFault("connection closed")
        return frames


def stream(senders: list[socket.socket], receivers: list[socket.socket], made: Pattern, clock: Clock) -> Window:
    """All senders as fast as they go; each ends between two frames, so that a close can follow."""
    data, end, step = memoryview(made.data), len(made.data), made.step
    sinks = {sock.fileno(): Receiver(sock, made) for sock in receivers}
    offsets = {sock.fileno(): 0 for sock in senders}
    frames, sent, over = 0.0, 0, False
    with select.epoll() as poll:
        for fd in offsets:
            poll.register(fd, select.EPOLLOUT)
        for fd in sinks:
            poll.register(fd, select.EPOLLIN)
        clock.start()
        while not over or offsets:
            events = poll.poll(SILENCE_SECONDS, 1024)
            if not events:
                raise LoadFault("nothing moves any more")
            for fd, event in events:
                if event & (select.EPOLLHUP | select.EPOLLERR):
                    raise LoadFault("connection lost")
                if fd in sinks:
                    frames += sinks[fd].take()
                    continue
                offset = offsets[fd]
                if not over or offset % step:
                    try:
                        written = os.write(fd, data[offset : offset + step - offset % step])
                    except BlockingIOError:
                        continue
                    except OSError as error:
                        raise LoadFault(f"connection lost: {os.strerror(error.errno or 0)}") from error
                    offset += written
                    sent += written
                    offsets[fd] = offset if offset < end else 0
                if over and offset % step == 0:
                    poll.unregister(fd)
                    del offsets[fd]
            over = over or clock.tick(frames, sent / end * made.frames)
    assert clock.window is not None
    return clock.window


@cache
def ready_pattern(size: int, masked: bool, compressed: bool) -> Pattern:
    """As frames.pattern, made once."""
    return pattern(size, masked=masked, compressed=compressed)

"""One message in flight a session: the client asks, the replica sends back, and how long that took.

Polls without sleeping, so that the wait is the proxy's and the kernel's. Called by measure.py.
"""

from __future__ import annotations

import os
import select
import socket
import time
from dataclasses import dataclass

from bench.clock import Clock, Window
from bench.frames import Pattern
from bench.load import LoadFault
from bench.traffic import SILENCE_SECONDS, Receiver


def echo(
    clients: list[socket.socket], replicas: list[socket.socket], up: Pattern, down: Pattern, clock: Clock
) -> Window:
    """The window's latencies are those of the echoes that came back in it."""
    answer, question = down.single, up.single
    ends = {sock.fileno(): _Echo(Receiver(sock, up), answer) for sock in replicas}
    asking = {sock.fileno(): _Echo(Receiver(sock, down), question) for sock in clients}
    sent_at: dict[int, float] = {}
    latencies: list[float] = []
    done, last, now = 0, time.perf_counter(), time.perf_counter
    with select.epoll() as poll:
        for fd in (*ends, *asking):
            poll.register(fd, select.EPOLLIN)
        clock.start()
        for fd, side in asking.items():
            sent_at[fd] = now()
            side.send()
        while True:
            for fd, event in poll.poll(0):
                last = now()
                if event & (select.EPOLLHUP | select.EPOLLERR):
                    raise LoadFault("connection lost")
                if fd in ends:
                    if ends[fd].whole():
                        ends[fd].send()
                elif asking[fd].whole():
                    done += 1
                    if clock.in_window:
                        latencies.append(now() - sent_at[fd])
                    sent_at[fd] = now()
                    asking[fd].send()
            if clock.window is None and clock.tick(done, done):
                break
            if now() - last > SILENCE_SECONDS:
                raise LoadFault("nothing moves any more")
        _let_echoes_end(poll, ends, asking)
    assert clock.window is not None
    window = clock.window
    return Window(window.seconds, window.frames, window.proxy_cpu, window.load_cpu, latencies)


@dataclass
class _Echo:
    """One end: `whole()` when the message in flight has come, `send()` the next."""

    receiver: Receiver
    data: bytes
    counted: float = 0.0

    def whole(self) -> bool:
        frames = self.receiver.take()
        wire = self.receiver.wire
        self.counted += frames
        complete = self.receiver.bytes >= wire if wire else self.counted >= 1
        if complete:
            self.receiver.bytes, self.counted = 0, 0.0
        return bool(complete)

    def send(self) -> None:
        view = memoryview(self.data)
        while view:
            try:
                view = view[self.receiver.sock.send(view) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise LoadFault(f"connection lost: {os.strerror(error.errno or 0)}") from error


def _let_echoes_end(poll: select.epoll, ends: dict[int, _Echo], asking: dict[int, _Echo]) -> None:
    """Answer what is in flight, so that a close comes after whole messages."""
    left = set(asking)
    deadline = time.perf_counter() + SILENCE_SECONDS
    while left and time.perf_counter() < deadline:
        for fd, _ in poll.poll(0.1):
            if fd in ends:
                if ends[fd].whole():
                    ends[fd].send()
            elif asking[fd].whole():
                left.discard(fd)

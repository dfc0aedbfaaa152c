"""Frames through open sessions: as fast as they go, or one in flight each; and what came through in a window of time.

Frames are ready-made, and receiving is MSG_TRUNC (tcp(7): bytes are counted and dropped uncopied), so that one core
carries both ends of more than any proxy on the other one does. Sending is a plain write, as replicas do it: sendfile(2)
would cost the proxies up to a fifth more. Called by measure.py. Must not know which proxy is measured.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from bench.frames import FrameCounter, Pattern, pattern
from bench.load import LoadFault

READ_BYTES = 1024 * 1024
SILENCE_SECONDS = 5.0
_buffer = bytearray(READ_BYTES)


@dataclass(frozen=True)
class Window:
    """What came through between two moments in the middle of the traffic."""

    seconds: float
    frames: float
    proxy_cpu: float  # seconds
    load_cpu: float
    latencies: list[float] = field(default_factory=list)  # seconds, of echoes


# Until all buffers on the way are full a proxy works on frames that do not come out: at 500 sessions, for seconds.
STEADY = 0.1  # of what goes in: the difference to what comes out
MOST_WARM_SECONDS = 6.0
# A window with fewer goes on, for this many times its length at most.
FEWEST_FRAMES = 20
MOST_WINDOWS = 5


def steady(sent: float, received: float) -> bool:
    """Does as much come out as goes in, and anything at all?"""
    return received > 0 and abs(sent - received) <= STEADY * max(sent, received)


@dataclass
class Clock:
    """Warm-up until as much comes out as goes in, then the window; reads the CPU times at both of its edges."""

    warm_seconds: float  # at least; and how long what goes in and out is compared
    window_seconds: float
    proxy_cpu: Callable[[], float]

    def start(self) -> None:
        self._started = time.perf_counter()
        self._edge = self._started + self.warm_seconds
        self._before = (0.0, 0.0)
        self._began: tuple[float, float, float, float] | None = None
        self.window: Window | None = None

    @property
    def in_window(self) -> bool:
        return self._began is not None

    def tick(self, frames: float, sent: float) -> bool:
        """Called after every event with the frames that came and went so far; True when the window is over."""
        now = time.perf_counter()
        if now < self._edge:
            return False
        if self._began is None and now - self._started < MOST_WARM_SECONDS:
            sent_before, frames_before = self._before
            self._before = (sent, frames)
            if not steady(sent - sent_before, frames - frames_before):
                self._edge = now + self.warm_seconds
                return False
        few = self._began is not None and frames - self._began[1] < FEWEST_FRAMES
        if few and now < self._edge + MOST_WINDOWS * self.window_seconds:
            return False
        mark = (time.perf_counter(), frames, self.proxy_cpu(), time.process_time())
        if self._began is None:
            self._began = mark
            self._edge = now + self.window_seconds
            return False
        seconds, frames, proxy_cpu, load_cpu = (end - start for end, start in zip(mark, self._began, strict=True))
        self.window = Window(seconds, frames, proxy_cpu, load_cpu)
        return True


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


def echo(
    clients: list[socket.socket], replicas: list[socket.socket], up: Pattern, down: Pattern, clock: Clock
) -> Window:
    """One message in flight a session, sent back by the replica. Polls without sleeping: what waits is the proxy."""
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


@cache
def ready_pattern(size: int, masked: bool, compressed: bool) -> Pattern:
    """As frames.pattern, made once."""
    return pattern(size, masked=masked, compressed=compressed)

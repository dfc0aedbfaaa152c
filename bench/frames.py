"""PURE. The WebSocket bytes that the bench sends and counts (RFC 6455), ready-made: nothing is built while it measures.

Payloads are random, because video does not compress. A compressed frame (RFC 7692) is one that refers to no earlier
message, so that it can be sent again and again. Must not be the router's own framing code: it would not see its faults.
"""

from __future__ import annotations

import random
import struct
import zlib
from dataclasses import dataclass

BINARY, TEXT, CLOSE = 0x2, 0x1, 0x8
FIN, RSV1, MASKED = 0x80, 0x40, 0x80

# What small frames are gathered into for one write, and how much a memory of frames holds about.
BLOCK_BYTES = 64 * 1024
PATTERN_BYTES = 1024 * 1024
# What a websockets server answers by default: 4 KiB windows for both directions.
DEFLATE_OFFER = "permessage-deflate; client_max_window_bits"
DEFLATE_ANSWER = "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"

MASK = bytes.fromhex("5ac3179e")


def header(length: int, *, opcode: int = BINARY, masked: bool, compressed: bool = False) -> bytes:
    """The header of a whole message in one frame, with the mask key where there is one."""
    first = FIN | opcode | (RSV1 if compressed else 0)
    bit = MASKED if masked else 0
    if length < 126:
        head = struct.pack("!BB", first, bit | length)
    elif length < 65536:
        head = struct.pack("!BBH", first, bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, bit | 127, length)
    return head + (MASK if masked else b"")


def frame(payload: bytes, *, opcode: int = BINARY, masked: bool, compressed: bool = False) -> bytes:
    if compressed:
        payload = deflated(payload)
    head = header(len(payload), opcode=opcode, masked=masked, compressed=compressed)
    return head + (_xor(payload) if masked else payload)


def deflated(payload: bytes) -> bytes:
    """One message compressed as RFC 7692 §7.2.1 says, with a window of 4 KiB and nothing remembered."""
    compressor = zlib.compressobj(wbits=-12)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def close_frame(code: int = 1000, *, masked: bool) -> bytes:
    return frame(struct.pack("!H", code), opcode=CLOSE, masked=masked)


def first_frame() -> bytes:
    """What the replica says as soon as it is connected: with this a session has begun."""
    return frame(b'{"type": "gpu_assigned", "gpu_id": 0, "session_timeout": 600}', opcode=TEXT, masked=False)


@dataclass(frozen=True)
class Pattern:
    """Frames to be sent over and over. A writer stops between frames only at multiples of `step` bytes."""

    data: bytes
    step: int
    frames: int
    wire: int | None  # bytes a frame; None: they differ, and whoever receives them must read headers

    @property
    def single(self) -> bytes:
        """The first frame alone."""
        return self.data[: self.wire] if self.wire else self.data[: frame_length(self.data)]


def pattern(size: int, *, masked: bool, compressed: bool) -> Pattern:
    """Frames of `size` bytes of payload: small ones in blocks of about 64 KiB, others one by one."""
    rng = random.Random(size)
    small = size < BLOCK_BYTES
    count = BLOCK_BYTES // size if small else 1 if compressed else max(1, PATTERN_BYTES // size)
    made = [frame(rng.randbytes(size), masked=masked, compressed=compressed) for _ in range(count)]
    data = b"".join(made)
    return Pattern(
        data, len(data) if small or compressed else len(made[0]), count, None if compressed else len(made[0])
    )


def frame_length(data: bytes) -> int | None:
    """Bytes of the frame that `data` begins with, header and payload; None while the header is incomplete."""
    if len(data) < 2:
        return None
    length, extra = data[1] & 0x7F, 4 if data[1] & MASKED else 0
    if length < 126:
        return 2 + extra + length
    width = 2 if length == 126 else 8
    if len(data) < 2 + width:
        return None
    return 2 + width + extra + int.from_bytes(data[2 : 2 + width], "big")


class FrameCounter:
    """Counts the data frames that end in the chunks it is given; for frames whose length is not known beforehand."""

    def __init__(self) -> None:
        self._skip = 0  # bytes of the present frame still to come
        self._data = False
        self._head = b""

    def feed(self, chunk: bytes) -> int:
        frames, position = 0, 0
        while position < len(chunk):
            if not self._skip:
                have = len(self._head)
                head = self._head + chunk[position : position + 14 - have]
                length = frame_length(head)
                if length is None:
                    self._head = head
                    return frames
                self._skip, self._data, self._head = length - have, not head[0] & CLOSE, b""
            step = min(self._skip, len(chunk) - position)
            position += step
            self._skip -= step
            if not self._skip and self._data:
                frames += 1
        return frames


def _xor(payload: bytes) -> bytes:
    key = (MASK * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")

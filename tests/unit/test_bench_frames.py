"""The bytes that the bench sends and counts, held against the websockets library's own parser."""

from __future__ import annotations

import random
import zlib
from collections.abc import Generator

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from bench.clock import steady
from bench.frames import FrameCounter, close_frame, first_frame, frame, frame_length, pattern


def parsed(data: bytes, *, masked: bool, deflate: bool = False) -> list[Frame]:
    """All frames in `data`, as websockets reads them."""
    reader = StreamReader()
    reader.feed_data(data)
    extensions = [PerMessageDeflate(False, False, 12, 12)] if deflate else []
    frames = []
    while not all_read(reader):
        frames.append(run(Frame.parse(reader.read_exact, mask=masked, max_size=None, extensions=extensions)))
    return frames


def all_read(reader: StreamReader) -> bool:
    return not reader.buffer


def run(parse: Generator[None, None, Frame]) -> Frame:
    try:
        next(parse)
    except StopIteration as done:
        found: Frame = done.value
        return found
    raise AssertionError("half a frame")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 1024 * 1024])
@pytest.mark.parametrize("masked", [False, True])
def test_a_frame_is_read_as_it_was_meant(size: int, masked: bool) -> None:
    """Header, mask and payload, at every width of the length."""
    payload = random.Random(size).randbytes(size)
    data = frame(payload, masked=masked)
    assert frame_length(data) == len(data)
    assert [(f.opcode, bytes(f.data)) for f in parsed(data, masked=masked)] == [(Opcode.BINARY, payload)]


@pytest.mark.parametrize("size", [100, 65536])
@pytest.mark.parametrize("masked", [False, True])
def test_compressed_frames_can_be_sent_again_and_again(size: int, masked: bool) -> None:
    """They refer to no earlier message, so every repetition inflates to the same payloads."""
    made = pattern(size, masked=masked, compressed=True)
    frames = parsed(made.data * 2, masked=masked, deflate=True)
    assert len(frames) == 2 * made.frames
    assert all(len(f.data) == size for f in frames)
    assert [f.data for f in frames[: made.frames]] == [f.data for f in frames[made.frames :]]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("size", [100, 16384, 65536, 1024 * 1024])
def test_a_pattern_is_whole_frames(size: int, compressed: bool) -> None:
    """A writer that stops at a multiple of `step` has sent whole frames, and `single` is one of them."""
    made = pattern(size, masked=True, compressed=compressed)
    assert len(made.data) % made.step == 0
    assert frame_length(made.single) == len(made.single)
    if made.wire:
        assert made.step % made.wire == 0
        assert made.frames * made.wire == len(made.data)


def test_payloads_do_not_compress() -> None:
    """As video does not: otherwise compression would look cheaper than it is."""
    made = pattern(65536, masked=False, compressed=False)
    assert len(zlib.compress(made.single)) >= 65536


@pytest.mark.parametrize("chunk", [1, 3, 1000, 10**6])
def test_frames_are_counted_however_they_are_cut(chunk: int) -> None:
    """Control frames are not counted."""
    one = frame(b"x" * 300, masked=False) + frame(b"", masked=False) + close_frame(masked=False) + first_frame()
    data, counter = one * 5, FrameCounter()
    assert sum(counter.feed(data[at : at + chunk]) for at in range(0, len(data), chunk)) == 15


@pytest.mark.parametrize(
    ("sent", "received", "is_steady"),
    [(100, 100, True), (100, 91, True), (100, 89, False), (89, 100, False), (0, 0, False)],
)
def test_a_proxy_is_measured_when_as_much_comes_out_as_goes_in(sent: float, received: float, is_steady: bool) -> None:
    """Before that it works on frames that only fill its buffers, and would look dearer than it is."""
    assert steady(sent, received) is is_steady

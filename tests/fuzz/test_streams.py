"""What a client or a replica sends after the 101: any octets, cut anywhere (proxy/scanner.py, frames.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from websockets.exceptions import WebSocketException
from websockets.frames import Opcode

from proxy import frames, scanner
from proxy.frames import CloseFrame, Control, Fault
from proxy.scanner import Scanner
from tests.unit.test_frames import KEY, fed, octets_of, parsed, passed

LIMIT = 100
FRAGMENT = 16  # small, so that few octets are many fragments
RESERVED = [0] * 13 + [0x10, 0x20, 0x40]  # bits of a frame's first octet
KNOWN = [frames.CONTINUATION, frames.TEXT, frames.BINARY, frames.CLOSE, frames.PING, frames.PONG]


@st.composite
def nearly_frames(draw: st.DrawFn) -> bytes:
    """Frames, most of them valid one by one, in any order, and here and there an octet that is wrong."""
    octets = b""
    for _ in range(draw(st.integers(0, 6))):
        opcode = draw(st.sampled_from(KNOWN) | st.integers(0, 15))
        payload = draw(st.binary(max_size=40) | st.binary(min_size=124, max_size=130))
        if opcode == frames.CLOSE and draw(st.booleans()):
            payload = draw(st.integers(0, 5000)).to_bytes(2, "big") + payload[:123]
        mask = draw(st.sampled_from([KEY, b"", b"\0\0\0\0"]))
        built = frames.build(opcode, payload, mask, fin=draw(st.integers(0, 3)) > 0)
        octets += bytes([built[0] | draw(st.sampled_from(RESERVED))]) + built[1:]
    if octets and draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(octets) - 1))
        octets = octets[:at] + bytes([draw(st.integers(0, 255))]) + octets[at + 1 :]
    return octets[: draw(st.integers(0, len(octets)))] if draw(st.booleans()) else octets


STREAMS = st.binary(max_size=80) | nearly_frames()
CUTS = st.lists(st.integers(1, 20), min_size=1, max_size=6)


@contextmanager
def fragments_of(size: int) -> Iterator[None]:
    usual, scanner.FRAGMENT_BYTES = scanner.FRAGMENT_BYTES, size
    try:
        yield
    finally:
        scanner.FRAGMENT_BYTES = usual


@contextmanager
def portions_of(size: int) -> Iterator[None]:
    usual = scanner.PORTION_UNITS, scanner.RUN_FRAMES
    scanner.PORTION_UNITS = scanner.RUN_FRAMES = size
    try:
        yield
    finally:
        scanner.PORTION_UNITS, scanner.RUN_FRAMES = usual


@given(STREAMS, CUTS, st.booleans())
@example(b"\x81\x80", [1], True)
@example(b"\x00\x80\x00\x00\x00\x00", [2], True)
def test_what_is_given_out_partitions_what_came_in(octets: bytes, cuts: list[int], masked: bool) -> None:
    """No octet is lost, doubled or moved, whatever the stream and its chunks; it ends in a close, a fault or a part."""
    one = Scanner(masked=masked, max_message_bytes=LIMIT)
    units = fed(one, octets, cuts)
    last = units[-1] if units else None
    if isinstance(last, CloseFrame | Fault):
        units.pop()
        assert one.ended
        assert one.feed(octets) == []
    given_out = octets_of(units)
    assert octets.startswith(given_out)
    if not one.ended:
        assert one.partial == (len(given_out) < len(octets))
        assert len(octets) - len(given_out) <= max(LIMIT, 125) + frames.HEADER_BYTES
    assert not any(isinstance(unit, CloseFrame | Fault) for unit in units)


@given(STREAMS, CUTS, st.booleans(), st.sampled_from([FRAGMENT, 1024 * 1024]), st.sampled_from([1, 2, 1000]))
def test_chunks_make_no_difference(octets: bytes, cuts: list[int], masked: bool, fragment: int, portion: int) -> None:
    """The same units, counts and end, however the stream was cut and given out; fragments included."""
    with fragments_of(fragment):
        whole, pieces = (Scanner(masked=masked, max_message_bytes=LIMIT) for _ in range(2))
        expected = fed(whole, octets, [len(octets) or 1])
        with portions_of(portion):
            found = fed(pieces, octets, cuts)
    assert passed(found) == passed(expected)
    events = (Control, CloseFrame, Fault)
    assert [unit for unit in found if isinstance(unit, events)] == [
        unit for unit in expected if isinstance(unit, events)
    ]
    for fact in ("frames", "payload_bytes", "events", "unfinished", "ended", "partial"):
        assert getattr(pieces, fact) == getattr(whole, fact), fact


@given(STREAMS, CUTS, st.booleans())
def test_fragments_are_the_same_messages(octets: bytes, cuts: list[int], masked: bool) -> None:
    """Another parser reads the same messages from what was passed on, and no fragment is longer than it may be."""
    with fragments_of(FRAGMENT):
        out = passed(fed(Scanner(masked=masked, max_message_bytes=LIMIT), octets, cuts))
    plain = passed(fed(Scanner(masked=masked, max_message_bytes=LIMIT), octets, cuts))
    small, large = parsed(out, masked), parsed(plain, masked)
    assert all(len(payload) <= FRAGMENT for _, payload, _ in small)
    # Of a frame that breaks off the fragments that were whole have gone on.
    complete, begun = messages(large), messages(small)
    assert begun[: len(complete)] == complete


def messages(found: list[tuple[Opcode, bytes, bool]]) -> list[tuple[Opcode, bytes]]:
    """The whole messages of these frames."""
    whole: list[tuple[Opcode, bytes]] = []
    opcode, payload = Opcode.CONT, b""
    for each, part, fin in found:
        opcode, payload = (opcode if each is Opcode.CONT else each), payload + part
        if fin:
            whole.append((opcode, payload))
            payload = b""
    return whole


@given(nearly_frames(), st.booleans())
def test_no_more_is_passed_than_another_parser_takes(octets: bytes, masked: bool) -> None:
    """All that is passed on is valid to websockets: a replica never drops a session for what its client got through."""
    out = passed(fed(Scanner(masked=masked, max_message_bytes=10_000), octets, [len(octets) or 1]))
    try:
        parsed(out, masked)
    except WebSocketException as error:  # pragma: no cover
        raise AssertionError(out) from error


@given(st.binary(max_size=125))
def test_a_close_is_read_or_a_fault(payload: bytes) -> None:
    """And what was read is what was said."""
    found: Any = frames.parse_close(payload)
    if isinstance(found, Fault):
        assert found.code in (frames.PROTOCOL_ERROR, frames.INVALID_DATA)
    else:
        assert frames.build_close(found.code, found.reason)[2:] == payload

"""The scanner of frame headers (proxy/scanner.py), held against websockets' own parser."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from proxy import frames
from proxy.frames import CloseFrame, Control, Fault, Unit
from proxy.scanner import FRAGMENT_BYTES, PORTION_UNITS, RUN_FRAMES, Scanner

LIMIT = 8 * FRAGMENT_BYTES
KEY = b"\x01\x02\x03\x04"
# A message: its opcode, and the payloads of its frames. Lengths around those where the header changes.
LENGTHS = st.sampled_from([0, 1, 2, 125, 126, 127, 65_535, 65_536]) | st.integers(0, 400)
MESSAGES = st.tuples(st.sampled_from([frames.TEXT, frames.BINARY]), st.lists(LENGTHS, min_size=1, max_size=4))
PINGS = st.tuples(st.sampled_from([frames.PING, frames.PONG]), st.lists(st.integers(0, 125), min_size=1, max_size=1))
CUTS = st.lists(st.sampled_from([1, 2, 3, 5, 7, 100, 4096, 5000, 70_000]), min_size=1, max_size=6)


def encoded(messages: list[tuple[int, list[int]]], masked: bool, seed: int) -> bytes:
    """The octets of `messages`; payloads differ from octet to octet, and between frames."""
    key, octets = KEY if masked else b"", b""
    for number, (opcode, lengths) in enumerate(messages):
        for index, length in enumerate(lengths):
            payload = bytes((seed + number + index + at) % 251 for at in range(min(length, 997)))
            payload = (payload * (length // 997 + 1))[:length]
            octets += frames.build(
                opcode if index == 0 else frames.CONTINUATION, payload, key, fin=index == len(lengths) - 1
            )
    return octets


def fed(scanner: Scanner, octets: bytes, cuts: list[int]) -> list[Unit]:
    """What the scanner gives out for `octets`, cut into chunks of these sizes, again and again."""
    units: list[Unit] = []
    at = index = 0
    while at < len(octets):
        size = cuts[index % len(cuts)]
        units += scanner.feed(octets[at : at + size])
        while scanner.more:
            units += scanner.feed()
        at, index = at + size, index + 1
    return units


def octets_of(units: list[Unit]) -> bytes:
    """All that was passed on or told apart, in order, as it came in."""
    return b"".join(unit.octets if isinstance(unit, Control) else bytes(unit) for unit in units)  # type: ignore[arg-type]


def passed(units: list[Unit]) -> bytes:
    return b"".join(unit for unit in units if isinstance(unit, bytes | bytearray | memoryview))


def parser(masked: bool) -> Protocol:
    if masked:
        return ServerProtocol(state=State.OPEN, max_size=None)
    return ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN, max_size=None)


def parsed(octets: bytes, masked: bool) -> list[tuple[Opcode, bytes, bool]]:
    """The frames of `octets` as websockets reads them."""
    protocol = parser(masked)
    protocol.receive_data(octets)
    assert protocol.parser_exc is None
    found = [event for event in protocol.events_received() if isinstance(event, Frame)]
    return [(frame.opcode, bytes(frame.data), frame.fin) for frame in found]


@settings(max_examples=150, deadline=None)
@given(st.lists(MESSAGES | PINGS, max_size=8), CUTS, st.booleans(), st.integers(0, 250))
def test_any_stream_cut_anywhere_gives_the_same_frames(
    messages: list[tuple[int, list[int]]], cuts: list[int], masked: bool, seed: int
) -> None:
    """Data frames pass to the octet, in order; pings and pongs are told apart, and counted with nothing."""
    octets = encoded(messages, masked, seed)
    scanner = Scanner(masked=masked, max_message_bytes=LIMIT)
    units = fed(scanner, octets, cuts)
    expected = parsed(octets, masked)
    data = [frame for frame in expected if frame[0] < Opcode.CLOSE]
    assert parsed(passed(units), masked) == data
    controls = [(unit.opcode, unit.payload) for unit in units if isinstance(unit, Control)]
    assert controls == [frame[:2] for frame in expected if frame[0] >= Opcode.CLOSE]
    assert (scanner.frames, scanner.payload_bytes) == (len(data), sum(len(frame[1]) for frame in data))
    assert not scanner.partial
    assert not scanner.unfinished


@settings(max_examples=100, deadline=None)
@given(st.lists(MESSAGES, min_size=1, max_size=5), CUTS, st.booleans(), st.data())
def test_a_stream_that_breaks_off_passes_whole_frames_only(
    messages: list[tuple[int, list[int]]], cuts: list[int], masked: bool, data: st.DataObject
) -> None:
    """A peer that dies in the middle of a frame leaves none of it on the other side."""
    octets = encoded(messages, masked, 7)
    end = data.draw(st.integers(0, len(octets)))
    scanner = Scanner(masked=masked, max_message_bytes=LIMIT)
    out = passed(fed(scanner, octets[:end], cuts))
    assert octets.startswith(out)
    whole = parsed(out, masked)
    assert sum(1 for _ in whole) == scanner.frames
    assert scanner.partial == (len(out) < end)
    assert scanner.unfinished == bool(whole and not whole[-1][2])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("extra", [0, 1, 7, FRAGMENT_BYTES, FRAGMENT_BYTES + 1])
def test_a_large_frame_goes_on_as_fragments(masked: bool, extra: int) -> None:
    """Of exactly 1 MiB of payload each, the last one shorter; together the same message, its mask key fitting."""
    payload = bytes(range(256)) * ((FRAGMENT_BYTES + extra) // 256 + 1)
    payload = payload[: FRAGMENT_BYTES + extra]
    octets = frames.build(frames.BINARY, payload, KEY if masked else b"")
    scanner = Scanner(masked=masked, max_message_bytes=LIMIT)
    found = parsed(passed(fed(scanner, octets, [262_144, 65_536, 1000])), masked)
    assert b"".join(data for _, data, _ in found) == payload
    assert [len(data) for _, data, _ in found[:-1]] == [FRAGMENT_BYTES] * (len(found) - 1)
    assert [opcode for opcode, _, _ in found] == [Opcode.BINARY] + [Opcode.CONT] * (len(found) - 1)
    assert [fin for _, _, fin in found] == [False] * (len(found) - 1) + [True]
    assert len(found) == (1 if extra == 0 else -(-len(payload) // FRAGMENT_BYTES))
    assert (scanner.frames, scanner.payload_bytes) == (1, len(payload))


def test_a_large_fragment_of_a_message_stays_one() -> None:
    """A continuation over 1 MiB goes on as continuations, the last of them not final unless it was."""
    octets = frames.build(frames.TEXT, b"a", fin=False)
    octets += frames.build(frames.CONTINUATION, b"b" * (FRAGMENT_BYTES + 1), fin=False)
    octets += frames.build(frames.CONTINUATION, b"c")
    scanner = Scanner(masked=False, max_message_bytes=LIMIT)
    found = parsed(passed(scanner.feed(octets)), masked=False)
    assert [opcode for opcode, _, _ in found] == [Opcode.TEXT, Opcode.CONT, Opcode.CONT, Opcode.CONT]
    assert [fin for _, _, fin in found] == [False, False, False, True]


def test_whole_frames_of_one_chunk_are_one_slice_of_it() -> None:
    """No payload is copied: what is given out is a view of what came."""
    chunk = frames.build(frames.BINARY, b"x" * 1000) * 10
    (unit,) = Scanner(masked=False, max_message_bytes=LIMIT).feed(chunk)
    assert isinstance(unit, memoryview)
    assert unit.obj is chunk
    assert len(unit) == len(chunk)


def test_single_octets_cost_no_object_each() -> None:
    """A peer that sends a frame octet by octet must not fill the memory with pieces."""
    scanner = Scanner(masked=False, max_message_bytes=LIMIT)
    octets = frames.build(frames.BINARY, b"x" * 50_000)
    for at in range(len(octets) - 1):
        assert scanner.feed(octets[at : at + 1]) == []
    assert len(scanner.feed(octets[-1:])) == 2  # the header, and the payload in one piece


@pytest.mark.parametrize("end", [b"", frames.build_close(4000, "bye", KEY)], ids=["open", "closed"])
def test_very_many_units_are_given_out_in_portions(end: bytes) -> None:
    """Each some milliseconds of work, whatever was fed meanwhile; together all of it, up to a close."""
    pings = frames.build(frames.PING, b"", KEY) * 3000
    begun, last = frames.build(frames.TEXT, b"a", KEY, fin=False), frames.build(frames.CONTINUATION, b"a", KEY)
    octets = pings + begun + frames.build(frames.CONTINUATION, b"a", KEY, fin=False) * 3000 + last + pings + end
    scanner = Scanner(masked=True, max_message_bytes=LIMIT)
    portions = [scanner.feed(octets[:40_000]), scanner.feed(octets[40_000:])]
    while scanner.more:
        assert scanner.partial
        assert not scanner.ended
        portions.append(scanner.feed())
    assert max(map(len, portions)) <= PORTION_UNITS + 2
    units = [unit for portion in portions for unit in portion]
    assert octets_of([unit for unit in units if not isinstance(unit, CloseFrame)]) + end == octets
    assert (scanner.frames, scanner.partial, scanner.ended) == (3002, False, bool(end))
    assert scanner.feed() == []


def test_a_run_of_very_many_frames_is_given_out_in_portions() -> None:
    """Each a slice of what was fed, which is kept once for all of them."""
    octets = frames.build(frames.TEXT, b"", KEY) * (3 * RUN_FRAMES + 5)
    scanner = Scanner(masked=True, max_message_bytes=LIMIT)
    portions = [scanner.feed(octets)]
    while scanner.more:
        portions.append(scanner.feed())
    assert [len(octets_of(portion)) // 6 for portion in portions] == [RUN_FRAMES] * 3 + [5]
    assert b"".join(map(octets_of, portions)) == octets
    assert scanner.frames == 3 * RUN_FRAMES + 5
    assert all(isinstance(unit, memoryview) and unit.obj is octets for portion in portions for unit in portion)


def test_the_limit_is_told_from_the_header_alone() -> None:
    """A message over the limit is refused before any of its payload has come (faults.md, 7)."""
    header = frames.build(frames.BINARY, b"x" * 101, KEY)[:6]
    assert Scanner(masked=True, max_message_bytes=100).feed(header) == [
        Fault(1009, "message over the limit of 100 bytes")
    ]


def test_the_limit_is_for_the_whole_message() -> None:
    """However it is cut; and the next message begins at nothing."""
    scanner = Scanner(masked=False, max_message_bytes=100)
    first = frames.build(frames.BINARY, b"x" * 60, fin=False)
    assert not isinstance(scanner.feed(first + frames.build(frames.CONTINUATION, b"x" * 40))[-1], Fault)
    last = scanner.feed(first + frames.build(frames.CONTINUATION, b"x" * 41))[-1]
    assert isinstance(last, Fault)
    assert last.code == 1009


WRONG = {
    "RSV bits": b"\xc1\x80",
    "reserved data opcode": b"\x83\x80",
    "reserved control opcode": b"\x8b\x80",
    "no mask": b"\x81\x02",
    "ping in fragments": b"\x09\x80",
    "ping over 125": b"\x89\xfe",
    "continuation of nothing": b"\x80\x80",
    "length over 2^63": b"\x82\xff\xff\0\0\0\0\0\0\0\0\0\0\0",
    "close of one octet": b"\x88\x81\0\0\0\0\x03",
    "close 1005": b"\x88\x82\0\0\0\0\x03\xed",
    "close 999": b"\x88\x82\0\0\0\0\x03\xe7",
    "close 5000": b"\x88\x82\0\0\0\0\x13\x88",
}


@pytest.mark.parametrize("octets", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("cut", [1, 1000])
def test_what_rfc_6455_forbids_is_a_fault(octets: bytes, cut: int) -> None:
    """1002, told with the first octets that show it; what came before is passed, what comes after is not looked at."""
    scanner = Scanner(masked=True, max_message_bytes=LIMIT)
    good = frames.build(frames.TEXT, b"good", KEY)
    units = fed(scanner, good + octets + good, [cut])
    last = units.pop()
    assert isinstance(last, Fault)
    assert last.code == 1002
    assert passed(units) == good
    assert scanner.ended
    assert scanner.feed(good) == []


def test_a_message_inside_another_is_a_fault() -> None:
    """§5.4: the fragments of two messages are not mixed, also where one of them is empty."""
    for length in (0, 1, 200):
        scanner = Scanner(masked=False, max_message_bytes=LIMIT)
        octets = frames.build(frames.TEXT, b"a", fin=False) + frames.build(frames.TEXT, b"b" * length)
        assert isinstance(scanner.feed(octets)[-1], Fault)


def test_a_masked_frame_of_a_server_is_a_fault() -> None:
    """§5.1, and so is a client's frame without a mask (above)."""
    (fault,) = Scanner(masked=False, max_message_bytes=LIMIT).feed(b"\x81\x80")
    assert fault == Fault(1002, "masked frame from a server")


@given(st.binary(max_size=64))
def test_no_octets_of_a_stranger_break_the_scanner(octets: bytes) -> None:
    """It gives units, or one fault or close as the last; whatever the octets, and however cut."""
    whole = Scanner(masked=True, max_message_bytes=1000).feed(octets)
    pieces = fed(Scanner(masked=True, max_message_bytes=1000), octets, [1])
    assert passed(whole) == passed(pieces)
    assert [u for u in whole if isinstance(u, Control | CloseFrame | Fault)] == [
        u for u in pieces if isinstance(u, Control | CloseFrame | Fault)
    ]


@given(st.sampled_from([1000, 1001, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 4999]), st.text(max_size=30))
def test_a_close_says_code_and_reason(code: int, reason: str) -> None:
    """As it was built; and nothing comes after it."""
    octets = frames.build_close(code, reason, KEY)
    assert fed(Scanner(masked=True, max_message_bytes=LIMIT), octets, [1]) == [CloseFrame(code, reason)]


def test_a_close_without_a_code_is_valid() -> None:
    """As a browser's bare close() sends it (§5.5.1)."""
    assert Scanner(masked=False, max_message_bytes=LIMIT).feed(frames.build_close(None, "")) == [CloseFrame(None, "")]


def test_a_close_reason_that_is_not_utf8_is_1007() -> None:
    """§8.1."""
    octets = frames.build(frames.CLOSE, b"\x03\xe8\xff", KEY)
    assert Scanner(masked=True, max_message_bytes=LIMIT).feed(octets) == [Fault(1007, "close reason that is not UTF-8")]


@given(st.binary(max_size=500), st.binary(min_size=4, max_size=4))
def test_a_mask_is_taken_off_as_it_is_put_on(payload: bytes, mask: bytes) -> None:
    """§5.3; as websockets does it."""
    masked = frames.build(frames.BINARY, payload, mask)
    assert parsed(masked, masked=True) == [(Opcode.BINARY, payload, True)]
    assert frames.apply_mask(frames.apply_mask(payload, mask), mask) == payload


@given(st.lists(st.tuples(st.sampled_from([0x81, 0x82, 0x01, 0x80, 0x89]), st.binary(max_size=300)), max_size=5))
def test_split_gives_each_frame_and_its_payload(content: list[tuple[int, bytes]]) -> None:
    """For the few frames that have to be read."""
    built = [frames.build(first & 0x0F, payload[:125], fin=bool(first & 0x80)) for first, payload in content]
    found = list(frames.split(b"".join(built)))
    assert [bytes(frame) for _, _, frame in found] == built
    assert [(first, bytes(payload)) for first, payload, _ in found] == [(f, p[:125]) for f, p in content]

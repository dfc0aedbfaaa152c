"""PURE. RFC 6455 frame headers: cut a stream of octets into whole frames, and build the frames of the router's own.

The theory. A peer's octets come in chunks that know nothing of frames. What may be passed on is a *unit*: a whole
frame, or, of a frame whose payload is over FRAGMENT_BYTES, a fragment of just that size with a header of ours (§5.4
allows it to anyone on the way). Between two units a control frame may stand, so the router can always put in a ping, an
error frame or a close, and a peer that dies never leaves half a frame on the other side. A payload is never copied,
unmasked or decoded; only control frames, which are for the router to understand, are.

    between units ──header complete──▶ in a unit ──last octet──▶ between units
          └── a close frame, or a fault: nothing after it is looked at ──▶ ended

Called by wire.py for each chunk. Must not know sockets, sessions or who the peer is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN = 0x80
MASKED = 0x80

# A multiple of 4, so that a mask key fits every fragment as it fitted the whole (§5.3).
FRAGMENT_BYTES = 1024 * 1024
# The longest header: 2, a length of 8, a mask key of 4 (§5.2).
HEADER_BYTES = 14
# Smaller pieces of a unit are gathered in one buffer: a peer that sends single octets must not cost an object for each.
SMALL_PIECE_BYTES = 4096

PROTOCOL_ERROR, INVALID_DATA, TOO_BIG = 1002, 1007, 1009
_MAY_BE_SENT = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}  # §7.4, and the IANA registry

Octets = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Control:
    """A ping or a pong. `octets` is the frame as it came, `payload` what it says (unmasked, at most 125 octets)."""

    opcode: int
    payload: bytes
    octets: bytes


@dataclass(frozen=True, slots=True)
class CloseFrame:
    """A valid close frame; `code` is None where it has none (§5.5.1)."""

    code: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Fault:
    """What the peer sent cannot be passed on; `code` is the close code that says so: 1002, 1007 or 1009 (§7.4.1)."""

    code: int
    reason: str


Event = Control | CloseFrame | Fault
Unit = Octets | Event


class Scanner:
    """Cuts one peer's octets into units.

    `masked`: do its frames carry a mask? A client's must, a server's must not (§5.1). `max_message_bytes` holds for the
    payload of a message, over all of its frames; it is enforced from the header alone.

    `frames` and `payload_bytes` count the data frames of the peer that have passed whole, `events` what else was given
    out. `unfinished` says that the units given out so far end inside a message: a text frame must not follow them.
    `partial` says that the chunks fed so far end inside a frame.
    """

    __slots__ = (
        "_continued", "_head", "_large_fin", "_large_left", "_large_mask", "_masked", "_max", "_message_bytes",
        "_missing", "_opcode", "_parts", "_unit_fin", "_unit_is_open", "ended", "events", "frames", "payload_bytes",
        "unfinished",
    )  # fmt: skip

    def __init__(self, *, masked: bool, max_message_bytes: int) -> None:
        self._masked = masked
        self._max = max_message_bytes
        self.frames = self.payload_bytes = self.events = 0
        self.unfinished = self.ended = False

        # Of the message whose headers have been read so far: must a continuation follow, and how long is it?
        self._continued = False
        self._message_bytes = 0

        self._head = b""  # the beginning of a header whose end is in the next chunk

        # The unit that began in an earlier chunk, or that cannot be passed as it stands.
        self._unit_is_open = False
        self._parts: list[Octets] = []
        self._missing = 0
        self._opcode = 0
        self._unit_fin = False

        # The rest of a frame that goes on as fragments.
        self._large_left = 0
        self._large_mask = b""
        self._large_fin = False

    @property
    def partial(self) -> bool:
        return self._unit_is_open or bool(self._head)

    def feed(self, data: bytes) -> list[Unit]:
        """The units that end in `data`, in order. Data units are slices of it: octets to be sent as they are."""
        units: list[Unit] = []
        view, size, at = memoryview(data), len(data), 0
        while at < size and not self.ended:
            if self._unit_is_open:
                at = self._fill(view, at, units)
            elif self._head:
                at = self._complete_header(data, units)
            else:
                at = self._scan(data, view, at, units)
        return units

    def _scan(self, data: bytes, view: memoryview, start: int, units: list[Unit]) -> int:
        """Pass over all whole frames from `start`; give where the scan stopped. The hot loop: see bench/."""
        at, size = start, len(data)
        mask_bit, shortest = (MASKED, 6) if self._masked else (0, 2)
        frames = payload_bytes = 0
        plain_limit = -1 if self._continued else min(self._max, FRAGMENT_BYTES)
        while True:
            # Each frame's header, read in place. Where it does not end in this chunk, it is kept for the next.
            if size - at < 2:
                stop = self._keep_head
                break
            first, second = data[at], data[at + 1]
            length = second & 0x7F
            body = at + shortest
            if length == 126:
                body += 2
                length = data[at + 2] << 8 | data[at + 3] if body <= size else 0
            elif length == 127:
                body += 8
                length = int.from_bytes(data[at + 2 : at + 10], "big") if body <= size else 0
            if body > size:
                stop = self._keep_head
                break
            end = body + length
            # A whole message in one frame, all of it here: what nearly every frame of a session is.
            if end > size or length > plain_limit or not 0x81 <= first <= 0x82 or second & MASKED != mask_bit:
                stop = self._begin
                break
            at = end
            frames += 1
            payload_bytes += length
        self.frames += frames
        self.payload_bytes += payload_bytes
        if at > start:
            units.append(view[start:at])
        if at == size:
            return at
        return stop(data, at, units)

    def _keep_head(self, data: bytes, at: int, units: list[Unit]) -> int:
        self._head = data[at:]
        self._check_first(units)
        return len(data)

    def _complete_header(self, data: bytes, units: list[Unit]) -> int:
        """Put the kept beginning of a header and what is in `data` together; give where the header ends in `data`."""
        kept = len(self._head)
        header = self._head + data[: HEADER_BYTES - kept]
        needed = _header_length(header)
        if needed is None or len(header) < needed:
            self._head = header
            self._check_first(units)
            return len(data)
        self._head = b""
        self._begin(header[:needed], 0, units)
        return needed - kept

    def _check_first(self, units: list[Unit]) -> None:
        """Find what is wrong with a header of which only the beginning has come: its peer may wait for our answer."""
        if len(self._head) >= 2:
            fault = self._header_fault(self._head[0], self._head[1], 0)
            if fault:
                self._end(fault, units)

    def _begin(self, data: bytes, at: int, units: list[Unit]) -> int:
        """Open the unit whose header begins at `at`; give where its payload begins."""
        first, second = data[at], data[at + 1]
        length, body = _length(data, at)
        fault = self._header_fault(first, second, length)
        if fault:
            self._end(fault, units)
            return len(data)
        opcode, fin = first & 0x0F, bool(first & FIN)
        if opcode < CLOSE:
            self._message_bytes = length + (self._message_bytes if self._continued else 0)
            self._continued = not fin
            if length > FRAGMENT_BYTES:
                self._large_left, self._large_fin = length, fin
                self._large_mask = data[body - 4 : body] if self._masked else b""
                self._open_fragment(opcode)
                return body
        self._open(opcode, fin, data[at:body], length, units)
        return body

    def _header_fault(self, first: int, second: int, length: int) -> Fault | None:
        opcode, fin = first & 0x0F, first & FIN
        if first & 0x70:
            return Fault(PROTOCOL_ERROR, "reserved bits are set")
        if (second & MASKED != 0) is not self._masked:
            return Fault(PROTOCOL_ERROR, "frame without a mask" if self._masked else "masked frame from a server")
        if opcode >= CLOSE:
            if opcode > PONG:
                return Fault(PROTOCOL_ERROR, "reserved opcode")
            if not fin or second & 0x7F > 125:
                return Fault(PROTOCOL_ERROR, "control frame too long or in fragments")
            return None
        if opcode > BINARY:
            return Fault(PROTOCOL_ERROR, "reserved opcode")
        if (opcode == CONTINUATION) is not self._continued:
            what = "a message inside another one" if self._continued else "continuation of nothing"
            return Fault(PROTOCOL_ERROR, what)
        if length >> 63:
            return Fault(PROTOCOL_ERROR, "length out of range")
        if length + (self._message_bytes if self._continued else 0) > self._max:
            return Fault(TOO_BIG, f"message over the limit of {self._max} bytes")
        return None

    def _open(self, opcode: int, fin: bool, header: bytes, length: int, units: list[Unit]) -> None:
        self._unit_is_open, self._parts, self._missing = True, [header], length
        self._opcode, self._unit_fin = opcode, fin
        if not length:
            self._finish(units)

    def _open_fragment(self, opcode: int) -> None:
        length = min(self._large_left, FRAGMENT_BYTES)
        self._large_left -= length
        fin = self._large_fin and not self._large_left
        self._unit_is_open, self._missing = True, length
        self._parts = [_header(opcode, fin, length, self._large_mask)]
        self._opcode, self._unit_fin = opcode, fin

    def _fill(self, view: memoryview, at: int, units: list[Unit]) -> int:
        piece = view[at : at + self._missing]
        size = len(piece)
        if size >= SMALL_PIECE_BYTES:
            self._parts.append(piece)
        elif isinstance(gathered := self._parts[-1], bytearray):
            gathered += piece
        else:
            self._parts.append(bytearray(piece))
        self._missing -= size
        if not self._missing:
            self._finish(units)
        return at + size

    def _finish(self, units: list[Unit]) -> None:
        parts, self._parts, self._unit_is_open = self._parts, [], False
        if self._opcode >= CLOSE:
            self._control(parts, units)
            return
        units.extend(parts)
        self.unfinished = not self._unit_fin
        if self._large_left:
            self.payload_bytes += FRAGMENT_BYTES
            self._open_fragment(CONTINUATION)
            return
        self.frames += 1
        self.payload_bytes += sum(map(len, parts)) - len(parts[0])

    def _control(self, parts: list[Octets], units: list[Unit]) -> None:
        octets = b"".join(parts)
        payload = octets[6:] if self._masked else octets[2:]
        if self._masked:
            payload = apply_mask(payload, octets[2:6])
        if self._opcode == CLOSE:
            self._end(parse_close(payload), units)
        else:
            self.events += 1
            units.append(Control(self._opcode, payload, octets))

    def _end(self, last: CloseFrame | Fault, units: list[Unit]) -> None:
        self.ended = True
        self.events += 1
        self._head, self._parts = b"", []
        units.append(last)


def split(octets: bytes) -> Iterator[tuple[int, memoryview, memoryview]]:
    """The frames of `octets`, which are whole and unmasked: first octet, payload, and the frame as it stands.

    For the few that have to be read: a replica's first messages, and all where the client takes messages.
    """
    view, at = memoryview(octets), 0
    while at < len(octets):
        length, body = _length(octets, at)
        yield octets[at], view[body : body + length], view[at : body + length]
        at = body + length


def build(opcode: int, payload: bytes, mask: bytes = b"", *, fin: bool = True) -> bytes:
    """One frame. `mask` is 4 octets for a frame to a server, none for one to a client (§5.1, §5.3)."""
    return _header(opcode, fin, len(payload), mask) + (apply_mask(payload, mask) if mask else payload)


def build_close(code: int | None, reason: str, mask: bytes = b"") -> bytes:
    """A close frame; `reason` is at most 123 octets of UTF-8 and goes only with a code (§5.5.1)."""
    return build(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason.encode(), mask)


def parse_close(payload: bytes) -> CloseFrame | Fault:
    """What a close frame's payload says, or what is wrong with it (§5.5.1, §7.4)."""
    if not payload:
        return CloseFrame(None, "")
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or code not in _MAY_BE_SENT:
        return Fault(PROTOCOL_ERROR, "close frame with an invalid code")
    try:
        return CloseFrame(code, payload[2:].decode())
    except UnicodeDecodeError:
        return Fault(INVALID_DATA, "close reason that is not UTF-8")


def apply_mask(payload: bytes, mask: bytes) -> bytes:
    """`payload` masked, or unmasked, with the 4 octets of `mask` (§5.3). For small payloads: it copies."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def _header(opcode: int, fin: bool, length: int, mask: bytes) -> bytes:
    first, mask_bit = opcode | (FIN if fin else 0), MASKED if mask else 0
    if length < 126:
        return bytes((first, mask_bit | length)) + mask
    if length < 65_536:
        return bytes((first, mask_bit | 126)) + length.to_bytes(2, "big") + mask
    return bytes((first, mask_bit | 127)) + length.to_bytes(8, "big") + mask


def _header_length(octets: bytes) -> int | None:
    """How long the header is that `octets` begin with; None while that cannot be told."""
    if len(octets) < 2:
        return None
    return 2 + {126: 2, 127: 8}.get(octets[1] & 0x7F, 0) + (4 if octets[1] & MASKED else 0)


def _length(octets: bytes, at: int) -> tuple[int, int]:
    """Of the frame whose header begins at `at`: the payload's length, and where it begins."""
    second = octets[at + 1]
    length, body = second & 0x7F, at + 2
    if length == 126:
        length, body = int.from_bytes(octets[body : body + 2], "big"), body + 2
    elif length == 127:
        length, body = int.from_bytes(octets[body : body + 8], "big"), body + 8
    return length, body + (4 if second & MASKED else 0)

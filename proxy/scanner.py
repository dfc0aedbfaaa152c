"""PURE. Cut a stream of octets into whole frames that can be passed on unopened.

The theory. A peer's octets come in chunks that know nothing of frames. What may be passed on is a *unit*: a whole
frame, or, of a frame whose payload is over FRAGMENT_BYTES, a fragment of just that size with a header of ours (§5.4
allows it to anyone on the way). Between two units a control frame may stand, so the router can always put in a ping, an
error frame or a close, and a peer that dies never leaves half a frame on the other side. A payload is never unmasked
or decoded (only control frames are, which are for the router to understand), and copied only where the beginning of a
frame would keep a chunk's memory.

    between units ──header complete──▶ in a unit ──last octet──▶ between units
          └── a close frame, or a fault: nothing after it is looked at ──▶ ended

Called by wire.py for each chunk. A peer that sends next to nothing in each of very many frames makes much work of few
octets: what it has sent is given out in portions, so that others have their turn in between.
"""

from __future__ import annotations

from proxy.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    HEADER_BYTES,
    MASKED,
    PONG,
    PROTOCOL_ERROR,
    TOO_BIG,
    CloseFrame,
    Control,
    Fault,
    Octets,
    Unit,
    apply_mask,
    header,
    header_length,
    parse_close,
    payload_length,
)

# A multiple of 4, so that a mask key fits every fragment as it fitted the whole (§5.3).
FRAGMENT_BYTES = 1024 * 1024
# Smaller pieces of a unit are gathered in one buffer: a peer that sends single octets must not cost an object for each.
SMALL_PIECE_BYTES = 4096
# So many units are given out at once, and a few: some milliseconds of work. So is a run of so many whole frames, which
# is one unit. (A portion ends behind a whole frame; with that, it is no more than writev takes.)
PORTION_UNITS, RUN_FRAMES = 1000, 4096
# The beginning of a frame is copied up to this: so the memory of its chunk is free for the next read while it is hot.
COPIED_BYTES = 65_536


class Scanner:
    """Cuts one peer's octets into units.

    `masked`: do its frames carry a mask? A client's must, a server's must not (§5.1). `max_message_bytes` holds for the
    payload of a message, over all of its frames; it is enforced from the header alone.

    `frames` and `payload_bytes` count the data frames of the peer that have passed whole, `events` what else was given
    out. `unfinished` says that the units given out so far end inside a message: a text frame must not follow them.
    `partial` says that not all of what was fed has been given out: it ends inside a frame, or there is `more`, which
    feed() without data gives out.
    """

    __slots__ = (
        "_continued", "_head", "_large_fin", "_large_left", "_large_mask", "_masked", "_max", "_message_bytes",
        "_missing", "_opcode", "_parts", "_rest", "_rest_at", "_unit_fin", "_unit_is_open", "ended", "events",
        "frames", "payload_bytes", "unfinished",
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
        self._rest, self._rest_at = b"", 0  # what was fed, and from where on it was not looked at yet

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
        return self._unit_is_open or bool(self._head) or self.more

    @property
    def more(self) -> bool:
        return bool(self._rest)

    def end(self) -> None:
        """Nothing more comes: let go of what has begun."""
        self.ended = True
        self._head, self._rest, self._parts = b"", b"", []

    def feed(self, data: bytes = b"") -> list[Unit]:
        """The units that end in `data`, in order, or the first of very many.

        Data units are octets to be sent as they are, mostly slices of `data`.
        """
        at = 0
        if self._rest:
            if data:
                data = self._rest[self._rest_at :] + data
            else:
                data, at = self._rest, self._rest_at
            self._rest = b""
        units: list[Unit] = []
        view, size, before = memoryview(data), len(data), self.frames
        while at < size and not self.ended:
            if len(units) >= PORTION_UNITS or self.frames - before >= RUN_FRAMES:
                self._rest, self._rest_at = data, at
                break
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
        whole = payload_bytes = 0
        plain_limit = -1 if self._continued else min(self._max, FRAGMENT_BYTES)
        for whole in range(RUN_FRAMES):  # noqa: B007  (it counts them)
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
            payload_bytes += length
        else:
            whole, stop = RUN_FRAMES, self._go_on
        self.frames += whole
        self.payload_bytes += payload_bytes
        if at > start:
            units.append(view[start:at])
        if at == size:
            return at
        return stop(data, at, units)

    def _go_on(self, data: bytes, at: int, units: list[Unit]) -> int:
        return at  # behind a run that is long enough

    def _keep_head(self, data: bytes, at: int, units: list[Unit]) -> int:
        self._head = data[at:]
        self._check_first(units)
        return len(data)

    def _complete_header(self, data: bytes, units: list[Unit]) -> int:
        """Put the kept beginning of a header and what is in `data` together; give where the header ends in `data`."""
        kept = len(self._head)
        head = self._head + data[: HEADER_BYTES - kept]
        needed = header_length(head)
        if needed is None or len(head) < needed:
            self._head = head
            self._check_first(units)
            return len(data)
        self._head = b""
        self._begin(head[:needed], 0, units)
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
        length, body = payload_length(data, at)
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

    def _open(self, opcode: int, fin: bool, head: bytes, length: int, units: list[Unit]) -> None:
        self._unit_is_open, self._parts, self._missing = True, [head], length
        self._opcode, self._unit_fin = opcode, fin
        if not length:
            self._finish(units)

    def _open_fragment(self, opcode: int) -> None:
        length = min(self._large_left, FRAGMENT_BYTES)
        self._large_left -= length
        fin = self._large_fin and not self._large_left
        self._unit_is_open, self._missing = True, length
        self._parts = [header(opcode, fin, length, self._large_mask)]
        self._opcode, self._unit_fin = opcode, fin

    def _fill(self, view: memoryview, at: int, units: list[Unit]) -> int:
        piece: Octets = view[at : at + self._missing]
        size = len(piece)
        if size >= SMALL_PIECE_BYTES:
            if size < self._missing and size <= COPIED_BYTES:
                piece = bytes(piece)
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
        self.end()
        self.events += 1
        units.append(last)

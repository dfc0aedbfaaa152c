"""PURE. RFC 6455 frames: what a header says, and how the few frames of the router's own are built.

Called by scanner.py, which cuts a peer's octets into frames, and by the links, which put in pings, error frames and
closes. Must not know sockets, sessions or who the peer is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN = 0x80
MASKED = 0x80

# The longest header: 2 octets, a length of 8, a mask key of 4 (§5.2).
HEADER_BYTES = 14

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


def split(octets: bytes) -> Iterator[tuple[int, memoryview, memoryview]]:
    """The frames of `octets`, which are whole and unmasked: first octet, payload, and the frame as it stands.

    For the few that have to be read: a replica's first messages, and all where the client takes messages.
    """
    view, at = memoryview(octets), 0
    while at < len(octets):
        length, body = payload_length(octets, at)
        yield octets[at], view[body : body + length], view[at : body + length]
        at = body + length


def build(opcode: int, payload: bytes, mask: bytes = b"", *, fin: bool = True) -> bytes:
    """One frame. `mask` is 4 octets for a frame to a server, none for one to a client (§5.1, §5.3)."""
    return header(opcode, fin, len(payload), mask) + (apply_mask(payload, mask) if mask else payload)


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


def header(opcode: int, fin: bool, length: int, mask: bytes) -> bytes:
    """The header of a frame, 2 to 14 octets; `length` is below 2^63 (§5.2)."""
    first, mask_bit = opcode | (FIN if fin else 0), MASKED if mask else 0
    if length < 126:
        return bytes((first, mask_bit | length)) + mask
    if length < 65_536:
        return bytes((first, mask_bit | 126)) + length.to_bytes(2, "big") + mask
    return bytes((first, mask_bit | 127)) + length.to_bytes(8, "big") + mask


def header_length(octets: bytes) -> int | None:
    """How long the header is that `octets` begin with; None while that cannot be told."""
    if len(octets) < 2:
        return None
    return 2 + {126: 2, 127: 8}.get(octets[1] & 0x7F, 0) + (4 if octets[1] & MASKED else 0)


def payload_length(octets: bytes, at: int) -> tuple[int, int]:
    """Of the frame whose header begins at `at`: the payload's length, and where it begins."""
    second = octets[at + 1]
    length, body = second & 0x7F, at + 2
    if length == 126:
        length, body = int.from_bytes(octets[body : body + 2], "big"), body + 2
    elif length == 127:
        length, body = int.from_bytes(octets[body : body + 8], "big"), body + 8
    return length, body + (4 if second & MASKED else 0)

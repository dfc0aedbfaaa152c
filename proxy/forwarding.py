"""PURE. Which headers of a client's handshake go on to its replica, and which the router adds.

Called by the consumer before it opens a replica. A client can write any header: what names the client to the replica
is made here, and an X-Forwarded header that came in counts only where a proxy of ours wrote it (BEHIND_PROXY).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

REQUEST_ID = "X-Request-ID"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# What may not stand in a header's value. Servers let some of it in (RFC 9110 §5.5 has it replaced by a space); the
# websockets client would refuse to send it, which would look like a fault of every replica.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# What may stand in a query (RFC 3986 §3.4), and % for what is quoted already.
_QUERY_CHARACTERS = "!$%&'()*+,-./:;=?@_~[]|"


@dataclass(frozen=True)
class Handshake:
    """What of a client's handshake its replica gets to see."""

    query: str  # without the "?"
    subprotocol: str | None
    headers: tuple[tuple[str, str], ...]

    @property
    def request_id(self) -> str:
        """The session as its replica knows it."""
        return next(value for name, value in self.headers if name == REQUEST_ID)


def forwarded_query(raw: bytes) -> str:
    """The client's query string, with every byte that may not stand in one quoted."""
    return quote(raw, safe=_QUERY_CHARACTERS)


def forwarded_headers(
    received: Iterable[tuple[bytes, bytes]],
    *,
    session: str,
    allowed: Sequence[str],
    client_address: str | None,
    secure: bool,
    behind_proxy: bool,
    authorization: str,
) -> tuple[tuple[str, str], ...]:
    """The headers for the replica's handshake.

    `allowed` are lower-case names that pass through; `authorization`, where set, is the router's own and replaces
    the client's. `secure`: did the client come by TLS to the router itself?
    """
    incoming: dict[str, list[str]] = {}
    for name, value in received:
        incoming.setdefault(name.decode("latin-1").lower(), []).append(_CONTROL.sub(" ", value.decode("latin-1")))

    def trusted(name: str) -> str:
        return ", ".join(incoming.get(name, ())) if behind_proxy else ""

    headers = [(name.title(), value) for name in allowed for value in incoming.get(name, ())]
    if authorization:
        headers = [(name, value) for name, value in headers if name != "Authorization"]
        headers.append(("Authorization", authorization))
    hops = [hop for hop in (trusted("x-forwarded-for"), client_address) if hop]
    host = trusted("x-forwarded-host") or ", ".join(incoming.get("host", ()))
    request_id = trusted("x-request-id")
    return (
        *headers,
        *([("X-Forwarded-For", ", ".join(hops))] if hops else []),
        ("X-Forwarded-Proto", trusted("x-forwarded-proto") or ("https" if secure else "http")),
        *([("X-Forwarded-Host", host)] if host else []),
        (REQUEST_ID, request_id if _REQUEST_ID.fullmatch(request_id) else session),
    )

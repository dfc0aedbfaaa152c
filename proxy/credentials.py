"""PURE. What a client shows of itself in its handshake: a stream token, a ticket, its page's origin.

Called by admission.py, which judges it, and by the consumer, which passes on what is left of query and headers. Neither
tokens nor tickets go on to a replica or into a log.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes, urlsplit

from replicas.tokens import API, STREAM, TICKET, bearer, is_token

# Anywhere in a parameter, with as many % around it as there may be: it must not go on in disguise.
_TICKET = re.compile(rb"ticket_[A-Za-z0-9_-]{43}")
_MOST_UNQUOTING = 4

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Credentials:
    """`token` and `ticket` look like ours, no more is known of them; `origin` None: no page has sent this client."""

    token: str | None = None
    ticket: str | None = None
    origin: str | None = None

    @property
    def shown(self) -> bool:
        return self.token is not None or self.ticket is not None


def credentials(query: bytes, headers: Headers) -> Credentials:
    """Of a handshake. What stands there twice is believed in neither."""
    received = [(name.lower(), value.decode("latin-1").strip()) for name, value in headers]
    shown = [bearer(value) for name, value in received if name == b"authorization"]
    tickets = [value for name, value in map(_parameter, query.split(b"&")) if name == b"ticket"]
    origins = [value for name, value in received if name == b"origin"]
    return Credentials(
        token=_only([token or "" for token in shown], STREAM),
        ticket=_only([ticket.decode("latin-1") for ticket in tickets], TICKET),
        origin=(origin(origins[0]) or "null") if len(origins) == 1 else ("null" if origins else None),
    )


def without_tickets(query: bytes) -> bytes:
    """`query` less every parameter in which a ticket stands, under whatever name and however quoted."""
    return b"&".join(part for part in query.split(b"&") if not _holds_a_ticket(part))


def without_ours(headers: Headers, cookies: Collection[str] = ()) -> list[tuple[bytes, bytes]]:
    """`headers` less an Authorization that is for us, and less our own `cookies`: an operator's session, say."""
    left = []
    for name, value in headers:
        if name.lower() == b"authorization" and _is_ours(value.decode("latin-1")):
            continue
        if name.lower() == b"cookie" and cookies:
            value = b";".join(part for part in value.split(b";") if _cookie(part) not in cookies).strip()
            if not value:
                continue
        left.append((name, value))
    return left


def origin(text: str) -> str | None:
    """`scheme://host[:port]` in its one form (RFC 6454 §4): lower case, no default port. None: it is none."""
    try:
        parts = urlsplit(text.strip().lower())
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not parts.scheme or not host or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        return None
    shown = f"[{host}]" if ":" in host else host
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{shown}" + (f":{port}" if port is not None and port != default else "")


def allows(allowed: Sequence[str], shown: str) -> bool:
    """Is the origin `shown` one of `allowed`? `https://*.example.com` means every subdomain, and not the domain."""
    return any(shown == each or _below(each, shown) for each in allowed)


def is_origin_rule(text: str) -> bool:
    """May it stand among those that are allowed?"""
    plain = text.replace("://*.", "://any.", 1)
    return "*" not in plain and origin(plain) == plain


def _below(pattern: str, shown: str) -> bool:
    scheme, star, domain = pattern.partition("*")
    return bool(star) and shown.startswith(scheme) and shown.endswith(domain) and len(shown) > len(scheme + domain)


def _only(shown: list[str], kind: str) -> str | None:
    return shown[0] if len(shown) == 1 and is_token(shown[0], kind) else None


def _parameter(part: bytes) -> tuple[bytes, bytes]:
    name, _, value = part.partition(b"=")
    return unquote_to_bytes(name), unquote_to_bytes(value)


def _holds_a_ticket(part: bytes) -> bool:
    for _ in range(_MOST_UNQUOTING):
        if _TICKET.search(part):
            return True
        plain = unquote_to_bytes(part)
        if plain == part:
            return False
        part = plain
    return True  # nobody quotes so often in good faith


def _cookie(part: bytes) -> str:
    return part.partition(b"=")[0].strip().decode("latin-1")


def _is_ours(authorization: str) -> bool:
    """Also one that is of no use here: an API token that was sent to the wrong place must not go on."""
    token = bearer(authorization.strip())
    return token is not None and token.startswith(tuple(f"{kind}_" for kind in (STREAM, TICKET, API)))

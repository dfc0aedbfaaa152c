"""PURE. What a client shows of itself in its handshake: a stream token, a ticket, its page's origin.

Called by admission.py, which judges it, and by the consumer, which passes on what is left of query and headers. Neither
tokens nor tickets go on to a replica or into a log.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from replicas.tokens import API, STREAM, TICKET, bearer, is_token

# Anywhere in a parameter, with as many % around it as there may be: it must not go on in disguise.
_TICKET = re.compile(rb"ticket_[A-Za-z0-9_-]{43}")
_MOST_UNQUOTING = 4
# Anywhere in an Authorization, whatever stands around it. Not the end of a word: another's tokens are not ours to keep.
_OURS = re.compile(rb"(?<![A-Za-z0-9])(api|stream|ticket)_[A-Za-z0-9_-]{43}")
_BEGINNINGS = tuple(f"{kind}_" for kind in (API, STREAM, TICKET))
_ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?")
_DEFAULT_PORT = {"http": 80, "https": 443}
_MAX_PORT = 65535

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
        if name.lower() == b"authorization" and _is_ours(value):
            continue
        if name.lower() == b"cookie" and cookies:
            value = b";".join(part for part in value.split(b";") if _cookie(part) not in cookies).strip()
            if not value:
                continue
        left.append((name, value))
    return left


def origin(text: str) -> str | None:
    """`scheme://host[:port]` in its one form (RFC 6454 §6.2): lower case, ASCII, no default port. None: it is none.

    Browsers write a name of other letters as xn--…; written otherwise it would be no page's.
    """
    found = _ORIGIN.fullmatch(text.strip().lower()) if text.isascii() else None
    if found is None:
        return None
    scheme, host, default = found["scheme"], found["host"], _DEFAULT_PORT.get(found["scheme"])
    port = int(found["port"]) if found["port"] else default
    if port is not None and port > _MAX_PORT:
        return None
    return f"{scheme}://{host}" + (f":{port}" if port != default else "")


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


def _is_ours(authorization: bytes) -> bool:
    """Also one that was written wrongly, or is no good here: without its scheme, two in one header, cut off."""
    token = bearer(authorization.decode("latin-1").strip())
    return _OURS.search(authorization) is not None or (token is not None and token.startswith(_BEGINNINGS))

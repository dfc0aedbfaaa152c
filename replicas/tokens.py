"""PURE. Bearer tokens: how they look, and what of one is kept.

Used for the tokens of the API, of streaming clients and for tickets. A token is shown once; only its digest is stored.
"""

from __future__ import annotations

import hashlib
import re
import secrets

API, STREAM, TICKET = "api", "stream", "ticket"  # what a token begins with, so that nobody takes one for another

_OCTETS = 32  # 256 bits: nobody guesses one, so that no throttle is needed where they are asked for
# Enough to recognise one by, and of no use without the rest.
SHOWN_CHARACTERS = 6
DIGEST_CHARACTERS = 64

_TOKEN = re.compile(rf"({API}|{STREAM}|{TICKET})_[A-Za-z0-9_-]{{43}}")
# RFC 6750 §2.1.
_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*) *", re.IGNORECASE)


def new_token(kind: str) -> str:
    """`kind`, `_` and 43 characters that may stand in a URL."""
    return f"{kind}_{secrets.token_urlsafe(_OCTETS)}"


def digest(token: str) -> str:
    """SHA-256, in hex. A password needs a slow hash because people choose it; these are random."""
    return hashlib.sha256(token.encode()).hexdigest()


def is_token(text: str, kind: str) -> bool:
    """Could it be a token of this kind?"""
    return text.startswith(f"{kind}_") and _TOKEN.fullmatch(text) is not None


def beginning(token: str) -> str:
    """What may be shown of a token for good."""
    kind, _, rest = token.partition("_")
    return f"{kind}_{rest[:SHOWN_CHARACTERS]}…"


def bearer(authorization: str) -> str | None:
    """The token of an Authorization header of the scheme Bearer (RFC 6750 §2.1); None: it is of another kind."""
    found = _BEARER.fullmatch(authorization)
    return found[1] if found else None

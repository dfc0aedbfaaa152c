"""PURE. What brings a client back to the replica of its last session: its affinity key, found in its handshake.

Called by the consumer. A key may be a secret (a cookie, a token): only its digest is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from urllib.parse import parse_qs

DIGEST_BYTES = 16


def affinity_key(affinity: str, query: bytes, headers: Iterable[tuple[bytes, bytes]], secret: str) -> str | None:
    """The digest of what `affinity` (rules.affinity) names, 32 characters; None where the handshake has none."""
    kind, _, name = affinity.partition(":")
    value = {"query": _of_query, "header": _of_header, "cookie": _of_cookie}.get(kind, _none)(
        name, query, list(headers)
    )
    if not value:
        return None
    key = hashlib.sha256(secret.encode()).digest()
    return hashlib.blake2b(value.encode(), key=key, digest_size=DIGEST_BYTES).hexdigest()


def _none(name: str, query: bytes, headers: list[tuple[bytes, bytes]]) -> str | None:
    return None


def _of_query(name: str, query: bytes, headers: list[tuple[bytes, bytes]]) -> str | None:
    try:
        return parse_qs(query.decode("latin-1")).get(name, [None])[0]
    except ValueError:  # more fields than Python reads
        return None


def _of_header(name: str, query: bytes, headers: list[tuple[bytes, bytes]]) -> str | None:
    wanted = name.lower().encode()
    return next((value.decode("latin-1").strip() for header, value in headers if header.lower() == wanted), None)


def _of_cookie(name: str, query: bytes, headers: list[tuple[bytes, bytes]]) -> str | None:
    return cookie(name, headers)


def cookie(name: str, headers: list[tuple[bytes, bytes]]) -> str | None:
    """What the first cookie of this name says, None without one."""
    # Not http.cookies: it gives up a whole header for one cookie that another program wrote in its own way, and takes
    # half a second for one of 16 KiB that is all quotes (CVE-2024-7592, Python before 3.11.10 and 3.12.6).
    for header, line in headers:
        if header.lower() == b"cookie":
            for each in line.decode("latin-1").split(";"):
                found, _, value = each.partition("=")
                if found.strip() == name and value.strip():
                    return value.strip()
    return None

"""Certificates of replicas that speak https: from a CA that the routers of these tests know, or with a fault."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import trustme

AUTHORITY = trustme.CA()
_LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


def server_tls(fault: str = "") -> ssl.SSLContext:
    """A server's context for `localhost`, with one `fault`: "unknown CA", "wrong host", "expired" or none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority = trustme.CA() if fault == "unknown CA" else AUTHORITY
    name = "elsewhere.example" if fault == "wrong host" else "localhost"
    until = (
        {"not_before": _LONG_AGO, "not_after": _LONG_AGO + datetime.timedelta(days=90)} if fault == "expired" else {}
    )
    authority.issue_cert(name, **until).configure_cert(context)
    return context


def write_server_certificate(folder: Path) -> tuple[Path, Path]:
    """A key and a certificate chain for `localhost` as files, for a server that reads them: their paths."""
    issued = AUTHORITY.issue_cert("localhost")
    key, chain = folder / "key.pem", folder / "chain.pem"
    issued.private_key_pem.write_to_path(key)
    for pem in issued.cert_chain_pems:
        pem.write_to_path(chain, append=True)
    return key, chain

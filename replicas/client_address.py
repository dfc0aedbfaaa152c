"""PURE. Which address a client has, where proxies stand in front of the router.

Used for sessions (limits, the log) and for sign-ins. Each proxy adds the address that it was connected from to the end
of X-Forwarded-For: with N of ours the Nth from the right was written by the outermost, and all before it by strangers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

# What one client of IPv6 has: its provider gives it no less (RFC 6177).
IPV6_PREFIX = 64


def client_address(peer: str | None, forwarded_for: Sequence[str], trusted_proxies: int) -> str | None:
    """The client's address, or None where nobody knows it.

    `peer`: who has connected to us. `forwarded_for`: the values of X-Forwarded-For, one a header. Of 0 trusted
    proxies the peer is the client. Where the header has fewer entries than there are proxies, or no address in that
    place, it did not come through all of them, and nobody but the peer is known.
    """
    if trusted_proxies > 0:
        hops = [hop.strip() for value in forwarded_for for hop in value.split(",")]
        found = plain(hops[-trusted_proxies]) if len(hops) >= trusted_proxies else None
        if found is not None:
            return found
    return plain(peer) if peer is not None else None


def plain(text: str) -> str | None:
    """The address in `text`, in its one canonical form; None: there is none.

    Some proxies write a port behind it, and IPv6 in []; an IPv4 address inside an IPv6 one is the IPv4 one.
    """
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def counted_as(address: str) -> str:
    """What limits count by: an IPv4 address, or the network of an IPv6 one."""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))

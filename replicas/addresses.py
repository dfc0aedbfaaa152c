"""PURE. Where a replica may be: which addresses are never one, in every way to write them, and the operator's networks.

Used by rules.py for addresses as people write them, and by reaching.py for the one that is connected to. Private and
loopback addresses are allowed: fleets of GPUs live there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

OUTSIDE = "outside ROUTER_REPLICA_NETWORKS"

# What a cloud tells its machines about themselves, credentials included. All within 169.254.0.0/16 are link-local, too.
_METADATA = (
    "169.254.169.254",  # nearly all
    "100.100.100.200", "fd00:100::100:200",  # Alibaba
    "168.63.129.16",  # Azure's WireServer
    "192.0.0.192", "fd00:c1::a9fe:a9fe",  # Oracle
    "fd00:ec2::/32",  # AWS: metadata, credentials of pods, DNS, NTP
    "fd20:ce::254",  # Google
    "fd00:42::42",  # Scaleway
    "fd00:a9fe:a9fe::1",  # Linode
)  # fmt: skip
_NEVER: tuple[tuple[str, Network], ...] = (
    *(("metadata", ip_network(network)) for network in _METADATA),
    ("link-local", ip_network("169.254.0.0/16")),
    ("link-local", ip_network("fe80::/10")),
    ("unspecified", ip_network("0.0.0.0/8")),  # connect() takes 0.0.0.0 for this host; the rest is no host's (RFC 1122)
    ("unspecified", ip_network("::/128")),
    ("multicast", ip_network("224.0.0.0/4")),
    ("multicast", ip_network("ff00::/8")),
    ("broadcast", ip_network("255.255.255.255/32")),
)

# The same as numbers: every session asks, and an address is compared with a network much more slowly.
_RANGES = tuple((out.version, int(out[0]), int(out[-1]), word) for word, out in _NEVER)

_LOOPBACK6 = IPv6Address("::1")
# IPv6 networks whose addresses carry an IPv4 one, and how many bits stand right of it.
_CARRIERS = (
    (ip_network("::/96"), 0),  # IPv4-compatible (RFC 4291 §2.5.5.1)
    (ip_network("::ffff:0:0/96"), 0),  # IPv4-mapped (§2.5.5.2)
    (ip_network("::ffff:0:0:0/96"), 0),  # IPv4-translated (RFC 2765)
    (ip_network("64:ff9b::/96"), 0),  # NAT64 (RFC 6052)
    (ip_network("2002::/16"), 80),  # 6to4 (RFC 3056)
    (ip_network("2001::/32"), 64),  # Teredo's server (RFC 4380); its client is the complement of the last 32 bits
)
_TEREDO = IPv6Network("2001::/32")
# NAT64 of one's own (RFC 8215): where the IPv4 address stands depends on a prefix that only its network knows. Of what
# may be one, only the words that are worth a refusal on suspicion count: zeros would be an unspecified address.
_OWN_NAT64 = IPv6Network("64:ff9b:1::/48")
_SUSPECTED = ("metadata", "link-local")

_PART = re.compile(r"0x[0-9a-f]*|[0-9]+")


class NotOne(ValueError):
    """A text that is no network to allow; it says what is wrong with it."""


def literal(host: str) -> Address | None:
    """The address that `host` spells; None: it is a name.

    IPv4 also as the C library reads it (inet_aton(3)): one to four numbers, decimal, octal or hexadecimal, the last of
    which fills what is left. IPv6 without brackets; a `%interface` is not looked at.
    """
    if ":" in host:
        try:
            return IPv6Address(host.partition("%")[0])
        except ValueError:
            return None
    parts = host.lower().removesuffix(".").split(".")
    if len(parts) > 4 or not all(_PART.fullmatch(part) for part in parts):
        return None
    try:
        *leading, last = [_number(part) for part in parts]
    except ValueError:
        return None
    if any(number > 255 for number in leading) or last >= 256 ** (4 - len(leading)):
        return None
    return IPv4Address(sum(number << 24 - 8 * at for at, number in enumerate(leading)) + last)


def plain(address: Address) -> Address:
    """The IPv4 address where `address` is one written in IPv6 (`::ffff:a.b.c.d`): the same host for the kernel."""
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def never(address: Address) -> str:
    """Why no replica may be at `address`, in a word; "": it may. Asked of the IPv4 address inside an IPv6 one, too."""
    word = _never(address)
    if word or isinstance(address, IPv4Address):
        return word
    for word in map(_never, _carried(address)):
        if word:
            return word
    return next((word for word in map(_never, _suspected(address)) if word in _SUSPECTED), "")


def refusal(address: Address, allowed: Sequence[Network]) -> str:
    """`never`, and OUTSIDE where `allowed` names networks and `address` is in none of them."""
    address = plain(address)
    if word := never(address):
        return word
    if allowed and not any(address.version == network.version and address in network for network in allowed):
        return OUTSIDE
    return ""


def network(text: str) -> Network:
    """A network that may be allowed. Raises NotOne."""
    try:
        found = ip_network(text)
    except ValueError as error:
        try:
            meant = ip_network(text, strict=False)
        except ValueError:
            raise NotOne(f"{text} is no network") from error
        raise NotOne(f"{text} has more bits than its prefix; write {meant}") from error
    if isinstance(found, IPv6Network) and found.prefixlen >= 96 and (mapped := found.network_address.ipv4_mapped):
        raise NotOne(f"{text} is IPv4; write {mapped}/{found.prefixlen - 96}")
    word = next((word for word, out in _NEVER if out.version == found.version and found.subnet_of(out)), "")  # type: ignore[arg-type]
    if word:
        raise NotOne(f"{text} is {word}, where no replica may be")
    return found


def _number(part: str) -> int:
    """Raises ValueError: it is an octal number with an 8 or a 9."""
    if part.startswith("0x"):
        return int(part[2:] or "0", 16)
    return int(part, 8 if part.startswith("0") else 10)


def _never(address: Address) -> str:
    version, number = address.version, int(address)
    for of, first, last, word in _RANGES:
        if first <= number <= last and version == of:
            return word
    return ""


def _carried(address: IPv6Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that an IPv6 one is a way to."""
    if address == _LOOPBACK6:
        return
    bits = int(address)
    for carrier, right in _CARRIERS:
        if address in carrier:
            yield IPv4Address(bits >> right & 0xFFFF_FFFF)
    if address in _TEREDO:
        yield IPv4Address(~bits & 0xFFFF_FFFF)


def _suspected(address: IPv6Address) -> Iterator[IPv4Address]:
    """Those that it may be a way to: for prefixes of 96, 64, 56 and 48 bits (RFC 6052 §2.2)."""
    if address not in _OWN_NAT64:
        return
    bits = int(address)
    yield IPv4Address(bits & 0xFFFF_FFFF)
    without_octet = bits >> 64 << 56 | bits & (1 << 56) - 1  # the one at bit 64 belongs to none
    for right in (24, 32, 40):
        yield IPv4Address(without_octet >> right & 0xFFFF_FFFF)

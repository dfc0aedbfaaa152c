"""Where a replica may be (replicas/addresses.py), held against the C library's own reading of what people write."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicas import rules
from replicas.addresses import OUTSIDE, NotOne, literal, network, never, plain, refusal

# One address a kind of those that are refused.
REFUSED = {
    "169.254.169.254": "metadata",
    "100.100.100.200": "metadata",
    "168.63.129.16": "metadata",
    "fd00:ec2::254": "metadata",
    "fd20:ce::254": "metadata",
    "169.254.0.0": "link-local",
    "169.254.255.255": "link-local",
    "fe80::1": "link-local",
    "febf:ffff::1": "link-local",
    "0.0.0.0": "unspecified",
    "0.1.2.3": "unspecified",
    "::": "unspecified",
    "224.0.0.1": "multicast",
    "239.255.255.255": "multicast",
    "ff02::1": "multicast",
    "255.255.255.255": "broadcast",
}
ALLOWED = [
    "127.0.0.1", "127.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "169.253.255.255", "169.255.0.0",
    "1.0.0.0", "223.255.255.255", "8.8.8.8", "255.255.255.254", "::1", "fd00::1", "fec0::1", "fe7f::1", "2001:db8::1",
]  # fmt: skip


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_no_replica_has_is_refused(address: str) -> None:
    """With its kind in a word, where a person types it and where it is connected to."""
    assert refusal(ip_address(address), ()) == REFUSED[address]
    shown = f"[{address}]" if ":" in address else address
    with pytest.raises(rules.RuleBroken, match=f"^must not have an? {REFUSED[address]} address; give the name or the"):
        rules.replica_url(f"http://{shown}:8000")


@pytest.mark.parametrize("address", ALLOWED)
def test_an_address_beside_those_is_allowed(address: str) -> None:
    """Private and loopback ones too: fleets of GPUs live there."""
    assert refusal(ip_address(address), ()) == ""
    shown = f"[{address}]" if ":" in address else address
    assert rules.replica_url(f"http://{shown}:8000") == f"http://{shown}:8000"


# As inet_aton(3) reads it, and as IPv6 carries it.
SPELLINGS = [
    "2852039166", "0xa9fea9fe", "0XA9FEA9FE", "025177524776", "0xa9.0xfe.0xa9.0xfe", "0251.0376.0251.0376",
    "169.16689662", "169.254.43518", "0xa9.254.0251.254", "169.254.169.254.",
]  # fmt: skip
CARRIERS = [
    "::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "::169.254.169.254", "::ffff:0:a9fe:a9fe", "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a9fe:a9fe", "64:ff9b:1:0:a9:fea9:fe00:0", "64:ff9b:1:a9fe:a9:fe00::", "64:ff9b:1:a9:fe:a9fe::",
    "2002:a9fe:a9fe::1", "2001:0:a9fe:a9fe::", "2001:0:0a01:101:0:0:5601:5601",
]  # fmt: skip


@pytest.mark.parametrize("spelled", SPELLINGS)
def test_metadata_is_refused_in_every_spelling(spelled: str) -> None:
    """Decimal, octal, hexadecimal, shortened; the message says which address it is."""
    with pytest.raises(rules.RuleBroken, match=r"must not have a metadata address \(169\.254\.169\.254\); give"):
        rules.replica_url(f"http://{spelled}:80")


@pytest.mark.parametrize("spelled", CARRIERS)
def test_metadata_is_refused_inside_ipv6(spelled: str) -> None:
    """Mapped, compatible, translated, by NAT64, 6to4 or Teredo."""
    with pytest.raises(rules.RuleBroken, match=r"must not have a (metadata|link-local) address"):
        rules.replica_url(f"http://[{spelled}]:80")


def test_a_nat64_of_ones_own_is_not_refused_for_its_zeros() -> None:
    """Where the IPv4 address stands in it is not known; zeros elsewhere are not 0.0.0.0."""
    assert never(IPv6Address("64:ff9b:1::a00:5")) == ""


@given(st.integers(0, 2**32 - 1))
def test_ipv4_inside_ipv6_is_judged_as_by_itself(number: int) -> None:
    """Whatever is refused is refused in all carriers, and nothing else but what they are themselves."""
    inside = IPv4Address(number)
    assert plain(IPv6Address(f"::ffff:{inside}")) == inside
    by_6to4 = f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1"
    for carrier in (f"::ffff:{inside}", f"64:ff9b::{inside}", f"::ffff:0:{inside}", by_6to4):
        assert refusal(IPv6Address(carrier), ()) == never(inside)


# Where there are three parts, the middle one fills 16 bits for some libraries: not for glibc, nor here.
PARTS = st.lists(
    st.integers(0, 2**33).flatmap(lambda n: st.sampled_from([str(n), hex(n), f"0{n:o}"]))
    | st.integers(0, 256).flatmap(lambda n: st.sampled_from([str(n), hex(n), f"0{n:o}"]))
    | st.sampled_from(["", "08", "0x", "0xg", "1e1", "+1", "-1", " 1", "1_0", "１", "00", "0000251", "0b1"]),
    min_size=1, max_size=5,
).map(".".join)  # fmt: skip


@given(PARTS)
def test_numbers_are_read_as_the_c_library_reads_them(text: str) -> None:
    """An address that getaddrinfo() understands without DNS and `literal` does not would come in by the side door."""
    try:
        expected: str | None = socket.inet_ntoa(socket.inet_aton(text)) if text.isascii() and " " not in text else None
    except OSError:
        expected = None
    if expected is not None:
        assert str(literal(text)) == expected


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_a_name(text: str) -> None:
    """Never an exception; and an address reads the same again."""
    found = literal(text)
    assert found is None or literal(str(found)) == found


def test_only_the_operators_networks_are_allowed_where_there_are_some() -> None:
    """What is refused stays refused within them, and an IPv4 address written in IPv6 is the IPv4 one."""
    networks = [ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("0.0.0.0/1")]
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd12::1", "127.0.0.1"):
        assert refusal(ip_address(address), networks) == ""
    for address in ("192.168.0.1", "::1", "2001:db8::1", "64:ff9b::10.0.0.1", "::ffff:192.168.0.1"):
        assert refusal(ip_address(address), networks) == OUTSIDE
    assert refusal(ip_address("0.0.0.0"), networks) == "unspecified"
    assert refusal(ip_address("fd00:ec2::254"), networks) == "metadata"


def test_a_network_is_read_or_refused_with_the_reason() -> None:
    """What can never match is a slip."""
    assert network("10.0.0.0/8") == ip_network("10.0.0.0/8")
    assert network("10.0.0.5") == ip_network("10.0.0.5/32")
    assert network("0.0.0.0/0") == ip_network("0.0.0.0/0")
    for text, wrong in {
        "10.0.0.1/8": "10.0.0.1/8 has more bits than its prefix; write 10.0.0.0/8",
        "10.0.0.0/33": "is no network",
        "gpu.example": "is no network",
        "169.254.0.0/24": "is link-local, where no replica may be",
        "ff00::/8": "is multicast, where",
        "::ffff:10.0.0.0/104": "is IPv4; write 10.0.0.0/8",
    }.items():
        with pytest.raises(NotOne) as told:
            network(text)
        assert wrong in str(told.value)

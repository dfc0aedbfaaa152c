"""A client's address behind proxies: what a stranger writes changes nothing (replicas/client_address.py)."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicas.client_address import client_address, counted_as, plain

PEER = "192.0.2.1"
addresses = st.ip_addresses().map(str)


@pytest.mark.parametrize(
    ("forwarded", "proxies", "found"),
    [
        (["203.0.113.9"], 0, PEER),
        (["203.0.113.9"], 1, "203.0.113.9"),
        (["1.1.1.1, 203.0.113.9"], 1, "203.0.113.9"),
        (["1.1.1.1, 203.0.113.9, 10.0.0.1"], 2, "203.0.113.9"),
        (["1.1.1.1", "203.0.113.9", "10.0.0.1"], 2, "203.0.113.9"),
        (["203.0.113.9"], 2, PEER),  # it did not come through both
        ([], 1, PEER),
        (["unknown"], 1, PEER),
        ([""], 1, PEER),
        (["203.0.113.9:4711"], 1, "203.0.113.9"),
        (["[2001:db8::9]:4711"], 1, "2001:db8::9"),
        (["2001:DB8:0::9"], 1, "2001:db8::9"),
        (["::ffff:203.0.113.9"], 1, "203.0.113.9"),
    ],
)
def test_the_nth_from_the_right(forwarded: list[str], proxies: int, found: str) -> None:
    assert client_address(PEER, forwarded, proxies) == found


@given(st.lists(st.text()), addresses, st.lists(addresses, max_size=3))
def test_a_forged_header_changes_nothing(forged: list[str], client: str, proxies: list[str]) -> None:
    """Whatever a client writes, the outermost proxy of ours adds its address behind it."""
    written = [*forged, client, *proxies]
    found = client_address(PEER, [", ".join(written)], len(proxies) + 1)
    assert found == plain(client)
    assert client_address(PEER, written, len(proxies) + 1) == plain(client)


@given(st.none() | st.text(), st.lists(st.text()), st.integers(0, 16))
def test_whatever_comes_is_an_address_or_none(peer: str | None, forwarded: list[str], proxies: int) -> None:
    found = client_address(peer, forwarded, proxies)
    assert found is None or str(ipaddress.ip_address(found)) == found


def test_of_ipv6_a_network_counts_as_one() -> None:
    """A client of IPv6 has 2^64 addresses at the least."""
    assert counted_as("2001:db8:1:2:3:4:5:6") == counted_as("2001:db8:1:2::") == "2001:db8:1:2::/64"
    assert counted_as("2001:db8:1:3::") != counted_as("2001:db8:1:2::")
    assert counted_as("192.0.2.7") == "192.0.2.7"

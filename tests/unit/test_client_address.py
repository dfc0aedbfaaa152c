"""A client's address behind proxies: what a stranger writes changes nothing (replicas/client_address.py)."""

from __future__ import annotations

import pytest

from replicas.client_address import client_address, counted_as

PEER = "192.0.2.1"


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


def test_of_ipv6_a_network_counts_as_one() -> None:
    """A client of IPv6 has 2^64 addresses at the least."""
    assert counted_as("2001:db8:1:2:3:4:5:6") == counted_as("2001:db8:1:2::") == "2001:db8:1:2::/64"
    assert counted_as("2001:db8:1:3::") != counted_as("2001:db8:1:2::")
    assert counted_as("192.0.2.7") == "192.0.2.7"

"""What a stranger shows of itself before it is known: tokens, tickets, an origin, X-Forwarded-For."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import quote

from hypothesis import example, given
from hypothesis import strategies as st

from proxy.credentials import credentials, origin, without_ours, without_tickets
from replicas.client_address import client_address, counted_as, plain
from replicas.tokens import API, STREAM, TICKET, is_token

TOKENS = {kind: f"{kind}_{'Aa0-_' * 8}Zz9" for kind in (API, STREAM, TICKET)}  # the same in every run
A_TICKET = TOKENS[TICKET]
PEER = "192.0.2.1"

NAMES = st.sampled_from([b"authorization", b"Authorization", b"origin", b"cookie", b"x-user"]) | st.binary(max_size=20)
# Of tokens, and of what may stand around them or cut them, more than chance has.
PIECES = st.sampled_from(
    [*(text.encode() for text in TOKENS.values()), A_TICKET[:20].encode(), b"Bearer ", b"bearer\t", b"Basic ", b" ",
     b",", b";", b"=", b"%", b"\x85", b"_", b"stream_", b"https://a.example", b":443", b"null"]
)  # fmt: skip
VALUES = st.binary(max_size=60) | st.lists(PIECES, max_size=6).map(b"".join)
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=6)
ADDRESSES = st.ip_addresses().map(str)
FORWARDED = st.text() | ADDRESSES | ADDRESSES.map(lambda address: f"[{address}]:443")


@given(st.binary(max_size=200) | st.lists(PIECES | st.just(b"&ticket="), max_size=8).map(b"".join), HEADERS)
@example(b"ticket=" + A_TICKET.encode(), [(b"Authorization", b"Bearer " + TOKENS[STREAM].encode())])
def test_what_is_shown_looks_like_ours_or_is_nothing(query: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """And an origin is in its one form, or that of no page."""
    found = credentials(query, headers)
    assert found.token is None or is_token(found.token, STREAM)
    assert found.ticket is None or is_token(found.ticket, TICKET)
    assert found.origin in (None, "null") or origin(found.origin or "") == found.origin
    assert (found.origin is None) == (not any(name.lower() == b"origin" for name, _ in headers))


@given(HEADERS)
def test_no_token_of_ours_goes_on_as_an_authorization(headers: list[tuple[bytes, bytes]]) -> None:
    """Wherever it stands in one; of other headers none is lost or changed, but for our own cookies."""
    left = without_ours(headers, ["sessionid"])
    for name, value in left:
        if name.lower() == b"authorization":
            assert not any(
                re.search(rb"(?<![A-Za-z0-9])" + re.escape(text.encode()), value) for text in TOKENS.values()
            )
    others = [pair for pair in headers if pair[0].lower() not in (b"authorization", b"cookie")]
    assert [pair for pair in left if pair[0].lower() not in (b"authorization", b"cookie")] == others


@given(
    st.lists(st.tuples(st.text("ab=;%+ /", max_size=5), st.sampled_from(["", "x", A_TICKET]), st.integers(0, 3))),
    st.sampled_from("&;"),
)
def test_no_ticket_goes_on_however_it_is_quoted(parts: list[tuple[str, str, int]], separator: str) -> None:
    """Under whatever name, quoted as often as may be; what has none goes on as it was."""
    written = []
    for name, value, times in parts:
        part = f"{name}={value}"
        for _ in range(times):
            part = quote(part, safe="")
        written.append(part)
    query = separator.join(written)
    left = without_tickets(query.encode()).decode()
    unquoted = left
    for _ in range(8):
        assert A_TICKET not in unquoted
        unquoted = unquoted.replace("%25", "%").replace("%5F", "_").replace("%2D", "-")
    if "ticket" not in query and "%2525" not in query:  # nobody quotes so often in good faith
        assert left == query


@given(st.binary(max_size=60).filter(lambda query: b"ticket" not in query and b"%" not in query))
def test_a_query_without_tickets_is_left_as_it_is(query: bytes) -> None:
    assert without_tickets(query) == query


@given(st.lists(FORWARDED), ADDRESSES, st.lists(ADDRESSES, max_size=3))
def test_a_forged_forwarded_for_changes_nothing(forged: list[str], client: str, proxies: list[str]) -> None:
    """Whatever a client writes, the outermost proxy of ours adds its address behind it."""
    written = [*forged, client, *proxies]
    found = client_address(PEER, [", ".join(written)], len(proxies) + 1)
    assert found == plain(client)
    assert client_address(PEER, written, len(proxies) + 1) == plain(client)


@given(st.none() | st.text(), st.lists(FORWARDED), st.integers(0, 16))
def test_whatever_comes_is_an_address_or_none(peer: str | None, forwarded: list[str], proxies: int) -> None:
    """And it counts as itself, or as its network."""
    found = client_address(peer, forwarded, proxies)
    assert found is None or str(ipaddress.ip_address(found)) == found
    assert found is None or ipaddress.ip_address(found) in ipaddress.ip_network(counted_as(found))

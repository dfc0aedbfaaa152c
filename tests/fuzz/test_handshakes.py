"""A client's handshake: what of it reaches its replica, and what the router keeps for itself."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from hypothesis import example, given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.http11 import Request
from websockets.streams import StreamReader
from websockets.uri import parse_uri

from proxy.affinity import affinity_key
from proxy.consumers import _first_subprotocol
from proxy.forwarding import forwarded_headers, forwarded_query

ALLOWED = ["origin", "user-agent", "accept-language", "traceparent", "tracestate", "cookie"]
OURS = ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Request-ID", "Authorization"]
NAMES = st.sampled_from(
    [
        *(name.encode() for name in ALLOWED), b"host", b"Host", b"x-forwarded-for", b"X-Forwarded-For",
        b"x-forwarded-host", b"x-forwarded-proto", b"x-request-id", b"authorization", b"sec-websocket-protocol",
        b"connection", b"x-user",
    ]
) | st.binary(max_size=20)  # fmt: skip
# Bytes that may end a line, a list or a header for somebody, more often than chance has them.
SPECIAL = st.lists(
    st.sampled_from(
        [b"\r\n", b"\n", b"\r", b"\0", b"\x0b", b"\x0c", b"\x85", b": ", b",", b";", b'"', b"a", b" ", b"\t"]
    ),
    max_size=12,
).map(b"".join)  # fmt: skip
VALUES = st.binary(max_size=60) | SPECIAL | st.text(max_size=20).map(lambda text: text.encode("utf-8", "replace"))
RECEIVED = st.lists(st.tuples(NAMES, VALUES), max_size=12)


def request_of(query: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    """The handshake as upstream.py's client writes it."""
    protocol = ClientProtocol(parse_uri("ws://replica:8000/v1/stream" + ("?" + query if query else "")))
    request = protocol.connect()
    for name, value in headers:
        request.headers[name] = value
    protocol.send_request(request)
    return b"".join(protocol.data_to_send())


def read_back(octets: bytes) -> Request:
    """As a strict server reads it; raises what it dislikes."""
    reader = StreamReader()
    reader.feed_data(octets)
    reader.feed_eof()
    parsing = Request.parse(reader.read_line)
    try:
        next(parsing)
    except StopIteration as done:
        assert not reader.buffer, "there is more than one request"
        return done.value  # type: ignore[no-any-return]
    raise AssertionError("the request does not end")


@given(RECEIVED, st.booleans(), st.booleans(), st.sampled_from(["", "Bearer router"]), st.none() | st.just("192.0.2.1"))
@example([(b"user-agent", b"a\r\nX-Evil: 1")], False, False, "", None)
@example([(b"x-forwarded-for", b"1.2.3.4\nX-Evil: 1")], True, True, "", None)
@example([(b"origin", b"\x01\x7f")], False, False, "", None)
def test_only_named_headers_reach_a_replica_each_on_its_own_line(
    received: list[tuple[bytes, bytes]], secure: bool, behind_proxy: bool, authorization: str, address: str | None
) -> None:
    """No line of a client's making, no name that is not listed, and X-Forwarded headers only from a proxy of ours."""
    headers = forwarded_headers(
        received,
        session="s1",
        allowed=ALLOWED,
        client_address=address,
        secure=secure,
        behind_proxy=behind_proxy,
        authorization=authorization,
    )
    names = [name for name, _ in headers]
    assert set(names) <= {name.title() for name in ALLOWED} | set(OURS)
    assert all(names.count(name) <= 1 for name in OURS)
    found = dict(headers)
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", found["X-Request-ID"])
    assert ("Authorization" in found) == bool(authorization)
    if not behind_proxy:
        assert found["X-Request-ID"] == "s1"
        assert found.get("X-Forwarded-For") == address
        assert found["X-Forwarded-Proto"] == ("https" if secure else "http")
    elif address:
        assert found["X-Forwarded-For"].endswith(address)
    request = read_back(request_of("", headers))
    arrived = [(name, value) for name, value in request.headers.raw_items() if name in names]
    assert arrived == [(name, value.strip(" \t")) for name, value in headers]


@given(st.binary(max_size=200) | SPECIAL)
@example(b"#frag")
@example(b"a b\xff%zz%20")
def test_a_query_reaches_a_replica_octet_by_octet(raw: bytes) -> None:
    """Whatever it is: what the replica unquotes is what it would have unquoted of the client's own."""
    query = forwarded_query(raw)
    request = read_back(request_of(query, ()))
    assert request.path == "/v1/stream" + ("?" + query if query else "")
    assert unquote_to_bytes(query) == unquote_to_bytes(raw)
    assert forwarded_query(query.encode()) == query


TOKENS = st.from_regex(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}", fullmatch=True)
OFFERS = st.lists(TOKENS | st.text(max_size=5), max_size=4).map(
    lambda names: ", ".join(names).encode("latin-1", "replace")
)


@given(st.lists(st.tuples(st.just(b"sec-websocket-protocol") | NAMES, OFFERS | VALUES), max_size=4))
def test_a_subprotocol_is_the_first_token_that_was_offered(received: list[tuple[bytes, bytes]]) -> None:
    """Or none; never what could not stand in a header of ours."""
    chosen = _first_subprotocol(received)
    offered = b",".join(value for name, value in received if name.lower() == b"sec-websocket-protocol")
    words = [word.strip() for word in offered.decode("latin-1").split(",")]
    tokens = [word for word in words if re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", word)]
    assert chosen == (tokens[0] if tokens else None)


AFFINITIES = st.sampled_from(["none", "query:a", "header:a", "header:cookie", "cookie:a", "cookie:a.b"])
COOKIES = st.lists(st.sampled_from([b"a=1", b"a=", b"a.b=2", b"=x", b"a", b'a="1; 2"', b"A=3"]), max_size=4).map(
    b"; ".join
)


@given(
    AFFINITIES,
    (st.binary(max_size=60) | SPECIAL).map(lambda value: b"a=" + value) | st.binary(max_size=60),
    st.lists(st.tuples(st.sampled_from([b"a", b"A", b"cookie", b"Cookie"]) | NAMES, VALUES | COOKIES), max_size=6),
)
def test_an_affinity_key_is_a_digest_that_depends_on_its_value_alone(
    affinity: str, query: bytes, received: list[tuple[bytes, bytes]]
) -> None:
    """32 hexadecimal digits, which any database takes; another with another secret, and no other header counts."""
    key = affinity_key(affinity, query, received, "s" * 50)
    assert key is None or re.fullmatch("[0-9a-f]{32}", key)
    assert key == affinity_key(affinity, query, [*received, (b"x-other", b"1")], "s" * 50)
    assert (affinity != "none") or key is None
    assert key is None or key != affinity_key(affinity, query, received, "t" * 50)
    if not affinity.startswith("query:"):
        assert key == affinity_key(affinity, b"", received, "s" * 50)

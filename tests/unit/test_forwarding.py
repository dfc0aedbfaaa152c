"""Which headers and query go on to a replica (contract A7.5)."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy.forwarding import forwarded_headers, forwarded_query

RECEIVED = [
    (b"host", b"video.example"),
    (b"user-agent", b"Browser/1"),
    (b"cookie", b"sessionid=1"),
    (b"authorization", b"Bearer client"),
    (b"x-forwarded-for", b"203.0.113.7"),
    (b"x-forwarded-proto", b"https"),
    (b"x-forwarded-host", b"outside.example"),
    (b"x-request-id", b"req-1"),
]


def headers(**changes: Any) -> dict[str, str]:
    options: dict[str, Any] = {
        "session": "s1",
        "allowed": ["user-agent"],
        "client_address": "192.0.2.1",
        "secure": False,
        "behind_proxy": False,
        "authorization": "",
    } | changes
    return dict(forwarded_headers(RECEIVED, **options))


def test_only_named_headers_go_on() -> None:
    """Cookies and Authorization stay here unless the setting names them."""
    assert headers() == {
        "User-Agent": "Browser/1",
        "X-Forwarded-For": "192.0.2.1",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "video.example",
        "X-Request-ID": "s1",
    }
    assert headers(allowed=["cookie", "authorization"])["Cookie"] == "sessionid=1"
    assert headers(allowed=["cookie", "authorization"])["Authorization"] == "Bearer client"


def test_the_routers_authorization_replaces_the_clients() -> None:
    """Two Authorization headers would leave it to the replica whom to believe."""
    found = forwarded_headers(
        RECEIVED,
        session="s1",
        allowed=["authorization"],
        client_address=None,
        secure=True,
        behind_proxy=False,
        authorization="Bearer router",
    )
    assert [value for name, value in found if name == "Authorization"] == ["Bearer router"]


def test_a_trusted_proxy_is_believed() -> None:
    """Behind a proxy of ours the chain goes on, and its scheme, host and request id stand."""
    found = headers(behind_proxy=True)
    assert found["X-Forwarded-For"] == "203.0.113.7, 192.0.2.1"
    assert found["X-Forwarded-Proto"] == "https"
    assert found["X-Forwarded-Host"] == "outside.example"
    assert found["X-Request-ID"] == "req-1"


def test_a_request_id_with_odd_characters_is_replaced() -> None:
    """It goes into logs on the other side: no quotes, spaces or line breaks."""
    received = [(b"x-request-id", b'a" b')]
    found = dict(
        forwarded_headers(
            received, session="s1", allowed=[], client_address=None, secure=True, behind_proxy=True, authorization=""
        )
    )
    assert found == {"X-Forwarded-Proto": "https", "X-Request-ID": "s1"}


def test_a_control_character_becomes_a_space() -> None:
    """The websockets client refuses to send one: a stranger could then have every replica ejected."""
    received = [(b"user-agent", b"a\x01b\r\nX-Evil: 1\tc\x7f"), (b"host", b"video\x0b.example")]
    found = dict(
        forwarded_headers(
            received,
            session="s1",
            allowed=["user-agent"],
            client_address=None,
            secure=True,
            behind_proxy=False,
            authorization="",
        )
    )
    assert found["User-Agent"] == "a b  X-Evil: 1\tc "
    assert found["X-Forwarded-Host"] == "video .example"


def test_a_query_goes_on_as_it_was() -> None:
    """What is quoted already is not quoted again."""
    assert forwarded_query(b"a=b%20c&q=1+2&u=http://x/?y") == "a=b%20c&q=1+2&u=http://x/?y"


@given(st.binary(max_size=100))
def test_any_query_becomes_printable_ascii(raw: bytes) -> None:
    """No byte of a client's query can break out of the request line."""
    query = forwarded_query(raw)
    assert query.isascii()
    assert " " not in query
    assert query.isprintable()
    assert "#" not in query

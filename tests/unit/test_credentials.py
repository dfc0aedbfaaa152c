"""What a client shows in its handshake, and what of it goes on (proxy/credentials.py)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.credentials import Credentials, allows, credentials, is_origin_rule, origin, without_ours, without_tickets
from replicas.tokens import API, STREAM, TICKET, new_token

TOKEN, OTHER = new_token(STREAM), new_token(STREAM)
A_TICKET = new_token(TICKET)


def test_a_browser_shows_a_ticket_and_its_origin() -> None:
    found = credentials(f"a=1&ticket={A_TICKET}".encode(), [(b"Origin", b"HTTPS://App.Example.com:443")])
    assert found == Credentials(None, A_TICKET, "https://app.example.com")


def test_a_native_client_shows_a_token() -> None:
    assert credentials(b"", [(b"authorization", f"bearer {TOKEN}".encode())]) == Credentials(TOKEN)


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        (b"", [(b"authorization", f"Bearer {TOKEN}".encode()), (b"authorization", f"Bearer {OTHER}".encode())]),
        (f"ticket={A_TICKET}&ticket={A_TICKET}".encode(), []),
        (f"ticket={TOKEN}".encode(), []),
        (b"ticket=", [(b"authorization", f"Bearer {A_TICKET}".encode())]),
        (b"", [(b"authorization", b"Basic " + TOKEN.encode())]),
    ],
    ids=["two tokens", "two tickets", "a token as a ticket", "a ticket as a token", "no bearer"],
)
def test_what_stands_there_twice_or_is_another_thing_is_not_believed(
    query: bytes, sent: list[tuple[bytes, bytes]]
) -> None:
    assert not credentials(query, sent).shown


@pytest.mark.parametrize("value", [b"null", b"", b"app.example.com", b"https://a/path", b"\xff"])
def test_an_origin_that_is_none_is_null(value: bytes) -> None:
    """A page sent it all the same: it is not taken for a native client."""
    assert credentials(b"", [(b"origin", value)]).origin == "null"
    assert credentials(b"", []).origin is None


def test_every_octet_of_a_ticket_may_be_quoted() -> None:
    quoted = "".join(f"%{ord(c):02x}" for c in A_TICKET)
    assert without_tickets(f"a=1&ticket={quoted}&b=2".encode()) == b"a=1&b=2"
    assert credentials(f"ticket={quoted}".encode(), []).ticket == A_TICKET


@pytest.mark.parametrize(
    "written",
    ["{}", "Token {}", "Bearer {}, Basic YTpi", "Bearer {}x", "Bearer\t{}", 'Bearer "{}"', "Bearer stream_cut"],
)
@pytest.mark.parametrize("ours", [TOKEN, A_TICKET], ids=["token", "ticket"])
def test_one_that_was_written_wrongly_goes_no_further_either(written: str, ours: str) -> None:
    sent = [(b"Authorization", written.format(ours).encode())]
    assert not credentials(b"", sent).shown
    assert without_ours(sent) == []


def test_a_token_of_the_replicas_own_that_ends_like_ours_goes_on() -> None:
    theirs = [(b"Authorization", f"Bearer up{TOKEN}".encode())]
    assert without_ours(theirs) == theirs


@pytest.mark.parametrize("kind", [STREAM, TICKET, API])
def test_of_the_headers_only_our_tokens_are_taken_out(kind: str) -> None:
    """What is meant for the replica goes on, where ROUTER_FORWARD_HEADERS says so."""
    others = [(b"Authorization", b"Bearer of-the-replica"), (b"Cookie", b"a=b")]
    assert without_ours([*others, (b"AUTHORIZATION", f" bearer  {new_token(kind)} ".encode())]) == others


@pytest.mark.parametrize(
    ("rule", "shown", "may"),
    [
        ("https://a.example.com", "https://a.example.com", True),
        ("https://a.example.com", "http://a.example.com", False),
        ("https://a.example.com", "https://a.example.com:8443", False),
        ("https://*.example.com", "https://a.b.example.com", True),
        ("https://*.example.com", "https://example.com", False),
        ("https://*.example.com", "https://evilexample.com", False),
        ("https://*.example.com", "https://.example.com", False),
        ("https://*.example.com", "https://a.example.com.evil.com", False),
        ("https://*.example.com", "null", False),
    ],
)
def test_which_origins_are_allowed(rule: str, shown: str, may: bool) -> None:
    assert is_origin_rule(rule)
    assert allows([rule], shown) is may


@pytest.mark.parametrize("rule", ["*", "https://*", "https://a.*.com", "https://A.com", "https://a.com/", "a.com", ""])
def test_what_is_no_rule_for_origins(rule: str) -> None:
    assert not is_origin_rule(rule)


@pytest.mark.parametrize(
    "text",
    ["https://bücher.example", "https://a\0b.example", "https://a\ud800", "https://app.e\u212aample.com", "https://a\tb",
     "https://a b", "https://a:", "https://a:65536", "https://u@a", "https://a\\.b", "https://", "https://[::1"],
)  # fmt: skip
def test_what_no_browser_sends_is_no_origin(text: str) -> None:
    """Nor what no database can hold."""
    assert origin(text) is None


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("HTTP://[2001:DB8::1]:80", "http://[2001:db8::1]"),
        ("https://xn--bcher-kva.example:8443", "https://xn--bcher-kva.example:8443"),
        ("https://a:80", "https://a:80"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
    ],
)
def test_what_browsers_send_is_one(text: str, form: str) -> None:
    assert origin(text) == form


@given(st.text())
def test_the_form_of_an_origin_is_its_only_one(text: str) -> None:
    found = origin(text)
    assert found is None or origin(found) == found


@pytest.mark.parametrize(
    ("sent", "left"),
    [
        (b"sessionid=secret", None),
        (b"a=1; sessionid=secret; b=2", b"a=1; b=2"),
        (b" csrftoken = x ;a=1", b"a=1"),
        (b"mysessionid=1", b"mysessionid=1"),
        (b"", None),
    ],
)
def test_an_operators_own_cookies_go_nowhere(sent: bytes, left: bytes | None) -> None:
    """Their browser sends them to the stream's address too, for it is the admin's."""
    found = without_ours([(b"cookie", sent)], ("sessionid", "csrftoken"))
    assert found == ([(b"cookie", left)] if left is not None else [])


def test_what_is_quoted_without_end_is_dropped() -> None:
    """Nobody quotes so often in good faith, and a replica may unquote as often."""
    assert without_tickets(b"a=%25252525&b=%252525&c=1") == b"b=%252525&c=1"

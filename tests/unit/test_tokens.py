"""How tokens look, and what is kept of one (replicas/tokens.py)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicas.tokens import API, STREAM, TICKET, bearer, beginning, digest, is_token, new_token

KINDS = (API, STREAM, TICKET)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_is_of_its_kind_and_of_no_other(kind: str) -> None:
    token = new_token(kind)
    assert [is_token(token, each) for each in KINDS] == [each == kind for each in KINDS]


def test_no_two_are_the_same() -> None:
    assert len({new_token(STREAM) for _ in range(1000)}) == 1000


def test_what_is_kept_and_what_is_shown_do_not_give_it_away() -> None:
    token = new_token(API)
    assert len(digest(token)) == 64
    assert token not in digest(token)
    assert token.startswith(beginning(token)[:-1])
    assert len(beginning(token)) == len("api_") + 6 + 1


@pytest.mark.parametrize("text", ["", "stream_", "stream_" + "a" * 42, "stream_" + "a" * 44, "stream_" + "ä" * 43])
def test_what_is_no_token(text: str) -> None:
    assert not is_token(text, STREAM)


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("BEARER a.b-c_d~e+f/g==", "a.b-c_d~e+f/g=="),
        ("Basic abc", None), ("Bearer", None), ("Bearer a b", None), ("", None), ("Bearer a\nb", None),
    ],
)  # fmt: skip
def test_a_bearer_token_is_found(header: str, token: str | None) -> None:
    assert bearer(header) == token


@given(st.text())
def test_whatever_stands_in_the_header(text: str) -> None:
    """Gives a token without spaces, or none."""
    found = bearer(text)
    assert found is None or (found and not any(c.isspace() for c in found) and found in text)

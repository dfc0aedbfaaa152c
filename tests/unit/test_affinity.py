"""The affinity key of a handshake (issue 4, part 2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.affinity import affinity_key

SECRET = "s" * 50
Headers = list[tuple[bytes, bytes]]


def key(affinity: str, query: bytes = b"", headers: Headers | None = None, secret: str = SECRET) -> str | None:
    return affinity_key(affinity, query, headers or [], secret)


def cookie(*lines: bytes) -> Headers:
    return [(b"cookie", line) for line in lines]


SAME = key("header:x-user", headers=[(b"x-user", b"ann")])


@pytest.mark.parametrize(
    ("affinity", "query", "headers"),
    [
        ("query:user", b"user=ann", []),
        ("query:user", b"a=1&user=ann&user=bob", []),
        ("query:user", b"user=%61nn", []),
        ("header:X-User", b"", [(b"host", b"a"), (b"x-user", b" ann ")]),
        ("header:x-user", b"", [(b"X-User", b"ann"), (b"x-user", b"bob")]),
        ("cookie:user", b"", cookie(b"user=ann")),
        ("cookie:user", b"", cookie(b"a=b; user=ann;c=d")),
        ("cookie:user", b"", cookie(b"a=b", b"user=ann")),
        ("cookie:user", b"", cookie(b'prefs={"dark": true, "size": "x,y"}; user=ann')),
        ("cookie:user", b"", cookie(b"bad name=1; =; ;user=ann")),
        ("cookie:user", b"", cookie(b"user=ann; user=bob")),
    ],
)
def test_the_key_is_found(affinity: str, query: bytes, headers: Headers) -> None:
    """The first of that name, wherever it stands, and whatever stands beside it."""
    assert key(affinity, query, headers) == SAME


@pytest.mark.parametrize(
    ("affinity", "query", "headers"),
    [
        ("none", b"user=ann", cookie(b"user=ann")),
        ("query:user", b"", []),
        ("query:user", b"user=", []),
        ("query:user", b"users=ann&User=ann", []),
        ("header:x-user", b"x-user=ann", [(b"x-users", b"ann"), (b"x-user", b"  ")]),
        ("cookie:user", b"", []),
        ("cookie:user", b"", cookie(b"user=", b"xuser=ann; User=ann")),
        ("cookie:user", b"", cookie(b"user")),
    ],
)
def test_no_key_is_none(affinity: str, query: bytes, headers: Headers) -> None:
    """Not the digest of nothing, by which all such clients would go to one replica."""
    assert key(affinity, query, headers) is None


def test_only_a_digest_is_kept() -> None:
    """It fits its column, tells nothing without the secret, and is another with another one."""
    assert SAME is not None
    assert len(SAME) == 32
    assert "ann" not in SAME
    assert key("header:x-user", headers=[(b"x-user", b"ann")], secret="t" * 50) != SAME


@given(
    st.sampled_from(["query:a", "header:a", "cookie:a"]),
    st.binary(max_size=200).map(lambda value: b"a=" + value),
    st.lists(st.tuples(st.sampled_from([b"a", b"cookie"]), st.binary(max_size=200)), max_size=4),
)
def test_whatever_a_client_sends_is_a_digest_or_none(affinity: str, query: bytes, headers: Headers) -> None:
    """NUL, bytes that are no UTF-8, half a cookie: no exception, and 32 characters that any database takes."""
    found = key(affinity, query, headers)
    assert found is None or (len(found) == 32 and found.isalnum())


@pytest.mark.parametrize("affinity", ["query:a", "header:a", "cookie:a"])
def test_a_very_long_key_is_a_key(affinity: str) -> None:
    """A mebibyte of it."""
    value = b"x" * 2**20
    found = key(affinity, b"a=" + value, [(b"a", value), (b"cookie", b"a=" + value)])
    assert found is not None
    assert len(found) == 32

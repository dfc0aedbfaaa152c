"""The look for planted secrets finds them, in every form that they are written in."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.canaries import canary, found_in, look_through

SECRET = canary("password")


@given(st.binary(max_size=50).filter(lambda o: b"c4n" not in o), st.integers(0, 2))
def test_it_is_found_wherever_it_stands(around: bytes, shift: int) -> None:
    plain = around + SECRET.encode() + around
    assert found_in(plain)
    assert found_in(base64.b64encode(b"a" * shift + plain))
    assert found_in(json.dumps({"a": SECRET}).encode())
    assert found_in(quote(SECRET).encode())


def test_a_log_without_one_passes_and_one_with_it_is_named(tmp_path: Path) -> None:
    log = tmp_path / "router.log"
    log.write_text("session opened\n" * 100)
    look_through(log)
    log.write_text(f"connecting to postgres://router:{SECRET}@db\n")
    with pytest.raises(AssertionError, match=r"router\.log: …connecting to postgres://router:c4n4ry-password"):
        look_through(log)

"""Settings of /metrics and /status that cannot be used: `manage.py check` names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes import manage

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize("name", ["ROUTER_METRICS_ACCESS", "ROUTER_STATUS_ACCESS"])
def test_a_token_that_is_wanted_must_be_there(tmp_path: Path, name: str) -> None:
    """Else nobody could ever ask."""
    done = manage(tmp_path, "check", check=False, **{name: "token", "ROUTER_MACHINE_TOKEN": ""})
    assert done.returncode != 0
    assert f"{name}='token' cannot be used (there is no token)" in done.stderr
    assert manage(tmp_path, "check", **{name: "token", "ROUTER_MACHINE_TOKEN": TOKEN}).returncode == 0


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    """Each variable, and never the token."""
    given = {
        "ROUTER_METRICS_ACCESS": "nobody", "ROUTER_METRICS_LISTEN": "9700", "ROUTER_MACHINE_TOKEN": "too-short",
    }  # fmt: skip
    done = manage(tmp_path, "check", check=False, **given)
    assert done.returncode != 0
    assert "ROUTER_METRICS_ACCESS='nobody' cannot be used; allowed: public or staff or token" in done.stderr
    assert "ROUTER_METRICS_LISTEN='9700' cannot be used (it has no host)" in done.stderr
    assert "ROUTER_MACHINE_TOKEN='(hidden)' cannot be used" in done.stderr
    assert "too-short" not in done.stderr

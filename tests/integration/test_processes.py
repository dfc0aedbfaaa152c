"""The tests' own way to run commands (tests/processes.py): it hides neither a secret that was printed nor a failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import processes
from tests.canaries import canary


def test_a_secret_that_a_command_prints_is_found(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"what manage\.py shell printed: …c4n4ry-printed"):
        processes.manage(tmp_path, "shell", "-v", "0", "-c", f"print({canary('printed')!r})")


def test_tables_that_cannot_be_made_say_why_each_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And not, the second time, that a folder is there already."""
    monkeypatch.setattr(processes, "VAR_DIR", str(tmp_path))
    monkeypatch.setenv("ALLOWED_HOSTS", "http://no.host.name")
    for _ in range(2):
        with pytest.raises(AssertionError, match="ALLOWED_HOSTS='http://no"):
            processes._first_migrated.__wrapped__()

"""`make audit`: what pip-audit has found fails the checks, and only where it can reach nothing it is skipped."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.processes import ROOT

FOUND = "Found 1 known vulnerability in 1 package\nname version id\nred 1.0 PYSEC-1\n"
CLEAN = "No known vulnerabilities found\n"
UNKNOWN = "{0} Dependency not found on PyPI and could not be audited: {0} (1.0)\n"
SKIPPED = "pip-audit: skipped, its data cannot be reached\n"


@pytest.mark.parametrize(
    ("code", "says", "fails", "shown"),
    [
        (0, CLEAN, False, CLEAN),
        (1, FOUND, True, FOUND),
        (1, FOUND + UNKNOWN.format("blue"), True, FOUND + UNKNOWN.format("blue")),
        (0, CLEAN + UNKNOWN.format("blue"), False, CLEAN + UNKNOWN.format("blue")),
        (0, CLEAN + UNKNOWN.format("blue") + UNKNOWN.format("red"), False, SKIPPED),
        (1, "ERROR: Could not connect to PyPI's vulnerability feed\n", False, SKIPPED),
        (1, "ERROR: HTTPSConnectionPool: Max retries exceeded\n", False, SKIPPED),
        (2, "usage: pip-audit\n", True, "usage: pip-audit\n"),
    ],
    ids=["clean", "found", "found beside an unknown", "an unknown", "all unknown", "away", "offline", "misused"],
)
def test_what_was_found_fails_first(tmp_path: Path, code: int, says: str, fails: bool, shown: str) -> None:
    """Of two packages; pip-audit is one that says and does what it is told."""
    lock, said, program = tmp_path / "lock.txt", tmp_path / "said", tmp_path / "bin" / "pip-audit"
    lock.write_text("blue==1.0\nred==1.0\n")
    said.write_text(says)
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat {said}\nexit {code}\n")
    program.chmod(0o755)
    ours = [f"VENV={tmp_path}", f"LOCK={lock}", "-o", f"{tmp_path}/.for-all"]
    command = ["make", "--no-print-directory", "audit", *ours]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == shown, done.stderr
    assert (done.returncode != 0) is fails

"""RFC 6455, case by case, through the router on its raw path: the Autobahn suite (see tests/conformance/README.md)."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.servers import MAX_MESSAGE_BYTES, Router
from tests.fake_replica import fake_replica
from tests.processes import ROOT

CONFORMANCE = ROOT / "tests" / "conformance"
SELECTED = 247
MINUTES = 5


def can_convert(python: str) -> bool:
    found = subprocess.run([python, "-W", "ignore", "-c", "import lib2to3, pip"], capture_output=True, check=False)
    return found.returncode == 0


@pytest.fixture(scope="session")
def cases(pytestconfig: pytest.Config) -> Path:
    """The folder with the cases, made once and kept in pytest's cache; skipped by name where that cannot be done."""
    folder = Path(pytestconfig.cache.mkdir("autobahn"))
    pythons = [sys.executable, *filter(None, map(shutil.which, ("python3.11", "python3.12")))]
    python = next(filter(can_convert, pythons), None)
    if python is None:
        pytest.skip("needs lib2to3, which Python 3.11 and 3.12 have: put python3.11 or python3.12 on the PATH")
    subprocess.run([python, str(CONFORMANCE / "prepare.py"), str(folder)], check=True, timeout=MINUTES * 60)
    return folder


async def run_cases(cases: Path, url: str) -> tuple[set[str], int]:
    """The numbers of the cases that fail against `url`, and how many there were."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CONFORMANCE / "conformance.py"), url,
        env=os.environ | {"PYTHONPATH": str(cases)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(MINUTES * 60):
        out, errors = await process.communicate()
    found = re.search(rb"(\d+) passed, (\d+) failed", out)
    assert found is not None, (out + errors).decode()
    failed = set(re.findall(r"^case ([\d.]+):", out.decode(), re.M))
    return failed, int(found[1]) + int(found[2])


@pytest.mark.alone  # 6.4.3 and its like measure how soon a fault is told
async def test_the_router_fails_no_case_that_the_server_behind_it_passes(quick_daphne: Router, cases: Path) -> None:
    """End to end: what the cases see of the echo server they see of the router, 7.1.5 (the server's own) included."""
    async with fake_replica(max_size=MAX_MESSAGE_BYTES) as replica:
        await quick_daphne.place(replica.url)
        directly, number = await run_cases(cases, replica.url.replace("http", "ws") + "/v1/stream")
        assert number == SELECTED
        assert directly == {"7.1.5"}
        through, number = await run_cases(cases, quick_daphne.stream_url)
        assert number == SELECTED
        assert through <= directly

"""The fuzz tests guided by coverage, by atheris: `python -m tests.fuzz.coverage_guided [--seconds N] [TEST …]`.

Each test runs in a process of its own (libFuzzer ends it), on octets that hypothesis makes its examples of. `make fuzz`
runs it where atheris installs. Not collected by pytest.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests import isolation  # noqa: F401  (no setting of the developer's own, and a var folder that goes)

HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each test")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("tests", nargs="*", help="MODULE:NAME; all where there is none")
    given = parser.parse_args()
    if given.inside:
        fuzz(given.tests[0], given.seconds)
    failed = [name for name in given.tests or all_tests() if not passes(name, given.seconds)]
    print(f"failed: {', '.join(failed)}" if failed else "nothing found")  # noqa: T201  (it is a command)
    return 1 if failed else 0


def all_tests() -> list[str]:
    """`test_files:test_any_text_…`, …"""
    return [
        f"{file.stem}:{line.removeprefix('def ').partition('(')[0]}"
        for file in sorted(HERE.glob("test_*.py"))
        for line in file.read_text().splitlines()
        if line.startswith("def test_")
    ]


def passes(name: str, seconds: int) -> bool:
    print(f"--- {name}, {seconds} s", flush=True)  # noqa: T201
    command = [sys.executable, "-m", "tests.fuzz.coverage_guided", "--inside", "--seconds", str(seconds), name]
    return subprocess.run(command, cwd=HERE.parents[1], check=False).returncode == 0


def fuzz(name: str, seconds: int) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris
    import django

    with atheris.instrument_imports(include=["proxy", "replicas"]):
        django.setup()
        module, _, function = name.partition(":")
        test: Any = getattr(importlib.import_module(f"tests.fuzz.{module}"), function)
    findings = tempfile.mkdtemp(prefix="fuzz-")
    options = [
        f"-max_total_time={seconds}",
        "-max_len=4096",
        "-len_control=0",
        "-verbosity=1",
        f"-artifact_prefix={findings}{os.sep}",
    ]
    atheris.Setup([sys.argv[0], *options], test.hypothesis.fuzz_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())

"""The clock of the acceptance tests (tests/acceptance/moments.py)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.acceptance import moments
from tests.acceptance.moments import Moment

ASLEEP = [sys.executable, "-c", "import time; print('there', flush=True); time.sleep(600)"]


def test_who_sleeps_or_computes_gets_nothing_off() -> None:
    """Neither the router nor the test. What this machine itself keeps waiting for a processor may come off."""
    with subprocess.Popen(ASLEEP, stdout=subprocess.PIPE) as router:
        assert router.stdout is not None
        router.stdout.readline()
        began, waited, wall = Moment(router.pid), _waited(router.pid), time.monotonic()
        while time.monotonic() - wall < 0.3:
            pass
        time.sleep(0.3)
        took, wall = began.ago, time.monotonic() - wall
        waited = max(after - before for after, before in zip(_waited(router.pid), waited, strict=True))
        assert wall - waited - 0.1 <= took <= wall
        router.kill()
        router.wait()
        assert began.ago >= took, "one that has ended is no fault"


def _waited(pid: int) -> list[float]:
    return [int(Path(f"/proc/{each}/schedstat").read_text().split()[1]) / 1e9 for each in (os.getpid(), pid)]


def test_of_those_that_waited_the_longest_wait_comes_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of several overlap."""
    waits = {os.getpid(): 1.0, 7: 20.0, 8: 3.0}
    monkeypatch.setattr(moments, "_waited", waits.__getitem__)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    now = 100.0
    began = Moment(7, 8)
    now, waits[os.getpid()], waits[7] = 110.0, 3.0, 24.0
    assert began.ago == 6.0


def test_a_process_that_never_was_is_a_fault() -> None:
    """So is a system that does not say how long a process waited."""
    with pytest.raises(FileNotFoundError):
        Moment(1 << 30)

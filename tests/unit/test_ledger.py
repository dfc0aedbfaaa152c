"""The ledger of processes on one socket: slots, counts, and what is left of a process that died. No socket."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.ledger import SLOTS, Ledger
from tests.processes import ROOT

INODE = 4711

# Locks are a process's: another ledger needs another process. It says its slot, then obeys: a number is a change of its
# connections, "close" its end. Killed, it says nothing more.
OTHER = f"""
import sys
from pathlib import Path
from proxy.ledger import Ledger
ledger = Ledger({INODE}, Path(sys.argv[1]))
print(ledger.slot, flush=True)
for line in sys.stdin:
    ledger.close() if line.strip() == "close" else ledger.count(int(line))
    print("done", flush=True)
"""


class Other:
    """A process with a slot of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.slot = int(self._hear())

    def tell(self, what: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        assert self._hear() == "done"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@contextmanager
def other(folder: Path) -> Iterator[Other]:
    command = [sys.executable, "-c", OTHER, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Other(process)
        finally:
            process.kill()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(INODE, tmp_path)
    yield made
    made.close()


def test_each_process_has_a_slot_and_sees_the_others(ledger: Ledger, tmp_path: Path) -> None:
    """Its own connections are not among the others'."""
    ledger.count(5)
    assert ledger.others() == {}
    with other(tmp_path) as second, other(tmp_path) as third:
        assert {ledger.slot, second.slot, third.slot} == {0, 1, 2}
        second.tell("3")
        third.tell("7")
        third.tell("-1")
        assert ledger.others() == {second.slot: 3, third.slot: 6}
        assert ledger.lives(second.slot)
        assert ledger.lives(third.slot)


@pytest.mark.parametrize("way", ["closes", "is killed"])
def test_the_slot_of_a_process_that_ended_is_free(ledger: Ledger, tmp_path: Path, way: str) -> None:
    """In whatever way it ended; the next process gets it and begins with no connection."""
    with other(tmp_path) as second:
        second.tell("3")
        if way == "closes":
            second.tell("close")
        else:
            second.kill()
            assert ledger.others() == {second.slot: 3}
            assert not ledger.lives(second.slot)
        assert ledger.others() == {}
        with other(tmp_path) as third:
            assert third.slot == second.slot
            assert ledger.others() == {third.slot: 0}


def test_the_last_one_removes_the_file(tmp_path: Path) -> None:
    """Not before the others have ended."""
    with other(tmp_path) as second:
        first = Ledger(INODE, tmp_path)
        first.close()
        assert first.path.exists()
        second.tell("close")
        assert not first.path.exists()


def test_a_file_that_its_last_user_removes_meanwhile_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our opening it and our lock: we would be alone in a file that no other can find."""
    stale = Ledger(INODE, tmp_path)
    plain_open, opened = os.open, []

    def open_late(*details: object) -> int:
        opened.append(plain_open(*details))  # type: ignore[arg-type]
        if len(opened) == 1:
            stale.path.unlink()
        return opened[-1]

    monkeypatch.setattr(os, "open", open_late)
    made = Ledger(INODE, tmp_path)
    assert len(opened) == 2
    assert os.path.samestat(os.stat(made.path), os.fstat(opened[-1]))
    made.close()
    stale.close()


def test_a_closed_ledger_tells_nobody(ledger: Ledger) -> None:
    """Connections that outlive it write to no file; a second end is none."""
    ledger.close()
    ledger.count(1)
    ledger.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        ledger.others()


def test_only_a_file_of_our_own_is_used(tmp_path: Path) -> None:
    """No link to elsewhere, no second name of another file, no device; nobody else can read it."""
    path = tmp_path / f"stream-router-{os.getuid()}-{INODE}"
    precious = tmp_path / "precious"
    precious.write_text("do not touch")
    path.symlink_to(precious)
    with pytest.raises(OSError, match="symbolic links"):
        Ledger(INODE, tmp_path)
    path.unlink()
    path.hardlink_to(precious)
    with pytest.raises(PermissionError):
        Ledger(INODE, tmp_path)
    path.unlink()
    assert precious.read_text() == "do not touch"
    made = Ledger(INODE, tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    made.close()


def test_there_may_be_no_slot_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More processes than slots: those beyond say so, and go uncounted."""
    monkeypatch.setattr("proxy.ledger.SLOTS", 1)
    assert SLOTS >= 256
    with other(tmp_path) as second:
        assert second.slot == 0
        with pytest.raises(OSError, match="no free slot"):
            Ledger(INODE, tmp_path)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """For the caller to go on without."""
    with pytest.raises(OSError, match="No such file"):
        Ledger(INODE, tmp_path / "missing")

"""How many connections each process on one listening socket has: a small file that all of them read.

Used by sharing.py. A process has a slot of the file and a lock on it (fcntl(2)), which the kernel takes back when the
process ends, in whatever way: a slot without a lock is nobody's, and no process identifier can mislead. Only its owner
writes a slot, and nobody ever waits for a lock. Everything here may raise OSError; serving must not depend on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from array import array
from pathlib import Path

# Four octets each; 0 is a free slot, else one more than the connections. Processes beyond these accept uncounted.
SLOTS = 256
_WIDTH = array("I").itemsize
# How often the last user may remove the file between our opening it and our lock.
_TRIES = 10


def usual_folder() -> Path:
    """Where all processes of one machine look: in memory if it has such a place."""
    memory = Path("/dev/shm")  # noqa: S108  (opened without following links, and its owner checked)
    return memory if os.access(memory, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


class Ledger:
    """This process's slot, and a look at those of the others on the socket with this inode."""

    def __init__(self, inode: int, folder: Path | None = None) -> None:
        self.path = (folder or usual_folder()) / f"stream-router-{os.getuid()}-{inode}"
        self.connections = 0
        for _ in range(_TRIES):
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                found = os.fstat(self._file)
                if found.st_uid != os.getuid() or not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                    raise PermissionError(f"{self.path} is not a file of our own")
                self.slot = next(slot for slot in range(SLOTS + 1) if self._lock(slot))
                if self.slot < SLOTS and self._in_place():
                    self.count(0)
                    return
            except BaseException:
                os.close(self._file)
                raise
            os.close(self._file)
        raise OSError(f"no free slot in {self.path}")

    def count(self, change: int) -> None:
        """So many connections more, or fewer. Once closed, nobody is told."""
        self.connections += change
        if self._file >= 0:
            self._write(self.slot, self.connections + 1)

    def others(self) -> dict[int, int]:
        """The other slots that are taken, and how many connections each says it has. One may be of a dead process."""
        entries = array("I", os.pread(self._file, SLOTS * _WIDTH, 0))
        return {slot: entry - 1 for slot, entry in enumerate(entries) if entry and slot != self.slot}

    def lives(self, slot: int) -> bool:
        """Does the process of another slot still run? If not, the slot is made free."""
        if not self._lock(slot):
            return True
        self._write(slot, 0)
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, slot)
        return False

    def close(self) -> None:
        """Give the slot back; the last one removes the file. Once closed, nothing."""
        if self._file < 0:
            return
        try:
            self._write(self.slot, 0)
            with contextlib.suppress(BlockingIOError):
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # all of it: nobody else has a slot
                if self._in_place():
                    self.path.unlink()
        finally:
            os.close(self._file)
            self._file = -1

    def _in_place(self) -> bool:
        """Is what we have open still what others find? Asked with a lock held, which keeps it so."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self._file), os.lstat(self.path))
        return False

    def _lock(self, slot: int) -> bool:
        with contextlib.suppress(BlockingIOError):
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
            return True
        return False

    def _write(self, slot: int, entry: int) -> None:
        os.pwrite(self._file, array("I", [entry]).tobytes(), slot * _WIDTH)

"""What a client has sent, kept until its session has begun, so that another replica can be given all of it again.

Called by opening.py. Small holds are in memory, larger ones in a temporary file that has no name (it is gone with the
process). Must not decide what happens when a hold is full: it only says so.
"""

from __future__ import annotations

import contextlib
import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from django.conf import settings

from proxy.frames import Octets

# Past this a hold goes from memory to its file.
MEMORY_BYTES = 1024 * 1024
# Whole frames are given back in lumps of about this size.
LUMP_BYTES = 256 * 1024

# All holds of this process together; bounded by ROUTER_HOLD_TOTAL_BYTES.
_held_by_all = 0


class Hold:
    """One client's frames. `kept` turns False, and stays so, once they have been let go."""

    def __init__(self) -> None:
        self.kept = True
        self.size = 0
        self._ends: list[int] = []  # where lumps end, and with them a frame
        self._file: tempfile.SpooledTemporaryFile[bytes] | None = None  # closed by release(), however a session ends

    @property
    def full(self) -> bool:
        """Has this client, or have all together, reached the bound? What one read brings beyond it is still taken."""
        return self.size >= settings.ROUTER_HOLD_BYTES or _held_by_all >= settings.ROUTER_HOLD_TOTAL_BYTES

    def add(self, units: Sequence[Octets]) -> None:
        """Keep `units`, which end where a frame ends."""
        global _held_by_all
        if self._file is None:
            self._file = tempfile.SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115
        self._file.seek(self.size)
        added = 0
        for unit in units:
            added += self._file.write(unit)
        self._file.flush()  # a full disk is told here, not at a later read or close
        self.size += added
        _held_by_all += added
        start = self._ends[-2] if len(self._ends) > 1 else 0
        if self._ends and self.size - start <= LUMP_BYTES:
            self._ends[-1] = self.size
        else:
            self._ends.append(self.size)

    def lumps(self) -> Iterator[bytes]:
        """All that is held, also what is added meanwhile, in pieces that end where a frame ends."""
        position = 0
        while position < self.size:
            end = self._ends[bisect_right(self._ends, position)]  # a lump may have grown since its beginning was given
            assert self._file is not None
            self._file.seek(position)
            yield self._file.read(end - position)
            position = end

    def release(self) -> None:
        """Let go of everything, memory and file."""
        global _held_by_all
        if self.kept:
            self.kept = False
            _held_by_all -= self.size
            self._ends.clear()
            if self._file is not None:
                with contextlib.suppress(OSError):  # what a full disk did not take
                    self._file.close()


def held_by_all() -> int:
    """Bytes held by all sessions of this process now."""
    return _held_by_all

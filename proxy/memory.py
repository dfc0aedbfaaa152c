"""How this process uses memory: the collector's pace, and that large buffers go back to the system.

asgi.py calls `settle` when all is loaded. Sessions hold no reference cycles of ours; the collector is for those of the
libraries under us, and for what a fault leaves.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc

# Net allocations from one look of the collector to the next. Python's 700 (2,000 from 3.13) make it look several times
# while one session opens, a tenth or more of what that costs (bench/, sessions opened per second).
COLLECT_EVERY = 10_000
# Larger blocks are mapped and unmapped one by one. The greatest read stays below (intake.py): mapped, each of its pages
# is a fault of its own, which where faults are slow has cost more than all else that is done with a frame. glibc would
# raise the bound with the first large block that is freed, and its heap then grow with every round of slow clients,
# although nothing is held (tests/acceptance/test_memory.py).
MAP_BYTES = 600_000
# What is free at the heap's end is kept up to this: else each read would fetch its buffer from the system anew, zeroed.
KEEP_BYTES = 16 * 1024 * 1024
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def settle() -> None:
    """What is loaded now stays for ever: the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY, 5, 5)
    with contextlib.suppress(AttributeError, OSError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, MAP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEEP_BYTES)

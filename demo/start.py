"""`python -m demo.start`: run the processes of the Procfile together, as `honcho start` does, and leave none behind.

The last step of `make run`. honcho by itself dies of SIGHUP, of a line that it cannot print because its terminal was
closed, and of a signal in the middle of a line or of the start; each time its children live on and keep their ports.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from honcho.environ import parse_procfile
from honcho.manager import Manager
from honcho.printer import Printer

PROCFILE = Path(__file__).resolve().parents[1] / "Procfile"
STARTING_SECONDS = 0.1


class Output(Printer):  # type: ignore[misc]  # honcho is untyped
    """Where the lines go, for as long as somebody reads them."""

    def write(self, message: Any) -> None:
        # RuntimeError: a signal came in the middle of a line, and its own line has to give way.
        with contextlib.suppress(OSError, RuntimeError):
            super().write(message)


class Processes(Manager):  # type: ignore[misc]
    """honcho's manager, which a signal ends at any time, and so does the end of who reads its lines."""

    def terminate(self) -> None:
        if self._all_started():
            super().terminate()
        else:
            threading.Timer(STARTING_SECONDS, _end).start()

    def _start(self) -> None:
        super()._start()
        threading.Thread(target=self._watch_output, name="demo: end of the output", daemon=True).start()

    def _watch_output(self) -> None:
        """A closed terminal sends SIGHUP to its first process alone; where that is make, we would not hear of it."""
        output = select.poll()
        output.register(sys.stdout, 0)  # only its end and its errors, which are always told
        output.poll()
        _end()


def main() -> int:
    """Until one of them ends, or SIGINT, SIGTERM or SIGHUP; the exit code is honcho's."""
    processes = Processes(Output(sys.stdout))
    for name, command in parse_procfile(PROCFILE.read_text()).processes.items():
        processes.add_process(name, command)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup leaves it
        signal.signal(signal.SIGHUP, lambda *_: _end())
    processes.loop()
    return processes.returncode or 0


def _end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())

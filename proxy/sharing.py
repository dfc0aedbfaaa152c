"""Several processes on one listening socket: the one with the fewest connections takes the next client.

daphne.py makes a Sharing for each Port on a socket that was handed over (`daphne --fd`). The kernel wakes all processes
for a client, and left alone the same one is often first. Here one that has more connections than another leaves the
client to it for a moment, and then takes it if it is still there: so a process that is frozen or dead costs no
client more than that moment, and no client is ever lost. Where the ledger fails, all accept as they come.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from proxy.ledger import Ledger

logger = logging.getLogger(__name__)

COURTESY_SECONDS = 0.002
# After a wait in vain the next clients are not left to others: 0, 1, 3, 7, 15 of them with each wait in a row. So a
# burst does not wait once a client for a process that is frozen, and one that was late once keeps its turn.
MOST_UNASKED = 15


class Sharing:
    """The turns of this process at one Port, until `stop()`. `ledger` says how many connections the others have."""

    def __init__(self, port: Any, ledger: Ledger) -> None:
        self._port = port
        self._ledger = ledger
        self._pause: asyncio.TimerHandle | None = None
        self._unasked = self._next_unasked = 0
        self._accept: Callable[[], None] = port.doRead
        port.doRead = self._client_waits
        port.transport = _counted(port.transport, self._count)

    def stop(self) -> None:
        """Accept no more. Connections that are open go on; this process has no more turns."""
        if self._pause is not None:
            self._pause.cancel()  # it would begin to listen anew
        self._port.stopListening()
        with contextlib.suppress(OSError):
            self._ledger.close()

    def _client_waits(self) -> None:
        """In the place of Port.doRead: somebody wants to connect, and all processes on the socket know it."""
        try:
            others = self._ledger.others()
            mine = self._ledger.connections
            fewer = {slot: count for slot, count in others.items() if count < mine and self._ledger.lives(slot)}
        except OSError as error:
            self._give_up(error)
            others = fewer = {}
        if not others:
            self._accept()
        elif fewer and not self._unasked:
            self._port.stopReading()
            self._pause = asyncio.get_running_loop().call_later(COURTESY_SECONDS, self._after_pause, fewer)
        else:
            self._unasked = max(0, self._unasked - 1)
            self._accept_one()

    def _after_pause(self, waited_for: dict[int, int]) -> None:
        self._pause = None
        self._port.startReading()
        try:
            others = self._ledger.others()
        except OSError as error:
            self._give_up(error)
            return
        if any(others.get(slot) != count for slot, count in waited_for.items()):
            self._unasked = self._next_unasked = 0  # they do take clients; whoever waits now is decided on anew
        else:
            self._unasked, self._next_unasked = self._next_unasked, min(2 * self._next_unasked + 1, MOST_UNASKED)
            self._accept_one()

    def _accept_one(self) -> None:
        self._port.numberAccepts = 1  # of a burst the others are to have their part
        self._accept()

    def _count(self, change: int) -> None:
        try:
            self._ledger.count(change)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """The ledger fails: from now on accept as if alone."""
        say_uneven(error)
        self._port.doRead = self._accept
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
            self._port.startReading()
        with contextlib.suppress(OSError):
            self._ledger.close()


def say_uneven(error: OSError) -> None:
    logger.warning("clients are not spread evenly over the processes on this socket: %s", error)


def _counted(transport: Any, count: Callable[[int], None]) -> type[Any]:
    """The class of a Port's connections, that counts itself from accept to loss."""

    class Counted(transport):
        _counts = False

        def __init__(self, *details: Any) -> None:
            super().__init__(*details)
            self._counts = True
            count(1)

        def connectionLost(self, reason: Any) -> None:
            super().connectionLost(reason)
            if self._counts:
                self._counts = False
                count(-1)

    return Counted

"""Whose turn it is at a shared socket: decided by the ledger, and never longer than a moment. No socket, no process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from proxy.sharing import Sharing


class Ledger:
    """What this process and the others have. With `fault` set it fails, as on a full disk."""

    def __init__(self, mine: int = 0, **others: int) -> None:
        self.connections = mine
        self.elsewhere = {int(slot.removeprefix("slot")): count for slot, count in others.items()}
        self.dead: set[int] = set()
        self.fault: OSError | None = None
        self.closed = False

    def others(self) -> dict[int, int]:
        if self.fault is not None:
            raise self.fault
        return dict(self.elsewhere)

    def lives(self, slot: int) -> bool:
        return slot not in self.dead

    def count(self, change: int) -> None:
        self.connections += change
        if self.fault is not None and not self.closed:
            raise self.fault

    def close(self) -> None:
        self.closed = True


class Connection:
    """A Port's transport."""

    def connectionLost(self, reason: Any) -> None: ...


class Port:
    """As much of Twisted's Port as sharing uses; `waiting` clients have come and nobody has taken them."""

    def __init__(self) -> None:
        self.transport: Callable[[], Connection] = Connection
        self.numberAccepts = 100
        self.waiting = 1
        self.reading = True
        self.taken: list[Connection] = []
        self.stopped = False

    def doRead(self) -> None:
        for _ in range(min(self.waiting, self.numberAccepts)):
            self.waiting -= 1
            self.taken.append(self.transport())

    def startReading(self) -> None:
        self.reading = True

    def stopReading(self) -> None:
        self.reading = False

    def stopListening(self) -> None:
        self.reading = False
        self.stopped = True

    async def read_again(self) -> None:
        async with asyncio.timeout(10):
            while not self.reading:
                await asyncio.sleep(0)


async def test_alone_it_accepts_as_twisted_does() -> None:
    """All that wait, at once; each is counted from accept to loss, and once."""
    port, ledger = Port(), Ledger()
    Sharing(port, ledger)  # type: ignore[arg-type]
    port.waiting = 50
    port.doRead()
    assert (len(port.taken), port.numberAccepts, ledger.connections) == (50, 100, 50)
    for _ in range(2):
        port.taken[0].connectionLost(None)
    assert ledger.connections == 49


@pytest.mark.parametrize("mine", [0, 3])
async def test_who_has_no_more_than_the_others_takes_one(mine: int) -> None:
    """One, not all that wait: of a burst the others are to have their part."""
    port = Port()
    Sharing(port, Ledger(mine, slot1=3, slot2=4))  # type: ignore[arg-type]
    port.waiting = 50
    port.doRead()
    assert (len(port.taken), port.reading) == (1, True)


async def test_who_has_more_leaves_the_client_to_another() -> None:
    """It looks away for a moment; the other has come, and all is as before."""
    port, ledger = Port(), Ledger(4, slot1=4, slot2=3)
    Sharing(port, ledger)  # type: ignore[arg-type]
    port.doRead()
    assert (port.taken, port.reading) == ([], False)
    port.waiting, ledger.elsewhere[2] = 0, 4
    await port.read_again()
    port.waiting = 1
    port.doRead()
    assert len(port.taken) == 1


async def test_a_client_that_nobody_takes_is_taken_after_a_moment() -> None:
    """By whoever waited in vain: a frozen process loses no client."""
    port = Port()
    Sharing(port, Ledger(4, slot1=3))  # type: ignore[arg-type]
    port.doRead()
    assert port.taken == []
    await port.read_again()
    assert len(port.taken) == 1


async def test_a_dead_process_is_not_waited_for() -> None:
    """Its slot may still say that it has the fewest."""
    port, ledger = Port(), Ledger(4, slot1=3)
    ledger.dead.add(1)
    Sharing(port, ledger)  # type: ignore[arg-type]
    port.doRead()
    assert len(port.taken) == 1


async def test_who_lets_others_wait_again_and_again_is_waited_for_less() -> None:
    """After waits in vain 0, 1, 3, 7, 15, 15 … clients are taken at once; when it comes, it has its turns again."""
    port, ledger = Port(), Ledger(100, slot1=3)
    Sharing(port, ledger)  # type: ignore[arg-type]
    between, unasked = [], 0
    while len(between) < 7:
        port.waiting = 1
        port.doRead()
        if port.reading:
            unasked += 1
        else:
            await port.read_again()
            between.append(unasked)
            unasked = 0
    assert between == [0, 0, 1, 3, 7, 15, 15]
    while port.reading:
        port.waiting = 1
        port.doRead()
    ledger.elsewhere[1] = 4
    await port.read_again()
    for _ in range(2):
        port.doRead()
        assert not port.reading
        await port.read_again()


async def test_a_ledger_that_fails_is_given_up_with_one_word(caplog: pytest.LogCaptureFixture) -> None:
    """The client is taken, and all after it; the log says it once."""
    port, ledger = Port(), Ledger(4, slot1=3)
    Sharing(port, ledger)  # type: ignore[arg-type]
    ledger.fault = OSError(28, "No space left on device")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            port.waiting = 1
            port.doRead()
    assert len(port.taken) == 3
    assert ledger.closed
    assert "No space left" in caplog.text


async def test_a_ledger_that_fails_in_a_pause_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    """A connection's end may be what finds it out."""
    port, ledger = Port(), Ledger(0, slot1=0)
    Sharing(port, ledger)  # type: ignore[arg-type]
    port.doRead()
    port.waiting = 1
    port.doRead()
    assert not port.reading
    ledger.fault = OSError(5, "Input/output error")
    port.taken[0].connectionLost(None)
    assert port.reading
    port.doRead()
    assert len(port.taken) == 2
    assert len(caplog.records) == 1


async def test_stopped_in_a_pause_it_does_not_begin_anew() -> None:
    """A process that is being stopped takes no client, and its slot is free at once."""
    port, ledger = Port(), Ledger(4, slot1=3)
    sharing = Sharing(port, ledger)  # type: ignore[arg-type]
    port.doRead()
    sharing.stop()
    pause = sharing._pause
    assert pause is not None
    assert pause.cancelled()
    assert (port.stopped, port.reading, ledger.closed) == (True, False, True)

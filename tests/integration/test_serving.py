"""The tests' own servers leave no socket behind, whatever moment they end in (tests/serving.py)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from tests.fake_replica import raw_server
from tests.integration.http_servers import http_server
from tests.raw import raw_replica
from tests.slotted_replica import slotted_replica


async def read_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


SERVERS: dict[str, Callable[[], contextlib.AbstractAsyncContextManager[Any]]] = {
    "http_server": http_server,
    "raw_replica": raw_replica,
    "raw_server": lambda: raw_server(read_on),
    "slotted_replica": slotted_replica,
}


async def turn(rounds: int) -> None:
    """Let the event loop go round so often."""
    for _ in range(rounds):
        await asyncio.sleep(0)


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_server_that_ends_as_a_client_comes_leaves_nothing(kind: str) -> None:
    """So many rounds of the event loop after it has connected: about the third its handler begins."""
    gc.collect()
    tasks = asyncio.all_tasks()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for rounds in range(8):
            async with SERVERS[kind]() as server:
                client = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])))
                await turn(rounds)
            await turn(10)
            client.close()
            assert asyncio.all_tasks() == tasks
        gc.collect()
    assert [str(each.message) for each in warned] == []


async def test_a_replica_that_refuses_can_come_back_at_once() -> None:
    """On the same port, and who was there before has stayed."""
    async with slotted_replica() as replica:
        reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
        replica.refuse()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", replica.port))
        await replica.recover()
        socket.create_connection(("127.0.0.1", replica.port)).close()
        await turn(10)
        assert not reader.at_eof()
        writer.close()

"""Router processes for tests of placement; the databases they use are in the `database` fixture."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from proxy.placement import Placement
from tests.integration.clients import Processes


@pytest.fixture
async def processes(database: str) -> AsyncIterator[Processes]:
    made = Processes()
    yield made
    for placement in made.all:
        await placement.stop()


@pytest.fixture
async def placement(processes: Processes) -> Placement:
    made = processes.add()
    await made.ready()
    return made

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from toyserver import ToyServer

from fastkube.client import Client


@pytest.fixture
async def toy() -> AsyncIterator[ToyServer]:
    server = ToyServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(toy: ToyServer) -> AsyncIterator[Client]:
    async with Client(toy.url) as client:
        yield client

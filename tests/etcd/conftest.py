from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from servers import fastkube_etcd
from wire import Client


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A `fastkube etcd` that all tests here share; each uses keys of its own."""
    with fastkube_etcd(tmp_path_factory.mktemp("etcd") / "data", "--watch-progress-notify-interval", "300ms") as served:
        yield served


@pytest.fixture
async def client(url: str) -> AsyncIterator[Client]:
    client = Client(url)
    yield client
    await client.channel.close()

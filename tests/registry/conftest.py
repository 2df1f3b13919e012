from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from clusters import Cluster, running


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with running(tmp_path) as made:
        yield made

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from clusters import Cluster, running
from etcds import on_etcd_too

ON_ETCD_TOO = frozenset(
    (
        "test_registry_deletion",
        "test_registry_lists",
        "test_registry_ownership",
        "test_registry_services",
        "test_registry_verbs",
    )
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    on_etcd_too(metafunc, "cluster", ON_ETCD_TOO)


@pytest.fixture
async def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    kind = getattr(request, "param", "own")
    async with running(tmp_path, etcd=request.getfixturevalue("etcd") if kind == "etcd" else None) as made:
        yield made

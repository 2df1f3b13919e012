"""Every store that a test opens is closed and checked at the end of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from etcds import ETCD

from fastkube.store import Store
from fastkube.store.check import check

collect_ignore = [] if ETCD else ["test_store_external.py"]
OpenStore = Callable[..., Awaitable[Store]]


@pytest.fixture
async def open_store(tmp_path: Path) -> AsyncIterator[OpenStore]:
    """Opens (and re-opens) the store of this test; options are those of `Store.open`."""
    path = tmp_path / "store"
    opened: list[Store] = []

    async def open_it(**options: object) -> Store:
        store = await Store.open(path, **options)  # type: ignore[arg-type]
        opened.append(store)
        return store

    yield open_it
    for store in opened:
        await store.close()
    if opened:
        report = check(path)
        assert report.ok, report.problems


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop
from apis import Api, running
from etcds import ETCD, on_etcd_too


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], object]]:
    """The server runs on uvloop, and so do its tests."""
    return {"uvloop": uvloop.new_event_loop}


collect_ignore = [] if ETCD else ["test_server_etcd.py"]
ON_ETCD_TOO = frozenset(("test_server_batch", "test_server_watch"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    on_etcd_too(metafunc, "api", ON_ETCD_TOO)


@pytest.fixture
async def api(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    kind = getattr(request, "param", "own")
    async with running(tmp_path, etcd=request.getfixturevalue("etcd") if kind == "etcd" else None) as started:
        yield started

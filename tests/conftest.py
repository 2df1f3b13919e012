from __future__ import annotations

from collections.abc import Iterator

import pytest
from etcds import ETCD, Etcd


def pytest_report_header() -> str:
    return "" if ETCD else "etcd is not installed: what is tested on it as well is tested on the own store alone"


@pytest.fixture(scope="session")
def etcd_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    server = Etcd(tmp_path_factory.mktemp("etcd"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def etcd(etcd_of_all: Etcd) -> Etcd:
    """One etcd for all tests that do it no harm; each has a prefix of its own, and nothing of others' history."""
    etcd_of_all.forget()
    return etcd_of_all

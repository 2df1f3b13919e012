"""The Python clients' tests run against the server that KUBECONFIG names (tests/clients/test_clients.py starts one)."""

from __future__ import annotations

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.clients)


@pytest.fixture(scope="session")
def kubeconfig() -> str:
    return os.environ["KUBECONFIG"]

"""The Python clients' tests run against the server that KUBECONFIG names (tests/clients/test_clients.py starts one)."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def kubeconfig() -> str:
    return os.environ["KUBECONFIG"]

"""End-to-end tests talk to one running control plane, each test in a namespace of its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
from kubectl_runner import Kubectl

from fastkube.testing import Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with Cluster(nodes=3) as started:
        yield started


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    name = f"t-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def kubectl(cluster: Cluster, namespace: str) -> Callable[..., str]:
    return Kubectl(cluster, namespace)

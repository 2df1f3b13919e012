"""End-to-end tests talk to one running control plane, each test in a namespace of its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
from kubectl_runner import Kubectl

from fastkube.testing import Cluster

# an autoscaler that looks often, and believes what a Pod uses from the beginning
AUTOSCALER = {
    "horizontal_pod_autoscaler_sync_period_s": 1.0,
    "horizontal_pod_autoscaler_cpu_initialization_period_s": 0.0,
}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with Cluster(nodes=3, **AUTOSCALER) as started:
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

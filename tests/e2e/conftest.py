"""End-to-end tests talk to one running control plane, each test in a namespace of its own."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

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


class Kubectl:
    """kubectl in one namespace. Calling it gives standard output; a failure raises with what kubectl said."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace

    def __call__(self, *words: str, input: str | None = None) -> str:
        return self.cluster.kubectl("-n", self.namespace, *words, input=input)

    def fails(self, *words: str, input: str | None = None) -> str:
        """Standard error of a command that must fail."""
        with pytest.raises(subprocess.CalledProcessError) as caught:
            self(*words, input=input)
        return str(caught.value.stderr)

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "-o", "json"))


@pytest.fixture
def kubectl(cluster: Cluster, namespace: str) -> Callable[..., str]:
    return Kubectl(cluster, namespace)

"""Clients of every language that the Kubernetes project and its users write in, and Helm, each by its own tests in a
folder here.

`make test-clients` runs them; a language whose tools are not on the machine is left out by name. Each runs against one
control plane with simulated nodes, in namespaces of its own.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastkube.testing import Cluster

HERE = Path(__file__).parent
LANGUAGES = {
    "python": (
        "",
        [[sys.executable, "-m", "pytest", "-q", "-m", "", "-p", "no:cacheprovider", "python/python_clients.py"]],
    ),
    "go": ("go", [["go", "test", "-count=1", "./..."]]),
    "helm": ("go", [["go", "test", "-count=1", "./..."]]),
    "javascript": ("npm", [["npm", "install", "--no-package-lock", "--no-audit", "--no-fund"], ["npm", "test"]]),
    "java": ("mvn", [["mvn", "-q", "-B", "test"]]),
}
"""The tool that must be there ("" is always), and the commands in the language's folder."""


@pytest.fixture(scope="module")
def etcd() -> str:
    """Where the cluster serves the etcd v3 API."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture(scope="module")
def cluster(etcd: str) -> Iterator[Cluster]:
    with Cluster(nodes=3, etcd_listen=(f"http://{etcd}",)) as started:
        yield started


@pytest.mark.clients
@pytest.mark.timeout(2400)
@pytest.mark.parametrize(
    "language",
    [
        pytest.param(name, marks=pytest.mark.skipif(bool(tool) and not shutil.which(tool), reason=f"no {tool} here"))
        for name, (tool, _) in LANGUAGES.items()
    ],
)
def test_clients(cluster: Cluster, etcd: str, language: str) -> None:
    for command in LANGUAGES[language][1]:
        folder = HERE if language == "python" else HERE / language
        environment = {**cluster.environment(), "ETCD_ENDPOINT": etcd}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

"""The pytest plugin: fixtures `fastkube` (one control plane a test) and `fastkube_session` (one for the whole run).

    def test_my_operator(fastkube):
        fastkube.kubectl("apply", "-f", "crd.yaml")

What it runs is said with a marker: `@pytest.mark.fastkube(nodes=10, controllers=False)` takes the arguments of
`fastkube.testing.Cluster`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fastkube.testing import Cluster


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fastkube(**options): arguments of the control plane that the fixture starts")


@pytest.fixture
def fastkube(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A throw-away control plane for this test alone."""
    from fastkube.testing import Cluster

    marker = request.node.get_closest_marker("fastkube")
    with Cluster(**(marker.kwargs if marker else {})) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def fastkube_session() -> Iterator[Cluster]:
    """One control plane for all tests of the run; keep them apart with namespaces."""
    from fastkube.testing import Cluster

    with Cluster() as cluster:
        yield cluster

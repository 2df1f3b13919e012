"""Which controllers there are and which of them run."""

from __future__ import annotations

import pytest

from fastkube.client import Client
from fastkube.clock import RealClock
from fastkube.controllers.builtin import ALIASES, CONTROLLERS, NOT_HERE, UNSUPPORTED
from fastkube.controllers.manager import ControllerManager, enabled
from fastkube.controllers.options import ControllerManagerOptions

OPTIONAL = {"bootstrap-signer-controller", "token-cleaner-controller", "simulated-provisioner"}


def chosen(*names: str) -> set[str]:
    return set(enabled(ControllerManagerOptions(controllers=names)))


def test_all_but_the_optional_run_by_default() -> None:
    assert set(enabled(ControllerManagerOptions())) == set(CONTROLLERS) - OPTIONAL


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (("job-controller",), {"job-controller"}),
        (("*", "-job-controller"), set(CONTROLLERS) - OPTIONAL - {"job-controller"}),
        (("*", "bootstrapsigner", "tokencleaner"), set(CONTROLLERS) - {"simulated-provisioner"}),
        (("*", "-nodelifecycle"), set(CONTROLLERS) - OPTIONAL - {"node-lifecycle-controller"}),
        (("job", "-job"), set()),
    ],
)
def test_controllers_are_chosen_by_name(asked: tuple[str, ...], expected: set[str]) -> None:
    assert chosen(*asked) == expected


@pytest.mark.parametrize("name", ["nonsense", "-nonsense", "-"])
def test_an_unknown_controller_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not in the list of known controllers"):
        chosen("*", name)


@pytest.mark.parametrize("name", ["service-lb-controller", "route", "storage-version-gc"])
def test_a_controller_that_has_no_place_here_is_passed_over(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert chosen("job-controller", name) == {"job-controller"}
    assert f"{ALIASES.get(name, name)} does not run: " in caplog.text
    assert chosen("*", f"-{name}") == set(CONTROLLERS) - OPTIONAL


def test_a_controller_that_is_missing_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'selinux-warning-controller' is not supported"):
        chosen("*", "selinux-warning-controller")
    assert chosen("*", "-selinux-warning-controller") == set(CONTROLLERS) - OPTIONAL


def test_no_controller_that_there_is_is_refused_or_passed_over() -> None:
    assert not CONTROLLERS.keys() & {*NOT_HERE, *UNSUPPORTED}


def test_older_names_are_of_controllers_that_there_are() -> None:
    assert set(ALIASES.values()) <= {*CONTROLLERS, *NOT_HERE}


async def test_a_range_of_pod_addresses_that_cannot_be_used_is_told_at_the_start() -> None:
    options = ControllerManagerOptions(allocate_node_cidrs=True, cluster_cidr="nonsense")
    async with Client("http://127.0.0.1:1") as client:
        with pytest.raises(ValueError, match="cluster-cidr"):
            ControllerManager(client, RealClock(), options)

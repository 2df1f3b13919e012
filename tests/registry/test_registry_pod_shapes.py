"""What was found out about one Pod's spec is used for equal ones, and for no other."""

from __future__ import annotations

from typing import Any

import pytest

from fastkube.registry.strategies import pod_shapes


def pod(name: str, suffix: str = "", **spec: Any) -> dict[str, Any]:
    volumes = [{"name": f"kube-api-access-{suffix}", "projected": {"sources": []}}] if suffix else []
    mounts = [{"name": volume["name"], "mountPath": "/token"} for volume in volumes]
    containers = [{"name": "c", "image": "i", "volumeMounts": mounts}]
    return {"metadata": {"name": name}, "spec": {"containers": containers, "volumes": volumes, **spec}}


def test_the_made_up_volume_makes_no_difference() -> None:
    assert pod_shapes.shape_of(pod("a", "4z7x2")) == pod_shapes.shape_of(pod("b", "bcdfg"))
    assert pod_shapes.shape_of(pod("a")) != pod_shapes.shape_of(pod("a", "4z7x2"))


@pytest.mark.parametrize(
    "other",
    [
        pod("a", "4z7x2", hostNetwork=True),
        pod("a", "4z7x2", nodeName="xxxxx"),
        {**pod("a", "4z7x2"), "metadata": {"name": "a", "annotations": {"k": "v"}}},
    ],
)
def test_everything_else_does(other: dict[str, Any]) -> None:
    assert pod_shapes.shape_of(other) != pod_shapes.shape_of(pod("a", "4z7x2"))


@pytest.mark.parametrize(
    "odd",
    [
        pod("a", "UPPER"),
        pod("a", "a-b_c"),
        pod("a", "4z7x2", hostname="kube-api-access-xxxxx"),
        pod("a", volumes=[{"name": "v", "ephemeral": {}}]),
        pod("a", nodeSelector={"k": "v" * 100_000}),
    ],
)
def test_what_depends_on_more_has_no_shape(odd: dict[str, Any]) -> None:
    assert pod_shapes.shape_of(odd) is None

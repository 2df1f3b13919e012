"""Stages as data: which one a Pod takes, after how long, and what is refused."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from fastkube.nodes import stages


def stage(name: str = "s", **spec: Any) -> dict[str, Any]:
    document = {"resourceRef": {"apiGroup": "v1", "kind": "Pod"}, "next": {"status": "running"}, **spec}
    return {"apiVersion": stages.API_VERSION, "kind": "Stage", "metadata": {"name": name}, "spec": document}


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


POD: dict[str, Any] = {
    "metadata": {
        "name": "a",
        "labels": {"app": "web"},
        "annotations": {"example.com/for": "1m30s", "n": "x"},
        "ownerReferences": [{"kind": "ReplicaSet"}, {"kind": "Job"}],
    },
    "spec": {"containers": [{"name": "c"}]},
    "status": {"phase": "Running", "ready": True},
}


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (".metadata.name", ["a"]),
        ('.metadata.annotations["example.com/for"]', ["1m30s"]),
        (".metadata.ownerReferences.[].kind", ["ReplicaSet", "Job"]),
        (".metadata.ownerReferences[1].kind", ["Job"]),
        (".spec.containers[].name", ["c"]),
        (".status.absent.deeper", []),
    ],
)
def test_path_values(path: str, values: list[Any]) -> None:
    assert stages.FieldPath(path).values(POD) == values


@pytest.mark.parametrize(
    ("selector", "holds"),
    [
        ({"matchLabels": {"app": "web"}}, True),
        ({"matchLabels": {"app": "db"}}, False),
        ({"matchAnnotations": {"n": "x"}}, True),
        (expression(".metadata.deletionTimestamp", "DoesNotExist"), True),
        (expression(".metadata.deletionTimestamp", "Exists"), False),
        (expression(".status.phase", "In", "Pending", "Running"), True),
        (expression(".status.phase", "NotIn", "Running"), False),
        (expression(".metadata.ownerReferences.[].kind", "In", "Job"), True),
        (expression(".status.ready", "In", "true"), True),
        (expression(".status.absent", "NotIn", "x"), True),
    ],
)
def test_selector(selector: dict[str, Any], holds: bool) -> None:
    life = stages.Life([stages.parse(stage(selector=selector))], "Pod")
    assert (life.next_stage(POD) is not None) is holds


@pytest.mark.parametrize(
    ("delay", "least", "most"),
    [
        ({}, 0.0, 0.0),
        ({"durationMilliseconds": 1500}, 1.5, 1.5),
        ({"durationMilliseconds": 1000, "jitterDurationMilliseconds": 3000}, 1.0, 3.0),
        ({"durationFrom": {"expressionFrom": '.metadata.annotations["example.com/for"]'}}, 90.0, 90.0),
        ({"durationMilliseconds": 700, "durationFrom": {"expressionFrom": ".metadata.absent"}}, 0.7, 0.7),
    ],
)
def test_delay(delay: dict[str, Any], least: float, most: float) -> None:
    parsed = stages.parse(stage(delay=delay))
    life = stages.Life([parsed], "Pod", seed=1)
    drawn = [life.delay_s(parsed, POD, now=0.0) for _ in range(50)]
    assert least <= min(drawn) <= max(drawn) <= most
    assert (min(drawn) == max(drawn)) is (least == most)


def test_delay_until_a_time() -> None:
    parsed = stages.parse(stage(delay={"durationFrom": {"expressionFrom": ".metadata.until"}}))
    pod = {"metadata": {"until": "1970-01-01T00:01:40Z"}}
    assert stages.Life([parsed], "Pod").delay_s(parsed, pod, now=40.0) == 60.0


def test_weights_draw_the_heavier_more_often() -> None:
    life = stages.Life([stages.parse(stage("rare", weight=1)), stages.parse(stage("often", weight=9))], "Pod", seed=7)
    drawn = [chosen.name for _ in range(500) if (chosen := life.next_stage(POD))]
    assert 400 < drawn.count("often") < 490


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"apiVersion": "v1", "kind": "Pod"}, "expected a Stage"),
        (stage(next={"status": "walking"}), "'walking'"),
        (stage(next={"statusTemplate": "x"}), "next.statusTemplate is not supported"),
        (stage(selector=expression("metadata name", "Exists")), "not understood"),
        (stage(selector=expression(".a", "Gt", "1")), "operator 'Gt'"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(document: dict[str, Any], words: str) -> None:
    with pytest.raises(stages.StageError, match=words):
        stages.parse(document)


def test_builtin_life_of_a_pod() -> None:
    life = stages.Life(stages.load(), "Pod")

    def taken(**status_and_metadata: Any) -> str | None:
        metadata = {"name": "a", **status_and_metadata.pop("metadata", {})}
        chosen = life.next_stage({"metadata": metadata, "spec": {}, "status": status_and_metadata})
        return chosen.name if chosen else None

    job = {"ownerReferences": [{"kind": "Job"}]}
    assert taken(phase="Pending") == "pod-ready"
    assert taken(phase="Running", podIP="10.0.0.1") is None
    assert taken(phase="Running", podIP="10.0.0.1", metadata=job) == "pod-complete"
    assert taken(phase="Running", podIP="1.1.1.1", metadata={"annotations": {"fastkube.io/fail": "1"}}) == "pod-fail"
    assert taken(phase="Succeeded", podIP="10.0.0.1", metadata=job) is None
    assert taken(phase="Running", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}) == "pod-delete"


def test_files_replace_the_builtin_stages(tmp_path: Path) -> None:
    file = tmp_path / "stages.yaml"
    file.write_text(
        textwrap.dedent("""
        apiVersion: kwok.x-k8s.io/v1alpha1
        kind: Stage
        metadata: {name: mine}
        spec:
          resourceRef: {apiGroup: v1, kind: Pod}
          next: {delete: true}
        """)
    )
    assert [each.name for each in stages.load([file])] == ["mine"]
    file.write_text("a: [")
    with pytest.raises(stages.StageError, match=r"stages\.yaml"):
        stages.load([file])

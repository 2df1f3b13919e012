"""Stages as data: which one a Pod takes, after how long, and what is refused."""

from __future__ import annotations

import json
import random
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastkube.clock import ManualClock
from fastkube.nodes import stages, template_functions


def stage(name: str = "s", **spec: Any) -> dict[str, Any]:
    about = {"resourceRef": {"apiGroup": "v1", "kind": "Pod"}, "selector": {}}
    document = {**about, **({} if "steps" in spec else {"next": {"status": "running"}}), **spec}
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
        ({"matchExpressions": [{"jq": {"key": ".status.phase", "operator": "In", "values": ["Running"]}}]}, True),
        ({"matchExpressions": [{"cel": {"expression": "self.status.phase == 'Running'"}}]}, True),
        ({"matchExpressions": [{"cel": {"expression": "has(self.metadata.deletionTimestamp)"}}]}, False),
        ({"matchExpressions": [{"cel": {"expression": "self.status.absent == 1"}}]}, False),
        (None, False),
    ],
)
def test_selector(selector: dict[str, Any] | None, holds: bool) -> None:
    life = stages.Life([stages.parse(stage(selector=selector))], "Pod")
    assert (life.next_stage(POD) is not None) is holds


@pytest.mark.parametrize(
    ("delay", "least", "most"),
    [
        ({}, 0.0, 0.0),
        ({"durationMilliseconds": 1500}, 1.5, 1.5),
        ({"durationMilliseconds": 1000, "jitterDurationMilliseconds": 3000}, 1.0, 3.0),
        ({"durationMilliseconds": 5000, "jitterDurationMilliseconds": 3000}, 3.0, 3.0),
        ({"durationFrom": {"jq": {"expression": '.metadata.annotations["example.com/for"]'}}}, 90.0, 90.0),
        ({"durationFrom": {"cel": {"expression": "self.metadata.annotations['example.com/for']"}}}, 90.0, 90.0),
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


def test_what_is_remembered_of_objects_is_not_taken_for_others() -> None:
    chosen = [
        stages.parse(stage(name, selector=expression(".status.told", "In", value)))
        for name, value in (("text", "1"), ("truth", "true"), ("nothing", ""))
    ]
    life = stages.Life(chosen, "Pod")
    told = ["1", True, 1, "true", None, "", ["1"], {"a": "1"}, *map(str, range(3000)), "1", True]
    for value in told:
        obj = {"metadata": {}, "status": {"told": value}}
        expected = [each for each in chosen if each.matches(obj, {})]
        found = life.next_stage(obj)
        assert ([found] if found else []) == expected, value


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
        (stage(next={"wander": True}), "next.wander is not supported"),
        (stage(wander=True), "Stage s: wander is not supported"),
        (stage(steps=[{"patch": {"template": "a: {{ Wander }}"}}]), "function 'Wander' not defined"),
        (stage(steps=[{"patch": {"template": "a", "type": "apply"}}]), "patch type 'apply'"),
        (stage(steps=[{"apply": {"template": "a", "type": "json"}}]), "apply type 'json'"),
        (stage(selector={"matchExpressions": [{"cel": {"expression": "self."}}]}), "Syntax error"),
        ({"apiVersion": stages.API_VERSION, "kind": "Stage", "metadata": {"name": "s"}}, "'spec' is missing"),
        (stage(selector=expression("metadata name", "Exists")), "not supported"),
        (stage(selector=expression(".a", "Gt", "1")), "operator 'Gt'"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(document: dict[str, Any], words: str) -> None:
    with pytest.raises(stages.StageError, match=words):
        stages.parse(document)


def test_a_weight_comes_from_the_object() -> None:
    source = {"expressionFrom": ".metadata.annotations.weight"}
    life = stages.Life(
        [stages.parse(stage("a", weight=1, weightFrom=source)), stages.parse(stage("b", weight=5))], "Pod"
    )

    def drawn(weight: str) -> set[str]:
        pod = {"metadata": {"name": "x", "annotations": {"weight": weight}}}
        return {chosen.name for _ in range(60) if (chosen := life.next_stage(pod))}

    assert drawn("0") == {"b"}
    assert drawn("heavy") == {"b"}
    assert drawn("5") == {"a", "b"}


TEMPLATE = """
phase: Running
{{ with .metadata.annotations }}
message: {{ .n | Quote }}
{{ end }}
containerStatuses:
{{ range $i, $c := .spec.containers }}
- name: {{ $c.name }}
  restartCount: {{ add1 $i }}
{{ end }}
"""


def test_the_older_form_and_the_newer_one_do_the_same() -> None:
    functions = template_functions.functions(ManualClock(), random.Random(1))
    event = {"type": "Warning", "reason": "Failed", "message": "{{ .metadata.name }} failed"}
    finalizers = {"add": [{"value": "a/b"}], "remove": [{"value": "c/d"}]}
    older = {"event": event, "finalizers": finalizers, "statusTemplate": TEMPLATE}
    patch = {"subresource": "status", "root": "status", "template": TEMPLATE, "type": "strategic"}
    newer = [{"event": event}, {"finalizers": finalizers}, {"patch": patch}]
    status = {
        "phase": "Running", "message": "x", "containerStatuses": [{"name": "c", "restartCount": 1}]
    }  # fmt: skip
    for parsed in (stages.parse(stage(next=older), functions), stages.parse(stage(steps=newer), functions)):
        told, kept, patched = parsed.steps
        assert told.event is not None and told.event.message.render(POD) == "a failed"
        assert kept.finalizers is not None and kept.finalizers.after(["c/d", "e/f"]) == ["e/f", "a/b"]
        assert patched.patch is not None and patched.patch.body(POD) == {"status": status}
        assert (patched.patch.kind, patched.patch.subresource) == ("strategic", "status")


def test_patches_of_other_kinds_and_forms() -> None:
    other = {"resourceRef": {"apiGroup": "example.com/v1", "kind": "Widget"}, "selector": {}}
    patches = [
        {"template": "size: 1", "root": "spec"},
        {"template": '- {op: add, path: /x, value: 1}', "root": "spec", "type": "json",
         "impersonation": {"username": "somebody"}},
    ]  # fmt: skip
    document = {**stage(), "spec": {**other, "next": {"patches": patches}, "immediateNextStage": True}}
    parsed = stages.parse(document)
    first, second = (step.patch for step in parsed.steps)
    assert first is not None and second is not None
    assert (first.kind, first.body({}), first.user) == ("merge", {"spec": {"size": 1}}, "")
    assert second.body({}) == [{"op": "add", "path": "/spec/x", "value": 1}]
    assert (second.user, parsed.immediate, parsed.api_version) == ("somebody", True, "example.com/v1")


def test_a_template_that_makes_no_yaml_is_told() -> None:
    parsed = stages.parse(stage(next={"statusTemplate": "a: {{ .metadata.name }}: b"}))
    patch = parsed.steps[0].patch
    assert patch is not None
    with pytest.raises(stages.StageError, match="template: error converting YAML"):
        patch.body(POD)


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
          selector: {}
          next: {delete: true}
        """)
    )
    assert [each.name for each in stages.load([file])] == ["mine"]
    file.write_text("a: [")
    with pytest.raises(stages.StageError, match=r"stages\.yaml"):
        stages.load([file])


def test_the_builtin_life_is_the_same_in_both_forms() -> None:
    told = json.loads(stages.BUILTIN.with_suffix(".json").read_text())
    assert told == list(yaml.safe_load_all(stages.BUILTIN.read_text())), "write pod.json anew from pod.yaml"
    assert [stage.name for stage in stages.load()] == [stage.name for stage in stages.load([stages.BUILTIN])]

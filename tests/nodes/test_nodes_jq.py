"""The part of jq that Stages ask with: what it finds, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from fastkube.nodes.jq import JqError, Query

POD: dict[str, Any] = {
    "metadata": {
        "name": "a",
        "annotations": {"example.com/for": "1m30s", "n": "x"},
        "ownerReferences": [{"kind": "ReplicaSet"}, {"kind": "Job"}],
    },
    "spec": {"containers": [{"name": "c", "ports": [1, 2]}, {"name": "d"}]},
    "status": {
        "ready": True,
        "restarts": 3,
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "False"}],
    },
}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (".metadata.name", ["a"]),
        ('.metadata.annotations["example.com/for"]', ["1m30s"]),
        ('.metadata.annotations."example.com/for"', ["1m30s"]),
        ('.["metadata"]["name"]', ["a"]),
        (".metadata.ownerReferences.[].kind", ["ReplicaSet", "Job"]),
        (".metadata.ownerReferences[1].kind", ["Job"]),
        (".metadata.ownerReferences[-1].kind", ["Job"]),
        (".metadata.ownerReferences[7].kind", []),
        (".spec.containers[].name", ["c", "d"]),
        (".spec.containers[].ports[]?", [1, 2]),
        (".metadata.annotations[]", ["1m30s", "x"]),
        (".status.absent.deeper", []),
        (".metadata.name.deeper", []),
        ('.status.conditions.[] | select( .type == "Ready" ) | .status', ["True"]),
        ('.status.conditions[] | select(.type == "Ready" and .status == "False") | .status', []),
        ('.status.conditions[] | select(.type != "Ready" or false) | .type', ["Initialized"]),
        ('.status.conditions | map(select(.status == "True")) | length', [1]),
        ('.status.conditions | any(.type == "Ready")', [True]),
        ('.status.conditions | all(.status == "True")', [False]),
        (".status.restarts > 2", [True]),
        (".status.restarts >= 4, .status.restarts < -1", [False, False]),
        ('.status.absent // "none"', ["none"]),
        ('(.status.absent, .metadata.name) | ascii_upcase', ["A"]),
        (".status.ready | not", [False]),
        ('.metadata | has("labels")', [False]),
        (".metadata.annotations | keys", [["example.com/for", "n"]]),
        ('.metadata.name | startswith("a")', [True]),
        ('.metadata.annotations.n | test("^[x-z]$")', [True]),
        (".status.restarts | tostring", ["3"]),
        ('"5" | tonumber', [5]),
        ("first(.spec.containers[].name)", ["c"]),
        (".spec.containers | first | .name", ["c"]),
        ("empty", []),
        ('.status.ready == 1', [False]),
    ],
)  # fmt: skip
def test_values(text: str, values: list[Any]) -> None:
    assert Query(text).values(POD) == values


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("metadata name", "'metadata' is not supported"),
        (".a | now", "'now' is not supported"),
        (".a | reduce", "'reduce' is not supported"),
        (".a[", "ends too early"),
        (".a[x]", "'x' is no index"),
        (".a b", "not understood from 'b' on"),
        (".a $b", "not understood"),
        ("(.a", "ends too early"),
        ("[.a]", "not supported"),
        ('.a | has("x"', "ends too early"),
        (".", None),
    ],
)
def test_what_is_not_understood_is_refused(text: str, words: str | None) -> None:
    if words is None:
        assert Query(text).values(POD) == [POD]
        return
    with pytest.raises(JqError, match=words):
        Query(text)

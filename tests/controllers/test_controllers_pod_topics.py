"""What changes of Pods are about, and that what is kept of them is shared and follows the Pod."""

from __future__ import annotations

from typing import Any

import pytest

from fastkube.client.kept import keep_pod
from fastkube.controllers import pod_topics as topics

Object = dict[str, Any]


def pod(**parts: Any) -> Object:
    """`parts`: of metadata, spec or status, by their names."""
    made: Object = {
        "metadata": {"name": "a", "namespace": "default", "uid": "1", "resourceVersion": "1", "generation": 1},
        "spec": {"containers": [{"name": "c", "image": "i", "command": ["sleep"]}]},
        "status": {"phase": "Pending"},
    }
    for key, value in parts.items():
        section = next(name for name, known in _SECTIONS.items() if key in known)
        made[section] = {**made[section], key: value}
    return made


_SECTIONS = {
    "metadata": {"labels", "ownerReferences", "deletionTimestamp", "finalizers", "annotations", "generation", "name"},
    "spec": {"nodeName", "tolerations", "resourceClaims", "volumes", "containers"},
    "status": {"phase", "conditions", "podIPs", "message", "containerStatuses"},
}


def owned(kind: str) -> list[Object]:
    return [{"kind": kind, "name": "o", "uid": "o", "controller": True}]


def ready(status: str, kind: str = "Ready") -> list[Object]:
    return [{"type": kind, "status": status}]


CHANGES = {
    "nothing": (pod(), pod(), 0),
    "a message": (pod(), pod(message="m"), 0),
    "labels": (pod(), pod(labels={"a": "b"}), topics.METADATA | topics.LABELLED | topics.ADOPTABLE),
    "a label goes": (pod(labels={"a": "b"}), pod(), topics.METADATA | topics.LABELLED | topics.ADOPTABLE),
    "deletion": (pod(), pod(deletionTimestamp="t"), topics.METADATA | topics.ADOPTABLE),
    "adoption": (pod(), pod(ownerReferences=owned("Job")), topics.METADATA | topics.ADOPTABLE | topics.OWNED["Job"]),
    "release": (pod(ownerReferences=owned("Job")), pod(), topics.METADATA | topics.ADOPTABLE | topics.OWNED["Job"]),
    "binding": (pod(), pod(nodeName="n"), topics.SPEC | topics.PLACED),
    "tolerations": (pod(), pod(tolerations=[{"key": "a"}], generation=2), topics.SPEC),
    "phase": (pod(), pod(phase="Running"), topics.PHASE),
    "address": (pod(), pod(podIPs=[{"ip": "1.1.1.1"}]), topics.ADDRESS),
    "readiness": (pod(), pod(conditions=ready("True")), topics.HEALTH),
    "disruption": (pod(), pod(conditions=ready("True", "DisruptionTarget")), topics.HEALTH),
    "another condition": (pod(), pod(conditions=ready("True", "PodScheduled")), 0),
    "of an owned one": (
        pod(ownerReferences=owned("ReplicaSet")),
        pod(ownerReferences=owned("ReplicaSet"), phase="Running"),
        topics.PHASE | topics.OWNED["ReplicaSet"],
    ),
    "of one with a claim": (
        pod(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]),
        pod(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}], phase="Running"),
        topics.PHASE | topics.CLAIMING,
    ),
    "of one with volumes that are no claims": (
        pod(volumes=[{"name": "v", "emptyDir": {}}]),
        pod(volumes=[{"name": "v", "emptyDir": {}}], phase="Running"),
        topics.PHASE,
    ),
    "of one with devices": (
        pod(resourceClaims=[{"name": "d"}]),
        pod(resourceClaims=[{"name": "d"}], phase="Failed"),
        topics.PHASE | topics.DEVICES,
    ),
}


@pytest.mark.parametrize(("old", "new", "expected"), CHANGES.values(), ids=CHANGES)
def test_topics(old: Object, new: Object, expected: int) -> None:
    assert topics.pod_topics(old, new) == expected
    kept = keep_pod(old)
    assert topics.pod_topics(kept, keep_pod(new, kept)) == expected


def test_one_that_comes_or_goes_is_about_everything() -> None:
    assert topics.pod_topics(None, pod()) == topics.CHANGES | topics.ADOPTABLE


def test_unchanged_parts_are_those_that_were_kept() -> None:
    kept = keep_pod(pod(labels={"a": "b"}, nodeName="n"))
    new = keep_pod(pod(labels={"a": "b"}, nodeName="n", phase="Running"), kept)
    assert new["spec"] is kept["spec"]
    assert new["metadata"]["labels"] is kept["metadata"]["labels"]
    assert new["status"]["phase"] == "Running"


def test_pods_of_one_shape_at_one_node_share_their_spec() -> None:
    first, second, third = (keep_pod(pod(name=name, nodeName=node)) for name, node in ("am", "bm", "cn"))
    assert first["spec"] is second["spec"]
    assert [each["spec"]["nodeName"] for each in (first, second, third)] == ["m", "m", "n"]


def test_a_spec_of_another_generation_is_read_again() -> None:
    kept = keep_pod(pod(nodeName="n"))
    changed = [{"name": "c", "image": "another"}]
    new = keep_pod(pod(nodeName="n", containers=changed, generation=2), kept)
    assert new["spec"] == {"containers": changed, "nodeName": "n"}
    assert keep_pod(pod(nodeName="n"), keep_pod(pod()))["spec"]["nodeName"] == "n", "binding leaves the generation"


def test_servers_that_count_no_generations_of_pods_are_read_whole() -> None:
    kept = keep_pod(pod(generation=0, nodeName="n"))
    new = keep_pod(pod(generation=0, nodeName="n", tolerations=[{"key": "a"}]), kept)
    assert new["spec"]["tolerations"] == [{"key": "a"}]


def test_a_pod_without_a_node_is_whole_until_it_has_one() -> None:
    waiting = pod(volumes=[{"name": "v", "emptyDir": {}}])
    kept = keep_pod(waiting)
    assert kept == waiting
    placed = keep_pod(pod(volumes=[{"name": "v", "emptyDir": {}}], nodeName="n"), kept)
    assert placed["spec"] == {"containers": [{"name": "c", "image": "i"}], "nodeName": "n"}


def test_what_is_kept_of_containers_is_what_they_do() -> None:
    running = {"running": {"startedAt": "t"}}
    ended = {"terminated": {"exitCode": 1, "message": "long", "containerID": "id"}}
    status: Object = {"name": "c", "ready": True, "restartCount": 0, "imageID": "i", "containerID": "id"}
    resized = {**status, "state": running, "resources": {"requests": {"cpu": "1"}}}
    given = [{**status, "state": running}, {**status, "state": ended}, resized, {**status, "ready": False}]
    kept = keep_pod(pod(nodeName="n", containerStatuses=given))["status"]["containerStatuses"]
    plain = {"name": "c", "ready": True, "restartCount": 0}
    assert kept == [
        {**plain, "state": running},
        {**plain, "state": {"terminated": {"exitCode": 1}}},
        {**plain, "state": running, "resources": {"requests": {"cpu": "1"}}},
        {**plain, "ready": False},
    ]
    again = keep_pod(pod(name="other", nodeName="n", containerStatuses=[dict(each) for each in given]))
    assert all(one is other for one, other in zip(kept, again["status"]["containerStatuses"], strict=True))

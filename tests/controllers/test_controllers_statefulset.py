"""StatefulSets: order, identity, volumes and updates."""

from __future__ import annotations

from typing import Any

import pytest
from kubeobjects import NOW, deleting, flat, obj, owned_by, pod, status_of, template, writes

from fastkube.controllers.actions import Create, Delete, Patch, Update
from fastkube.controllers.revisions import REVISIONS
from fastkube.controllers.statefulset import CLAIMS, View, reconcile

Object = dict[str, Any]
PODS = "v1/pods"


def statefulset(replicas: int = 3, **spec: Any) -> Object:
    spec = {
        "replicas": replicas,
        "serviceName": "db",
        "selector": {"matchLabels": {"app": "web"}},
        "template": template(),
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "podManagementPolicy": "OrderedReady",
        **spec,
    }
    return obj("StatefulSet", "db", "apps/v1", spec=spec, status={})


def revision_for(owner: Object, image: str = "nginx", number: int = 1) -> Object:
    """The revision which the controller makes for a template."""
    changed = {**owner, "spec": {**owner["spec"], "template": template(image)}}
    (create,) = [each for each in writes(look(changed, revisions=[]), Create) if each.resource == REVISIONS]
    metadata = {**create.obj["metadata"], "uid": f"rev-{number}", "creationTimestamp": f"2026-01-0{number}T00:00:00Z"}
    return {**create.obj, "metadata": metadata, "revision": number}


def member(owner: Object, ordinal: int, revision: Object | None = None, **more: Any) -> Object:
    made = pod(f"db-{ordinal}", owner, **more)
    revision = revision or revision_for(owner)
    made["metadata"]["labels"] = {
        "app": "web",
        "controller-revision-hash": revision["metadata"]["name"],
        "statefulset.kubernetes.io/pod-name": f"db-{ordinal}",
        "apps.kubernetes.io/pod-index": str(ordinal),
    }
    return made


def look(
    owner: Object, *pods: Object, revisions: list[Object] | None = None, claims: Any = None, taken: Any = None
) -> Any:
    past = [revision_for(owner)] if revisions is None else revisions
    return reconcile(View(owner, list(pods), [], past, claims or {}, lambda name: taken, NOW))


def made(actions: Any, resource: str = PODS) -> list[str]:
    return [each.obj["metadata"]["name"] for each in writes(actions, Create) if each.resource == resource]


def removed(actions: Any) -> list[str]:
    return [each.obj["metadata"]["name"] for each in writes(actions, Delete) if each.resource == PODS]


# ---------------------------------------------------------------- order


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ([], ["db-0"]),
        (["pending"], []),
        (["running"], []),
        (["ready"], ["db-1"]),
        (["ready", "ready"], ["db-2"]),
        (["ready", "ready", "ready"], []),
        ([None, "ready", "ready"], ["db-0"]),
        (["terminating", "ready"], []),
    ],
)
def test_pods_are_made_one_after_the_other(present: list[str | None], expected: list[str]) -> None:
    owner = statefulset()
    forms: dict[str, Any] = {
        "pending": {"phase": "Pending"},
        "running": {"ready": False},
        "ready": {},
        "terminating": {},
    }
    pods = []
    for ordinal, form in enumerate(present):
        if form is not None:
            each = member(owner, ordinal, **forms[form])
            pods.append(deleting(each) if form == "terminating" else each)
    assert made(look(owner, *pods)) == expected


def test_parallel_makes_all_at_once_and_removes_all_at_once() -> None:
    owner = statefulset(podManagementPolicy="Parallel")
    assert made(look(owner)) == ["db-0", "db-1", "db-2"]
    small = statefulset(1, podManagementPolicy="Parallel")
    assert removed(look(small, *(member(small, ordinal) for ordinal in range(3)))) == ["db-2", "db-1"]


def test_ordinals_may_start_elsewhere() -> None:
    owner = statefulset(2, ordinals={"start": 5}, podManagementPolicy="Parallel")
    assert made(look(owner)) == ["db-5", "db-6"]


def test_scaling_down_takes_the_highest_and_waits_for_health() -> None:
    owner = statefulset(1)
    pods = [member(owner, ordinal) for ordinal in range(3)]
    assert removed(look(owner, *pods)) == ["db-2"]
    assert removed(look(owner, pods[0], pods[1], deleting(pods[2]))) == []
    assert removed(look(owner, pods[0], member(owner, 1, ready=False), pods[2])) == ["db-2"]
    assert removed(look(owner, member(owner, 0, ready=False), pods[1])) == []  # the first one is not well
    # the unhealthy one may go even if it is the last
    assert removed(look(owner, pods[0], pods[1], member(owner, 2, ready=False))) == ["db-2"]


def test_pods_that_ended_are_made_again() -> None:
    owner = statefulset()
    assert removed(look(owner, member(owner, 0, phase="Failed"))) == ["db-0"]
    assert removed(look(owner, member(owner, 0, phase="Succeeded"))) == ["db-0"]
    assert removed(look(owner, deleting(member(owner, 0, phase="Failed")))) == []


def test_min_ready_seconds_delays_the_next() -> None:
    owner = statefulset(minReadySeconds=60)
    assert made(look(owner, member(owner, 0, ready_s=50))) == []
    assert made(look(owner, member(owner, 0, ready_s=60))) == ["db-1"]


def test_a_statefulset_in_deletion_makes_nothing() -> None:
    assert made(look(deleting(statefulset()))) == []


# ---------------------------------------------------------------- identity and volumes


def test_pods_have_their_identity() -> None:
    owner = statefulset()
    (create,) = [each for each in writes(look(owner), Create) if each.resource == PODS]
    revision = revision_for(owner)["metadata"]["name"]
    assert create.obj["metadata"]["labels"] == {
        "app": "web",
        "statefulset.kubernetes.io/pod-name": "db-0",
        "apps.kubernetes.io/pod-index": "0",
        "controller-revision-hash": revision,
    }
    assert create.obj["metadata"]["ownerReferences"] == owned_by(owner)
    assert (create.obj["spec"]["hostname"], create.obj["spec"]["subdomain"]) == ("db-0", "db")
    (told,) = create.then({})
    assert told.message == "create Pod db-0 in StatefulSet db successful"


def test_lost_labels_are_restored() -> None:
    owner = statefulset(1)
    bare = member(owner, 0)
    del bare["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"]
    (patch,) = writes(look(owner, bare), Patch)
    assert patch.body["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"] == "db-0"


VOLUMES: Object = {"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]}


def test_claims_come_before_their_pod() -> None:
    owner = statefulset(1, **VOLUMES)
    actions = flat(look(owner))
    creates = [each for each in actions if isinstance(each, Create) and each.resource != REVISIONS]
    assert [each.obj["metadata"]["name"] for each in creates] == ["data-db-0", "db-0"]
    assert creates[0].obj["metadata"]["labels"] == {"app": "web"}
    assert creates[1].obj["spec"]["volumes"] == [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0", "readOnly": False}}
    ]
    present = {"data-db-0": obj("PersistentVolumeClaim", "data-db-0")}
    assert made(look(owner, claims=present), CLAIMS) == []


@pytest.mark.parametrize(
    ("deleted", "scaled", "replicas", "owners"),
    [
        ("Retain", "Retain", 1, []),
        ("Delete", "Retain", 1, ["StatefulSet"]),
        ("Delete", "Delete", 1, ["StatefulSet"]),
        ("Retain", "Delete", 1, []),
        ("Retain", "Delete", 0, ["Pod"]),
        ("Delete", "Delete", 0, ["Pod"]),
        ("Delete", "Retain", 0, ["StatefulSet"]),
    ],
)
def test_claims_go_with_whom_the_policy_says(deleted: str, scaled: str, replicas: int, owners: list[str]) -> None:
    policy = {"whenDeleted": deleted, "whenScaled": scaled}
    owner = statefulset(replicas, persistentVolumeClaimRetentionPolicy=policy, **VOLUMES)
    claim = obj("PersistentVolumeClaim", "data-db-0")
    actions = look(owner, member(owner, 0), claims={"data-db-0": claim})
    patches = [each for each in writes(actions, Patch) if each.resource == CLAIMS]
    found = [ref["kind"] for patch in patches for ref in patch.body["metadata"]["ownerReferences"] or ()]
    assert found == owners


# ---------------------------------------------------------------- updates


def test_an_update_goes_from_the_highest_and_waits_for_each() -> None:
    owner = statefulset()
    old, new = revision_for(owner, "old", 1), revision_for(owner, "nginx", 2)
    pods = [member(owner, ordinal, old) for ordinal in range(3)]
    assert removed(look(owner, *pods, revisions=[old, new])) == ["db-2"]
    fresh = member(owner, 2, new, ready=False)
    assert removed(look(owner, pods[0], pods[1], fresh, revisions=[old, new])) == []
    assert removed(look(owner, pods[0], pods[1], member(owner, 2, new), revisions=[old, new])) == ["db-1"]


def test_a_partition_keeps_the_lower_ones() -> None:
    owner = statefulset(updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 2}})
    old, new = revision_for(owner, "old", 1), revision_for(owner, "nginx", 2)
    owner["status"] = {"currentRevision": old["metadata"]["name"]}
    pods = [member(owner, 0, old), member(owner, 1, old), member(owner, 2, new)]
    assert removed(look(owner, *pods, revisions=[old, new])) == []
    actions = look(owner, member(owner, 0, old), revisions=[old, new])
    (create,) = [each for each in writes(actions, Create) if each.resource == PODS]
    assert create.obj["spec"]["containers"][0]["image"] == "old"


def test_more_may_be_unavailable_at_a_time() -> None:
    owner = statefulset(4, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}})
    old, new = revision_for(owner, "old", 1), revision_for(owner, "nginx", 2)
    pods = [member(owner, ordinal, old) for ordinal in range(4)]
    assert removed(look(owner, *pods, revisions=[old, new])) == ["db-3", "db-2"]


def test_on_delete_leaves_it_to_the_user() -> None:
    owner = statefulset(updateStrategy={"type": "OnDelete"})
    old, new = revision_for(owner, "old", 1), revision_for(owner, "nginx", 2)
    pods = [member(owner, ordinal, old) for ordinal in range(3)]
    assert removed(look(owner, *pods, revisions=[old, new])) == []
    assert made(look(owner, pods[0], pods[1], revisions=[old, new])) == ["db-2"]


def test_a_template_of_old_renews_its_revision() -> None:
    owner = statefulset(1)
    first, second = revision_for(owner, "nginx", 1), revision_for(owner, "other", 2)
    actions = look(owner, member(owner, 0, second), revisions=[first, second])
    (update,) = [each for each in writes(actions, Update) if each.resource == REVISIONS]
    assert update.obj["metadata"]["name"] == first["metadata"]["name"]
    assert update.obj["revision"] == 3


def test_history_beyond_the_limit_goes() -> None:
    owner = statefulset(1, revisionHistoryLimit=1)
    revisions = [revision_for(owner, f"v{number}", number) for number in range(1, 5)]
    current = revision_for(owner, "nginx", 5)
    actions = look(owner, member(owner, 0, current), revisions=[*revisions, current])
    gone = [each.obj["revision"] for each in writes(actions, Delete) if each.resource == REVISIONS]
    assert gone == [1, 2, 3]


def test_status() -> None:
    owner = statefulset(3, minReadySeconds=40)
    old, new = revision_for(owner, "old", 1), revision_for(owner, "nginx", 2)
    owner["status"] = {"currentRevision": old["metadata"]["name"]}
    pods = [member(owner, 0, old), member(owner, 1, old, ready_s=10), member(owner, 2, new, ready=False)]
    assert status_of(look(owner, *pods, revisions=[old, new])) == {
        "observedGeneration": 1,
        "replicas": 3,
        "readyReplicas": 2,
        "availableReplicas": 1,
        "currentReplicas": 2,
        "updatedReplicas": 1,
        "currentRevision": old["metadata"]["name"],
        "updateRevision": new["metadata"]["name"],
        "collisionCount": 0,
    }
    done = [member(owner, ordinal, new) for ordinal in range(3)]
    status = status_of(look(owner, *done, revisions=[old, new]))
    assert status is not None
    assert status["currentRevision"] == new["metadata"]["name"]
    assert status["currentReplicas"] == 3


def test_a_taken_revision_name_is_a_collision() -> None:
    actions = look(statefulset(), revisions=[], taken=obj("ControllerRevision", "x"))
    assert status_of(actions) == {"collisionCount": 1}
    assert made(actions) == []

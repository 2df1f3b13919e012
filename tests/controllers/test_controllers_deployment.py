"""Deployments: each step of a rollout, scaling, history, pause and progress as upstream documents them."""

from __future__ import annotations

from typing import Any

import pytest
from kubeobjects import NOW, deleting, flat, obj, owned_by, pod, status_of, template, writes

from fastkube.clock import rfc3339
from fastkube.controllers.actions import Create, Delete, Requeue, Tell, Update
from fastkube.controllers.deployment import View, reconcile
from fastkube.controllers.deployment_parts import DESIRED, HASH_LABEL, MAXIMUM, REVISION, REVISION_HISTORY, limits
from fastkube.errors import ApiError

Object = dict[str, Any]


def deployment(replicas: int = 3, surge: Any = 1, unavailable: Any = 1, **spec: Any) -> Object:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "web"}},
        "strategy": strategy,
        "template": template(),
        "progressDeadlineSeconds": 600,
        "revisionHistoryLimit": 10,
        **spec,
    }
    return obj("Deployment", "web", "apps/v1", spec=spec, status={})


def replicaset(
    owner: Object,
    replicas: int,
    *,
    image: str = "nginx",
    available: int | None = None,
    revision: int = 1,
    desired: int | None = None,
    maximum: int | None = None,
    age_s: float = 100,
    **status: int,
) -> Object:
    """With all Pods available, and annotations of the owner's size, unless said otherwise."""
    available = replicas if available is None else available
    total = owner["spec"]["replicas"] if desired is None else desired
    whole = total + limits(owner).surge if maximum is None else maximum
    made_of = template(image, app="web", **{HASH_LABEL: image})
    counts = {"replicas": replicas, "readyReplicas": available, "availableReplicas": available, "observedGeneration": 1}
    return obj(
        "ReplicaSet",
        f"web-{image}",
        "apps/v1",
        age_s=age_s,
        m_annotations={REVISION: str(revision), DESIRED: str(total), MAXIMUM: str(whole)},
        m_ownerReferences=owned_by(owner),
        m_labels=made_of["metadata"]["labels"],
        spec={"replicas": replicas, "selector": {}, "template": made_of},
        status={**counts, **status},
    )


def look(owner: Object, *owned: Object, pods: Any = (), taken: Any = None) -> View:
    for rs in owned:
        rs["metadata"]["labels"] = {"app": "web", HASH_LABEL: "x"}
    return View(owner, list(owned), [], list(pods), lambda name: taken, NOW)


def sizes(actions: Any) -> dict[str, int]:
    return {update.obj["metadata"]["name"]: update.obj["spec"]["replicas"] for update in updates(actions)}


def updates(actions: Any) -> list[Any]:
    return [action for action in writes(actions, Update) if action.obj["kind"] == "ReplicaSet"]


def told(actions: Any) -> list[str]:
    found = [action for action in flat(actions) if isinstance(action, Tell)]
    for write in writes(actions):
        if write.then is not None:
            found += write.then({})
    return [tell.message for tell in found]


def conditions(actions: Any) -> dict[str, tuple[str, str]]:
    status = status_of(actions) or {}
    return {known["type"]: (known["status"], known["reason"]) for known in status.get("conditions", ())}


# ---------------------------------------------------------------- the new ReplicaSet


def test_a_new_deployment_gets_its_replicaset() -> None:
    owner = deployment(3)
    owner["metadata"]["annotations"] = {"note": "kept", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
    actions = reconcile(look(owner))
    (create,) = writes(actions, Create)
    made = create.obj
    digest = made["metadata"]["labels"][HASH_LABEL]
    assert made["metadata"]["name"] == f"web-{digest}"
    assert made["metadata"]["labels"] == {"app": "web", HASH_LABEL: digest}
    assert made["metadata"]["annotations"] == {"note": "kept", REVISION: "1", DESIRED: "3", MAXIMUM: "4"}
    assert made["metadata"]["ownerReferences"] == owned_by(owner)
    assert made["spec"]["replicas"] == 3
    assert made["spec"]["selector"] == {"matchLabels": {"app": "web", HASH_LABEL: digest}}
    assert made["spec"]["template"]["metadata"]["labels"] == {"app": "web", HASH_LABEL: digest}
    assert told(actions) == [f"Scaled up replica set web-{digest} from 0 to 3"]
    assert conditions(actions) == {
        "Progressing": ("True", "NewReplicaSetCreated"),
        "Available": ("False", "MinimumReplicasUnavailable"),
    }
    status = writes(actions, Update)[-1].obj
    assert status["metadata"]["annotations"][REVISION] == "1"
    assert status["status"]["unavailableReplicas"] == 3
    assert status["status"]["observedGeneration"] == 1


def test_the_same_template_has_the_same_hash_and_a_collision_another() -> None:
    owner = deployment()
    (first,), (again,) = writes(reconcile(look(owner)), Create), writes(reconcile(look(owner)), Create)
    assert first.obj["metadata"]["name"] == again.obj["metadata"]["name"]
    owner["status"] = {"collisionCount": 1}
    (other,) = writes(reconcile(look(owner)), Create)
    assert other.obj["metadata"]["name"] != first.obj["metadata"]["name"]


def test_a_taken_name_is_a_collision() -> None:
    owner = deployment()
    actions = reconcile(look(owner, taken=obj("ReplicaSet", "web-x")))
    assert writes(actions, Create) == []
    assert status_of(actions) == {"collisionCount": 1}


def test_a_refused_replicaset_is_told_in_progressing() -> None:
    (create,) = writes(reconcile(look(deployment())), Create)
    actions = create.otherwise(ApiError(403, "Forbidden", "no"))
    assert conditions(actions) == {"Progressing": ("False", "ReplicaSetCreateError")}
    name = create.obj["metadata"]["name"]
    assert told(actions) == [f'Failed to create new replica set "{name}": no']


def test_a_changed_template_starts_a_rollout_with_the_next_revision() -> None:
    owner = deployment(3, surge=1)
    old = replicaset(owner, 3, image="old", revision=4)
    (create,) = writes(reconcile(look(owner, old)), Create)
    assert create.obj["metadata"]["annotations"][REVISION] == "5"
    assert create.obj["spec"]["replicas"] == 1  # as far as the surge goes


def test_an_old_template_again_is_a_rollback_with_a_new_revision() -> None:
    owner = deployment(3)
    back = replicaset(owner, 0, revision=1, age_s=500)
    current = replicaset(owner, 3, image="bad", revision=2)
    actions = reconcile(look(owner, back, current))
    assert writes(actions, Create) == []
    renewed = next(update.obj for update in updates(actions) if update.obj["metadata"]["name"] == "web-nginx")
    assert renewed["metadata"]["annotations"][REVISION] == "3"
    assert renewed["metadata"]["annotations"][REVISION_HISTORY] == "1"
    assert writes(actions, Update)[-1].obj["metadata"]["annotations"][REVISION] == "3"


def test_annotations_and_min_ready_seconds_follow_the_deployment() -> None:
    owner = deployment(1, minReadySeconds=7)
    owner["metadata"]["annotations"] = {"note": "new"}
    (update,) = updates(reconcile(look(owner, replicaset(owner, 1))))
    assert update.obj["metadata"]["annotations"]["note"] == "new"
    assert update.obj["spec"]["minReadySeconds"] == 7


# ---------------------------------------------------------------- rolling updates

ROLLING = [
    # replicas, surge, unavailable, old (size, available), new (size, available), the new sizes
    (10, 2, 2, (10, 10), (0, 0), {"web-nginx": 2}),  # up first
    (10, 0, 2, (10, 10), (0, 0), {"web-old": 8}),  # no surge: down first
    (10, 2, 2, (10, 10), (2, 0), {"web-old": 8}),  # what is not available yet counts as lost
    (10, 2, 2, (8, 8), (4, 0), {}),  # nothing may go before something becomes available
    (10, 2, 2, (8, 8), (4, 2), {"web-old": 6}),
    (10, 2, 2, (8, 6), (4, 4), {"web-old": 4}),  # unhealthy ones go first
    (10, 0, 2, (10, 8), (0, 0), {"web-old": 8}),
    (10, 2, 2, (0, 0), (10, 10), {}),  # complete
    (10, 2, 2, (1, 1), (9, 9), {"web-nginx": 10}),
    (10, "50%", "0%", (10, 10), (0, 0), {"web-nginx": 5}),
    (1, "25%", "25%", (1, 1), (0, 0), {"web-nginx": 1}),
    (1, "25%", "25%", (1, 1), (1, 0), {}),
    (1, "25%", "25%", (1, 1), (1, 1), {"web-old": 0}),
]


@pytest.mark.parametrize(("replicas", "surge", "unavailable", "old", "new", "expected"), ROLLING)
def test_rolling_updates(
    replicas: int, surge: Any, unavailable: Any, old: tuple[int, int], new: tuple[int, int], expected: dict[str, int]
) -> None:
    owner = deployment(replicas, surge, unavailable)
    before = replicaset(owner, old[0], image="old", available=old[1], age_s=500)
    after = replicaset(owner, new[0], available=new[1], revision=2)
    assert sizes(reconcile(look(owner, before, after))) == expected


@pytest.mark.parametrize("step", range(40))
def test_a_rollout_never_leaves_its_bounds(step: int) -> None:
    """Let `step` attempts pass in a world where every second Pod of the new kind becomes available."""
    owner = deployment(7, 2, 3)
    old, new = replicaset(owner, 7, image="old", age_s=500), replicaset(owner, 0, revision=2)
    for turn in range(step):
        wanted = sizes(reconcile(look(owner, old, new)))
        for rs in (old, new):
            size = wanted.get(rs["metadata"]["name"], rs["spec"]["replicas"])
            available = min(size, rs["status"]["availableReplicas"] + (1 if turn % 2 and rs is new else 0))
            rs["spec"]["replicas"] = rs["status"]["replicas"] = size
            rs["status"]["readyReplicas"] = rs["status"]["availableReplicas"] = available
        assert old["spec"]["replicas"] + new["spec"]["replicas"] <= 9
        assert old["status"]["availableReplicas"] + new["status"]["availableReplicas"] >= 4
    if step == 39:
        assert (old["spec"]["replicas"], new["spec"]["replicas"]) == (0, 7)


# ---------------------------------------------------------------- recreate


def test_recreate_stops_the_old_waits_and_starts_the_new() -> None:
    owner = deployment(3, strategy={"type": "Recreate"})
    old = replicaset(owner, 3, image="old")
    assert sizes(reconcile(look(owner, old))) == {"web-old": 0}
    stopped = replicaset(owner, 0, image="old")
    leaving = deleting(pod("p", stopped))
    actions = reconcile(look(owner, stopped, pods=[leaving]))
    assert writes(actions, Create) == []
    actions = reconcile(look(owner, stopped, pods=[pod("p", stopped, phase="Succeeded")]))
    (create,) = writes(actions, Create)
    assert create.obj["spec"]["replicas"] == 3


# ---------------------------------------------------------------- scaling


@pytest.mark.parametrize(
    ("before", "after", "given", "expected"),
    [
        (10, 15, {"web-old": (8, 500), "web-nginx": (5, 100)}, {"web-old": 11, "web-nginx": 7}),
        (10, 5, {"web-old": (8, 500), "web-nginx": (5, 100)}, {"web-old": 5, "web-nginx": 3}),
        (10, 0, {"web-old": (8, 500), "web-nginx": (5, 100)}, {"web-old": 0, "web-nginx": 0}),
        (10, 20, {"web-old": (10, 500)}, {"web-old": 20}),
    ],
)
def test_scaling_in_a_rollout_is_proportional(
    before: int, after: int, given: dict[str, tuple[int, int]], expected: dict[str, int]
) -> None:
    owner = deployment(after, 3, 2)
    owned = [
        replicaset(owner, size, image=name[4:], desired=before, maximum=before + 3, age_s=age)
        for name, (size, age) in given.items()
    ]
    for number, rs in enumerate(owned, 1):
        rs["metadata"]["annotations"][REVISION] = str(number)
    assert sizes(reconcile(look(owner, *owned))) == expected


def test_scaling_tells_events() -> None:
    owner = deployment(5)
    assert told(reconcile(look(owner, replicaset(owner, 3, desired=3)))) == [
        "Scaled up replica set web-nginx from 3 to 5"
    ]


# ---------------------------------------------------------------- pause and history


def test_a_paused_deployment_scales_but_does_not_roll() -> None:
    owner = deployment(5, paused=True)
    old = replicaset(owner, 3, image="old", desired=3)
    actions = reconcile(look(owner, old))
    assert writes(actions, Create) == []
    assert sizes(actions) == {"web-old": 5}
    assert conditions(actions)["Progressing"] == ("Unknown", "DeploymentPaused")


def test_resuming_restarts_the_deadline() -> None:
    owner = deployment(3)
    paused = {"type": "Progressing", "status": "Unknown", "reason": "DeploymentPaused"}
    times = {"lastUpdateTime": rfc3339(NOW - 9999), "lastTransitionTime": rfc3339(NOW - 9999)}
    owner["status"] = {"replicas": 3, "updatedReplicas": 3, "conditions": [{**paused, **times}]}
    actions = reconcile(look(owner, replicaset(owner, 3, available=0)))
    assert conditions(actions)["Progressing"] == ("Unknown", "DeploymentResumed")


def test_history_beyond_the_limit_is_deleted_oldest_first() -> None:
    owner = deployment(3, revisionHistoryLimit=1)
    current = replicaset(owner, 3, revision=9)
    owner["status"] = {"updatedReplicas": 3, "replicas": 3, "availableReplicas": 3, "observedGeneration": 1}
    old = [replicaset(owner, 0, image=f"i{revision}", revision=revision) for revision in (3, 1, 2, 4)]
    busy = replicaset(owner, 0, image="busy", revision=0)
    busy["metadata"]["generation"] = 2  # its controller has not seen its last change
    actions = reconcile(look(owner, current, *old, busy))
    assert [delete.obj["metadata"]["name"] for delete in writes(actions, Delete)] == ["web-i1", "web-i2", "web-i3"]


# ---------------------------------------------------------------- status and progress


def test_complete() -> None:
    owner = deployment(3)
    actions = reconcile(look(owner, replicaset(owner, 3)))
    status = status_of(actions)
    assert status is not None
    told_conditions = status.pop("conditions")
    assert status == {
        "observedGeneration": 1,
        "replicas": 3,
        "updatedReplicas": 3,
        "readyReplicas": 3,
        "availableReplicas": 3,
    }
    assert {known["type"]: known["message"] for known in told_conditions} == {
        "Available": "Deployment has minimum availability.",
        "Progressing": 'ReplicaSet "web-nginx" has successfully progressed.',
    }
    owner["status"] = {**status, "conditions": told_conditions}
    owner["metadata"]["annotations"] = {REVISION: "1"}
    assert flat(reconcile(look(owner, replicaset(owner, 3)))) == []


def progressing(reason: str, status: str, age_s: float) -> Object:
    at = rfc3339(NOW - age_s)
    return {"type": "Progressing", "status": status, "reason": reason, "lastUpdateTime": at, "lastTransitionTime": at}


def test_no_progress_within_the_deadline_is_told() -> None:
    owner = deployment(3)
    rs = replicaset(owner, 3, available=0)
    counts = {"replicas": 3, "updatedReplicas": 3}
    owner["status"] = {**counts, "conditions": [progressing("ReplicaSetUpdated", "True", 601)]}
    actions = reconcile(look(owner, rs))
    assert conditions(actions)["Progressing"] == ("False", "ProgressDeadlineExceeded")


def test_progress_renews_the_deadline() -> None:
    owner = deployment(3)
    rs = replicaset(owner, 3, available=1)
    counts = {"replicas": 3, "updatedReplicas": 3}
    owner["status"] = {**counts, "conditions": [progressing("ReplicaSetUpdated", "True", 601)]}
    status = status_of(reconcile(look(owner, rs)))
    assert status is not None
    renewed = status["conditions"][-1]
    assert (renewed["reason"], renewed["lastUpdateTime"]) == ("ReplicaSetUpdated", rfc3339(NOW))
    assert renewed["lastTransitionTime"] == rfc3339(NOW - 601)


def test_a_stuck_deployment_is_looked_at_again_at_its_deadline() -> None:
    owner = deployment(3)
    rs = replicaset(owner, 3, available=0)
    owner["status"] = {"conditions": [progressing("ReplicaSetUpdated", "True", 100)]}
    first = reconcile(look(owner, rs))
    status = status_of(first)
    assert status is not None
    owner["status"] = {**status, "conditions": [status["conditions"][0], progressing("ReplicaSetUpdated", "True", 100)]}
    owner["metadata"]["annotations"] = {REVISION: "1"}
    (again,) = flat(reconcile(look(owner, rs)))
    assert isinstance(again, Requeue)
    assert again.after_s == 501


def test_a_replica_failure_is_copied() -> None:
    owner = deployment(3)
    rs = replicaset(owner, 3, available=0)
    rs["status"]["conditions"] = [
        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "q"}
    ]
    assert conditions(reconcile(look(owner, rs)))["ReplicaFailure"] == ("True", "FailedCreate")


def test_a_deployment_in_deletion_only_tells_its_status() -> None:
    owner = deleting(deployment(3))
    actions = reconcile(look(owner))
    assert [type(action).__name__ for action in actions] == ["Update"]


def test_selecting_everything_is_refused() -> None:
    (tell,) = reconcile(look(deployment(selector={})))
    assert isinstance(tell, Tell)
    assert tell.reason == "SelectingAll"

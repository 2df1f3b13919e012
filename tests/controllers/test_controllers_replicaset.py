"""ReplicaSets: what one attempt does for each state of the world."""

from __future__ import annotations

from typing import Any

import pytest
from kubeobjects import NOW, asked, deleting, flat, obj, owned_by, pod, status_of, template, writes

from fastkube.controllers.actions import Create, Delete, Patch, Requeue, Together
from fastkube.controllers.common import deletion_order
from fastkube.controllers.replicaset import BURST, View, reconcile
from fastkube.errors import ApiError

Object = dict[str, Any]
REPLICASETS = "apps/v1/replicasets"


def replicaset(replicas: int = 2, **spec: Any) -> Object:
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template(), **spec}
    return obj("ReplicaSet", "web", "apps/v1", spec=spec)


def look(rs: Object, owned: list[Object], orphans: list[Object] | None = None, live: Object | None = None) -> View:
    return View(rs, REPLICASETS, owned, orphans or [], owned, NOW, live or {})


@pytest.mark.parametrize(
    ("replicas", "present", "created", "deleted"),
    [(0, 0, 0, 0), (2, 0, 2, 0), (2, 1, 1, 0), (2, 2, 0, 0), (2, 3, 0, 1), (0, 3, 0, 3), (2000, 0, BURST, 0)],
)
def test_the_number_of_pods_is_brought_to_what_is_wanted(
    replicas: int, present: int, created: int, deleted: int
) -> None:
    rs = replicaset(replicas)
    actions = reconcile(look(rs, [pod(f"p{index}", rs) for index in range(present)]))
    assert len(writes(actions, Create)) == created
    assert len(writes(actions, Delete)) == deleted


def test_created_pods_follow_the_template_and_are_owned() -> None:
    rs = replicaset(1)
    (create,) = writes(reconcile(look(rs, [])), Create)
    assert create.obj["metadata"] == {
        "namespace": "default",
        "generateName": "web-",
        "labels": {"app": "web"},
        "ownerReferences": owned_by(rs),
    }
    (told,) = create.then({"metadata": {"name": "web-x"}})
    assert (told.type, told.reason, told.message) == ("Normal", "SuccessfulCreate", "Created pod: web-x")


def test_creations_start_slowly() -> None:
    actions = reconcile(look(replicaset(5), []))
    assert isinstance(actions[0], Together)
    assert actions[0].slow_start


def test_finished_and_terminating_pods_do_not_count() -> None:
    rs = replicaset(2)
    pods = [pod("a", rs), pod("b", rs, phase="Failed"), pod("c", rs, phase="Succeeded"), deleting(pod("d", rs))]
    actions = reconcile(look(rs, pods))
    assert len(writes(actions, Create)) == 1


def test_status_counts_pods_and_generation() -> None:
    rs = replicaset(3, minReadySeconds=30)
    pods = [pod("a", rs, ready_s=40), pod("b", rs, ready_s=10), pod("c", rs, ready=False), deleting(pod("d", rs))]
    actions = reconcile(look(rs, pods))
    assert status_of(actions) == {
        "replicas": 3,
        "fullyLabeledReplicas": 3,
        "readyReplicas": 2,
        "availableReplicas": 1,
        "terminatingReplicas": 1,
        "observedGeneration": 1,
    }
    assert [action.after_s for action in flat(actions) if isinstance(action, Requeue)] == [20]


def test_a_status_that_is_right_is_not_written() -> None:
    rs = replicaset(1)
    pods = [pod("a", rs)]
    rs["status"] = status_of(reconcile(look(rs, pods)))
    assert flat(reconcile(look(rs, pods))) == []


def test_orphans_are_adopted_once_the_server_says_that_the_owner_lives() -> None:
    rs = replicaset(1)
    orphan = pod("a")
    (path,) = asked(reconcile(look(rs, [], [orphan])))
    assert path == "/apis/apps/v1/namespaces/default/replicasets/web"
    actions = reconcile(look(rs, [], [orphan], {path: rs}))
    (patch,) = writes(actions, Patch)
    assert patch.body["metadata"] == {"ownerReferences": owned_by(rs), "uid": orphan["metadata"]["uid"]}
    assert writes(actions, Create) == []


@pytest.mark.parametrize("fresh", ["gone", "replaced", "deleting"])
def test_an_owner_that_is_gone_adopts_nothing(fresh: str) -> None:
    rs = replicaset(1)
    path = "/apis/apps/v1/namespaces/default/replicasets/web"
    live = {"gone": None, "replaced": replicaset(1), "deleting": deleting(rs)}[fresh]
    actions = reconcile(look(rs, [], [pod("a")], {path: live}))
    assert writes(actions, Patch) == []


def test_pods_that_no_longer_match_are_released_and_replaced() -> None:
    rs = replicaset(1)
    stray = pod("a", rs, labels={"app": "debug"})
    actions = reconcile(look(rs, [stray]))
    (patch,) = writes(actions, Patch)
    assert patch.body["metadata"]["ownerReferences"] == [{"$patch": "delete", "uid": rs["metadata"]["uid"]}]
    assert len(writes(actions, Create)) == 1


def test_a_replicaset_in_deletion_makes_releases_and_adopts_nothing() -> None:
    rs = deleting(replicaset(3))
    actions = reconcile(look(rs, [pod("a", rs), pod("b", rs, labels={"x": "y"})], [pod("c")]))
    assert [type(action).__name__ for action in flat(actions)] == ["Update"]  # its status


def test_failures_are_told_once_and_forgotten_after_success() -> None:
    rs = replicaset(2)
    (together,) = reconcile(look(rs, []))
    refused = ApiError(403, "Forbidden", "exceeded quota")
    status = status_of(together.otherwise(refused))
    assert status is not None
    (told,) = status["conditions"]
    assert (told["type"], told["status"], told["reason"], told["message"]) == (
        "ReplicaFailure",
        "True",
        "FailedCreate",
        "exceeded quota",
    )
    rs["status"] = status
    (together,) = reconcile(look(rs, []))
    assert list(together.otherwise(refused)) == []
    healed = status_of(reconcile(look(rs, [pod("a", rs), pod("b", rs)])))
    assert healed is not None
    assert "conditions" not in healed


def costly(name: str, cost: str) -> Object:
    return pod(name, m_annotations={"controller.kubernetes.io/pod-deletion-cost": cost})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pod("unbound", node=""), pod("bound", phase="Pending")),
        (pod("pending", phase="Pending"), pod("running")),
        (pod("not-ready", ready=False), pod("ready")),
        (costly("cheap", "-5"), costly("dear", "100")),
        (pod("fuller", node="crowded"), pod("alone", node="lonely")),
        (pod("ready-lately", ready_s=2), pod("ready-long", ready_s=5000)),
        (pod("restarted", restarts=5), pod("steady")),
        (pod("young", age_s=60), pod("old", age_s=6000)),
    ],
    ids=lambda made: made["metadata"]["name"],
)
def test_the_order_of_deletion(first: Object, second: Object) -> None:
    company = {"crowded": 5, "lonely": 1}
    for given in ([first, second], [second, first]):
        assert [made["metadata"]["name"] for made in deletion_order(given, company, NOW)] == [
            first["metadata"]["name"],
            second["metadata"]["name"],
        ]

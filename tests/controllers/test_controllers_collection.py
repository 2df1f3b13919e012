"""What goes when something else goes: the garbage collector, namespaces, finished Jobs, stray Pods."""

from __future__ import annotations

from typing import Any

import pytest
from kubeobjects import NOW, asked, deleting, flat, obj, pod, writes

from fastkube.client import Resource
from fastkube.client.discovery import ApiResource, Discovery
from fastkube.clock import rfc3339
from fastkube.controllers import garbage_collector as gc
from fastkube.controllers import namespace, pod_gc, ttl_after_finished
from fastkube.controllers.actions import Ask, Delete, DeleteAll, Discover, Fail, Patch, Requeue, Tell, Update
from fastkube.controllers.garbage_collector import Dependent, Owner, State

Object = dict[str, Any]


def held(thing: Object, *finalizers: str) -> Object:
    return {**thing, "metadata": {**thing["metadata"], "finalizers": list(finalizers)}}


# ---------------------------------------------------------------- garbage collector


def look(thing: Object, *owners: Owner, dependents: Any = (), live: Any = None) -> Any:
    listed = [Dependent("v1/pods", dependent) for dependent in dependents]
    return gc.reconcile(gc.View("apps/v1/replicasets", thing, list(owners), listed, live or {}))


def owner(state: State, name: str = "web", elsewhere: bool = False) -> Owner:
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": f"uid-of-{name}", "controller": True}
    return Owner(ref, state, f"/path/{name}", elsewhere)


RS = obj("ReplicaSet", "rs", "apps/v1")


def test_an_object_whose_owners_are_gone_is_deleted_as_it_was_looked_at() -> None:
    (delete,) = look(RS, owner(State.ABSENT))
    assert isinstance(delete, Delete)
    assert delete.propagation == "Background"
    assert delete.resource_version == RS["metadata"]["resourceVersion"]


def test_an_object_with_an_owner_left_only_loses_the_others() -> None:
    (patch,) = look(RS, owner(State.SOLID, "a"), owner(State.ABSENT, "b"))
    assert [ref["name"] for ref in patch.body["metadata"]["ownerReferences"]] == ["a"]
    assert look(RS, owner(State.SOLID, "a")) == []


def test_an_owner_that_is_not_known_is_asked_for() -> None:
    assert asked(look(RS, owner(State.UNKNOWN))) == ["/path/web"]
    (delete,) = look(RS, owner(State.UNKNOWN), live={"/path/web": None})
    assert isinstance(delete, Delete)
    other = obj("Deployment", "web")  # of the same name, but another uid
    (delete,) = look(RS, owner(State.UNKNOWN), live={"/path/web": other})
    assert isinstance(delete, Delete)
    same = obj("Deployment", "web")
    same["metadata"]["uid"] = "uid-of-web"
    assert look(RS, owner(State.UNKNOWN), live={"/path/web": same}) == []


def test_an_owner_in_another_namespace_counts_as_gone_and_is_told() -> None:
    tell, delete = look(RS, owner(State.UNKNOWN, elsewhere=True), live={"/path/web": None})
    assert isinstance(tell, Tell)
    assert tell.reason == "OwnerRefInvalidNamespace"
    assert isinstance(delete, Delete)


def test_what_cannot_be_resolved_is_left_alone() -> None:
    assert look(RS, owner(State.UNRESOLVABLE)) == ()
    (fail,) = look(RS, owner(State.UNMAPPED))
    assert isinstance(fail, Fail)


def test_foreground_deletion_waits_for_dependents_that_block() -> None:
    waiting = held(deleting(RS), gc.FOREGROUND, "example.com/other")
    blocking = pod("p", waiting)
    assert look(waiting, dependents=[blocking]) == ()
    (patch,) = look(waiting)
    assert patch.body["metadata"]["finalizers"] == ["example.com/other"]
    lenient = pod("p", waiting)
    lenient["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] = False
    assert isinstance(look(waiting, dependents=[lenient])[0], Patch)


def test_dependents_of_a_waiting_owner_are_deleted_with_theirs_first() -> None:
    (delete,) = look(RS, owner(State.WAITING))
    assert delete.propagation == "Background"
    (delete,) = look(RS, owner(State.WAITING), dependents=[pod("p", RS)])
    assert delete.propagation == "Foreground"


def test_a_circle_of_waiting_objects_is_opened() -> None:
    waiting = held(deleting(pod("p", RS)), gc.FOREGROUND)
    (patch,) = look(RS, owner(State.WAITING), dependents=[waiting])
    assert [ref["blockOwnerDeletion"] for ref in patch.body["metadata"]["ownerReferences"]] == [False]


def test_orphaning_frees_the_dependents_then_the_owner() -> None:
    waiting = held(deleting(RS), gc.ORPHAN)
    children = [pod("a", waiting), pod("b", waiting)]
    actions = look(waiting, dependents=children)
    *freed, last = flat(actions)
    assert [patch.body["metadata"]["ownerReferences"] for patch in freed] == [None, None]
    assert last.body["metadata"]["finalizers"] is None


def test_what_is_being_deleted_already_is_not_deleted_again() -> None:
    assert look(deleting(RS), owner(State.ABSENT)) == ()


# ---------------------------------------------------------------- namespaces


def api_resource(plural: str, group: str = "") -> ApiResource:
    verbs = frozenset({"list", "delete", "deletecollection", "watch"})
    return ApiResource(Resource(group, "v1", plural), plural.title(), True, verbs, True)


DISCOVERY = Discovery([api_resource("pods"), api_resource("configmaps"), api_resource("deployments", "apps")], {})


def terminating(**status: Any) -> Object:
    gone = deleting(obj("Namespace", "gone", namespace="", spec={"finalizers": ["kubernetes"]}))
    return {**gone, "status": {"phase": "Terminating", **status}}


def survey(ns: Object, discovery: Discovery = DISCOVERY, **left: list[Object]) -> Any:
    """The actions after discovery and all lists were answered."""
    view = namespace.View(ns, NOW, {Discover.KEY: discovery})
    live: Object = {Discover.KEY: discovery}
    for ask in namespace.reconcile(view):
        assert isinstance(ask, Ask)
        plural = ask.path.partition("?")[0].rpartition("/")[2]
        live[ask.path] = {"metadata": {}, "items": left.get(plural, [])}
    return namespace.reconcile(namespace.View(ns, NOW, live))


def test_a_namespace_asks_what_is_served_then_what_is_left() -> None:
    assert namespace.reconcile(namespace.View(terminating(), NOW)) == [Discover()]
    asks = namespace.reconcile(namespace.View(terminating(), NOW, {Discover.KEY: DISCOVERY}))
    assert [ask.path.partition("?")[0] for ask in asks if isinstance(ask, Ask)] == [
        "/api/v1/namespaces/gone/pods",
        "/api/v1/namespaces/gone/configmaps",
        "/apis/apps/v1/namespaces/gone/deployments",
    ]


def test_an_empty_namespace_is_finalized() -> None:
    (update,) = survey(terminating())
    assert isinstance(update, Update)
    assert update.subresource == "finalize"
    assert update.obj["spec"]["finalizers"] == []


def test_pods_go_before_everything_else() -> None:
    actions = flat(survey(terminating(), pods=[pod("p")], configmaps=[obj("ConfigMap", "c")]))
    assert [action.resource for action in actions if isinstance(action, DeleteAll)] == ["v1/pods"]
    actions = flat(survey(terminating(), configmaps=[obj("ConfigMap", "c")], deployments=[obj("Deployment", "d")]))
    assert [action.resource for action in actions if isinstance(action, DeleteAll)] == [
        "v1/configmaps",
        "apps/v1/deployments",
    ]


def test_what_is_in_the_way_is_told() -> None:
    stuck = held(deleting(obj("ConfigMap", "c")), "example.com/f")
    actions = survey(terminating(), configmaps=[stuck])
    assert not [action for action in flat(actions) if isinstance(action, DeleteAll)]
    (update,) = writes(actions, Update)
    told = {known["type"]: (known["status"], known["message"]) for known in update.obj["status"]["conditions"]}
    assert told["NamespaceContentRemaining"] == (
        "True",
        "Some resources are remaining: configmaps. has 1 resource instances",
    )
    assert told["NamespaceFinalizersRemaining"] == (
        "True",
        "Some content in the namespace has finalizers remaining: example.com/f in 1 resource instances",
    )
    assert told["NamespaceDeletionDiscoveryFailure"][0] == "False"
    assert isinstance(actions[-1], Requeue)


def test_a_group_that_cannot_be_asked_keeps_the_namespace() -> None:
    broken = Discovery(DISCOVERY.resources, {"metrics.k8s.io/v1": "stale GroupVersion discovery"})
    actions = survey(terminating(), broken)
    (update,) = writes(actions, Update)
    assert update.subresource == "status"
    assert update.obj["status"]["conditions"][0]["status"] == "True"


# ---------------------------------------------------------------- finished Jobs and stray Pods


@pytest.mark.parametrize(("ago_s", "expected"), [(50, Requeue), (100, Delete), (500, Delete)])
def test_finished_jobs_live_for_their_ttl(ago_s: float, expected: type) -> None:
    done = {"type": "Complete", "status": "True", "lastTransitionTime": rfc3339(NOW - ago_s)}
    job = obj("Job", "j", spec={"ttlSecondsAfterFinished": 100}, status={"conditions": [done]})
    (action,) = ttl_after_finished.reconcile(ttl_after_finished.View(job, NOW))
    assert isinstance(action, expected)


def pods_view(**more: Any) -> pod_gc.View:
    empty: Object = {"finished": [], "terminating": [], "by_missing_node": {}, "out_of_service": frozenset()}
    return pod_gc.View(**{**empty, "threshold": 0, "now": NOW, **more})


def test_pods_of_a_node_that_is_gone_are_failed_and_removed() -> None:
    lost = pod("p", node="gone")
    (path,) = asked(pod_gc.reconcile(pods_view(by_missing_node={"gone": [lost]})))
    assert path == "/api/v1/nodes/gone"
    actions = pod_gc.reconcile(pods_view(by_missing_node={"gone": [lost]}, live={path: None}))
    (patch,) = writes(actions, Patch)
    assert patch.body["status"]["phase"] == "Failed"
    assert patch.body["status"]["conditions"][0]["reason"] == "DeletionByPodGC"
    (delete,) = patch.then({})
    assert delete.grace_period_s == 0
    back = pods_view(by_missing_node={"gone": [lost]}, live={path: obj("Node", "gone", namespace="")})
    assert writes(pod_gc.reconcile(back)) == []
    young = pod("p", node="gone", age_s=5)
    assert asked(pod_gc.reconcile(pods_view(by_missing_node={"gone": [young]}))) == []


def test_terminating_pods_that_never_ran_are_removed() -> None:
    (delete,) = writes(pod_gc.reconcile(pods_view(terminating=[deleting(pod("p", node=""))])))
    assert delete.grace_period_s == 0


def test_finished_pods_beyond_the_threshold_go_evicted_and_oldest_first() -> None:
    pods = [pod(f"p{age}", phase="Failed", age_s=age) for age in (10, 30, 20)]
    pods[0]["status"]["reason"] = "Evicted"
    actions = pod_gc.reconcile(pods_view(finished=pods, threshold=1))
    assert [delete.obj["metadata"]["name"] for delete in writes(actions)] == ["p10", "p30"]

"""DaemonSets: which nodes get a Pod, and how Pods are replaced."""

from __future__ import annotations

from typing import Any

import pytest
from kubeobjects import NOW, deleting, obj, pod, status_of, template, writes

from fastkube.controllers.actions import Create, Delete
from fastkube.controllers.daemonset import View, reconcile, target_node
from fastkube.controllers.revisions import REVISIONS

Object = dict[str, Any]
PODS = "v1/pods"


def daemonset(strategy: Object | None = None, **template_spec: Any) -> Object:
    made = template()
    made["spec"] |= template_spec
    spec = {
        "selector": {"matchLabels": {"app": "web"}},
        "template": made,
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": strategy or {"maxUnavailable": 1, "maxSurge": 0}},
    }
    return obj("DaemonSet", "agent", "apps/v1", spec=spec, status={})


def node(name: str, *taints: tuple[str, str], **labels: str) -> Object:
    listed = [{"key": key, "effect": effect} for key, effect in taints]
    return obj("Node", name, namespace="", spec={"taints": listed}, m_labels=labels, status={})


def look(owner: Object, nodes: list[Object], pods: list[Object] | None = None, revisions: Any = None) -> Any:
    return reconcile(View(owner, pods or [], [], revisions or [], nodes, lambda name: None, NOW))


def revision_of(owner: Object, number: int = 1) -> Object:
    (create,) = [each for each in writes(look(owner, []), Create) if each.resource == REVISIONS]
    return {**create.obj, "metadata": {**create.obj["metadata"], "creationTimestamp": "x"}, "revision": number}


def daemon(owner: Object, where: str, *, old: bool = False, name: str = "", **more: Any) -> Object:
    made = pod(name or f"agent-{where}", owner, node=where, **more)
    digest = revision_of(owner)["metadata"]["labels"]["controller-revision-hash"]
    made["metadata"]["labels"] = {"app": "web", "controller-revision-hash": "old" if old else digest}
    return made


def created_on(actions: Any) -> list[str]:
    return [target_node(each.obj) for each in writes(actions, Create) if each.resource == PODS]


def removed(actions: Any) -> list[str]:
    return [each.obj["metadata"]["name"] for each in writes(actions, Delete) if each.resource == PODS]


NODES = [node("a"), node("b"), node("c")]


def test_each_node_gets_a_pod_that_is_meant_for_it() -> None:
    owner = daemonset()
    actions = look(owner, NODES)
    assert created_on(actions) == ["a", "b", "c"]
    made = next(each.obj for each in writes(actions, Create) if each.resource == PODS)
    assert made["metadata"]["generateName"] == "agent-"
    keys = [(each["key"].rpartition("/")[2], each["effect"]) for each in made["spec"]["tolerations"]]
    assert keys == [
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    ]
    assert created_on(look(owner, NODES, [daemon(owner, "a"), daemon(owner, "b")])) == ["c"]


@pytest.mark.parametrize(
    ("taint", "runs", "stays"),
    [
        (("k", "NoSchedule"), False, True),
        (("k", "NoExecute"), False, False),
        (("k", "PreferNoSchedule"), True, True),
        (("node.kubernetes.io/unschedulable", "NoSchedule"), True, True),
        (("node.kubernetes.io/not-ready", "NoExecute"), True, True),
        (("node.kubernetes.io/network-unavailable", "NoSchedule"), False, True),
    ],
)
def test_taints(taint: tuple[str, str], runs: bool, stays: bool) -> None:
    owner = daemonset()
    tainted = [node("a", taint)]
    assert created_on(look(owner, tainted)) == (["a"] if runs else [])
    assert removed(look(owner, tainted, [daemon(owner, "a")])) == ([] if stays else ["agent-a"])


def test_selectors_and_affinity() -> None:
    nodes = [node("a", disk="ssd"), node("b")]
    assert created_on(look(daemonset(nodeSelector={"disk": "ssd"}), nodes)) == ["a"]
    term = {"matchExpressions": [{"key": "disk", "operator": "DoesNotExist"}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    owner = daemonset(affinity={"nodeAffinity": required})
    actions = look(owner, nodes)
    assert created_on(actions) == ["b"]
    (create,) = [each for each in writes(actions, Create) if each.resource == PODS]
    (made,) = create.obj["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert made["matchExpressions"] == term["matchExpressions"]


def test_pods_that_ended_or_are_too_many_are_removed() -> None:
    owner = daemonset()
    failed = daemon(owner, "a", phase="Failed")
    assert removed(look(owner, NODES[:1], [failed])) == ["agent-a"]
    assert created_on(look(owner, NODES[:1], [failed])) == []
    twins = [daemon(owner, "a", name="young", age_s=10), daemon(owner, "a", name="old", age_s=50)]
    assert removed(look(owner, NODES[:1], twins)) == ["young"]
    fresh = daemon(owner, "a", phase="Failed", age_s=0)
    assert removed(look(owner, NODES[:1], [fresh])) == []


def test_pods_for_nodes_that_are_gone() -> None:
    owner = daemonset()
    waiting = daemon(owner, "gone")
    del waiting["spec"]["nodeName"]
    assert removed(look(owner, NODES[:1], [daemon(owner, "a"), waiting])) == ["agent-gone"]
    bound = daemon(owner, "gone")
    assert removed(look(owner, NODES[:1], [daemon(owner, "a"), bound])) == []


# ---------------------------------------------------------------- rolling update


def test_old_pods_are_replaced_as_far_as_may_be_unavailable() -> None:
    owner = daemonset({"maxUnavailable": 2, "maxSurge": 0})
    old = [daemon(owner, name, old=True) for name in "abc"]
    assert removed(look(owner, NODES, old)) == ["agent-a", "agent-b"]
    partly = [daemon(owner, "a", ready=False), *old[1:]]
    assert removed(look(owner, NODES, partly)) == ["agent-b"]
    assert removed(look(owner, NODES, [old[0], old[1], daemon(owner, "c", old=True, ready=False)])) == [
        "agent-c",
        "agent-a",
    ]


def test_a_surge_makes_the_new_before_the_old_goes() -> None:
    owner = daemonset({"maxUnavailable": 0, "maxSurge": 1})
    old = [daemon(owner, name, old=True, name=f"old-{name}") for name in "abc"]
    assert created_on(look(owner, NODES, old)) == ["a"]
    assert removed(look(owner, NODES, old)) == []
    starting = daemon(owner, "a", ready=False)
    actions = look(owner, NODES, [*old, starting])
    assert (created_on(actions), removed(actions)) == ([], [])
    actions = look(owner, NODES, [*old, daemon(owner, "a")])
    assert removed(actions) == ["old-a"]


def test_on_delete_replaces_nothing() -> None:
    owner = daemonset()
    owner["spec"]["updateStrategy"] = {"type": "OnDelete"}
    assert removed(look(owner, NODES, [daemon(owner, name, old=True) for name in "abc"])) == []


def test_status() -> None:
    owner = daemonset()
    nodes = [*NODES, node("tainted", ("k", "NoSchedule"))]
    pods = [daemon(owner, "a"), daemon(owner, "b", old=True, ready=False), daemon(owner, "tainted")]
    assert status_of(look(owner, nodes, pods)) == {
        "observedGeneration": 1,
        "desiredNumberScheduled": 3,
        "currentNumberScheduled": 2,
        "numberMisscheduled": 1,
        "numberReady": 1,
        "numberAvailable": 1,
        "numberUnavailable": 2,
        "updatedNumberScheduled": 1,
    }


def test_a_daemonset_in_deletion_makes_nothing() -> None:
    assert created_on(look(deleting(daemonset()), NODES)) == []

"""Queueing hints: which events may help a Pod that a plugin refused, plugin by plugin, as upstream's hints say."""

from __future__ import annotations

from typing import Any

import pytest
from schedobjects import ZONE, expression, node, node_affinity, pod, pod_affinity, pod_term, spread

from fastkube.scheduler.cache import NodeChange
from fastkube.scheduler.events import (
    ASSIGNED_POD,
    CSI_NODE,
    CSI_STORAGE_CAPACITY,
    DEVICE_CLASS,
    NODE,
    UNSCHEDULED_POD,
    VOLUME_ATTACHMENT,
    Action,
    ClusterEvent,
    node_actions,
    pod_actions,
)
from fastkube.scheduler.offline import OfflineScheduler

Object = dict[str, Any]

GONE = None
A = {"app": "a"}
AWAY = pod_affinity("podAntiAffinity", pod_term(A, ZONE))
NAMED = node_affinity({"matchFields": [expression("metadata.name", "In", "m")]})
NEAR = pod_affinity("podAffinity", pod_term(A, ZONE))
SPREAD: Object = {"topologySpreadConstraints": [spread(ZONE, A)]}
HONORS: Object = {"topologySpreadConstraints": [spread(ZONE, A, nodeTaintsPolicy="Honor")]}
PORT: Object = {"ports": [{"containerPort": 80, "hostPort": 80}]}
OTHER_PORT: Object = {"ports": [{"containerPort": 81, "hostPort": 81}]}
TOLERANT = [{"key": "k", "operator": "Exists"}]
CORDON = [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]
CLAIM: Object = {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}


def here(zone: str = "z", **more: Any) -> Object:
    return node("n", {ZONE: zone} if zone else {}, **more)


def other(labels: dict[str, str] | None = None, **more: Any) -> Object:
    return pod("other", node="n", labels=labels, **more)


def csi(count: int) -> Object:
    drivers = [{"name": "d", "nodeID": "n", "allocatable": {"count": count}}]
    return {"metadata": {"name": "n"}, "spec": {"drivers": drivers}}


def standing_for(name: str = "", own: str = "gpu") -> Object:
    spec = {"extendedResourceName": name} if name else {}
    return {"metadata": {"name": own}, "spec": spec}


HINTS: list[tuple[str, str, Object, str, Object | None, Object | None, bool]] = [
    # plugin, what, the Pod that waits, resource, before, after, whether that may help
    ("TaintToleration", "a tainted node", pod(), NODE, GONE, here(taints=["k=v:NoSchedule"]), False),
    ("TaintToleration", "a tolerated taint", pod(tolerations=TOLERANT), NODE, GONE, here(taints=["k:NoSchedule"]),
     True),
    ("TaintToleration", "a taint less", pod(), NODE, here(taints=["k=v:NoSchedule"]), here(), True),
    ("TaintToleration", "a label", pod(), NODE, here(), here("y"), False),
    ("TaintToleration", "a toleration", pod("p"), UNSCHEDULED_POD, pod("p"), pod("p", tolerations=TOLERANT), True),
    ("TaintToleration", "a label of its own", pod("p"), UNSCHEDULED_POD, pod("p"), pod("p", labels=A), False),
    ("NodeUnschedulable", "a node", pod(), NODE, GONE, here(), True),
    ("NodeUnschedulable", "a cordoned node", pod(), NODE, GONE, here(unschedulable=True), False),
    ("NodeUnschedulable", "uncordoned", pod(), NODE, here(unschedulable=True), here(), True),
    ("NodeUnschedulable", "a taint of one that never was", pod(), NODE, here(), here(taints=["k=v:NoSchedule"]), False),
    ("NodeUnschedulable", "it tolerates that now", pod("p"), UNSCHEDULED_POD, pod("p"),
     pod("p", tolerations=CORDON), True),
    ("NodeUnschedulable", "it tolerates more", pod("p"), UNSCHEDULED_POD, pod("p"),
     pod("p", tolerations=TOLERANT), False),
    ("NodeAffinity", "a node that matches", pod(nodeSelector={ZONE: "z"}), NODE, GONE, here(), True),
    ("NodeAffinity", "a node that does not", pod(nodeSelector={ZONE: "z"}), NODE, GONE, here("y"), False),
    ("NodeAffinity", "a node that matches now", pod(nodeSelector={ZONE: "z"}), NODE, here("y"), here(), True),
    ("NodeAffinity", "a label that is not asked for", pod(nodeSelector={ZONE: "z"}), NODE, here(),
     node("n", {ZONE: "z", "x": "y"}), False),
    ("NodeAffinity", "by its name", pod(affinity=NAMED),
     NODE, GONE, here(), False),
    ("NodePorts", "a Pod with the port leaves", pod(**PORT), ASSIGNED_POD, other(**PORT), GONE, True),
    ("NodePorts", "a Pod with another port", pod(**PORT), ASSIGNED_POD, other(**OTHER_PORT), GONE, False),
    ("NodePorts", "a node", pod(**PORT), NODE, GONE, here(), True),
    ("NodeResourcesFit", "a node that is too small", pod(requests={"cpu": "9"}), NODE, GONE, here(), False),
    ("NodeResourcesFit", "a node that is large enough", pod(requests={"cpu": "2"}), NODE, GONE, here(), True),
    ("NodeResourcesFit", "a node with more", pod(requests={"cpu": "2"}), NODE, here(allocatable={"cpu": "2"}),
     here(allocatable={"cpu": "3"}), True),
    ("NodeResourcesFit", "a node with more of something else", pod(requests={"cpu": "2"}), NODE,
     here(allocatable={"cpu": "2", "memory": "1Gi"}), here(allocatable={"cpu": "2", "memory": "2Gi"}), False),
    ("NodeResourcesFit", "a class for its resource", pod(requests={"x.org/gpu": "1"}), DEVICE_CLASS, GONE,
     standing_for("x.org/gpu"), True),
    ("NodeResourcesFit", "a class for another", pod(requests={"x.org/gpu": "1"}), DEVICE_CLASS, GONE,
     standing_for("x.org/nic"), False),
    ("NodeResourcesFit", "a class as before", pod(requests={"x.org/gpu": "1"}), DEVICE_CLASS, standing_for("x.org/gpu"),
     standing_for("x.org/gpu"), False),
    ("NodeResourcesFit", "a class by its own name", pod(requests={"deviceclass.resource.kubernetes.io/gpu": "1"}),
     DEVICE_CLASS, GONE, standing_for(), True),
    ("InterPodAffinity", "a wanted Pod", pod(affinity=NEAR), ASSIGNED_POD, GONE, other(A), True),
    ("InterPodAffinity", "another Pod", pod(affinity=NEAR), ASSIGNED_POD, GONE, other(), False),
    ("InterPodAffinity", "a Pod that is wanted now", pod(affinity=NEAR), ASSIGNED_POD, other(), other(A), True),
    ("InterPodAffinity", "a Pod that was wanted before", pod(affinity=NEAR), ASSIGNED_POD, other(A),
     other({**A, "x": "y"}), False),
    ("InterPodAffinity", "an unwanted Pod leaves", pod(affinity=AWAY), ASSIGNED_POD, other(A), GONE, True),
    ("InterPodAffinity", "a Pod that does not matter leaves", pod(affinity=AWAY), ASSIGNED_POD, other(), GONE, False),
    ("InterPodAffinity", "a Pod leaves that keeps away", pod(labels=A), ASSIGNED_POD, other(affinity=AWAY), GONE, True),
    ("InterPodAffinity", "a Pod is unwanted no more", pod(affinity=AWAY), ASSIGNED_POD, other(A), other(), True),
    ("InterPodAffinity", "a node in a domain", pod(affinity=NEAR), NODE, GONE, here(), True),
    ("InterPodAffinity", "a node in none", pod(affinity=NEAR), NODE, GONE, here(""), False),
    ("InterPodAffinity", "a node in none, to keep away", pod(affinity=AWAY), NODE, GONE, here(""), True),
    ("InterPodAffinity", "a node leaves its domain", pod(affinity=AWAY), NODE, here(), here(""), True),
    ("InterPodAffinity", "a node joins a domain, to keep away", pod(affinity=AWAY), NODE, here(""), here(), False),
    ("InterPodAffinity", "a node moves", pod(affinity=AWAY), NODE, here(), here("y"), True),
    ("PodTopologySpread", "a node with the label", pod(**SPREAD), NODE, GONE, here(), True),
    ("PodTopologySpread", "a node without", pod(**SPREAD), NODE, GONE, here(""), False),
    ("PodTopologySpread", "a node leaves", pod(**SPREAD), NODE, here(), GONE, True),
    ("PodTopologySpread", "a node moves", pod(**SPREAD), NODE, here(), here("y"), True),
    ("PodTopologySpread", "a node gets a label that does not matter", pod(**SPREAD), NODE, here(),
     node("n", {ZONE: "z", "x": "y"}), False),
    ("PodTopologySpread", "a node's taints", pod(**SPREAD), NODE, here(), here(taints=["k:NoSchedule"]), True),
    ("PodTopologySpread", "a Pod that counts", pod(**SPREAD), ASSIGNED_POD, GONE, other(A), True),
    ("PodTopologySpread", "a Pod that does not", pod(**SPREAD), ASSIGNED_POD, GONE, other(), False),
    ("PodTopologySpread", "a Pod that counts now", pod(**SPREAD), ASSIGNED_POD, other(), other(A), True),
    ("PodTopologySpread", "a Pod that counts still", pod(**SPREAD), ASSIGNED_POD, other(A),
     other({**A, "x": "y"}), False),
    ("PodTopologySpread", "its tolerations", pod("p", **HONORS), UNSCHEDULED_POD, pod("p", **HONORS),
     pod("p", **HONORS, tolerations=TOLERANT), True),
    ("PodTopologySpread", "its tolerations that do not matter", pod("p", **SPREAD), UNSCHEDULED_POD,
     pod("p", **SPREAD), pod("p", **SPREAD, tolerations=TOLERANT), False),
    ("VolumeBinding", "another driver on a node", pod(**CLAIM), CSI_NODE, csi(1), csi(2), False),
    ("VolumeBinding", "room that grows", pod(**CLAIM), CSI_STORAGE_CAPACITY, {"capacity": "1Gi"}, {"capacity": "2Gi"},
     True),
    ("VolumeBinding", "room that shrinks", pod(**CLAIM), CSI_STORAGE_CAPACITY, {"capacity": "2Gi"}, {"capacity": "1Gi"},
     False),
    ("VolumeBinding", "volumes may be larger", pod(**CLAIM), CSI_STORAGE_CAPACITY, {"capacity": "9Gi"},
     {"capacity": "9Gi", "maximumVolumeSize": "10Gi"}, True),
    ("NodeVolumeLimits", "a greater limit", pod(**CLAIM), CSI_NODE, csi(1), csi(2), True),
    ("NodeVolumeLimits", "a lower limit", pod(**CLAIM), CSI_NODE, csi(2), csi(1), False),
    ("NodeVolumeLimits", "a volume is detached", pod(**CLAIM), VOLUME_ATTACHMENT, {"spec": {}}, GONE, True),
    ("NodeVolumeLimits", "a volume is detached, of no interest", pod(), VOLUME_ATTACHMENT, {"spec": {}}, GONE, False),
    ("NodeVolumeLimits", "a Pod with a claim leaves", pod(**CLAIM), ASSIGNED_POD, other(**CLAIM), GONE, True),
    ("NodeVolumeLimits", "a Pod without", pod(**CLAIM), ASSIGNED_POD, other(), GONE, False),
]  # fmt: skip


def actions(resource: str, old: Any, new: Any) -> Action:
    if old is None or new is None:
        return Action.ADD if old is None else Action.DELETE
    if resource == NODE:
        return node_actions(NodeChange(old, new))
    return pod_actions(old, new) if resource in (ASSIGNED_POD, UNSCHEDULED_POD) else Action.UPDATE_OTHER


@pytest.mark.parametrize(
    ("plugin", "waiting", "resource", "old", "new", "helps"),
    [(plugin, *rest) for plugin, _, *rest in HINTS],
    ids=[f"{plugin}: {what}" for plugin, what, *_ in HINTS],
)
def test_what_may_help(
    plugin: str, waiting: Object, resource: str, old: Object | None, new: Object | None, helps: bool
) -> None:
    scheduler = OfflineScheduler()
    parse = scheduler.cache.parse
    states: list[Any] = [old, new]
    if resource == UNSCHEDULED_POD:
        for each in (waiting, old, new):
            assert each is not None
            each["metadata"]["uid"] = "the same"
    if resource in (ASSIGNED_POD, UNSCHEDULED_POD):
        states = [None if each is None else parse(each) for each in states]
    event = ClusterEvent(resource, actions(resource, *states), *states)
    assert scheduler.profiles["default-scheduler"].wakes(parse(waiting), (plugin,), event) is helps


def test_a_selector_of_everything_counts_no_pods() -> None:
    """As upstream has it: each Pod is the first of its kind."""
    everywhere = spread(ZONE, {}, skew=1)
    scheduler = OfflineScheduler(
        [node("a", {ZONE: "a"}), node("b", {ZONE: "b"}), *(pod(f"p{n}", node="a") for n in range(3))]
    )
    for number in range(8):
        decision = scheduler.decide(scheduler.cache.parse(pod(f"q{number}", topologySpreadConstraints=[everywhere])))
        assert (decision.feasible, decision.message) == (2, "")

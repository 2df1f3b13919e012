"""The life of nodes and of the Pods on them: silence, taints, zones, eviction."""

from __future__ import annotations

from typing import Any

import pytest
from kubeobjects import NOW, flat, obj, pod, writes

from fastkube.api.placement import node_matches, tolerates
from fastkube.clock import rfc3339
from fastkube.controllers import node_lifecycle, taint_eviction
from fastkube.controllers.actions import Delete, Patch, Remember, Requeue, Tell
from fastkube.controllers.node_lifecycle import NOT_READY, UNREACHABLE, NodeView, Silent, WholeView
from fastkube.controllers.options import ControllerManagerOptions

Object = dict[str, Any]
OPTIONS = ControllerManagerOptions()


def node(name: str = "n1", ready: str | None = "True", *, zone: str = "", taints: Any = (), **spec: Any) -> Object:
    conditions = [] if ready is None else [{"type": "Ready", "status": ready, "lastHeartbeatTime": rfc3339(NOW - 60)}]
    labels = {"topology.kubernetes.io/zone": zone} if zone else {}
    made = obj("Node", name, namespace="", spec=spec, status={"conditions": conditions}, m_labels=labels)
    if taints:
        made["spec"]["taints"] = list(taints)
    return made


def taint(key: str, effect: str = "NoExecute", ago_s: float | None = None) -> Object:
    made = {"key": key, "effect": effect}
    return made if ago_s is None else {**made, "timeAdded": rfc3339(NOW - ago_s)}


def taints(actions: Any) -> list[tuple[str, str]]:
    (patch,) = [patch for patch in writes(actions, Patch) if "spec" in patch.body]
    return [(each["key"].rpartition("/")[2], each["effect"]) for each in patch.body["spec"]["taints"] or ()]


# ---------------------------------------------------------------- one node


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (node(ready="False"), [("not-ready", "NoSchedule")]),
        (node(ready="Unknown"), [("unreachable", "NoSchedule")]),
        (node(unschedulable=True), [("unschedulable", "NoSchedule")]),
        (node(taints=[taint(NOT_READY, "NoSchedule")]), []),
        (node(taints=[taint(NOT_READY), taint("mine")]), [("mine", "NoExecute")]),
        (node(ready="Unknown", taints=[taint(NOT_READY, "NoSchedule")]), [("unreachable", "NoSchedule")]),
    ],
)
def test_taints_follow_conditions(made: Object, expected: list[tuple[str, str]]) -> None:
    assert taints(node_lifecycle.reconcile(NodeView(made, [], NOW))) == expected


def test_pressure_is_a_taint() -> None:
    made = node()
    made["status"]["conditions"].append({"type": "MemoryPressure", "status": "True"})
    assert taints(node_lifecycle.reconcile(NodeView(made, [], NOW))) == [("memory-pressure", "NoSchedule")]


def test_a_healthy_node_is_left_alone() -> None:
    assert node_lifecycle.reconcile(NodeView(node(), [], NOW)) == []


def test_older_labels_are_kept_up() -> None:
    made = node()
    made["metadata"]["labels"] = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    (patch,) = writes(node_lifecycle.reconcile(NodeView(made, [], NOW)))
    assert patch.body["metadata"]["labels"] == {"beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": "amd64"}


def test_pods_of_a_node_that_is_not_ready_are_not_ready() -> None:
    actions = node_lifecycle.reconcile(NodeView(node(ready="Unknown"), [pod("a"), pod("b", ready=False)], NOW))
    (patch,) = [patch for patch in writes(actions, Patch) if patch.obj["kind"] == "Pod"]
    assert patch.obj["metadata"]["name"] == "a"
    assert patch.body["status"]["conditions"][0]["status"] == "False"


# ---------------------------------------------------------------- the whole


def whole(*nodes: tuple[Object, float]) -> Any:
    known = {each["metadata"]["name"]: each["metadata"]["uid"] for each, _ in nodes}
    return node_lifecycle.reconcile(WholeView([Silent(*each) for each in nodes], NOW, OPTIONS, known))


@pytest.mark.parametrize(
    ("made", "silent_s", "reason"),
    [
        (node(), 49, None),
        (node(), 51, "NodeStatusUnknown"),
        (node(ready=None), 51, None),
        (node(ready=None), 61, "NodeStatusNeverUpdated"),
        (node(ready="Unknown"), 500, None),
    ],
)
def test_silent_nodes_become_unknown(made: Object, silent_s: float, reason: str | None) -> None:
    actions = whole((made, silent_s), (node("healthy"), 0))
    patches = [patch for patch in writes(actions, Patch) if "status" in patch.body]
    told = {
        each["reason"] for patch in patches for each in patch.body["status"]["conditions"] if each["type"] == "Ready"
    }
    assert told == ({reason} if reason else set())
    if reason == "NodeStatusUnknown":
        (tell,) = patches[0].then({})
        assert (tell.reason, tell.message) == ("NodeNotReady", "Node n1 status is now: NodeNotReady")


def test_nodes_that_come_and_go_are_told() -> None:
    there = [Silent(each, 0.0) for each in (node("old"), node("new"))]
    known = {"old": there[0].node["metadata"]["uid"], "gone": "u"}
    first, second, remember, _again = node_lifecycle.reconcile(WholeView(there, NOW, OPTIONS, known))
    assert isinstance(first, Tell) and isinstance(second, Tell) and isinstance(remember, Remember)
    assert (first.reason, first.message) == ("RegisteredNode", "Node new event: Registered Node new in Controller")
    assert first.about == {"apiVersion": "v1", "kind": "Node", "name": "new", "uid": there[1].node["metadata"]["uid"]}
    assert (second.reason, second.message) == (
        "RemovingNode",
        "Node gone event: Removing Node gone from Controller",
    )
    assert remember.value.keys() == {"old", "new"}


def tainted(actions: Any) -> list[str]:
    return sorted(patch.obj["metadata"]["name"] for patch in writes(actions, Patch) if "spec" in patch.body)


def test_unhealthy_nodes_are_tainted_one_at_a_time() -> None:
    healthy = [(node(f"h{number}"), 0.0) for number in range(5)]
    lost = [(node(f"l{number}", "Unknown"), 100.0) for number in range(2)]
    assert tainted(whole(*healthy, *lost)) == ["l0"]
    first = node("l0", "Unknown", taints=[taint(UNREACHABLE, ago_s=9)])
    assert tainted(whole(*healthy, (first, 100), lost[1])) == []
    first = node("l0", "Unknown", taints=[taint(UNREACHABLE, ago_s=10)])
    assert tainted(whole(*healthy, (first, 100), lost[1])) == ["l1"]


def test_zones_have_rates_of_their_own() -> None:
    nodes = [(node(f"{zone}{n}", "Unknown" if n else "True", zone=zone), 100.0) for zone in "ab" for n in range(2)]
    assert tainted(whole(*nodes)) == ["a1", "b1"]


def test_a_small_zone_that_is_mostly_unhealthy_is_left_alone() -> None:
    nodes = [(node(f"n{number}", "Unknown" if number < 3 else "True"), 100.0) for number in range(5)]
    assert tainted(whole(*nodes)) == []


def test_nothing_is_tainted_while_nothing_is_healthy() -> None:
    nodes = [(node(f"n{number}", "Unknown"), 100.0) for number in range(3)]
    assert tainted(whole(*nodes)) == []
    before = node("t", "Unknown", taints=[taint(UNREACHABLE, ago_s=100)])
    assert tainted(whole((before, 100.0), *nodes)) == ["t"]
    assert taints([action for action in flat(whole((before, 100.0))) if not isinstance(action, Requeue)]) == []


def test_the_taint_follows_the_condition() -> None:
    changed = node("n", "False", taints=[taint(UNREACHABLE, ago_s=1)])
    actions = [patch for patch in writes(whole((changed, 0), (node("h"), 0))) if patch.obj["metadata"]["name"] == "n"]
    assert taints(actions) == [("not-ready", "NoExecute")]


# ---------------------------------------------------------------- eviction


def evict(tolerations: list[Object], *present: Object) -> Any:
    tolerant = pod("p")
    tolerant["spec"]["tolerations"] = tolerations
    listed = [{**each, "since": NOW - 100} for each in present]
    return taint_eviction.reconcile(taint_eviction.View(tolerant, listed, NOW))


def test_pods_that_tolerate_nothing_go_at_once() -> None:
    tell, _forget, patch, delete = evict([], taint("k"))
    assert isinstance(tell, Tell)
    assert (tell.reason, tell.message) == ("TaintManagerEviction", "Marking for deletion Pod default/p")
    assert patch.body["status"]["conditions"][0]["reason"] == "DeletionByTaintManager"
    assert isinstance(delete, Delete)


@pytest.mark.parametrize(("limit", "left"), [(300, 200), (150, 50), (100, None), (0, None), (-1, None)])
def test_tolerated_for_a_time(limit: int, left: float | None) -> None:
    actions = evict([{"key": "k", "operator": "Exists", "tolerationSeconds": limit}], taint("k"))
    if left is None:
        assert isinstance(actions[-1], Delete)
    else:
        assert actions == [Remember("default/p", True), Requeue(left)]


def test_what_was_put_off_may_be_called_off() -> None:
    tolerant = pod("p")
    called_off = [taint_eviction.reconcile(taint_eviction.View(tolerant, [], NOW, waits=True))]
    called_off.append(taint_eviction.reconcile(taint_eviction.Gone("default/p")))
    for tell, forget in called_off:
        assert isinstance(tell, Tell)
        assert (tell.reason, tell.message) == ("TaintManagerEviction", "Cancelling deletion of Pod default/p")
        assert forget == Remember("default/p", None)


def test_tolerated_for_ever() -> None:
    assert evict([{"operator": "Exists"}], taint("k"), taint("l")) == ()
    assert isinstance(evict([{"key": "k", "operator": "Exists"}], taint("k"), taint("l"))[-1], Delete)


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        ({"key": "k", "operator": "Equal", "value": "v"}, True),
        ({"key": "k", "value": "v"}, True),
        ({"key": "k", "operator": "Equal", "value": "w"}, False),
        ({"key": "k", "operator": "Exists", "effect": "NoSchedule"}, False),
        ({"operator": "Exists", "effect": "NoExecute"}, True),
        ({"operator": "Exists"}, True),
    ],
)
def test_tolerations(toleration: Object, expected: bool) -> None:
    assert tolerates(toleration, {"key": "k", "value": "v", "effect": "NoExecute"}) is expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ({"key": "a", "operator": "In", "values": ["1", "2"]}, True),
        ({"key": "a", "operator": "NotIn", "values": ["1"]}, False),
        ({"key": "b", "operator": "DoesNotExist"}, True),
        ({"key": "a", "operator": "Gt", "values": ["0"]}, True),
        ({"key": "a", "operator": "Lt", "values": ["1"]}, False),
    ],
)
def test_node_affinity(expression: Object, expected: bool) -> None:
    made = node()
    made["metadata"]["labels"] = {"a": "1"}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    spec = {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}
    assert node_matches(made, spec) is expected
    assert not node_matches(made, {"nodeSelector": {"a": "2"}})

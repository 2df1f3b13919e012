"""The life of nodes: who is silent is unhealthy, who is unhealthy is tainted, and Pods on it are no longer ready.

Two kinds of keys:
  * a node's name: taints (NoSchedule) that follow from its conditions, the readiness of its Pods, its older labels
  * WHOLE, every node-monitor-period: nodes that are silent for node-monitor-grace-period become Unknown; nodes that are
    not ready get NoExecute taints, which make the taint eviction controller remove their Pods. In each zone that goes
    slowly, more slowly in a large zone most of which is unhealthy, and not at all while nothing is healthy anywhere:
    then it is the control plane that is cut off.
A sign of life is a change of the node's Lease or of its heartbeat, seen on the own clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fastkube.clock import rfc3339
from fastkube.controllers.actions import GONE, Action, Patch, Remember, Requeue, Tell, Together
from fastkube.controllers.common import (
    PODS,
    Object,
    Objects,
    condition,
    condition_is,
    is_ready,
    seconds,
)
from fastkube.controllers.options import ControllerManagerOptions
from fastkube.controllers.runner import Context, Controller, Watch, nothing

NODES = "v1/nodes"
LEASES = "coordination.k8s.io/v1/leases"

WHOLE = "*"
NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
_CONDITION_TAINTS = (
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
)
_UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
_OWN_NO_SCHEDULE = frozenset({_UNSCHEDULABLE, *(key for _, _, key in _CONDITION_TAINTS)})
_OWN_NO_EXECUTE = frozenset({NOT_READY, UNREACHABLE})
_WATCHED_CONDITIONS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
_OLD_LABELS = {"kubernetes.io/os": "beta.kubernetes.io/os", "kubernetes.io/arch": "beta.kubernetes.io/arch"}
REGION, ZONE = "topology.kubernetes.io/region", "topology.kubernetes.io/zone"
_UNHEALTHY_MIN = 3
"""A zone with fewer unhealthy nodes is not called unhealthy, however small it is."""


class NodeView(NamedTuple):
    node: Object
    pods: Objects
    """Only of a node that is not ready."""
    now: float


class Silent(NamedTuple):
    """A node and for how long nothing has been heard of it."""

    node: Object
    silent_s: float


class WholeView(NamedTuple):
    nodes: list[Silent]
    now: float
    options: ControllerManagerOptions
    known: dict[str, str]
    """The uid of each node that was there at the last look, by name."""


def view(context: Context, key: str) -> NodeView | WholeView | None:
    caches = context.caches
    if key == WHOLE:
        heard, renewed = caches.life(NODES, _heartbeat), caches.life(LEASES, _renewal)
        nodes = [Silent(node, context.now - _last_seen(node, heard, renewed)) for node in caches.list(NODES)]
        return WholeView(nodes, context.now, context.options, context.memory.get(WHOLE) or {})
    node = caches.by_key(NODES, key)
    if node is None:
        return None
    pods = [] if condition_is(node, "Ready") or _ready(node) is None else caches.index(PODS, "node", key)
    return NodeView(node, pods, context.now)


def _last_seen(node: Object, heard: Mapping[str, float], renewed: Mapping[str, float]) -> float:
    name = node["metadata"]["name"]
    seen = max(heard.get(name, 0.0), renewed.get(f"kube-node-lease/{name}", 0.0))
    return seen or seconds(node["metadata"]["creationTimestamp"])


def _ready(node: Object) -> Object | None:
    return condition(node, "Ready")


def reconcile(view: NodeView | WholeView) -> Sequence[Action]:
    return _one(view) if isinstance(view, NodeView) else _whole(view)


# ---------------------------------------------------------------- one node


def _one(view: NodeView) -> Sequence[Action]:
    node = view.node
    actions: list[Action] = []
    if patch := _metadata_and_taints(node, view.now):
        actions.append(patch)
    not_ready = [pod for pod in view.pods if is_ready(pod)]
    if not_ready:
        actions.append(Together([_make_not_ready(pod, view.now) for pod in not_ready]))
    return actions


def _metadata_and_taints(node: Object, now: float) -> Patch | None:
    """NoSchedule taints as the conditions say, and the labels that older clients look for."""
    taints = node["spec"].get("taints") or []
    wanted = _no_schedule(node)
    kept = [
        taint
        for taint in taints
        if taint["effect"] != "NoSchedule" or taint["key"] not in _OWN_NO_SCHEDULE or taint["key"] in wanted
    ]
    if condition_is(node, "Ready"):
        # a healthy node need not wait for the next look at the whole
        kept = [taint for taint in kept if taint["effect"] != "NoExecute" or taint["key"] not in _OWN_NO_EXECUTE]
    present = {taint["key"] for taint in kept if taint["effect"] == "NoSchedule"}
    added = [{"key": key, "effect": "NoSchedule", "timeAdded": rfc3339(now)} for key in wanted if key not in present]
    labels = node["metadata"].get("labels") or {}
    missing = {old: labels[new] for new, old in _OLD_LABELS.items() if new in labels and labels.get(old) != labels[new]}
    body: Object = {}
    if added or len(kept) != len(taints):
        body["spec"] = {"taints": [*kept, *added] or None}
    if missing:
        body["metadata"] = {"labels": missing}
    return _guarded(node, body) if body else None


def _no_schedule(node: Object) -> list[str]:
    wanted = [key for kind, status, key in _CONDITION_TAINTS if condition_is(node, kind, status)]
    if node["spec"].get("unschedulable"):
        wanted.append(_UNSCHEDULABLE)
    return wanted


def _guarded(node: Object, body: Object) -> Patch:
    """Taints are one list: nobody else's change may get lost."""
    metadata = {**body.get("metadata", {}), "resourceVersion": node["metadata"]["resourceVersion"]}
    return Patch(NODES, node, body={**body, "metadata": metadata}, ignore=GONE)


def _make_not_ready(pod: Object, now: float) -> Patch:
    told = {"type": "Ready", "status": "False", "lastTransitionTime": rfc3339(now)}
    return Patch(
        PODS,
        pod,
        body={"status": {"conditions": [told]}},
        kind="strategic",
        subresource="status",
        ignore=GONE,
        then=lambda _: [Tell(pod, "Warning", "NodeNotReady", "Node is not ready")],
    )


# ---------------------------------------------------------------- the whole


class Zone(NamedTuple):
    """The nodes of a zone, and how fast unhealthy ones may be tainted (nodes a second)."""

    nodes: Objects
    rate: float


def _whole(view: WholeView) -> Sequence[Action]:
    options = view.options
    actions: list[Action] = []
    told = _arrivals(view)
    least_s = min(options.node_startup_grace_period_s, options.node_monitor_grace_period_s)
    for node, silent_s in view.nodes:
        if silent_s <= least_s:
            continue
        ready = _ready(node)
        grace_s = options.node_startup_grace_period_s if ready is None else options.node_monitor_grace_period_s
        if silent_s > grace_s and (patch := _make_unknown(node, view.now)):
            actions += patch
    actions += _taint_zones(view)
    again = Requeue(options.node_monitor_period_s)
    return [*told, Together(actions), again] if actions else [*told, again]


def _arrivals(view: WholeView) -> list[Action]:
    """Tell of the nodes that have come and gone since the last look."""
    present = {node["metadata"]["name"]: node["metadata"]["uid"] for node, _ in view.nodes}
    if present == view.known:
        return []
    told: list[Action] = [
        _event(name, uid, "RegisteredNode", f"Node {name} event: Registered Node {name} in Controller")
        for name, uid in present.items()
        if name not in view.known
    ]
    told += [
        _event(name, uid, "RemovingNode", f"Node {name} event: Removing Node {name} from Controller")
        for name, uid in view.known.items()
        if name not in present
    ]
    return [*told, Remember(WHOLE, present)]


def _event(name: str, uid: str, reason: str, message: str) -> Tell:
    """An event about a node, which may be gone."""
    about = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}
    return Tell(about, "Normal", reason, message)


def _make_unknown(node: Object, now: float) -> list[Action]:
    """What a node that is silent last said of itself is not known to be true any more."""
    told: Objects = []
    for kind in _WATCHED_CONDITIONS:
        known = condition(node, kind)
        if known is None:
            reason, message = "NodeStatusNeverUpdated", "Kubelet never posted node status."
            heartbeat = node["metadata"]["creationTimestamp"]
        elif known["status"] != "Unknown":
            reason, message = "NodeStatusUnknown", "Kubelet stopped posting node status."
            heartbeat = known.get("lastHeartbeatTime")
        else:
            continue
        changed = {"type": kind, "status": "Unknown", "reason": reason, "message": message}
        told.append({**changed, "lastHeartbeatTime": heartbeat, "lastTransitionTime": rfc3339(now)})
    if not told:
        return []
    name, uid = node["metadata"]["name"], node["metadata"]["uid"]
    event = _event(name, uid, "NodeNotReady", f"Node {name} status is now: NodeNotReady")
    tell: list[Action] = [event] if condition_is(node, "Ready") else []
    body = {"status": {"conditions": told}}
    return [Patch(NODES, node, body=body, kind="strategic", subresource="status", ignore=GONE, then=lambda _: tell)]


def zones_of(nodes: Objects, options: ControllerManagerOptions) -> list[Zone]:
    """The nodes by zone, with the rate that the health of the zone, and of all of them, allows."""
    grouped: dict[tuple[str, str], Objects] = {}
    for node in nodes:
        labels = node["metadata"].get("labels") or {}
        grouped.setdefault((labels.get(REGION, ""), labels.get(ZONE, "")), []).append(node)
    if not any(condition_is(node, "Ready") for node in nodes):
        return [Zone(members, 0.0) for members in grouped.values()]
    return [Zone(members, _rate(members, options)) for members in grouped.values()]


def _rate(members: Objects, options: ControllerManagerOptions) -> float:
    unhealthy = sum(not condition_is(node, "Ready") for node in members)
    partly = _UNHEALTHY_MIN <= unhealthy < len(members) and unhealthy / len(members) >= options.unhealthy_zone_threshold
    if not partly:
        return options.node_eviction_rate
    return options.secondary_node_eviction_rate if len(members) > options.large_cluster_size_threshold else 0.0


def _taint_zones(view: WholeView) -> list[Action]:
    nodes = [node for node, _ in view.nodes]
    if all(map(_is_settled, nodes)):
        return []
    actions: list[Action] = []
    nothing_healthy = bool(nodes) and not any(condition_is(node, "Ready") for node in nodes)
    for zone in zones_of(nodes, view.options):
        budget = _budget(zone, view.now)
        for node in zone.nodes:
            wanted = None if nothing_healthy else _no_execute(node)
            present = _own_no_execute(node)
            if present == ({wanted} if wanted else set()):
                continue
            if wanted and not present:
                if budget <= 0:
                    continue
                budget -= 1
            actions.append(_with_no_execute(node, wanted, view.now))
    return actions


def _is_settled(node: Object) -> bool:
    """Whether it is ready and has no taint of ours: nothing is to be done about it."""
    return condition_is(node, "Ready") and not (node["spec"].get("taints") and _own_no_execute(node))


def _no_execute(node: Object) -> str | None:
    ready = _ready(node)
    if ready is None or ready["status"] == "True":
        return None
    return NOT_READY if ready["status"] == "False" else UNREACHABLE


def _own_no_execute(node: Object) -> set[str]:
    taints = node["spec"].get("taints") or ()
    return {taint["key"] for taint in taints if taint["effect"] == "NoExecute"} & _OWN_NO_EXECUTE


def _budget(zone: Zone, now: float) -> int:
    """How many nodes may be tainted now: one, and then one for each 1/rate seconds since the last."""
    if zone.rate <= 0:
        return 0
    last = max((at for node in zone.nodes for at in _tainted_at(node)), default=None)
    if last is None:
        return 1
    return min(1, int((now - last) * zone.rate)) if zone.rate < 1 else int((now - last) * zone.rate)


def _tainted_at(node: Object) -> list[float]:
    return [
        seconds(taint["timeAdded"])
        for taint in node["spec"].get("taints") or ()
        if taint["effect"] == "NoExecute" and taint["key"] in _OWN_NO_EXECUTE and taint.get("timeAdded")
    ]


def _with_no_execute(node: Object, key: str | None, now: float) -> Patch:
    kept = [
        taint
        for taint in node["spec"].get("taints") or ()
        if taint["effect"] != "NoExecute" or taint["key"] not in _OWN_NO_EXECUTE
    ]
    if key:
        kept.append({"key": key, "effect": "NoExecute", "timeAdded": rfc3339(now)})
    return _guarded(node, {"spec": {"taints": kept or None}})


# ---------------------------------------------------------------- wiring


def _node_matters(old: Object, new: Object) -> bool:
    return _node_facts(old) != _node_facts(new)


def _node_facts(node: Object) -> tuple[Any, ...]:
    spec, conditions = node["spec"], (node.get("status") or {}).get("conditions") or ()
    statuses = [(known["type"], known["status"]) for known in conditions]
    return spec.get("taints"), spec.get("unschedulable"), node["metadata"].get("labels"), statuses


def _heartbeat(node: Object) -> object:
    return (_ready(node) or {}).get("lastHeartbeatTime")


def _renewal(lease: Object) -> object:
    return (lease.get("spec") or {}).get("renewTime")


CONTROLLER = Controller(
    name="node-lifecycle-controller",
    component="node-controller",
    watches=(
        Watch(NODES, changed=_node_matters, sign_of_life=_heartbeat),
        Watch(LEASES, nothing, sign_of_life=_renewal),
        Watch(PODS, nothing, ("node",)),
    ),
    view=view,
    reconcile=reconcile,
    keys=(WHOLE,),
    parallel=100,
)

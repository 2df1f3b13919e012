"""A kubelet's admission: whether a Pod that is bound to a node may run there.

Two schedulers, or one whose view is behind, can place more on a node than it has, and whoever sets spec.nodeName can
place anything. The kubelet fails what does not go with its node, so that what runs is never more than there is.
A critical Pod that lacks nothing but resources gets them from Pods that matter less.
Pure functions over dicts, and what the Pods of a node take. Source: the admission handler of a 1.36 kubelet and its
preemption.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from fastkube.api import resources
from fastkube.api.placement import node_matches, untolerated
from fastkube.api.resources import CPU, MEMORY, HostPort, ports_conflict

Object = dict[str, Any]

OVER = ("Succeeded", "Failed")
UNEXPECTED = "UnexpectedAdmissionError"
CRITICAL_PRIORITY = 2_000_000_000
MIRROR = "kubernetes.io/config.mirror"
"""Annotation of a Pod that only shows what a kubelet runs from a file."""
PREEMPTING = "Preempting"
PREEMPTED = "Preempted in order to admit critical pod"
OS = "linux"
_COUNTED = (resources.PODS, CPU, MEMORY, resources.EPHEMERAL_STORAGE)


# ---------------------------------------------------------------- what Pods take


class Demand:
    """What Pods of one shape take of a node; equal ones are one object."""

    __slots__ = ("__weakref__", "ports", "priority", "qos", "requests")

    def __init__(self, requests: dict[str, int], ports: tuple[HostPort, ...], priority: int, qos: str) -> None:
        self.requests = requests
        self.ports = ports
        self.priority = priority
        self.qos = qos

    @property
    def critical(self) -> bool:
        return self.priority >= CRITICAL_PRIORITY

    def request(self, resource: str) -> int:
        return 1 if resource == resources.PODS else self.requests.get(resource, 0)

    def may_preempt(self, other: Demand) -> bool:
        return (self.critical and not other.critical) or self.priority > other.priority


class Demands:
    """Makes Demands, one for all Pods that ask for the same."""

    def __init__(self) -> None:
        self._known: weakref.WeakValueDictionary[bytes, Demand] = weakref.WeakValueDictionary()

    def of(self, pod: Object) -> Demand:
        spec, status = pod["spec"], pod.get("status") or {}
        if status.get("extendedResourceClaimStatus"):
            spec = _without_devices(spec, status["extendedResourceClaimStatus"])
        containers = [
            [(each.get("resources"), each.get("ports"), each.get("restartPolicy")) for each in spec.get(kind) or ()]
            for kind in ("initContainers", "containers")
        ]
        priority, qos = spec.get("priority") or 0, status.get("qosClass") or ""
        key = orjson.dumps([*containers, spec.get("resources"), spec.get("overhead"), priority, qos])
        found = self._known.get(key)
        if found is None:
            ports = tuple(resources.host_ports(spec))
            found = self._known[key] = Demand(resources.requests_of(spec, {}), ports, priority, qos)
        return found


def _without_devices(spec: Object, claimed: Object) -> Object:
    """Without the extended resources that a ResourceClaim stands for: they are no amounts of the node."""
    devices = {(each.get("containerName"), each.get("resourceName")) for each in claimed.get("requestMappings") or ()}

    def stripped(container: Object) -> Object:
        told = container.get("resources") or {}
        requests = told.get("requests") or {}
        own = {name: text for name, text in requests.items() if (container["name"], name) not in devices}
        return {**container, "resources": {**told, "requests": own}}

    kinds = ("initContainers", "containers")
    return {**spec, **{kind: [stripped(each) for each in spec.get(kind) or ()] for kind in kinds}}


class Load:
    """What the Pods that a node has admitted take of it in all."""

    __slots__ = ("ports", "requests")

    def __init__(self) -> None:
        self.requests: dict[str, int] = {resources.PODS: 0}
        self.ports: list[HostPort] = []

    def take(self, demand: Demand) -> None:
        self.requests[resources.PODS] += 1
        for name, value in demand.requests.items():
            self.requests[name] = self.requests.get(name, 0) + value
        self.ports += demand.ports

    def give_back(self, demand: Demand) -> None:
        self.requests[resources.PODS] -= 1
        for name, value in demand.requests.items():
            self.requests[name] -= value
        for port in demand.ports:
            self.ports.remove(port)

    @property
    def empty(self) -> bool:
        return not self.requests[resources.PODS]


# ---------------------------------------------------------------- what a kubelet asks


class Shortage(NamedTuple):
    resource: str
    amount: int
    """So much more would have to be free."""


class Refusal(NamedTuple):
    reason: str
    message: str
    short: Shortage | None = None


def admission_facts(node: Object) -> Object:
    """The parts of a Node that `refusals` looks at; shared with the Node, so next to nothing where that is kept too."""
    metadata, status = node["metadata"], node.get("status") or {}
    return {
        "metadata": {"name": metadata["name"], "labels": metadata.get("labels")},
        "spec": {"taints": (node.get("spec") or {}).get("taints")},
        "status": {"allocatable": status.get("allocatable"), "features": status.get("features")},
    }


def refusals(pod: Object, demand: Demand, node: Object, load: Load) -> list[Refusal]:
    """Why the Pod cannot run on the node, in the kubelet's order; the first is the reason that is told.

    A node that says nothing of what it has (one that somebody made by hand) is taken to have enough.
    """
    spec = pod["spec"]
    if (pod["metadata"].get("labels") or {}).get("kubernetes.io/os", OS) != OS:
        told = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"
        return [Refusal("PodOSSelectorNodeLabelDoesNotMatch", told)]
    if "os" in spec and (spec["os"] or {}).get("name", OS) != OS:
        return [Refusal("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")]
    groups = (spec.get("securityContext") or {}).get("supplementalGroupsPolicy")
    if groups == "Strict" and not (node["status"].get("features") or {}).get("supplementalGroupsPolicy"):
        told = "SupplementalGroupsPolicy=Strict is not supported in this node"
        return [Refusal("SupplementalGroupsPolicyNotSupported", told)]
    found: list[Refusal] = []
    if node["status"].get("allocatable"):
        found += _shortages(demand, _amounts(tuple(node["status"]["allocatable"].items())), load.requests)
    if (spec.get("nodeSelector") or spec.get("affinity")) and not node_matches(node, spec):
        found.append(_failed("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"))
    if demand.ports and any(ports_conflict(ours, theirs) for ours in demand.ports for theirs in load.ports):
        found.append(_failed("NodePorts", "node(s) didn't have free ports for the requested pod ports"))
    taints = (node.get("spec") or {}).get("taints")
    if taints and untolerated(taints, spec.get("tolerations") or (), ("NoExecute",)):
        found.append(_failed("TaintToleration", "node(s) had taints that the pod didn't tolerate"))
    return found


@lru_cache(1024)
def _amounts(allocatable: tuple[tuple[str, str], ...]) -> dict[str, int]:
    return resources.parse_list(dict(allocatable))


def _shortages(demand: Demand, room: dict[str, int], used: dict[str, int]) -> Iterable[Refusal]:
    if used[resources.PODS] + 1 > room.get(resources.PODS, 0):
        yield _short(resources.PODS, 1, used, room)
    requests = demand.requests
    for name in sorted(requests, key=_place):
        value = requests[name]
        if name not in room and resources.is_extended(name):
            continue  # a resource of the cluster, which nodes know nothing of
        if value > 0 and value > room.get(name, 0) - used.get(name, 0):
            yield _short(name, value, used, room)


def _place(resource: str) -> tuple[int, str]:
    return (_COUNTED.index(resource) if resource in _COUNTED else len(_COUNTED)), resource


def _short(resource: str, wanted: int, used: dict[str, int], room: dict[str, int]) -> Refusal:
    taken, capacity = used.get(resource, 0), room.get(resource, 0)
    message = f"Node didn't have enough resource: {resource}, requested: {wanted}, used: {taken}, capacity: {capacity}"
    return Refusal(f"OutOf{resource}", message, Shortage(resource, wanted - (capacity - taken)))


def _failed(predicate: str, why: str) -> Refusal:
    return Refusal(predicate, f"Predicate {predicate} failed: {why}")


# ---------------------------------------------------------------- making room for a critical Pod


class NoRoomError(ValueError):
    """All Pods that could go would not be enough."""


Candidate = tuple[str, Demand]
"""A Pod's uid and what would become free."""


def victims(demand: Demand, pods: Iterable[Candidate], shortages: Iterable[Shortage]) -> list[str]:
    """The uids of the Pods that have to go: as few guaranteed ones as will do, then burstable ones, then the others.

    Raises NoRoomError.
    """
    by_qos: dict[str, list[Candidate]] = {"BestEffort": [], "Burstable": [], "Guaranteed": []}
    for uid, each in pods:
        if demand.may_preempt(each) and each.qos in by_qos:
            by_qos[each.qos].append((uid, each))
    best_effort, burstable, guaranteed = by_qos.values()
    wanted = list(shortages)
    if left := _less(wanted, (*best_effort, *burstable, *guaranteed)):
        raise _no_room(left)
    guaranteed = _nearest(guaranteed, _less(wanted, (*best_effort, *burstable)))
    burstable = _nearest(burstable, _less(wanted, (*best_effort, *guaranteed)))
    best_effort = _nearest(best_effort, _less(wanted, (*burstable, *guaranteed)))
    return [uid for uid, _ in (*best_effort, *burstable, *guaranteed)]


def _no_room(left: list[Shortage]) -> NoRoomError:
    told = "".join(f"(res: {each.resource}, q: {each.amount}), " for each in left)
    return NoRoomError(f"no set of running pods found to reclaim resources: [{told}]")


def _less(wanted: list[Shortage], pods: Iterable[Candidate]) -> list[Shortage]:
    """What is still wanted when these Pods are gone."""
    pods = list(pods)
    rest = [each._replace(amount=each.amount - sum(d.request(each.resource) for _, d in pods)) for each in wanted]
    return [each for each in rest if each.amount > 0]


def _nearest(pods: list[Candidate], wanted: list[Shortage]) -> list[Candidate]:
    """Again and again the Pod that leaves the least to be wanted; of equal ones the smaller."""
    left, chosen = list(pods), []
    while wanted:
        if not left:
            raise _no_room(wanted)
        best = min(range(len(left)), key=lambda place: _rank(left[place][1], wanted))
        chosen.append(left[best])
        wanted = _less(wanted, (left[best],))
        left[best] = left[-1]
        left.pop()
    return chosen


def _rank(demand: Demand, wanted: list[Shortage]) -> tuple[float, int, int]:
    missing = (max(each.amount - demand.request(each.resource), 0) / each.amount for each in wanted)
    return sum(part**2 for part in missing), demand.request(MEMORY), demand.request(CPU)

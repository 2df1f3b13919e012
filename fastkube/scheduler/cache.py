"""The scheduler's view of the cluster: nodes, the Pods on them, and Pods that it has placed but not yet seen bound.

The invariant of this module: the columns of `nodes` and all tallies hold exactly the Pods in the `pods` of the
NodeInfos that have a slot. Each method leaves it true. Nothing here waits or fails half-way.

An assumed Pod counts like an assigned one from the moment it is placed, so that the next decision sees it; it is
confirmed by the watch or given back by `forget`.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastkube import _columns, _sched
from fastkube.api import resources
from fastkube.scheduler.nodes import NodeIndex, NodeInfo
from fastkube.scheduler.podgroups import PodGroups
from fastkube.scheduler.pods import PodInfo, PodParser, PodSpec
from fastkube.scheduler.tallies import Tallies

Object = dict[str, Any]

_COLUMNS = {
    resources.PODS: _sched.PODS,
    resources.CPU: _sched.CPU,
    resources.MEMORY: _sched.MEMORY,
    resources.EPHEMERAL_STORAGE: _sched.EPHEMERAL_STORAGE,
}


class NodeChange:
    """What differs between two states of a node, for those who wait for something of the kind."""

    __slots__ = ("added", "allocatable", "annotations", "conditions", "features", "labels", "taints")

    def __init__(self, old: Object | None, new: Object) -> None:
        self.added = old is None
        before, after = old or {}, new
        self.labels = _at(before, "metadata", "labels") != _at(after, "metadata", "labels")
        self.annotations = _at(before, "metadata", "annotations") != _at(after, "metadata", "annotations")
        self.taints = _at(before, "spec", "taints") != _at(after, "spec", "taints") or bool(
            _at(before, "spec", "unschedulable")
        ) != bool(_at(after, "spec", "unschedulable"))
        self.allocatable = _at(before, "status", "allocatable") != _at(after, "status", "allocatable")
        self.features = _at(before, "status", "declaredFeatures") != _at(after, "status", "declaredFeatures")
        self.conditions = _statuses(before) != _statuses(after)


def _at(obj: Object, part: str, field: str) -> Any:
    return (obj.get(part) or {}).get(field) or None


def _statuses(node: Object) -> dict[str, str]:
    """Without the times of heartbeats."""
    return {each.get("type", ""): each.get("status", "") for each in _at(node, "status", "conditions") or ()}


class Cache:
    """Nodes and assigned Pods. `static_generation` rises when nodes come, go, or change labels or taints."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes = _sched.Nodes(seed)
        self.index = NodeIndex()
        self.tallies = Tallies(self.nodes)
        self.infos: dict[str, NodeInfo] = {}
        self.slots: list[NodeInfo | None] = [None] * self.nodes.capacity
        self.columns = dict(_COLUMNS)
        self.pods: dict[str, PodInfo] = {}
        self.assumed: dict[str, PodInfo] = {}
        self.nominated: dict[str, tuple[PodInfo, str]] = {}
        self.groups = PodGroups()
        self.priorities: Counter[int] = Counter()
        self._claim_users: dict[tuple[str, str], dict[str, PodInfo]] = {}
        self.static_generation = 1
        self.image_generation = 1
        self.parse = PodParser().parse
        self._free = list(range(self.nodes.capacity - 1, -1, -1))
        self._order_stale = True
        self._everywhere: array[int] = array("B")
        self._everywhere_generation = 0

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def set_node(self, node: Object) -> NodeChange:
        """A node as the server has it now."""
        name = node["metadata"]["name"]
        info = self.infos.get(name)
        if info is None:
            info = self.infos[name] = NodeInfo(name)
        if info.slot < 0:
            info.take(node)
            self._place(info)
            return NodeChange(None, node)
        change = NodeChange(info.node, node)
        if change.labels or change.taints or change.features:
            self._displace(info)
            info.take(node)
            self._place(info)
        else:
            self._refresh(info, node, change)
        return change

    def _refresh(self, info: NodeInfo, node: Object, change: NodeChange) -> None:
        """The same labels, taints and declared features: only resources, images and the object itself can differ."""
        images = _at(info.node, "status", "images") != _at(node, "status", "images")
        if images:
            self.index.remove_images(info)
        info.take(node)
        if images:
            self.index.add_images(info)
            self.image_generation += 1
        if change.allocatable:
            self._set_allocatable(info)

    def remove_node(self, name: str) -> None:
        """The node is gone. Pods bound to it are remembered, but count nowhere."""
        info = self.infos.get(name)
        if info is None or info.slot < 0:
            return
        self._displace(info)
        info.forget()
        self._drop_if_empty(info)

    def _place(self, info: NodeInfo) -> None:
        """Give a node a slot and count its Pods."""
        if not self._free:
            self._grow()
        info.slot = self._free.pop()
        self.slots[info.slot] = info
        self._set_allocatable(info)
        self.index.add(info)
        self.tallies.node_added(info)
        for pod in info.pods.values():
            self._attach(pod, info)
        self._tell_nominated(info)
        self._changed()

    def _displace(self, info: NodeInfo) -> None:
        """Take a node's slot away; its Pods stay in `info.pods`, uncounted."""
        for pod in info.pods.values():
            self._detach(pod, info)
        self.tallies.node_removed(info)
        self.index.remove(info)
        self.nodes.nominate(info.slot, [])
        self.nodes.set_allocatable(info.slot, {})
        self.slots[info.slot] = None
        self._free.append(info.slot)
        info.slot = -1
        self._changed()

    def _changed(self) -> None:
        self.static_generation += 1
        self.image_generation += 1  # an image's score depends on how many nodes there are
        self._order_stale = True

    def _grow(self) -> None:
        old = self.nodes.capacity
        self.nodes.grow(old * 2, self.nodes.width)
        self.slots += [None] * old
        self._free = list(range(2 * old - 1, old - 1, -1))

    def everywhere(self) -> array[int]:
        """A byte for each slot, 1 where there is a node; the caller's own."""
        if self._everywhere_generation != self.static_generation:
            self._everywhere_generation = self.static_generation
            self._everywhere = _columns.expand(self.index.all, self.nodes.capacity)
        return self._everywhere[:]

    def column(self, resource: str) -> int:
        """The column of a resource, a new one for a resource that nobody had or asked for yet."""
        found = self.columns.get(resource)
        if found is None:
            found = self.columns[resource] = self.nodes.width
            self.nodes.grow(self.nodes.capacity, self.nodes.width + 1)
            self.static_generation += 1
        return found

    def _set_allocatable(self, info: NodeInfo) -> None:
        amounts = {self.column(name): value for name, value in info.allocatable.items()}
        self.nodes.set_allocatable(info.slot, amounts)

    def order(self) -> None:
        """See to it that the columns are searched zone by turns, as upstream does, so that a search stopped early
        has seen all zones."""
        if not self._order_stale:
            return
        self._order_stale = False
        zones: dict[str, list[int]] = {}
        for info in self.infos.values():
            if info.slot >= 0:
                zones.setdefault(info.zone, []).append(info.slot)
        longest = max(map(len, zones.values()), default=0)
        self.nodes.set_order([slots[turn] for turn in range(longest) for slots in zones.values() if turn < len(slots)])

    # -- Pods ----------------------------------------------------------------------------------------------------------

    def set_pod(self, pod: PodInfo) -> None:
        """An assigned Pod as the server has it now; confirms it when it was assumed."""
        assumed = self.assumed.pop(pod.uid, None)
        known = self.pods.get(pod.uid)
        if assumed is not None:
            self.denominate(pod.uid)
        if known is None:
            self._add(pod)
        elif known.node == pod.node and known.spec is pod.spec:
            info = self.infos[pod.node]
            self.pods[pod.uid] = info.pods[pod.uid] = pod
            if known.labels is not pod.labels and info.slot >= 0:
                self._detach(known, info)
                self._attach(pod, info)
        else:
            self._remove(known)
            self._add(pod)

    def remove_pod(self, uid: str) -> PodInfo | None:
        """A Pod that was assigned is gone, or has ended."""
        self.assumed.pop(uid, None)
        self.denominate(uid)
        known = self.pods.get(uid)
        if known is not None:
            self._remove(known)
        return known

    def assume(self, pod: PodInfo, node: str) -> None:
        """Count a Pod on a node before it is bound."""
        pod.node = node
        self.denominate(pod.uid)
        self._add(pod)
        self.assumed[pod.uid] = pod

    def forget(self, pod: PodInfo) -> bool:
        """Give back what an assumed Pod took; False when it was confirmed or removed meanwhile."""
        if self.assumed.get(pod.uid) is not pod:
            return False
        del self.assumed[pod.uid]
        self._remove(pod)
        pod.node = ""
        return True

    def _add(self, pod: PodInfo) -> None:
        info = self.infos.get(pod.node)
        if info is None:
            info = self.infos[pod.node] = NodeInfo(pod.node)
        self.pods[pod.uid] = pod
        info.pods[pod.uid] = pod
        self.groups.placed(pod)
        self.priorities[pod.spec.priority] += 1
        for claim in _claims(pod):
            self._claim_users.setdefault((pod.namespace, claim), {})[pod.uid] = pod
        if info.slot >= 0:
            self._attach(pod, info)

    def _remove(self, pod: PodInfo) -> None:
        info = self.infos[pod.node]
        del self.pods[pod.uid]
        del info.pods[pod.uid]
        self.groups.displaced(pod)
        self.priorities[pod.spec.priority] -= 1
        if not self.priorities[pod.spec.priority]:
            del self.priorities[pod.spec.priority]
        for claim in _claims(pod):
            users = self._claim_users[pod.namespace, claim]
            users.pop(pod.uid, None)
            if not users:
                del self._claim_users[pod.namespace, claim]
        if info.slot >= 0:
            self._detach(pod, info)
        else:
            self._drop_if_empty(info)

    def claim_users(self, namespace: str, claim: str) -> list[PodInfo]:
        """The Pods with a node whose volumes name a claim."""
        users = self._claim_users.get((namespace, claim), {})
        # in a trial Pods are taken off their node only
        return [pod for pod in users.values() if pod.uid in self.infos[pod.node].pods]

    def _drop_if_empty(self, info: NodeInfo) -> None:
        if not info.pods and not info.nominated and info.slot < 0:
            del self.infos[info.name]

    def prepare(self, spec: PodSpec) -> None:
        """Give a spec its request in columns and its tallies."""
        amounts = {self.column(name): value for name, value in spec.requests.items() if name != resources.PODS}
        amounts[_sched.NONZERO_CPU], amounts[_sched.NONZERO_MEMORY] = spec.nonzero
        spec.request = _sched.Request(amounts)
        spec.carried = self.tallies.bundle(spec)

    def _attach(self, pod: PodInfo, info: NodeInfo) -> None:
        spec, labels = pod.spec, pod.labels
        if spec.request is None:
            self.prepare(spec)
        if not labels.slots:
            self.tallies.activate(labels)
        labels.slots[info.slot] = labels.slots.get(info.slot, 0) + 1
        self.nodes.assign(info.slot, spec.request, labels.tallies, spec.carried, 1)

    def _detach(self, pod: PodInfo, info: NodeInfo) -> None:
        spec, labels = pod.spec, pod.labels
        self.nodes.assign(info.slot, spec.request, labels.tallies, spec.carried, -1)
        labels.slots[info.slot] -= 1
        if not labels.slots[info.slot]:
            del labels.slots[info.slot]
            if not labels.slots:
                self.tallies.deactivate(labels)

    # -- trials --------------------------------------------------------------------------------------------------------

    @contextmanager
    def trial(self, info: NodeInfo) -> Iterator[Trial]:
        """Try what would be with Pods added to a node or taken away; everything is as before at the end."""
        version = self.nodes.versions[info.slot]
        trial = Trial(self, info)
        try:
            yield trial
        finally:
            trial.undo()
            self.nodes.restore_version(info.slot, version)

    # -- nominated Pods ------------------------------------------------------------------------------------------------

    def nominate(self, pod: PodInfo, node: str) -> None:
        """Keep room on a node for a Pod that waits for others to leave it."""
        self.denominate(pod.uid)
        info = self.infos.get(node)
        if info is None or info.slot < 0:
            return
        if pod.spec.request is None:
            self.prepare(pod.spec)
        self.nominated[pod.uid] = (pod, node)
        info.nominated[pod.uid] = pod
        self._tell_nominated(info)

    def denominate(self, uid: str) -> str:
        """Give the room up; says on which node it was."""
        if not self.nominated:
            return ""
        _, node = self.nominated.pop(uid, (None, ""))
        info = self.infos.get(node)
        if info is not None and info.nominated.pop(uid, None) is not None:
            if info.slot >= 0:
                self._tell_nominated(info)
            else:
                self._drop_if_empty(info)
        return node

    def _tell_nominated(self, info: NodeInfo) -> None:
        parts = [(pod.spec.priority, pod.spec.request) for pod in info.nominated.values()]
        self.nodes.nominate(info.slot, parts)


def _claims(pod: PodInfo) -> list[str]:
    claims = (volume.get("persistentVolumeClaim") for volume in pod.volumes)
    return [claim.get("claimName", "") for claim in claims if claim]


class Trial:
    """Changes to one node that are taken back."""

    def __init__(self, cache: Cache, info: NodeInfo) -> None:
        self._cache = cache
        self._info = info
        self._cleared = False
        self._done: list[tuple[PodInfo, bool]] = []

    def add(self, pod: PodInfo) -> None:
        self._info.pods[pod.uid] = pod
        self._cache._attach(pod, self._info)
        self._done.append((pod, True))

    def remove(self, pod: PodInfo) -> None:
        del self._info.pods[pod.uid]
        self._cache._detach(pod, self._info)
        self._done.append((pod, False))

    def clear_nominated(self) -> None:
        """Do not keep room for nominated Pods."""
        self._cache.nodes.nominate(self._info.slot, [])
        self._cleared = True

    def undo(self) -> None:
        if self._cleared:
            self._cache._tell_nominated(self._info)
            self._cleared = False
        for pod, added in reversed(self._done):
            if added:
                del self._info.pods[pod.uid]
                self._cache._detach(pod, self._info)
            else:
                self._info.pods[pod.uid] = pod
                self._cache._attach(pod, self._info)
        self._done.clear()

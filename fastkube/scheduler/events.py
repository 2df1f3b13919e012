"""Cluster events: what happens in the cluster, named so that it is known which waiting Pods it can help."""

from __future__ import annotations

from enum import Flag, auto
from typing import Any, NamedTuple

from fastkube.scheduler.cache import NodeChange
from fastkube.scheduler.pods import PodInfo

ASSIGNED_POD = "AssignedPod"
UNSCHEDULED_POD = "UnscheduledPod"
NODE = "Node"
PERSISTENT_VOLUME = "PersistentVolume"
PERSISTENT_VOLUME_CLAIM = "PersistentVolumeClaim"
STORAGE_CLASS = "StorageClass"
CSI_NODE = "CSINode"
CSI_DRIVER = "CSIDriver"
CSI_STORAGE_CAPACITY = "CSIStorageCapacity"
VOLUME_ATTACHMENT = "VolumeAttachment"
RESOURCE_CLAIM = "ResourceClaim"
RESOURCE_SLICE = "ResourceSlice"
DEVICE_CLASS = "DeviceClass"
POD_GROUP = "PodGroup"
WILDCARD = "*"


class Action(Flag):
    """What happened to an object."""

    ADD = auto()
    DELETE = auto()
    UPDATE_NODE_ALLOCATABLE = auto()
    UPDATE_NODE_LABEL = auto()
    UPDATE_NODE_TAINT = auto()
    UPDATE_NODE_CONDITION = auto()
    UPDATE_NODE_ANNOTATION = auto()
    UPDATE_NODE_DECLARED_FEATURE = auto()
    UPDATE_POD_LABEL = auto()
    UPDATE_POD_SCALE_DOWN = auto()
    UPDATE_POD_TOLERATION = auto()
    UPDATE_POD_GATES_ELIMINATED = auto()
    UPDATE_POD_GENERATED_CLAIM = auto()
    UPDATE_OTHER = auto()
    UPDATE = (
        UPDATE_NODE_ALLOCATABLE
        | UPDATE_NODE_LABEL
        | UPDATE_NODE_TAINT
        | UPDATE_NODE_CONDITION
        | UPDATE_NODE_ANNOTATION
        | UPDATE_NODE_DECLARED_FEATURE
        | UPDATE_POD_LABEL
        | UPDATE_POD_SCALE_DOWN
        | UPDATE_POD_TOLERATION
        | UPDATE_POD_GATES_ELIMINATED
        | UPDATE_POD_GENERATED_CLAIM
        | UPDATE_OTHER
    )
    ALL = ADD | DELETE | UPDATE


_labels: dict[tuple[str, int], str] = {}


class ClusterEvent(NamedTuple):
    """`old` and `new` are PodInfos for Pods and objects for everything else; None where there is none."""

    resource: str
    action: Action
    old: Any = None
    new: Any = None

    @property
    def label(self) -> str:
        """The name in metrics."""
        key = self.resource, self.action.value  # asked for with each event: arithmetic with flags is slow
        found = _labels.get(key)
        if found is None:
            found = _labels[key] = self._label()
        return found

    def _label(self) -> str:
        if self.resource == WILDCARD:
            return "UnschedulableTimeout"
        if self.action & Action.UPDATE:
            return f"{self.resource}Update"
        return f"{self.resource}{'Add' if self.action & Action.ADD else 'Delete'}"


class Interest(NamedTuple):
    """Events that a plugin wants to hear of."""

    resource: str
    actions: Action

    def covers(self, event: ClusterEvent) -> bool:
        return event.resource == self.resource and bool(event.action & self.actions)


def node_actions(change: NodeChange) -> Action:
    """What a node's update was, as actions."""
    if change.added:
        return Action.ADD
    actions = Action(0)
    if change.allocatable:
        actions |= Action.UPDATE_NODE_ALLOCATABLE
    if change.labels:
        actions |= Action.UPDATE_NODE_LABEL
    if change.taints:
        actions |= Action.UPDATE_NODE_TAINT
    if change.conditions:
        actions |= Action.UPDATE_NODE_CONDITION
    if change.annotations:
        actions |= Action.UPDATE_NODE_ANNOTATION
    if change.features:
        actions |= Action.UPDATE_NODE_DECLARED_FEATURE
    return actions


def pod_actions(old: PodInfo, new: PodInfo) -> Action:
    """What a Pod's update was, as far as placing Pods is concerned."""
    actions = Action(0)
    if old.labels.labels != new.labels.labels:
        actions |= Action.UPDATE_POD_LABEL
    if old.spec is not new.spec:
        before, after = old.spec, new.spec
        if any(after.requests.get(name, 0) < value for name, value in before.requests.items()):
            actions |= Action.UPDATE_POD_SCALE_DOWN
        if before.tolerations != after.tolerations:
            actions |= Action.UPDATE_POD_TOLERATION
        if before.required != after.required or before.features != after.features:
            actions |= Action.UPDATE_OTHER
    if old.gates and not new.gates:
        actions |= Action.UPDATE_POD_GATES_ELIMINATED
    if _claim_statuses(old) != _claim_statuses(new):
        actions |= Action.UPDATE_POD_GENERATED_CLAIM
    return actions


def _claim_statuses(pod: PodInfo) -> Any:
    return (pod.pod.get("status") or {}).get("resourceClaimStatuses") or ()

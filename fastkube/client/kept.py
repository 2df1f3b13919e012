"""What components keep of Pods: enough for scheduler and controllers, little enough for 50,000 Pods in one process.

Both keep the same, so that in one process it is kept once. Equal parts of different Pods are one object, since Pods of
one template differ in little.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from fastkube.client.informer import drop_managed_fields

Object = dict[str, Any]

_SHARED_MAX = 65536
_shared: dict[bytes, Any] = {}


def share(part: Any) -> Any:
    """An equal part that was seen before, if there was one. Forgets everything when there are too many."""
    packed = msgpack.packb(part)
    known = _shared.get(packed)
    if known is None:
        if len(_shared) >= _SHARED_MAX:
            _shared.clear()
        known = _shared[packed] = part
    return known


def _picked(obj: Object, keys: tuple[str, ...]) -> Object:
    return {key: obj[key] for key in keys if key in obj}


_METADATA = (
    "name",
    "generateName",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
)
_SPEC = (
    "activeDeadlineSeconds",
    "affinity",
    "hostNetwork",
    "hostname",
    "nodeSelector",
    "overhead",
    "priority",
    "preemptionPolicy",
    "priorityClassName",
    "readinessGates",
    "resourceClaims",
    "schedulingGroup",
    "resources",
    "restartPolicy",
    "schedulerName",
    "schedulingGates",
    "serviceAccountName",
    "subdomain",
    "terminationGracePeriodSeconds",
    "tolerations",
    "topologySpreadConstraints",
)
_CONTAINER = ("name", "image", "ports", "resources", "restartPolicy")
_STATUS = (
    "phase",
    "reason",
    "podIP",
    "podIPs",
    "hostIP",
    "startTime",
    "qosClass",
    "nominatedNodeName",
    "resourceClaimStatuses",
)
_CONTAINER_STATUS = ("name", "ready", "restartCount", "started", "state", "resources", "allocatedResources")
_CONDITION = ("type", "status", "reason", "lastTransitionTime")


def keep_pod(pod: Object, kept: Object | None = None) -> Object:
    """Of a Pod that has a node what is not only the node's business: no commands, environment, mounts, probes, digests.

    Pods without a node stay whole but for managedFields: plugins of the scheduler may look at anything, and what is
    decoded for a watch is shared already.
    """
    node = pod["spec"].get("nodeName")
    if not node:
        return drop_managed_fields(pod)
    metadata = _picked(pod["metadata"], _METADATA)
    known = kept["metadata"] if kept is not None else {}
    for key in ("labels", "ownerReferences", "annotations"):
        if key in metadata:
            metadata[key] = known[key] if metadata[key] == known.get(key) else share(metadata[key])
    if kept is None or not _is_of(metadata, known):
        spec = _placed(_spec(pod["spec"]), node)
    elif kept["spec"].get("nodeName"):
        spec = kept["spec"]
    else:
        spec = _placed(_spec_that_waited(kept["spec"]), node)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": _status(pod)}


def _is_of(metadata: Object, known: Object) -> bool:
    """Whether the spec is the known one: changes count up the generation, all but that of the node."""
    return bool(metadata.get("generation")) and metadata["generation"] == known.get("generation")


def _spec(given: Object) -> Object:
    """Without the node."""
    spec = _picked(given, _SPEC)
    for key in ("containers", "initContainers"):
        if given.get(key):
            spec[key] = [_picked(container, _CONTAINER) for container in given[key]]
    if volumes := [each for each in given.get("volumes") or () if not _KEPT_VOLUMES.isdisjoint(each)]:
        spec["volumes"] = volumes
    shared: Object = share(spec)
    return shared


class _ByIdentity:
    """What is made of parts which many objects share: made once. A part is held as long as its id stands for it."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make
        self._made: dict[int, tuple[Any, Any]] = {}

    def __call__(self, part: Any) -> Any:
        found = self._made.get(id(part))
        if found is None:
            if len(self._made) >= _PARTS_MAX:
                self._made.clear()
            found = self._made[id(part)] = part, self._make(part)
        return found[1]


_PARTS_MAX = 1024
_spec_that_waited = _ByIdentity(_spec)

_at_nodes: dict[tuple[int, str], tuple[Object, Object]] = {}


def _placed(spec: Object, node: str) -> Object:
    """The spec with a node: one object for all Pods which share a spec and a node."""
    found = _at_nodes.get((id(spec), node))
    if found is None:
        if len(_at_nodes) >= _SHARED_MAX:
            _at_nodes.clear()
        found = _at_nodes[id(spec), node] = (
            spec,
            {**spec, "nodeName": node},
        )  # the first lives as long as its id is used
    return found[1]


_KEPT_VOLUMES = frozenset(
    (
        "persistentVolumeClaim",
        "ephemeral",
        "csi",
        "image",
        "gcePersistentDisk",
        "awsElasticBlockStore",
        "rbd",
        "iscsi",
    )
)
"""Sources of volumes that are claims, or of which a node takes only so many, or which it has or has not."""


def _status(pod: Object) -> Object:
    given = pod.get("status") or {}
    status = _picked(given, _STATUS)
    if given.get("conditions"):
        status["conditions"] = _conditions_of(given["conditions"])
    for key in ("initContainerStatuses", "containerStatuses"):
        if given.get(key):
            status[key] = list(map(_container_status, given[key]))
    return status


_conditions: dict[tuple[Any, ...], Object] = {}


def _condition(given: Object) -> Object:
    """What is kept of a condition; one object for equal ones."""
    key = (given["type"], given.get("status"), given.get("reason"), given.get("lastTransitionTime"))
    found = _conditions.get(key)
    if found is None:
        if len(_conditions) >= _SHARED_MAX:
            _conditions.clear()
        found = _conditions[key] = _picked(given, _CONDITION)
    return found


_conditions_of = _ByIdentity(lambda given: list(map(_condition, given)))

_running: dict[tuple[Any, ...], Object] = {}


def _container_status(found: Object) -> Object:
    """What is kept of a container's status; one object for equal ones."""
    running = (found.get("state") or {}).get("running")
    if running is None or not found.keys().isdisjoint(("resources", "allocatedResources")):
        shared: Object = share(_slim_status(found))
        return shared
    key = (found["name"], found.get("ready"), found.get("restartCount"), found.get("started"), running.get("startedAt"))
    known = _running.get(key)
    if known is None:
        if len(_running) >= _SHARED_MAX:
            _running.clear()
        known = _running[key] = _slim_status(found)
    return known


def _slim_status(found: Object) -> Object:
    status = _picked(found, _CONTAINER_STATUS)
    if "state" in status:
        # what differs for each container nobody here asks for
        status["state"] = {
            name: {key: value for key, value in state.items() if key not in ("containerID", "message")}
            for name, state in (status["state"] or {}).items()
        }
    return status

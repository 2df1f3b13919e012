"""What controllers keep of each object: enough for their views, little enough for 50,000 Pods in one process.

Whole objects (but for managedFields) are kept of everything that controllers write back with PUT. Of Pods and Nodes,
which they only patch, the parts below are kept; equal parts of different Pods are one object, since Pods of one
template differ in little. ConfigMaps and Secrets lose their data, except for the few that controllers read.
"""

from __future__ import annotations

from typing import Any

import msgpack

from fastkube.client import drop_managed_fields
from fastkube.client.feed import Transform

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


_POD_METADATA = (
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
_POD_SPEC = (
    "activeDeadlineSeconds",
    "affinity",
    "hostNetwork",
    "hostname",
    "nodeSelector",
    "overhead",
    "priority",
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
_POD_STATUS = (
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
_CONTAINER_STATUS = ("name", "ready", "restartCount", "started", "state")
_CONDITION = ("type", "status", "reason", "lastTransitionTime")


def slim_pod(pod: Object, kept: Object | None = None) -> Object:
    """A Pod without what only its node needs: commands, environment, mounts, probes, images' digests."""
    metadata = _picked(pod["metadata"], _POD_METADATA)
    known = kept["metadata"] if kept is not None else {}
    for key in ("labels", "ownerReferences", "annotations"):
        if key in metadata:
            metadata[key] = known[key] if metadata[key] == known.get(key) else share(metadata[key])
    spec = kept["spec"] if kept is not None and _is_of(metadata, known) else _pod_spec(pod.get("spec") or {})
    node = (pod.get("spec") or {}).get("nodeName")
    if node is not None and "nodeName" not in spec:
        spec = _placed(spec, node)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": _pod_status(pod)}


def _is_of(metadata: Object, known: Object) -> bool:
    """Whether the spec is the known one, but for the node: all other changes count up the generation."""
    return bool(metadata.get("generation")) and metadata["generation"] == known.get("generation")


def _pod_spec(given: Object) -> Object:
    """Without the node."""
    spec = _picked(given, _POD_SPEC)
    for key in ("containers", "initContainers"):
        if given.get(key):
            spec[key] = [_picked(container, _CONTAINER) for container in given[key]]
    if volumes := [_volume(volume) for volume in given.get("volumes") or () if _has_claim(volume)]:
        spec["volumes"] = volumes
    shared: Object = share(spec)
    return shared


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


def _has_claim(volume: Object) -> bool:
    return "persistentVolumeClaim" in volume or "ephemeral" in volume


def _volume(volume: Object) -> Object:
    return _picked(volume, ("name", "persistentVolumeClaim", "ephemeral"))


def _pod_status(pod: Object) -> Object:
    given = pod.get("status") or {}
    status = _picked(given, _POD_STATUS)
    if given.get("conditions"):
        status["conditions"] = list(map(_condition, given["conditions"]))
    for key in ("initContainerStatuses", "containerStatuses"):
        if given.get(key):
            status[key] = [share(_container_status(found)) for found in given[key]]
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


def _container_status(found: Object) -> Object:
    status = _picked(found, _CONTAINER_STATUS)
    if "state" in status:
        # what differs for each container nobody here asks for
        status["state"] = {
            name: {key: value for key, value in state.items() if key not in ("containerID", "message")}
            for name, state in (status["state"] or {}).items()
        }
    return status


def slim_node(node: Object, _kept: Object | None = None) -> Object:
    """A Node without its list of images."""
    drop_managed_fields(node)
    status = {key: value for key, value in (node.get("status") or {}).items() if key not in ("images", "nodeInfo")}
    return {**node, "status": status}


def slim_config_map(config_map: Object, _kept: Object | None = None) -> Object:
    """The data of what the root CA publisher and the bootstrap signer write; of others the metadata."""
    drop_managed_fields(config_map)
    if config_map["metadata"]["name"] in ("kube-root-ca.crt", "cluster-info"):
        return config_map
    return {key: value for key, value in config_map.items() if key not in ("data", "binaryData")}


def slim_secret(secret: Object, _kept: Object | None = None) -> Object:
    """The data of bootstrap and service account tokens; of others the metadata."""
    drop_managed_fields(secret)
    if secret.get("type") in ("bootstrap.kubernetes.io/token", "kubernetes.io/service-account-token"):
        return secret
    return {key: value for key, value in secret.items() if key != "data"}


TRANSFORMS: dict[str, Transform] = {
    "v1/pods": slim_pod,
    "v1/nodes": slim_node,
    "v1/configmaps": slim_config_map,
    "v1/secrets": slim_secret,
}

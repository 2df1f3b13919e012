"""What a change of a Pod is about, told once for all controllers: most of them need not look at most changes.

A controller names sets of topics (`Watch.about`); a change of which one of them has no topic is not told to it. A new
Pod, and one that has gone, is a change of everything. Topics are told as of what `client/kept.py` keeps.
"""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

METADATA = 1 << 0
"""Labels, annotations, owners, finalizers, or that it is being deleted."""
SPEC = 1 << 1
"""Anything of the spec, the node included."""
PLACED = 1 << 2
"""It has got a node."""
PHASE = 1 << 3
HEALTH = 1 << 4
"""The conditions Ready and DisruptionTarget."""
ADDRESS = 1 << 5
CHANGES = (1 << 6) - 1
"""Above are changes, below is what the Pod is."""

LABELLED = 1 << 6
ADOPTABLE = 1 << 7
"""No controller owns it, and that is new or its metadata has changed: somebody may adopt it, or has just let it go."""
CLAIMING = 1 << 8
"""It has volumes that are claims, or become some."""
DEVICES = 1 << 9
"""It has claims of devices."""
GROUPED = 1 << 15
"""It belongs to a PodGroup."""
OWNED = {
    "ReplicaSet": 1 << 10,
    "ReplicationController": 1 << 11,
    "StatefulSet": 1 << 12,
    "DaemonSet": 1 << 13,
    "Job": 1 << 14,
}
"""By the kind of the controller, as it was before the change or is after it."""

REPLICA_TOPICS = {
    kind: (OWNED[kind] | ADOPTABLE, METADATA | PHASE | HEALTH) for kind in ("ReplicaSet", "ReplicationController")
}
"""What of its Pods a controller must know which counts them; where they are it does not ask."""


def pod_topics(old: Object | None, new: Object) -> int:
    """What a change from `old` (None: there is nothing to compare with) to `new` is about."""
    if old is None:
        return CHANGES | _nature(new)
    before, after = old["metadata"], new["metadata"]
    topics = 0
    for key in _METADATA:
        if before.get(key) != after.get(key):
            topics = METADATA | _nature(old)
            break
    topics |= _nature(new)
    if not topics & METADATA:
        topics &= ~ADOPTABLE
    if old["spec"] is not new["spec"] and old["spec"] != new["spec"]:
        topics |= SPEC
        if old["spec"].get("nodeName") != new["spec"].get("nodeName"):
            topics |= PLACED
    return topics | _of_status(old.get("status") or {}, new.get("status") or {})


_METADATA = ("labels", "ownerReferences", "deletionTimestamp", "finalizers", "annotations")


def _of_status(old: Object, new: Object) -> int:
    topics = 0
    if old.get("phase") != new.get("phase"):
        topics |= PHASE
    if old.get("podIPs") != new.get("podIPs"):
        topics |= ADDRESS
    before, after = old.get("conditions"), new.get("conditions")
    if before != after and _health(before) != _health(after):
        topics |= HEALTH
    return topics


def _health(conditions: list[Object] | None) -> list[Object]:
    return [each for each in conditions or () if each["type"] in ("Ready", "DisruptionTarget")]


def _nature(pod: Object) -> int:
    metadata, spec = pod["metadata"], pod["spec"]
    topics = LABELLED if metadata.get("labels") else 0
    for volume in spec.get("volumes") or ():
        if "persistentVolumeClaim" in volume or "ephemeral" in volume:
            topics |= CLAIMING
    if spec.get("resourceClaims"):
        topics |= DEVICES
    if spec.get("schedulingGroup"):
        topics |= GROUPED
    for ref in metadata.get("ownerReferences") or ():
        if ref.get("controller"):
            return topics | OWNED.get(ref["kind"], 0)
    return topics | ADOPTABLE


TOPICS = {"v1/pods": pod_topics}

"""VolumeRestrictions: disks that only one Pod may write to, and claims that only one Pod at all may use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fastkube.scheduler.events import ASSIGNED_POD, NODE, PERSISTENT_VOLUME_CLAIM, Action, ClusterEvent, Interest
from fastkube.scheduler.framework import Cycle, Handle, Plugin, Reason, Refusal, Rejected
from fastkube.scheduler.pods import PodInfo
from fastkube.scheduler.volumes import CLAIMS

Object = dict[str, Any]

ONE_POD = "ReadWriteOncePod"
_DISKS = ("gcePersistentDisk", "awsElasticBlockStore", "rbd", "iscsi")


class VolumeRestrictions(Plugin):
    name = "VolumeRestrictions"
    about = "volumes"
    interests = (
        Interest(ASSIGNED_POD, Action.DELETE),
        Interest(NODE, Action.ADD),
        Interest(PERSISTENT_VOLUME_CLAIM, Action.ADD),
    )

    DISK_TAKEN = Reason(name, "node(s) had no available disk")
    CLAIM_TAKEN = Reason(
        name,
        "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another "
        "pod",
    )

    def __init__(self, args: Mapping[str, Any], handle: Handle, weight: int = 1) -> None:
        super().__init__(args, handle, weight)
        self._claims = handle.lister(CLAIMS)

    def pre_filter(self, cycle: Cycle) -> None:
        exclusive = []
        for name in _claims(cycle.pod):
            claim = self._claims.get(cycle.pod.namespace, name)
            if claim is None:
                raise Rejected(f'persistentvolumeclaim "{name}" not found')
            if ONE_POD in (claim["spec"].get("accessModes") or ()):
                exclusive.append(name)
        if exclusive:
            cycle.state[self.name] = exclusive

    def refusals(self, cycle: Cycle) -> Iterable[Refusal]:
        pod, cache = cycle.pod, self.handle.cache
        if not pod.volumes:
            return
        disks = [volume for volume in pod.volumes if any(kind in volume for kind in _DISKS)]
        if disks:
            yield Refusal(self._with_conflict(disks), self.DISK_TAKEN)
        if any(cache.claim_users(pod.namespace, name) for name in cycle.state.get(self.name, ())):
            yield Refusal(cache.index.all, self.CLAIM_TAKEN)

    def _with_conflict(self, disks: list[Object]) -> int:
        mask = 0
        for info in self.handle.cache.infos.values():
            if info.slot >= 0 and any(
                _conflict(ours, theirs) for other in info.pods.values() for theirs in other.volumes for ours in disks
            ):
                mask |= 1 << info.slot
        return mask

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        if event.resource == NODE:
            return True
        if event.resource == PERSISTENT_VOLUME_CLAIM:
            metadata = event.new["metadata"]
            return metadata.get("namespace") == pod.namespace and metadata["name"] in _claims(pod)
        gone: PodInfo = event.old
        if any(_conflict(ours, theirs) for ours in pod.volumes for theirs in gone.volumes):
            return True
        return gone.namespace == pod.namespace and not set(_claims(pod)).isdisjoint(_claims(gone))


def _claims(pod: PodInfo) -> Iterator[str]:
    for volume in pod.volumes:
        if "persistentVolumeClaim" in volume:
            yield volume["persistentVolumeClaim"].get("claimName", "")


def _conflict(one: Object, other: Object) -> bool:
    """Whether two Pods with these volumes cannot share a node."""
    for kind, same in (("gcePersistentDisk", _same_gce), ("rbd", _same_rbd), ("iscsi", _same_iscsi)):
        if kind in one and kind in other and same(one[kind], other[kind]):
            return not (one[kind].get("readOnly") and other[kind].get("readOnly"))
    ebs = "awsElasticBlockStore"
    return ebs in one and ebs in other and one[ebs].get("volumeID") == other[ebs].get("volumeID")


def _same_gce(one: Object, other: Object) -> bool:
    return bool(one.get("pdName") == other.get("pdName"))


def _same_iscsi(one: Object, other: Object) -> bool:
    return bool(one.get("iqn") == other.get("iqn"))


def _same_rbd(one: Object, other: Object) -> bool:
    if set(one.get("monitors") or ()).isdisjoint(other.get("monitors") or ()):
        return False
    return (one.get("pool") or "rbd", one.get("image")) == (other.get("pool") or "rbd", other.get("image"))

"""VolumeZone: a volume with zone or region labels is used only in those zones and regions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastkube.scheduler.events import (
    NODE,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    STORAGE_CLASS,
    Action,
    ClusterEvent,
    Interest,
)
from fastkube.scheduler.framework import Cycle, Handle, Plugin, Reason, Refusal, Rejected
from fastkube.scheduler.nodes import REGION_LABELS, ZONE_LABELS, NodeIndex
from fastkube.scheduler.pods import PodInfo
from fastkube.scheduler.volumes import VolumeStore, class_of

Object = dict[str, Any]

_LABELS = (*ZONE_LABELS, *REGION_LABELS)
_GA = {ZONE_LABELS[1]: ZONE_LABELS[0], REGION_LABELS[1]: REGION_LABELS[0]}


class VolumeZone(Plugin):
    name = "VolumeZone"
    about = "volumes"
    interests = (
        Interest(STORAGE_CLASS, Action.ADD),
        Interest(NODE, Action.ADD | Action.UPDATE_NODE_LABEL),
        Interest(PERSISTENT_VOLUME_CLAIM, Action.ADD | Action.UPDATE),
        Interest(PERSISTENT_VOLUME, Action.ADD | Action.UPDATE),
    )

    ELSEWHERE = Reason(name, "node(s) had no available volume zone", resolvable=False)

    def __init__(self, args: Mapping[str, Any], handle: Handle, weight: int = 1) -> None:
        super().__init__(args, handle, weight)
        self._store = VolumeStore(handle.lister)

    def pre_filter(self, cycle: Cycle) -> None:
        found = [
            pair
            for volume in cycle.pod.volumes
            if "persistentVolumeClaim" in volume
            for pair in self._topologies(cycle.pod, volume["persistentVolumeClaim"].get("claimName", ""))
        ]
        if found:
            cycle.state[self.name] = found

    def _topologies(self, pod: PodInfo, name: str) -> Iterable[tuple[str, frozenset[str]]]:
        """(label, values) that the claim's volume asks for."""
        claim = self._store.claim(pod.namespace, name)
        if claim is None:
            raise Rejected(f'persistentvolumeclaim "{name}" not found')
        volume_name = claim["spec"].get("volumeName")
        if not volume_name:
            self._check_unbound(claim)
            return ()
        volume = self._store.volume(volume_name)
        if volume is None:
            raise Rejected(f'persistentvolume "{volume_name}" not found')
        labels = volume["metadata"].get("labels") or {}
        told = ((key, frozenset(map(str.strip, labels[key].split("__")))) for key in _LABELS if key in labels)
        return [(key, values) for key, values in told if "" not in values]

    def _check_unbound(self, claim: Object) -> None:
        name = class_of(claim)
        if not name:
            raise Rejected("PersistentVolumeClaim had no pv name and storageClass name")
        if self._store.storage_class(name) is None:
            raise Rejected(f'storageclass.storage.k8s.io "{name}" not found')
        if not self._store.waits_for_consumer(claim):
            raise Rejected("PersistentVolume had no name")

    def refusals(self, cycle: Cycle) -> Iterable[Refusal]:
        wanted = cycle.state.get(self.name)
        if not wanted:
            return ()
        index = self.handle.cache.index
        constrained = 0
        for key in _LABELS:
            constrained |= index.having(key)
        refused = 0
        for key, values in wanted:
            refused |= constrained & ~_with_any(index, key, values)
        return (Refusal(refused, self.ELSEWHERE),)

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        if event.resource == PERSISTENT_VOLUME_CLAIM:
            metadata = event.new["metadata"]
            return metadata.get("namespace") == pod.namespace and any(
                (each.get("persistentVolumeClaim") or {}).get("claimName") == metadata["name"] for each in pod.volumes
            )
        if event.resource == STORAGE_CLASS:
            return bool(event.new.get("volumeBindingMode") == "WaitForFirstConsumer")
        if event.resource == PERSISTENT_VOLUME and event.old is not None:
            before, after = (each["metadata"].get("labels") or {} for each in (event.old, event.new))
            return any(before.get(key) != after.get(key) for key in _LABELS)
        return True


def _with_any(index: NodeIndex, key: str, values: frozenset[str]) -> int:
    """Nodes with one of the values; the stable label stands in for the beta one where a node lacks that."""
    mask = 0
    lacking = index.all & ~index.having(key)
    for value in values:
        mask |= index.with_value(key, value)
        if key in _GA:
            mask |= lacking & index.with_value(_GA[key], value)
    return mask

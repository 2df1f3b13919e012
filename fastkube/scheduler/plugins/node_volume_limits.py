"""NodeVolumeLimits: a CSI driver attaches only so many volumes to a node as its CSINode says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from fastkube.scheduler import migration
from fastkube.scheduler.events import (
    ASSIGNED_POD,
    CSI_NODE,
    NODE,
    PERSISTENT_VOLUME_CLAIM,
    VOLUME_ATTACHMENT,
    Action,
    ClusterEvent,
    Interest,
)
from fastkube.scheduler.framework import Cycle, Handle, Plugin, Reason, Refusal, Rejected
from fastkube.scheduler.migration import Migratable
from fastkube.scheduler.nodes import NodeInfo
from fastkube.scheduler.pods import PodInfo
from fastkube.scheduler.volumes import ATTACHMENTS, CSI_NODES, VolumeStore, claim_names, class_of

Object = dict[str, Any]

Attached = frozenset[tuple[str, str]]
"""(driver, what identifies the volume)."""


class Volumes(NamedTuple):
    """Of a Pod or a node: CSI volumes, and in-tree ones that are so where their plugin is migrated."""

    csi: Attached
    migratable: frozenset[Migratable]

    def on(self, migrated: frozenset[str]) -> Attached:
        """What counts on a node with these plugins migrated."""
        if not self.migratable or not migrated:
            return self.csi
        return self.csi | {(each.driver, each.handle) for each in self.migratable if each.plugin in migrated}


class NodeVolumeLimits(Plugin):
    name = "NodeVolumeLimits"
    about = "volumes"
    interests = (
        Interest(CSI_NODE, Action.ADD | Action.UPDATE),
        Interest(ASSIGNED_POD, Action.DELETE),
        Interest(PERSISTENT_VOLUME_CLAIM, Action.ADD),
        Interest(VOLUME_ATTACHMENT, Action.DELETE),
        Interest(NODE, Action.ADD),
    )

    TOO_MANY = Reason(name, "node(s) exceed max volume count")

    def __init__(self, args: Mapping[str, Any], handle: Handle, weight: int = 1) -> None:
        super().__init__(args, handle, weight)
        self._store = VolumeStore(handle.lister)
        self._nodes = handle.lister(CSI_NODES)
        self._attachments = handle.lister(ATTACHMENTS)
        self._attachments.add_indexer("node", _node_of)
        self._known: dict[str, tuple[int, Volumes]] = {}

    def pre_filter(self, cycle: Cycle) -> None:
        if not cycle.pod.volumes:
            return
        for name, ephemeral in claim_names(cycle.pod):
            if not ephemeral and self._store.claim(cycle.pod.namespace, name) is None:
                raise Rejected(f'persistentvolumeclaim "{name}" not found')
        wanted = self._volumes((cycle.pod,))
        if wanted.csi or wanted.migratable:
            cycle.state[self.name] = wanted

    def refusals(self, cycle: Cycle) -> Iterable[Refusal]:
        wanted: Volumes | None = cycle.state.get(self.name)
        if not wanted:
            return ()
        drivers = {driver for driver, _ in wanted.csi} | {each.driver for each in wanted.migratable}
        mask = 0
        for csi_node in self._nodes.list():
            limits = {
                each["name"]: each["allocatable"]["count"]
                for each in (csi_node.get("spec") or {}).get("drivers") or ()
                if each.get("name") in drivers and (each.get("allocatable") or {}).get("count") is not None
            }
            info = self.handle.cache.infos.get(csi_node["metadata"]["name"])
            if limits and info is not None and info.slot >= 0 and self._exceeds(info, wanted, limits, csi_node):
                mask |= 1 << info.slot
        return (Refusal(mask, self.TOO_MANY),)

    def _exceeds(self, info: NodeInfo, wanted: Volumes, limits: dict[str, int], csi_node: Object) -> bool:
        migrated = migration.plugins_migrated(csi_node)
        used = self._used(info).on(migrated)
        attached = used | self._from_attachments(info.name)
        new = wanted.on(migrated) - used  # as upstream: what is attached without a Pod that uses it counts besides
        for driver, limit in limits.items():
            more = sum(each[0] == driver for each in new)
            if more and more + sum(each[0] == driver for each in attached) > limit:
                return True
        return False

    def _used(self, info: NodeInfo) -> Volumes:
        """The volumes of a node's Pods, kept until the node changes."""
        version = self.handle.cache.nodes.versions[info.slot]
        known = self._known.get(info.name)
        if known is None or known[0] != version:
            known = self._known[info.name] = (version, self._volumes(info.pods.values()))
        return known[1]

    def _from_attachments(self, node: str) -> Attached:
        found = set()
        for attachment in self._attachments.by_index("node", node):
            spec = attachment["spec"]
            volume = self._store.volume((spec.get("source") or {}).get("persistentVolumeName") or "")
            csi = volume["spec"].get("csi") if volume else None
            if csi and spec.get("attacher"):
                found.add((spec["attacher"], csi.get("volumeHandle", "")))
        return frozenset(found)

    def _volumes(self, pods: Iterable[PodInfo]) -> Volumes:
        """The volumes of Pods, behind their claims and inline; of a claim that is not bound the one that will be."""
        csi: set[tuple[str, str]] = set()
        migratable: set[Migratable] = set()
        for pod in pods:
            for name, _ in claim_names(pod):
                found = self._behind(pod, name)
                if isinstance(found, Migratable):
                    migratable.add(found)
                elif found is not None:
                    csi.add(found)
            migratable.update(filter(None, map(_inline, pod.volumes)))
        return Volumes(frozenset(csi), frozenset(migratable))

    def _behind(self, pod: PodInfo, name: str) -> tuple[str, str] | Migratable | None:
        """The volume of a claim."""
        claim = self._store.claim(pod.namespace, name)
        if claim is None:
            return None
        volume = self._store.volume(claim["spec"].get("volumeName") or "")
        if volume is not None:
            csi = volume["spec"].get("csi")
            if csi:
                return csi.get("driver", ""), csi.get("volumeHandle", "")
            return migration.migratable(volume["spec"], volume["metadata"].get("labels") or {})
        found = self._store.storage_class(class_of(claim))
        provisioner = found.get("provisioner") if found else ""
        if not provisioner or provisioner in migration.UNCOUNTED:
            return None
        handle, driver = f"{pod.namespace}/{name}", migration.DRIVERS.get(provisioner)
        return Migratable(driver, handle, provisioner) if driver else (provisioner, handle)

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        if event.resource == ASSIGNED_POD:
            return any(True for _ in claim_names(event.old)) or any(map(_inline, event.old.volumes))
        if event.resource == VOLUME_ATTACHMENT:
            attacher = event.old["spec"].get("attacher")
            return any(
                "persistentVolumeClaim" in volume or ((inline := _inline(volume)) and inline.driver == attacher)
                for volume in pod.volumes
            )
        if event.resource == CSI_NODE and event.old is not None:
            before = _limits(event.old)
            return any(limit > before.get(driver, 0) for driver, limit in _limits(event.new).items())
        if event.resource == PERSISTENT_VOLUME_CLAIM:
            metadata = event.new["metadata"]
            return metadata.get("namespace") == pod.namespace and any(
                name == metadata["name"] for name, _ in claim_names(pod)
            )
        return True


def _inline(volume: Object) -> Migratable | None:
    return migration.migratable(volume, {})


def _limits(csi_node: Object) -> dict[str, int]:
    drivers = (csi_node.get("spec") or {}).get("drivers") or ()
    return {each["name"]: (each.get("allocatable") or {}).get("count") or 0 for each in drivers}


def _node_of(attachment: Object) -> tuple[str, ...]:
    return ((attachment.get("spec") or {}).get("nodeName") or "",)

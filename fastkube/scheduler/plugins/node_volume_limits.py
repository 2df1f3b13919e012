"""NodeVolumeLimits: a CSI driver attaches only so many volumes to a node as its CSINode says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

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
from fastkube.scheduler.nodes import NodeInfo
from fastkube.scheduler.pods import PodInfo
from fastkube.scheduler.volumes import ATTACHMENTS, CSI_NODES, VolumeStore, claim_names, class_of

Object = dict[str, Any]

Attached = frozenset[tuple[str, str]]
"""(driver, what identifies the volume)."""


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
        self._known: dict[str, tuple[int, Attached]] = {}

    def pre_filter(self, cycle: Cycle) -> None:
        if not cycle.pod.volumes:
            return
        for name, ephemeral in claim_names(cycle.pod):
            if not ephemeral and self._store.claim(cycle.pod.namespace, name) is None:
                raise Rejected(f'persistentvolumeclaim "{name}" not found')
        wanted = frozenset(self._volumes(cycle.pod))
        if wanted:
            cycle.state[self.name] = wanted

    def refusals(self, cycle: Cycle) -> Iterable[Refusal]:
        wanted: Attached | None = cycle.state.get(self.name)
        if not wanted:
            return ()
        drivers = {driver for driver, _ in wanted}
        mask = 0
        for csi_node in self._nodes.list():
            limits = {
                each["name"]: each["allocatable"]["count"]
                for each in (csi_node.get("spec") or {}).get("drivers") or ()
                if each.get("name") in drivers and (each.get("allocatable") or {}).get("count") is not None
            }
            info = self.handle.cache.infos.get(csi_node["metadata"]["name"])
            if limits and info is not None and info.slot >= 0 and self._exceeds(info, wanted, limits):
                mask |= 1 << info.slot
        return (Refusal(mask, self.TOO_MANY),)

    def _exceeds(self, info: NodeInfo, wanted: Attached, limits: dict[str, int]) -> bool:
        used = self._used(info)
        attached = used | self._from_attachments(info.name)
        new = wanted - used  # as upstream: what is attached without a Pod that uses it counts besides
        for driver, limit in limits.items():
            more = sum(each[0] == driver for each in new)
            if more and more + sum(each[0] == driver for each in attached) > limit:
                return True
        return False

    def _used(self, info: NodeInfo) -> Attached:
        """The volumes of a node's Pods, kept until the node changes."""
        version = self.handle.cache.nodes.versions[info.slot]
        known = self._known.get(info.name)
        if known is None or known[0] != version:
            found = frozenset(each for pod in info.pods.values() for each in self._volumes(pod))
            known = self._known[info.name] = (version, found)
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

    def _volumes(self, pod: PodInfo) -> Iterator[tuple[str, str]]:
        """The CSI volumes behind a Pod's claims; of a claim that is not bound the one that will be."""
        for name, _ in claim_names(pod):
            claim = self._store.claim(pod.namespace, name)
            if claim is None:
                continue
            volume = self._store.volume(claim["spec"].get("volumeName") or "")
            if volume is not None:
                csi = volume["spec"].get("csi")
                if csi:
                    yield csi.get("driver", ""), csi.get("volumeHandle", "")
                continue
            found = self._store.storage_class(class_of(claim))
            if found is not None and found.get("provisioner"):
                yield found["provisioner"], f"{pod.namespace}/{name}"

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        if event.resource == ASSIGNED_POD:
            return any(True for _ in claim_names(event.old))
        if event.resource == VOLUME_ATTACHMENT:
            return any("persistentVolumeClaim" in volume for volume in pod.volumes)
        if event.resource == CSI_NODE and event.old is not None:
            before = _limits(event.old)
            return any(limit > before.get(driver, 0) for driver, limit in _limits(event.new).items())
        if event.resource == PERSISTENT_VOLUME_CLAIM:
            metadata = event.new["metadata"]
            return metadata.get("namespace") == pod.namespace and any(
                name == metadata["name"] for name, _ in claim_names(pod)
            )
        return True


def _limits(csi_node: Object) -> dict[str, int]:
    drivers = (csi_node.get("spec") or {}).get("drivers") or ()
    return {each["name"]: (each.get("allocatable") or {}).get("count") or 0 for each in drivers}


def _node_of(attachment: Object) -> tuple[str, ...]:
    return ((attachment.get("spec") or {}).get("nodeName") or "",)

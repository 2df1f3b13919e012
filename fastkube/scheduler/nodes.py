"""What the scheduler knows of nodes: records by name, and an index from labels, taints and images to masks of nodes.

A mask is an int with a bit for each slot; a slot is a node's place in the columns of fastkube._sched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastkube.api import resources
from fastkube.scheduler.pods import PodInfo, Taint, normalized_image

Object = dict[str, Any]

ZONE_LABELS = ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone")
REGION_LABELS = ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region")
HOSTNAME_LABEL = "kubernetes.io/hostname"

_NO_MASKS: Mapping[str, int] = {}


class NodeInfo:
    """One node, and the Pods on it by uid. `slot` -1: Pods are bound to a node that is not there (any more)."""

    __slots__ = (
        "allocatable",
        "features",
        "images",
        "labels",
        "name",
        "node",
        "nominated",
        "pods",
        "slot",
        "taints",
        "unschedulable",
        "zone",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.slot = -1
        self.pods: dict[str, PodInfo] = {}
        self.nominated: dict[str, PodInfo] = {}
        self.forget()

    def forget(self) -> None:
        """The node is gone; its Pods may stay a while."""
        self.node: Object = {}
        self.labels: dict[str, str] = {}
        self.taints: tuple[Taint, ...] = ()
        self.unschedulable = False
        self.features: tuple[str, ...] = ()
        self.allocatable: dict[str, int] = {}
        self.images: dict[str, int] = {}
        self.zone = ""

    def take(self, node: Object) -> None:
        """Remember what an object says."""
        spec, status = node.get("spec") or {}, node.get("status") or {}
        self.node = node
        self.labels = node["metadata"].get("labels") or {}
        self.taints = tuple(parse_taint(taint) for taint in spec.get("taints") or ())
        self.unschedulable = bool(spec.get("unschedulable"))
        self.features = tuple(status.get("declaredFeatures") or ())
        self.allocatable = resources.parse_list(status.get("allocatable"))
        self.images = _images(status.get("images") or ())
        self.zone = _zone(self.labels)


def parse_taint(told: Object) -> Taint:
    return Taint(told.get("key") or "", told.get("value") or "", told.get("effect") or "")


def _images(told: Any) -> dict[str, int]:
    """Name → bytes, under every name that an image has."""
    sizes = ((each.get("names") or (), int(each.get("sizeBytes") or 0)) for each in told)
    return {normalized_image(name): size for names, size in sizes for name in names}


def _zone(labels: Mapping[str, str]) -> str:
    region = next((labels[key] for key in REGION_LABELS if labels.get(key)), "")
    zone = next((labels[key] for key in ZONE_LABELS if labels.get(key)), "")
    return f"{region}:\x00:{zone}" if region or zone else ""


class NodeIndex:
    """Masks of the nodes that exist, by what selectors, tolerations and images ask for."""

    def __init__(self) -> None:
        self.all = 0
        self.unschedulable = 0
        self._having: dict[str, int] = {}
        self._values: dict[str, dict[str, int]] = {}
        self._taints: dict[tuple[Taint, ...], int] = {}
        self._features: dict[str, int] = {}
        self._images: dict[str, dict[int, int]] = {}
        self._names: dict[str, int] = {}

    def having(self, key: str) -> int:
        return self._having.get(key, 0)

    def with_value(self, key: str, value: str) -> int:
        return self._values.get(key, _NO_MASKS).get(value, 0)

    def values(self, key: str) -> Mapping[str, int]:
        return self._values.get(key, _NO_MASKS)

    def named(self, name: str) -> int:
        return self._names.get(name, 0)

    def declaring(self, feature: str) -> int:
        """The nodes that declare a feature."""
        return self._features.get(feature, 0)

    def taints(self) -> Iterator[tuple[tuple[Taint, ...], int]]:
        """Each combination of taints that occurs, and the nodes that have it."""
        return iter(self._taints.items())

    def image(self, name: str) -> Mapping[int, int]:
        """Slot → bytes of the nodes that hold an image."""
        return self._images.get(name, {})

    def add(self, info: NodeInfo) -> None:
        bit = 1 << info.slot
        self.all |= bit
        self._names[info.name] = bit
        for key, value in info.labels.items():
            self._having[key] = self._having.get(key, 0) | bit
            values = self._values.setdefault(key, {})
            values[value] = values.get(value, 0) | bit
        if info.taints:
            self._taints[info.taints] = self._taints.get(info.taints, 0) | bit
        if info.unschedulable:
            self.unschedulable |= bit
        for feature in info.features:
            self._features[feature] = self._features.get(feature, 0) | bit
        self.add_images(info)

    def remove(self, info: NodeInfo) -> None:
        bit = 1 << info.slot
        self.all &= ~bit
        del self._names[info.name]
        for key, value in info.labels.items():
            _clear(self._having, key, bit)
            values = self._values[key]
            _clear(values, value, bit)
            if not values:
                del self._values[key]
        if info.taints:
            _clear(self._taints, info.taints, bit)
        self.unschedulable &= ~bit
        for feature in info.features:
            _clear(self._features, feature, bit)
        self.remove_images(info)

    def add_images(self, info: NodeInfo) -> None:
        for name, size in info.images.items():
            self._images.setdefault(name, {})[info.slot] = size

    def remove_images(self, info: NodeInfo) -> None:
        for name in info.images:
            held = self._images[name]
            del held[info.slot]
            if not held:
                del self._images[name]


def _clear(masks: dict[Any, int], key: Any, bit: int) -> None:
    left = masks[key] & ~bit
    if left:
        masks[key] = left
    else:
        del masks[key]


def bits(mask: int) -> Iterator[int]:
    """The slots of a mask."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low

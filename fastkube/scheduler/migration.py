"""In-tree volumes that a CSI driver stands in for: which driver, and under which handle it knows the volume.

Whether it does so on a node is said by an annotation of the CSINode, plugin by plugin.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from fastkube.scheduler.nodes import REGION_LABELS, ZONE_LABELS

Object = dict[str, Any]

_MIGRATED = "storage.alpha.kubernetes.io/migrated-plugins"

DRIVERS = {
    "kubernetes.io/aws-ebs": "ebs.csi.aws.com",
    "kubernetes.io/azure-disk": "disk.csi.azure.com",
    "kubernetes.io/cinder": "cinder.csi.openstack.org",
    "kubernetes.io/gce-pd": "pd.csi.storage.gke.io",
    "kubernetes.io/portworx-volume": "pxd.portworx.com",
}
"""In-tree plugins whose volumes count towards the limits of a driver."""
UNCOUNTED = ("kubernetes.io/azure-file", "kubernetes.io/vsphere-volume")
"""Those that drivers stand in for as well, but whose volumes count for none."""

_SOURCES = {
    "awsElasticBlockStore": ("kubernetes.io/aws-ebs", "volumeID"),
    "azureDisk": ("kubernetes.io/azure-disk", "diskURI"),
    "cinder": ("kubernetes.io/cinder", "volumeID"),
    "gcePersistentDisk": ("kubernetes.io/gce-pd", "pdName"),
    "portworxVolume": ("kubernetes.io/portworx-volume", "volumeID"),
}
_TOPOLOGY_KEYS = {
    "kubernetes.io/aws-ebs": "topology.ebs.csi.aws.com/zone",
    "kubernetes.io/cinder": "topology.cinder.csi.openstack.org/zone",
    "kubernetes.io/gce-pd": "topology.gke.io/zone",
}
"""The labels by which drivers tell zones."""
_UNSPECIFIED = "UNSPECIFIED"
_EBS_ID = re.compile(r"vol-[^/]*")


def plugins_migrated(csi_node: Object) -> frozenset[str]:
    """The in-tree plugins that CSI drivers stand in for on a node."""
    told = (csi_node["metadata"].get("annotations") or {}).get(_MIGRATED) or ""
    return frozenset(filter(None, told.split(",")))


class Migratable(NamedTuple):
    """A volume as its driver sees it, where the in-tree `plugin` is migrated."""

    driver: str
    handle: str
    plugin: str


def migratable(source: Object, labels: Object) -> Migratable | None:
    """From a volume of a Pod, or the spec of a PersistentVolume with its labels."""
    for name, (plugin, identity) in _SOURCES.items():
        told = source.get(name)
        if told is not None:
            try:
                handle = _handle(plugin, str(told.get(identity) or ""), labels)
            except ValueError:
                return None
            return Migratable(DRIVERS[plugin], handle, plugin) if handle else None
    return None


def _handle(plugin: str, identity: str, labels: Object) -> str:
    """Raises ValueError for a volume that the driver cannot know."""
    if plugin == "kubernetes.io/aws-ebs" and identity.startswith("aws://"):
        volume = urlsplit(identity).path.strip("/")
        if not _EBS_ID.fullmatch(volume):
            told = f"Invalid format for AWS volume ({identity})"
            raise ValueError(f"failed to translate Kubernetes ID to EBS Volume ID {told}")
        return volume
    if plugin == "kubernetes.io/gce-pd":
        return _disk(identity, (labels.get(ZONE_LABELS[1]) or labels.get(ZONE_LABELS[0]) or "").split("__"))
    return identity


def _disk(name: str, zones: list[str]) -> str:
    if len(zones) == 1:
        return f"projects/{_UNSPECIFIED}/zones/{zones[0] or _UNSPECIFIED}/disks/{name}"
    return f"projects/{_UNSPECIFIED}/regions/{_region(zones)}/disks/{name}"


def _region(zones: list[str]) -> str:
    regions = set()
    for zone in zones:
        region, _, _ = zone.rpartition("-")
        if region.count("-") != 1:
            told = f"zone in unexpected format, expected: {{locale}}-{{region}}-{{zone}}, got: {zone}"
            raise ValueError(f"failed to get region from zones: {told}")
        regions.add(region)
    if len(regions) > 1:
        told = " ".join(f"{region}:{{}}" for region in sorted(regions))
        raise ValueError(f"failed to get region from zones: multiple or no regions gotten from zones, got: map[{told}]")
    return regions.pop()


def plugin_of(volume: Object) -> str:
    """The in-tree plugin of a PersistentVolume that a driver may stand in for, "" for none."""
    return next((plugin for name, (plugin, _) in _SOURCES.items() if volume["spec"].get(name) is not None), "")


def required_nodes(volume: Object) -> Object | None:
    """The nodes that a PersistentVolume's driver needs, as a v1.NodeSelector: zones are told by the driver's label.

    Zones of the volume's own labels count where its affinity names none. Raises ValueError for a volume that the
    driver cannot know.
    """
    spec, labels = volume["spec"], volume["metadata"].get("labels") or {}
    required = (spec.get("nodeAffinity") or {}).get("required")
    for name, (plugin, identity) in _SOURCES.items():
        if spec.get(name) is not None:
            kind = spec[name].get("kind") or "Managed"
            if name == "azureDisk" and kind.lower() != "managed":
                raise ValueError(f"kind({kind}) is not supported in csi migration")
            _handle(plugin, str(spec[name].get(identity) or ""), labels)
            key = _TOPOLOGY_KEYS.get(plugin)
            return required if key is None else _by_driver(required, labels, key)
    return required


def _by_driver(required: Object | None, labels: Object, key: str) -> Object | None:
    terms = [dict(term) for term in (required or {}).get("nodeSelectorTerms") or ()]
    named = [each["key"] for term in terms for each in term.get("matchExpressions") or () if "key" in each]
    stable = next((at for told in (named, labels) for at in (0, 1) if ZONE_LABELS[at] in told), 0)
    zone, renamed = ZONE_LABELS[stable], {}
    if any(each.get("values") for term in terms for each in term.get("matchExpressions") or () if each["key"] == zone):
        renamed[zone] = key
    elif zones := sorted(set(map(str.strip, labels.get(zone, "").split("__"))) - {""}):
        terms = terms or [{}]
        for term in terms:
            near = {"key": key, "operator": "In", "values": zones}
            term["matchExpressions"] = [*(term.get("matchExpressions") or ()), near]
    if stable:
        renamed[REGION_LABELS[1]] = REGION_LABELS[0]
    for term in terms:
        if "matchExpressions" in term:
            told = term["matchExpressions"] or ()
            term["matchExpressions"] = [{**each, "key": renamed.get(each["key"], each["key"])} for each in told]
    return {"nodeSelectorTerms": terms} if terms else required

"""In-tree volumes that a CSI driver stands in for: which driver, and under which handle it knows the volume.

Whether it does so on a node is said by an annotation of the CSINode, plugin by plugin.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from fastkube.scheduler.nodes import ZONE_LABELS

Object = dict[str, Any]

MIGRATED = "storage.alpha.kubernetes.io/migrated-plugins"
"""The annotation of a CSINode with the in-tree plugins that CSI drivers stand in for."""

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
_UNSPECIFIED = "UNSPECIFIED"
_EBS_ID = re.compile(r"vol-[^/]*")


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
            handle = _handle(plugin, str(told.get(identity) or ""), labels)
            return Migratable(DRIVERS[plugin], handle, plugin) if handle else None
    return None


def _handle(plugin: str, identity: str, labels: Object) -> str:
    """Empty for a volume that the driver cannot know."""
    if plugin == "kubernetes.io/aws-ebs" and identity.startswith("aws://"):
        volume = urlsplit(identity).path.strip("/")
        return volume if _EBS_ID.fullmatch(volume) else ""
    if plugin == "kubernetes.io/gce-pd":
        return _disk(identity, (labels.get(ZONE_LABELS[1]) or labels.get(ZONE_LABELS[0]) or "").split("__"))
    return identity


def _disk(name: str, zones: list[str]) -> str:
    if len(zones) == 1:
        return f"projects/{_UNSPECIFIED}/zones/{zones[0] or _UNSPECIFIED}/disks/{name}"
    regions = {zone.rpartition("-")[0] for zone in zones}
    return f"projects/{_UNSPECIFIED}/regions/{regions.pop()}/disks/{name}" if len(regions) == 1 else ""

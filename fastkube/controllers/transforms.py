"""What controllers keep of each object: enough for their views, little enough for thousands of nodes in one process.

Whole objects (but for managedFields) are kept of everything that controllers write back with PUT. Of Pods, which they
only patch, what all components keep (`client/kept.py`); of Nodes all but what is long. ConfigMaps and Secrets lose
their data, except for the few that controllers read.
"""

from __future__ import annotations

from typing import Any

from fastkube.client import drop_managed_fields
from fastkube.client.feed import Transform
from fastkube.client.kept import keep_pod

Object = dict[str, Any]


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
    "v1/pods": keep_pod,
    "v1/nodes": slim_node,
    "v1/configmaps": slim_config_map,
    "v1/secrets": slim_secret,
}

"""A good object of each built-in kind, and short words for changing it at a path."""

from __future__ import annotations

import copy
from typing import Any

from clusters import Cluster

from fastkube.errors import ApiError

_CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
_VOLUME = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}}
_DRIVERS = [{"name": "d.example.com", "nodeID": "1", "topologyKeys": ["z"], "allocatable": {"count": 5}}]
_ATTACHMENT = {"attacher": "e.com", "nodeName": "n", "source": {"persistentVolumeName": "v"}}
_PATH = {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}}
_ROLE_REF = {"kind": "ClusterRole", "name": "r"}
_RULE = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
_REQUEST = {"name": "r", "exactly": {"deviceClassName": "c"}}
_FLOW_RULE = {
    "subjects": [{"kind": "User", "user": {"name": "u"}}],
    "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/a/*"]}],
}

GOOD: dict[str, dict[str, Any]] = {
    "configmaps": {"data": {"k": "v"}},
    "csidrivers.storage.k8s.io": {"spec": {}},
    "csinodes.storage.k8s.io": {"spec": {"drivers": _DRIVERS}},
    "csistoragecapacities.storage.k8s.io": {"storageClassName": "s", "capacity": "1Gi"},
    "deviceclasses.resource.k8s.io": {"spec": {"selectors": [{"cel": {"expression": "device.driver == 'd.e.com'"}}]}},
    "endpoints": {"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]},
    "endpointslices.discovery.k8s.io": {
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"]}],
        "ports": [{"port": 80}],
    },
    "apiservices.apiregistration.k8s.io": {
        "metadata": {"name": "v1.a"},
        "spec": {"group": "a", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1},
    },
    "clusterrolebindings.rbac.authorization.k8s.io": {
        "roleRef": _ROLE_REF,
        "subjects": [{"kind": "User", "name": "u"}],
    },
    "clusterroles.rbac.authorization.k8s.io": {"rules": [_RULE]},
    "events": {"involvedObject": {"namespace": "default"}},
    "flowschemas.flowcontrol.apiserver.k8s.io": {
        "spec": {"priorityLevelConfiguration": {"name": "l"}, "rules": [_FLOW_RULE]}
    },
    "ingressclasses.networking.k8s.io": {"spec": {"controller": "e.com/c"}},
    "ingresses.networking.k8s.io": {"spec": {"rules": [{"host": "a.e.com", "http": {"paths": [_PATH]}}]}},
    "ipaddresses.networking.k8s.io": {
        "metadata": {"name": "10.200.0.1"},
        "spec": {"parentRef": {"resource": "services", "name": "s", "namespace": "default"}},
    },
    "leases.coordination.k8s.io": {"spec": {"holderIdentity": "h", "leaseDurationSeconds": 10}},
    "networkpolicies.networking.k8s.io": {"spec": {"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}},
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": {
        "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}}
    },
    "rolebindings.rbac.authorization.k8s.io": {"roleRef": _ROLE_REF},
    "roles.rbac.authorization.k8s.io": {"rules": [_RULE]},
    "servicecidrs.networking.k8s.io": {"spec": {"cidrs": ["10.200.0.0/24"]}},
    "limitranges": {"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1"}}]}},
    "namespaces": {},
    "nodes": {"spec": {"podCIDRs": ["10.1.0.0/24"], "providerID": "p"}},
    "persistentvolumeclaims": {"spec": _CLAIM},
    "persistentvolumes": {"spec": _VOLUME},
    "priorityclasses.scheduling.k8s.io": {"value": 1},
    "resourceclaims.resource.k8s.io": {"spec": {"devices": {"requests": [_REQUEST]}}},
    "resourceclaimtemplates.resource.k8s.io": {"spec": {"spec": {"devices": {"requests": [_REQUEST]}}}},
    "resourceslices.resource.k8s.io": {
        "spec": {
            "driver": "d.e.com",
            "pool": {"name": "p", "generation": 0, "resourceSliceCount": 1},
            "nodeName": "n",
            "devices": [
                {"name": "gpu", "attributes": {"model": {"string": "x"}}, "capacity": {"mem": {"value": "1Gi"}}}
            ],
        }
    },
    "resourcequotas": {"spec": {"hard": {"pods": "2"}}},
    "runtimeclasses.node.k8s.io": {"handler": "h"},
    "secrets": {"data": {"k": "dg=="}},
    "serviceaccounts": {},
    "services": {"spec": {"ports": [{"port": 80}], "selector": {"app": "a"}}},
    "storageclasses.storage.k8s.io": {"provisioner": "e.com/p"},
    "volumeattachments.storage.k8s.io": {"spec": _ATTACHMENT},
    "volumeattributesclasses.storage.k8s.io": {"driverName": "e.com", "parameters": {"a": "b"}},
}


def changed(obj: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A copy with the values at dotted paths set; None removes, a number is an index (one past the end appends)."""
    made = copy.deepcopy(obj)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place: Any = made
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        if isinstance(place, list):
            place[int(last) : int(last) + 1] = [value]
        elif value is None:
            place.pop(last, None)
        else:
            place[last] = value
    return made


def good(resource: str, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    return changed({"metadata": {"name": "a"}, **GOOD[resource]}, changes or {})


async def complaints(cluster: Cluster, resource: str, changes: dict[str, Any]) -> list[str]:
    """What is said about a new object with these changes: `path: message`, once each."""
    try:
        await cluster.create(resource, good(resource, changes))
    except ApiError as error:
        return causes(error)
    return []


async def complaints_about_update(
    cluster: Cluster, resource: str, before: dict[str, Any], changes: dict[str, Any]
) -> list[str]:
    """What is said when an object with the changes `before` gets `changes` too."""
    created = await cluster.create(resource, good(resource, before))
    old = cluster.get(resource, created["metadata"]["name"])
    try:
        await cluster.update(resource, changed(old, changes))
    except ApiError as error:
        return causes(error)
    return []


def causes(error: ApiError) -> list[str]:
    assert error.code == 422, error.message
    told = (error.details or {}).get("causes") or []
    return list(dict.fromkeys(f"{cause['field']}: {cause['message']}" for cause in told))

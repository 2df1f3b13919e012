"""What the server fills in on new objects of the built-in kinds."""

from typing import Any

import pytest
from clusters import Cluster

NETWORK = "networking.k8s.io"


def made(api_version: str, kind: str, **content: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}, **content}


def claim(**spec: Any) -> dict[str, Any]:
    storage = {"requests": {"storage": "1Gi"}}
    return made("v1", "PersistentVolumeClaim", spec={"accessModes": ["ReadWriteOnce"], "resources": storage, **spec})


def policy(**spec: Any) -> dict[str, Any]:
    return made(f"{NETWORK}/v1", "NetworkPolicy", spec={"podSelector": {}, **spec})


def at(obj: Any, path: str) -> Any:
    for part in path.split("."):
        obj = obj[int(part)] if isinstance(obj, list) else obj.get(part)
    return obj


SERVICE = made("v1", "Service", spec={"ports": [{"port": 80}]})
BALANCER = made("v1", "Service", spec={"type": "LoadBalancer", "ports": [{"port": 80, "targetPort": "web"}]})
STICKY = made("v1", "Service", spec={"sessionAffinity": "ClientIP", "ports": [{"port": 80}]})
SECRET = made("v1", "Secret", data={"a": "YQ==", "b": "Yg=="}, stringData={"a": "z"})
ISCSI = {"targetPortal": "1.2.3.4", "iqn": "iqn.2001-04.com.example:storage", "lun": 0}
VOLUME = made(
    "v1", "PersistentVolume", spec={"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "iscsi": ISCSI}
)
EGRESS = policy(egress=[{"ports": [{"port": 53}]}])
CLASS = made("storage.k8s.io/v1", "StorageClass", provisioner="e.com/p")
DRIVER = made("storage.k8s.io/v1", "CSIDriver", spec={})
PRIORITY = made("scheduling.k8s.io/v1", "PriorityClass", value=1)
PARAMETERS = {"kind": "K", "name": "n"}
INGRESS_CLASS = made(f"{NETWORK}/v1", "IngressClass", spec={"controller": "e.com/c", "parameters": PARAMETERS})


@pytest.mark.parametrize(
    ("resource", "obj", "filled"),
    [
        (
            "namespaces",
            made("v1", "Namespace"),
            {
                "metadata.labels": {"kubernetes.io/metadata.name": "a"},
                "spec.finalizers": ["kubernetes"],
                "status.phase": "Active",
            },
        ),
        (
            "services",
            SERVICE,
            {
                "spec.type": "ClusterIP",
                "spec.sessionAffinity": "None",
                "spec.internalTrafficPolicy": "Cluster",
                "spec.externalTrafficPolicy": None,
                "spec.ports.0.protocol": "TCP",
                "spec.ports.0.targetPort": 80,
                "metadata.generation": None,
            },
        ),
        (
            "services",
            BALANCER,
            {
                "spec.allocateLoadBalancerNodePorts": True,
                "spec.externalTrafficPolicy": "Cluster",
                "spec.ports.0.targetPort": "web",
            },
        ),
        ("services", STICKY, {"spec.sessionAffinityConfig.clientIP.timeoutSeconds": 10800}),
        ("secrets", SECRET, {"type": "Opaque", "data": {"a": "eg==", "b": "Yg=="}, "stringData": None}),
        ("persistentvolumeclaims", claim(), {"spec.volumeMode": "Filesystem", "status": {"phase": "Pending"}}),
        (
            "persistentvolumes",
            VOLUME,
            {
                "spec.persistentVolumeReclaimPolicy": "Retain",
                "spec.volumeMode": "Filesystem",
                "spec.iscsi.iscsiInterface": "default",
                "status.phase": "Pending",
            },
        ),
        (f"networkpolicies.{NETWORK}", policy(), {"spec.policyTypes": ["Ingress"], "metadata.generation": 1}),
        (
            f"networkpolicies.{NETWORK}",
            EGRESS,
            {"spec.policyTypes": ["Ingress", "Egress"], "spec.egress.0.ports.0.protocol": "TCP"},
        ),
        (f"ingressclasses.{NETWORK}", INGRESS_CLASS, {"spec.parameters.scope": "Cluster", "metadata.generation": 1}),
        ("storageclasses.storage.k8s.io", CLASS, {"reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"}),
        (
            "csidrivers.storage.k8s.io",
            DRIVER,
            {"spec.attachRequired": True, "spec.podInfoOnMount": False, "spec.volumeLifecycleModes": ["Persistent"]},
        ),
        (
            "priorityclasses.scheduling.k8s.io",
            PRIORITY,
            {"preemptionPolicy": "PreemptLowerPriority", "metadata.generation": 1},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_left_out_is_filled_in(cluster: Cluster, resource: str, obj: dict, filled: dict[str, Any]):
    created = await cluster.create(resource, obj)
    assert {path: at(created, path) for path in filled} == filled


async def test_a_generated_namespace_has_its_name_as_a_label_too(cluster: Cluster):
    created = await cluster.create("namespaces", {"metadata": {"generateName": "n-"}})
    name = created["metadata"]["name"]
    assert created["metadata"]["labels"] == {"kubernetes.io/metadata.name": name}


async def test_a_namespace_keeps_its_finalizers_until_it_is_finalized(cluster: Cluster):
    await cluster.create("namespaces", made("v1", "Namespace"))
    kept = await cluster.patch("namespaces", "a", {"spec": {"finalizers": None}})
    assert kept["spec"]["finalizers"] == ["kubernetes"]
    await cluster.delete("namespaces", "a")
    terminating = cluster.get("namespaces", "a")
    assert terminating["status"]["phase"] == "Terminating"
    terminating["spec"] = {}
    await cluster.update("namespaces/finalize", terminating)
    assert not cluster.exists("namespaces", "a")


@pytest.mark.parametrize(
    ("given", "source", "reference"),
    [
        (
            {"dataSource": {"kind": "PersistentVolumeClaim", "name": "s"}},
            {"apiGroup": None, "kind": "PersistentVolumeClaim", "name": "s"},
            {"apiGroup": None, "kind": "PersistentVolumeClaim", "name": "s"},
        ),
        ({"dataSource": {"apiGroup": "e.com", "kind": "K", "name": "s"}}, None, None),
        (
            {"dataSourceRef": {"apiGroup": "e.com", "kind": "K", "name": "s"}},
            {"apiGroup": "e.com", "kind": "K", "name": "s"},
            {"apiGroup": "e.com", "kind": "K", "name": "s"},
        ),
        ({"dataSourceRef": {"apiGroup": "e.com", "kind": "K", "name": "s", "namespace": "other"}}, None, None),
    ],
)
async def test_both_names_of_a_data_source_say_the_same(cluster: Cluster, given: dict, source: Any, reference: Any):
    spec = (await cluster.create("persistentvolumeclaims", claim(**given)))["spec"]
    assert (spec.get("dataSource"), spec.get("dataSourceRef")) == (source, reference)

"""What clients are warned of when they write objects of the built-in kinds."""

from typing import Any

import pytest
from clusters import Cluster
from kinds import good

HINTS = "service.kubernetes.io/topology-aware-hints"
CLASS = "volume.beta.kubernetes.io/storage-class"


@pytest.mark.parametrize(
    ("resource", "changes", "told"),
    [
        (
            "services",
            {"spec.clusterIP": "None", "spec.externalIPs": ["1.2.3.4"], "spec.sessionAffinity": "ClientIP"},
            [
                "spec.externalIPs is ignored for headless services",
                "spec.SessionAffinity is ignored for headless services",
            ],
        ),
        (
            "services",
            {"spec.externalIPs": ["1.2.3.4"], "spec.externalName": "a.b", "spec.trafficDistribution": "PreferClose"},
            [
                "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
                'spec.externalName is ignored when spec.type is not "ExternalName"',
                'spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"',
            ],
        ),
        (
            "services",
            {"metadata.annotations": {HINTS: "auto"}},
            [f"annotation {HINTS} is deprecated, please use service.kubernetes.io/topology-mode instead"],
        ),
        (
            "ingresses.networking.k8s.io",
            {"metadata.annotations": {"kubernetes.io/ingress.class": "x"}},
            ["annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead"],
        ),
        (
            "endpointslices.discovery.k8s.io",
            {"addressType": "FQDN", "endpoints.0.addresses": ["a.b"]},
            ["spec.addressType: FQDN endpoints are deprecated"],
        ),
        (
            "persistentvolumes",
            {
                "spec.persistentVolumeReclaimPolicy": "Recycle",
                "spec.hostPath": None,
                "spec.nfs": {"server": "s", "path": "/"},
            },
            [
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the "
                "recommended approach is to use dynamic provisioning."
            ],
        ),
        (
            "persistentvolumeclaims",
            {"metadata.annotations": {CLASS: "x"}},
            [f'metadata.annotations[{CLASS}]: deprecated since v1.8; use "storageClassName" attribute instead'],
        ),
        (
            "serviceaccounts",
            {"metadata.annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}},
            [
                "metadata.annotations[kubernetes.io/enforce-mountable-secrets]: deprecated in v1.32+; prefer separate "
                "namespaces to isolate access to mounted secrets"
            ],
        ),
        (
            "nodes",
            {"spec.externalID": "x"},
            ["spec.externalID: this field is deprecated, and is unused by Kubernetes"],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_doubtful_is_taken_with_a_warning(
    cluster: Cluster, resource: str, changes: dict[str, Any], told: list[str]
):
    await cluster.create(resource, good(resource, changes))
    assert cluster.warnings == told

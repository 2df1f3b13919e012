"""A cluster as it is at one moment, from an API server, and the Pods that a set of objects means."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

from fastkube.api.documents import DocumentError
from fastkube.client import Client
from fastkube.errors import ApiError

Object = dict[str, Any]

RESOURCES = (
    "v1/namespaces",
    "v1/nodes",
    "v1/pods",
    "v1/services",
    "v1/replicationcontrollers",
    "apps/v1/replicasets",
    "apps/v1/statefulsets",
    "policy/v1/poddisruptionbudgets",
    "v1/persistentvolumes",
    "v1/persistentvolumeclaims",
    "storage.k8s.io/v1/storageclasses",
    "storage.k8s.io/v1/csinodes",
    "storage.k8s.io/v1/csidrivers",
    "storage.k8s.io/v1/csistoragecapacities",
    "storage.k8s.io/v1/volumeattachments",
    "resource.k8s.io/v1/deviceclasses",
    "resource.k8s.io/v1/resourceclaims",
    "resource.k8s.io/v1/resourceslices",
)
"""What scheduling looks at."""


async def read_server(client: Client) -> list[Object]:
    """What there is of these; resources that the server does not serve are left out. Raises ApiError."""
    return [obj for found in await asyncio.gather(*(_read(client, each) for each in RESOURCES)) for obj in found]


async def _read(client: Client, resource: str) -> list[Object]:
    found: list[Object] = []
    try:
        async for page in client.pages(resource):
            kind = str(page["kind"]).removesuffix("List")
            found += ({"apiVersion": page["apiVersion"], "kind": kind, **item} for item in page.get("items") or ())
    except ApiError as error:
        if error.code != 404:
            raise
    return found


def pods_of(objects: Iterable[Object]) -> list[Object]:
    """Pods, and those that workloads among the objects would make: a Pod for each replica of their template."""
    found = []
    for obj in objects:
        if obj["kind"] == "Pod":
            found.append(obj)
        else:
            found += _replicas(obj)
    return found


_REPLICAS = {"Deployment": "replicas", "ReplicaSet": "replicas", "StatefulSet": "replicas",
             "ReplicationController": "replicas", "Job": "parallelism"}  # fmt: skip


def _replicas(obj: Object) -> Iterator[Object]:
    field = _REPLICAS.get(obj["kind"])
    if field is None:
        raise DocumentError(f"a {obj['kind']} makes no Pods: Pods or {', '.join(_REPLICAS)} are expected")
    metadata, spec = obj["metadata"], obj.get("spec") or {}
    template = spec.get("template") or {}
    told = template.get("metadata") or {}
    count = spec.get(field)
    for number in range(1 if count is None else count):
        owner = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "name": metadata["name"], "uid": "",
                 "controller": True}  # fmt: skip
        yield {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                **told,
                "name": f"{metadata['name']}-{number}",
                "namespace": metadata.get("namespace") or "default",
                "uid": f"{obj['kind']}/{metadata.get('namespace') or 'default'}/{metadata['name']}/{number}",
                "ownerReferences": [owner],
            },
            "spec": template.get("spec") or {},
        }

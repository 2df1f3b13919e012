"""A cluster as it is at one moment: out of files (kubectl's output, dumps) or from an API server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from fastkube.api import yaml
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

_DOCUMENT = re.compile(rb"^---[ \t]*(?:#.*)?$", re.MULTILINE)
_SUFFIXES = (".json", ".yaml", ".yml")


class SnapshotError(ValueError):
    """A file that is no Kubernetes object."""


def read_files(paths: Iterable[str | Path]) -> list[Object]:
    """The objects of files, and of all files of folders: JSON or YAML, single objects or lists of any kind.

    Raises OSError and SnapshotError.
    """
    found: list[Object] = []
    for each in map(Path, paths):
        files = sorted(file for file in each.rglob("*") if file.suffix in _SUFFIXES) if each.is_dir() else [each]
        for file in files:
            for document in _documents(file):
                found += _objects(document, file)
    return found


def _documents(file: Path) -> Iterator[Any]:
    data = file.read_bytes()
    try:
        if data.lstrip()[:1] == b"{":
            yield orjson.loads(data)
            return
        for text in _DOCUMENT.split(data):
            document, _ = yaml.load(text)
            if document is not None:
                yield document
    except ValueError as error:
        raise SnapshotError(f"{file}: {error}") from error


def _objects(document: Any, file: Path) -> Iterator[Object]:
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
        raise SnapshotError(f"{file}: an object with a kind is expected")
    kind = document["kind"]
    if not kind.endswith("List") or "items" not in document:
        yield document
        return
    for item in document["items"] or ():
        if "kind" in item:
            yield from _objects(item, file)
        else:  # items of a typed list carry neither
            yield {"apiVersion": document.get("apiVersion", "v1"), "kind": kind.removesuffix("List"), **item}


async def read_server(client: Client) -> list[Object]:
    """The same from an API server; resources that it does not serve are left out. Raises ApiError."""
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
        raise SnapshotError(f"a {obj['kind']} makes no Pods: Pods or {', '.join(_REPLICAS)} are expected")
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

"""How a resource is named to the client, and the path which the API serves it at."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import quote

Object = dict[str, Any]


class Resource(NamedTuple):
    """A resource in one version: `Resource("apps", "v1", "deployments")`; the core group is the empty one."""

    group: str
    version: str
    plural: str

    def __str__(self) -> str:
        return "/".join(part for part in self if part)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


@lru_cache(maxsize=4096)
def parse(text: str) -> Resource:
    """`apps/v1/deployments` or `v1/pods`; raises ValueError on any other form."""
    parts = text.split("/")
    if len(parts) == 2:
        parts.insert(0, "")
    if len(parts) != 3 or not all(parts[1:]):
        raise ValueError(f"a resource is named group/version/plural or version/plural, not {text!r}")
    return Resource(*parts)


@lru_cache(maxsize=16384)
def collection_path(resource: str | Resource, namespace: str) -> str:
    """The path of all objects of a resource, in one namespace where `namespace` is given."""
    group, version, plural = parse(resource) if isinstance(resource, str) else resource
    root = f"/apis/{group}/{version}" if group else f"/api/{version}"
    if namespace:
        return f"{root}/namespaces/{quote(namespace, safe='')}/{plural}"
    return f"{root}/{plural}"


def object_path(resource: str | Resource, namespace: str, name: str, subresource: str = "") -> str:
    """The path of one object, or of one of its subresources."""
    if not name:
        raise ValueError(f"the name of one of {resource} is empty")
    path = f"{collection_path(resource, namespace)}/{quote(name, safe=':')}"
    return f"{path}/{subresource}" if subresource else path


def creation_path(resource: str | Resource, namespace: str, name: str = "", subresource: str = "") -> str:
    """Where an object is posted: to its collection, or to a subresource of the object `name`."""
    if subresource:
        return object_path(resource, namespace, name, subresource)
    return collection_path(resource, namespace)


def object_key(obj: Object) -> str:
    """`namespace/name`, or the name alone of an object without namespace."""
    metadata = obj["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])


def make_key(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


def split_key(key: str) -> tuple[str, str]:
    """(namespace, name); the namespace is "" for an object without one."""
    namespace, _, name = key.rpartition("/")
    return namespace, name

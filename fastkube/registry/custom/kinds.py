"""What the server knows of a custom kind: the catalog's entry, made of its definition.

`extra` of the entry: `schemas`, `scale` (its paths), `columns`, `deprecations`, `subresources` (each by version, also
of those not served), `strategy`, `terminating`, `fingerprint` (of the definition), `stale` (stored objects may be of an
older one), `refresh` (makes what the present one asks of such an object), `converter` (None: only apiVersion changes).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

import msgpack

from fastkube.api import schema as schemas
from fastkube.api.catalog import ResourceType, SubresourceInfo, split_api_version, version_rank
from fastkube.api.meta import copy_of
from fastkube.registry.custom import defaults
from fastkube.registry.custom.converting import Converter, Post
from fastkube.registry.custom.instances import CustomStrategy, VersionRules

Object = dict[str, Any]

_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
_SUBRESOURCE_VERBS = ("get", "patch", "update")
_OPEN: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


class Lazy(dict[str, Any]):
    """Values made when they are first asked for: a definition of many versions costs what is used of it."""

    def __init__(self, make: Callable[[str], Any]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: str) -> Any:
        made = self[key] = self._make(key)
        return made


def schema_of(version: Object) -> Object:
    found: Object = (version.get("schema") or {}).get("openAPIV3Schema") or _OPEN
    return found


def make_type(crd: Object, packed: bytes, post: Post) -> ResourceType:
    """The catalog's entry of an established definition. `post` asks webhooks.

    Schemas are large and most of them are never used: they are taken from `packed`, the stored form, when they are.
    """
    spec = crd["spec"]
    group, names = spec["group"], crd["status"]["acceptedNames"]
    by_name: dict[str, Object] = {each["name"]: {**each, "schema": None} for each in spec["versions"]}

    def source(version: str) -> Object:
        versions = msgpack.unpackb(packed)["spec"]["versions"]
        return schema_of(next(each for each in versions if each["name"] == version))

    sources = Lazy(source)
    served = sorted((name for name, each in by_name.items() if each.get("served")), key=version_rank, reverse=True)
    storage = next(name for name, each in by_name.items() if each.get("storage"))
    parts = {name: each.get("subresources") or {} for name, each in by_name.items()}
    rules = {name: _rules(partial(sources.__getitem__, name), part) for name, part in parts.items()}
    whole = bool(spec.get("preserveUnknownFields"))
    converts = (spec.get("conversion") or {}).get("strategy") == "Webhook"
    schemas_by_version = Lazy(lambda version: _schema(_OPEN if whole else sources[version]))
    refresh = _refresher(schemas_by_version, by_name)
    return ResourceType(
        group=group,
        resource=names["plural"],
        kind=names["kind"],
        list_kind=names.get("listKind") or names["kind"] + "List",
        singular=names.get("singular") or names["kind"].lower(),
        namespaced=spec["scope"] == "Namespaced",
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        verbs=_VERBS,
        versions=tuple(served),
        storage_version=storage,
        storage_group=group,
        subresources=_subresources(group, names["kind"], served, parts),
        selectable=_selectable(spec),
        columns={},
        key_prefix=f"/registry/{group}/{names['plural']}/".encode(),
        custom=True,
        extra={
            "schemas": schemas_by_version,
            "strategy": CustomStrategy(rules, storage),
            "scale": {name: part["scale"] for name, part in parts.items() if part.get("scale")},
            "columns": {name: each.get("additionalPrinterColumns") or [] for name, each in by_name.items()},
            "deprecations": _deprecations(spec, names["kind"]),
            "subresources": {name: frozenset(part) for name, part in parts.items()},
            "terminating": "deletionTimestamp" in crd["metadata"],
            "fingerprint": hashlib.sha256(msgpack.packb((spec, names))).hexdigest(),
            "stale": _is_stale(crd),
            "refresh": refresh,
            "converter": Converter(spec["conversion"], names["kind"], post, refresh) if converts else None,
        },
    )


def _is_stale(crd: Object) -> bool:
    """Whether objects may have been stored under another version or schema."""
    changed = (crd["metadata"].get("generation") or 1) > 1
    return changed or len(crd["status"].get("storedVersions") or ()) > 1


def _refresher(by_version: Lazy, known: dict[str, Object]) -> Callable[[Object], Object]:
    """Prunes and completes a stored object (a copy of it) by the schema of the version that it was stored in."""

    def refresh(obj: Object) -> Object:
        version = split_api_version(obj["apiVersion"])[1]
        if version not in known:
            return obj
        fresh: Object = copy_of(obj)
        shape = by_version[version]
        with contextlib.suppress(ValueError):  # metadata that fits no longer is shown as it is
            schemas.walk(shape, fresh)
        if shape.complete is not None:
            shape.complete(fresh)
        return fresh

    return refresh


def _schema(source: Object) -> schemas.Schema:
    made = schemas.from_openapi(source)
    made.complete = defaults.complete(source)
    return made


def _rules(load: Callable[[], Object], parts: Object) -> VersionRules:
    scale = {key: path for key, path in (parts.get("scale") or {}).items() if path}
    return VersionRules(load, "status" in parts, scale)


def _subresources(group: str, kind: str, served: list[str], parts: dict[str, Object]) -> dict[str, SubresourceInfo]:
    found: dict[str, SubresourceInfo] = {}
    for version in served:
        if "status" in parts[version]:
            found.setdefault("status", SubresourceInfo("status", kind, group, version, _SUBRESOURCE_VERBS))
        if parts[version].get("scale"):
            found.setdefault("scale", SubresourceInfo("scale", "Scale", "autoscaling", "v1", _SUBRESOURCE_VERBS))
    return found


def _selectable(spec: Object) -> frozenset[str]:
    own = {
        each["jsonPath"].removeprefix(".")
        for version in spec["versions"]
        for each in version.get("selectableFields") or ()
    }
    return frozenset(("metadata.name", "metadata.namespace", *own))


def _deprecations(spec: Object, kind: str) -> dict[str, str]:
    """The warning of each deprecated version, which names the newest that is not."""
    group = spec["group"]
    found = {}
    for version in spec["versions"]:
        name = version["name"]
        if not version.get("deprecated"):
            continue
        told = f"{group}/{name} {kind} is deprecated"
        better = [
            each["name"]
            for each in spec["versions"]
            if each.get("served") and not each.get("deprecated") and version_rank(each["name"]) > version_rank(name)
        ]
        if better:
            told += f"; use {group}/{max(better, key=version_rank)} {kind}"
        found[name] = version.get("deprecationWarning") or told
    return found

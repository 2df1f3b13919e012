"""Which resources there are: the built-in ones from the generated tables, custom ones as they come and go.

Rules:
  1. A `ResourceType` never changes; a CRD that changes is a new one under the same (group, resource).
  2. `Catalog.generation` rises with each change, so what is derived from the catalog can be derived anew.
  3. `versions` are served, in order of preference; objects are stored in `storage_group`/`storage_version`, which is
     not the resource's own group where two groups share their objects (Events).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple

from fastkube.api.generated import table

Column = tuple[str, str, str, int]
"""A printer column: name, type, format, priority (0 is shown always, 1 only with `-o wide`)."""


def api_version(group: str, version: str) -> str:
    """`v1` for the core group, else `apps/v1`."""
    return f"{group}/{version}" if group else version


def split_api_version(text: str) -> tuple[str, str]:
    """(group, version) of an apiVersion."""
    group, slash, version = text.rpartition("/")
    return (group, version) if slash else ("", text)


_VERSION = re.compile(r"v([1-9][0-9]*)(?:(alpha|beta)([1-9][0-9]*))?").fullmatch
_STAGES = {"alpha": 0, "beta": 1, None: 2}


def version_rank(version: str) -> tuple[int, int, int, str]:
    """Sorts v2 above v1 above v1beta2 above v1alpha1, and what is no such version below, by the alphabet."""
    match = _VERSION(version)
    if match is None:
        return (-1, 0, 0, "".join(chr(0x10FFFF - ord(character)) for character in version))
    return (_STAGES[match[2]], int(match[1]), int(match[3] or 0), "")


class SubresourceInfo(NamedTuple):
    """One subresource: `kind` in `group`/`version` is what its bodies are (autoscaling/v1 Scale for `scale`)."""

    name: str
    kind: str
    group: str
    version: str
    verbs: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ResourceType:
    """One resource of one group with all of its served versions. Equal only to itself."""

    group: str
    resource: str
    kind: str
    list_kind: str
    singular: str
    namespaced: bool
    short_names: tuple[str, ...]
    categories: tuple[str, ...]
    verbs: tuple[str, ...]
    versions: tuple[str, ...]
    storage_version: str
    storage_group: str
    subresources: dict[str, SubresourceInfo]
    selectable: frozenset[str]
    columns: dict[str, tuple[Column, ...]]
    key_prefix: bytes
    custom: bool = False
    features: frozenset[str] = frozenset()
    """The feature gates that are on (api/gates.py)."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What the maker of a custom type hangs on it (its schemas by version, its conversion)."""

    def key(self, namespace: str, name: str) -> bytes:
        """The store's key of an object; `namespace` is ignored for cluster-wide kinds."""
        if self.namespaced:
            return self.key_prefix + f"{namespace}/{name}".encode()
        return self.key_prefix + name.encode()

    def api_version(self, version: str) -> str:
        return f"{self.group}/{version}" if self.group else version

    @property
    def stale(self) -> bool:
        """Whether stored objects may be of another version or schema than the present one (a custom kind's definition
        has changed): `conversion.convert` brings them up to date."""
        return self.custom and bool(self.extra.get("stale"))

    @property
    def by_webhook(self) -> bool:
        """Whether a webhook converts between the versions (`extra["converter"]`)."""
        return self.custom and self.extra.get("converter") is not None

    def has_subresource(self, version: str, name: str) -> bool:
        """Whether the resource has it in this version: of a custom kind each version may have its own."""
        if not self.custom:
            return name in self.subresources
        return name in self.extra["subresources"][version]

    @property
    def storage_api_version(self) -> str:
        return api_version(self.storage_group, self.storage_version)

    @property
    def persisted(self) -> bool:
        """Whether its objects are kept: not so for reviews, bindings and component statuses."""
        return "create" in self.verbs and len(self.verbs) > 1


class Catalog:
    """The resources served now, found by resource name or by kind."""

    def __init__(self, types: Iterable[ResourceType] = ()) -> None:
        self.generation = 0
        self._types: dict[tuple[str, str], ResourceType] = {}
        self._by_resource: dict[tuple[str, str, str], ResourceType] = {}
        self._by_kind: dict[tuple[str, str], ResourceType] = {}
        for rtype in types:
            self.add(rtype)

    @classmethod
    def builtin(cls, features: frozenset[str] = frozenset(), versions: frozenset[str] = frozenset()) -> Catalog:
        """A new catalog with the kinds of Kubernetes itself: those that it serves by default, with the feature gates
        that are on, and those of the gated versions (`group/version`) that are named."""
        plain = _builtin("")
        if features:
            plain = tuple(replace(rtype, features=features) for rtype in plain)
        return cls((*plain, *(replace(each, features=features) for name in versions for each in _builtin(name))))

    def lookup(self, group: str, version: str, resource: str) -> ResourceType | None:
        """The resource, if it is served in this version."""
        return self._by_resource.get((group, version, resource))

    def by_kind(self, api_version: str, kind: str) -> ResourceType | None:
        """The resource whose objects have this apiVersion and kind."""
        return self._by_kind.get((api_version, kind))

    def get(self, group: str, resource: str) -> ResourceType | None:
        """The resource in whatever versions it is served."""
        return self._types.get((group, resource))

    def all(self) -> list[ResourceType]:
        """Every resource, built-in ones first, each group's in upstream's order."""
        return list(self._types.values())

    def groups(self) -> list[str]:
        """Every group, the core group ("") first."""
        return list(dict.fromkeys(rtype.group for rtype in self._types.values()))

    def add(self, rtype: ResourceType) -> None:
        """Serve a resource; it takes the place of an older one of the same group and name."""
        older = self._types.get((rtype.group, rtype.resource))
        if older is not None:
            self._unindex(older)
        self._types[rtype.group, rtype.resource] = rtype
        for version in rtype.versions:
            self._by_resource[rtype.group, version, rtype.resource] = rtype
            self._by_kind.setdefault((rtype.api_version(version), rtype.kind), rtype)
        self.generation += 1

    def remove(self, rtype: ResourceType) -> None:
        """Serve it no longer; nothing happens if a newer one has taken its place."""
        if self._types.get((rtype.group, rtype.resource)) is rtype:
            del self._types[rtype.group, rtype.resource]
            self._unindex(rtype)
            self.generation += 1

    def _unindex(self, rtype: ResourceType) -> None:
        for version in rtype.versions:
            self._by_resource.pop((rtype.group, version, rtype.resource), None)
            if self._by_kind.get((rtype.api_version(version), rtype.kind)) is rtype:
                del self._by_kind[rtype.api_version(version), rtype.kind]


@cache
def _builtin(gated: str) -> tuple[ResourceType, ...]:
    """Those of a version that is not served by default, or (with "") of all that are."""
    return tuple(_from_row(row) for row in table("resources") if row.get("gated", "") == gated)


def _from_row(row: dict[str, Any]) -> ResourceType:
    versions = tuple(row["versions"])
    group = row["group"]
    return ResourceType(
        group=group,
        resource=row["resource"],
        kind=row["kind"],
        list_kind=row["kind"] + "List",
        singular=row["singular"],
        namespaced=row["namespaced"],
        short_names=tuple(row["shortNames"]),
        categories=tuple(row["categories"]),
        verbs=tuple(row["verbs"]),
        versions=versions,
        storage_version=row["storage"][1],
        storage_group=row["storage"][0],
        subresources={
            name: SubresourceInfo(name, kind, of_group or group, of_version or versions[0], tuple(verbs))
            for name, kind, of_group, of_version, verbs in row["subresources"]
        },
        selectable=frozenset(row["selectable"]),
        columns={version: tuple(map(tuple, columns)) for version, columns in row["columns"].items()},
        key_prefix=row["prefix"].encode(),
    )

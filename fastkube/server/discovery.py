"""Discovery: which groups, versions and resources there are, in the aggregated form and in the old one.

    /api, /apis                       APIVersions, APIGroupList; or APIGroupDiscoveryList (aggregated), with an ETag
    /apis/{group}                     APIGroup
    /api/v1, /apis/{group}/{version}  APIResourceList

Documents are made from the catalog when they are first asked for and kept until it changes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from fastkube.api import codec
from fastkube.api.catalog import version_rank
from fastkube.server.answer import Answer
from fastkube.server.media import JSON, Clause, format_of, not_acceptable, parse_accept
from fastkube.server.remote_documents import Documents, aggregated_entries

if TYPE_CHECKING:
    from fastkube.api.catalog import Catalog, ResourceType, SubresourceInfo

Object = dict[str, Any]

_SHARED = b"Cache-Control: public\r\n"
_AGGREGATED = "APIGroupDiscoveryList"
_GROUP = "apidiscovery.k8s.io"
_HASHED_AS = {"CustomResourceDefinition": "v1beta1"}
"""Upstream stores these in another version than fastkube does; the hash is upstream's."""


class _Document(NamedTuple):
    body: bytes
    media: bytes
    headers: bytes


class Discovery:
    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._generation = -1
        self._documents: dict[tuple[str, bytes, bool], _Document | None] = {}
        self._remotes: list[Documents] = []
        self.address = ""
        """Where the server says it is reached (host:port)."""

    def answer(self, path: str, accept: str, if_none_match: str) -> Answer | None:
        """The document of a path; None when the path has none. Raises 406."""
        path = path.rstrip("/")
        root = path in ("/api", "/apis")
        media, aggregated = _negotiate(accept, root)
        if self._generation != self._catalog.generation:
            self._documents.clear()
            self._generation = self._catalog.generation
        key = (path, media, aggregated)
        if key not in self._documents:
            if not self.has(path):
                return None  # made-up paths are not remembered
            self._documents[key] = self._make(path, media, aggregated)
        document = self._documents[key]
        if document is None:
            return None
        if aggregated and if_none_match and if_none_match.encode() in document.headers:
            return Answer(304, b"", b"", document.headers)
        answer = Answer(200, document.body, document.media, document.headers)
        if aggregated:
            answer.cache = _SHARED
        return answer

    def use_remotes(self, remotes: list[Documents]) -> None:
        """The group versions that other servers answer for, the most important first."""
        self._remotes = remotes
        self._documents.clear()

    def has_group(self, group: str) -> bool:
        return any(rtype.group == group for rtype in self._catalog.all()) or bool(self._remote_versions(group))

    def _remote_versions(self, group: str) -> dict[str, Documents]:
        return {remote.version: remote for remote in self._remotes if remote.group == group}

    def _groups(self) -> list[str]:
        """Every named group, the server's own first."""
        return list(dict.fromkeys(filter(None, (*self._catalog.groups(), *(one.group for one in self._remotes)))))

    def has_builtin_group(self, group: str) -> bool:
        """Whether upstream's own routes know the group: they answer differently from those of custom resources."""
        return any(rtype.group == group and not rtype.custom for rtype in self._catalog.all())

    # ---------------------------------------------------------------- making documents

    def has(self, path: str) -> bool:
        """Whether there is a document; the path ends in no slash."""
        if path in ("/api", "/apis"):
            return True
        group, version = _split(path)
        return bool(self._in(group, version) if version else self._versions(group))

    def _make(self, path: str, media: bytes, aggregated: bool) -> _Document | None:
        made = self._aggregated(path) if aggregated else self._plain(path)
        body = codec.encode(made, media.decode())
        if not aggregated:
            return _Document(body, media, b"")
        etag = hashlib.sha512(body).hexdigest().upper()
        full = f"{media.decode()};g={_GROUP};v=v2;as={_AGGREGATED}"
        return _Document(body, full.encode(), f'Etag: "{etag}"\r\nVary: Accept\r\n'.encode())

    def _plain(self, path: str) -> Object:
        if path == "/api":
            address = [{"clientCIDR": "0.0.0.0/0", "serverAddress": self.address}]
            return {"kind": "APIVersions", "versions": self._versions(""), "serverAddressByClientCIDRs": address}
        if path == "/apis":
            groups = [self._group(group) for group in self._groups()]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        group, version = _split(path)
        if not version:
            return {"kind": "APIGroup", "apiVersion": "v1", **self._group(group)}
        types = sorted(self._in(group, version), key=lambda rtype: rtype.resource)
        resources = [entry for rtype in types for entry in _legacy_entries(rtype, version)]
        listed: Object = {"kind": "APIResourceList"}
        if group:
            listed["apiVersion"] = "v1"
        listed["groupVersion"] = f"{group}/{version}" if group else version
        listed["resources"] = resources
        return listed

    def _group(self, group: str) -> Object:
        versions = [{"groupVersion": f"{group}/{version}", "version": version} for version in self._versions(group)]
        return {"name": group, "versions": versions, "preferredVersion": versions[0]}

    def _aggregated(self, path: str) -> Object:
        groups = [""] if path == "/api" else self._groups()
        items = []
        for group in groups:
            versions = []
            remote = self._remote_versions(group)
            for version in self._versions(group):
                if version in remote:
                    freshness = "Current" if remote[version].fresh else "Stale"
                    entries = aggregated_entries(remote[version])
                    versions.append({"version": version, "resources": entries, "freshness": freshness})
                    continue
                types = sorted(self._in(group, version), key=lambda rtype: rtype.resource)
                entries = [_aggregated_entry(rtype, version) for rtype in types]
                versions.append({"version": version, "resources": entries, "freshness": "Current"})
            items.append({"metadata": {"name": group} if group else {}, "versions": versions})
        return {"kind": _AGGREGATED, "apiVersion": f"{_GROUP}/v2", "metadata": {}, "items": items}

    def _in(self, group: str, version: str) -> list[ResourceType]:
        return [rtype for rtype in self._catalog.all() if rtype.group == group and version in rtype.versions]

    def _versions(self, group: str) -> list[str]:
        """The group's versions, preferred first; those of custom resources by stability and number."""
        types = [rtype for rtype in self._catalog.all() if rtype.group == group]
        remote = self._remote_versions(group)
        found = list(dict.fromkeys((*(version for rtype in types for version in rtype.versions), *remote)))
        ranked = bool(remote) or any(rtype.custom for rtype in types)
        return sorted(found, key=version_rank, reverse=True) if ranked else found


def storage_version_hash(rtype: ResourceType) -> str:
    """Tells storage versions apart: clients that migrate stored objects compare it."""
    version = rtype.storage_version if rtype.custom else _HASHED_AS.get(rtype.kind, rtype.storage_version)
    text = f"{rtype.storage_group}/{version}/{rtype.kind}"
    return base64.b64encode(hashlib.sha256(text.encode()).digest()[:8]).decode()


def _split(path: str) -> tuple[str, str]:
    """(group, version) of /api/v1, /apis/apps and /apis/apps/v1."""
    parts = path.strip("/").split("/")
    if parts[0] == "api":
        return "", parts[1]
    return parts[1], parts[2] if len(parts) > 2 else ""


def _negotiate(accept: str, root: bool) -> tuple[bytes, bool]:
    """(format, whether aggregated). Only the roots have the aggregated form. Raises 406."""
    if not accept or accept == "application/json":
        return JSON, False
    for clause in parse_accept(accept):
        media = format_of(clause)
        if media is None:
            continue
        if not clause.parameters.get("as"):
            return media, False
        if root and _asks_aggregated(clause):
            return media, True
    raise not_acceptable()


def _asks_aggregated(clause: Clause) -> bool:
    asked = clause.parameters
    return asked.get("as") == _AGGREGATED and asked.get("g") == _GROUP and asked.get("v") == "v2"


def _optional(rtype: ResourceType) -> Object:
    more: Object = {}
    if rtype.short_names:
        more["shortNames"] = list(rtype.short_names)
    if rtype.categories:
        more["categories"] = list(rtype.categories)
    return more


def _subresources(rtype: ResourceType, version: str) -> list[SubresourceInfo]:
    return [info for name, info in sorted(rtype.subresources.items()) if rtype.has_subresource(version, name)]


def _own(rtype: ResourceType, info: SubresourceInfo) -> bool:
    """Whether a subresource's bodies are of the resource's own group."""
    return info.group == rtype.group and info.version in rtype.versions


def _legacy_entries(rtype: ResourceType, version: str) -> Iterable[Object]:
    entry: Object = {
        "name": rtype.resource,
        "singularName": rtype.singular,
        "namespaced": rtype.namespaced,
        "kind": rtype.kind,
        "verbs": list(rtype.verbs),
        **_optional(rtype),
    }
    if rtype.persisted:
        entry["storageVersionHash"] = storage_version_hash(rtype)
    yield entry
    for info in _subresources(rtype, version):
        sub: Object = {
            "name": f"{rtype.resource}/{info.name}",
            "singularName": "",
            "namespaced": rtype.namespaced,
        }
        if not _own(rtype, info):
            sub |= {"group": info.group, "version": info.version}
        yield {**sub, "kind": info.kind, "verbs": list(info.verbs)}


def _aggregated_entry(rtype: ResourceType, version: str) -> Object:
    entry: Object = {
        "resource": rtype.resource,
        "responseKind": {"group": "", "version": "", "kind": rtype.kind},
        "scope": "Namespaced" if rtype.namespaced else "Cluster",
        "singularResource": rtype.singular,
        "verbs": list(rtype.verbs),
        **_optional(rtype),
    }
    if rtype.custom:
        entry["responseKind"] = {"group": rtype.group, "version": version, "kind": rtype.kind}
    if _subresources(rtype, version):
        entry["subresources"] = [
            {
                "subresource": info.name,
                "responseKind": {"group": "", "version": "", "kind": info.kind}
                if _own(rtype, info)
                else {"group": info.group, "version": info.version, "kind": info.kind},
                "verbs": list(info.verbs),
            }
            for info in _subresources(rtype, version)
        ]
    return entry

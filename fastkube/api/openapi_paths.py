"""The operations that a resource has over HTTP: paths, methods, names and parameters, apart from any OpenAPI version.

A verb of the catalog makes an operation on the collection or on one object; a subresource's verbs make operations on
its path. Operations are named as upstream names them (`listCoreV1NamespacedPod`): generated clients are called so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from fastkube.api.catalog import ResourceType, SubresourceInfo, api_version


class Parameter(NamedTuple):
    """A parameter in the query or the path."""

    name: str
    type: str
    description: str = ""
    place: str = "query"


class Kind(NamedTuple):
    group: str
    kind: str
    version: str


class Operation(NamedTuple):
    """One method on one path. `kind` is what it is about, `action` is upstream's x-kubernetes-action."""

    path: str
    method: str
    action: str
    id: str
    tag: str
    kind: Kind
    description: str
    parameters: tuple[Parameter, ...]
    responses: dict[int, str]

    @property
    def needs_body(self) -> bool:
        return self.action in ("post", "put", "patch")


_DRY_RUN = Parameter("dryRun", "string", "`All`: do everything but keep nothing")
_FIELD_MANAGER = Parameter("fieldManager", "string", "who is said to have set the fields that change")
_FIELD_VALIDATION = Parameter("fieldValidation", "string", "unknown and duplicate fields: `Ignore`, `Warn` or `Strict`")
_FORCE = Parameter("force", "boolean", "an apply takes over fields that others manage")
_WRITE = (_DRY_RUN, _FIELD_MANAGER, _FIELD_VALIDATION)
_LIST = (
    Parameter("allowWatchBookmarks", "boolean", "whether a watch tells the resourceVersion from time to time"),
    Parameter("continue", "string", "where the page before said that the next one begins"),
    Parameter("fieldSelector", "string", "only objects whose fields match"),
    Parameter("labelSelector", "string", "only objects whose labels match"),
    Parameter("limit", "integer", "the most objects in one answer"),
    Parameter("resourceVersion", "string", "how fresh the answer must be"),
    Parameter("resourceVersionMatch", "string", "how resourceVersion is meant: `Exact` or `NotOlderThan`"),
    Parameter("sendInitialEvents", "boolean", "a watch begins with what there is"),
    Parameter("timeoutSeconds", "integer", "how long the request may take"),
    Parameter("watch", "boolean", "stream the changes"),
)
_DELETE = (
    _DRY_RUN,
    Parameter("gracePeriodSeconds", "integer", "how long the object may take to stop"),
    Parameter("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean", "delete it even if it cannot be read"),
    Parameter("orphanDependents", "boolean", "deprecated: use propagationPolicy"),
    Parameter("propagationPolicy", "string", "what happens to dependents: `Orphan`, `Background` or `Foreground`"),
)
_DELETE_MANY = (*_DELETE, *(parameter for parameter in _LIST if parameter.name not in ("allowWatchBookmarks", "watch")))
_NAME = Parameter("name", "string", "name of the object", "path")
_NAMESPACE = Parameter("namespace", "string", "namespace of the object", "path")
_PRETTY = Parameter("pretty", "string", "`true`: with line breaks")

_OK = {200: "OK", 401: "Unauthorized"}
_CREATED = {200: "OK", 201: "Created", 202: "Accepted", 401: "Unauthorized"}
_WRITTEN = {200: "OK", 201: "Created", 401: "Unauthorized"}
_DELETED = {200: "OK", 202: "Accepted", 401: "Unauthorized"}


class _Verb(NamedTuple):
    method: str
    action: str
    word: str  # the beginning of the operation's name
    parameters: tuple[Parameter, ...]
    responses: dict[int, str]


_ON_ALL = {
    "list": _Verb("get", "list", "list", _LIST, _OK),
    "create": _Verb("post", "post", "create", _WRITE, _CREATED),
    "deletecollection": _Verb("delete", "deletecollection", "delete", _DELETE_MANY, _OK),
}
_ON_ONE = {
    "get": _Verb("get", "get", "read", (), _OK),
    "create": _Verb("post", "post", "create", _WRITE, _CREATED),
    "update": _Verb("put", "put", "replace", _WRITE, _WRITTEN),
    "delete": _Verb("delete", "delete", "delete", _DELETE, _DELETED),
    "patch": _Verb("patch", "patch", "patch", (*_WRITE, _FORCE), _WRITTEN),
}
_CONNECTING = ("exec", "attach", "portforward", "proxy")


def path_parameters(path: str) -> list[Parameter]:
    """What every operation on a path takes."""
    found = [part for part in (_NAME, _NAMESPACE) if "{" + part.name + "}" in path]
    return [*found, _PRETTY]


def operations(rtype: ResourceType, version: str) -> Iterator[Operation]:
    """All operations on a resource in one version, its subresources' too."""
    root = ("/apis/" if rtype.group else "/api/") + api_version(rtype.group, version)
    everywhere = f"{root}/{rtype.resource}"
    collection = f"{root}/namespaces/{{namespace}}/{rtype.resource}" if rtype.namespaced else everywhere
    namer = _Namer(rtype, version)
    for verb in rtype.verbs:
        if verb in _ON_ALL:
            yield namer.make(collection, _ON_ALL[verb])
    if rtype.namespaced and "list" in rtype.verbs:
        yield namer.make(everywhere, _ON_ALL["list"], everywhere=True)
    one = collection + "/{name}"
    for verb in rtype.verbs:
        if verb in _ON_ONE and verb != "create":
            yield namer.make(one, _ON_ONE[verb])
    for sub in rtype.subresources.values():
        for verb in sub.verbs:
            if sub.name in _CONNECTING:
                yield namer.connect(f"{one}/{sub.name}", _ON_ONE[verb], sub)
            else:
                yield namer.make(f"{one}/{sub.name}", _ON_ONE[verb], sub)


class _Namer:
    """Names and tags of the operations of one resource in one version."""

    def __init__(self, rtype: ResourceType, version: str) -> None:
        self.rtype = rtype
        self.version = version
        words = rtype.group.removesuffix(".k8s.io").split(".") if rtype.group else ["core"]
        self.group = "".join(word[:1].upper() + word[1:] for word in words) + version[:1].upper() + version[1:]
        self.tag = f"{words[0] + ''.join(word[:1].upper() + word[1:] for word in words[1:])}_{version}"
        self.scope = "Namespaced" if rtype.namespaced else ""

    def make(
        self, path: str, verb: _Verb, sub: SubresourceInfo | None = None, *, everywhere: bool = False
    ) -> Operation:
        many = "Collection" if verb.action == "deletecollection" else ""
        scope = "" if everywhere else self.scope
        suffix = sub.name[:1].upper() + sub.name[1:] if sub else "ForAllNamespaces" if everywhere else ""
        name = f"{verb.word}{self.group}{many}{scope}{self.rtype.kind}{suffix}"
        kind = Kind(sub.group, sub.kind, sub.version) if sub else Kind(self.rtype.group, self.rtype.kind, self.version)
        about = f"{sub.name} of the specified {self.rtype.kind}" if sub else f"{self.rtype.kind} objects"
        return Operation(
            path,
            verb.method,
            verb.action,
            name,
            self.tag,
            kind,
            f"{verb.word} {about}",
            verb.parameters,
            verb.responses,
        )

    def connect(self, path: str, verb: _Verb, sub: SubresourceInfo) -> Operation:
        word = verb.method[:1].upper() + verb.method[1:]
        name = f"connect{self.group}{word}{self.scope}{self.rtype.kind}{sub.name[:1].upper() + sub.name[1:]}"
        kind = Kind(sub.group, sub.kind, sub.version)
        told = f"connect {verb.method.upper()} requests to {sub.name} of {self.rtype.kind}"
        return Operation(path, verb.method, "connect", name, self.tag, kind, told, (), _OK)

"""OpenAPI documents of what is served: one of version 2 for everything, one of version 3 for each group version.

They are made of the generated schemas, the catalog and, for custom kinds, of the schemas in their definitions. What
clients do with them: kubectl explains fields, finds out how patches merge, and learns from the operations' parameters
whether the server knows dryRun and fieldValidation.

Descriptions are those of the package `kubernetes-validate` (the extra `fastkube[explain]`); without it there are none.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fastkube.api.catalog import Catalog, ResourceType, api_version
from fastkube.api.generated import table
from fastkube.api.openapi_paths import Operation, Parameter, operations, path_parameters

Object = dict[str, Any]

RELEASE = "v1.36.0-local"
"""The release in kubernetes-validate whose descriptions fit the generated schemas."""

_PREFIXES = {
    "meta": "io.k8s.apimachinery.pkg.apis.",
    "runtime": "io.k8s.apimachinery.pkg.",
    "util": "io.k8s.apimachinery.pkg.",
    "api": "io.k8s.apimachinery.pkg.",
    "apiextensions": "io.k8s.apiextensions-apiserver.pkg.apis.",
    "apiregistration": "io.k8s.kube-aggregator.pkg.apis.",
}
_EXTENSIONS = {
    "listType": "x-kubernetes-list-type",
    "listKeys": "x-kubernetes-list-map-keys",
    "patchStrategy": "x-kubernetes-patch-strategy",
    "patchKey": "x-kubernetes-patch-merge-key",
    "mapType": "x-kubernetes-map-type",
}
_PLAIN: dict[str, Object] = {
    "s": {"type": "string"},
    "b": {"type": "boolean"},
    "i": {"type": "integer", "format": "int32"},
    "l": {"type": "integer", "format": "int64"},
    "d": {"type": "number", "format": "double"},
    "y": {"type": "string", "format": "byte"},
}
_NAMED = {
    "t": "meta.v1.Time",
    "u": "meta.v1.MicroTime",
    "q": "api.resource.Quantity",
    "x": "util.intstr.IntOrString",
    "f": "meta.v1.FieldsV1",
    "j": "runtime.RawExtension",
}
_UNIONS = {"A": "OrArray", "B": "OrBool", "S": "OrStringArray"}
_ZEROS: Object = {"s": "", "b": False, "i": 0, "l": 0, "d": 0}
_SPECIAL: dict[str, Object] = {
    "meta.v1.Time": {"type": "string", "format": "date-time"},
    "meta.v1.MicroTime": {"type": "string", "format": "date-time"},
    "api.resource.Quantity": {"type": "string"},
    "util.intstr.IntOrString": {"type": "string", "format": "int-or-string"},
    "meta.v1.FieldsV1": {"type": "object"},
    "meta.v1.Patch": {"type": "object"},
    "runtime.RawExtension": {"type": "object"},
    "apiextensions.v1.JSON": {},
    "apiextensions.v1.JSONSchemaPropsOrArray": {},
    "apiextensions.v1.JSONSchemaPropsOrBool": {},
    "apiextensions.v1.JSONSchemaPropsOrStringArray": {},
}
_TYPE_META = {"apiVersion": _PLAIN["s"], "kind": _PLAIN["s"]}
_JSON_TYPES = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"]
_STREAM_TYPES = ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"]
_CUSTOM_PATCH_TYPES = ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"]
_PATCH_TYPES = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
]
_OLD_ONLY = ("nullable", "anyOf", "oneOf", "allOf", "not")
"""What version 2 of OpenAPI does not have, as custom schemas use it."""


def full_name(name: str) -> str:
    """`io.k8s.api.core.v1.Pod` for `core.v1.Pod`."""
    return _PREFIXES.get(name.partition(".")[0], "io.k8s.api.") + name


# ---------------------------------------------------------------- descriptions


@cache
def _texts() -> dict[str, Any]:
    """The described definitions by full name; empty if the package is not installed."""
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or spec.origin is None:
        return {}
    path = Path(spec.origin).parent / "kubernetes-json-schema" / RELEASE / "_definitions.json"
    found: dict[str, Any] = json.loads(path.read_bytes())["$defs"] if path.exists() else {}
    return found


def _described(made: Object, name: str, field: str = "") -> Object:
    told = _texts().get(full_name(name), {})
    text = (told.get("properties", {}).get(field, {}) if field else told).get("description")
    return {"description": text, **made} if text else made


# ---------------------------------------------------------------- schemas


@dataclass(frozen=True)
class Dialect:
    """What differs between the two versions of OpenAPI in a schema."""

    version: int
    prefix: str

    def ref(self, name: str, default: Any = None) -> Object:
        """A reference to a definition by its full name. Version 3 allows nothing beside one, so it is wrapped."""
        pointer = {"$ref": self.prefix + name}
        if self.version == 2:
            return pointer
        return {"allOf": [pointer], "default": default} if default is not None else {"allOf": [pointer]}

    def item(self, code: str, owner: str) -> Object:
        """An item of a list or a value of a map."""
        return self.type(code, owner, {} if code[0] == "@" else _ZEROS.get(code[0]))

    def type(self, code: str, owner: str, default: Any = None) -> Object:
        """The schema for a type in the notation of the generated table."""
        letter, rest = code[0], code[1:]
        if letter == "[":
            return {"type": "array", "items": self.item(rest, owner)}
        if letter == "{":
            return {"type": "object", "additionalProperties": self.item(rest, owner)}
        if letter == "@":
            return self.ref(full_name(rest), default)
        if letter in _UNIONS and rest:
            return self.ref(full_name(rest[1:] + _UNIONS[letter]))
        if letter in _NAMED:
            name = "apiextensions.v1.JSON" if letter == "j" and owner.startswith("apiextensions") else _NAMED[letter]
            return self.ref(full_name(name))
        return {**_PLAIN[letter], "default": default} if self.version == 3 and default is not None else _PLAIN[letter]

    def field(self, told: Any, owner: str, name: str) -> Object:
        code, extras = (told, {}) if isinstance(told, str) else told
        always = code[-1] == "!"
        code = code.rstrip("*!0")
        default = extras.get("default", {} if code[0] == "@" else _ZEROS.get(code[0])) if always else None
        made = dict(self.type(code, owner, default if default is not None else extras.get("default")))
        made.update({_EXTENSIONS[key]: value for key, value in extras.items() if key in _EXTENSIONS})
        return _described(made, owner, name)

    def definition(self, name: str) -> Object:
        """The definition of a built-in type by its short name."""
        if name in _SPECIAL:
            return _described(dict(_SPECIAL[name]), name)
        row = table("schemas")[name]
        made: Object = {"type": "object"}
        if "fields" in row:
            made["properties"] = {field: self.field(told, name, field) for field, told in row["fields"].items()}
        if "required" in row:
            made["required"] = row["required"]
        if "mapType" in row:
            made["x-kubernetes-map-type"] = row["mapType"]
        if "kinds" in row:
            kinds = ({"group": group, "kind": kind, "version": version} for group, version, kind in row["kinds"])
            made["x-kubernetes-group-version-kind"] = list(kinds)
        return _described(made, name)


_V2 = Dialect(2, "#/definitions/")
_V3 = Dialect(3, "#/components/schemas/")


def _references(name: str) -> Iterator[str]:
    """Short names of the types that a built-in type's fields have."""
    for told in table("schemas").get(name, {}).get("fields", {}).values():
        code = (told if isinstance(told, str) else told[0]).rstrip("*!0").lstrip("[{")
        if code[0] in _UNIONS and code[1:]:
            yield code[2:] + _UNIONS[code[0]]
            yield code[2:]
        elif code[0] == "@":
            yield code[1:]
        elif code[0] in _NAMED:
            yield "apiextensions.v1.JSON" if code[0] == "j" and name.startswith("apiextensions") else _NAMED[code[0]]


def _closed(roots: Iterable[str]) -> list[str]:
    """The types and all that they lead to, sorted."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _references(name)
    return sorted(found)


@cache
def _names_by_kind() -> dict[tuple[str, str], str]:
    """The type of each built-in kind by (apiVersion, kind)."""
    found = {}
    for name, row in table("schemas").items():
        for group, version, kind in row.get("kinds", ()):
            found[api_version(group, version), kind] = name
    return found


# ---------------------------------------------------------------- custom kinds


def custom_name(rtype: ResourceType, version: str, kind: str) -> str:
    """`com.example.v1.Widget` for a Widget of example.com/v1."""
    return ".".join((*reversed(rtype.group.split(".")), version, kind))


def _custom(rtype: ResourceType, version: str, dialect: Dialect) -> Object:
    """The definitions of a custom kind and of its list."""
    shape = rtype.extra["schemas"][version].source or {}
    made = dict(_old(shape) if dialect.version == 2 else shape)
    made.setdefault("type", "object")
    made["properties"] = {
        **_TYPE_META,
        **made.get("properties", {}),
        "metadata": dialect.ref(full_name("meta.v1.ObjectMeta")),
    }
    made["x-kubernetes-group-version-kind"] = [{"group": rtype.group, "kind": rtype.kind, "version": version}]
    one = custom_name(rtype, version, rtype.kind)
    items = {
        "type": "object",
        "properties": {
            **_TYPE_META,
            "items": {"type": "array", "items": dialect.ref(one)},
            "metadata": dialect.ref(full_name("meta.v1.ListMeta")),
        },
        "required": ["items"],
        "x-kubernetes-group-version-kind": [{"group": rtype.group, "kind": rtype.list_kind, "version": version}],
    }
    return {one: made, custom_name(rtype, version, rtype.list_kind): items}


def _old(shape: Any) -> Any:
    """A custom schema without what version 2 has no words for."""
    if isinstance(shape, list):
        return [_old(item) for item in shape]
    if not isinstance(shape, dict):
        return shape
    kept = {key: _old(value) for key, value in shape.items() if key not in _OLD_ONLY}
    if isinstance(shape.get("properties"), dict):  # there, such a word is the name of a field
        kept["properties"] = {key: _old(value) for key, value in shape["properties"].items()}
    return kept


# ---------------------------------------------------------------- operations


class _Renderer:
    """Operations in one dialect; `used` gathers the built-in types that they speak of."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.used: set[str] = {"meta.v1.DeleteOptions", "meta.v1.Patch", "meta.v1.Status", "meta.v1.WatchEvent"}

    def body(self, rtype: ResourceType, version: str, operation: Operation) -> Object | None:
        """The schema of the kind that an operation is about; None if it is about text or a stream."""
        kind = operation.kind
        if rtype.custom and (kind.group, kind.version, kind.kind) == (rtype.group, version, rtype.kind):
            listed = rtype.list_kind if operation.action == "list" else rtype.kind
            return self.dialect.ref(custom_name(rtype, version, listed))
        wanted = kind.kind + "List" if operation.action == "list" else kind.kind
        name = _names_by_kind().get((api_version(kind.group, kind.version), wanted))
        if name is None:
            return None
        self.used.add(name)
        return self.dialect.ref(full_name(name))

    def paths(self, rtypes: Iterable[ResourceType], version: str = "") -> Object:
        made: dict[str, Object] = {}
        for rtype in rtypes:
            for served in rtype.versions if not version else (version,):
                for operation in operations(rtype, served):
                    item = made.setdefault(operation.path, {})
                    item[operation.method] = self.operation(rtype, served, operation)
        for path, item in made.items():
            item["parameters"] = [self.parameter(parameter) for parameter in path_parameters(path)]
        return made

    def parameter(self, parameter: Parameter) -> Object:
        made: Object = {"name": parameter.name, "in": parameter.place}
        if parameter.description:
            made["description"] = parameter.description
        if self.dialect.version == 2:
            made |= {"type": parameter.type, "uniqueItems": True}
        else:
            made["schema"] = {"type": parameter.type, "uniqueItems": True}
        if parameter.place == "path":
            made["required"] = True
        return made

    def operation(self, rtype: ResourceType, version: str, operation: Operation) -> Object:
        made: Object = {
            "description": operation.description,
            "operationId": operation.id,
            "tags": [operation.tag],
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": operation.kind._asdict(),
        }
        parameters = [self.parameter(parameter) for parameter in operation.parameters]
        shape = self.body(rtype, version, operation)
        sent = self._sent(operation, shape)
        answered = self._answered(operation, shape)
        types = _JSON_TYPES + (_STREAM_TYPES if operation.action == "list" else [])
        if operation.action == "connect" or shape is None:
            types = ["*/*"]
        takes = ["*/*"]
        if operation.action == "patch":  # clients choose the patch by this: no strategic ones for custom kinds
            takes = _CUSTOM_PATCH_TYPES if rtype.custom else _PATCH_TYPES
        if self.dialect.version == 2:
            if sent is not None:
                parameters.insert(0, {"name": "body", "in": "body", "required": operation.needs_body, "schema": sent})
            made["consumes"], made["produces"], made["schemes"] = takes, types, ["https"]
            made["responses"] = {
                str(code): {"description": text, **({"schema": answered} if answered and code < 400 else {})}
                for code, text in operation.responses.items()
            }
        else:
            if sent is not None:
                body: Object = {"content": {media: {"schema": sent} for media in takes}}
                made["requestBody"] = {**body, "required": True} if operation.needs_body else body
            content = {"content": {media: {"schema": answered} for media in types}} if answered else {}
            made["responses"] = {
                str(code): {"description": text, **(content if code < 400 else {})}
                for code, text in operation.responses.items()
            }
        if parameters:
            made["parameters"] = parameters
        return made

    def _sent(self, operation: Operation, shape: Object | None) -> Object | None:
        if operation.action in ("post", "put"):
            return shape
        if operation.action == "patch":
            return self.dialect.ref(full_name("meta.v1.Patch"))
        if operation.action in ("delete", "deletecollection"):
            return self.dialect.ref(full_name("meta.v1.DeleteOptions"))
        return None

    def _answered(self, operation: Operation, shape: Object | None) -> Object | None:
        if operation.action in ("delete", "deletecollection"):
            return self.dialect.ref(full_name("meta.v1.Status"))
        return shape or _PLAIN["s"]


# ---------------------------------------------------------------- documents

_BEARER = {
    "BearerToken": {
        "description": "Bearer Token authentication",
        "type": "apiKey",
        "name": "authorization",
        "in": "header",
    }
}


def v2(catalog: Catalog, version: str = "unversioned") -> Object:
    """The document of everything, in version 2; `version` is the server's."""
    renderer = _Renderer(_V2)
    rtypes = catalog.all()
    paths = renderer.paths(rtypes)
    definitions = {full_name(name): _V2.definition(name) for name in _closed([*table("schemas"), *renderer.used])}
    for rtype in rtypes:
        if rtype.custom:
            for served in rtype.versions:
                definitions |= _custom(rtype, served, _V2)
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "definitions": definitions,
        "securityDefinitions": _BEARER,
        "security": [{"BearerToken": []}],
    }


def v3(catalog: Catalog, name: str, version: str = "unversioned") -> Object:
    """The document `name` of version 3: `api/v1` and `apis/GROUP/VERSION` hold resources, others (`apis`) nothing."""
    renderer = _Renderer(_V3)
    group, served = _parsed(name)
    rtypes = [rtype for rtype in catalog.all() if rtype.group == group and served in rtype.versions]
    document: Object = {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": version}, "paths": {}}
    if not rtypes:
        document["components"] = {}
    else:
        document["paths"] = renderer.paths(rtypes, served)
        customs = [rtype for rtype in rtypes if rtype.custom]
        if customs:
            renderer.used |= {"meta.v1.ObjectMeta", "meta.v1.ListMeta"}
        schemas = {full_name(used): _V3.definition(used) for used in _closed(renderer.used)}
        for rtype in customs:
            schemas |= _custom(rtype, served, _V3)
        document["components"] = {"schemas": schemas}
    document["components"]["securitySchemes"] = {"BearerToken": _BEARER["BearerToken"]}
    return document


def _parsed(name: str) -> tuple[str, str]:
    """(group, version) of a document's name; ("", "") for one without resources."""
    parts = name.split("/")
    if parts[0] == "api" and len(parts) == 2:
        return "", parts[1]
    return (parts[1], parts[2]) if parts[0] == "apis" and len(parts) == 3 else ("", "")


# ---------------------------------------------------------------- schemas in one piece


def resolved(api_version: str, kind: str) -> Object | None:
    """The schema of a built-in kind with everything that it refers to in its place; None for no such kind. What
    contains itself ends there, with an object without fields."""
    name = _names_by_kind().get((api_version, kind))
    return _in_place(_V3.definition(name), (full_name(name),)) if name is not None else None


def with_meta(schema: Object) -> Object:
    """A custom kind's schema with the metadata that all objects have."""
    name = full_name("meta.v1.ObjectMeta")
    metadata = _in_place(_V3.definition("meta.v1.ObjectMeta"), (name,))
    properties = {**_TYPE_META, **(schema.get("properties") or {}), "metadata": metadata}
    return {**schema, "type": "object", "properties": properties}


_TYPELESS: dict[str, Object] = {
    full_name("api.resource.Quantity"): {},
    full_name("util.intstr.IntOrString"): {"x-kubernetes-int-or-string": True},
}
"""A text or a number: upstream's schemas of them in version 3 have no type."""


@cache
def _short_names() -> dict[str, str]:
    return {full_name(name): name for name in (*table("schemas"), *_SPECIAL)}


def _in_place(schema: Any, above: tuple[str, ...]) -> Any:
    """The schema without references; `above` are the definitions that it is in."""
    if isinstance(schema, list):
        return [_in_place(each, above) for each in schema]
    if not isinstance(schema, dict):
        return schema
    referred = schema.get("allOf")
    if isinstance(referred, list) and "$ref" in referred[0]:
        name = referred[0]["$ref"].removeprefix(_V3.prefix)
        if name in _TYPELESS:
            return _TYPELESS[name]
        return {"type": "object"} if name in above else _in_place(_V3.definition(_short_names()[name]), (*above, name))
    return {key: _in_place(value, above) for key, value in schema.items()}

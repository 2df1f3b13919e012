"""The CEL type of a structural schema (`openAPIV3Schema`), as Kubernetes derives it, with the sizes that it allows.

What a schema says nothing of has no type: fields under x-kubernetes-preserve-unknown-fields cannot be named. Values of
x-kubernetes-int-or-string are dyn. The names of fields are escaped where CEL has a meaning for them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fastkube.cel.lexer import KEYWORDS, RESERVED
from fastkube.cel.types import Field, Type

_REQUEST_MAX = 3 * 1024 * 1024
"""How large a request may be, in bytes: what bounds values that their schema does not."""

_ESCAPES = {".": "__dot__", "-": "__dash__", "/": "__slash__"}
_is_identifier = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII).fullmatch

_ROOT_METADATA = {"type": "object", "properties": {"name": {"type": "string"}, "generateName": {"type": "string"}}}


def escape(name: str) -> str:
    """How an expression names a field: `__namespace__`, `a__dash__b`; "" for what it cannot."""
    if name in RESERVED or name in KEYWORDS:
        return f"__{name}__"
    escaped = name.replace("__", "__underscores__")
    for char, word in _ESCAPES.items():
        escaped = escaped.replace(char, word)
    return escaped if _is_identifier(escaped) else ""


def declared(schema: Mapping[str, Any], *, root: bool = False, name: str = "object") -> Type | None:
    """The type of values of a schema; None if it has none. `root`: it is a whole object of a custom kind."""
    if root or schema.get("x-kubernetes-embedded-resource"):
        schema = _with_meta(schema, root)
    if schema.get("x-kubernetes-int-or-string"):
        return Type("dyn", max_size=_REQUEST_MAX - 2, min_bytes=1)
    match schema.get("type"):
        case "array":
            return _array(schema, name)
        case "object":
            return _object(schema, name)
        case "string":
            return _string(schema)
        case "boolean":
            return Type("bool", min_bytes=4)
        case "number":
            return Type("double", min_bytes=1)
        case "integer":
            return Type("int", min_bytes=1)
    return None


def _with_meta(schema: Mapping[str, Any], root: bool) -> dict[str, Any]:
    properties = dict(schema.get("properties") or {})
    properties["kind"] = {"type": "string"}
    properties["apiVersion"] = {"type": "string"}
    if root or "metadata" not in properties:
        given = (properties.get("metadata") or {}).get("properties") or {}
        limits = {key: {**given.get(key, {}), "type": "string"} for key in ("name", "generateName")}
        properties["metadata"] = {**_ROOT_METADATA, "properties": limits}
    return {**schema, "type": "object", "properties": properties}


def _array(schema: Mapping[str, Any], name: str) -> Type | None:
    items = schema.get("items")
    of = declared(items, name=name + ".@idx") if isinstance(items, Mapping) else None
    if of is None:
        return None
    count = schema.get("maxItems")
    most = count if count is not None else _most(of.min_bytes)
    return Type(
        "list",
        params=(of,),
        list_type=schema.get("x-kubernetes-list-type", "").replace("atomic", ""),
        keys=tuple(schema.get("x-kubernetes-list-map-keys") or ()),
        max_size=most,
        min_bytes=2,
    )


def _object(schema: Mapping[str, Any], name: str) -> Type | None:
    more = schema.get("additionalProperties")
    if isinstance(more, Mapping):
        of = declared(more, name=name + ".@elem")
        if of is None:
            return None
        count = schema.get("maxProperties")
        # {"": value, "a": value}: at least six bytes for an entry besides its value's
        most = count if count is not None else (_REQUEST_MAX - 2) // (of.min_bytes + 6)
        keys = Type("string", max_size=_REQUEST_MAX - 2, min_bytes=2)
        return Type("map", params=(keys, of), max_size=most, min_bytes=2)
    fields = {}
    required = frozenset(schema.get("required") or ())
    size = 2
    for key, each in (schema.get("properties") or {}).items():
        of = declared(each, name=f"{name}.{key}")
        if of is None:
            continue
        if key in required and "default" not in each:
            size += len(key) + of.min_bytes + 4
        if escaped := escape(key):
            fields[escaped] = Field(key, of)
    return Type("object", name, fields=fields, min_bytes=size)


def _string(schema: Mapping[str, Any]) -> Type:
    match schema.get("format"):
        case "byte":
            length = schema.get("maxLength")
            return Type("bytes", max_size=length if length is not None else _REQUEST_MAX - 2, min_bytes=2)
        case "duration":
            return Type("duration", max_size=_REQUEST_MAX - 2, min_bytes=4)
        case "date":
            return Type("timestamp", max_size=10, min_bytes=12)
        case "date-time":
            return Type("timestamp", max_size=35, min_bytes=22)
    if values := schema.get("enum"):
        longest = max((len(each) for each in values if isinstance(each, str)), default=0)
        return Type("string", max_size=longest, min_bytes=2)
    length = schema.get("maxLength")
    return Type("string", max_size=length * 4 if length is not None else _REQUEST_MAX - 2, min_bytes=2)


def _most(item_bytes: int) -> int:
    """The most items of a list in one request: each takes its bytes and a comma."""
    return (_REQUEST_MAX - 2) // (item_bytes + 1)

"""Structural schemas, one class for built-in and custom kinds: what fields there are, of which types, merged how.

Notation of the generated table (`schemas.json`): a type is one letter, possibly after prefixes, with a suffix.

    s string   b bool    i int32    l int64    d double   y bytes   j any JSON   f FieldsV1
    t Time     u MicroTime          q Quantity            x IntOrString
    @core.v1.Pod  the struct of that name       [T  list of T       {T  map of strings to T
    A@T, B@T, S@T  a struct or: a list of them, a bool, a list of strings (JSON schemas have such places)
    suffix  (none) left out when empty  * a pointer: kept as written  ! always written  0 always written, null if empty

Fields stand in the order in which Go's struct declares them, which is the one in which it writes them.
A field with more to tell is a pair of that and {listType, listKeys, mapType, patchStrategy, patchKey, default, go,
via}: `go` is Go's name of a type that has one (v1.RestartPolicy), `via` are the embedded structs it is reached through.
Types are loaded when they are first needed. The walk itself is in `_schema.pyx`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from fastkube import _schema
from fastkube._schema import Node, WrongType, met_empty, nullify
from fastkube.api import scalars
from fastkube.api.catalog import split_api_version
from fastkube.api.generated import table

__all__ = [
    "Schema",
    "WrongType",
    "empty_field",
    "from_openapi",
    "in_go_order",
    "load",
    "met_empty",
    "nullify",
    "parse_fault",
    "struct",
    "walk",
    "zero",
]

_SUFFIXES = {"*": 1, "!": 2, "0": 3}

_SCALARS: dict[str, tuple[str, str, str, Any, Callable[[Any], Any] | None]] = {
    # letter: kind of node, type and Go type, zero value, parser
    "s": ("string", "string", "string", "", None),
    "b": ("bool", "boolean", "bool", False, None),
    "i": ("int32", "integer", "int32", 0, None),
    "l": ("int64", "integer", "int64", 0, None),
    "d": ("double", "number", "float64", 0, None),
    "y": ("parsed", "string", "[]uint8", "", scalars.base64),
    "t": ("parsed", "string", "v1.Time", None, scalars.time),
    "u": ("parsed", "string", "v1.MicroTime", None, scalars.micro_time),
    "q": ("parsed", "string", "resource.Quantity", "0", scalars.quantity),
    "x": ("intOrString", "string", "int32", 0, None),
    "j": ("any", "any", "", None, None),
    "f": ("any", "any", "", None, None),
}


class Schema(Node):
    """One type, in its place as a field if it has a `name`.

    `type` is what JSON holds: object, map, array, string, boolean, integer, number or any. `code` is its notation in
    the generated table ("" for custom kinds). An object has `fields`; a map or array, or a custom object with
    additionalProperties, has `items`.
    """

    type: str = "any"
    code: str = ""
    struct_name: str = ""
    list_type: str = ""
    """atomic, set or map; "" where upstream says nothing (which means atomic)."""
    list_keys: tuple[str, ...] = ()
    map_type: str = ""
    """atomic or granular; "" means granular."""
    patch_strategies: frozenset[str] = frozenset()
    """merge, replace, retainKeys: what a strategic merge patch does with the field."""
    patch_key: str = ""
    via: tuple[str, ...] = ()
    """The embedded Go structs that the field is reached through, which Go's errors name."""
    default: Any = None
    required: tuple[str, ...] = ()
    format: str = ""
    nullable: bool = False
    embedded: bool = False
    """A custom kind's field that holds a whole object."""
    complete: Callable[[dict[str, Any]], None] | None = None
    """Of a custom kind as a whole: fills in its defaults and drops nulls, in place."""
    source: dict[str, Any] | None = None
    """Of a custom kind as a whole: the openAPIV3Schema that it was made of."""

    def field(self, name: str) -> Schema | None:
        """The schema of a field, or of a map's values."""
        found: Schema | None = self.fields.get(name) if self.type == "object" else None
        return found if found is not None or self.items is None or self.type == "array" else self.items

    @property
    def int_or_string(self) -> bool:
        return self.code[:1] == "x" or self.format == "int-or-string"

    @property
    def is_quantity(self) -> bool:
        return self.code[:1] == "q"


# ---------------------------------------------------------------- built-in kinds


@cache
def load(api_version: str, kind: str) -> Schema:
    """The schema of a built-in kind; KeyError if there is none of that name."""
    group, version = split_api_version(api_version)
    return struct(_names_by_kind()[group, version, kind])


def is_known(api_version: str, kind: str) -> bool:
    """Whether there is a built-in kind of that name."""
    return (*split_api_version(api_version), kind) in _names_by_kind()


@cache
def struct(name: str) -> Schema:
    """The schema of a built-in type by its name: `core.v1.PodSpec`."""
    return _make("@" + name, "", {})


@cache
def _names_by_kind() -> dict[tuple[str, str, str], str]:
    return {tuple(kind): name for name, row in table("schemas").items() for kind in row.get("kinds", ())}


def _fields(name: str) -> dict[str, Schema]:
    """The fields of a struct, for the node that stands for it."""
    made = {}
    for field, told in table("schemas")[name].get("fields", {}).items():
        code, extras = (told, {}) if isinstance(told, str) else told
        made[field] = _make(code, field, extras)
    return made


def _make(code: str, name: str, extras: dict[str, Any]) -> Schema:
    keep = _SUFFIXES.get(code[-1], 0)
    whole = code[:-1] if keep else code
    made = _make_type(whole, name, keep, extras.get("go", ""))
    made.via = tuple(extras.get("via", ()))
    made.code = whole
    made.list_type = extras.get("listType", "")
    made.list_keys = tuple(extras.get("listKeys", ()))
    made.map_type = extras.get("mapType", made.map_type)
    made.patch_strategies = frozenset(filter(None, extras.get("patchStrategy", "").split(",")))
    made.patch_key = extras.get("patchKey", "")
    made.default = extras.get("default")
    return made


def _make_type(code: str, name: str, keep: int, go_type: str = "") -> Schema:
    letter, rest = code[0], code[1:]
    if letter == "@":
        return _make_struct(rest, name, keep)
    if letter == "[":
        items = _make(rest, "", {"go": go_type[2:] if go_type.startswith("[]") else ""})
        made = Schema("list", name, keep, go_type or "[]" + items.go_type, items=items)
        made.type = "array"
        return made
    if letter == "{":
        items = _make(rest, "", {"go": go_type.partition("]")[2] if go_type.startswith("map[") else ""})
        made = Schema("map", name, keep, go_type or "map[string]" + items.go_type, items=items)
        made.type = "map"
        return made
    if letter in _UNION_CHECKS and rest:
        return Schema("union", name, keep, items=_make(rest, "", {}), parse=_UNION_CHECKS[letter])
    kind, plain, go_name, empty, parse = _SCALARS[letter]
    made = Schema(kind, name, keep, go_type or go_name, None if keep == 3 else empty, parse)
    made.type = plain
    made.format = "int-or-string" if letter == "x" else ""
    return made


def _make_struct(struct_name: str, name: str, keep: int) -> Schema:
    row = table("schemas")[struct_name]
    if "fields" not in row and struct_name != "apiextensions.v1.CustomResourceSubresourceStatus":
        return Schema("struct", name, keep, _go_name(struct_name), load=dict)
    made = Schema("struct", name, keep, _go_name(struct_name), load=partial(_fields, struct_name))
    made.type = "object"
    made.struct_name = struct_name
    made.required = tuple(row.get("required", ()))
    made.map_type = row.get("mapType", "")
    return made


def _go_name(struct_name: str) -> str:
    """`core.v1.Pod` is `v1.Pod` in Go's messages."""
    return ".".join(struct_name.split(".")[-2:])


def _schema_or_list(value: Any) -> None:
    if not isinstance(value, dict | list):
        raise WrongType(_schema.describe(value), "v1.JSONSchemaProps")


def _schema_or_bool(value: Any) -> None:
    if not isinstance(value, dict | bool):
        raise ValueError("boolean or JSON schema expected")


def _schema_or_strings(value: Any) -> None:
    if not isinstance(value, dict | list):
        raise WrongType(_schema.describe(value), "v1.JSONSchemaProps")


_UNION_CHECKS: dict[str, Callable[[Any], None]] = {
    "A": _schema_or_list,
    "B": _schema_or_bool,
    "S": _schema_or_strings,
}


# ---------------------------------------------------------------- custom kinds


def from_openapi(props: dict[str, Any]) -> Schema:
    """The schema of a custom kind from the `openAPIV3Schema` of its definition; {} takes everything."""
    if not props:
        props = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    made = _from_props(props, "", embedded=True)
    made.source = props
    return made


def _from_props(props: dict[str, Any], name: str, *, embedded: bool = False) -> Schema:
    kind = props.get("type", "")
    inside = kind == "object" or "properties" in props or props.get("additionalProperties") not in (None, False)
    if inside or embedded:
        made = _custom_object(props, name, embedded or bool(props.get("x-kubernetes-embedded-resource")))
    elif kind == "array" or "items" in props:
        items = props.get("items")
        made = Schema("array", name, items=_from_props(items, "") if isinstance(items, dict) else None)
        made.type = "array"
    else:
        made = Schema("any", name)
        made.type = kind or "any"
    made.preserve = bool(props.get("x-kubernetes-preserve-unknown-fields"))
    made.list_type = props.get("x-kubernetes-list-type", "")
    made.list_keys = tuple(props.get("x-kubernetes-list-map-keys", ()))
    made.map_type = props.get("x-kubernetes-map-type", "")
    made.default = props.get("default")
    made.required = tuple(props.get("required", ()))
    made.format = "int-or-string" if props.get("x-kubernetes-int-or-string") else props.get("format", "")
    made.nullable = bool(props.get("nullable"))
    return made


def _custom_object(props: dict[str, Any], name: str, embedded: bool) -> Schema:
    fields = {key: _from_props(value, key) for key, value in (props.get("properties") or {}).items()}
    if embedded:
        fields["apiVersion"] = fields["kind"] = _make("s", "", {})
        fields["metadata"] = struct("meta.v1.ObjectMeta")
    more = props.get("additionalProperties")
    items = _from_props(more if isinstance(more, dict) else {}, "") if more not in (None, False) else None
    made = Schema("object", name, items=items, load=lambda: fields)
    made.type = "object" if fields or items is None else "map"
    made.embedded = embedded
    return made


# ---------------------------------------------------------------- use


def walk(schema: Schema, obj: dict[str, Any]) -> list[str]:
    """Bring an object in line with its schema, in place, and tell of its unknown fields, in upstream's words.

    Unknown fields are removed, values made canonical, empty ones dropped or filled in as Go does. Raises ValueError
    with Go's message for the first value that does not fit.
    """
    return _schema.walk(schema, obj)


def empty_field(api_version: str, kind: str, field: str) -> Any:
    """What upstream writes for an empty field of a built-in kind; None if there is no such kind or field."""
    group, version = split_api_version(api_version)
    name = _names_by_kind().get((group, version, kind))
    shape = struct(name).fields.get(field) if name else None
    return zero(shape) if shape is not None else None


def zero(schema: Schema) -> Any:
    """What upstream writes for an empty value of this type: `zero(struct("apps.v1.ReplicaSetStatus"))` is
    `{"replicas": 0}`."""
    return _schema.zero(schema)


def parse_fault(schema: Schema, value: Any) -> ValueError | None:
    """The first value of a type that reads itself (a time, a quantity) and cannot be read. Go stops there; of other
    wrong types it only keeps the first in mind, and goes on."""
    if value is None:
        return None
    if schema.code[:1] in _READ_THEMSELVES and schema.parse is not None:
        try:
            schema.parse(value)
        except ValueError as fault:
            return fault
        return None
    if isinstance(value, list):
        found_in = (parse_fault(schema.items, item) for item in value if schema.type == "array")
        return next(filter(None, found_in), None)
    if not isinstance(value, dict) or schema.type not in ("object", "map"):
        return None
    for key, part in value.items():
        inner = schema.field(key)
        found = parse_fault(inner, part) if inner is not None else None
        if found is not None:
            if isinstance(found, WrongType) and inner is not None and schema.type == "object":
                found.path[0:0] = (*inner.via, key)
                found.struct = found.struct or schema.go_type.rpartition(".")[2]
            return found
    return None


_READ_THEMSELVES = frozenset("tuqD")


def in_go_order(value: Any, schema: Schema | None) -> Any:
    """JSON data with the keys of each object in the order in which Go writes them: fields of structs as these declare
    them, keys of maps and of custom kinds by the alphabet."""
    if isinstance(value, list):
        return [in_go_order(item, schema.items if schema is not None else None) for item in value]
    if not isinstance(value, dict):
        return value
    known = schema.fields if schema is not None and schema.struct_name else {}
    keys = [key for key in known if key in value]
    keys += sorted(value.keys() - known.keys())
    return {key: in_go_order(value[key], schema.field(key) if schema is not None else None) for key in keys}

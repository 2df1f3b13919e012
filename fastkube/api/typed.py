"""Objects with their types, as server-side apply sees them: which fields there are, what changed, what merges how.

A `Type` says of one place whether it is a leaf (a scalar, or a list or map that has one owner as a whole), a granular
map or struct, or a list whose items are known by their keys or, in a set, by their values. Types are made from the
schema when they are first needed.

    everything   the fields of a value that is new as a whole                     (all but the last two
    made         the fields that a new object sets, beyond those of an empty one   are in _fields.pyx)
    compare      the fields that were added, modified and removed between two objects
    applied      the fields that an applied configuration names
    merged       a configuration laid over a live object
    fits         whether a configuration has no faults
    faults       what they are
    pruned       an object without some of its fields

What is absent and what is null differ here, as in upstream's structured-merge-diff, whose rules these are.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

from fastkube._fields import (
    ANYTHING,
    DEDUCED,
    LEAF,
    LIST,
    MAP,
    SCALAR,
    Nameless,
    Type,
    applied,
    applied_entry,
    element,
    everything,
    fits,
    indexed,
    made,
    merged,
)
from fastkube._fields import compare as _compare
from fastkube.api.fieldsets import FieldSet, is_member, path_text
from fastkube.api.schema import Schema
from fastkube.api.strategic import go_text

__all__ = [
    "Comparison",
    "Fault",
    "Type",
    "applied",
    "compare",
    "everything",
    "faults",
    "fits",
    "made",
    "merged",
    "pruned",
    "reconciled",
    "type_of",
    "with_named_fields",
]

_ALWAYS_KEPT = 2  # Node.keep of the fields that Go writes even when they are empty

# Defaults of list keys that only Go's types tell: an item without the field has this value.
_KEY_DEFAULTS = {
    ("core.v1.ContainerPort", "protocol"): "TCP",
    ("core.v1.ServicePort", "protocol"): "TCP",
    ("core.v1.LocalObjectReference", "name"): "",
}
_ZERO_VALUES = {"string": "", "integer": 0}

_SCALARS = {"string": "string", "boolean": "boolean", "integer": "numeric", "number": "numeric"}
_UNTYPED_CODES = "tuqxD"  # times, quantities, int-or-string: scalars of any type


# ---------------------------------------------------------------- types


@lru_cache(maxsize=512)
def type_of(schema: Schema) -> Type:
    """The type of whole objects of this schema."""
    return _type(schema)


def _type(schema: Schema, name: str = "") -> Type:
    kind, scalar = _kind(schema)
    struct = kind == MAP and schema.type == "object"
    return Type(
        kind,
        element=f"f:{name}",
        leaf=_is_leaf(schema, kind),
        struct=struct,
        always=schema.keep >= _ALWAYS_KEPT,
        open=schema.preserve or kind == DEDUCED,
        fixed=schema.code != "",
        scalar=scalar,
        keys=_keys(schema) if schema.list_type == "map" else None,
        items=_type(schema.items) if schema.items is not None else None,
        load=partial(_fields, schema),
    )


def _fields(schema: Schema) -> dict[str, Type]:
    return {name: _type(child, name) for name, child in schema.fields.items()}


def _kind(schema: Schema) -> tuple[int, str]:
    if schema.int_or_string or (schema.code and schema.code[0] in _UNTYPED_CODES):
        return SCALAR, "untyped"
    if schema.type in _SCALARS:
        return SCALAR, _SCALARS[schema.type]
    if schema.type in ("object", "map"):
        return MAP, ""
    return (LIST if schema.type == "array" else DEDUCED), ""


def _is_leaf(schema: Schema, kind: int) -> bool:
    if kind == LIST:
        return schema.list_type not in ("map", "set")
    if kind == MAP:
        return schema.map_type == "atomic"
    return kind == SCALAR or schema.code != ""  # untyped parts of built-in kinds have one owner


def _keys(schema: Schema) -> dict[str, Any]:
    """The keys of a list's items with their defaults (None for those without), in the order of their names."""
    items = schema.items
    defaults: dict[str, Any] = {}
    for key in sorted(schema.list_keys):
        field = items.field(key) if items is not None else None
        told = field.default if field is not None else None
        struct = items.struct_name if items is not None else ""
        if told is None:
            told = _KEY_DEFAULTS.get((struct, key))
        if told is None and struct and field is not None and field.keep >= _ALWAYS_KEPT:
            told = _ZERO_VALUES.get(field.type)  # what Go always writes has its zero value
        defaults[key] = told
    return defaults


def _child(kind: Type, key: str) -> Type:
    """The type under a key of a map: a field, else that of any value."""
    return kind.fields.get(key) or kind.items or ANYTHING


def _declared(kind: Type, key: str) -> Type | None:
    """The same, but None for a key that the schema does not allow."""
    return kind.fields.get(key) or kind.items or (ANYTHING if kind.open else None)


# ---------------------------------------------------------------- what changed


class Comparison(NamedTuple):
    added: FieldSet
    modified: FieldSet
    removed: FieldSet


def compare(kind: Type, left: Any, right: Any) -> Comparison:
    """What `right` adds to, changes in and removes from `left`; both are whole objects."""
    return Comparison(*_compare(kind, left, right))


# ---------------------------------------------------------------- pruning


def pruned(kind: Type, value: Any, gone: FieldSet) -> Any:
    """The value without these fields; None where nothing is left of it. Shares parts with `value`."""
    if not value or not isinstance(value, (dict, list)):
        return value if not isinstance(value, (dict, list)) else None
    if kind.leaf or (isinstance(value, list) and kind.kind != LIST):
        return None
    if isinstance(value, list):
        return _pruned_list(kind, value, gone) or None
    out: dict[str, Any] = {}
    for key, part in value.items():
        node = gone.get("f:" + key)
        if node is None:
            out[key] = part
        elif not is_member(node):
            out[key] = pruned(_child(kind, key), part, node)
    return out or None


def _pruned_list(kind: Type, value: list[Any], gone: FieldSet) -> list[Any]:
    out: list[Any] = []
    for item in value:
        try:
            node = gone.get(element(kind, item))
        except Nameless:
            node = None
        if node is None:
            out.append(item)
        elif not is_member(node):
            out.append(pruned(kind.items or ANYTHING, item, node))
    return out


def with_named_fields(kind: Type, fields: FieldSet) -> FieldSet:
    """The set, and in it also each struct field that something in the set is below."""
    out: FieldSet = {}
    for key, node in fields.items():
        if key == ".":
            out[key] = node
            continue
        named = False
        child: Type | None = None
        if key[0] == "f" and kind.kind == MAP:
            child = kind.fields.get(key[2:])
            named = child is not None
            child = child or kind.items
        elif key[0] in "kv" and kind.kind == LIST:
            child = kind.items
        inner = with_named_fields(child or ANYTHING, node) if node else node
        out[key] = {".": LEAF, **inner} if named and inner and "." not in inner else inner
    return out


def reconciled(kind: Type, fields: FieldSet, value: Any) -> FieldSet:
    """The set after the schema of a custom kind changed: parts that are leaves now are owned whole, and of parts that
    are no longer, all that is there now."""
    out: FieldSet = {}
    for key, node in fields.items():
        child = _type_under(kind, key)
        if key == "." or child is None:
            out[key] = node
        elif child.leaf:
            out[key] = LEAF
        elif node:
            out[key] = reconciled(child, node, _under(kind, key, value))
        else:
            out[key] = applied_entry(child, _under(kind, key, value))
    return out


def _type_under(kind: Type, key: str) -> Type | None:
    if key[0] == "f":
        return _declared(kind, key[2:]) if kind.kind == MAP else None
    return kind.items if kind.kind == LIST else None


def _under(kind: Type, key: str, value: Any) -> Any:
    if key[0] == "f":
        return value.get(key[2:]) if isinstance(value, dict) else None
    return next(iter(indexed(kind, value).get(key, ())), None)


# ---------------------------------------------------------------- validation


class Fault(NamedTuple):
    path: str
    message: str


def faults(kind: Type, value: Any, path: str = "") -> Iterator[Fault]:
    """What is wrong with an applied configuration: unknown fields, wrong types, items without keys or given twice."""
    if value is None:
        return
    if kind.kind == SCALAR:
        yield from _scalar_faults(kind, value, path)
    elif kind.kind == LIST:
        if not isinstance(value, list):
            yield Fault(path, f"expected list, got &{{{go_text(value)}}}")
        else:
            yield from _list_faults(kind, value, path)
    elif kind.kind == MAP:
        if not isinstance(value, dict):
            yield Fault(path, f"expected map, got &{{{go_text(value)}}}")
        else:
            yield from _map_faults(kind, value, path)


def _map_faults(kind: Type, value: dict[str, Any], path: str) -> Iterator[Fault]:
    for key, part in value.items():
        child = _declared(kind, key)
        if child is None:
            yield Fault(f"{path}.{key}", "field not declared in schema")
            return
        yield from faults(child, part, f"{path}.{key}")


def _list_faults(kind: Type, value: list[Any], path: str) -> Iterator[Fault]:
    seen: set[str] = set()
    for number, item in enumerate(value):
        if kind.leaf:
            yield from faults(kind.items or ANYTHING, item, f"{path}[{number}]")
            continue
        try:
            name = element(kind, item)
        except Nameless as problem:
            yield Fault(path, f"element {number}: {problem}")
            return
        told = path_text((name,))
        if name in seen:
            yield Fault(path, f"duplicate entries for key {told}")
        seen.add(name)
        yield from faults(kind.items or ANYTHING, item, path + told)


_GO_TYPES = {str: "string", bool: "bool", dict: "map[string]interface {}", list: "[]interface {}"}


def _scalar_faults(kind: Type, value: Any, path: str) -> Iterator[Fault]:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind.scalar == "numeric" and not is_number:
        yield Fault(path, f"expected numeric (int or float), got {_GO_TYPES[type(value)]}")
    elif kind.scalar == "string" and not isinstance(value, str):
        yield Fault(path, f"expected string, got &value.valueUnstructured{{Value:{_go_syntax(value)}}}")
    elif kind.scalar == "boolean" and not isinstance(value, bool):
        yield Fault(path, f"expected boolean, got &{{{go_text(value)}}}")
    elif kind.scalar == "untyped" and isinstance(value, (dict, list)):
        yield Fault(path, f"expected any scalar, got &{{{go_text(value)}}}")


def _go_syntax(value: Any) -> str:
    """%#v of JSON data."""
    if isinstance(value, dict):
        told = ", ".join(f'"{key}":{_go_syntax(value[key])}' for key in sorted(value))
        return f"map[string]interface {{}}{{{told}}}"
    if isinstance(value, list):
        return "[]interface {}{" + ", ".join(map(_go_syntax, value)) + "}"
    return f'"{value}"' if isinstance(value, str) else go_text(value)

"""Sets of fields in the form of FieldsV1, which is also the form in which they are stored and computed with.

A set is a tree of dicts whose keys are path elements:

    f:spec                      a field or the key of a map
    k:{"name":"c"}              an item of a list, by its keys
    v:"example.com/x"           an item of a list of scalars, by its value
    i:3                         an item by its place
    .                           the node itself

    {"f:spec": {"f:replicas": {}, "f:template": {".": {}, "f:metadata": {}}}}

holds three paths: spec.replicas, spec.template and spec.template.metadata. A node without entries is in the set; one
with entries is only if "." is among them. The root alone is never in the set: there, {} is the empty set.

Sets are never changed in place, so they may share their parts (and every empty node is `LEAF`). Their algebra is in
`_fieldsets.pyx`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from fastkube._fields import LEAF
from fastkube._fieldsets import difference, intersection, union, without
from fastkube.api.field import quote

__all__ = [
    "LEAF",
    "FieldSet",
    "difference",
    "has",
    "intersection",
    "is_member",
    "is_well_formed",
    "of_path",
    "path_text",
    "paths",
    "union",
    "without",
]

FieldSet = dict[str, Any]

_SELF = "."


def is_member(node: FieldSet) -> bool:
    """Whether the node itself is in the set (not only something below it)."""
    return not node or _SELF in node


def has(fields: FieldSet, path: tuple[str, ...]) -> bool:
    node: FieldSet | None = fields
    for key in path:
        node = node.get(key) if node is not None else None
    return node is not None and is_member(node)


def of_path(path: tuple[str, ...]) -> FieldSet:
    """The set of one path."""
    fields = LEAF
    for key in reversed(path):
        fields = {key: fields}
    return fields


def paths(fields: FieldSet) -> Iterator[tuple[str, ...]]:
    """All paths, at each level first those that end there, in the order of their elements."""
    return _paths(fields, ())


def _paths(fields: FieldSet, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    keys = sorted((key for key in fields if key != _SELF), key=lambda key: ("fkvi".index(key[0]), key))
    for key in keys:
        if is_member(fields[key]):
            yield (*above, key)
    for key in keys:
        yield from _paths(fields[key], (*above, key))


def path_text(path: tuple[str, ...]) -> str:
    """A path as messages write it: `.spec.containers[name="c"].image`."""
    return "".join(map(_element_text, path))


def _element_text(element: str) -> str:
    kind, told = element[0], element[2:]
    if kind == "f":
        return f".{told}"
    if kind == "k":
        keys = orjson.loads(told)
        return "[" + ",".join(f"{name}={_value_text(keys[name])}" for name in sorted(keys)) + "]"
    return f"[={_value_text(orjson.loads(told))}]" if kind == "v" else f"[{told}]"


def _value_text(value: Any) -> str:
    if isinstance(value, str):
        return quote(value)
    return orjson.dumps(value).decode()


def is_well_formed(fields: Any) -> bool:
    """Whether a client's fieldsV1 is one."""
    return isinstance(fields, dict) and all(
        key == _SELF or (_is_element(key) and is_well_formed(node)) for key, node in fields.items()
    )


def _is_element(key: str) -> bool:
    kind, told = key[:2], key[2:]
    if kind == "f:":
        return True
    try:
        value = orjson.loads(told)
    except orjson.JSONDecodeError:
        return False
    if kind == "k:":
        return isinstance(value, dict) and bool(value)
    return kind == "v:" or (kind == "i:" and type(value) is int)

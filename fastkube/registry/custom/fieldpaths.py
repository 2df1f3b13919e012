"""Paths to fields in schemas (`.spec.color`, `.labels['a.b']`), as rules and selectable fields name them."""

from __future__ import annotations

import re
from typing import Any

Object = dict[str, Any]

_step = re.compile(r"\.([A-Za-z_][A-Za-z0-9_]*)|\['([^']*)'\]|\[([0-9]+)\]")


class PathError(ValueError):
    """The path leads to no field."""


def parse(path: str, schema: Object, *, indexes: bool = True) -> tuple[str, Object]:
    """The path as complaints write it, and the schema of the field. Raises PathError."""
    text, at, shown = path, 0, ""
    if not text or text[0] not in ".[":
        raise PathError(f"must not be empty, field path must start with a dot: {path}" if not text else _unknown(path))
    while at < len(text):
        match = _step.match(text, at)
        if match is None:
            raise PathError(_unknown(text[at:]))
        at = match.end()
        name, key, index = match.groups()
        if index is not None or (schema.get("type") == "array"):
            raise PathError("array index access is not supported" if indexes else "does not refer to a valid field")
        name = name if name is not None else key
        schema, as_key = _field(schema, name, path)
        shown += f"[{name}]" if as_key else (f".{name}" if shown else name)
    return shown, schema


def _unknown(rest: str) -> str:
    return f"does not refer to a valid field: {rest}"


def _field(schema: Object, name: str, path: str) -> tuple[Object, bool]:
    properties = schema.get("properties") or {}
    if name in properties:
        return properties[name], False
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        return more, True
    raise PathError(f"does not refer to a valid field: {path}")

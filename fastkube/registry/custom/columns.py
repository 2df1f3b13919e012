"""Printer columns and selectable fields of a definition."""

from __future__ import annotations

from typing import Any

from fastkube.api import field
from fastkube.errors import Cause
from fastkube.registry.custom.fieldpaths import PathError, parse

Object = dict[str, Any]

_TYPES = ("boolean", "date", "integer", "number", "string")
_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_SELECTABLE_MAX = 8


def column_faults(columns: list[Object] | None, path: str) -> list[Cause]:
    found: list[Cause] = []
    for index, column in enumerate(columns or ()):
        place = f"{path}[{index}]"
        if not column.get("name"):
            found.append(field.required(f"{place}.name"))
        kind, types = column.get("type") or "", f"must be one of {','.join(_TYPES)}"
        if not kind:
            found.append(field.required(f"{place}.type", types))
        elif kind not in _TYPES:
            found.append(field.invalid(f"{place}.type", kind, types))
        form = column.get("format")
        if form and form not in _FORMATS:
            found.append(field.invalid(f"{place}.format", form, f"must be one of {','.join(_FORMATS)}"))
        json_path = column.get("jsonPath") or ""
        if not json_path:
            found.append(field.required(f"{place}.JSONPath"))
        elif json_path[0] != ".":
            found.append(field.invalid(f"{place}.JSONPath", json_path, "must be a simple json path starting with ."))
    return found


def selectable_faults(fields: list[Object], schema: Object | None, path: str) -> list[Cause]:
    """`schema` is the version's; fields are found in it."""
    if not schema:
        told = "selectableFields may only be set when version.schema.openAPIV3Schema is not included"
        return [field.invalid(path, "", told)]
    found: list[Cause] = []
    seen: set[str] = set()
    for index, each in enumerate(fields):
        place, given = f"{path}[{index}].jsonPath", each.get("jsonPath") or ""
        if not given:
            found.append(field.required(place))
            continue
        try:
            name, below = parse(given, schema, indexes=False)
        except PathError as problem:
            found.append(field.invalid(place, given, f"is an invalid path: {problem}"))
            continue
        if name.partition(".")[0] == "metadata":
            found.append(field.invalid(place, given, "must not point to fields in metadata"))
        if below.get("type") not in ("string", "boolean", "integer"):
            told = (
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats "
                "are allowed."
            )
            found.append(field.invalid(place, given, told))
        if name in seen:
            found.append(field.duplicate(place, given))
        seen.add(name)
    if len(seen) > _SELECTABLE_MAX:
        found.append(field.too_many(path, len(seen), _SELECTABLE_MAX))
    return found

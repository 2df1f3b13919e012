"""Defaults of custom kinds: `complete(schema)` makes the function that fills them in, in place.

A null in a field that may not be null is as good as absent: it is dropped, or replaced by the default. The function is
None where a schema asks for neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastkube.api.meta import copy_of

Fill = Callable[[Any], None]
_ABSENT: Any = object()


def complete(schema: dict[str, Any]) -> Fill:
    """Fills in the defaults below a value and drops its nulls."""
    return _filler(schema) or (lambda value: None)


def _filler(schema: dict[str, Any]) -> Fill | None:
    if isinstance(schema.get("items"), dict):
        return _of_list(schema["items"])
    properties = schema.get("properties") or {}
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        return _of_map(more)
    return _of_object(properties) if properties else None


def _of_object(properties: dict[str, Any]) -> Fill:
    defaults = tuple((key, each["default"]) for key, each in properties.items() if each.get("default") is not None)
    fillers = {key: made for key, each in properties.items() if (made := _filler(each)) is not None}
    may_be_null = frozenset(key for key, each in properties.items() if each.get("nullable"))
    known = frozenset(properties)

    def fill(value: Any) -> None:
        if type(value) is not dict:
            return
        nulls = None
        for key, each in value.items():
            if each is None and key in known and key not in may_be_null:
                nulls = nulls or []
                nulls.append(key)
        if nulls is not None:
            for key in nulls:
                del value[key]
        for key, default in defaults:
            if key not in value:
                value[key] = copy_of(default)
        if fillers:
            for key, each in value.items():
                if key in fillers and each is not None:
                    fillers[key](each)

    return fill


def _of_map(schema: dict[str, Any]) -> Fill:
    default, nullable, filler = schema.get("default"), bool(schema.get("nullable")), _filler(schema)

    def fill(value: Any) -> None:
        if type(value) is not dict:
            return
        for key, each in list(value.items()):
            if each is None and not nullable:
                if default is None:
                    del value[key]
                    continue
                each = value[key] = copy_of(default)
            if filler is not None:
                filler(each)

    return fill


def _of_list(schema: dict[str, Any]) -> Fill | None:
    default, nullable, filler = schema.get("default"), bool(schema.get("nullable")), _filler(schema)
    if filler is None and default is None:
        return None

    def fill(value: Any) -> None:
        if type(value) is not list:
            return
        for index, each in enumerate(value):
            if each is None and not nullable and default is not None:
                each = value[index] = copy_of(default)
            if filler is not None:
                filler(each)

    return fill


def has_defaults(schema: Any) -> bool:
    """Whether any part of a schema has a default."""
    if not isinstance(schema, dict):
        return False
    if schema.get("default") is not None:
        return True
    parts = [*(schema.get("properties") or {}).values(), schema.get("items"), schema.get("additionalProperties")]
    return any(map(has_defaults, parts))

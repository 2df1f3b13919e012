"""What a declared type changes about values: how they are taken from JSON, and when they are equal.

JSON has no times, durations or bytes: where a schema's format says that a string is one, selecting it makes it so.
Lists that Kubernetes calls sets or maps compare without regard to order, and are joined as their kind asks.
"""

from __future__ import annotations

import binascii
import operator
from collections.abc import Callable
from functools import partial
from typing import Any

from fastkube.cel import times
from fastkube.cel.errors import EvalError
from fastkube.cel.types import Type
from fastkube.cel.values import contains, equal

_DIRECT = frozenset(("bool", "string", "bytes", "timestamp", "duration"))


def _bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return binascii.a2b_base64(value)
    except binascii.Error:
        raise EvalError("invalid base64") from None


def _timestamp(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return times.parse_timestamp(value if "T" in value or "t" in value else f"{value}T00:00:00Z")


def _duration(value: Any) -> Any:
    return times.parse_duration(value) if isinstance(value, str) else value


_FROM_JSON: dict[str, Callable[[Any], Any]] = {"bytes": _bytes, "timestamp": _timestamp, "duration": _duration}


def converter(kind: Type) -> Callable[[Any], Any] | None:
    """What makes CEL's value of JSON's; None where they are the same."""
    if kind.kind == "list":
        of_item = converter(kind.params[0])
        return None if of_item is None else lambda items: list(map(of_item, items))
    if kind.kind == "map":
        of_value = converter(kind.params[1])
        return None if of_value is None else lambda mapping: {key: of_value(each) for key, each in mapping.items()}
    return _FROM_JSON.get(kind.kind)


# ---------------------------------------------------------------- equality


def equality(one: Type, other: Type, *, wanted: bool = True) -> Callable[[Any, Any], bool]:
    """`==` (or `!=`) between values of these types, as plainly as they allow."""
    if one.kind == other.kind and one.kind in _DIRECT:
        return operator.eq if wanted else operator.ne
    special = _special(one) or _special(other)
    same = special or equal
    return same if wanted else lambda a, b: not same(a, b)


def _special(kind: Type) -> Callable[[Any, Any], bool] | None:
    """Equality of what holds a set or map list somewhere; None for all else."""
    match kind.kind:
        case "list":
            of_item = _special(kind.params[0])
            if kind.list_type == "set":
                return _same_set
            if kind.list_type == "map":
                return partial(_same_map_list, kind.keys, of_item or equal)
            return None if of_item is None else partial(_same_list, of_item)
        case "map":
            of_value = _special(kind.params[1])
            return None if of_value is None else partial(_same_map, lambda key: of_value)
        case "object":
            fields = {field.key: _special(field.type) for field in kind.fields.values()}
            if any(fields.values()):
                return partial(_same_map, lambda key: fields.get(key) or equal)
    return None


def _same_set(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(contains(other, item) for item in one)


def _same_list(same: Callable[[Any, Any], bool], one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(map(same, one, other))


def _identity(keys: tuple[str, ...], item: Any) -> tuple[Any, ...]:
    return tuple((type(item.get(key)), item.get(key)) for key in keys)


def _same_map_list(keys: tuple[str, ...], same: Callable[[Any, Any], bool], one: list[Any], other: list[Any]) -> bool:
    if len(one) != len(other):
        return False
    by_key = {_identity(keys, item): item for item in other}
    return all((key := _identity(keys, item)) in by_key and same(item, by_key[key]) for item in one)


def _same_map(same: Callable[[str], Callable[[Any, Any], bool]], one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(key in other and same(key)(each, other[key]) for key, each in one.items())


# ---------------------------------------------------------------- concatenation


def concatenation(kind: Type) -> Callable[[list[Any], list[Any]], list[Any]]:
    """`+` of set and map lists: the right side's items take the place of their like, the others follow."""
    if kind.list_type == "set":
        return _union
    if kind.list_type == "map":
        return partial(_merged, kind.keys)
    return operator.add


def _union(one: list[Any], other: list[Any]) -> list[Any]:
    made = list(one)
    made += [item for item in other if not contains(made, item)]
    return made


def _merged(keys: tuple[str, ...], one: list[Any], other: list[Any]) -> list[Any]:
    made = {_identity(keys, item): item for item in one}
    made.update((_identity(keys, item), item) for item in other)
    return list(made.values())

"""Kubernetes' libraries for lists and sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastkube.cel.errors import EvalError
from fastkube.cel.functions import function, method
from fastkube.cel.values import NONE, Optional, contains, duration, equal, whole

_ORDERED = ("int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes")
_SUMMED = {"int": 0, "uint": 0, "double": 0.0, "duration": 0}


def _is_sorted(items: list[Any]) -> bool:
    return all(items[index] <= items[index + 1] for index in range(len(items) - 1))


def _extreme(name: str, choose: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
    def call(items: list[Any]) -> Any:
        if not items:
            raise EvalError(f"{name} called on empty list")
        return choose(items)

    return call


def _sum(kind: str) -> Callable[[list[Any]], Any]:
    if kind == "double":
        return lambda items: float(sum(items))
    if kind == "duration":
        return lambda items: duration(sum(map(int, items)))
    return lambda items: whole(sum(items)) if kind == "int" else type(items[0])(sum(items)) if items else 0


def _index_of(items: list[Any], wanted: Any) -> int:
    return next((index for index, item in enumerate(items) if equal(item, wanted)), -1)


def _last_index_of(items: list[Any], wanted: Any) -> int:
    return next((index for index in reversed(range(len(items))) if equal(items[index], wanted)), -1)


def _distinct(items: list[Any]) -> list[Any]:
    made: list[Any] = []
    for item in items:
        if not contains(made, item):
            made.append(item)
    return made


def _slice(items: list[Any], start: int, end: int) -> list[Any]:
    if start < 0 or end < 0:
        raise EvalError(f"cannot slice({start}, {end}), negative indexes not supported")
    if start > end:
        raise EvalError(f"cannot slice({start}, {end}), start index must be less than or equal to end index")
    if end > len(items):
        raise EvalError(f"cannot slice({start}, {end}), list is length {len(items)}")
    return items[start:end]


def _flatten(items: list[Any], depth: int = 1) -> list[Any]:
    if depth < 0:
        raise EvalError("level must be non-negative")
    made: list[Any] = []
    for item in items:
        if isinstance(item, list) and depth > 0:
            made += _flatten(item, depth - 1)
        else:
            made.append(item)
    return made


def _sorted(items: list[Any]) -> list[Any]:
    try:
        return sorted(items)
    except TypeError:
        raise EvalError("list elements must have the same type") from None


LISTS = (
    *(method("isSorted", f"list({kind}) -> bool", _is_sorted) for kind in _ORDERED),
    *(method("min", f"list({kind}) -> {kind}", _extreme("min", min)) for kind in _ORDERED),
    *(method("max", f"list({kind}) -> {kind}", _extreme("max", max)) for kind in _ORDERED),
    *(method("sum", f"list({kind}) -> {kind}", _sum(kind)) for kind in _SUMMED),
    method("indexOf", "list(A), A -> int", _index_of),
    method("lastIndexOf", "list(A), A -> int", _last_index_of),
    method("distinct", "list(A) -> list(A)", _distinct),
    method("slice", "list(A), int, int -> list(A)", _slice),
    method("flatten", "list(list(A)) -> list(A)", _flatten),
    method("flatten", "list(dyn), int -> list(dyn)", _flatten),
    *(method("sort", f"list({kind}) -> list({kind})", _sorted) for kind in _ORDERED),
    method("reverse", "list(A) -> list(A)", lambda items: items[::-1]),
    method("first", "list(A) -> optional(A)", lambda items: Optional(items[0]) if items else NONE),
    method("last", "list(A) -> optional(A)", lambda items: Optional(items[-1]) if items else NONE),
    function("lists.range", "int -> list(int)", lambda count: list(range(count))),
)

# ---------------------------------------------------------------- sets


def _is_subset(one: list[Any], other: list[Any]) -> bool:
    return all(contains(one, item) for item in other)


SETS = (
    function("sets.contains", "list(A), list(A) -> bool", _is_subset),
    function("sets.equivalent", "list(A), list(A) -> bool", lambda a, b: _is_subset(a, b) and _is_subset(b, a)),
    function("sets.intersects", "list(A), list(A) -> bool", lambda a, b: any(contains(a, item) for item in b)),
)

OVERLOADS = (*LISTS, *SETS)

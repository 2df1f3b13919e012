"""CEL's optional values."""

from __future__ import annotations

from typing import Any

from fastkube.cel.errors import EvalError
from fastkube.cel.functions import function, method
from fastkube.cel.values import NONE, Optional


def _is_zero(value: Any) -> bool:
    return value is None or (isinstance(value, bool | int | float | str | bytes | list | dict) and not value)


def _value(optional: Optional) -> Any:
    if not optional.present:
        raise EvalError("optional.none() dereference")
    return optional.value


def _item(items: list[Any], index: int) -> Optional:
    return Optional(items[index]) if 0 <= index < len(items) else NONE


def _entry(mapping: dict[Any, Any], key: Any) -> Optional:
    try:
        return Optional(mapping[key]) if key in mapping else NONE
    except TypeError:
        return NONE


OVERLOADS = (
    function("optional.of", "A -> optional(A)", Optional),
    function("optional.none", "-> optional(A)", lambda: NONE),
    function("optional.ofNonZeroValue", "A -> optional(A)", lambda value: NONE if _is_zero(value) else Optional(value)),
    method("hasValue", "optional(A) -> bool", lambda optional: optional.present),
    method("value", "optional(A) -> A", _value),
    method("or", "optional(A), optional(A) -> optional(A)", lambda one, other: one if one.present else other),
    method("orValue", "optional(A), A -> A", lambda optional, value: optional.value if optional.present else value),
    function(
        "optional.unwrap", "list(optional(A)) -> list(A)", lambda items: [each.value for each in items if each.present]
    ),
    method("unwrapOpt", "list(optional(A)) -> list(A)", lambda items: [each.value for each in items if each.present]),
    function("_[?_]", "list(A), int -> optional(A)", _item),
    function("_[?_]", "map(A, B), A -> optional(B)", _entry),
    function("_[?_]", "optional(list(A)), int -> optional(A)", lambda a, b: _item(a.value, b) if a.present else NONE),
    function("_[?_]", "optional(map(A, B)), A -> optional(B)", lambda a, b: _entry(a.value, b) if a.present else NONE),
    function("_[_]", "optional(list(A)), int -> optional(A)", lambda a, b: _item(a.value, b) if a.present else NONE),
    function("_[_]", "optional(map(A, B)), A -> optional(B)", lambda a, b: _entry(a.value, b) if a.present else NONE),
)

"""Complaints about one field, in the form of upstream's `field.Error`: paths, bad values and the standing phrases.

Rules:
  1. A path is a plain string: `spec.containers[0].name`, `metadata.annotations[example.com/x]`; "" is the object.
  2. Every function returns an `errors.Cause`; `errors.invalid` makes the 422 answer of a list of them.
  3. A bad value is printed as Go prints it: strings quoted, numbers and booleans bare, all else as JSON with sorted
     keys, as Go has for maps. What Go holds as a struct is printed in the struct's own order: wrap it in `struct`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from fastkube.errors import Cause

_GO_ESCAPES = {
    "\\": "\\\\",
    '"': '\\"',
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}
_HTML_ESCAPES = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


class Literal(str):
    """A bad value already in the form in which it is printed."""

    __slots__ = ()


def struct(value: Any) -> Literal:
    """A bad value that Go holds as a struct (or a list of them): printed as JSON in the order of its keys."""
    return Literal(_json(value, sort=False))


def child(path: str, *names: str) -> str:
    """`child("spec", "strategy", "type")` is `spec.strategy.type`; `child("", "spec")` is `spec`."""
    return ".".join((path, *names)) if path else ".".join(names)


def at(path: str, key: int | str) -> str:
    """An item of a list by its index, or of a map by its key: `path[key]`."""
    return f"{path}[{key}]"


def quote(text: str) -> str:
    """The text in double quotes with Go's escapes (%q)."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(map(_escape, text)) + '"'


def _escape(char: str) -> str:
    if char in _GO_ESCAPES:
        return _GO_ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def show(value: Any) -> str:
    """A bad value as Go's field errors print it."""
    if isinstance(value, Literal):
        return str(value)
    if isinstance(value, str):
        return quote(value)
    return _json(value, sort=True)


def _json(value: Any, sort: bool) -> str:
    """JSON as Go marshals it: compact, `<`, `>` and `&` escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort)
    return text.translate(_HTML_ESCAPES)


def _detailed(phrase: str, detail: str) -> str:
    return f"{phrase}: {detail}" if detail else phrase


def required(path: str, detail: str = "") -> Cause:
    return Cause("FieldValueRequired", _detailed("Required value", detail), path)


def invalid(path: str, value: Any, detail: str) -> Cause:
    return Cause("FieldValueInvalid", _detailed(f"Invalid value: {show(value)}", detail), path)


def type_invalid(path: str, value: Any, detail: str) -> Cause:
    return Cause("FieldValueTypeInvalid", _detailed(f"Invalid value: {show(value)}", detail), path)


def unfit(path: str, detail: str) -> Cause:
    """An invalid value which upstream does not print."""
    return Cause("FieldValueInvalid", _detailed("Invalid value", detail), path)


def not_supported(path: str, value: Any, allowed: Iterable[str]) -> Cause:
    """`allowed` is named in the order given: upstream mostly sorts (sets), sometimes does not (slices)."""
    names = ", ".join(map(quote, allowed))
    detail = f"supported values: {names}" if names else ""
    return Cause("FieldValueNotSupported", _detailed(f"Unsupported value: {show(value)}", detail), path)


def forbidden(path: str, detail: str = "") -> Cause:
    return Cause("FieldValueForbidden", _detailed("Forbidden", detail), path)


def duplicate(path: str, value: Any, detail: str = "") -> Cause:
    return Cause("FieldValueDuplicate", _detailed(f"Duplicate value: {show(value)}", detail), path)


def not_found(path: str, value: Any, detail: str = "") -> Cause:
    return Cause("FieldValueNotFound", _detailed(f"Not found: {show(value)}", detail), path)


def too_long(path: str, max_length: int, unit: str = "bytes") -> Cause:
    return Cause("FieldValueTooLong", f"Too long: may not be more than {max_length} {unit}", path)


def too_many(path: str, count: int, max_count: int) -> Cause:
    items = "item" if max_count == 1 else "items"
    return Cause("FieldValueTooMany", f"Too many: {count}: must have at most {max_count} {items}", path)


def internal(path: str, problem: str) -> Cause:
    return Cause("InternalError", f"Internal error: {problem}", path)


# The details that many validations share, in upstream's words.

IMMUTABLE = "field is immutable"


def between(low: int, high: int) -> str:
    return f"must be between {low} and {high}, inclusive"


def at_least(low: int) -> str:
    return f"must be greater than or equal to {low}"


def non_negative(path: str, value: int) -> list[Cause]:
    """The complaint about a number below zero, if it is one."""
    return [] if value >= 0 else [invalid(path, value, at_least(0))]

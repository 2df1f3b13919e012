"""CEL's own operators and functions; what short-circuits, selects or loops is in `program.py`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from fastkube.api import regex
from fastkube.cel import times
from fastkube.cel.errors import EvalError
from fastkube.cel.functions import NO_OVERLOAD, Overload, function, method
from fastkube.cel.values import (
    INT_MAX,
    INT_MIN,
    SECOND_NS,
    UINT_MAX,
    TypeValue,
    Uint,
    contains,
    duration,
    equal,
    timestamp,
    type_name,
    unsigned,
    whole,
)

_NUMBERS = ("int", "uint", "double")


def divide(one: int, other: int) -> int:
    """Toward zero, as Go does."""
    if other == 0:
        raise EvalError("division by zero")
    quotient = abs(one) // abs(other)
    return whole(quotient if (one < 0) == (other < 0) else -quotient)


def modulo(one: int, other: int) -> int:
    """With the sign of the dividend."""
    if other == 0:
        raise EvalError("modulus by zero")
    rest = abs(one) % abs(other)
    return -rest if one < 0 else rest


def divide_unsigned(one: int, other: int) -> Uint:
    if other == 0:
        raise EvalError("division by zero")
    return Uint(int(one) // int(other))


def modulo_unsigned(one: int, other: int) -> Uint:
    if other == 0:
        raise EvalError("modulus by zero")
    return Uint(int(one) % int(other))


def divide_double(one: float, other: float) -> float:
    if other == 0:
        if one == 0 or math.isnan(one):
            return math.nan
        return math.copysign(math.inf, one) * math.copysign(1, other)
    return one / other


def show_double(value: float) -> str:
    """Go's strconv.FormatFloat(v, 'g', -1, 64)."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    _, digits, exponent = Decimal(repr(float(value))).normalize().as_tuple()
    power = len(digits) - 1 + int(exponent)
    if -4 <= power < 6:
        return f"{Decimal(repr(float(value))).normalize():f}"
    return _scientific(value, "".join(map(str, digits)), power)


def _scientific(value: float, digits: str, power: int) -> str:
    fraction = "." + digits[1:] if len(digits) > 1 else ""
    return f"{'-' if value < 0 else ''}{digits[0]}{fraction}e{'-' if power < 0 else '+'}{abs(power):02}"


_is_integer = re.compile(r"[+-]?[0-9]+", re.ASCII).fullmatch


def _int_of_string(text: str) -> int:
    if not _is_integer(text):
        raise EvalError(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    value = int(text)
    if not INT_MIN <= value <= INT_MAX:
        raise EvalError(f'strconv.ParseInt: parsing "{text}": value out of range')
    return value


def _uint_of_string(text: str) -> Uint:
    if not _is_integer(text) or text[0] in "+-":
        raise EvalError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if int(text) > UINT_MAX:
        raise EvalError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return Uint(text)


def _int_of_double(value: float) -> int:
    if math.isnan(value) or math.isinf(value) or not INT_MIN < value < INT_MAX:
        raise EvalError("integer overflow")
    return int(value)


def _uint_of_double(value: float) -> Uint:
    if math.isnan(value) or not 0 <= value < UINT_MAX:
        raise EvalError("unsigned integer overflow")
    return Uint(value)


_is_float = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?:inf|infinity)|nan", re.I
).fullmatch


def _double_of_string(text: str) -> float:
    if not _is_float(text):
        raise EvalError(f'strconv.ParseFloat: parsing "{text}": invalid syntax')
    return float(text)


_TRUE, _FALSE = (
    frozenset(("1", "t", "T", "true", "TRUE", "True")),
    frozenset(("0", "f", "F", "false", "FALSE", "False")),
)


def _bool_of_string(text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise EvalError("type conversion error from 'string' to 'bool'")


def _string_of_bytes(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise EvalError("invalid UTF-8 in bytes, cannot convert to string") from None


def matches(text: str, pattern: str) -> bool:
    """RE2, anywhere in the text."""
    try:
        return regex.compile(pattern).matches(text)
    except regex.RegexError as error:
        raise EvalError(str(error)) from None


def _contains_key(key: Any, mapping: dict[Any, Any]) -> bool:
    try:
        return (key in mapping and type(key) is not bool) or any(equal(key, each) for each in mapping)
    except TypeError:
        return False


def _item(items: list[Any], index: Any) -> Any:
    if type(index) is float:
        if not index.is_integer():
            raise EvalError(NO_OVERLOAD)
        index = int(index)
    if 0 <= index < len(items):
        return items[index]
    raise EvalError(f"index out of bounds: {index}")


def _value(mapping: dict[Any, Any], key: Any) -> Any:
    try:
        return mapping[key]
    except KeyError:
        raise EvalError(f"no such key: {key}") from None
    except TypeError:
        raise EvalError(NO_OVERLOAD) from None


def _comparisons() -> tuple[Overload, ...]:
    found = []
    signs: dict[str, Callable[[Any, Any], bool]] = {
        "_<_": operator.lt,
        "_<=_": operator.le,
        "_>_": operator.gt,
        "_>=_": operator.ge,
    }
    for name, call in signs.items():
        kinds = ("bool", "string", "bytes", "timestamp", "duration")
        found += [function(name, f"{kind}, {kind} -> bool", call) for kind in kinds]
        found += [function(name, f"{one}, {other} -> bool", call) for one in _NUMBERS for other in _NUMBERS]
    return tuple(found)


_ARITHMETIC = (
    function("_+_", "int, int -> int", lambda a, b: whole(a + b)),
    function("_+_", "uint, uint -> uint", lambda a, b: unsigned(a + b)),
    function("_+_", "double, double -> double", operator.add),
    function("_+_", "string, string -> string", operator.add),
    function("_+_", "bytes, bytes -> bytes", operator.add),
    function("_+_", "list(A), list(A) -> list(A)", operator.add),
    function("_+_", "duration, duration -> duration", lambda a, b: duration(int(a) + int(b))),
    function("_+_", "timestamp, duration -> timestamp", lambda a, b: timestamp(int(a) + int(b))),
    function("_+_", "duration, timestamp -> timestamp", lambda a, b: timestamp(int(a) + int(b))),
    function("_-_", "int, int -> int", lambda a, b: whole(a - b)),
    function("_-_", "uint, uint -> uint", lambda a, b: unsigned(a - b)),
    function("_-_", "double, double -> double", operator.sub),
    function("_-_", "duration, duration -> duration", lambda a, b: duration(int(a) - int(b))),
    function("_-_", "timestamp, timestamp -> duration", lambda a, b: duration(int(a) - int(b))),
    function("_-_", "timestamp, duration -> timestamp", lambda a, b: timestamp(int(a) - int(b))),
    function("_*_", "int, int -> int", lambda a, b: whole(a * b)),
    function("_*_", "uint, uint -> uint", lambda a, b: unsigned(a * b)),
    function("_*_", "double, double -> double", operator.mul),
    function("_/_", "int, int -> int", divide),
    function("_/_", "uint, uint -> uint", divide_unsigned),
    function("_/_", "double, double -> double", divide_double),
    function("_%_", "int, int -> int", modulo),
    function("_%_", "uint, uint -> uint", modulo_unsigned),
    function("-_", "int -> int", lambda a: whole(-a)),
    function("-_", "double -> double", operator.neg),
    function("!_", "bool -> bool", operator.not_),
)

_CONVERSIONS = (
    function("int", "int -> int", lambda a: a),
    function("int", "uint -> int", lambda a: whole(int(a))),
    function("int", "double -> int", _int_of_double),
    function("int", "string -> int", _int_of_string),
    function("int", "timestamp -> int", lambda a: int(a) // SECOND_NS),
    function("int", "duration -> int", lambda a: int(a)),
    function("uint", "uint -> uint", lambda a: a),
    function("uint", "int -> uint", unsigned),
    function("uint", "double -> uint", _uint_of_double),
    function("uint", "string -> uint", _uint_of_string),
    function("double", "double -> double", float),
    function("double", "int -> double", float),
    function("double", "uint -> double", float),
    function("double", "string -> double", _double_of_string),
    function("bool", "bool -> bool", lambda a: a),
    function("bool", "string -> bool", _bool_of_string),
    function("string", "string -> string", lambda a: a),
    function("string", "bool -> string", lambda a: "true" if a else "false"),
    function("string", "int -> string", str),
    function("string", "uint -> string", lambda a: str(int(a))),
    function("string", "double -> string", show_double),
    function("string", "bytes -> string", _string_of_bytes),
    function("string", "timestamp -> string", times.show_timestamp),
    function("string", "duration -> string", times.show_duration),
    function("bytes", "bytes -> bytes", lambda a: a),
    function("bytes", "string -> bytes", str.encode),
    function("dyn", "A -> dyn", lambda a: a),
    function("type", "A -> type(A)", lambda a: TypeValue(type_name(a))),
)

OVERLOADS = (
    *_ARITHMETIC,
    *_comparisons(),
    *_CONVERSIONS,
    function("_==_", "A, A -> bool", equal),
    function("_!=_", "A, A -> bool", lambda a, b: not equal(a, b)),
    function("@in", "A, list(A) -> bool", lambda a, b: contains(b, a)),
    function("@in", "A, map(A, B) -> bool", _contains_key),
    function("_[_]", "list(A), int -> A", _item),
    function("_[_]", "map(A, B), A -> B", _value),
    *(
        make("size", f"{kind} -> int", len)
        for make in (function, method)
        for kind in ("string", "bytes", "list(A)", "map(A, B)")
    ),
    method("contains", "string, string -> bool", operator.contains),
    method("startsWith", "string, string -> bool", str.startswith),
    method("endsWith", "string, string -> bool", str.endswith),
    method("matches", "string, string -> bool", matches),
    function("matches", "string, string -> bool", matches),
)

"""Values of CEL as Python has them: bool, int, float, str, bytes, list, dict and None are themselves.

What Python has no type for is here. Two traps are minded everywhere: Python's True equals 1, CEL's does not; and an
unsigned integer is a type of its own (`Uint`), though it compares with the others by number.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastkube.cel.errors import EvalError

INT_MIN, INT_MAX, UINT_MAX = -(2**63), 2**63 - 1, 2**64 - 1
SECOND_NS = 1_000_000_000
_TIMESTAMP_MIN_S, _TIMESTAMP_MAX_S = -62135596800, 253402300799


class Uint(int):
    """An unsigned 64-bit integer."""

    __slots__ = ()


class Timestamp(int):
    """A point of time, as nanoseconds since 1970."""

    __slots__ = ()

    def moment(self) -> datetime:
        """To the microsecond, in UTC."""
        seconds, rest = divmod(int(self), SECOND_NS)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)


class Duration(int):
    """A span of time, in nanoseconds."""

    __slots__ = ()


class TypeValue:
    """A type as a value: what type() gives and the names of types are."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TypeValue) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)


class Optional:
    """optional.of(value), or optional.none()."""

    __slots__ = ("present", "value")

    def __init__(self, value: Any = None, present: bool = True) -> None:
        self.value = value
        self.present = present

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Optional)
            and self.present == other.present
            and (not self.present or equal(self.value, other.value))
        )

    __hash__ = None  # type: ignore[assignment]


NONE = Optional(None, False)


class Struct(dict[str, Any]):
    """An object that an expression has made (`JSONPatch{...}`), by its type's name."""

    __slots__ = ("type_name",)

    def __init__(self, type_name: str, fields: dict[str, Any]) -> None:
        super().__init__(fields)
        self.type_name = type_name


def whole(value: int) -> int:
    """An int within 64 bits, or the error that cel-go gives."""
    if INT_MIN <= value <= INT_MAX:
        return value
    raise EvalError("integer overflow")


def unsigned(value: int) -> Uint:
    if 0 <= value <= UINT_MAX:
        return Uint(value)
    raise EvalError("unsigned integer overflow")


def timestamp(nanoseconds: int) -> Timestamp:
    if _TIMESTAMP_MIN_S <= nanoseconds // SECOND_NS <= _TIMESTAMP_MAX_S:
        return Timestamp(nanoseconds)
    raise EvalError("timestamp overflow")


def duration(nanoseconds: int) -> Duration:
    if INT_MIN <= nanoseconds <= INT_MAX:
        return Duration(nanoseconds)
    raise EvalError("duration overflow")


_PLAIN = frozenset((int, str, bool, float, bytes, type(None), Timestamp, Duration, Uint))
_NUMBERS = frozenset((int, float, Uint))


def equal(one: Any, other: Any) -> bool:
    """CEL's `==`: numbers by number, lists and maps by their parts, all else only within one type."""
    kind, other_kind = type(one), type(other)
    if kind is other_kind and kind in _PLAIN:
        return bool(one == other)
    if kind in _NUMBERS:
        return other_kind in _NUMBERS and bool(one == other)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and len(one) == len(other)
            and all(key in other and equal(value, other[key]) for key, value in one.items())
        )
    return kind is other_kind and bool(one == other)


def contains(items: list[Any], wanted: Any) -> bool:
    """`wanted in items`; plain strings by Python's own search."""
    if type(wanted) is str:
        return wanted in items
    return any(equal(item, wanted) for item in items)


def type_name(value: Any) -> str:
    """What type(value) is called."""
    name = _TYPE_NAMES.get(type(value))
    if name:
        return name
    if isinstance(value, Struct):
        return value.type_name
    if isinstance(value, dict):
        return "map"
    if isinstance(value, list):
        return "list"
    return str(getattr(value, "cel_type", "dyn"))


_TYPE_NAMES = {
    bool: "bool",
    int: "int",
    Uint: "uint",
    float: "double",
    str: "string",
    bytes: "bytes",
    type(None): "null_type",
    list: "list",
    dict: "map",
    Timestamp: "google.protobuf.Timestamp",
    Duration: "google.protobuf.Duration",
    TypeValue: "type",
    Optional: "optional_type",
}

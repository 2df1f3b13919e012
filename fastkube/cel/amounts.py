"""Kubernetes' libraries quantity and semver. Opaque values carry the name of their type as `cel_type`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

from fastkube.api import quantity
from fastkube.cel.errors import EvalError
from fastkube.cel.functions import function, method, succeeds

_UNIT = 10**9


class Quantity:
    """An exact amount, as a number of nanos; equal to another of the same amount, however written."""

    cel_type: ClassVar[str] = "kubernetes.Quantity"
    __slots__ = ("amount",)

    def __init__(self, amount: quantity.Quantity) -> None:
        self.amount = amount

    @property
    def nanos(self) -> int:
        return self.amount.nanos

    def plus(self, nanos: int) -> Quantity:
        return Quantity(replace(self.amount, nanos=self.nanos + nanos))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.nanos == other.nanos

    def __hash__(self) -> int:
        return hash(self.nanos)


@lru_cache(1024)
def parse_quantity(text: str) -> Quantity:
    try:
        return Quantity(quantity.parse(text))
    except quantity.QuantityError as error:
        raise EvalError(str(error)) from None


def _as_integer(value: Quantity) -> int:
    if value.nanos % _UNIT or not -(2**63) <= value.nanos // _UNIT < 2**63:
        raise EvalError("cannot convert value to integer")
    return value.nanos // _UNIT


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)


QUANTITIES = (
    function("quantity", "string -> kubernetes.Quantity", parse_quantity),
    function("isQuantity", "string -> bool", succeeds(parse_quantity)),
    method("sign", "kubernetes.Quantity -> int", lambda a: _sign(a.nanos)),
    method("isGreaterThan", "kubernetes.Quantity, kubernetes.Quantity -> bool", lambda a, b: a.nanos > b.nanos),
    method("isLessThan", "kubernetes.Quantity, kubernetes.Quantity -> bool", lambda a, b: a.nanos < b.nanos),
    method("compareTo", "kubernetes.Quantity, kubernetes.Quantity -> int", lambda a, b: _sign(a.nanos - b.nanos)),
    method("asApproximateFloat", "kubernetes.Quantity -> double", lambda a: a.nanos / _UNIT),
    method("asInteger", "kubernetes.Quantity -> int", _as_integer),
    method("isInteger", "kubernetes.Quantity -> bool", succeeds(_as_integer)),
    method("add", "kubernetes.Quantity, kubernetes.Quantity -> kubernetes.Quantity", lambda a, b: a.plus(b.nanos)),
    method("add", "kubernetes.Quantity, int -> kubernetes.Quantity", lambda a, b: a.plus(b * _UNIT)),
    method("sub", "kubernetes.Quantity, kubernetes.Quantity -> kubernetes.Quantity", lambda a, b: a.plus(-b.nanos)),
    method("sub", "kubernetes.Quantity, int -> kubernetes.Quantity", lambda a, b: a.plus(-b * _UNIT)),
)

# ---------------------------------------------------------------- semver

_semver = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?",
    re.ASCII,
).fullmatch


@dataclass(frozen=True, slots=True)
class Semver:
    """A semantic version; `key` orders it (build metadata has no part in that)."""

    key: tuple[Any, ...]
    cel_type: ClassVar[str] = "kubernetes.Semver"


def parse_semver(text: str, normalize: bool = False) -> Semver:
    if normalize:
        text = _normalized(text)
    match = _semver(text)
    if match is None:
        raise EvalError("No Major.Minor.Patch elements found" if text.count(".") < 2 else "Invalid Semantic Version")
    major, minor, patch, before, _ = match.groups()
    labels = (
        tuple((0, int(each), "") if each.isdecimal() else (1, 0, each) for each in before.split(".")) if before else ()
    )
    return Semver((int(major), int(minor), int(patch), not labels, labels))


def _normalized(text: str) -> str:
    """Without a leading v and leading zeros, with minor and patch."""
    text = text.strip().removeprefix("v")
    core = re.split(r"[-+]", text, maxsplit=1)[0]
    parts = [part.lstrip("0") or "0" for part in core.split(".")] if core else []
    if len(parts) < 3 and core != text:
        return text
    return ".".join(parts + ["0"] * (3 - len(parts))) + text[len(core) :]


def _order(one: Semver, other: Semver) -> int:
    return (one.key > other.key) - (one.key < other.key)


SEMVERS = (
    function("semver", "string -> kubernetes.Semver", parse_semver),
    function("semver", "string, bool -> kubernetes.Semver", parse_semver),
    function("isSemver", "string -> bool", succeeds(parse_semver)),
    function("isSemver", "string, bool -> bool", lambda text, loose: succeeds(lambda t: parse_semver(t, loose))(text)),
    method("major", "kubernetes.Semver -> int", lambda a: a.key[0]),
    method("minor", "kubernetes.Semver -> int", lambda a: a.key[1]),
    method("patch", "kubernetes.Semver -> int", lambda a: a.key[2]),
    method("isGreaterThan", "kubernetes.Semver, kubernetes.Semver -> bool", lambda a, b: a.key > b.key),
    method("isLessThan", "kubernetes.Semver, kubernetes.Semver -> bool", lambda a, b: a.key < b.key),
    method("compareTo", "kubernetes.Semver, kubernetes.Semver -> int", _order),
)

OVERLOADS = (*QUANTITIES, *SEMVERS)

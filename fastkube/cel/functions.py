"""How functions are declared, and how one of several overloads is chosen when types are known only at run time.

A library is a tuple of `Overload`s, each with its signature in words: `"list(A), int -> A"`. Of a method the target is
the first parameter. What is declared with types that the checker has verified is called without further ado.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from fastkube.cel import types
from fastkube.cel.errors import EvalError
from fastkube.cel.types import Type
from fastkube.cel.values import Duration, Optional, Timestamp, TypeValue, Uint

NO_OVERLOAD = "no such overload"


@dataclass(frozen=True, slots=True, eq=False)
class Overload:
    """One signature of a function and what it does: `call(*args)` raises EvalError."""

    function: str
    member: bool
    params: tuple[Type, ...]
    result: Type
    call: Callable[..., Any]

    def takes(self, args: tuple[Any, ...]) -> bool:
        return all(_is(kind, arg) for kind, arg in zip(self.params, args, strict=True))


def function(name: str, signature: str, call: Callable[..., Any]) -> Overload:
    params, result = parse_signature(signature)
    return Overload(name, False, params, result, call)


def method(name: str, signature: str, call: Callable[..., Any]) -> Overload:
    params, result = parse_signature(signature)
    return Overload(name, True, params, result, call)


@cache
def parse_signature(signature: str) -> tuple[tuple[Type, ...], Type]:
    given, _, result = signature.partition("->")
    return tuple(map(parse_type, _split(given))), parse_type(result.strip())


def parse_type(text: str) -> Type:
    """`list(A)`, `map(string, dyn)`, `optional(A)`, `net.IP`; one capital letter is a parameter."""
    name, paren, rest = text.partition("(")
    if paren:
        return Type(name, params=tuple(map(parse_type, _split(rest[:-1]))))
    if len(name) == 1 and name.isupper():
        return Type("param", name)
    return types.opaque(name) if "." in name else Type(name)


def _split(text: str) -> list[str]:
    """The parts between commas that are not in parentheses."""
    parts, depth, last = [], 0, 0
    for index, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == "," and not depth:
            parts.append(text[last:index].strip())
            last = index + 1
    parts.append(text[last:].strip())
    return [part for part in parts if part]


_EXACT: dict[str, type] = {
    "bool": bool,
    "int": int,
    "uint": Uint,
    "string": str,
    "bytes": bytes,
    "null_type": type(None),
    "timestamp": Timestamp,
    "duration": Duration,
    "type": TypeValue,
    "optional": Optional,
}


def _is(kind: Type, value: Any) -> bool:
    """Whether a value is of a declared type, as far as its parameters are not looked at."""
    exact = _EXACT.get(kind.kind)
    if exact is not None:
        return type(value) is exact
    match kind.kind:
        case "double":
            return type(value) is float
        case "list":
            return isinstance(value, list)
        case "map":
            return isinstance(value, dict)
        case "opaque":
            return getattr(value, "cel_type", None) == kind.name
    return True


def dispatch(overloads: Iterable[Overload]) -> Callable[..., Any]:
    """The function that looks for the overload which takes the arguments that it is called with."""
    candidates = tuple(overloads)

    def call(*args: Any) -> Any:
        for overload in candidates:
            if overload.takes(args):
                return overload.call(*args)
        raise EvalError(NO_OVERLOAD)

    return call


def succeeds(parse: Callable[[Any], Any]) -> Callable[[Any], bool]:
    """The function that tells whether another one gives a value at all."""

    def call(value: Any) -> bool:
        try:
            parse(value)
        except EvalError:
            return False
        return True

    return call

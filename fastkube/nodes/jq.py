"""The part of jq that Stages ask with, compiled to closures: what values an expression finds in an object.

    .metadata.annotations["a/b"]   .spec.containers[].name   .spec.x[0]   .[]?   .a // "b"   (.a, .b) | length
    .status.conditions.[] | select(.type == "Ready" and (.status | not)) | .status

Names: select, has, length, keys, not, any, all, first, last, tostring, tonumber, empty, ascii_downcase, ascii_upcase,
startswith, endswith, contains, test, map. Anything else is refused by name. Where jq would fail on data (a field of a
number), nothing is found. jq's own binding is a compiled library that takes JSON texts: too much for a path.
Source: the manual of jq 1.7.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson

Filter = Callable[[Any], Iterator[Any]]

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>"(?:[^"\\]|\\.)*")
    | (?P<number>\d+(?:\.\d+)?)
    | (?P<field>\.[A-Za-z_]\w*)
    | (?P<word>[A-Za-z_]\w*)
    | (?P<sign>//|==|!=|<=|>=|[|,.()\[\]?<>;-])
    )""",
    re.VERBOSE,
)


class JqError(ValueError):
    """An expression that is not understood, with where."""


def compile_jq(text: str) -> Filter:
    """Raises JqError."""
    parser = _Parser(text)
    if parser.tokens and all(kind == "field" for kind, _ in parser.tokens):
        return _Path([name[1:] for _, name in parser.tokens])
    found = parser.pipe()
    if parser.tokens:
        raise JqError(f"{text!r}: not understood from {parser.tokens[0][1]!r} on")
    return found


class Query:
    """An expression with its text; `values` are those that it finds, without nulls."""

    __slots__ = ("_filter", "text")

    def __init__(self, text: str) -> None:
        """Raises JqError."""
        self.text = text
        self._filter = compile_jq(text)

    def values(self, obj: Any) -> list[Any]:
        if isinstance(self._filter, _Path):
            value = self._filter.value(obj)
            return [] if value is None else [value]
        return [value for value in self._filter(obj) if value is not None]


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str]] = []
        position, stripped = 0, text.rstrip()
        while position < len(stripped):
            match = _TOKEN.match(stripped, position)
            if match is None:
                raise JqError(f"{text!r}: not understood from {stripped[position:].strip()!r} on")
            kind = str(match.lastgroup)
            self.tokens.append((kind, match.group(kind)))
            position = match.end()

    # -- tokens ------------------------------------------------------------------------------------------------------

    def _next(self, *signs: str) -> bool:
        return bool(self.tokens) and self.tokens[0][0] in ("sign", "word") and self.tokens[0][1] in signs

    def _take(self) -> tuple[str, str]:
        if not self.tokens:
            raise JqError(f"{self.text!r}: ends too early")
        return self.tokens.pop(0)

    def _expect(self, sign: str) -> None:
        if self._take() != ("sign", sign):
            raise JqError(f"{self.text!r}: {sign!r} is missing")

    # -- from the loosest to the tightest ----------------------------------------------------------------------------

    def pipe(self) -> Filter:
        left = self._comma()
        while self._next("|"):
            self._take()
            left = _piped(left, self._comma())
        return left

    def _comma(self) -> Filter:
        parts = [self._alternative()]
        while self._next(","):
            self._take()
            parts.append(self._alternative())
        return parts[0] if len(parts) == 1 else lambda value: (found for part in parts for found in part(value))

    def _alternative(self) -> Filter:
        left = self._or()
        if not self._next("//"):
            return left
        self._take()
        right = self._alternative()

        def found(value: Any) -> Iterator[Any]:
            there = [each for each in left(value) if each is not None and each is not False]
            yield from there or right(value)

        return found

    def _or(self) -> Filter:
        left = self._and()
        while self._next("or"):
            self._take()
            left = _both(left, self._and(), lambda one, other: _true(one) or _true(other))
        return left

    def _and(self) -> Filter:
        left = self._comparison()
        while self._next("and"):
            self._take()
            left = _both(left, self._comparison(), lambda one, other: _true(one) and _true(other))
        return left

    def _comparison(self) -> Filter:
        left = self._path()
        if not self._next("==", "!=", "<", "<=", ">", ">="):
            return left
        compare = _COMPARISONS[self._take()[1]]
        return _both(left, self._path(), compare)

    def _path(self) -> Filter:
        found = self._start()
        while self.tokens:
            if self.tokens[0][0] == "field":
                found = _piped(found, _Path([self._take()[1][1:]]))
            elif self._next("["):
                found = _piped(found, self._brackets())
            elif self._next(".") and len(self.tokens) > 1 and self.tokens[1] == ("sign", "["):
                self._take()
            elif self._next("."):
                self._take()
                kind, name = self._take()
                if kind != "string":
                    raise JqError(f"{self.text!r}: a field is missing after '.'")
                found = _piped(found, _Path([_unquoted(name)]))
            elif self._next("?"):
                self._take()
            else:
                break
        return found

    def _brackets(self) -> Filter:
        self._expect("[")
        if self._next("]"):
            self._take()
            return _each
        negative = self._next("-") and self._take() is not None
        kind, text = self._take()
        if kind == "string" and not negative:
            step: Filter = _Path([_unquoted(text)])
        elif kind == "number" and text.isdigit():
            step = _item(-int(text) if negative else int(text))
        else:
            raise JqError(f"{self.text!r}: {text!r} is no index")
        self._expect("]")
        return step

    def _start(self) -> Filter:
        kind, text = self._take()
        if kind == "field":
            return _Path([text[1:]])
        if kind == "string":
            return _constant(_unquoted(text))
        if kind == "number":
            return _constant(float(text) if "." in text else int(text))
        if kind == "word":
            return self._named(text)
        if text == "-":
            number = self._take()[1]
            return _constant(-float(number) if "." in number else -int(number))
        if text == "(":
            inner = self.pipe()
            self._expect(")")
            return inner
        if text == ".":
            if self.tokens and self.tokens[0][0] == "string":
                return _Path([_unquoted(self._take()[1])])
            return _same
        raise JqError(f"{self.text!r}: {text!r} is not supported")

    def _named(self, name: str) -> Filter:
        if name in _CONSTANTS:
            return _constant(_CONSTANTS[name])
        if name == "empty":
            return lambda value: iter(())
        if self._next("("):
            self._take()
            argument = self.pipe()
            self._expect(")")
            if name in _WITH_FILTER:
                return _WITH_FILTER[name](argument)
            if name in _WITH_VALUE:
                return _both(_same, argument, _WITH_VALUE[name])
        elif name in _PLAIN:
            function = _PLAIN[name]
            return lambda value: _quietly(function, value)
        raise JqError(f"{self.text!r}: {name!r} is not supported")


# ---------------------------------------------------------------- filters


def _true(value: Any) -> bool:
    return value is not None and value is not False


def _same(value: Any) -> Iterator[Any]:
    yield value


def _constant(constant: Any) -> Filter:
    return lambda value: iter((constant,))


def _piped(left: Filter, right: Filter) -> Filter:
    if isinstance(left, _Path) and isinstance(right, _Path):
        return _Path(left.names + right.names)
    return right if left is _same else lambda value: (found for each in left(value) for found in right(each))


def _both(left: Filter, right: Filter, join: Callable[[Any, Any], Any]) -> Filter:
    return lambda value: (
        found for other in right(value) for one in left(value) for found in _quietly(join, one, other)
    )


def _quietly(function: Callable[..., Any], *values: Any) -> Iterator[Any]:
    try:
        yield function(*values)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, re.error):
        return


_NOTHING: Any = object()


class _Path:
    """The commonest expression of all, names after each other, in one loop."""

    __slots__ = ("names",)

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def value(self, value: Any, otherwise: Any = None) -> Any:
        """What is there, None for nothing or null; `otherwise` where jq would fail."""
        for name in self.names:
            if not isinstance(value, dict):
                return None if value is None else otherwise
            value = value.get(name)
        return value

    def __call__(self, value: Any) -> Iterator[Any]:
        found = self.value(value, _NOTHING)
        return iter(() if found is _NOTHING else (found,))


def _item(number: int) -> Filter:
    def found(value: Any) -> Iterator[Any]:
        if isinstance(value, list):
            yield value[number] if -len(value) <= number < len(value) else None
        elif value is None:
            yield None

    return found


def _each(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        yield from value
    elif isinstance(value, dict):
        yield from value.values()


def _select(condition: Filter) -> Filter:
    return lambda value: (value for held in condition(value) if _true(held))


_CONSTANTS = {"true": True, "false": False, "null": None}

_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": lambda one, other: one == other and isinstance(one, bool) is isinstance(other, bool),
    "!=": lambda one, other: one != other or isinstance(one, bool) is not isinstance(other, bool),
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}

_WITH_FILTER: dict[str, Callable[[Filter], Filter]] = {
    "select": _select,
    "map": lambda inner: lambda value: iter(([found for each in _each(value) for found in inner(each)],)),
    "any": lambda inner: lambda value: iter((any(_true(held) for each in _each(value) for held in inner(each)),)),
    "all": lambda inner: lambda value: iter((all(_true(held) for each in _each(value) for held in inner(each)),)),
    "first": lambda inner: lambda value: itertools.islice(inner(value), 1),
}

_WITH_VALUE: dict[str, Callable[[Any, Any], Any]] = {
    "has": lambda value, key: key in value if isinstance(value, dict) else 0 <= key < len(value),
    "startswith": lambda value, part: value.startswith(part),
    "endswith": lambda value, part: value.endswith(part),
    "contains": lambda value, part: part in value,
    "test": lambda value, pattern: re.search(pattern, value) is not None,
}

_PLAIN: dict[str, Callable[[Any], Any]] = {
    "not": lambda value: not _true(value),
    "length": lambda value: 0 if value is None else abs(value) if isinstance(value, int | float) else len(value),
    "keys": lambda value: sorted(value) if isinstance(value, dict) else list(range(len(value))),
    "any": lambda value: any(map(_true, value)),
    "all": lambda value: all(map(_true, value)),
    "first": lambda value: value[0],
    "last": lambda value: value[-1],
    "tostring": lambda value: value if isinstance(value, str) else _json(value),
    "tonumber": lambda value: float(value) if "." in str(value) else int(value),
    "ascii_downcase": lambda value: value.lower(),
    "ascii_upcase": lambda value: value.upper(),
}


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _unquoted(text: str) -> str:
    found: str = orjson.loads(text)
    return found

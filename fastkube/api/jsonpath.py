"""Kubernetes' JSONPath, as printer columns of custom kinds use it.

    path    = step { step }
    step    = "." name | "." "*" | ".." name | "[" inside "]"   (a dot in a name is escaped: `app\\.example\\.com/x`)
    inside  = "*" | numbers "," ... | [from] ":" [to] [":" step] | 'name' "," ... | "?(" "@" path [ operator value ] ")"
    value   = text in quotes | number | true | false | "@" path      operators: == != < <= > >=

`compile` raises ValueError on a path that is none. What is not there is left out of the result, never an error.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

Step = Callable[[Any], Iterator[Any]]
"""From one value to the values that a step of a path finds in it."""

_name = re.compile(r"((?:[^.\[\]\\ ]|\\.)+)").match
_quoted = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""").match
_integers = re.compile(r"-?\d+(?:,-?\d+)*").fullmatch
_slice = re.compile(r"(-?\d*):(-?\d*)(?::(-?\d*))?").fullmatch
_filter = re.compile(r"\?\(\s*(.+?)\s*(?:(==|!=|<=|>=|<|>)\s*(.+?)\s*)?\)", re.DOTALL).fullmatch
_number = re.compile(r"-?\d+(\.\d+)?").fullmatch

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Path:
    """A compiled path."""

    __slots__ = ("_steps",)

    def __init__(self, steps: tuple[Step, ...]) -> None:
        self._steps = steps

    def find(self, document: Any) -> list[Any]:
        """All values that the path leads to, in the document's order."""
        found = [document]
        for step in self._steps:
            found = [value for each in found for value in step(each)]
        return found


@lru_cache(maxsize=1024)
def compile(text: str) -> Path:
    """The path, which may stand in braces or not, and start with `$` or not."""
    path = text.strip()
    if path.startswith("{") and path.endswith("}"):
        path = path[1:-1].strip()
    return Path(tuple(_steps(path.removeprefix("$"))))


def _steps(path: str) -> Iterator[Step]:
    position = 0
    while position < len(path):
        if path[position] == "[":
            end = _closing(path, position)
            yield _bracket(path[position + 1 : end].strip())
            position = end + 1
        elif path.startswith("..", position):
            name, position = _take_name(path, position + 2)
            yield _everywhere(name)
        elif path[position] == ".":
            if position + 1 == len(path) or path[position + 1] == "[":
                position += 1
                continue
            name, position = _take_name(path, position + 1)
            yield _all if name == "*" else _member(name)
        else:
            raise ValueError(f"unrecognized character in a JSONPath at {position}: {path}")


def _take_name(path: str, position: int) -> tuple[str, int]:
    match = _name(path, position)
    if match is None:
        raise ValueError(f"a name is missing in a JSONPath at {position}: {path}")
    return re.sub(r"\\(.)", r"\1", match.group(1)), match.end()


def _closing(path: str, start: int) -> int:
    """Where the bracket that opens at `start` closes; brackets in quotes do not count."""
    depth, position = 0, start
    while position < len(path):
        match = _quoted(path, position)
        if match:
            position = match.end()
            continue
        depth += (path[position] == "[") - (path[position] == "]")
        if not depth:
            return position
        position += 1
    raise ValueError(f"unterminated array in a JSONPath: {path}")


def _bracket(inside: str) -> Step:
    if inside == "*":
        return _all
    if match := _filter(inside):
        return _where(match.group(1), match.group(2), match.group(3))
    if _integers(inside):
        return _indices([int(part) for part in inside.split(",")])
    if match := _slice(inside):
        start, stop, step = (int(part) if part else None for part in match.groups())
        return _sliced(slice(start, stop, step))
    return _members(_names(inside))


def _names(inside: str) -> list[str]:
    names: list[str] = []
    position = 0
    while match := _quoted(inside, position):
        told = match.group(1) if match.group(1) is not None else match.group(2)
        names.append(re.sub(r"\\(.)", r"\1", told))
        position = match.end()
        if position == len(inside):
            return names
        if inside[position] != ",":
            break
        position += 1
    raise ValueError(f"invalid array index in a JSONPath: {inside}")


# ---------------------------------------------------------------- steps


def _all(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _member(name: str) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]

    return step


def _members(names: list[str]) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict):
            yield from (value[name] for name in names if name in value)

    return step


def _indices(places: list[int]) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list):
            yield from (value[place] for place in places if -len(value) <= place < len(value))

    return step


def _sliced(part: slice) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list):
            yield from value[part]

    return step


def _everywhere(name: str) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]
        for part in _all(value):
            yield from step(part)

    return step


def _where(left: str, compare: str | None, right: str | None) -> Step:
    """The items of a list for which the comparison holds; without one, those that have the left side at all."""
    first = _operand(left)
    second = _operand(right) if right is not None else None

    def holds(item: Any) -> bool:
        found = first(item)
        if compare is None or second is None:
            return bool(found)
        others = second(item)
        try:
            return bool(found and others) and _OPERATORS[compare](found[0], others[0])
        except TypeError:
            return False

    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list):
            yield from (item for item in value if holds(item))

    return step


def _operand(text: str) -> Callable[[Any], list[Any]]:
    if text.startswith("@"):
        return compile(text[1:]).find
    match = _quoted(text, 0)
    if match and match.end() == len(text):
        told: Any = match.group(1) if match.group(1) is not None else match.group(2)
    elif _number(text):
        told = float(text) if "." in text else int(text)
    elif text in ("true", "false"):
        told = text == "true"
    else:
        raise ValueError(f"unrecognized value in a JSONPath filter: {text}")
    return lambda item: [told]

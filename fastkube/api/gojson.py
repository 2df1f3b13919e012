"""JSON bodies as Go reads them, for what the fast parser refuses or cannot tell: faults in Go's words, duplicate keys.

    body ─ orjson ok, as many keys in the text as in the objects ─→ done, never here
         ├ orjson ok, more keys in the text ─→ `duplicates` tells which, with paths, in document order
         └ orjson refuses ─→ `fault` gives Go's message; if Go would take it (text that is not UTF-8, lone surrogates,
                             deep nesting), `parse` does

The messages are those of encoding/json's scanner.
"""

from __future__ import annotations

import json
import re
from typing import Any

from fastkube.api.field import quote

_END = "unexpected end of JSON input"
_DEEP = "exceeded max depth"
_SPACE = re.compile(rb"[ \t\r\n]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_DIGITS = re.compile(rb"[0-9]*")
_LITERALS = {b"t": b"true", b"f": b"false", b"n": b"null"}
_HEX = b"0123456789abcdefABCDEF"
_VALUE = "looking for beginning of value"
_KEY = "looking for beginning of object key string"
_DEPTH_MAX = 10_000


class _Fault(Exception):
    """The text is no JSON; the message is Go's."""


class _Scanner:
    """Checks a text as Go's scanner does; it builds nothing."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.at = 0

    def next(self, context: str) -> bytes:
        """The next byte that is no space, not consumed; the end is a fault."""
        self.at = self._past(_SPACE)
        return self.here(context)

    def here(self, context: str) -> bytes:
        if self.at >= len(self.body):
            raise _Fault(_END)
        return self.body[self.at : self.at + 1]

    def _past(self, pattern: re.Pattern[bytes]) -> int:
        match = pattern.match(self.body, self.at)
        return match.end() if match else self.at

    def refuse(self, context: str) -> _Fault:
        char = chr(self.body[self.at])
        shown = {"'": r"'\''", '"': "'\"'"}.get(char) or "'" + quote(char)[1:-1] + "'"
        return _Fault(f"invalid character {shown} {context}")

    def document(self) -> None:
        """Values are held open in a list, not in recursion: `]` an array, `}` an object."""
        opened: list[bytes] = []
        self.value(opened)
        while opened:
            self.rest_of(opened)
        self.at = self._past(_SPACE)
        if self.at < len(self.body):
            raise self.refuse("after top-level value")

    def value(self, opened: list[bytes]) -> None:
        """One scalar or empty container; of a container with content its beginning, up to a value of these kinds."""
        while (char := self.next(_VALUE)) in b"{[":
            self.at += 1
            closing = b"}" if char == b"{" else b"]"
            if len(opened) == _DEPTH_MAX:
                raise _Fault(_DEEP)
            if self.next(_KEY if closing == b"}" else _VALUE) == closing:
                self.at += 1
                return
            opened.append(closing)
            if closing == b"}":
                self.key()
        if char == b'"':
            self.string()
        elif char in b"-0123456789":
            self.number()
        elif char in _LITERALS:
            self.literal(_LITERALS[char])
        else:
            raise self.refuse(_VALUE)

    def rest_of(self, opened: list[bytes]) -> None:
        """What follows a value inside an array or object: its end, or a comma and the next value."""
        closing = opened[-1]
        context = "after object key:value pair" if closing == b"}" else "after array element"
        char = self.next(context)
        self.at += 1
        if char == closing:
            opened.pop()
            return
        if char != b",":
            self.at -= 1
            raise self.refuse(context)
        if closing == b"}":
            self.key()
        self.value(opened)

    def key(self) -> None:
        if self.next(_KEY) != b'"':
            raise self.refuse(_KEY)
        self.string()
        if self.next("after object key") != b":":
            raise self.refuse("after object key")
        self.at += 1

    def string(self) -> None:
        self.at += 1
        while True:
            self.at = self._past(_PLAIN)
            char = self.here("in string literal")
            if char == b'"':
                self.at += 1
                return
            if char != b"\\":
                raise self.refuse("in string literal")
            self.at += 1
            escape = self.here("in string escape code")
            if escape not in b'bfnrt\\/"u':
                raise self.refuse("in string escape code")
            self.at += 1
            if escape == b"u":
                self.hex()

    def hex(self) -> None:
        for _ in range(4):
            if self.here("") not in _HEX:
                raise self.refuse("in \\u hexadecimal character escape")
            self.at += 1

    def number(self) -> None:
        if self.here("") == b"-":
            self.at += 1
            if self.here("") not in b"0123456789":
                raise self.refuse("in numeric literal")
        self.at = self.at + 1 if self.here("") == b"0" else self._past(_DIGITS)
        if self.body[self.at : self.at + 1] == b".":
            self.at += 1
            if self.here("") not in b"0123456789":
                raise self.refuse("after decimal point in numeric literal")
            self.at = self._past(_DIGITS)
        if self.body[self.at : self.at + 1] in (b"e", b"E"):
            self.at += 1
            if self.here("") in b"+-":
                self.at += 1
            if self.here("") not in b"0123456789":
                raise self.refuse("in exponent of numeric literal")
            self.at = self._past(_DIGITS)

    def literal(self, word: bytes) -> None:
        for wanted in word:
            if self.here("")[0] != wanted:
                raise self.refuse(f"in literal {word.decode()} (expecting {chr(wanted)!r})")
            self.at += 1


def fault(body: bytes) -> str | None:
    """Why Go would not read this text as JSON, or None if it would."""
    try:
        _Scanner(body).document()
    except _Fault as found:
        return str(found)
    return None


def parse(body: bytes) -> Any:
    """Read a text without fault as Go does: what is not UTF-8 becomes U+FFFD. ValueError for absurdly deep nesting."""
    try:
        return _mend(json.loads(body.decode("utf-8", "replace")))
    except RecursionError:
        raise ValueError(_DEEP) from None


def _mend(value: Any) -> Any:
    """Lone surrogates (from \\ud800 escapes) become U+FFFD too."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_mend(item) for item in value]
    if isinstance(value, dict):
        return {_mend(key): _mend(item) for key, item in value.items()}
    return value


class _Pairs(list[tuple[str, Any]]):
    """An object with all of its keys, also those that come twice."""


class Duplicate(str):
    """A complaint about a key that its object has had already, and where it and all fields of its body stand."""

    __slots__ = ("path", "place", "places")

    path: str
    place: int
    places: dict[str, int]


def duplicates(body: bytes) -> list[Duplicate]:
    """`duplicate field "spec.foo"` for every key that its object has had already, in document order, each once."""
    told: dict[str, Duplicate] = {}
    _visit(json.loads(body.decode("utf-8", "replace"), object_pairs_hook=_Pairs), "", told, {})
    return list(told.values())


def in_order(repeated: list[str], unknown: list[str]) -> list[str]:
    """What strict decoding tells of a body, as it comes in the document. It does not look into what it does not know.
    Complaints that are not of `duplicates` come first."""
    if not unknown or not all(isinstance(each, Duplicate) for each in repeated):
        return repeated + unknown
    ends = tuple(part + end for part in map(_path_of, unknown) for end in (".", "["))
    known = [each for each in repeated if isinstance(each, Duplicate) and not (each.path + ".").startswith(ends)]
    placed: list[tuple[int, str]] = [(each.place, each) for each in known]
    places = repeated[0].places if isinstance(repeated[0], Duplicate) else {}
    placed += [(places.get(_path_of(each), 0), each) for each in unknown]
    return [each for _, each in sorted(placed, key=lambda pair: pair[0])]


def _path_of(complaint: str) -> str:
    return complaint.partition('"')[2][:-1]


def merged(body: bytes) -> Any:
    """The value as Go reads it into structs, their maps and lists: what comes twice is read over what was there."""
    return json.loads(body.decode("utf-8", "replace"), object_pairs_hook=_added)


def _added(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        made[key] = _sum(made.get(key), value)
    return made


def _sum(before: Any, value: Any) -> Any:
    if isinstance(before, list) and isinstance(value, list):
        return [_sum(*pair) for pair in zip(before, value, strict=False)] + value[len(before) :]
    if not isinstance(before, dict) or not isinstance(value, dict):
        return value
    return {**before, **{key: _sum(before.get(key), part) for key, part in value.items()}}


def _visit(value: Any, path: str, told: dict[str, Duplicate], places: dict[str, int]) -> None:
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for key, item in value:
            inner = f"{path}.{key}" if path else key
            places.setdefault(inner, len(places) + len(told))
            if key in seen and inner not in told:
                told[inner] = found = Duplicate(f'duplicate field "{inner}"')
                found.path, found.place, found.places = inner, len(places) + len(told) - 1, places
            seen.add(key)
            _visit(item, inner, told, places)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _visit(item, f"{path}[{index}]", told, places)

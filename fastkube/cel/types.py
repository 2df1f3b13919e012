"""The types of CEL and their assignability, as cel-go's checker has them.

A `Type` is immutable and compared by identity of its parts (`==` is structural). `dyn` fits everything. Parameters
(`A`, `B`) stand in the declarations of functions; the checker replaces them by variables (kind `var`) that it binds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from fastkube.cel.lexer import RESERVED


@dataclass(frozen=True, slots=True)
class Type:
    """One type. `params` are those of list, map, optional and type; `name` is that of an object, opaque type or
    parameter. `list_type` of a list is `set` or `map` where equality and concatenation are those of a Kubernetes list
    type; `keys` are the keys of a `map` list."""

    kind: str
    name: str = ""
    params: tuple[Type, ...] = ()
    fields: dict[str, Field] = field(default_factory=dict, compare=False, hash=False, repr=False)
    open: bool = field(default=False, compare=False)
    """An object that takes any field, each of type dyn, or what `open_field` makes of its name."""
    open_field: Callable[[str], Type] | None = field(default=None, compare=False, repr=False)
    list_type: str = field(default="", compare=False)
    keys: tuple[str, ...] = field(default=(), compare=False)
    max_size: int | None = field(default=None, compare=False)
    """The most elements (characters, for strings) that a value has, where its schema tells; for cost estimates."""
    min_bytes: int = field(default=0, compare=False)
    """How few bytes of a request the smallest value takes; for cost estimates."""

    def __str__(self) -> str:
        return show(self)

    def field_named(self, name: str) -> Field | None:
        """The field that an expression names; words that are reserved need not be escaped after a dot."""
        found = self.fields.get(name)
        if found is None and name in RESERVED:
            found = self.fields.get(f"__{name}__")
        return found


class Field(NamedTuple):
    """A field of an object type: its key in the data (the field's own name is the escaped one) and its type."""

    key: str
    type: Type


DYN = Type("dyn")
ERROR = Type("error")
BOOL = Type("bool")
INT = Type("int")
UINT = Type("uint")
DOUBLE = Type("double")
STRING = Type("string")
BYTES = Type("bytes")
NULL = Type("null_type")
TIMESTAMP = Type("timestamp")
DURATION = Type("duration")

_NULLABLE = frozenset(("timestamp", "duration", "object", "opaque"))


def list_of(items: Type) -> Type:
    return Type("list", params=(items,))


def map_of(keys: Type, values: Type) -> Type:
    return Type("map", params=(keys, values))


def optional_of(item: Type) -> Type:
    return Type("optional", params=(item,))


def type_of(item: Type) -> Type:
    return Type("type", params=(item,))


def opaque(name: str) -> Type:
    return Type("opaque", name)


def object_type(name: str, fields: dict[str, Field]) -> Type:
    return Type("object", name, fields=fields)


def show(kind: Type) -> str:
    """A type as messages name it: `list(int)`, `map(string, dyn)`, `optional_type(int)`."""
    params = ", ".join(map(show, kind.params))
    match kind.kind:
        case "object" | "opaque":
            return kind.name
        case "optional":
            return f"optional_type({params})"
        case "error":
            return "!error!"
        case "var" | "param":
            return kind.name
        case "timestamp":
            return "google.protobuf.Timestamp"
        case "duration":
            return "google.protobuf.Duration"
    return f"{kind.kind}({params})" if params else kind.kind


def shown(kind: Type) -> str:
    """A type as cel-go's checker names it in what it complains of, where it has names of its own."""
    told = show(kind).replace("google.protobuf.Timestamp", "timestamp").replace("google.protobuf.Duration", "duration")
    return told.replace("null_type", "null")


class Substitution:
    """What the checker's type variables stand for."""

    def __init__(self) -> None:
        self._bound: dict[str, Type] = {}
        self._made = 0

    def fresh(self) -> Type:
        self._made += 1
        return Type("var", f"_var{self._made - 1}")

    def resolve(self, kind: Type) -> Type:
        """The type with all bound variables replaced."""
        while kind.kind == "var" and kind.name in self._bound:
            kind = self._bound[kind.name]
        if not kind.params:
            return kind
        params = tuple(map(self.resolve, kind.params))
        if params == kind.params:
            return kind
        return Type(kind.kind, kind.name, params, list_type=kind.list_type, keys=kind.keys, max_size=kind.max_size)

    def settle(self, kind: Type) -> Type:
        """The same, with dyn for the variables that nothing has bound."""
        kind = self.resolve(kind)
        if kind.kind == "var":
            return DYN
        if not kind.params:
            return kind
        params = tuple(map(self.settle, kind.params))
        return Type(kind.kind, kind.name, params, list_type=kind.list_type, keys=kind.keys, max_size=kind.max_size)

    def instantiate(self, kind: Type, made: dict[str, Type]) -> Type:
        """A declared type with fresh variables for its parameters."""
        if kind.kind == "param":
            if kind.name not in made:
                made[kind.name] = self.fresh()
            return made[kind.name]
        if not kind.params:
            return kind
        return Type(kind.kind, kind.name, tuple(self.instantiate(each, made) for each in kind.params))

    def assignable(self, wanted: Type, given: Type) -> bool:
        """Whether a value of `given` fits where `wanted` is; binds variables if it does, and nothing if not."""
        before = dict(self._bound)
        if self._assign(wanted, given):
            return True
        self._bound = before
        return False

    def all_assignable(self, wanted: tuple[Type, ...], given: list[Type]) -> bool:
        before = dict(self._bound)
        if all(self._assign(one, other) for one, other in zip(wanted, given, strict=True)):
            return True
        self._bound = before
        return False

    def _assign(self, wanted: Type, given: Type) -> bool:
        wanted, given = self._head(wanted), self._head(given)
        if wanted is given:
            return True
        if wanted.kind == "var":
            return self._bind(wanted, given)
        if given.kind == "var":
            return self._bind(given, wanted)
        if wanted.kind in ("dyn", "error") or given.kind in ("dyn", "error"):
            return True
        if given.kind == "null_type" and wanted.kind in _NULLABLE:
            return True
        if wanted.kind != given.kind or wanted.name != given.name or len(wanted.params) != len(given.params):
            return False
        if wanted.kind == "type":
            return True
        return all(map(self._assign, wanted.params, given.params))

    def _head(self, kind: Type) -> Type:
        while kind.kind == "var" and kind.name in self._bound:
            kind = self._bound[kind.name]
        return kind

    def _bind(self, variable: Type, kind: Type) -> bool:
        if kind.kind == "var" and kind.name == variable.name:
            return True
        if self._occurs(variable, kind):
            return False
        self._bound[variable.name] = kind
        return True

    def _occurs(self, variable: Type, kind: Type) -> bool:
        kind = self._head(kind)
        if kind.kind == "var":
            return kind.name == variable.name
        return any(self._occurs(variable, each) for each in kind.params)

    def join(self, one: Type, other: Type) -> Type | None:
        """The more general of two types that fit each other; None where they do not."""
        if self.assignable(one, other):
            if one.kind == "null_type":
                return other
            return one if one.kind == "dyn" or self._head(one).kind != "var" else other
        return other if self.assignable(other, one) else None

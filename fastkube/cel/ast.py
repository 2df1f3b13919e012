"""The syntax tree of a CEL expression. `pos` is the place in the text (in characters) that errors point at.

The checker fills in `type`, and of calls `overloads`. Macros stay what they are (`Fold`) instead of being taken apart
into comprehensions: they are checked, estimated and run as loops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastkube.cel.types import DYN, Type

if TYPE_CHECKING:
    from fastkube.cel.functions import Overload


class Node:
    __slots__ = ("pos", "type")

    def __init__(self, pos: int) -> None:
        self.pos = pos
        self.type: Type = DYN


class Const(Node):
    __slots__ = ("value",)

    def __init__(self, pos: int, value: Any, kind: Type) -> None:
        super().__init__(pos)
        self.value = value
        self.type = kind


class Ident(Node):
    """A variable or the name of a type. `type_name`: the checker found it to be a type."""

    __slots__ = ("name", "names_type")

    def __init__(self, pos: int, name: str) -> None:
        super().__init__(pos)
        self.name = name
        self.names_type: Type | None = None


class Select(Node):
    """`operand.field`; `test` for has(), `optional` for `operand.?field`. `variable`: it is a qualified name."""

    __slots__ = ("field", "operand", "optional", "test", "variable")

    def __init__(self, pos: int, operand: Node, field: str, *, test: bool = False, optional: bool = False) -> None:
        super().__init__(pos)
        self.operand = operand
        self.field = field
        self.test = test
        self.optional = optional
        self.variable: Ident | None = None


class Call(Node):
    """A function, method or operator (named as in cel-go: `_+_`, `_?_:_`, `_[_]`)."""

    __slots__ = ("args", "function", "overloads", "target")

    def __init__(self, pos: int, function: str, args: list[Node], target: Node | None = None) -> None:
        super().__init__(pos)
        self.function = function
        self.args = args
        self.target = target
        self.overloads: list[Overload] = []


class ListLiteral(Node):
    __slots__ = ("items", "optional")

    def __init__(self, pos: int, items: list[Node], optional: frozenset[int]) -> None:
        super().__init__(pos)
        self.items = items
        self.optional = optional


class MapLiteral(Node):
    """`entries` are (key, value, optional)."""

    __slots__ = ("entries",)

    def __init__(self, pos: int, entries: list[tuple[Node, Node, bool]]) -> None:
        super().__init__(pos)
        self.entries = entries


class StructLiteral(Node):
    """`entries` are (field, value, optional, place of the field)."""

    __slots__ = ("entries", "name")

    def __init__(self, pos: int, name: str, entries: list[tuple[str, Node, bool, int]]) -> None:
        super().__init__(pos)
        self.name = name
        self.entries = entries


class Fold(Node):
    """A macro over a list or map: all, exists, exists_one, map, filter, transformList, transformMap,
    transformMapEntry. `names` are one or two variables; `test` filters or decides, `result` is what map yields."""

    __slots__ = ("macro", "names", "over", "result", "test")

    def __init__(
        self,
        pos: int,
        macro: str,
        over: Node,
        names: list[str],
        test: Node | None,
        result: Node | None,
    ) -> None:
        super().__init__(pos)
        self.macro = macro
        self.over = over
        self.names = names
        self.test = test
        self.result = result


class Bind(Node):
    """`cel.bind(name, value, body)`, and what optMap and optFlatMap (`macro`) do with the value of an optional."""

    __slots__ = ("body", "macro", "name", "value")

    def __init__(self, pos: int, macro: str, name: str, value: Node, body: Node) -> None:
        super().__init__(pos)
        self.macro = macro
        self.name = name
        self.value = value
        self.body = body

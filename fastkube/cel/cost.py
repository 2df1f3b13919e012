"""How much an expression may cost at worst, told from its types alone: what cel-go's estimator and Kubernetes' make.

The unit is about one operation. Sizes are those that schemas allow (`Type.max_size`); what nothing bounds is taken to
be as large as a number can be, so a rule over it is refused rather than risked.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from fastkube.cel.ast import Bind, Call, Const, Fold, Ident, ListLiteral, MapLiteral, Node, Select, StructLiteral
from fastkube.cel.types import Type

UNKNOWN = 2**64 - 1
_TEXT = 0.1  # to read a character
_PATTERN = 0.25  # how much of a pattern's length is states
_LIST, _MAP, _STRUCT = 10, 30, 40  # to make one
_AUTHORIZE = 350_000
_SCALARS = frozenset(("bool", "int", "uint", "double", "null_type", "timestamp", "duration"))

_TURN = {"all": (3, 1), "exists": (4, 1), "exists_one": (2, 2), "filter": (13, 11)}
"""Of macros that decide: what a turn costs besides the test, and what the loop as a whole does."""

_LISTWISE = frozenset(("isSorted", "sum", "max", "min", "indexOf", "lastIndexOf"))
_READS_TARGET = frozenset(("lowerAscii", "upperAscii", "substring", "trim", "replace", "split", "strings.quote"))
_READS_ARGUMENT = frozenset(
    ("url", "isURL", "ip", "isIP", "cidr", "isCIDR", "quantity", "isQuantity", "semver", "isSemver", "ip.isCanonical")
)
_COMPARED_AT_ONCE = frozenset(("kubernetes.Quantity", "kubernetes.Semver", "net.IP", "net.CIDR"))
_COMPARES = frozenset(("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"))


def estimate(tree: Node) -> int:
    """The worst cost of a checked tree."""
    return _Estimator().cost(tree)


def _times(size: int, factor: float) -> int:
    return UNKNOWN if size >= UNKNOWN else min(UNKNOWN, math.ceil(round(size * factor, 6)))


def _product(one: int, other: int) -> int:
    return min(UNKNOWN, one * other)


class _Estimator:
    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}

    def cost(self, node: Node) -> int:
        return min(UNKNOWN, _COSTS[type(node)](self, node))

    def size(self, node: Node) -> int:
        """The most elements or characters of a node's value."""
        known = self.sizes.get(id(node))
        if known is not None:
            return known
        if isinstance(node, Const):
            return len(node.value) if isinstance(node.value, str | bytes) else 1
        if isinstance(node, ListLiteral):
            return len(node.items)
        if isinstance(node, MapLiteral):
            return len(node.entries)
        if isinstance(node, Ident) and node.type.kind == "type":
            return 1
        return _size_of(node.type)

    # ---------------------------------------------------------------- nodes

    def constant(self, node: Const) -> int:
        return 0

    def ident(self, node: Ident) -> int:
        return 1

    def select(self, node: Select) -> int:
        if node.variable is not None:
            return 1
        inner = self.cost(node.operand)
        if node.test:
            return inner
        return inner + (1 if node.operand.type.kind in ("map", "object", "optional", "dyn") else 0)

    def list_(self, node: ListLiteral) -> int:
        return _LIST + sum(map(self.cost, node.items))

    def map_(self, node: MapLiteral) -> int:
        return _MAP + sum(self.cost(key) + self.cost(value) for key, value, _ in node.entries)

    def struct(self, node: StructLiteral) -> int:
        return _STRUCT + sum(self.cost(value) for _, value, _, _ in node.entries)

    def fold(self, node: Fold) -> int:
        outside = self.cost(node.over)
        turns = self.size(node.over)
        test = self.cost(node.test) if node.test is not None else 0
        if node.macro in _TURN:
            turn, whole = _TURN[node.macro]
            turn += test
        else:
            result = self.cost(node.result) if node.result is not None else 0
            turn, whole = 2 + _LIST + test + result, 1 + _LIST
        if node.macro not in ("all", "exists", "exists_one"):
            self.sizes[id(node)] = turns
        return outside + whole + _product(turns, turn)

    def bind(self, node: Bind) -> int:
        return self.cost(node.value) + self.cost(node.body) + 1

    # ---------------------------------------------------------------- calls

    def call(self, node: Call) -> int:
        operands = [node.target, *node.args] if node.target is not None else node.args
        costs = [self.cost(operand) for operand in operands]
        if node.function == "_?_:_":
            self.sizes[id(node)] = max(self.size(node.args[1]), self.size(node.args[2]))
            return costs[0] + max(costs[1], costs[2])
        if node.function in ("_&&_", "_||_"):
            return sum(costs)
        return sum(costs) + self.own(node, operands)

    def own(self, node: Call, operands: list[Node]) -> int:
        """What the function itself costs."""
        name, first = node.function, operands[0] if operands else None
        if first is None:
            return 1
        member = node.target is not None
        if name in ("startsWith", "endsWith") and member:
            return _times(self.size(node.args[0]), _TEXT)
        if name in ("string", "bytes") and first.type.kind in ("string", "bytes"):
            self.sizes[id(node)] = _product(self.size(first), 4)
            return _times(self.size(first), _TEXT)
        if name == "@in" and operands[1].type.kind == "list":
            return self.size(operands[1])
        if name in ("matches", "find", "findAll"):
            self.sizes[id(node)] = self.size(first)
            text = _times(min(UNKNOWN, self.size(first) + 1), _TEXT)
            return _product(text, _times(self.size(operands[1]), _PATTERN))
        if name == "contains" and member:
            return _product(_times(self.size(first), _TEXT), _times(self.size(operands[1]), _TEXT))
        if name == "_+_":
            return self.addition(node, operands)
        if name == "_==_" and operands[0].type.name in _COMPARED_AT_ONCE:
            return 1
        if name in _COMPARES:
            return _times(min(self.size(operands[0]), self.size(operands[1])), _TEXT)
        return self.library(node, name, operands)

    def addition(self, node: Call, operands: list[Node]) -> int:
        kind = node.type.kind
        if kind not in ("string", "bytes", "list"):
            return 1
        size = self.sizes[id(node)] = min(UNKNOWN, self.size(operands[0]) + self.size(operands[1]))
        return 1 if kind == "list" else _times(size, _TEXT)

    def library(self, node: Call, name: str, operands: list[Node]) -> int:
        first = operands[0]
        if name == "check":
            return _AUTHORIZE
        if name in _LISTWISE and first.type.kind == "list":
            item = first.type.params[0]
            each = 1 + (_times(_size_of(item), _TEXT) if item.kind in ("string", "bytes") else 0)
            return _product(self.size(first), each)
        if name in _LISTWISE or name in _READS_TARGET:
            self.sizes[id(node)] = self.size(first)
            return _times(self.size(first), _TEXT)
        if name == "join":
            gap = self.size(operands[1]) if len(operands) > 1 else 0
            item = first.type.params[0] if first.type.params else first.type
            size = _product(self.size(first), min(UNKNOWN, _size_of(item) + gap))
            self.sizes[id(node)] = size
            return _times(size, _TEXT)
        if name == "format":
            return _times(self.size(first), _TEXT)
        if name in _READS_ARGUMENT and first.type.kind == "string":
            return _times(self.size(first), _TEXT)
        if name == "validate":
            return _times(self.size(operands[1]), _TEXT)
        if name.startswith("sets."):
            return _product(self.size(operands[0]), self.size(operands[1])) * (2 if name == "sets.equivalent" else 1)
        if name in ("distinct", "sort", "flatten", "slice", "reverse"):
            size = self.sizes[id(node)] = self.size(first)
            return _product(size, size) if name == "distinct" else size
        return 1


def _size_of(kind: Type) -> int:
    if kind.kind in _SCALARS:
        return 1
    if kind.kind == "object":
        return 0  # upstream declares no size of what has fields
    return kind.max_size if kind.max_size is not None else UNKNOWN


_COSTS: dict[type[Node], Callable[..., int]] = {
    Const: _Estimator.constant,
    Ident: _Estimator.ident,
    Select: _Estimator.select,
    Call: _Estimator.call,
    ListLiteral: _Estimator.list_,
    MapLiteral: _Estimator.map_,
    StructLiteral: _Estimator.struct,
    Fold: _Estimator.fold,
    Bind: _Estimator.bind,
}

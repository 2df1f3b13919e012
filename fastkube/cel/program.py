"""Checked trees made into closures: each node is a function of the list of bindings, compiled once, called often.

Slot 0 of the list is what is left of the cost limit. Loops and functions that read whole texts take from it as they
go; all else is counted beforehand, so that evaluation pays for the count only where it can grow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastkube.cel import folds
from fastkube.cel.ast import (
    Bind,
    Call,
    Const,
    Fold,
    Ident,
    ListLiteral,
    MapLiteral,
    Node,
    Select,
    StructLiteral,
)
from fastkube.cel.errors import CostError, EvalError
from fastkube.cel.functions import NO_OVERLOAD, Overload, dispatch
from fastkube.cel.listtypes import concatenation, converter, equality
from fastkube.cel.types import DYN, Type
from fastkube.cel.values import NONE, Optional, Struct, TypeValue

Slots = list[Any]
Code = Callable[[Slots], Any]

PER_CALL_LIMIT = 1_000_000
"""What one evaluation may cost, as in Kubernetes."""

_READERS = (
    "contains matches startsWith endsWith find findAll split replace join format lowerAscii upperAscii indexOf "
    "lastIndexOf isSorted sum min max quantity isQuantity url isURL ip cidr _+_ @in sets.contains sets.intersects "
    "sets.equivalent"
)
_TEXT_READERS = frozenset(_READERS.split())


class Program:
    """A compiled expression. `type` is what it gives; `names` are the variables that it uses."""

    def __init__(self, text: str, tree: Node) -> None:
        self.text = text
        self.tree = tree
        self.type: Type = tree.type
        maker = _Maker()
        self._code = maker.make(tree)
        self._slots = tuple(maker.variables.items())
        self._blank: Slots = [None] * maker.size
        self._base = maker.cost
        self.names = frozenset(maker.variables)

    def evaluate(self, bindings: Mapping[str, Any], limit: int = PER_CALL_LIMIT) -> Any:
        """The value for these bindings; EvalError if there is none, CostError if it takes too much."""
        return self.run(bindings, limit)[0]

    def run(self, bindings: Mapping[str, Any], limit: int) -> tuple[Any, int]:
        """The value, and what it cost."""
        slots = self._blank.copy()
        slots[0] = limit - self._base
        if slots[0] < 0:
            raise CostError
        for name, slot in self._slots:
            try:
                slots[slot] = bindings[name]
            except KeyError:
                raise EvalError(f"no such attribute(s): {name}") from None
        value = self._code(slots)
        return value, limit - slots[0]


class _Maker:
    """Makes the code of one program: allots slots, and adds up the cost of what is evaluated once."""

    def __init__(self) -> None:
        self.size = 1
        self.variables: dict[str, int] = {}
        self.scopes: list[dict[str, int]] = []
        self.cost = 0

    def slot(self) -> int:
        self.size += 1
        return self.size - 1

    def make(self, node: Node) -> Code:
        return _MAKERS[type(node)](self, node)

    # ---------------------------------------------------------------- names

    def constant(self, node: Const) -> Code:
        value = node.value
        return lambda slots: value

    def ident(self, node: Ident) -> Code:
        if node.names_type is not None:
            named = TypeValue(_type_value_name(node))
            return lambda slots: named
        self.cost += 1
        index = self.find(node.name)
        return lambda slots: slots[index]

    def find(self, name: str) -> int:
        if not name.startswith("."):
            for scope in reversed(self.scopes):
                if name in scope:
                    return scope[name]
        name = name.removeprefix(".")
        if name not in self.variables:
            self.variables[name] = self.slot()
        return self.variables[name]

    def select(self, node: Select) -> Code:
        if node.variable is not None:
            return self.make(node.variable)
        self.cost += 1
        operand = self.make(node.operand)
        kind = node.operand.type
        if kind.kind == "optional":
            return _select_of_optional(operand, node, kind.params[0])
        key = _key_of(kind, node.field)
        if node.test:
            return _presence(operand, key)
        convert = converter(node.type.params[0] if node.optional else node.type)
        if node.optional:
            return _optional_field(operand, key, convert)
        return _field(operand, key, node.field, convert)

    # ---------------------------------------------------------------- calls

    def call(self, node: Call) -> Code:
        special = _SPECIAL.get(node.function)
        operands = [node.target, *node.args] if node.target is not None else node.args
        codes = [self.make(operand) for operand in operands]
        self.cost += 1
        if special is not None:
            return special(*codes)
        call = self.callee(node, operands)
        if all(isinstance(operand, Const) for operand in operands):
            return _constant_call(call, [operand.value for operand in operands if isinstance(operand, Const)])
        if node.function in _TEXT_READERS and operands[0].type.kind not in ("int", "double", "uint"):
            return _counted(call, codes)
        return _applied(call, codes)

    def callee(self, node: Call, operands: list[Node]) -> Callable[..., Any]:
        name = node.function
        if name in ("_==_", "_!=_"):
            return equality(operands[0].type, operands[1].type, wanted=name == "_==_")
        if name == "_+_" and operands[0].type.list_type:
            return concatenation(operands[0].type)
        if len(node.overloads) == 1 and _verified(node.overloads[0], operands):
            return node.overloads[0].call
        return dispatch(node.overloads)

    # ---------------------------------------------------------------- literals

    def list(self, node: ListLiteral) -> Code:
        codes = tuple(map(self.make, node.items))
        self.cost += 10
        if not node.optional:
            return lambda slots: [code(slots) for code in codes]
        optional = node.optional

        def make(slots: Slots) -> list[Any]:
            made = []
            for index, code in enumerate(codes):
                value = code(slots)
                if index not in optional:
                    made.append(value)
                elif value.present:
                    made.append(value.value)
            return made

        return make

    def map(self, node: MapLiteral) -> Code:
        entries = [(self.make(key), self.make(value), optional) for key, value, optional in node.entries]
        self.cost += 30

        def make(slots: Slots) -> dict[Any, Any]:
            made: dict[Any, Any] = {}
            for key_code, value_code, optional in entries:
                key, value = key_code(slots), value_code(slots)
                if optional:
                    if not value.present:
                        continue
                    value = value.value
                if key in made:
                    raise EvalError(f"Failed with repeated key: {key}")
                made[key] = value
            return made

        return make

    def struct(self, node: StructLiteral) -> Code:
        entries = [(_key_of(node.type, name), self.make(value), optional) for name, value, optional, _ in node.entries]
        type_name = node.type.name
        self.cost += 40

        def make(slots: Slots) -> Struct:
            made = {}
            for name, code, optional in entries:
                value = code(slots)
                if optional:
                    if not value.present:
                        continue
                    value = value.value
                made[name] = value
            return Struct(type_name, made)

        return make

    # ---------------------------------------------------------------- macros

    def fold(self, node: Fold) -> Code:
        over = self.make(node.over)
        outside = self.cost
        self.cost = 0
        places = [self.slot() for _ in node.names]
        self.scopes.append(dict(zip(node.names, places, strict=True)))
        test = self.make(node.test) if node.test is not None else None
        result = self.make(node.result) if node.result is not None else None
        self.scopes.pop()
        step, self.cost = self.cost + 1, outside + 1
        return folds.make(node, over, places, test, result, step)

    def bind(self, node: Bind) -> Code:
        value = self.make(node.value)
        place = self.slot()
        self.scopes.append({node.name: place})
        body = self.make(node.body)
        self.scopes.pop()
        self.cost += 1
        if node.macro == "bind":
            return _bound(place, value, body)
        return _opt_map(place, value, body, flat=node.macro == "optFlatMap")


_MAKERS: dict[type[Node], Callable[..., Code]] = {
    Const: _Maker.constant,
    Ident: _Maker.ident,
    Select: _Maker.select,
    Call: _Maker.call,
    ListLiteral: _Maker.list,
    MapLiteral: _Maker.map,
    StructLiteral: _Maker.struct,
    Fold: _Maker.fold,
    Bind: _Maker.bind,
}


def _type_value_name(node: Ident) -> str:
    return node.name.removeprefix(".")


def _key_of(kind: Type, field: str) -> str:
    """The key in the data of a field: object types know their escaped names."""
    found = kind.field_named(field)
    return found.key if found is not None else field


def _verified(overload: Overload, operands: list[Node]) -> bool:
    """Whether the checker knows that the arguments are what the overload takes."""
    return all(
        operand.type.kind not in ("dyn", "error") or param.kind in ("param", "dyn")
        for param, operand in zip(overload.params, operands, strict=True)
    )


# ---------------------------------------------------------------- code of selections


def _field(operand: Code, key: str, name: str, convert: Callable[[Any], Any] | None) -> Code:
    def select(slots: Slots) -> Any:
        holder = operand(slots)
        try:
            return holder[key]
        except KeyError:
            raise EvalError(f"no such key: {name}") from None
        except TypeError:
            told = "unsupported index type 'string' in list" if isinstance(holder, list) else f"no such key: {name}"
            raise EvalError(told) from None

    if convert is None:
        return select
    return lambda slots: convert(select(slots))


def _presence(operand: Code, key: str) -> Code:
    def test(slots: Slots) -> bool:
        holder = operand(slots)
        if not isinstance(holder, dict):
            raise EvalError(NO_OVERLOAD)
        return key in holder

    return test


def _optional_field(operand: Code, key: str, convert: Callable[[Any], Any] | None) -> Code:
    def select(slots: Slots) -> Optional:
        holder = operand(slots)
        if isinstance(holder, Optional):
            if not holder.present:
                return NONE
            holder = holder.value
        if not isinstance(holder, dict):
            raise EvalError(NO_OVERLOAD)
        if key not in holder:
            return NONE
        return Optional(convert(holder[key]) if convert is not None else holder[key])

    return select


def _select_of_optional(operand: Code, node: Select, kind: Type) -> Code:
    key = _key_of(kind, node.field)
    if node.test:

        def test(slots: Slots) -> bool:
            holder = operand(slots)
            return holder.present and key in holder.value

        return test
    return _optional_field(operand, key, converter(node.type.params[0] if node.type.params else DYN))


# ---------------------------------------------------------------- code of calls


def _applied(call: Callable[..., Any], codes: list[Code]) -> Code:
    if len(codes) == 1:
        (only,) = codes
        return lambda slots: call(only(slots))
    if len(codes) == 2:
        first, second = codes
        return lambda slots: call(first(slots), second(slots))
    return lambda slots: call(*[code(slots) for code in codes])


def _counted(call: Callable[..., Any], codes: list[Code]) -> Code:
    """A call that costs a tenth of what its first argument is long."""

    def apply(slots: Slots) -> Any:
        args = [code(slots) for code in codes]
        for arg in args:
            if type(arg) in (str, list, bytes):
                slots[0] -= len(arg) // 10
        if slots[0] < 0:
            raise CostError
        return call(*args)

    return apply


def _constant_call(call: Callable[..., Any], args: list[Any]) -> Code:
    """Worked out beforehand; what has no value is left to fail when it is asked for."""
    try:
        value = call(*args)
    except EvalError as error:
        told = str(error)

        def fail(slots: Slots) -> Any:
            raise EvalError(told)

        return fail
    return lambda slots: value


def _and(left: Code, right: Code) -> Code:
    def both(slots: Slots) -> bool:
        try:
            first = left(slots)
        except CostError:
            raise
        except EvalError:
            if right(slots) is False:
                return False
            raise
        if first is False:
            return False
        second = right(slots)
        if second is False:
            return False
        if first is not True or second is not True:
            raise EvalError(NO_OVERLOAD)
        return True

    return both


def _or(left: Code, right: Code) -> Code:
    def either(slots: Slots) -> bool:
        try:
            first = left(slots)
        except CostError:
            raise
        except EvalError:
            if right(slots) is True:
                return True
            raise
        if first is True:
            return True
        second = right(slots)
        if second is True:
            return True
        if first is not False or second is not False:
            raise EvalError(NO_OVERLOAD)
        return False

    return either


def _conditional(condition: Code, yes: Code, no: Code) -> Code:
    def choose(slots: Slots) -> Any:
        decided = condition(slots)
        if decided is True:
            return yes(slots)
        if decided is False:
            return no(slots)
        raise EvalError(NO_OVERLOAD)

    return choose


def _or_value(optional: Code, other: Code) -> Code:
    def value(slots: Slots) -> Any:
        given = optional(slots)
        if not isinstance(given, Optional):
            raise EvalError(NO_OVERLOAD)
        return given.value if given.present else other(slots)

    return value


def _or_optional(optional: Code, other: Code) -> Code:
    def value(slots: Slots) -> Any:
        given = optional(slots)
        if not isinstance(given, Optional):
            raise EvalError(NO_OVERLOAD)
        return given if given.present else other(slots)

    return value


_SPECIAL: dict[str, Callable[..., Code]] = {
    "_&&_": _and,
    "_||_": _or,
    "_?_:_": _conditional,
    "orValue": _or_value,
    "or": _or_optional,
}


def _bound(place: int, value: Code, body: Code) -> Code:
    def run(slots: Slots) -> Any:
        slots[place] = value(slots)
        return body(slots)

    return run


def _opt_map(place: int, value: Code, body: Code, flat: bool) -> Code:
    def run(slots: Slots) -> Optional:
        given = value(slots)
        if not isinstance(given, Optional):
            raise EvalError(NO_OVERLOAD)
        if not given.present:
            return NONE
        slots[place] = given.value
        made = body(slots)
        return made if flat else Optional(made)

    return run

"""The type checker: finds what names mean and which overloads are called; tells what does not fit in cel-go's words.

It follows cel-go's: overloads whose parameters take the arguments are all kept; where their results differ the call is
dyn and the choice is left to run time. Kubernetes' own rules on top: lists and maps that are written out hold one
type; constant patterns, timestamps and durations must be valid.
"""

from __future__ import annotations

from collections.abc import Callable

from fastkube.api import regex
from fastkube.cel import times, types
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
from fastkube.cel.environment import Environment
from fastkube.cel.errors import EvalError, Issue
from fastkube.cel.types import BOOL, DYN, ERROR, INT, Field, Substitution, Type, list_of, map_of, optional_of, shown


def check(tree: Node, environment: Environment) -> list[Issue]:
    """Fills in the types of a tree, in place; the complaints about it."""
    checker = _Checker(environment)
    checker.check(tree)
    if not checker.issues:
        checker.settle(tree)
    return checker.issues


class _Checker:
    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.bound = Substitution()
        self.issues: list[Issue] = []
        self.scopes: list[dict[str, Type]] = []
        self.nodes: list[Node] = []
        self.mixed = 0  # inside the arguments of format(), whose lists hold what they like

    def complain(self, node: Node, message: str) -> Type:
        self.issues.append(Issue(node.pos, message))
        return ERROR

    def settle(self, tree: Node) -> None:
        for node in self.nodes:
            node.type = self.bound.settle(node.type)

    def check(self, node: Node) -> Type:
        node.type = _CHECKS[type(node)](self, node)
        self.nodes.append(node)
        return node.type

    def resolved(self, node: Node) -> Type:
        return self.bound.resolve(node.type)

    # ---------------------------------------------------------------- names

    def find(self, name: str) -> Type | None:
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return self.environment.variables.get(name)

    def constant(self, node: Const) -> Type:
        return node.type

    def ident(self, node: Ident) -> Type:
        name = node.name.removeprefix(".")
        found = self.environment.variables.get(name) if node.name != name else self.find(name)
        if found is not None:
            return found
        named = self.environment.type_names.get(name)
        if named is not None:
            node.names_type = named
            return types.type_of(named)
        return self.complain(node, f"undeclared reference to '{name}' (in container '')")

    def select(self, node: Select) -> Type:
        if not node.test and not node.optional and (name := _qualified(node)):
            root = name.partition(".")[0]
            if not any(root in scope for scope in self.scopes):
                found = self.environment.variables.get(name) or self.environment.type_names.get(name)
                if found is not None:
                    node.variable = Ident(node.pos, name)
                    return self.check(node.variable)
        operand = self.bound.resolve(self.check(node.operand))
        optional = node.optional
        if operand.kind == "optional":
            optional, operand = True, self.bound.resolve(operand.params[0])
        found = self.field(node, operand)
        if node.test:
            return BOOL
        return optional_of(found) if optional and found is not ERROR else found

    def field(self, node: Select, operand: Type) -> Type:
        match operand.kind:
            case "object":
                found = _field_of(operand, node.field)
                if found is None:
                    return self.complain(node, f"undefined field '{node.field}'")
                return found.type
            case "map":
                return operand.params[1]
            case "opaque":
                return self.complain(node, f"unexpected failed resolution of '{operand.name}'")
            case "dyn" | "error":
                return DYN
            case "var":
                self.bound.assignable(operand, DYN)
                return DYN
        if node.optional:
            told = f"unsupported optional field selection: {node.field}"
            return self.complain(node, told)
        return self.complain(node, f"type '{shown(operand)}' does not support field selection")

    # ---------------------------------------------------------------- calls

    def call(self, node: Call) -> Type:
        if node.target is not None:
            name = _qualified(node.target)
            whole = f"{name}.{node.function}" if name else ""
            if whole and whole in self.environment.functions:
                node.function, node.target = whole, None
        name = node.function.removeprefix(".")
        overloads = self.environment.functions.get(name)
        operands = [node.target, *node.args] if node.target is not None else node.args
        self.mixed += name == "format"
        given = [self.check(operand) for operand in operands]
        self.mixed -= name == "format"
        if name == "_?_:_":
            return self.conditional(node, given)
        if name in ("_&&_", "_||_"):
            return self.logical(node, given)
        if overloads is None:
            return self.complain(node, f"undeclared reference to '{name}' (in container '')")
        return self.resolve(node, name, given)

    def logical(self, node: Call, given: list[Type]) -> Type:
        for operand, kind in zip(node.args, given, strict=True):
            self.want_bool(operand, kind)
        return BOOL

    def want_bool(self, node: Node, kind: Type) -> None:
        if not self.bound.assignable(BOOL, kind):
            self.complain(node, f"expected type 'bool' but found '{shown(self.bound.settle(kind))}'")

    def conditional(self, node: Call, given: list[Type]) -> Type:
        variable = self.bound.fresh()
        if self.bound.all_assignable((BOOL, variable, variable), given):
            joined = self.bound.join(given[1], given[2])
            return joined if joined is not None else variable
        return self.no_overload(node, node.function, given, member=False)

    def resolve(self, node: Call, name: str, given: list[Type]) -> Type:
        """The result of the overloads that take the arguments; they are noted at the node."""
        member = node.target is not None
        result: Type | None = None
        for overload in self.environment.functions[name]:
            if overload.member is not member or len(overload.params) != len(given):
                continue
            made: dict[str, Type] = {}
            params = tuple(self.bound.instantiate(each, made) for each in overload.params)
            if not self.bound.all_assignable(params, given):
                continue
            node.overloads.append(overload)
            found = self.bound.resolve(self.bound.instantiate(overload.result, made))
            if result is None:
                result = found
            elif result != found:
                result = DYN
        if result is None:
            return self.no_overload(node, name, given, member)
        self.check_constant(node, name)
        return self.keep_list_type(node, name, result, given)

    def keep_list_type(self, node: Call, name: str, result: Type, given: list[Type]) -> Type:
        """A concatenation of lists is of the list type of its left side."""
        if name == "_+_" and result.kind == "list" and given[0].kind == "list":
            left = self.bound.resolve(given[0])
            return Type("list", params=result.params, list_type=left.list_type, keys=left.keys)
        return result

    def no_overload(self, node: Node, name: str, given: list[Type], member: bool) -> Type:
        told = [shown(self.bound.settle(each)) for each in given]
        applied = f"{told[0]}.({', '.join(told[1:])})" if member else f"({', '.join(told)})"
        return self.complain(node, f"found no matching overload for '{name}' applied to '{applied}'")

    def check_constant(self, node: Call, name: str) -> None:
        """Constant arguments that could never be evaluated."""
        valid = _CONSTANTS.get(name)
        arg = node.args[-1] if node.args else None
        if valid is None or not isinstance(arg, Const) or not isinstance(arg.value, str):
            return
        try:
            valid(arg.value)
        except (EvalError, regex.RegexError):
            self.complain(arg, f"invalid {name} argument")

    # ---------------------------------------------------------------- literals

    def list(self, node: ListLiteral) -> Type:
        found: Type | None = None
        for index, item in enumerate(node.items):
            kind = self.check(item)
            if index in node.optional:
                kind = self.unwrapped(item, kind)
            found = self.same(item, found, kind)
        return list_of(found if found is not None else self.bound.fresh())

    def map(self, node: MapLiteral) -> Type:
        keys: Type | None = None
        values: Type | None = None
        for key, value, optional in node.entries:
            keys = self.same(key, keys, self.check(key))
            kind = self.check(value)
            values = self.same(value, values, self.unwrapped(value, kind) if optional else kind)
        if keys is None or values is None:
            return map_of(self.bound.fresh(), self.bound.fresh())
        return map_of(keys, values)

    def unwrapped(self, node: Node, kind: Type) -> Type:
        kind = self.bound.resolve(kind)
        if kind.kind == "optional":
            return kind.params[0]
        if kind.kind not in ("dyn", "error"):
            self.complain(node, f"expected type 'optional_type({shown(kind)})' but found '{shown(kind)}'")
        return DYN

    def same(self, node: Node, found: Type | None, kind: Type) -> Type:
        if found is None:
            return kind
        joined = self.bound.join(found, kind)
        if joined is None:
            if self.mixed:
                return DYN
            wanted = shown(self.bound.settle(found))
            return self.complain(node, f"expected type '{wanted}' but found '{shown(self.bound.settle(kind))}'")
        return joined

    def struct(self, node: StructLiteral) -> Type:
        made = self.environment.find_type(node.name.removeprefix("."))
        if made is None:
            return self.complain(node, f"undeclared reference to '{node.name}' (in container '')")
        for name, value, optional, pos in node.entries:
            kind = self.check(value)
            if optional:
                kind = self.unwrapped(value, kind)
            field = _field_of(made, name)
            if field is None:
                self.issues.append(Issue(pos, f"undefined field '{name}'"))
            elif not self.bound.assignable(field.type, kind):
                wanted, given = shown(field.type), shown(self.bound.settle(kind))
                told = f"expected type of field '{name}' is '{wanted}' but provided type is '{given}'"
                self.issues.append(Issue(pos, told))
        return made

    # ---------------------------------------------------------------- macros

    def fold(self, node: Fold) -> Type:
        over = self.bound.resolve(self.check(node.over))
        first, second = self.elements(node, over)
        variables = (first, second) if len(node.names) == 2 else (second if over.kind != "map" else first,)
        self.scopes.append(dict(zip(node.names, variables, strict=True)))
        test = self.check(node.test) if node.test is not None else None
        result = self.check(node.result) if node.result is not None else None
        self.scopes.pop()
        if test is not None and not self.bound.assignable(BOOL, test):
            self.refuse_test(node, test, first if over.kind == "map" else second)
        match node.macro:
            case "all" | "exists" | "exists_one":
                return BOOL
            case "filter":
                return list_of(variables[0])
            case "transformMap":
                return map_of(first, result or DYN)
            case "transformMapEntry":
                return self.bound.resolve(result or DYN)
        return list_of(result or DYN)

    def elements(self, node: Fold, over: Type) -> tuple[Type, Type]:
        """What the variables are: index (or key) and value."""
        match over.kind:
            case "list":
                return INT, over.params[0]
            case "map":
                return over.params[0], over.params[1]
            case "dyn" | "error":
                return DYN, DYN
            case "var":
                self.bound.assignable(over, DYN)
                return DYN, DYN
        told = f"expression of type '{shown(over)}' cannot be range of a comprehension (must be list, map, or dynamic)"
        self.complain(node.over, told)
        return ERROR, ERROR

    def refuse_test(self, node: Fold, test: Type, element: Type) -> None:
        """In the words for what the macro would be expanded to."""
        if node.macro in ("all", "exists") and node.test is not None:
            self.want_bool(node.test, test)
            return
        kept = INT if node.macro == "exists_one" else list_of(element)
        self.no_overload(node, "_?_:_", [test, kept, kept], member=False)

    def bind(self, node: Bind) -> Type:
        value = self.bound.resolve(self.check(node.value))
        if node.macro != "bind":
            if value.kind == "optional":
                value = value.params[0]
            elif value.kind not in ("dyn", "error"):
                return self.no_overload(node, node.macro, [value, DYN, DYN], member=True)
        self.scopes.append({node.name: value})
        body = self.check(node.body)
        self.scopes.pop()
        return optional_of(body) if node.macro == "optMap" else body


_CHECKS: dict[type[Node], Callable[..., Type]] = {
    Const: _Checker.constant,
    Ident: _Checker.ident,
    Select: _Checker.select,
    Call: _Checker.call,
    ListLiteral: _Checker.list,
    MapLiteral: _Checker.map,
    StructLiteral: _Checker.struct,
    Fold: _Checker.fold,
    Bind: _Checker.bind,
}

_CONSTANTS: dict[str, Callable[[str], object]] = {
    "matches": regex.compile,
    "duration": times.parse_duration,
    "timestamp": times.parse_timestamp,
}


def _field_of(kind: Type, name: str) -> Field | None:
    found = kind.field_named(name)
    if found is None and kind.open:
        return Field(name, kind.open_field(name) if kind.open_field is not None else DYN)
    return found


def _qualified(node: Node) -> str:
    """`a.b.c` of a chain of plain selections; "" of anything else."""
    parts: list[str] = []
    while isinstance(node, Select):
        if node.test or node.optional:
            return ""
        parts.append(node.field)
        node = node.operand
    if not isinstance(node, Ident):
        return ""
    return ".".join((node.name, *reversed(parts)))

"""The CEL rules of a schema (x-kubernetes-validations), evaluated on the objects of its kind.

    rules = compile(schema)          the tree of rules; None if there is none
    judge(rules, new, old)           the complaints, in the order of the schema

Rules that speak of `oldSelf` are asked only where there is an old value that can be matched (by field, by map key, by
the keys of a map list), or always with `optionalOldSelf`, where it is an optional. The other rules are not asked about
values that have not changed. All rules of an object share one budget.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from fastkube import cel
from fastkube.api import field, jsonschema
from fastkube.api.jsonschema import NOTHING, NOWHERE
from fastkube.cel import CompileError, CostError, Environment, EvalError, Program
from fastkube.cel.listtypes import converter
from fastkube.cel.types import optional_of
from fastkube.cel.values import NONE, Optional
from fastkube.errors import Cause
from fastkube.registry.custom.fieldpaths import PathError, parse

Object = dict[str, Any]

OBJECT_BUDGET = 10_000_000
"""What all rules of one object may cost."""

_MESSAGE_MAX = 5 * 1024


class Rule:
    """One rule, compiled. `error` and `message_error` say why a part of it cannot be."""

    def __init__(self, told: Object, self_type: cel.Type, schema: Object) -> None:
        self.text: str = told.get("rule", "").strip()
        self.message: str = (told.get("message") or "").strip()
        self.reason: str = told.get("reason") or "FieldValueInvalid"
        self.optional = bool(told.get("optionalOldSelf"))
        self.error = self.message_error = ""
        self.program = self._compile(told.get("rule", ""), self_type)
        self.uses_old = self.program is not None and "oldSelf" in self.program.names
        message = "" if self.error else (told.get("messageExpression") or "").strip()
        self.message_program = self._compile_message(message, self_type)
        self.place = ""
        if told.get("fieldPath"):
            try:
                self.place = parse(told["fieldPath"], schema)[0]
            except PathError as problem:
                self.error = self.error or str(problem)

    def _compile(self, text: str, self_type: cel.Type) -> Program | None:
        try:
            program = cel.compile(text, _environment(self_type, self.optional))
        except CompileError as problem:
            self.error = f"compilation failed: {problem}"
            return None
        if program.type.kind not in ("bool", "dyn"):
            self.error = "cel expression must evaluate to a bool"
            return None
        return program

    def _compile_message(self, text: str, self_type: cel.Type) -> Program | None:
        if not text:
            return None
        try:
            program = cel.compile(text, _environment(self_type, self.optional))
        except CompileError as problem:
            self.message_error = f"messageExpression compilation failed: {problem}"
            return None
        if program.type.kind != "string":
            self.message_error = "messageExpression must evaluate to a string"
            return None
        return program

    @property
    def shown(self) -> str:
        """How complaints about evaluation name the rule."""
        return self.message or self.text

    def told(self, bindings: Object) -> str:
        """The message of a refusal."""
        fallback = self.message or f"failed rule: {self.text}"
        if self.message_program is None:
            return fallback
        try:
            made = str(self.message_program.evaluate(bindings)).strip()
        except EvalError:
            return fallback
        return made if made and "\n" not in made and len(made) <= _MESSAGE_MAX else fallback


def _environment(self_type: cel.Type, optional: bool) -> Environment:
    return Environment({"self": self_type, "oldSelf": optional_of(self_type) if optional else self_type})


class Rules:
    """The rules of one schema and of what is below it; `whole=False`: without what is below."""

    def __init__(self, schema: Object, root: bool, *, whole: bool = True) -> None:
        self.schema = schema
        self.type: str = schema.get("type", "")
        told = schema.get("x-kubernetes-validations") or []
        self_type = cel.declared(schema, root=root) if told else None
        self.own = [Rule(each, self_type or cel.DYN, schema) for each in told]
        self.convert = converter(self_type) if self_type is not None else None
        self.min_bytes = self_type.min_bytes if self_type is not None else 0
        below = schema if whole else {}
        properties = below.get("properties") or {}
        self.fields = {key: made for key, each in properties.items() if (made := _below(each))}
        self.items = _below(below.get("items"))
        self.values = _below(below.get("additionalProperties"))
        self.keys: tuple[str, ...] = ()
        if schema.get("x-kubernetes-list-type") == "map":
            self.keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
        self.correlates = schema.get("x-kubernetes-map-type") != "atomic"

    def __bool__(self) -> bool:
        return bool(self.own or self.fields or self.items or self.values)


def _below(schema: Any) -> Rules | None:
    made = Rules(schema, False) if isinstance(schema, dict) else None
    return made or None


def compile_below(schema: Object) -> Rules | None:
    """The rules of a part of a schema."""
    return _below(schema)


def compile(schema: Object) -> Rules | None:
    """The rules of a custom kind; None if it has none. What cannot be compiled is told when it is asked."""
    return Rules(schema, True) or None


class _OutOfBudget(Exception):
    pass


def judge(rules: Rules, new: Any, old: Any = NOTHING, path: str = "") -> list[Cause]:
    """The complaints of all rules about an object, or a part of one at `path`."""
    found: list[Cause] = []
    judging = _Judging(found)
    with contextlib.suppress(_OutOfBudget):
        judging.visit(rules, new, old, path)
    return found


class _Judging:
    """One object's way through the rules of its kind."""

    def __init__(self, found: list[Cause]) -> None:
        self.found = found
        self.left = OBJECT_BUDGET

    def visit(self, rules: Rules, new: Any, old: Any, path: str) -> None:
        if new is None:
            return
        if rules.own:
            self.ask(rules, new, old, path)
        if isinstance(new, dict):
            before = old if isinstance(old, dict) and rules.correlates else None
            for key, below in _fields(rules, new):
                self.visit(below, new[key], before.get(key, NOTHING) if before else NOTHING, _child(rules, path, key))
        elif isinstance(new, list) and rules.items is not None:
            matched = _matched(rules.keys, old)
            for index, item in enumerate(new):
                before_item = matched.get(jsonschema.identity(item, rules.keys), NOTHING) if matched else NOTHING
                self.visit(rules.items, item, before_item, f"{path}[{index}]")

    def ask(self, rules: Rules, new: Any, old: Any, path: str) -> None:
        convert = rules.convert
        bindings = {"self": convert(new) if convert is not None else new}
        given = old is not NOTHING and old is not None
        unchanged: bool | None = None
        for rule in rules.own:
            if rule.error:
                self.found.append(field.invalid(path or NOWHERE, rules.type, f"rule compile error: {rule.error}"))
                continue
            if rule.uses_old:
                if not given and not rule.optional:
                    continue
                before = (convert(old) if convert is not None else old) if given else None
                if rule.optional:
                    bindings["oldSelf"] = Optional(before) if given else NONE
                else:
                    bindings["oldSelf"] = before
            else:
                if unchanged is None:
                    unchanged = given and jsonschema.same(new, old)
                if unchanged:
                    continue
            self.evaluate(rules, rule, bindings, new, path)

    def evaluate(self, rules: Rules, rule: Rule, bindings: Object, new: Any, path: str) -> None:
        assert rule.program is not None
        try:
            value, cost = rule.program.run(bindings, min(cel.PER_CALL_LIMIT, self.left))
        except CostError as problem:
            if self.left < cel.PER_CALL_LIMIT:
                told = "validation failed due to running out of cost budget, no further validation rules will be run"
            else:
                told = f"'{problem}': no further validation rules will be run due to call cost exceeds limit for rule: "
                told += rule.shown
            self.found.append(field.invalid(path or NOWHERE, rules.type, told))
            raise _OutOfBudget from None
        except EvalError as problem:
            self.found.append(field.invalid(path or NOWHERE, rules.type, _evaluation_told(str(problem), rule)))
            return
        self.left -= cost
        if value is not True:
            self.found.append(_refusal(rule, bindings, new, _join(path, rule.place) or NOWHERE))


def _evaluation_told(problem: str, rule: Rule) -> str:
    if problem.startswith("no such overload"):
        told = "call arguments did not match a supported operator, function or macro signature for rule"
        return f"'{problem}': {told}: {rule.shown}"
    return f"{problem} evaluating rule: {rule.shown}"


def _refusal(rule: Rule, bindings: Object, new: Any, path: str) -> Cause:
    told = rule.told(bindings)
    whole = isinstance(new, dict | list)  # what is no scalar is not shown
    match rule.reason:
        case "FieldValueForbidden":
            return field.forbidden(path, told)
        case "FieldValueRequired":
            return field.required(path, told)
        case "FieldValueDuplicate":
            return Cause(rule.reason, "Duplicate value", path) if whole else field.duplicate(path, new)
    return Cause("FieldValueInvalid", f"Invalid value: {told}", path) if whole else field.invalid(path, new, told)


def _fields(rules: Rules, new: Object) -> Iterator[tuple[str, Rules]]:
    for key, below in rules.fields.items():
        if key in new:
            yield key, below
    if rules.values is not None:
        for key in sorted(new):
            yield key, rules.values


def _child(rules: Rules, path: str, key: str) -> str:
    return _join(path, key) if key in rules.fields else f"{path}[{key}]"


def _join(path: str, more: str) -> str:
    if not path or not more or more.startswith("["):
        return path + more
    return f"{path}.{more}"


def _matched(keys: tuple[str, ...], old: Any) -> dict[tuple[Any, ...], Any]:
    if not keys or not isinstance(old, list):
        return {}
    return {jsonschema.identity(item, keys): item for item in old}

"""CEL, as Kubernetes uses it: compile once, evaluate in microseconds.

    environment = Environment({"self": declared(schema), "oldSelf": ...})
    program = compile("self.min <= self.max", environment)      # CompileError: cel-go's text of what is wrong
    program.type                                                # what it gives: BOOL
    program.evaluate({"self": {"min": 1, "max": 2}})            # True; EvalError("no such key: min") if there is none

For the rules of CustomResourceDefinitions, admission policies, match conditions of webhooks, selectors of devices and
mappings of claims alike. The way of an expression:

    text → lexer → parser (with macros) → checker (types, overloads) → program (closures)

  1. Values are plain JSON values; what CEL has beyond those is in `values.py`. Variables are bound by name; a dict
     with `__missing__` works out its fields when they are asked for (the `variables` of a policy).
  2. The types of variables decide: an undeclared field, a wrong overload or a pattern that is none does not compile.
     `declared` makes the type of a JSON schema, `DYN` is what nothing is known of.
  3. `&&`, `||`, all and exists pass over an error when the other side decides; nothing else does.
  4. Evaluation ends with CostError when it takes more than its limit; `cost.estimate` tells beforehand what an
     expression may take at worst, given the limits of its schema.

There are libraries of CEL for Python; none has Kubernetes' types, extensions, cost limits and messages.
"""

from __future__ import annotations

from fastkube.cel.checker import check
from fastkube.cel.declared import declared
from fastkube.cel.environment import Environment
from fastkube.cel.errors import CompileError, CostError, EvalError, Issue
from fastkube.cel.parser import parse
from fastkube.cel.program import PER_CALL_LIMIT, Program
from fastkube.cel.types import BOOL, DYN, INT, STRING, Field, Type, list_of, map_of, object_type

__all__ = [
    "BOOL",
    "DYN",
    "INT",
    "PER_CALL_LIMIT",
    "STRING",
    "CompileError",
    "CostError",
    "Environment",
    "EvalError",
    "Field",
    "Issue",
    "Program",
    "Type",
    "compile",
    "declared",
    "list_of",
    "map_of",
    "object_type",
]


def compile(text: str, environment: Environment) -> Program:
    """The program of an expression; raises CompileError."""
    tree = parse(text)
    issues = check(tree, environment)
    if issues:
        raise CompileError(text, issues)
    return Program(text, tree)

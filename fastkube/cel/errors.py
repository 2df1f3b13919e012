"""Problems of CEL: of expressions that do not compile, and of values that cannot be worked out."""

from __future__ import annotations

from typing import NamedTuple


class Issue(NamedTuple):
    """One complaint about an expression, at a place in its text (in characters)."""

    pos: int
    message: str


class CompileError(ValueError):
    """The expression is not valid; `str()` is cel-go's text: every issue with the line that it is in."""

    def __init__(self, text: str, issues: list[Issue]) -> None:
        super().__init__(text, issues)
        self.text = text
        self.issues = issues

    def __str__(self) -> str:
        ordered = sorted(self.issues, key=lambda issue: issue.pos)
        return "\n".join(_show(self.text, issue) for issue in ordered)


def _show(text: str, issue: Issue) -> str:
    if not text:
        return f"ERROR: <input>:1:0: {issue.message}"
    before = text[: issue.pos]
    line = before.count("\n")
    column = len(before) - (before.rfind("\n") + 1)
    told = f"ERROR: <input>:{line + 1}:{column + 1}: {issue.message}"
    lines = text.split("\n")
    if line >= len(lines):
        return told
    shown = lines[line].replace("\t", " ")
    dots = "".join("." if char.isascii() else "．" for char in shown[:column].ljust(column, "."))
    return f"{told}\n | {shown}\n | {dots}^"


class EvalError(Exception):
    """The expression has no value for these bindings (cel-go's error values): `no such key: x`."""


class CostError(EvalError):
    """Evaluation was ended because it took more than its cost limit."""

    def __init__(self) -> None:
        super().__init__("operation cancelled: actual cost limit exceeded")

"""Go's text/template over JSON values: parsed once, run many times.

All of its language: pipelines, variables, if, with, range (over lists, maps and numbers; break, continue), define,
template, block, comments and trimming. There are no methods, since data is JSON; functions are those that are handed in
and the language's own (and, or, not, index, slice, len, eq ... ge, print, printf, println, html, js and urlquery are
refused by name). A field of something that is not there is nothing, and prints as <no value>.
Source: the documentation of text/template.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fastkube.nodes.gotemplate_print import sprintf, text_of

Function = Callable[..., Any]
Scope = list[dict[str, Any]]


class TemplateError(ValueError):
    """A template that cannot be parsed, or not be run on this data."""


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


# ---------------------------------------------------------------- words

_ACTION = re.compile(r"\{\{(-(?=\s))?(.*?)((?<=\s)-)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>"(?:[^"\\\n]|\\.)*")
    | (?P<raw>`[^`]*`)
    | (?P<char>'(?:[^'\\\n]|\\.)')
    | (?P<number>[-+]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|[0-9][0-9_]*(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?))
    | (?P<field>(?:\.[A-Za-z_]\w*)+)
    | (?P<variable>\$\w*(?:\.[A-Za-z_]\w*)*)
    | (?P<word>[A-Za-z_]\w*)
    | (?P<sign>:=|=|\||\(|\)|,|\.)
    )""",
    re.VERBOSE,
)


class _Token(NamedTuple):
    kind: str
    text: str
    spaced: bool


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    position, text = 0, text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise TemplateError(f"unexpected {text[position:].strip()!r} in {{{{{text}}}}}")
        kind = str(match.lastgroup)
        found.append(_Token(kind, match.group(kind), match.start(kind) > position))
        position = match.end()
    return found


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)")


def _unquote(text: str) -> str:
    def replace(match: re.Match[str]) -> str:
        code = match.group(1)
        if code[0] in "xuU" and len(code) > 1:
            return chr(int(code[1:], 16))
        if code.isdigit():
            return chr(int(code, 8))
        if code not in _ESCAPES:
            raise TemplateError(f"unknown escape \\{code} in {text}")
        return _ESCAPES[code]

    return _ESCAPE.sub(replace, text[1:-1])


# ---------------------------------------------------------------- what a template is made of

Expression = Callable[["_Run", Any], Any]
Node = Callable[["_Run", Any], None]


class _Run:
    """One execution: what is printed, the variables in scope, the named templates."""

    __slots__ = ("out", "scopes", "templates")

    def __init__(self, data: Any, templates: Mapping[str, list[Node]]) -> None:
        self.out: list[str] = []
        self.scopes: Scope = [{"$": data}]
        self.templates = templates

    def get(self, name: str) -> Any:
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        raise TemplateError(f"undefined variable: {name}")

    def assign(self, name: str, value: Any) -> None:
        for scope in reversed(self.scopes):
            if name in scope:
                scope[name] = value
                return
        raise TemplateError(f"undefined variable: {name}")

    def play(self, nodes: list[Node], dot: Any) -> None:
        """In a scope of their own."""
        self.scopes.append({})
        try:
            for node in nodes:
                node(self, dot)
        finally:
            self.scopes.pop()


def field_of(value: Any, name: str) -> Any:
    if value is None:
        return None
    if isinstance(value, dict):
        return value.get(name)
    raise TemplateError(f"can't evaluate field {name} in {text_of(value)!r}")


def truth(value: Any) -> bool:
    """Anything but nothing, false, zero and what is empty."""
    return bool(value)


class _Pipeline(NamedTuple):
    names: tuple[str, ...]
    declares: bool
    value: Expression


class _Frame:
    """An action that waits for its end."""

    def __init__(self, kind: str, pipeline: _Pipeline | None = None, name: str = "") -> None:
        self.kind, self.pipeline, self.name = kind, pipeline, name
        self.body: list[Node] = []
        self.otherwise: list[Node] | None = None
        self.chained = False

    @property
    def nodes(self) -> list[Node]:
        return self.body if self.otherwise is None else self.otherwise


class Template:
    """A parsed template; raises TemplateError for one that is not well-formed or names unknown functions."""

    def __init__(self, text: str, functions: Mapping[str, Function]) -> None:
        self._functions = {**_LANGUAGE, **functions}
        self._templates: dict[str, list[Node]] = {}
        self._stack = [_Frame("")]
        self._parse(text)
        if len(self._stack) > 1:
            raise TemplateError(f"unexpected end of the template: {{{{{self._stack[-1].kind}}}}} has no end")
        self._nodes = self._stack[0].body

    def render(self, data: Any) -> str:
        """Raises TemplateError."""
        run = _Run(data, self._templates)
        try:
            run.play(self._nodes, data)
        except RecursionError:
            raise TemplateError("templates call each other without end") from None
        return "".join(run.out)

    # -- parsing: texts and actions ----------------------------------------------------------------------------------

    def _parse(self, text: str) -> None:
        position, trims = 0, False
        for match in _ACTION.finditer(text):
            before = text[position : match.start()]
            if trims:
                before = before.lstrip()
            if match.group(1):
                before = before.rstrip()
            self._add_text(before)
            position, trims = match.end(), bool(match.group(3))
            self._action(match.group(2).strip())
        rest = text[position:]
        if "{{" in rest:
            raise TemplateError(f"unclosed action: {rest[rest.index('{{') :][:40]!r}")
        self._add_text(rest.lstrip() if trims else rest)

    def _add_text(self, text: str) -> None:
        if text:
            self._stack[-1].nodes.append(lambda run, dot: run.out.append(text))

    def _action(self, text: str) -> None:
        if text.startswith("/*"):
            if not text.endswith("*/"):
                raise TemplateError(f"unclosed comment {text!r}")
            return
        tokens = _tokens(text)
        if not tokens:
            raise TemplateError("missing value for command")
        word = tokens[0].text if tokens[0].kind == "word" else ""
        if word in ("if", "with", "range"):
            self._stack.append(_Frame(word, self._pipeline(tokens[1:], word)))
        elif word in ("define", "block"):
            self._define(word, tokens[1:])
        elif word == "else":
            self._else(tokens[1:])
        elif word == "end":
            self._end()
        elif word == "template":
            self._template(tokens[1:])
        elif word in ("break", "continue"):
            self._leave(word)
        else:
            self._print(self._pipeline(tokens, "command"))

    def _define(self, word: str, tokens: list[_Token]) -> None:
        if not tokens or tokens[0].kind not in ("string", "raw"):
            raise TemplateError(f"{word} wants a name")
        pipeline = self._pipeline(tokens[1:], word) if word == "block" else None
        self._stack.append(_Frame(word, pipeline, _unquote(tokens[0].text)))

    def _else(self, tokens: list[_Token]) -> None:
        frame = self._stack[-1]
        if frame.kind not in ("if", "with", "range") or frame.otherwise is not None:
            raise TemplateError("unexpected {{else}}")
        frame.otherwise = []
        if tokens:
            word = tokens[0].text
            if word not in ("if", "with") or frame.kind == "range":
                raise TemplateError(f"unexpected {word!r} after else")
            self._stack.append(_Frame(word, self._pipeline(tokens[1:], word)))
            self._stack[-1].chained = True

    def _end(self) -> None:
        frame = self._stack.pop()
        if not self._stack:
            raise TemplateError("unexpected {{end}}")
        if frame.kind in ("define", "block"):
            self._templates[frame.name] = frame.body
            if frame.pipeline is None:
                return
            self._call(frame.name, frame.pipeline.value)
            return
        self._stack[-1].nodes.append(_BRANCHES[frame.kind](frame))
        if frame.chained:
            self._end()

    def _template(self, tokens: list[_Token]) -> None:
        if not tokens or tokens[0].kind not in ("string", "raw"):
            raise TemplateError("template wants a name")
        rest = tokens[1:]
        value: Expression = self._pipeline(rest, "template").value if rest else lambda run, dot: None
        self._call(_unquote(tokens[0].text), value)

    def _call(self, name: str, value: Expression) -> None:
        def call(run: _Run, dot: Any) -> None:
            if name not in run.templates:
                raise TemplateError(f"template {name!r} not defined")
            data = value(run, dot)
            scopes, run.scopes = run.scopes, [{"$": data}]
            try:
                run.play(run.templates[name], data)
            finally:
                run.scopes = scopes

        self._stack[-1].nodes.append(call)

    def _leave(self, word: str) -> None:
        if not any(frame.kind == "range" for frame in self._stack):
            raise TemplateError(f"{{{{{word}}}}} outside {{{{range}}}}")
        error = _Break if word == "break" else _Continue

        def leave(run: _Run, dot: Any) -> None:
            raise error

        self._stack[-1].nodes.append(leave)

    def _print(self, pipeline: _Pipeline) -> None:
        if not pipeline.names:
            value = pipeline.value
            self._stack[-1].nodes.append(lambda run, dot: run.out.append(text_of(value(run, dot))))
            return
        name = pipeline.names[0]

        def declare(run: _Run, dot: Any) -> None:
            value = pipeline.value(run, dot)
            if pipeline.declares:
                run.scopes[-1][name] = value
            else:
                run.assign(name, value)

        self._stack[-1].nodes.append(declare)

    # -- parsing: pipelines ------------------------------------------------------------------------------------------

    def _pipeline(self, tokens: list[_Token], where: str) -> _Pipeline:
        names: tuple[str, ...] = ()
        declares = False
        for length in (2, 4):
            head = tokens[:length]
            if len(head) == length and head[-1].text in (":=", "=") and head[-1].kind == "sign":
                names = tuple(token.text for token in head[:-1] if token.kind == "variable")
                if length == 4 and (head[1].text != "," or where != "range" or len(names) != 2):
                    raise TemplateError("too many declarations")
                declares = head[-1].text == ":="
                tokens = tokens[length:]
                break
        value, rest = self._commands(tokens)
        if rest:
            raise TemplateError(f"unexpected {rest[0].text!r} in {where}")
        return _Pipeline(names, declares, value)

    def _commands(self, tokens: list[_Token]) -> tuple[Expression, list[_Token]]:
        """Commands joined by pipes, until a parenthesis closes or nothing is left."""
        value: Expression | None = None
        while True:
            value, tokens = self._command(tokens, value)
            if not tokens or tokens[0].text == ")":
                return value, tokens
            tokens = tokens[1:]  # the pipe

    def _command(self, tokens: list[_Token], piped: Expression | None) -> tuple[Expression, list[_Token]]:
        function: Function | None = None
        name = ""
        if tokens and tokens[0].kind == "word" and tokens[0].text not in ("true", "false", "nil"):
            name = tokens[0].text
            function = self._function(name)
            tokens = tokens[1:]
        arguments: list[Expression] = []
        while tokens and tokens[0].text not in ("|", ")"):
            argument, tokens = self._operand(tokens)
            arguments.append(argument)
        if function is None:
            if len(arguments) != 1 or piped is not None:
                raise TemplateError("missing value for command" if not arguments else "a value takes no arguments")
            return arguments[0], tokens
        if piped is not None:
            arguments.append(piped)
        if name in ("and", "or"):
            return _lazy(name, arguments), tokens
        return _called(name, function, arguments), tokens

    def _function(self, name: str) -> Function:
        function = self._functions.get(name)
        if function is None:
            raise TemplateError(f"function {name!r} not defined")
        return function

    def _operand(self, tokens: list[_Token]) -> tuple[Expression, list[_Token]]:
        token, rest = tokens[0], tokens[1:]
        value: Expression
        if token.text == "(" and token.kind == "sign":
            value, rest = self._commands(rest)
            if not rest:
                raise TemplateError("unclosed left paren")
            rest = rest[1:]
        elif token.kind == "field":
            value = _fields(lambda run, dot: dot, token.text)
        elif token.kind == "variable":
            name, dot_, fields = token.text.partition(".")
            value = _fields(lambda run, dot: run.get(name), dot_ + fields)
        elif token.kind == "word" and token.text not in ("true", "false", "nil"):
            value = _called(token.text, self._function(token.text), [])
        elif token.text == "." and token.kind == "sign":
            value = lambda run, dot: dot  # noqa: E731
        else:
            constant = _constant(token)
            value = lambda run, dot: constant  # noqa: E731
        while rest and rest[0].kind == "field" and not rest[0].spaced and token.text == "(":
            value, rest = _fields(value, rest[0].text), rest[1:]
        return value, rest


def _constant(token: _Token) -> Any:
    if token.kind == "string":
        return _unquote(token.text)
    if token.kind == "raw":
        return token.text[1:-1]
    if token.kind == "char":
        return ord(_unquote(token.text))
    if token.kind == "number":
        digits = token.text.replace("_", "")
        try:
            return int(digits, 0)
        except ValueError:
            return float(digits)
    words = {"true": True, "false": False, "nil": None}
    if token.kind == "word" and token.text in words:
        return words[token.text]
    raise TemplateError(f"unexpected {token.text!r}")


def _fields(start: Expression, path: str) -> Expression:
    names = path.split(".")[1:]
    if not names:
        return start

    def value(run: _Run, dot: Any) -> Any:
        found = start(run, dot)
        for name in names:
            found = field_of(found, name)
        return found

    return value


def _lazy(name: str, arguments: list[Expression]) -> Expression:
    """`and` and `or` look at their arguments until the answer is known."""
    if not arguments:
        raise TemplateError(f"wrong number of args for {name}: want at least 1 got 0")
    wanted = name == "or"

    def value(run: _Run, dot: Any) -> Any:
        found = None
        for argument in arguments:
            found = argument(run, dot)
            if truth(found) is wanted:
                break
        return found

    return value


def _called(name: str, function: Function, arguments: list[Expression]) -> Expression:
    def value(run: _Run, dot: Any) -> Any:
        values = [argument(run, dot) for argument in arguments]
        try:
            return function(*values)
        except TemplateError:
            raise
        except (TypeError, ValueError, KeyError, IndexError, ArithmeticError, AttributeError) as error:
            raise TemplateError(f"error calling {name}: {error}") from error

    return value


# ---------------------------------------------------------------- branches


def _if(frame: _Frame) -> Node:
    pipeline, otherwise = frame.pipeline, frame.otherwise or []
    assert pipeline is not None

    def node(run: _Run, dot: Any) -> None:
        value = pipeline.value(run, dot)
        run.scopes.append({pipeline.names[0]: value} if pipeline.names else {})
        try:
            run.play(frame.body if truth(value) else otherwise, dot)
        finally:
            run.scopes.pop()

    return node


def _with(frame: _Frame) -> Node:
    pipeline, otherwise = frame.pipeline, frame.otherwise or []
    assert pipeline is not None

    def node(run: _Run, dot: Any) -> None:
        value = pipeline.value(run, dot)
        run.scopes.append({pipeline.names[0]: value} if pipeline.names else {})
        try:
            if truth(value):
                run.play(frame.body, value)
            else:
                run.play(otherwise, dot)
        finally:
            run.scopes.pop()

    return node


def _range(frame: _Frame) -> Node:
    pipeline, otherwise = frame.pipeline, frame.otherwise or []
    assert pipeline is not None
    names = pipeline.names

    def node(run: _Run, dot: Any) -> None:
        pairs = _pairs(pipeline.value(run, dot))
        if not pairs:
            run.play(otherwise, dot)
            return
        for key, value in pairs:
            scope = dict(zip(names, (key, value) if len(names) == 2 else (value,), strict=False))
            run.scopes.append(scope)
            try:
                run.play(frame.body, value)
            except _Continue:
                continue
            except _Break:
                break
            finally:
                run.scopes.pop()

    return node


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    if value is None:
        return []
    if isinstance(value, dict):
        return sorted(value.items())
    if isinstance(value, list | tuple):
        return list(enumerate(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return [(number, number) for number in range(value)]
    raise TemplateError(f"range can't iterate over {text_of(value)}")


_BRANCHES: dict[str, Callable[[_Frame], Node]] = {"if": _if, "with": _with, "range": _range}


# ---------------------------------------------------------------- the language's own functions


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if value is None:
            raise TemplateError("error calling index: index of untyped nil")
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list | tuple | str):
            number = int(key)
            if not 0 <= number < len(value):
                raise TemplateError(f"error calling index: index out of range: {number}")
            value = value[number]
        else:
            raise TemplateError(f"error calling index: can't index item of type {type(value).__name__}")
    return value


def _slice(value: Any, *bounds: int) -> Any:
    return value[slice(*(bounds if len(bounds) > 1 else (*bounds, None)))]


def _equal(left: Any, right: Any) -> bool:
    """JSON's numbers are texts to a Go template, and so are equal to those too."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, str) is not isinstance(right, str) and left is not None and right is not None:
        return text_of(left) == text_of(right)
    return bool(left == right)


def _eq(left: Any, *others: Any) -> bool:
    if not others:
        raise TemplateError("error calling eq: missing argument for comparison")
    return any(_equal(left, other) for other in others)


def _less(left: Any, right: Any) -> bool:
    if left is None or right is None:
        raise TemplateError("error calling lt: invalid type for comparison")
    return bool(left < right)


def _refused(name: str) -> Function:
    def function(*_: Any) -> Any:
        raise TemplateError(f"function {name!r} is for pages of the web and is not supported")

    return function


_LANGUAGE: dict[str, Function] = {
    "and": lambda *values: None,  # lazy, as `or` is
    "or": lambda *values: None,
    "not": lambda value: not truth(value),
    "index": _index,
    "slice": _slice,
    "len": len,
    "eq": _eq,
    "ne": lambda left, right: not _equal(left, right),
    "lt": _less,
    "le": lambda left, right: not _less(right, left),
    "gt": lambda left, right: _less(right, left),
    "ge": lambda left, right: not _less(left, right),
    "print": lambda *values: "".join(map(text_of, values)),
    "println": lambda *values: " ".join(map(text_of, values)) + "\n",
    "printf": sprintf,
    "html": _refused("html"),
    "js": _refused("js"),
    "urlquery": _refused("urlquery"),
    "call": _refused("call"),
}

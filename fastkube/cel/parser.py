"""CEL's grammar by recursive descent, macros included; what does not parse is told as the reference parser tells it."""

from __future__ import annotations

from typing import NoReturn

from fastkube.cel import macros
from fastkube.cel.ast import Call, Const, Ident, ListLiteral, MapLiteral, Node, Select, StructLiteral
from fastkube.cel.errors import CompileError, Issue
from fastkube.cel.lexer import RESERVED, Token, tokens
from fastkube.cel.types import BOOL, BYTES, DOUBLE, INT, NULL, STRING, UINT
from fastkube.cel.values import INT_MAX, UINT_MAX, Uint

_RELATIONS = frozenset(("<", "<=", ">=", ">", "==", "!=", "in"))
_LITERALS = frozenset(("INT", "UINT", "FLOAT", "STRING", "BYTES", "true", "false", "null"))
_STARTS = _LITERALS | frozenset(("[", "{", "(", ".", "-", "!", "IDENT"))
_TAIL = "'.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
_EXPRESSION = "{'[', '{', '(', " + _TAIL
_MEMBER = "{'[', '{', '(', " + _TAIL.replace("'-', '!', ", "")
_DEPTH_MAX = 250
_LENGTH_MAX = 100_000


class _Stop(Exception):
    """Parsing cannot go on; the issue is noted."""


def parse(text: str) -> Node:
    """The tree of an expression; CompileError if it has none."""
    issues: list[Issue] = []
    if len(text) > _LENGTH_MAX:
        raise CompileError("", [Issue(0, f"expression code point size exceeds limit: size: {len(text)}, limit 100000")])
    parser = _Parser(text, tokens(text, issues), issues)
    try:
        tree = parser.whole()
    except _Stop:
        tree = None
    except RecursionError:
        issues.append(Issue(0, f"expression recursion limit exceeded: {_DEPTH_MAX}"))
        tree = None
    if issues or tree is None:
        raise CompileError(text, issues)
    return tree


class _Parser:
    def __init__(self, text: str, found: list[Token], issues: list[Issue]) -> None:
        self.text = text
        self.tokens = found
        self.issues = issues
        self.at = 0
        self.depth = 0

    # ---------------------------------------------------------------- tokens

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        token = self.tokens[self.at]
        self.at += 1
        return token

    def taken(self, kind: str) -> Token | None:
        return self.take() if self.token.kind == kind else None

    def fail(self, message: str, token: Token | None = None) -> NoReturn:
        self.issues.append(Issue((token or self.token).pos, f"Syntax error: {message}"))
        raise _Stop

    def complain(self, pos: int, message: str) -> None:
        self.issues.append(Issue(pos, message))

    def expect(self, kind: str) -> Token:
        """The token that must stand here; an unwanted one before it is passed over, as ANTLR does."""
        token = self.token
        if token.kind == kind:
            return self.take()
        wanted = "<EOF>" if kind == "EOF" else f"'{kind}'"
        if kind != "EOF" and token.kind == "EOF":
            self.fail(f"missing {wanted} at '<EOF>'")
        after = self.tokens[self.at + 1].kind if self.at + 1 < len(self.tokens) else ""
        how = "extraneous" if after == kind else "mismatched"
        return self.fail(f"{how} input '{token.text}' expecting {wanted}")

    # ---------------------------------------------------------------- grammar

    def whole(self) -> Node:
        tree = self.expression()
        self.expect("EOF")
        return tree

    def expression(self) -> Node:
        self.depth += 1
        if self.depth > _DEPTH_MAX:
            self.complain(self.token.pos, f"expression recursion limit exceeded: {_DEPTH_MAX}")
            raise _Stop
        condition = self.either()
        if mark := self.taken("?"):
            yes = self.either()
            self.expect(":")
            condition = Call(mark.pos, "_?_:_", [condition, yes, self.expression()])
        self.depth -= 1
        return condition

    def either(self) -> Node:
        left = self.both()
        while mark := self.taken("||"):
            left = Call(mark.pos, "_||_", [left, self.both()])
        return left

    def both(self) -> Node:
        left = self.relation()
        while mark := self.taken("&&"):
            left = Call(mark.pos, "_&&_", [left, self.relation()])
        return left

    def relation(self) -> Node:
        left = self.sum()
        while self.token.kind in _RELATIONS:
            mark = self.take()
            function = "@in" if mark.kind == "in" else f"_{mark.kind}_"
            left = Call(mark.pos, function, [left, self.sum()])
        return left

    def sum(self) -> Node:
        left = self.product()
        while self.token.kind in ("+", "-"):
            mark = self.take()
            left = Call(mark.pos, f"_{mark.kind}_", [left, self.product()])
        return left

    def product(self) -> Node:
        left = self.unary()
        while self.token.kind in ("*", "/", "%"):
            mark = self.take()
            left = Call(mark.pos, f"_{mark.kind}_", [left, self.unary()])
        return left

    def unary(self) -> Node:
        mark = self.token
        if mark.kind not in ("!", "-"):
            return self.member(_EXPRESSION)
        following = self.tokens[self.at + 1].kind
        if mark.kind == "-" and following in ("INT", "FLOAT"):
            return self.member(_EXPRESSION)
        count = 0
        while self.taken(mark.kind):
            count += 1
        operand = self.member(_MEMBER)
        if count % 2 == 0:
            return operand
        return Call(mark.pos, "!_" if mark.kind == "!" else "-_", [operand])

    def member(self, expected: str) -> Node:
        node = self.primary(expected)
        while True:
            if dot := self.taken("."):
                node = self.selection(node, dot)
            elif bracket := self.taken("["):
                optional = self.taken("?") is not None
                index = self.expression()
                self.expect("]")
                node = Call(bracket.pos, "_[?_]" if optional else "_[_]", [node, index])
            else:
                return node

    def selection(self, operand: Node, dot: Token) -> Node:
        optional = self.taken("?") is not None
        token = self.token
        if token.kind not in ("IDENT", "ESCAPED"):
            if token.kind == "EOF" and not optional:
                self.fail("no viable alternative at input '.'")
            shown = "" if token.kind == "EOF" else token.text
            self.fail(f"no viable alternative at input '{'.?' if optional else '.'}{shown}'")
        self.take()
        paren = self.token if self.token.kind == "(" else None
        if paren is not None and not optional and token.kind == "IDENT":
            self.take()
            return self.method(operand, token.text, paren)
        return Select(dot.pos, operand, token.text, optional=optional)

    def method(self, operand: Node, name: str, paren: Token) -> Node:
        args = self.arguments(")")
        made = macros.expand_method(self, name, operand, args, paren.pos)
        return made if made is not None else Call(paren.pos, name, args, operand)

    def arguments(self, closing: str) -> list[Node]:
        args: list[Node] = []
        if self.taken(closing):
            return args
        if self.token.kind not in _STARTS:
            self.unexpected(_EXPRESSION.replace("'(', ", f"'(', '{closing}', "))
        args.append(self.expression())
        while self.taken(","):
            args.append(self.expression())
        self.expect(closing)
        return args

    def unexpected(self, expected: str) -> NoReturn:
        token = self.token
        following = self.tokens[min(self.at + 1, len(self.tokens) - 1)].kind
        how = "extraneous" if token.kind != "EOF" and following in _STARTS else "mismatched"
        self.fail(f"{how} input '{token.text}' expecting {expected}")

    def primary(self, expected: str) -> Node:
        token = self.token
        if token.kind not in _STARTS or token.kind == "!":
            self.unexpected(expected)
        self.take()
        if token.kind in _LITERALS:
            return self.literal(token)
        if token.kind == "-":
            return self.negative(token)
        if token.kind == "(":
            self_contained = self.expression()
            self.expect(")")
            return self_contained
        if token.kind == "[":
            return self.list(token)
        if token.kind == "{":
            return self.map(token)
        return self.name(token)

    def negative(self, minus: Token) -> Node:
        number = self.take()
        if number.kind == "FLOAT":
            return Const(minus.pos, -number.value, DOUBLE)
        if number.kind != "INT":
            self.at -= 1
            self.unexpected(_MEMBER)
        if number.value > INT_MAX + 1:
            self.complain(minus.pos, "invalid int literal")
        return Const(minus.pos, -number.value, INT)

    def literal(self, token: Token) -> Node:
        match token.kind:
            case "INT":
                if token.value > INT_MAX:
                    self.complain(token.pos, "invalid int literal")
                return Const(token.pos, token.value, INT)
            case "UINT":
                if token.value > UINT_MAX:
                    self.complain(token.pos, "invalid uint literal")
                    return Const(token.pos, Uint(0), UINT)
                return Const(token.pos, Uint(token.value), UINT)
            case "FLOAT":
                return Const(token.pos, token.value, DOUBLE)
            case "STRING":
                return Const(token.pos, token.value, STRING)
            case "BYTES":
                return Const(token.pos, token.value, BYTES)
            case "null":
                return Const(token.pos, None, NULL)
        return Const(token.pos, token.kind == "true", BOOL)

    def name(self, token: Token) -> Node:
        """An identifier, a function's call or a struct's name with its fields."""
        dotted = token.kind == "."
        if dotted:
            token = self.token
            if token.kind != "IDENT":
                self.unexpected("IDENTIFIER")
            self.take()
        name = ("." if dotted else "") + token.text
        if token.text in RESERVED:
            self.complain(token.pos, f"reserved identifier: {token.text}")
        if self.token.kind == "(":
            paren = self.take()
            args = self.arguments(")")
            made = macros.expand_function(self, name.removeprefix("."), args, paren.pos)
            return made if made is not None else Call(paren.pos, name, args)
        if (struct := self.struct(name)) is not None:
            return struct
        return Ident(token.pos, name)

    def struct(self, name: str) -> Node | None:
        """`a.b.C{field: value}`; the dotted name must be followed by a brace, or nothing is taken."""
        start = self.at
        while self.token.kind == "." and self.tokens[self.at + 1].kind == "IDENT":
            name += "." + self.tokens[self.at + 1].text
            self.at += 2
        if self.token.kind != "{":
            self.at = start
            return None
        brace = self.take()
        entries: list[tuple[str, Node, bool, int]] = []
        while not self.taken("}"):
            optional = self.taken("?") is not None
            field = self.take() if self.token.kind in ("IDENT", "ESCAPED") else self.expect("}")
            colon = self.expect(":")
            entries.append((field.text, self.expression(), optional, colon.pos))
            if not self.taken(","):
                self.expect("}")
                break
        return StructLiteral(brace.pos, name, entries)

    def list(self, bracket: Token) -> Node:
        items: list[Node] = []
        optional = set()
        while not self.taken("]"):
            if self.taken("?"):
                optional.add(len(items))
            if self.token.kind not in _STARTS:
                closing = "'[', ']', " if not items else "'[', "
                self.unexpected(_EXPRESSION.replace("'[', ", closing))
            items.append(self.expression())
            if not self.taken(","):
                self.expect("]")
                break
        return ListLiteral(bracket.pos, items, frozenset(optional))

    def map(self, brace: Token) -> Node:
        entries: list[tuple[Node, Node, bool]] = []
        while not self.taken("}"):
            optional = self.taken("?") is not None
            if self.token.kind not in _STARTS:
                self.unexpected(_EXPRESSION.replace("'{', ", "'{', '}', "))
            key = self.expression()
            self.expect(":")
            entries.append((key, self.expression(), optional))
            if not self.taken(","):
                self.expect("}")
                break
        return MapLiteral(brace.pos, entries)

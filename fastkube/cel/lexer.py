"""CEL's tokens. Characters that begin none are told in the words of the reference parser and passed over."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from fastkube.cel.errors import Issue


class Token(NamedTuple):
    """`kind` is INT, UINT, FLOAT, STRING, BYTES, IDENT, ESCAPED (in backticks), EOF, or the token's own text."""

    kind: str
    text: str
    pos: int
    value: Any = None


KEYWORDS = frozenset(("in", "true", "false", "null"))

_WORDS = "as break const continue else for function if import let loop package namespace return var void while"
RESERVED = frozenset(_WORDS.split())
"""Names that no identifier may have."""

_TOKEN = re.compile(
    r"""
    (?P<space>[\t\r\n\f ]+ | //[^\n]*)
    | (?P<FLOAT> [0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)? | [0-9]+[eE][+-]?[0-9]+ | \.[0-9]+(?:[eE][+-]?[0-9]+)? )
    | (?P<INT> 0x[0-9a-fA-F]+ | [0-9]+ ) (?P<u>[uU])?
    | (?P<string> [bB]?[rR]? (?: \"{3}(?:\\.|[^\\])*?\"{3} | '{3}(?:\\.|[^\\])*?'{3}
        | \"(?:\\.|[^\\\"\n\r])*\" | '(?:\\.|[^\\'\n\r])*' ) )
    | (?P<IDENT> [_a-zA-Z][_a-zA-Z0-9]* )
    | ` (?P<ESCAPED> [_a-zA-Z0-9./ -]+ ) `
    | (?P<op> == | != | <= | >= | && | \|\| | [][{}().,\-!?:+*/%<>] )
    """,
    re.VERBOSE | re.DOTALL,
)
_RAW = re.compile(
    r"""[bB]?[rR][bB]? (?: \"{3}.*?\"{3} | '{3}.*?'{3} | \"[^\"\n\r]*\" | '[^'\n\r]*' )""", re.VERBOSE | re.DOTALL
)
_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\?\"'`])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.))"
)
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def tokens(text: str, issues: list[Issue]) -> list[Token]:
    """The tokens of an expression, EOF last."""
    found: list[Token] = []
    pos = 0
    while pos < len(text):
        match = _RAW.match(text, pos) or _TOKEN.match(text, pos)
        if match is None:
            pos = _unknown(text, pos, issues)
            continue
        token = _token(match, issues)
        if token is not None:
            found.append(token)
        pos = match.end()
    found.append(Token("EOF", "<EOF>", len(text)))
    return found


def _unknown(text: str, pos: int, issues: list[Issue]) -> int:
    """Passes over what is no token: an unclosed string to its line's end, else one character."""
    end = pos + 1
    if text[pos] in "\"'":
        end = len(text)
        for stop in "\n\r":
            found = text.find(stop, pos)
            end = min(end, found if found >= 0 else end)
    shown = text[pos:end].replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    issues.append(Issue(pos, f"Syntax error: token recognition error at: '{shown}'"))
    return end


def _token(match: re.Match[str], issues: list[Issue]) -> Token | None:
    text, pos = match.group(), match.start()
    kind = match.lastgroup if match.re is _TOKEN else "string"
    if kind == "space":
        return None
    if kind == "string":
        return _string(text, pos, issues)
    if kind == "FLOAT":
        return Token("FLOAT", text, pos, float(text))
    if kind in ("INT", "u"):
        digits = text.rstrip("uU")
        base = 16 if digits.startswith("0x") else 10
        return Token("UINT" if kind == "u" else "INT", text, pos, int(digits, base))
    if kind == "IDENT":
        return Token(text if text in KEYWORDS else "IDENT", text, pos)
    if kind == "ESCAPED":
        return Token("ESCAPED", match.group("ESCAPED"), pos)
    return Token(text, text, pos)


def _string(text: str, pos: int, issues: list[Issue]) -> Token:
    start = min(index for index in (text.find('"'), text.find("'")) if index >= 0)
    prefix = text[:start].lower()
    width = 3 if text[start : start + 3] in ('"""', "'''") and len(text) - start >= 6 else 1
    body = text[start + width : -width].replace("\r\n", "\n").replace("\r", "\n")
    of_bytes = "b" in prefix
    if "r" in prefix:
        return Token("BYTES" if of_bytes else "STRING", text, pos, body.encode() if of_bytes else body)
    try:
        if of_bytes:
            return Token("BYTES", text, pos, _unescape_bytes(body))
        return Token("STRING", text, pos, _ESCAPE.sub(_unescape, body))
    except ValueError as error:
        issues.append(Issue(pos, str(error)))
        return Token("BYTES" if of_bytes else "STRING", text, pos, b"" if of_bytes else "")


def _code(match: re.Match[str]) -> int:
    for group, base in ((2, 16), (3, 16), (4, 16), (5, 8)):
        if match.group(group):
            return int(match.group(group), base)
    raise ValueError(f"unable to unescape string: unable to unescape sequence: \\{match.group(6)}")


def _unescape(match: re.Match[str]) -> str:
    if simple := match.group(1):
        return _SIMPLE.get(simple, simple)
    code = _code(match)
    if 0xD800 <= code < 0xE000 or code > 0x10FFFF:
        raise ValueError("unable to unescape string: invalid unicode code point")
    return chr(code)


def _unescape_bytes(body: str) -> bytes:
    """In bytes, \\x and octal escapes are bytes, the others characters."""
    made, last = bytearray(), 0
    for match in _ESCAPE.finditer(body):
        made += body[last : match.start()].encode()
        if match.group(2) or match.group(5):
            made.append(_code(match))
        else:
            made += _unescape(match).encode()
        last = match.end()
    return bytes(made + body[last:].encode())

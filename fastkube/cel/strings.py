"""CEL's extended strings library, as Kubernetes has it (version 2), and `format`."""

from __future__ import annotations

import math
from typing import Any

from fastkube.cel import times
from fastkube.cel.errors import EvalError
from fastkube.cel.functions import function, method
from fastkube.cel.standard import show_double
from fastkube.cel.values import Duration, Timestamp, TypeValue, Uint, type_name


def _char_at(text: str, index: int) -> str:
    if not 0 <= index <= len(text):
        raise EvalError(f"index out of range: {index}")
    return text[index : index + 1]


def _index_of(text: str, part: str, start: int = 0) -> int:
    if start < 0 or (start > len(text) and part):
        raise EvalError(f"index out of range: {start}")
    return text.find(part, start)


def _last_index_of(text: str, part: str, end: int | None = None) -> int:
    if end is None:
        return text.rfind(part)
    if not 0 <= end <= len(text):
        raise EvalError(f"index out of range: {end}")
    return text.rfind(part, 0, end + len(part))


def _join(items: list[str], separator: str = "") -> str:
    try:
        return separator.join(items)
    except TypeError:
        raise EvalError("no such overload") from None


def _split(text: str, separator: str, limit: int = -1) -> list[str]:
    if limit == 0:
        return []
    if not separator:
        return list(text) if limit < 0 else [*text[: limit - 1], *([text[limit - 1 :]] if text[limit - 1 :] else [])]
    return text.split(separator, limit - 1 if limit > 0 else -1)


def _replace(text: str, old: str, new: str, limit: int = -1) -> str:
    return text.replace(old, new, max(limit, -1))


def _substring(text: str, start: int, end: int | None = None) -> str:
    if end is None:
        end = len(text)
        if not 0 <= start <= end:
            raise EvalError(f"index out of range: {start}")
    if start > end:
        raise EvalError(f"invalid substring range. start: {start}, end: {end}")
    if start < 0:
        raise EvalError(f"index out of range: {start}")
    if end > len(text):
        raise EvalError(f"index out of range: {end}")
    return text[start:end]


_LOWER = {code: code + 32 for code in range(65, 91)}
_UPPER = {code: code - 32 for code in range(97, 123)}
_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_QUOTED = str.maketrans(
    {
        "\a": "\\a",
        "\b": "\\b",
        "\f": "\\f",
        "\n": "\\n",
        "\r": "\\r",
        "\t": "\\t",
        "\v": "\\v",
        "\\": "\\\\",
        '"': '\\"',
    }
)


def _quote(text: str) -> str:
    return f'"{text.translate(_QUOTED)}"'


# ---------------------------------------------------------------- format


def format_text(template: str, args: list[Any]) -> str:
    """`"%s is %d".format([...])`; raises EvalError for a clause that is none or has no argument."""
    made: list[str] = []
    at = given = 0
    while True:
        mark = template.find("%", at)
        if mark < 0:
            made.append(template[at:])
            return "".join(made)
        made.append(template[at:mark])
        at = mark + 1
        if template[at : at + 1] == "%":
            made.append("%")
            at += 1
            continue
        precision = 6
        exact = template[at : at + 1] == "."
        if exact:
            end = at + 1
            while template[end : end + 1].isdecimal():
                end += 1
            precision, at = int(template[at + 1 : end] or 0), end
        verb = template[at : at + 1]
        if not verb:
            raise EvalError("unexpected end of string")
        if given >= len(args):
            raise EvalError(f"index {given} out of range")
        made.append(_clause(verb, args[given], precision))
        given += 1
        at += 1


def _clause(verb: str, value: Any, precision: int) -> str:
    kind = type(value)
    number = kind in (int, Uint)
    if verb == "s":
        return show(value)
    if verb == "d" and (number or (kind is float and not math.isfinite(value))):
        return str(int(value)) if number else show(value)
    if verb == "f" and (number or kind is float):
        return _fixed(float(value), precision)
    if verb == "e" and (number or kind is float):
        return f"{float(value):.{precision}e}"
    if verb == "b" and (number or kind is bool):
        return f"{int(value):b}"
    if verb == "o" and number:
        return f"{int(value):o}"
    if verb in ("x", "X") and (number or kind in (str, bytes)):
        return _hexadecimal(value, verb)
    if verb not in _REFUSALS:
        told = f'unrecognized formatting clause "{verb}"'
        raise EvalError(f"could not parse formatting clause: {told}")
    raise EvalError(f"error during formatting: {_REFUSALS[verb]}, was given {type_name(value)}")


_HEX = "only integers, byte buffers, and strings can be formatted as hex"
_REFUSALS = {
    "d": "decimal clause can only be used on integers",
    "f": "fixed-point clause can only be used on doubles",
    "e": "scientific clause can only be used on doubles",
    "b": "only integers and bools can be formatted as binary",
    "o": "octal clause can only be used on integers",
    "x": _HEX,
    "X": _HEX,
}


def _fixed(value: float, precision: int) -> str:
    if math.isnan(value) or math.isinf(value):
        return show(value)
    return f"{value:.{precision}f}"


def _hexadecimal(value: Any, verb: str) -> str:
    if isinstance(value, int):
        return f"{int(value):{verb}}"
    text: str = (value.encode() if isinstance(value, str) else value).hex()
    return text.upper() if verb == "X" else text


def show(value: Any) -> str:
    """A value as `%s` writes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, float):
        if math.isnan(value) or math.isinf(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return show_double(value)
    if isinstance(value, Timestamp):
        return times.show_timestamp(value)
    if isinstance(value, Duration):
        return times.show_duration(value)
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, TypeValue):
        return value.name
    if isinstance(value, list):
        return "[" + ", ".join(map(show, value)) + "]"
    if isinstance(value, dict):
        pairs = sorted((show(key), show(each)) for key, each in value.items())
        return "{" + ", ".join(f"{key}: {each}" for key, each in pairs) + "}"
    told = (
        "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, "
        "and timestamps"
    )
    raise EvalError(f"error during formatting: {told}, was given {type_name(value)}")


OVERLOADS = (
    method("charAt", "string, int -> string", _char_at),
    method("indexOf", "string, string -> int", _index_of),
    method("indexOf", "string, string, int -> int", _index_of),
    method("lastIndexOf", "string, string -> int", _last_index_of),
    method("lastIndexOf", "string, string, int -> int", _last_index_of),
    method("join", "list(string) -> string", _join),
    method("join", "list(string), string -> string", _join),
    method("split", "string, string -> list(string)", _split),
    method("split", "string, string, int -> list(string)", _split),
    method("replace", "string, string, string -> string", _replace),
    method("replace", "string, string, string, int -> string", _replace),
    method("substring", "string, int -> string", _substring),
    method("substring", "string, int, int -> string", _substring),
    method("lowerAscii", "string -> string", lambda text: text.translate(_LOWER)),
    method("upperAscii", "string -> string", lambda text: text.translate(_UPPER)),
    method("trim", "string -> string", lambda text: text.strip(_SPACE)),
    method("format", "string, list(dyn) -> string", format_text),
    function("strings.quote", "string -> string", _quote),
)

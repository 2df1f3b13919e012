"""How Go prints JSON values: `%v`, and `printf` with its other verbs."""

from __future__ import annotations

import re
from typing import Any

import orjson

_VERB = re.compile(r"%([-+# 0]*)(\d*)(?:\.(\d*))?([a-zA-Z%])")


def text_of(value: Any, *, inside: bool = False) -> str:
    """As fmt prints a value by itself; nothing is <no value> to a template, and <nil> inside of others."""
    if value is None:
        return "<nil>" if inside else "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, list | tuple):
        return "[" + " ".join(text_of(each, inside=True) for each in value) + "]"
    if isinstance(value, dict):
        pairs = (f"{key}:{text_of(each, inside=True)}" for key, each in sorted(value.items()))
        return "map[" + " ".join(pairs) + "]"
    return str(value)


def _float(value: float) -> str:
    """The shortest digits, with an exponent from 1e+21 on."""
    if value != value or value in (float("inf"), float("-inf")):
        return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[str(value)]
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    text = repr(value)
    mantissa, exponent, power = text.partition("e")
    if not exponent:
        return text
    sign = power[0] if power[0] in "+-" else "+"
    return f"{mantissa}e{sign}{power.lstrip('+-').zfill(2)}"


def quoted(value: Any) -> str:
    text: str = orjson.dumps(value if isinstance(value, str) else text_of(value)).decode()
    return text


def sprintf(form: str, *values: Any) -> str:
    """The verbs v s d q t x X o b c e f g and %; a wrong one prints as Go prints it."""
    left = list(values)

    def replace(match: re.Match[str]) -> str:
        flags, width, precision, verb = match.groups()
        if verb == "%":
            return "%"
        if not left:
            return f"%!{verb}(MISSING)"
        text = _formatted(flags, precision, verb, left.pop(0))
        filled = text
        if width:
            size = int(width)
            if "-" in flags:
                filled = text.ljust(size)
            elif "0" in flags and verb in "dxXobfeg":
                filled = text.zfill(size)
            else:
                filled = text.rjust(size)
        return filled

    text = _VERB.sub(replace, form)
    if left:
        extra = ", ".join(f"{_type(value)}={text_of(value, inside=True)}" for value in left)
        text += f"%!(EXTRA {extra})"
    return text


def _formatted(flags: str, precision: str | None, verb: str, value: Any) -> str:
    if verb == "v":
        return text_of(value, inside=True)
    if verb == "s":
        text = text_of(value, inside=True)
        if not isinstance(value, str | list | dict):
            return f"%!s({_type(value)}={text})"
        return text[: int(precision)] if precision else text
    if verb == "q" and isinstance(value, str):
        return quoted(value)
    if verb == "t" and isinstance(value, bool):
        return text_of(value)
    if verb in "dxXobc" and isinstance(value, int) and not isinstance(value, bool):
        if verb == "c":
            return chr(value)
        sign = "+" if "+" in flags and value >= 0 else ""
        return sign + format(value, verb)
    if verb in "xX" and isinstance(value, str):
        return value.encode().hex() if verb == "x" else value.encode().hex().upper()
    if verb in "eEfFgG" and isinstance(value, float | int) and not isinstance(value, bool):
        if isinstance(value, int):
            return f"%!{verb}(int={value})"
        if verb in "gG" and not precision:
            return _float(value)
        return format(value, f".{precision or 6}{verb}")
    return f"%!{verb}({_type(value)}={text_of(value, inside=True)})"


def _type(value: Any) -> str:
    names = {bool: "bool", int: "int", float: "float64", str: "string", list: "[]interface {}"}
    return names.get(type(value), "map[string]interface {}" if isinstance(value, dict) else "<nil>")

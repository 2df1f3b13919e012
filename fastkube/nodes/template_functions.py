"""Functions for templates of Stages: kwok's own (Quote, Now, YAML, ...) and those of sprig that make sense in a status.

What sprig has beyond these (cryptography, the network, the environment) is an unknown function, refused by name when
the Stage is read. Functions about nodes and Pods are the fleet's, which hands them in.
"""

from __future__ import annotations

import base64
import hashlib
import math
import random
import re
import string
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from fastkube import __version__
from fastkube.clock import Clock, rfc3339
from fastkube.nodes.gotemplate import Function, TemplateError, truth
from fastkube.nodes.gotemplate_print import quoted, text_of

NODE_CONDITIONS = [
    {"type": kind, "status": status, "reason": reason, "message": message}
    for kind, status, reason, message in (
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("NetworkUnavailable", "False", "RouteCreated", "RouteController created a route"),
    )
]


def _quote(value: Any) -> str:
    """A text in quotes, whatever it was: numbers, lists and maps as their JSON."""
    if isinstance(value, str):
        return quoted(value)
    return quoted(orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode())


def _yaml(value: Any, indent: int = 0) -> str:
    from fastkube.api import yaml

    text = yaml.dump(value).decode()
    return ("\n" + text).replace("\n", "\n" + "  " * indent) if indent > 0 else text


def _number(value: Any) -> int:
    """Whatever looks like one; all else is 0, as in sprig."""
    if isinstance(value, str):
        try:
            return int(value, 0)
        except ValueError:
            return int(_float(value))
    return int(value or 0)


def _float(value: Any) -> float:
    try:
        return float(value or 0)
    except (TypeError, ValueError):
        return 0.0


def _divide(left: Any, right: Any) -> int:
    """Towards zero, as Go does."""
    divisor = _number(right)
    if divisor == 0:
        raise TemplateError("error calling div: division by zero")
    return int(_number(left) / divisor)


def _product(*values: Any) -> int:
    return math.prod(map(_number, values))


def _dict(*pairs: Any) -> dict[str, Any]:
    filled = [*pairs, ""] if len(pairs) % 2 else list(pairs)
    return {text_of(filled[place]): filled[place + 1] for place in range(0, len(filled), 2)}


def _set(value: dict[str, Any], key: str, item: Any) -> dict[str, Any]:
    value[key] = item
    return value


def _indent(spaces: int, text: str) -> str:
    pad = " " * spaces
    return pad + text.replace("\n", "\n" + pad)


def _coalesce(*values: Any) -> Any:
    return next((value for value in values if truth(value)), None)


def _required(message: str, value: Any) -> Any:
    if value is None or value == "":
        raise TemplateError(message)
    return value


def _fail(message: str) -> Any:
    raise TemplateError(message)


def _until_step(start: int, stop: int, step: int) -> list[int]:
    return list(range(start, stop, step)) if step else []


def _matches(pattern: str, text: str) -> bool:
    return re.search(pattern, text) is not None


_SPRIG: dict[str, Function] = {
    # numbers
    "add": lambda *values: sum(map(_number, values)),
    "add1": lambda value: _number(value) + 1,
    "sub": lambda left, right: _number(left) - _number(right),
    "mul": _product,
    "div": _divide,
    "mod": lambda left, right: int(math.fmod(_number(left), _number(right))),
    "max": lambda *values: max(map(_number, values)),
    "min": lambda *values: min(map(_number, values)),
    "addf": lambda *values: sum(map(_float, values)),
    "subf": lambda first, *values: _float(first) - sum(map(_float, values)),
    "mulf": lambda *values: math.prod(map(_float, values)),
    "divf": lambda left, right: _float(left) / _float(right),
    "ceil": lambda value: float(math.ceil(_float(value))),
    "floor": lambda value: float(math.floor(_float(value))),
    "round": lambda value, places: round(_float(value), places),
    "atoi": _number,
    "int": _number,
    "int64": _number,
    "float64": _float,
    "until": lambda count: list(range(_number(count))),
    "untilStep": _until_step,
    # texts
    "toString": text_of,
    "quote": lambda *values: " ".join(quoted(text_of(value)) for value in values if value is not None),
    "squote": lambda *values: " ".join(f"'{text_of(value)}'" for value in values if value is not None),
    "upper": lambda text: text.upper(),
    "lower": lambda text: text.lower(),
    "title": lambda text: string.capwords(text),
    "trim": lambda text: text.strip(),
    "trimAll": lambda cut, text: text.strip(cut),
    "trimPrefix": lambda prefix, text: text.removeprefix(prefix),
    "trimSuffix": lambda suffix, text: text.removesuffix(suffix),
    "hasPrefix": lambda prefix, text: text.startswith(prefix),
    "hasSuffix": lambda suffix, text: text.endswith(suffix),
    "contains": lambda part, text: part in text,
    "replace": lambda old, new, text: text.replace(old, new),
    "repeat": lambda count, text: text * count,
    "substr": lambda start, end, text: text[max(start, 0) : end if end >= 0 else None],
    "trunc": lambda length, text: text[:length] if length >= 0 else text[length:],
    "nospace": lambda text: re.sub(r"\s+", "", text),
    "indent": _indent,
    "nindent": lambda spaces, text: "\n" + _indent(spaces, text),
    "splitList": lambda separator, text: text.split(separator),
    "join": lambda separator, values: separator.join(map(text_of, values)),
    "regexMatch": _matches,
    "b64enc": lambda text: base64.b64encode(text.encode()).decode(),
    "b64dec": lambda text: base64.b64decode(text).decode(),
    "sha1sum": lambda text: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(),
    "sha256sum": lambda text: hashlib.sha256(text.encode()).hexdigest(),
    "toJson": lambda value: orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode(),
    "fromJson": orjson.loads,
    # lists and maps
    "list": lambda *values: list(values),
    "first": lambda values: values[0] if values else None,
    "last": lambda values: values[-1] if values else None,
    "rest": lambda values: values[1:],
    "initial": lambda values: values[:-1],
    "append": lambda values, value: [*values, value],
    "prepend": lambda values, value: [value, *values],
    "concat": lambda *lists: [value for values in lists for value in values],
    "uniq": lambda values: [value for place, value in enumerate(values) if value not in values[:place]],
    "reverse": lambda values: values[::-1],
    "has": lambda value, values: value in (values or ()),
    "sortAlpha": lambda values: sorted(map(text_of, values)),
    "dict": _dict,
    "get": lambda value, key: value.get(key, ""),
    "set": _set,
    "unset": lambda value, key: {name: each for name, each in value.items() if name != key},
    "hasKey": lambda value, key: key in value,
    "keys": lambda *maps: [key for each in maps for key in each],
    "values": lambda value: list(value.values()),
    "pick": lambda value, *keys: {key: value[key] for key in keys if key in value},
    "omit": lambda value, *keys: {key: each for key, each in value.items() if key not in keys},
    "merge": lambda first, *others: {key: each for part in (*reversed(others), first) for key, each in part.items()},
    # choices
    "default": lambda fallback, value=None: value if truth(value) else fallback,
    "empty": lambda value: not truth(value),
    "coalesce": _coalesce,
    "ternary": lambda yes, no, which: yes if which else no,
    "required": _required,
    "fail": _fail,
    "kindIs": lambda kind, value: kind == _kind(value),
}


def _kind(value: Any) -> str:
    kinds: Mapping[type, str] = {bool: "bool", int: "int", float: "float64", str: "string", list: "slice", dict: "map"}
    return kinds.get(type(value), "invalid")


_LETTERS = string.ascii_letters


def functions(clock: Clock, chance: random.Random) -> dict[str, Callable[..., Any]]:
    """All that do not depend on a node or a Pod. `chance` decides what sprig draws by lot."""
    started = rfc3339(clock.time())

    def draw(characters: str) -> Callable[[int], str]:
        return lambda length: "".join(chance.choices(characters, k=length))

    return {
        **_SPRIG,
        "Quote": _quote,
        "YAML": _yaml,
        "Now": lambda: rfc3339(clock.time()),
        "StartTime": lambda: started,
        "Version": lambda: __version__,
        "NodeConditions": lambda: NODE_CONDITIONS,
        "randInt": lambda least, most: chance.randrange(least, most),
        "randAlpha": draw(_LETTERS),
        "randNumeric": draw(string.digits),
        "randAlphaNum": draw(_LETTERS + string.digits),
        "uuidv4": lambda: str(uuid.UUID(int=chance.getrandbits(128), version=4)),
    }

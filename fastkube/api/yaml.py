"""YAML bodies with JSON's meaning, as upstream's YAML library has it: what resolves to a bool, a number or null.

Upstream reads YAML 1.1 with differences that matter to manifests: `y`, `n`, `on` and `off` are bools, a date or `22:30`
is text, keys become strings. Written YAML quotes whatever would be read as something else.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from fastkube.api.codec import plain_object
from fastkube.api.field import quote


class YamlError(ValueError):
    """The text is no YAML; the message is close to that of upstream's parser."""


_BOOL = re.compile(r"^(?:y|Y|yes|Yes|YES|true|True|TRUE|on|On|ON|n|N|no|No|NO|false|False|FALSE|off|Off|OFF)$")
_TRUE = frozenset(("y", "yes", "true", "on"))
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_INT = re.compile(r"^[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]+|[0-9][0-9_]*)$")
_FLOAT = re.compile(r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$")
_MERGE = re.compile(r"^<<$")
_RESOLVERS = (
    ("tag:yaml.org,2002:bool", _BOOL, "yYnNtTfFoO"),
    ("tag:yaml.org,2002:null", _NULL, ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", _INT, "-+0123456789"),
    ("tag:yaml.org,2002:float", _FLOAT, "-+0123456789."),
    ("tag:yaml.org,2002:merge", _MERGE, "<"),
)


class _Loader(yaml.CSafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own way to start with none)

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.duplicates: list[str] = []


def _bool(loader: _Loader, node: yaml.ScalarNode) -> bool:
    return node.value.lower() in _TRUE


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = node.value.replace("_", "")
    digits = text.lstrip("+-")
    number = int(digits, 8) if digits[0] == "0" and digits.isdigit() and "8" not in digits else int(digits, 0)
    return -number if text[0] == "-" else number


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(node.value)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise YamlError("error converting YAML to JSON: yaml: invalid map key")
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        told = _go_syntax(loader.construct_object(key_node))
        if told in seen:
            loader.duplicates.append(f"line {key_node.start_mark.line + 1}: key {told} already set in map")
        seen.add(told)
    loader.flatten_mapping(node)
    made = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        made[_key(key)] = loader.construct_object(value_node, deep=True)
    return made


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, bool):
        return "true" if key else "false"
    return "null" if key is None else str(key)


def _go_syntax(key: Any) -> str:
    """%#v of a key as YAML reads it."""
    if isinstance(key, str):
        return quote(key)
    return "interface {}(nil)" if key is None else _key(key)


for _tag, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_tag, _pattern, list(_first))
_Loader.add_constructor("tag:yaml.org,2002:bool", _bool)
_Loader.add_constructor("tag:yaml.org,2002:int", _int)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def load(body: bytes) -> tuple[Any, list[str]]:
    """The first document, and complaints about duplicate keys. Raises YamlError."""
    if (plain := plain_object(body)) is not None:
        return plain, []
    try:
        loader = _Loader(body)
        try:
            value = loader.get_data() if loader.check_data() else None  # type: ignore[no-untyped-call]
            if b"&" in body:
                value = _unshared(value, [max(_ALIASED_MAX, len(body))])
            return value, loader.duplicates
        finally:
            loader.dispose()
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as fault:
        raise YamlError(f"error converting YAML to JSON: yaml: {_told(fault)}") from None


_ALIASED_MAX = 100_000
"""How many values a document with aliases may mean: a few lines of YAML can mean billions."""


def _unshared(value: Any, left: list[int]) -> Any:
    """The value with a copy of its own in each place of an alias; `left` is how many values there may still be."""
    left[0] -= 1
    if left[0] < 0:
        raise YamlError("error converting YAML to JSON: yaml: document contains excessive aliasing")
    if isinstance(value, dict):
        return {key: _unshared(item, left) for key, item in value.items()}
    if isinstance(value, list):
        return [_unshared(item, left) for item in value]
    return value


def _told(fault: Exception) -> str:
    if not isinstance(fault, yaml.MarkedYAMLError):
        return str(fault).split("\n")[0]
    line = fault.problem_mark.line if fault.problem_mark else 0
    if line and isinstance(fault, yaml.scanner.ScannerError):
        line += 1  # of all others upstream's parser tells the line before
    elif not line and fault.context_mark:
        line = fault.context_mark.line
    return f"line {line}: {fault.problem}" if line else str(fault.problem)


class _Dumper(yaml.CSafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


_STR = "tag:yaml.org,2002:str"


def _resolved(dumper: _Dumper, text: str) -> str:
    """What a text would be read as without quotes."""
    tag: str = dumper.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return tag


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    if style is None and _resolved(dumper, text) != _STR:
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
for _tag, _pattern, _first in _RESOLVERS:
    _Dumper.add_implicit_resolver(_tag, _pattern, list(_first))


def dump(value: Any) -> bytes:
    """A document in upstream's form: keys sorted, lists not indented."""
    text: bytes = yaml.dump(value, Dumper=_Dumper, allow_unicode=True, width=80, encoding="utf-8")
    return text

"""Reading a decoded configuration field by field: types as Go's decoder wants them, unknown fields collected."""

from __future__ import annotations

import re
from typing import Any

Object = dict[str, Any]


class ConfigError(ValueError):
    """The configuration cannot be used; the message names the field."""


_GO_KINDS = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}
_GO_TYPES = {str: "string", bool: "bool", int: "int32", list: "[]", dict: "struct"}
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def duration_s(text: str) -> float:
    """A Go duration ("1m30s", "-100ms", "0") in seconds; raises ConfigError."""
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text)
    parts = re.findall(r"([0-9.]+)(h|ms|us|µs|ns|m|s)", rest)
    if rest == "0":
        return 0.0
    if not parts or "".join(number + unit for number, unit in parts) != rest:
        raise ConfigError(f'time: invalid duration "{text}"')
    return sign * sum(float(number) * _UNITS_S[unit] for number, unit in parts)


class Fields:
    """A mapping whose fields are read by type; `finish` notes those that nobody read in `unknown`, by their path."""

    def __init__(self, path: str, value: Any, unknown: list[str], root: str) -> None:
        self.path = path
        self._unknown = unknown
        self._root = root
        self._value: Object = value or {}
        self._read: set[str] = set()

    def _at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def _get(self, name: str, kind: type) -> Any:
        self._read.add(name)
        value = self._value.get(name)
        if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            where = re.sub(r"\[\d+\]", "", self._at(name))
            raise ConfigError(
                f"json: cannot unmarshal {_GO_KINDS.get(type(value), 'value')} into Go struct field "
                f"{self._root}.{where} of type {_GO_TYPES[kind]}"
            )
        return value

    def text(self, name: str, default: str = "") -> str:
        return str(self._get(name, str) or default)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._get(name, bool)
        return default if value is None else bool(value)

    def number(self, name: str, default: int = 0) -> int:
        value = self._get(name, int)
        return default if value is None else int(value)

    def optional_number(self, name: str) -> int | None:
        value: int | None = self._get(name, int)
        return value

    def seconds(self, name: str, default: float) -> float:
        value = self._get(name, str)
        return default if value is None else duration_s(value)

    def mapping(self, name: str) -> Object:
        return dict(self._get(name, dict) or {})

    def fields(self, name: str) -> Fields:
        return Fields(self._at(name), self._get(name, dict), self._unknown, self._root)

    def items(self, name: str) -> list[Fields]:
        told: list[Any] = self._get(name, list) or []
        for each in told:
            if not isinstance(each, dict):
                where = re.sub(r"\[\d+\]", "", self._at(name))
                kind = _GO_KINDS.get(type(each), "value")
                raise ConfigError(
                    f"json: cannot unmarshal {kind} into Go struct field {self._root}.{where} of type struct"
                )
        return [Fields(f"{self._at(name)}[{n}]", each, self._unknown, self._root) for n, each in enumerate(told)]

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(map(str, self._get(name, list) or ()))

    def ignore(self, *names: str) -> None:
        self._read.update(names)

    def finish(self) -> None:
        self._unknown += [self._at(name) for name in self._value if name not in self._read]

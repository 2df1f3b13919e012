"""The formats of a definition's schemas that mean nothing: they are warned about and not checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]

_OF_STRINGS = frozenset(
    (
        "bsonobjectid", "uri", "email", "hostname", "ipv4", "ipv6", "cidr", "mac", "uuid", "uuid3", "uuid4", "uuid5",
        "isbn", "isbn10", "isbn13", "creditcard", "ssn", "hexcolor", "rgbcolor", "byte", "password", "date", "duration",
        "datetime", "k8sshortname", "k8slongname",
    )
)  # fmt: skip
_OF_NUMBERS = {"integer": ("int32", "int64"), "number": ("float", "double")}


def unrecognized(spec: Object) -> list[str]:
    """Those of all versions of a definition, in the order of its schemas."""
    schemas = [(version.get("schema") or {}).get("openAPIV3Schema") for version in spec.get("versions") or ()]
    return [each for schema in schemas for each in _below(schema)]


def _below(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for each in schema:
            yield from _below(each)
    if not isinstance(schema, dict):
        return
    told, kind = schema.get("format"), schema.get("type") or ""
    if told and not _is_recognized(told, kind):
        yield told
    for name in ("items", "allOf", "anyOf", "oneOf", "not", "additionalProperties"):
        yield from _below(schema.get(name))
    for each in (schema.get("properties") or {}).values():
        yield from _below(each)


def _is_recognized(told: str, kind: str) -> bool:
    if kind in ("", "string"):
        return told.replace("-", "") in _OF_STRINGS
    return told in _OF_NUMBERS.get(kind, ())

"""The protobuf form of an OpenAPI v2 document (package openapi.v2 of gnostic), which kubectl and Helm ask for.

The messages are the document's objects with numbered fields; maps are lists of named values, and what has no field of
its own (`x-kubernetes-...`) is a vendor extension: its name and its value as YAML, for which JSON does.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import orjson

MEDIA = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"

Object = dict[str, Any]
Writer = Callable[[Any], bytes]


def encode(document: Object) -> bytes:
    """The whole document of `openapi.v2`."""
    return b"".join(
        (
            _string(1, document["swagger"]),
            _message(2, _string(1, document["info"]["title"]) + _string(2, document["info"]["version"])),
            _message(8, _named(2, document["paths"], _path_item)),
            _message(9, _named(1, document["definitions"], _schema)),
            b"".join(_message(12, _named(1, needed, _strings)) for needed in document["security"]),
            _message(13, _named(1, document["securityDefinitions"], _security)),
        )
    )


# ---------------------------------------------------------------- the wire


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


def _message(field: int, body: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(body)) + body


def _string(field: int, text: str | None) -> bytes:
    return _message(field, text.encode()) if text else b""


def _bool(field: int, value: bool | None) -> bytes:
    return _varint(field << 3) + b"\x01" if value else b""


def _named(field: int, mapping: Object, write: Writer) -> bytes:
    """A map as repeated (name, value) pairs."""
    return b"".join(_message(field, _string(1, name) + _message(2, write(value))) for name, value in mapping.items())


def _any(value: Any) -> bytes:
    return _message(2, orjson.dumps(value) + b"\n")


def _extensions(field: int, told: Object) -> bytes:
    return _named(field, {key: value for key, value in told.items() if key.startswith("x-")}, _any)


def _strings(values: list[str]) -> bytes:
    return b"".join(_string(1, value) for value in values)


# ---------------------------------------------------------------- paths

_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "options": 6, "head": 7, "patch": 8}


def _path_item(item: Object) -> bytes:
    methods = b"".join(_message(number, _operation(item[name])) for name, number in _METHODS.items() if name in item)
    parameters = b"".join(_message(9, _message(1, _parameter(told))) for told in item.get("parameters", ()))
    return methods + parameters


def _operation(told: Object) -> bytes:
    return b"".join(
        (
            b"".join(_string(1, tag) for tag in told["tags"]),
            _string(3, told["description"]),
            _string(5, told["operationId"]),
            b"".join(_string(6, media) for media in told["produces"]),
            b"".join(_string(7, media) for media in told["consumes"]),
            b"".join(_message(8, _message(1, _parameter(one))) for one in told.get("parameters", ())),
            _message(9, _named(1, told["responses"], _response)),
            b"".join(_string(10, scheme) for scheme in told["schemes"]),
            _extensions(13, told),
        )
    )


def _parameter(told: Object) -> bytes:
    required, place = _bool(1, told.get("required")), _string(2, told["in"])
    if told["in"] == "body":
        body = _string(2, "body") + _string(3, "body") + _bool(4, told.get("required"))
        return _message(1, body + _message(5, _schema(told["schema"])))
    head = required + place + _string(3, told.get("description")) + _string(4, told["name"])
    if told["in"] == "path":
        return _message(2, _message(4, head + _string(5, told["type"]) + _bool(19, told.get("uniqueItems"))))
    return _message(2, _message(3, head + _string(6, told["type"]) + _bool(20, told.get("uniqueItems"))))


def _response(told: Object) -> bytes:
    schema = _message(2, _message(1, _schema(told["schema"]))) if "schema" in told else b""
    return _message(1, _string(1, told["description"]) + schema)


def _security(told: Object) -> bytes:
    """One security scheme; only API keys are used."""
    key = _string(1, told["type"]) + _string(2, told["name"]) + _string(3, told["in"]) + _string(4, told["description"])
    return _message(2, key)


# ---------------------------------------------------------------- schemas

_TEXTS = {"$ref": 1, "format": 2, "title": 3, "description": 4, "pattern": 13}
_ANYS = {"default": 5, "example": 30}
_DOUBLES = {"multipleOf": 6, "maximum": 7, "minimum": 9}
_BOOLS = {"exclusiveMaximum": 8, "exclusiveMinimum": 10, "uniqueItems": 16}
_COUNTS = {"maxLength": 11, "minLength": 12, "maxItems": 14, "minItems": 15, "maxProperties": 17, "minProperties": 18}


def _schema(told: Object) -> bytes:
    made = [_string(number, told[key]) for key, number in _TEXTS.items() if key in told]
    made += [_message(number, _any(told[key])) for key, number in _ANYS.items() if key in told]
    made += [_double(number, told[key]) for key, number in _DOUBLES.items() if key in told]
    made += [_bool(number, told[key]) for key, number in _BOOLS.items() if key in told]
    made += [_varint(number << 3) + _varint(told[key]) for key, number in _COUNTS.items() if told.get(key)]
    made += [_string(19, name) for name in told.get("required", ())]
    made += [_message(20, _any(value)) for value in told.get("enum", ())]
    if "additionalProperties" in told:
        more = told["additionalProperties"]
        made.append(_message(21, _bool(2, more) if isinstance(more, bool) else _message(1, _schema(more))))
    if "type" in told:
        made.append(_message(22, _string(1, told["type"])))
    if isinstance(told.get("items"), dict):
        made.append(_message(23, _message(1, _schema(told["items"]))))
    if "properties" in told:
        made.append(_message(25, _named(1, told["properties"], _schema)))
    made.append(_extensions(31, told))
    return b"".join(made)


def _double(field: int, number: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", number)

"""The protobuf form of built-in kinds (`application/vnd.kubernetes.protobuf`), which client-go's typed clients prefer.

    object  k8s\\0 + Unknown{typeMeta{apiVersion, kind}, raw: the message, contentEncoding, contentType}
    event   4-byte big-endian length + WatchEvent{type, object{raw: a whole object as above}}

apiVersion and kind of an object stand in the envelope alone; items of a list have none. Custom kinds have no such form.
The messages and field numbers are those of the generated table; the codec is in `_protobuf.pyx`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, partial
from typing import Any

import msgpack

from fastkube import _protobuf
from fastkube._protobuf import Encoder, Field, Message
from fastkube.api.catalog import api_version as join_api_version
from fastkube.api.generated import table

Object = dict[str, Any]

MAGIC = b"k8s\x00"

_SHAPES = {
    "api.resource.Quantity": "quantity",
    "meta.v1.Time": "time",
    "meta.v1.MicroTime": "microTime",
    "util.intstr.IntOrString": "intOrString",
    "runtime.RawExtension": "json",
    "apiextensions.v1.JSON": "json",
    "meta.v1.FieldsV1": "json",
    "meta.v1.Verbs": "items",
    "authentication.v1.ExtraValue": "items",
    "authorization.v1.ExtraValue": "items",
    "certificates.v1.ExtraValue": "items",
    "apiextensions.v1.JSONSchemaPropsOrArray": "orList",
    "apiextensions.v1.JSONSchemaPropsOrStringArray": "orList",
    "apiextensions.v1.JSONSchemaPropsOrBool": "orBool",
}
_RAW = frozenset(("runtime.Unknown", *(name for name, shape in _SHAPES.items() if shape == "json")))
"""Messages whose bytes are taken as they are, not as base64."""
_UNSCHEMED = {  # kinds that are answered but have no schema
    ("meta.k8s.io/v1", "PartialObjectMetadata"): "meta.v1.PartialObjectMetadata",
    ("meta.k8s.io/v1", "PartialObjectMetadataList"): "meta.v1.PartialObjectMetadataList",
    ("v1", "APIResourceList"): "meta.v1.APIResourceList",
    ("v1", "APIGroupList"): "meta.v1.APIGroupList",
    ("v1", "APIGroup"): "meta.v1.APIGroup",
    ("", "APIVersions"): "meta.v1.APIVersions",
    ("", "APIResourceList"): "meta.v1.APIResourceList",
    ("apidiscovery.k8s.io/v2", "APIGroupDiscoveryList"): "apidiscovery.v2.APIGroupDiscoveryList",
}
_INTEGERS = ("int32", "int64")
_LIST_ITEMS = b"\x12"  # the tag of `items` (2) in every list


class ProtobufError(ValueError):
    """The body is not a protobuf form of a kind that is known; the message is upstream's."""


# ---------------------------------------------------------------- messages


@cache
def message(name: str) -> Message:
    """The message of a type by its short name (`core.v1.Pod`)."""
    return Message(name, partial(_fields, name), _SHAPES.get(name, ""))


def _fields(name: str) -> list[Field]:
    if name in _RAW:
        return [Field(row[0], row[1], "raw") if row[2] == "bytes" else _field(*row) for row in table("protobuf")[name]]
    return [_field(*row) for row in table("protobuf")[name]]


def _field(name: str, number: int, kind: str, label: str) -> Field:
    if label == "map":
        return Field(name, number, "map", values=_field("value", 2, kind[4:-1].partition(",")[2], "optional"))
    repeated = label == "repeated"
    if kind in _INTEGERS:
        return Field(name, number, "int", repeated)
    if "." not in kind:
        return Field(name, number, kind, repeated)
    return Field(name, number, "inline" if label == "inline" else "message", repeated, message(kind))


@cache
def _names() -> dict[tuple[str, str], str]:
    """The type of each kind that has a message, by (apiVersion, kind)."""
    found = dict(_UNSCHEMED)
    for name, row in table("schemas").items():
        for group, version, kind in row.get("kinds", ()):
            found[join_api_version(group, version), kind] = name
    return found


def has_form(api_version: str, kind: str) -> bool:
    """Whether objects of this kind can be written as protobuf: Tables and custom kinds can not."""
    return (api_version, kind) in _names()


def _message_of(api_version: str, kind: str) -> Message:
    try:
        return message(_names()[api_version, kind])
    except KeyError:
        raise ProtobufError(f'no kind "{kind}" is registered for version "{api_version}"') from None


# ---------------------------------------------------------------- objects

_encoder = Encoder()
"""Every call leaves it free for the next one: all of them run on the event loop's thread."""

_ENVELOPE_END = b"\x1a\x00\x22\x00"  # contentEncoding and contentType, empty


def encode(obj: Object) -> bytes:
    """A whole object in its envelope. Raises ProtobufError for a kind without this form."""
    api_version, kind = obj.get("apiVersion", ""), obj.get("kind", "")
    return _envelope(api_version, kind, [_encoder.encode(_message_of(api_version, kind), obj)])


def decode(body: bytes) -> Object:
    """The object in an envelope, with apiVersion and kind in front. Raises ValueError for what is malformed."""
    if not body.startswith(MAGIC):
        prefix = "[107 56 115 0]"
        raise ProtobufError(f"provided data does not appear to be a protobuf message, expected prefix {prefix}")
    unknown = _protobuf.decode(message("runtime.Unknown"), body[len(MAGIC) :])
    meta = unknown.get("typeMeta", {})
    api_version, kind = meta.get("apiVersion", ""), meta.get("kind", "")
    obj = _protobuf.decode(_message_of(api_version, kind), unknown.get("raw", b""))
    return {"apiVersion": api_version, "kind": kind, **obj}


_EVENT = Message(
    "WatchEvent",
    lambda: [
        Field("type", 1, "string"),
        Field("object", 2, "message", False, Message("RawExtension", lambda: [Field("raw", 1, "raw")], "")),
    ],
    "",
)
"""An event whose object is an envelope, and not JSON."""


def decode_event(body: bytes) -> Object:
    """A watch event (without the length of its frame), with the whole object in it. Raises ValueError."""
    told = _protobuf.decode(_EVENT, body)
    return {"type": told.get("type", ""), "object": decode((told.get("object") or {}).get("raw", b""))}


def _envelope(api_version: str, kind: str, raw: list[bytes]) -> bytes:
    meta = _delimited(1, api_version.encode()) + _delimited(2, kind.encode())
    size = sum(map(len, raw))
    return b"".join((MAGIC, _delimited(1, meta), b"\x12", _varint(size), *raw, _ENVELOPE_END))


def _delimited(number: int, text: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(text)) + text


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


# ---------------------------------------------------------------- stored values


def value(stored: bytes, revision: int) -> bytes:
    """A stored object with its resourceVersion."""
    return encode(_with_revision(stored, revision))


def list_of(kind: str, api_version: str, items: Iterable[tuple[bytes, int]], list_meta: Object) -> bytes:
    """A list; `kind` is the list's (PodList). It cannot be written in pieces: its length comes first."""
    shape = _message_of(api_version, kind)
    item = shape.fields["items"].message
    assert item is not None
    parts = [_encoder.encode(shape, {"metadata": list_meta})]
    for stored, revision in items:
        one = _encoder.encode(item, _with_revision(stored, revision))
        parts += (_LIST_ITEMS, _varint(len(one)), one)
    return _envelope(api_version, kind, parts)


def event(event_type: str, obj: bytes) -> bytes:
    """A watch event with an enveloped object, as a frame."""
    body = _delimited(1, event_type.encode()) + _delimited(2, _delimited(1, obj))
    return len(body).to_bytes(4, "big") + body


def _with_revision(stored: bytes, revision: int) -> Object:
    obj: Object = msgpack.unpackb(stored)
    if isinstance(obj.get("metadata"), dict):
        obj["metadata"]["resourceVersion"] = str(revision)
    return obj

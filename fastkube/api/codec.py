"""Bodies in and out: JSON, YAML, msgpack and protobuf into objects and back, and stored values into answers.

Rules:
  1. A request's body is decoded once, into plain dicts. What Go would refuse is refused in Go's words.
  2. A stored value leaves as JSON through the transcoder (`_json.pyx`): no Python objects are made of it, and its
     revision goes in as metadata.resourceVersion. msgpack answers are the stored form with the same insertion. Only
     protobuf is written from a decoded value, and only for kinds that have that form (`protobuf.has_form`).
  3. A watch event is one frame in each format: a line of JSON; for msgpack and protobuf a 4-byte big-endian length and
     the event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import msgpack
import orjson

from fastkube import _codec, _duplicates, _json
from fastkube.api import gojson
from fastkube.errors import ApiError, bad_request, unsupported_media_type

JSON = "application/json"
YAML = "application/yaml"
MSGPACK = "application/msgpack"
PROTOBUF = "application/vnd.kubernetes.protobuf"

Object = dict[str, Any]

_CHUNK_BYTES = 256 * 1024
_ALIKE_BYTES = 4096
_ALIKE_MAX_BYTES = 16 * 1024
_TYPE_META = (
    "couldn't get version/kind; json parse error: json: cannot unmarshal %s into Go value of type struct { APIVersion "
    'string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
)
_ACCEPTED = f"{JSON}, {YAML}, {PROTOBUF}"


# ---------------------------------------------------------------- requests


def media_type(content_type: str) -> str:
    """`application/json` of `Application/JSON; charset=utf-8`; JSON when nothing is given."""
    return content_type.partition(";")[0].strip().lower() or JSON


def decode(
    body: bytes,
    content_type: str = JSON,
    kind: str = "",
    duplicates: list[str] | None = None,
    *,
    merges: bool = False,
) -> Object:
    """The object in a request's body. `kind` is what messages say was wanted.

    Complaints about keys given twice are added to `duplicates`, in the words of strict decoding. The last one wins, or
    `merges` with those before it, as in JSON for built-in kinds. Raises ApiError 400 for a body that is no object, 415
    for a format that nobody knows.
    """
    media = media_type(content_type)
    if media == JSON:
        value = _decode_json(body, kind, duplicates)
        return _object(gojson.merged(body) if merges and duplicates else value, body, kind)
    if media == YAML:
        return _object(_decode_yaml(body, kind, duplicates), body, kind)
    if media == MSGPACK:
        return _object(_decode_msgpack(body, kind), body, kind)
    if media == PROTOBUF:
        return _decode_protobuf(body, kind)
    raise unsupported_media_type(
        f"the body of the request was in an unknown format - accepted media types include: {_ACCEPTED}"
    )


def decode_patch(body: bytes) -> tuple[Any, list[str]]:
    """A JSON patch of any kind, and complaints about its duplicate keys. Raises ValueError in Go's words."""
    duplicates: list[str] = []
    patch = _read_json(body, duplicates)
    return patch, [str(told) for told in duplicates]


def _decode_json(body: bytes, kind: str, duplicates: list[str] | None) -> Any:
    try:
        return _read_json(body, duplicates)
    except ValueError as fault:
        raise _unrecognized(f"couldn't get version/kind; json parse error: {fault}", body, kind) from None


def _read_json(body: bytes, duplicates: list[str] | None) -> Any:
    """Raises ValueError with Go's message."""
    try:
        value = orjson.loads(body)
    except ValueError:
        fault = gojson.fault(body)
        if fault:
            raise ValueError(fault) from None
        value = gojson.parse(body)
    if duplicates is not None and _duplicates.count_keys(body) != _duplicates.count_entries(value):
        duplicates += gojson.duplicates(body)
    return value


def plain_object(body: bytes) -> Object | None:
    """The object of a JSON text, which is YAML too but is read a hundred times faster so, and without PyYAML; None for
    what is no JSON object or has duplicate keys."""
    if not body.startswith(b"{"):
        return None
    try:
        value: Object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return value if _duplicates.count_keys(body) == _duplicates.count_entries(value) else None


def _decode_yaml(body: bytes, kind: str, duplicates: list[str] | None) -> Any:
    from fastkube.api import yaml

    try:
        value, told = yaml.load(body)
    except yaml.YamlError as fault:
        raise _unrecognized(f"couldn't get version/kind; {fault}", body, kind) from None
    if duplicates is not None:
        duplicates += told
    return value


def _decode_msgpack(body: bytes, kind: str) -> Any:
    try:
        return msgpack.unpackb(body)
    except (ValueError, msgpack.UnpackException, RecursionError) as fault:
        raise _unrecognized(f"couldn't get version/kind; msgpack: {fault}", body, kind) from None


def _decode_protobuf(body: bytes, kind: str) -> Object:
    from fastkube.api import protobuf

    try:
        return protobuf.decode(body)
    except ValueError as fault:
        raise _unrecognized(str(fault), body, kind) from None


def decode_options(body: bytes, content_type: str) -> Object:
    """The DeleteOptions of a body, of which upstream says less when it is none. Raises ApiError 400 and 415."""
    media = media_type(content_type)
    if media not in (JSON, YAML):
        return decode(body, content_type, "DeleteOptions")
    try:
        if media == JSON:
            value = _read_json(body, None)
        else:
            from fastkube.api import yaml

            value = yaml.load(body)[0]
    except ValueError as fault:
        prefix = "json parse error: " if media == JSON else ""
        raise bad_request(f"couldn't get version/kind; {prefix}{fault}") from None
    if value is not None and not isinstance(value, dict):
        raise bad_request(_TYPE_META % _go_kind(value))
    if told := type_meta_fault(value or {}):
        raise bad_request(told)
    return value or {}


def _object(value: Any, body: bytes, kind: str) -> Object:
    if isinstance(value, dict):
        if told := type_meta_fault(value):
            raise _unrecognized(told, body, kind)
        return value
    if value is None:
        return {}
    raise _unrecognized(_TYPE_META % _go_kind(value), body, kind)


def _go_kind(value: Any) -> str:
    return {str: "string", bool: "bool", list: "array", dict: "object"}.get(type(value), "number")


def type_meta_fault(obj: Object) -> str:
    """What Go says of an apiVersion or a kind that cannot be one; "" where they can."""
    version, kind = obj.get("apiVersion"), obj.get("kind")
    if (version is None or version.__class__ is str) and (kind is None or kind.__class__ is str):
        return f"unexpected GroupVersion string: {version}" if version and version.count("/") > 1 else ""
    key, value = ("kind", kind) if version is None or isinstance(version, str) else ("apiVersion", version)
    problem = f"json: cannot unmarshal {_go_kind(value)} into Go struct field .{key} of type string"
    return f"couldn't get version/kind; json parse error: {problem}"


def _unrecognized(why: str, body: bytes, kind: str) -> ApiError:
    return bad_request(f"the object provided is unrecognized (must be of type {kind}): {why} ({_summary(body)})")


def _summary(body: bytes) -> str:
    """How upstream quotes a body that it could not read."""
    if not body:
        return "<empty>"
    head = body[:30]
    shown = head.decode("utf-8", "replace") if head[:1] == b"{" else head.hex()
    return shown + " ..." if len(body) > 30 else shown


# ---------------------------------------------------------------- objects out


def encode(obj: Any, media: str = JSON) -> bytes:
    """Whatever was made as a dict (a Status, a Table, discovery) in the format that was asked for."""
    if media == JSON:
        return orjson.dumps(obj)
    if media == YAML:
        from fastkube.api import yaml

        return yaml.dump(obj)
    if media == MSGPACK:
        packed: bytes = msgpack.packb(obj)
        return packed
    if media == PROTOBUF:
        from fastkube.api import protobuf

        return protobuf.encode(obj)
    raise unsupported_media_type(f"nothing here writes {media}")


# ---------------------------------------------------------------- stored values out: JSON

_writer = _json.Writer()
"""Every function leaves it empty, and none is interrupted while it writes: all run on the event loop's thread."""


def value_to_json(value: bytes, revision: int) -> bytes:
    """A stored object with its resourceVersion."""
    _writer.value(value, revision)
    return _writer.take()


def alike_to_json() -> Callable[[bytes, int], bytes]:
    """A `value_to_json` for the objects of one kind: what one has in common with another before it is copied."""
    writer = _json.Writer(_ALIKE_BYTES, sampling=True)

    def to_json(value: bytes, revision: int) -> bytes:
        if len(value) > _ALIKE_MAX_BYTES:  # its buffer and its sample would stay
            return value_to_json(value, revision)
        writer.value(value, revision)
        return writer.take()

    return to_json


@runtime_checkable
class Records(Protocol):
    """Stored objects as they are read: pairs of key and record (`_json.Writer.records`), many at once."""

    def batches(self) -> Iterator[list[tuple[bytes, bytes]]]: ...

    def __iter__(self) -> Iterator[tuple[bytes, int]]: ...


def list_to_json(
    kind: str, api_version: str, items: Iterable[tuple[bytes, int]], list_meta: Object, *, bare: bool = True
) -> Iterator[bytes]:
    """A list in chunks. `kind` is the list's (PodList); `bare` leaves out apiVersion and kind of the items, as upstream
    does for built-in kinds."""
    writer = _json.Writer(sampling=True)
    head = orjson.dumps({"kind": kind, "apiVersion": api_version, "metadata": list_meta})
    writer.raw(head[:-1] + b',"items":[')
    yield from _records_to_json(writer, items, bare) if isinstance(items, Records) else _to_json(writer, items, bare)
    writer.raw(b"]}")
    yield writer.take()


def _records_to_json(writer: _json.Writer, records: Records, bare: bool) -> Iterator[bytes]:
    comma = False
    for found in records.batches():
        at = 0
        while at < len(found):
            at = writer.records(found, at, _CHUNK_BYTES, bare, comma)
            comma = True
            if len(writer) >= _CHUNK_BYTES:
                yield writer.take()


def _to_json(writer: _json.Writer, items: Iterable[tuple[bytes, int]], bare: bool) -> Iterator[bytes]:
    comma = False
    for value, revision in items:
        if writer.value(value, revision, bare, comma) >= _CHUNK_BYTES:
            yield writer.take()
        comma = True


def event_to_json(event_type: str, value: bytes, revision: int) -> bytes:
    """A watch event with a stored object, as a line."""
    _writer.raw(b'{"type":"%s","object":' % event_type.encode())
    _writer.value(value, revision)
    _writer.raw(b"}\n")
    return _writer.take()


# ---------------------------------------------------------------- stored values out: msgpack


def value_to_msgpack(value: bytes, revision: int) -> bytes:
    """A stored object with its resourceVersion."""
    return _codec.with_revision(value, revision)


def list_to_msgpack(
    kind: str, api_version: str, items: Iterable[tuple[bytes, int]], list_meta: Object
) -> Iterator[bytes]:
    """A list in chunks; its items keep their apiVersion and kind. They are counted first: msgpack leads with that."""
    found = list(items)
    head = msgpack.packb({"kind": kind, "apiVersion": api_version, "metadata": list_meta})
    chunk = [b"\x84", head[1:], msgpack.packb("items"), msgpack.Packer().pack_array_header(len(found))]
    size = 0
    for value, revision in found:
        chunk.append(_codec.with_revision(value, revision))
        size += len(value)
        if size >= _CHUNK_BYTES:
            yield b"".join(chunk)
            chunk, size = [], 0
    yield b"".join(chunk)


def event_to_msgpack(event_type: str, value: bytes, revision: int) -> bytes:
    """A watch event with a stored object, as a frame: its length and the event."""
    obj = _codec.with_revision(value, revision)
    head: bytes = b"\x82\xa4type" + msgpack.packb(event_type) + b"\xa6object"
    return (len(head) + len(obj)).to_bytes(4, "big") + head + obj

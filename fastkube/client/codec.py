"""Objects to bytes and back, as JSON, msgpack or protobuf; which of them is settled with the server, not assumed.

Custom kinds, and bodies without a kind, have no protobuf form: they are JSON then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgpack
import orjson

from fastkube import _codec
from fastkube.errors import ApiError

Object = dict[str, Any]

JSON = "application/json"
MSGPACK = "application/msgpack"
PROTOBUF = "application/vnd.kubernetes.protobuf"

MEDIA = {"json": JSON, "msgpack": MSGPACK, "protobuf": PROTOBUF}
"""By codec."""

ACCEPT = {"json": JSON, "msgpack": f"{MSGPACK}, {JSON};q=0.9", "protobuf": f"{PROTOBUF}, {JSON};q=0.9"}
ACCEPT_WATCH = {
    "json": JSON,
    "msgpack": f"{MSGPACK};stream=watch, {JSON};q=0.9",
    "protobuf": f"{PROTOBUF};stream=watch, {JSON};q=0.9",
}

FRAME_BYTES_MAX = 64 * 1024 * 1024


def encode(obj: Any, codec: str) -> tuple[bytes, str]:
    """A body and its Content-Type. `codec`: json, msgpack or protobuf."""
    if codec == "msgpack":
        return msgpack.packb(obj), MSGPACK
    if codec == "protobuf":
        from fastkube.api import protobuf

        if protobuf.has_form(obj.get("apiVersion", ""), obj.get("kind", "")):
            return protobuf.encode(obj), PROTOBUF
    return orjson.dumps(obj), JSON


_parts = _codec.Parts(4096)


def decode(body: bytes, content_type: str, *, shared: bool = False) -> Any:
    """A body by its Content-Type; raises ApiError when it is not what it says.

    `shared`, of msgpack: equal parts of different objects are one part, which nobody may change; no managedFields.
    """
    try:
        if content_type.startswith(MSGPACK):
            return _codec.decode(body, False, _parts) if shared else msgpack.unpackb(body)
        if content_type.startswith(PROTOBUF):
            from fastkube.api import protobuf

            return protobuf.decode(body)
        return orjson.loads(body)
    except (ValueError, msgpack.UnpackException) as error:
        raise ApiError(500, "InternalError", f"the server's answer could not be decoded: {error}") from error


_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Gone",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


def error_from(status: int, headers: dict[str, str], body: bytes) -> ApiError:
    """The ApiError of an answer of 400 or above, whether or not it carries a Status object."""
    content_type = headers.get("content-type", "")
    if content_type.startswith((JSON, MSGPACK, PROTOBUF)):
        try:
            told = decode(body, content_type)
        except ApiError:
            told = None
        if isinstance(told, dict) and told.get("kind") == "Status":
            error = ApiError.from_status(told)
            error.headers = headers
            return error
    text = body[:2048].decode("utf-8", "replace").strip() or "the server gave no reason"
    return ApiError(status, _REASONS.get(status, "Unknown"), text, headers=headers)


class FrameError(Exception):
    """A watch sent something that is not a frame."""


class WatchEvent(NamedTuple):
    """`type` is ADDED, MODIFIED, DELETED, BOOKMARK or ERROR."""

    type: str
    object: Object


Events = tuple[list[WatchEvent], bytes]
"""Those that are whole, and what is left."""


def json_lines(data: bytes) -> Events:
    """The events of the whole lines of `data`, and what is left of the last one."""
    end = data.rfind(b"\n")
    if end < 0:
        return [], _bounded(data)
    try:
        return [_event(orjson.loads(line)) for line in data[:end].split(b"\n") if line], data[end + 1 :]
    except ValueError as error:
        raise FrameError(f"a watch event is not JSON: {error}") from error


def _event(told: Object) -> WatchEvent:
    return WatchEvent(told["type"], told["object"])


def msgpack_frames(data: bytes) -> Events:
    """The events of the whole frames of `data` (4 bytes of big-endian length, then msgpack), and what is left."""
    return _frames(data, _unpack)


def _unpack(data: bytes, start: int, end: int) -> WatchEvent:
    return _event(msgpack.unpackb(data[start:end]))


_TYPE, _OBJECT = b"\x82\xa4type", b"\xa6object"


def shared_msgpack_frames(data: bytes) -> Events:
    """As `msgpack_frames`, for readers that change nothing: equal parts of different objects are one part. Nobody who
    shares objects wants their managedFields: these are not decoded."""
    return _frames(data, _unpack_shared)


def _unpack_shared(data: bytes, start: int, end: int) -> WatchEvent:
    begin = start + len(_TYPE)
    stop = begin + 1 + (data[begin] & 0x1F)
    if not data.startswith(_TYPE, start) or not data.startswith(_OBJECT, stop):
        return _unpack(data, start, end)
    obj = _codec.decode(data, False, _parts, stop + len(_OBJECT), end)
    return WatchEvent(str(data[begin + 1 : stop], "ascii"), obj)


def protobuf_frames(data: bytes) -> Events:
    """The events of the whole frames of `data` (4 bytes of big-endian length, then a WatchEvent), and what is left."""
    from fastkube.api import protobuf

    return _frames(data, lambda data, start, end: _event(protobuf.decode_event(data[start:end])))


def _frames(data: bytes, unpack: Callable[[bytes, int, int], WatchEvent]) -> Events:
    events: list[WatchEvent] = []
    position, size = 0, len(data)
    while size - position >= 4:
        length = int.from_bytes(data[position : position + 4], "big")
        if length > FRAME_BYTES_MAX:
            raise FrameError(f"a watch frame of {length} bytes is too long")
        start = position + 4
        end = start + length
        if end > size:
            break
        try:
            events.append(unpack(data, start, end))
        except (ValueError, LookupError, msgpack.UnpackException) as error:
            raise FrameError(f"a watch event cannot be decoded: {error}") from error
        position = end
    return events, data[position:]


def _bounded(data: bytes) -> bytes:
    if len(data) > FRAME_BYTES_MAX:
        raise FrameError("a watch event is too long")
    return data


Splitter = Callable[[bytes], Events]


def framing(content_type: str, *, shared: bool = False) -> Splitter:
    """The splitter for a watch of this Content-Type."""
    if content_type.startswith(PROTOBUF):
        return protobuf_frames
    if not content_type.startswith(MSGPACK):
        return json_lines
    return shared_msgpack_frames if shared else msgpack_frames

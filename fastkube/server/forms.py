"""How stored objects look in an answer: one object, a list, or a watch event, in each format and form.

A `View` is one resource in one version, one format and one form; everything a watcher's group or a response needs to
encode. Plain JSON and msgpack in the stored version go from bytes to bytes; only protobuf, tables, metadata-only forms,
YAML, indented JSON and other versions decode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack
import orjson

from fastkube import errors
from fastkube.api import codec, conversion, field, protobuf, table
from fastkube.server.media import JSON, MSGPACK, PARTIAL, PARTIAL_LIST, PROTOBUF, TABLE, Form

if TYPE_CHECKING:
    from fastkube.api.catalog import ResourceType
    from fastkube.clock import Clock

Object = dict[str, Any]

ADDED, MODIFIED, DELETED, BOOKMARK, ERROR = "ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"

INITIAL_EVENTS_END = "k8s.io/initial-events-end"

_INCLUDES = ("Metadata", "Object", "None")


class ListHead(NamedTuple):
    """metadata of a list."""

    revision: int
    continue_token: str = ""
    remaining: int | None = None

    def to_dict(self, custom: bool) -> Object:
        """Lists of custom resources as such say that there is no further page."""
        metadata: Object = {"resourceVersion": str(self.revision)}
        if self.continue_token or custom:
            metadata["continue"] = self.continue_token
        if self.remaining is not None:
            metadata["remainingItemCount"] = self.remaining
        return metadata


_to_json: dict[bytes, Callable[[bytes, int], bytes]] = {}
"""One transcoder for each kind, by the prefix of its keys: its objects are much alike."""


def _to_json_of(rtype: ResourceType) -> Callable[[bytes, int], bytes]:
    found = _to_json.get(rtype.key_prefix)
    if found is None:
        found = _to_json[rtype.key_prefix] = codec.alike_to_json()
    return found


class View(NamedTuple):
    """`include` is what a table's rows carry: Metadata, Object or None. `converts`: not the stored version."""

    rtype: ResourceType
    version: str
    form: Form
    clock: Clock
    include: str = "Metadata"
    converts: bool = False
    asks: bool = False
    """The stored values must be converted by a webhook before they are shown (`Converter.shown`)."""

    @property
    def plain(self) -> bool:
        """Whether stored bytes become the answer without being decoded."""
        return not self.form.kind and not self.converts

    # ---------------------------------------------------------------- one object

    def shape(self, value: bytes, revision: int, columns: bool = True) -> Object:
        """The object in the version and form asked for. A table without `columns` leaves their definitions out."""
        obj = load(value, revision)
        kind = self.form.kind
        if kind == TABLE:
            return self._table([obj], None, columns)
        if kind:
            return table.partial_metadata(obj, self.form.version)
        return self._converted(obj)

    def one(self, value: bytes, revision: int) -> bytes:
        """The body that answers for a single object."""
        form = self.form
        if form.kind == PARTIAL_LIST:
            told = f"you requested {PARTIAL_LIST}, but the requested object is not a list"
            raise errors.not_acceptable(f"{told} (*{_go_package(self.rtype)}.{self.rtype.kind})")
        encoder = self.encoder
        return self.encode(self.shape(value, revision)) if encoder is None else encoder(value, revision)

    @property
    def encoder(self) -> Callable[[bytes, int], bytes] | None:
        """What makes the answer from stored bytes; None where they have to be decoded."""
        if not self.plain or self.form.pretty:
            return None
        if self.form.media is JSON:
            return _to_json_of(self.rtype)
        return codec.value_to_msgpack if self.form.media is MSGPACK else None

    def encode(self, obj: Object) -> bytes:
        form = self.form
        if form.media is JSON:
            return orjson.dumps(obj, option=orjson.OPT_INDENT_2) + b"\n" if form.pretty else orjson.dumps(obj)
        return codec.encode(obj, form.media.decode())

    def _converted(self, obj: Object) -> Object:
        if not self.converts:
            return obj
        return conversion.convert(self.rtype, obj, self.rtype.api_version(self.version))

    def _table(self, objects: list[Object], metadata: Object | None, columns: bool) -> Object:
        return table.table(
            self.rtype,
            self.version,
            objects,
            now=self.clock.time(),
            include=self.include,
            metadata=metadata,
            table_version=self.form.version,
            headers=columns,
            objects=[self._converted(obj) for obj in objects] if self.converts else None,
        )

    # ---------------------------------------------------------------- lists

    def many(self, items: Iterable[tuple[bytes, int]], head: ListHead) -> Iterator[bytes]:
        """The body of a list, in pieces where it can be written as it is read."""
        form, rtype = self.form, self.rtype
        metadata = head.to_dict(rtype.custom and not form.kind)
        if form.kind == PARTIAL:
            told = f"you requested {PARTIAL}, but the requested object is a list"
            raise errors.not_acceptable(f"{told} (*{_go_package(rtype)}.{rtype.list_kind})")
        api_version = rtype.api_version(self.version)
        if self.plain and form.media is JSON and not form.pretty:
            bare = not rtype.custom
            yield from codec.list_to_json(rtype.list_kind, api_version, items, metadata, bare=bare)
        elif self.plain and form.media is MSGPACK:
            yield from codec.list_to_msgpack(rtype.list_kind, api_version, items, metadata)
        elif self.plain and form.media is PROTOBUF:
            yield protobuf.list_of(rtype.list_kind, api_version, items, metadata)
        else:
            yield self.encode(self._list([load(value, revision) for value, revision in items], metadata))

    def _list(self, objects: list[Object], metadata: Object) -> Object:
        form, rtype = self.form, self.rtype
        if form.kind == TABLE:
            return self._table(objects, metadata, True)
        if form.kind:
            return table.partial_metadata_list(objects, metadata, form.version)
        objects = [self._converted(obj) for obj in objects]
        if not rtype.custom:
            for obj in objects:
                del obj["apiVersion"], obj["kind"]
        api_version = rtype.api_version(self.version)
        return {"kind": rtype.list_kind, "apiVersion": api_version, "metadata": metadata, "items": objects}

    # ---------------------------------------------------------------- watch events

    @property
    def stream_media(self) -> bytes:
        """The Content-Type of a watch."""
        return PROTOBUF + b";stream=watch" if self.form.media is PROTOBUF else self.form.media

    def event_object(self, value: bytes, revision: int, columns: bool) -> bytes:
        """The encoded object of an event, without its frame."""
        form = self.form
        if self.plain:
            if form.media is JSON:
                return _to_json_of(self.rtype)(value, revision)
            if form.media is MSGPACK:
                return codec.value_to_msgpack(value, revision)
        return self._encode_event_object(self.shape(value, revision, columns))

    def bookmark(self, revision: int, initial_events_end: bool, columns: bool) -> bytes:
        """A whole event that only says how far the watch has come."""
        rtype = self.rtype
        metadata: Object = {"resourceVersion": str(revision)}
        if initial_events_end:
            metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
        obj: Object = {"kind": rtype.kind, "apiVersion": rtype.api_version(self.version), "metadata": metadata}
        if self.form.kind == TABLE:
            obj = self._table([obj], None, columns)
        elif self.form.kind:
            obj = table.partial_metadata(obj, self.form.version)
        return self.frame(BOOKMARK, self._encode_event_object(obj))

    def error(self, status: Object) -> bytes:
        """A whole event that ends a watch."""
        return self.frame(ERROR, self._encode_event_object(status))

    def _encode_event_object(self, obj: Object) -> bytes:
        media = self.form.media
        return orjson.dumps(obj) if media is JSON else codec.encode(obj, media.decode())

    def frame(self, event_type: str, obj: bytes) -> bytes:
        """One event as it stands in the stream."""
        if self.form.media is JSON:
            return b'{"type":"%b","object":%b}\n' % (event_type.encode(), obj)
        if self.form.media is PROTOBUF:
            return protobuf.event(event_type, obj)
        head: bytes = b"\x82\xa4type" + msgpack.packb(event_type) + b"\xa6object"
        return (len(head) + len(obj)).to_bytes(4, "big") + head + obj


def load(value: bytes, revision: int) -> Object:
    """A stored object as a dict, with its resourceVersion if it has one."""
    obj: Object = msgpack.unpackb(value)
    if revision:
        obj["metadata"]["resourceVersion"] = str(revision)
    return obj


def view_of(
    rtype: ResourceType, version: str, form: Form, query: dict[str, str], clock: Clock, foreign: bool = False
) -> View:
    """`foreign`: the values are of a subresource's own kind (Scale) and in its only version."""
    include = "Metadata"
    if form.kind == TABLE:
        include = query.get("includeObject") or "Metadata"
        if include not in _INCLUDES:
            problem = (
                f"includeObject: Invalid value: {field.quote(include)}: must be 'Metadata', 'Object', 'None', or empty"
            )
            raise errors.bad_request(f"Unable to convert to Table as requested: {problem}")
    differs = not foreign and (rtype.stale or rtype.storage_api_version != rtype.api_version(version))
    if differs and rtype.by_webhook:
        return View(rtype, version, form, clock, include, False, True)
    return View(rtype, version, form, clock, include, differs)


def _go_package(rtype: ResourceType) -> str:
    """The name of upstream's package of internal types, which some messages show."""
    if rtype.custom:
        return "unstructured"
    return rtype.group.split(".")[0] or "core"

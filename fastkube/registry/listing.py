"""Lists: their options, which revision they are read at, pages and continue tokens.

Rules, those of the Kubernetes API ("Resource versions" and "Retrieving large results sets in chunks"):
  1. No resourceVersion: the latest state. "0": any state, here also the latest. N: a state not older than N.
  2. `Exact`, and N with a limit but no match rule: the state at revision N itself.
  3. A limit together with "0" is ignored, as upstream's watch cache does.
  4. A continue token holds the revision of the first page, so all pages show one snapshot. When compaction has passed
     it, the 410 answer carries a token that goes on from the same key in the latest state.
  5. remainingItemCount is told only where nothing is filtered out.
Items are matched against selectors in their encoded form; nothing here decodes an object.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from fastkube import errors
from fastkube.api import field, gojson
from fastkube.api.selectors import (
    FieldSelector,
    LabelSelector,
    field_selector,
    parse_label_selector,
    split_field_selector,
)
from fastkube.errors import ApiError, Cause
from fastkube.registry.answers import Page, Stored
from fastkube.store import Compacted, FutureRevision, Values

if TYPE_CHECKING:
    from fastkube.api.catalog import ResourceType
    from fastkube.registry.strategy import Call
    from fastkube.store import Item, Store

EXACT = "Exact"
NOT_OLDER_THAN = "NotOlderThan"

_SCAN_CHUNK = 500
"""Keys read at once while filtering for a limited page."""

_NOT_BASE64 = re.compile(r"[^A-Za-z0-9_-]")

_LIST_EXPIRED = "The resourceVersion for the provided list is too old."
_TOKEN_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


@dataclass(slots=True)
class ListOptions:
    """The query of a list, watch or deletecollection request, parsed and checked."""

    labels: LabelSelector | None = None
    fields: FieldSelector | None = None
    resource_version: str = ""
    match: str = ""
    limit: int = 0
    continue_token: str = ""
    timeout_s: int = 0
    allow_bookmarks: bool = False
    send_initial_events: bool | None = None

    @classmethod
    def parse(
        cls, query: Mapping[str, str], selectable: frozenset[str], *, watch: bool = False, kind: str = ""
    ) -> ListOptions:
        """Raises 400 for what cannot be parsed and 422 for what contradicts itself, in upstream's words.

        `kind` is that of a built-in type, whose selectors some have words of their own for.
        """
        options = cls(
            resource_version=query.get("resourceVersion", ""),
            match=query.get("resourceVersionMatch", ""),
            limit=parse_int64(query.get("limit", "0")),
            continue_token=query.get("continue", ""),
            timeout_s=parse_int64(query.get("timeoutSeconds", "0")),
            allow_bookmarks=_boolean(query.get("allowWatchBookmarks", "false")),
        )
        if query.get("labelSelector"):
            options.labels = parse_label_selector(query["labelSelector"])
        fields = split_field_selector(query.get("fieldSelector", ""))
        if "sendInitialEvents" in query:
            options.send_initial_events = _boolean(query["sendInitialEvents"])
        causes = options._contradictions(watch)
        if causes:
            raise errors.invalid("meta.k8s.io", "ListOptions", "", causes)
        if query.get("fieldSelector"):
            options.fields = field_selector(fields, selectable, kind, custom=not kind)
        return options

    def _contradictions(self, watch: bool) -> list[Cause]:
        if watch:
            return self._watch_contradictions()
        path, match = "resourceVersionMatch", self.match
        causes: list[Cause] = []
        if match:
            if not self.resource_version:
                causes.append(field.forbidden(path, f"{path} is forbidden unless resourceVersion is provided"))
            if self.continue_token:
                causes.append(field.forbidden(path, f"{path} is forbidden when continue is provided"))
            if match not in (EXACT, NOT_OLDER_THAN):
                causes.append(field.not_supported(path, match, (EXACT, NOT_OLDER_THAN, "")))
            if match == EXACT and self.resource_version == "0":
                causes.append(field.forbidden(path, f'{path} "exact" is forbidden for resourceVersion "0"'))
        if self.send_initial_events is not None:
            causes.append(field.forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
        return causes

    def _watch_contradictions(self) -> list[Cause]:
        path, match = "resourceVersionMatch", self.match
        causes: list[Cause] = []
        if self.send_initial_events is not None and match != NOT_OLDER_THAN:
            problem = f"sendInitialEvents requires setting {path} to {NOT_OLDER_THAN}"
            causes.append(field.forbidden(path, problem))
        if match:
            if self.send_initial_events is None:
                problem = f"{path} is forbidden for watch unless sendInitialEvents is provided"
                causes.append(field.forbidden(path, problem))
            if match != NOT_OLDER_THAN:
                causes.append(field.not_supported(path, match, (NOT_OLDER_THAN,)))
            if self.continue_token:
                causes.append(field.forbidden(path, f"{path} is forbidden when continue is provided"))
        return causes

    @property
    def filtered(self) -> bool:
        return self.labels is not None or self.fields is not None

    def matches(self, value: bytes) -> bool:
        """Whether the selectors take the encoded object."""
        if self.labels is not None and not self.labels.matches_bytes(value):
            return False
        return self.fields is None or self.fields.matches_bytes(value)


_is_integer = re.compile(r"[+-]?[0-9]+", re.ASCII).fullmatch


def parse_int64(text: str) -> int:
    """The number that a query parameter holds; raises 400 in Go's words."""
    if not _is_integer(text):
        raise errors.bad_request(f"strconv.ParseInt: parsing {field.quote(text)}: invalid syntax")
    number = int(text) if len(text) < 21 else 1 << 64
    if not -(1 << 63) <= number < 1 << 63:
        raise errors.bad_request(f"strconv.ParseInt: parsing {field.quote(text)}: value out of range")
    return number


def _boolean(text: str) -> bool:
    return text.lower() not in ("false", "0")


class KeyRange(NamedTuple):
    """[start, end), and the prefix which continue tokens leave out."""

    prefix: bytes
    start: bytes
    end: bytes


def key_range(rtype: ResourceType, namespace: str, options: ListOptions | None = None) -> KeyRange:
    """The keys of a collection; those alone that the field selector's namespace leaves and, where a list does not go
    on from a token, its name."""
    scope = rtype.key_prefix
    fields = options.fields if options is not None else None
    name = fields.exact("metadata.name") if fields is not None else None
    if fields is not None and not namespace and rtype.namespaced:
        namespace = fields.exact("metadata.namespace") or ""
    if namespace:
        scope += namespace.encode() + b"/"
    if name and (namespace or not rtype.namespaced) and options is not None and not options.continue_token:
        key = rtype.key(namespace, name)
        return KeyRange(scope, key, key + b"\0")
    return KeyRange(scope, scope, scope[:-1] + b"0")  # "0" follows "/"


class _Token(NamedTuple):
    """Where a list goes on: at `key`, in the state of `revision` (-1: the latest state)."""

    key: bytes
    revision: int

    def encode(self, prefix: bytes) -> str:
        start = self.key.removeprefix(prefix).decode()
        document = {"v": "meta.k8s.io/v1", "rv": self.revision, "start": f"/{start}"}
        return base64.urlsafe_b64encode(orjson.dumps(document)).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str, prefix: bytes) -> _Token:
        document = _token_document(text)
        version, revision, start = document.get("v"), document.get("rv", 0), document.get("start", "")
        if version != "meta.k8s.io/v1":
            raise _bad_token(f"server does not recognize this encoded version {version or ''}")
        if not isinstance(revision, int) or not isinstance(start, str) or revision == 0:
            raise _bad_token(f"incorrect encoded start resourceVersion (version {version})")
        if not start:
            raise _bad_token(f"encoded start key empty (version {version})")
        if ".." in start.split("/"):
            raise _bad_token(start)
        return cls(prefix + start.removeprefix("/").encode(), revision)


def _token_document(text: str) -> dict[str, Any]:
    """What a token holds; raises 400 in Go's words for text that is not base64 of a JSON object."""
    if stranger := _NOT_BASE64.search(text):
        raise _bad_token(f"illegal base64 data at input byte {stranger.start()}")
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise _bad_token(f"illegal base64 data at input byte {len(text) - 1}") from None
    if fault := gojson.fault(raw):
        raise _bad_token(fault)
    document = gojson.parse(raw)
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise _bad_token("server does not recognize this encoded version ")
    return document


def _bad_token(problem: str) -> ApiError:
    return errors.bad_request(f"invalid continue token: continue key is not valid: {problem}")


def list_page(store: Store, call: Call, options: ListOptions) -> Page:
    """Reads one page; without a limit all items are one page."""
    keys = key_range(call.rtype, call.namespace, options)
    limit = options.limit
    if options.continue_token:
        if options.resource_version not in ("", "0"):
            raise errors.bad_request("specifying resource version is not allowed when using continue")
        if options.resource_version:
            limit = 0
        token = _Token.decode(options.continue_token, keys.prefix)
        revision = store.revision if token.revision < 0 else token.revision
        try:
            return _read(store, keys._replace(start=max(token.key, keys.start)), options, revision, limit)
        except Compacted:
            fresh = _Token(token.key, -1).encode(keys.prefix)
            raise ApiError(410, "Expired", _TOKEN_EXPIRED, metadata={"continue": fresh}) from None
    wanted = _listed_version(options.resource_version)
    if options.match == EXACT or (wanted and limit and not options.match):
        try:
            return _read(store, keys, options, wanted, limit)
        except Compacted:
            raise errors.expired(_LIST_EXPIRED) from None
        except FutureRevision:
            raise too_large_resource_version(wanted, store.revision) from None
    if wanted > store.revision:
        raise too_large_resource_version(wanted, store.revision)
    if options.resource_version == "0":
        limit = 0
    return _read(store, keys, options, store.revision, limit)


def _read(store: Store, keys: KeyRange, options: ListOptions, revision: int, limit: int) -> Page:
    if limit <= 0 or (limit and not options.filtered):
        return _read_whole(store, keys, options, revision, limit)
    return _read_filtered(store, keys, options, revision, limit)


def _read_whole(store: Store, keys: KeyRange, options: ListOptions, revision: int, limit: int) -> Page:
    """All items of the range, filtered, read as they are asked for; or the first `limit` of them, unfiltered."""
    if limit <= 0:
        values = store.values(keys.start, keys.end, revision=revision)
        return Page(Values(_selected(values, options)) if options.filtered else values, revision)
    found = store.range(keys.start, keys.end, revision=revision, limit=limit)
    items = [Stored(item.value, item.mod_revision) for item in found.items]
    if not found.more:
        return Page(items, revision)
    token = _Token(found.items[-1].key + b"\0", revision).encode(keys.prefix)
    return Page(items, revision, token, found.count - len(items))


def _selected(values: Values, options: ListOptions) -> Iterator[list[tuple[bytes, bytes]]]:
    for found in values.batches():
        if options.labels is not None:
            found = options.labels.matching(found)
        if options.fields is not None:
            found = options.fields.matching(found)
        if found:
            yield found


def _read_filtered(store: Store, keys: KeyRange, options: ListOptions, revision: int, limit: int) -> Page:
    """The first `limit` items which the selectors take, reading on in chunks until they are found."""
    items: list[Stored] = []
    start = keys.start
    while True:
        found = store.range(start, keys.end, revision=revision, limit=max(limit, _SCAN_CHUNK))
        for position, item in enumerate(found.items):
            if not options.matches(item.value):
                continue
            items.append(Stored(item.value, item.mod_revision))
            if len(items) == limit:
                if position + 1 == len(found.items) and not found.more:
                    return Page(items, revision)
                return Page(items, revision, _Token(item.key + b"\0", revision).encode(keys.prefix))
        if not found.more:
            return Page(items, revision)
        start = found.items[-1].key + b"\0"


def _listed_version(text: str) -> int:
    """That of a list, of whose misreading upstream says more. Raises 400."""
    try:
        return parse_resource_version(text)
    except ApiError as error:
        raise errors.bad_request(f"invalid resource version: {error.message}") from None


def parse_resource_version(text: str) -> int:
    """The revision that a resourceVersion parameter means; 0 when none or any is asked for."""
    if not text:
        return 0
    problem = "invalid syntax"
    if text.isascii() and text.isdigit():
        if len(text) < 21 and int(text) < 1 << 64:
            return int(text)
        problem = "value out of range"
    problem = f"strconv.ParseUint: parsing {field.quote(text)}: {problem}"
    raise ApiError(500, "", f"resourceVersion: Invalid value: {field.quote(text)}: {problem}")


def too_large_resource_version(wanted: int, current: int) -> ApiError:
    """The client has seen a newer state than this server has; it may ask again."""
    error = errors.timeout(f"Too large resource version: {wanted}, current: {current}", retry_after_s=1)
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    error.details = {"causes": [cause], "retryAfterSeconds": 1}
    error.headers = {"Retry-After": "1"}
    return error


def read_item(store: Store, key: bytes, resource_version: str) -> Item | None:
    """A get: the latest state, which must be at least as new as the resourceVersion asked for."""
    if resource_version:
        wanted = parse_resource_version(resource_version)
        if wanted > store.revision:
            raise too_large_resource_version(wanted, store.revision)
    return store.get(key)

"""Informers: a local copy of a resource, kept by list and watch, which tells its changes to handlers in order.

The rules an informer obeys:
  1. Every change of an object is told once: add, then updates, then delete. After a gap (a lost position, 410) the copy
     is compared with a new list, and what differs is told as if it had just happened.
  2. Revisions of one resource are comparable integers. Nothing older replaces something newer, whichever way it came.
  3. `observe` puts the answer to an own write into the copy at once, so that who writes reads its own writes. It is
     exact because of rule 2: up to the informer's own revision the watch has told everything, so an older answer is
     ignored, and the watch's echo of a newer one is.
  4. Handlers are plain functions, called on the event loop in the order in which they were added. One that raises is
     logged and does not stop the others.
Objects in the copy are shared: readers must not change them. How the server is followed stands in feed.py.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fastkube.api import selectors
from fastkube.client.client import Client
from fastkube.client.codec import WatchEvent
from fastkube.client.feed import Feed, Feeds, Memo, Transform
from fastkube.client.resource import Resource, object_key
from fastkube.errors import ApiError

log = logging.getLogger(__name__)

Object = dict[str, Any]
Objects = list[Object]
Indexer = Callable[[Object], Iterable[str]]
Topics = Callable[[Object | None, Object], int]
"""What a change, from an object (None: it is new, or has gone) to another, is about: a set of bits."""

_EVERY_TOPIC = -1


class Handler(NamedTuple):
    """`about`: sets of topics, of each of which a change must have one. It is a promise that others do not matter."""

    on_add: Callable[[Object], None] | None
    on_update: Callable[[Object, Object], None] | None
    on_delete: Callable[[Object], None] | None
    about: tuple[int, ...] = ()

    def matters(self, topics: int) -> bool:
        return all(topics & each for each in self.about)


class _Audience(NamedTuple):
    """Who is told of a change, in order."""

    add: tuple[Callable[[Object], None], ...]
    update: tuple[Callable[[Object, Object], None], ...]
    delete: tuple[Callable[[Object], None], ...]


def drop_managed_fields(obj: Object, _kept: Object | None = None) -> Object:
    """The least transform: a PUT without managedFields keeps those of the server, so nobody misses them."""
    obj["metadata"].pop("managedFields", None)
    return obj


def _revision(obj: Object) -> int:
    return int(obj["metadata"]["resourceVersion"])


class Informer:
    """The copy of one resource, in one namespace and under selectors where they are given.

    With `feeds` one watch serves all informers of the process for the resource; objects are selected here then.
    `transform` is applied to each object before it is kept: to hold less, or to share equal parts. It must leave name,
    namespace, uid and resourceVersion, and must not change the object that it is given (but for managedFields, which
    nobody wants): other informers of the process are given the same one. It may take parts over from what it kept of
    the object before. `indexers` name functions from an object to the index keys it is found under, which may depend on
    nothing but metadata, the spec and what never changes. `topics` says what a change is about, for handlers which
    name what they are there for; without it they are told everything.
    """

    def __init__(
        self,
        client: Client,
        resource: str | Resource,
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        transform: Transform = drop_managed_fields,
        indexers: Mapping[str, Indexer] | None = None,
        topics: Topics | None = None,
        feeds: Feeds | None = None,
    ) -> None:
        self.client = client
        self.resource = resource
        self.synced = asyncio.Event()
        self.revision = 0
        """The watch has told everything up to this revision."""
        self.last_error: ApiError | None = None
        self._listed = 0
        self._namespace = namespace
        self._selective = bool(label_selector or field_selector)
        self._wanted: Callable[[Object], bool] | None = None
        if feeds is None:
            self._feed = Feed(resource, namespace, label_selector, field_selector)
        else:
            self._feed = feeds.feed(resource, namespace)
            self._wanted = _selection(label_selector, field_selector)
        self._transform = transform
        self._topics = topics
        self._audiences: dict[int, _Audience] = {}
        self._items: dict[str, Object] = {}
        self._indexers: dict[str, Indexer] = {}
        self._indices: dict[str, dict[str, dict[str, None]]] = {}
        self._handlers: list[Handler] = []
        self._gone: set[str] = set()  # uids of objects whose deletion was observed before the watch told it
        for name, indexer in (indexers or {}).items():
            self.add_indexer(name, indexer)

    # -- reading -----------------------------------------------------------------------------------------------------

    def get(self, namespace: str, name: str) -> Object | None:
        return self._items.get(f"{namespace}/{name}" if namespace else name)

    def by_key(self, key: str) -> Object | None:
        return self._items.get(key)

    def list(self) -> Objects:
        return list(self._items.values())

    def by_index(self, name: str, key: str) -> Objects:
        """The objects whose indexer `name` gave `key`."""
        found = self._indices[name].get(key)
        return [self._items[each] for each in found] if found else []

    def is_indexed(self, name: str, key: str) -> bool:
        """Whether there is any object which the indexer `name` gave `key`."""
        return key in self._indices[name]

    def __len__(self) -> int:
        return len(self._items)

    # -- wiring ------------------------------------------------------------------------------------------------------

    def add_indexer(self, name: str, indexer: Indexer) -> None:
        """The same name with the same function may be added again; another function under a taken name is an error."""
        if name in self._indexers:
            if self._indexers[name] is not indexer:
                raise ValueError(f"the index {name} of {self.resource} has another function")
            return
        self._indexers[name] = indexer
        index: dict[str, dict[str, None]] = {}
        self._indices[name] = index
        for key, obj in self._items.items():
            for value in indexer(obj):
                index.setdefault(value, {})[key] = None

    def add_handler(
        self,
        on_add: Callable[[Object], None] | None = None,
        on_update: Callable[[Object, Object], None] | None = None,
        on_delete: Callable[[Object], None] | None = None,
        *,
        about: tuple[int, ...] = (),
    ) -> Handler:
        """A late handler is told the present objects as added, at once. on_update gets (old, new)."""
        handler = Handler(on_add, on_update, on_delete, about)
        self._handlers.append(handler)
        self._audiences.clear()
        if on_add is not None:
            for obj in self.list():
                if handler.matters(self._topics_of(None, obj)):
                    _call(on_add, obj)
        return handler

    def remove_handler(self, handler: Handler) -> None:
        self._handlers.remove(handler)
        self._audiences.clear()

    # -- own writes --------------------------------------------------------------------------------------------------

    def observe(self, obj: Object) -> None:
        """Take in (and over) the answer to an own create, update or patch.

        An informer with selectors cannot know whether the object is one of its own, and leaves it to the watch.
        """
        if not self.synced.is_set() or self._selective:
            return
        if self._namespace and obj["metadata"].get("namespace") != self._namespace:
            return
        revision = _revision(obj)
        if revision > self.revision:
            self._put(obj, revision, {})

    def observe_deleted(self, obj: Object) -> None:
        """Take in that an own delete has removed `obj` (as it was known) from the server."""
        key = object_key(obj)
        known = self._items.get(key)
        if known is None or known["metadata"]["uid"] != obj["metadata"]["uid"]:
            return
        self._gone.add(known["metadata"]["uid"])
        self._drop(key, known)

    # -- following the server ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow the server until cancelled. Failures are logged and tried again with growing, jittered pauses."""
        await self._feed.follow(self)

    def gather(self, found: dict[str, Object], obj: Object, memo: Memo) -> None:
        """Put an object into a new list."""
        key = object_key(obj)
        if self._wanted is None or self._wanted(obj):
            found[key] = self._keep(obj, self._items.get(key), memo.setdefault(self._transform, {}))
        else:
            found.pop(key, None)

    def replace(self, found: dict[str, Object], revision: int) -> None:
        """Compare with a new list, tell what differs, and go on from its revision."""
        alive = {obj["metadata"]["uid"] for obj in found.values()} if self._gone else set()
        self._gone &= alive
        for key, known in list(self._items.items()):
            if key not in found and _revision(known) <= revision:
                self._drop(key, known)
        for obj in found.values():
            self._put(obj, _revision(obj), None)
        self.revision = self._listed = revision
        self.last_error = None
        self.synced.set()

    def take(self, events: Sequence[WatchEvent], memo: Memo) -> None:
        """Apply what has happened; what the list has told already is passed over."""
        wanted, done = self._wanted, memo.setdefault(self._transform, {})
        for kind, obj in events:
            revision = int(obj["metadata"]["resourceVersion"])
            if revision <= self._listed:
                continue
            if kind == "DELETED":
                self._gone.discard(obj["metadata"]["uid"])
                self._lose(obj, revision)
            elif kind != "BOOKMARK":
                if wanted is None or wanted(obj):
                    self._put(obj, revision, done)
                else:
                    self._lose(obj, revision)
            self.revision = revision

    def _lose(self, obj: Object, revision: int) -> None:
        """It is not there any more, or no longer selected."""
        key = object_key(obj)
        known = self._items.get(key)
        if known is not None and _revision(known) <= revision:
            self._drop(key, self._keep(obj, known, {}))

    # -- the copy ----------------------------------------------------------------------------------------------------

    def _keep(self, obj: Object, known: Object | None, done: dict[int, Object]) -> Object:
        """`done`: what the transform has made of objects, by their ids."""
        kept = done.get(id(obj))
        if kept is None:
            if known is not None and known["metadata"]["uid"] != obj["metadata"]["uid"]:
                known = None
            kept = done[id(obj)] = self._transform(obj, known)
        return kept

    def _put(self, obj: Object, revision: int, done: dict[int, Object] | None) -> None:
        """`done` None: the object has been through the transform already."""
        key, uid = object_key(obj), obj["metadata"]["uid"]
        if self._gone and uid in self._gone:
            return
        old = self._items.get(key)
        if old is None:
            self._add(key, obj if done is None else self._keep(obj, None, done))
            return
        before = old["metadata"]
        if revision <= int(before["resourceVersion"]):
            return
        if done is not None:
            obj = self._keep(obj, old, done)
        if before["uid"] != uid:
            self._drop(key, old)  # deleted and made again while nobody looked
            self._add(key, obj)
            return
        self._store(key, old, obj)
        for updated in self._audience(old, obj).update:
            _call(updated, old, obj)

    def _add(self, key: str, obj: Object) -> None:
        self._store(key, None, obj)
        for added in self._audience(None, obj).add:
            _call(added, obj)

    def _topics_of(self, old: Object | None, new: Object) -> int:
        return self._topics(old, new) if self._topics is not None else _EVERY_TOPIC

    def _audience(self, old: Object | None, new: Object) -> _Audience:
        topics = self._topics_of(old, new)
        found = self._audiences.get(topics)
        if found is None:
            told = [handler for handler in self._handlers if handler.matters(topics)]
            found = self._audiences[topics] = _Audience(
                tuple(handler.on_add for handler in told if handler.on_add is not None),
                tuple(handler.on_update for handler in told if handler.on_update is not None),
                tuple(handler.on_delete for handler in told if handler.on_delete is not None),
            )
        return found

    def _drop(self, key: str, last: Object) -> None:
        old = self._items.pop(key)
        for name, indexer in self._indexers.items():
            index = self._indices[name]
            for value in indexer(old):
                _discard(index, value, key)
        for deleted in self._audience(None, last).delete:
            _call(deleted, last)

    def _store(self, key: str, old: Object | None, new: Object) -> None:
        self._items[key] = new
        if old is not None and _are_indexed_alike(old, new):
            return
        for name, indexer in self._indexers.items():
            index = self._indices[name]
            values = indexer(new)
            if old is not None:
                before = indexer(old)
                if before == values:
                    continue
                for value in before:
                    if value not in values:
                        _discard(index, value, key)
            for value in values:
                index.setdefault(value, {})[key] = None


def _selection(label_selector: str, field_selector: str) -> Callable[[Object], bool] | None:
    """Whether an object is selected; None: each is."""
    labels = selectors.parse_label_selector(label_selector)
    fields = selectors.parse_field_selector(field_selector, frozenset(re.findall(r"[\w.]+(?=[!=])", field_selector)))
    if not labels and not fields:
        return None
    if not labels:
        return fields.matches
    return lambda obj: labels.matches(obj["metadata"].get("labels")) and fields.matches(obj)


def _are_indexed_alike(old: Object, new: Object) -> bool:
    """Whether no index can see a difference, as far as is known without asking each."""
    spec = old.get("spec")
    if spec is None or spec is not new.get("spec"):
        return False
    before, after = old["metadata"], new["metadata"]
    for key in _INDEXED_METADATA:  # noqa: SIM110 (a generator costs more than the comparisons)
        if before.get(key) != after.get(key):
            return False
    return True


_INDEXED_METADATA = ("labels", "annotations", "ownerReferences", "finalizers", "deletionTimestamp")


def _discard(index: dict[str, dict[str, None]], value: str, key: str) -> None:
    found = index.get(value)
    if found is not None:
        found.pop(key, None)
        if not found:
            del index[value]


def _call(function: Callable[..., None], *args: Object) -> None:
    try:
        function(*args)
    except Exception:
        log.exception("an informer's handler failed")

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
Objects in the copy are shared: readers must not change them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from fastkube.client.client import Client
from fastkube.client.resource import Resource
from fastkube.client.watch import INITIAL_EVENTS_END, Watch, WatchEvent, WatchLost
from fastkube.errors import ApiError

log = logging.getLogger(__name__)

Object = dict[str, Any]
Objects = list[Object]
WatchEvents = list[WatchEvent]
Transform = Callable[[Object, Object | None], Object]
"""Of what came and what has been kept of the same object so far."""
Indexer = Callable[[Object], Iterable[str]]
Topics = Callable[[Object | None, Object], int]
"""What a change, from an object (None: it is new, or has gone) to another, is about: a set of bits."""

NOT_FOR_PAGES = (401, 403, 404, 410, 429, 503, 504)
"""Refusals of a streaming list that one of pages would meet as well; after any other pages are asked for, as client-go
does: a server whose etcd cannot report progress begins a streaming list and then says 500."""
WATCH_TIMEOUT_S = (300, 600)
"""A watch is asked to last a random time in this range, so that those of many clients do not end together."""
BACKOFF_S = (0.8, 30.0)
_EVERY_TOPIC = -1
EVENTS_PER_TURN = 256
"""After so many events other tasks get a turn."""


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


def object_key(obj: Object) -> str:
    """`namespace/name`, or the name alone of an object without namespace."""
    metadata = obj["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])


def make_key(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


def split_key(key: str) -> tuple[str, str]:
    """(namespace, name); the namespace is "" for an object without one."""
    namespace, _, name = key.rpartition("/")
    return namespace, name


def drop_managed_fields(obj: Object, _kept: Object | None = None) -> Object:
    """The least transform: a PUT without managedFields keeps those of the server, so nobody misses them."""
    obj["metadata"].pop("managedFields", None)
    return obj


def _revision(obj: Object) -> int:
    return int(obj["metadata"]["resourceVersion"])


class Informer:
    """The copy of one resource, in one namespace and under selectors where they are given.

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
        transform: Transform | None = drop_managed_fields,
        indexers: Mapping[str, Indexer] | None = None,
        topics: Topics | None = None,
    ) -> None:
        self.resource = resource
        self.synced = asyncio.Event()
        self.revision = 0
        """The watch has told everything up to this revision."""
        self.last_error: ApiError | None = None
        self._client = client
        self._namespace = namespace
        self._labels = label_selector
        self._fields = field_selector
        self._transform = transform
        self._topics = topics
        self._audiences: dict[int, _Audience] = {}
        self._items: dict[str, Object] = {}
        self._indexers: dict[str, Indexer] = {}
        self._indices: dict[str, dict[str, dict[str, None]]] = {}
        self._handlers: list[Handler] = []
        self._gone: set[str] = set()  # uids of objects whose deletion was observed before the watch told it
        self._watch_list = True
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
        if not self.synced.is_set() or self._labels or self._fields:
            return
        if self._namespace and obj["metadata"].get("namespace") != self._namespace:
            return
        revision = _revision(obj)
        if revision > self.revision:
            self._put(obj, revision)

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
        delay = BACKOFF_S[0]
        watch: Watch | None = None
        while True:
            told = self.revision
            try:
                watch = await self._position() if not self.revision else self._watch_from(self.revision)
                await self._follow(watch)
                quiet = self.revision == told
                if not quiet:
                    delay = BACKOFF_S[0]
                    continue
            except ApiError as error:
                self.last_error = error
                if error.code == 410:
                    self._lose_position(error)
                    quiet = told == 0
                else:
                    quiet = self.revision == told
                    log.warning("%s: watch: %s", self.resource, error.message)
                if not quiet:
                    delay = BACKOFF_S[0]
                    if not isinstance(error, WatchLost):
                        continue
            finally:
                if watch is not None:
                    watch.close()
            await asyncio.sleep(delay * random.uniform(0.5, 1.5))
            delay = min(delay * 2, BACKOFF_S[1])

    def _lose_position(self, error: ApiError) -> None:
        log.info("%s: the watch position is lost, listing again: %s", self.resource, error.message)
        self.revision = 0

    def _watch_from(self, revision: int) -> Watch:
        return self._client.watch(
            self.resource,
            self._namespace,
            label_selector=self._labels,
            field_selector=self._fields,
            resource_version=str(revision),
            timeout_s=random.randint(*WATCH_TIMEOUT_S),
            shared=True,
        )

    async def _position(self) -> Watch:
        """Make the copy equal to the server's state at one revision, and give the watch that goes on from there."""
        if self._watch_list:
            watch = self._client.watch(
                self.resource,
                self._namespace,
                label_selector=self._labels,
                field_selector=self._fields,
                send_initial_events=True,
                timeout_s=random.randint(*WATCH_TIMEOUT_S),
                shared=True,
            )
            try:
                await self._take_initial_events(watch)
                return watch
            except ApiError as error:
                watch.close()
                if error.code in NOT_FOR_PAGES:
                    raise
                log.info("%s: the server gives no streaming list: %s", self.resource, error.message)
                if error.code in (400, 422):
                    self._watch_list = False
        revision = await self._take_pages()
        return self._watch_from(revision)

    async def _take_initial_events(self, watch: Watch) -> None:
        found: dict[str, Object] = {}
        while True:
            batch = await watch.batch()
            if not batch:
                raise WatchLost("the watch ended before the initial events did")
            for index, (kind, obj) in enumerate(batch):
                if kind == "BOOKMARK":
                    annotations = obj["metadata"].get("annotations") or {}
                    if annotations.get(INITIAL_EVENTS_END) == "true":
                        self._replace(found, _revision(obj))
                        await self._apply_all(batch[index + 1 :])
                        return
                elif kind == "DELETED":
                    found.pop(object_key(obj), None)
                else:
                    self._gather(found, obj)

    async def _take_pages(self) -> int:
        found: dict[str, Object] = {}
        revision = 0
        pages = self._client.pages(
            self.resource, self._namespace, label_selector=self._labels, field_selector=self._fields
        )
        async for page in pages:
            revision = _revision(page)
            kind = str(page.get("kind", "")).removesuffix("List")
            items: Objects = page.get("items") or []
            for item in items:
                # items of a typed list carry neither; a whole object has both first
                obj = item if "kind" in item else {"apiVersion": page["apiVersion"], "kind": kind, **item}
                self._gather(found, obj)
        self._replace(found, revision)
        return revision

    async def _follow(self, watch: Watch) -> None:
        while batch := await watch.batch():
            await self._apply_all(batch)

    async def _apply_all(self, batch: WatchEvents) -> None:
        for index, (kind, obj) in enumerate(batch, 1):
            revision = _revision(obj)
            if kind == "DELETED":
                self._deleted(obj, revision)
            elif kind != "BOOKMARK":
                self._put(obj, revision)
            self.revision = revision
            if index % EVENTS_PER_TURN == 0:
                await asyncio.sleep(0)

    def _deleted(self, obj: Object, revision: int) -> None:
        self._gone.discard(obj["metadata"]["uid"])
        key = object_key(obj)
        known = self._items.get(key)
        if known is not None and _revision(known) <= revision:
            self._drop(key, self._keep(obj, known))

    # -- the copy ----------------------------------------------------------------------------------------------------

    def _keep(self, obj: Object, known: Object | None) -> Object:
        if self._transform is None:
            return obj
        if known is not None and known["metadata"]["uid"] != obj["metadata"]["uid"]:
            known = None
        return self._transform(obj, known)

    def _gather(self, found: dict[str, Object], obj: Object) -> None:
        """Put an object into a new list."""
        key = object_key(obj)
        found[key] = self._keep(obj, self._items.get(key))

    def _put(self, obj: Object, revision: int, *, kept: bool = False) -> None:
        """`kept`: the object has been through the transform already."""
        key = object_key(obj)
        old = self._items.get(key)
        if self._gone and obj["metadata"]["uid"] in self._gone:
            return
        if old is not None and revision <= _revision(old):
            return
        if not kept:
            obj = self._keep(obj, old)
        if old is not None and old["metadata"]["uid"] != obj["metadata"]["uid"]:
            self._drop(key, old)  # deleted and made again while nobody looked
            old = None
        self._store(key, old, obj)
        if old is None:
            for added in self._audience(None, obj).add:
                _call(added, obj)
        else:
            for updated in self._audience(old, obj).update:
                _call(updated, old, obj)

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

    def _replace(self, found: dict[str, Object], revision: int) -> None:
        """Compare with a new list, tell what differs, and go on from its revision."""
        alive = {obj["metadata"]["uid"] for obj in found.values()} if self._gone else set()
        self._gone &= alive
        for key, known in list(self._items.items()):
            if key not in found and _revision(known) <= revision:
                self._drop(key, known)
        for obj in found.values():
            self._put(obj, _revision(obj), kept=True)
        self.revision = revision
        self.last_error = None
        self.synced.set()


def _are_indexed_alike(old: Object, new: Object) -> bool:
    """Whether no index can see a difference, as far as is known without asking each."""
    spec = old.get("spec")
    if spec is None or spec is not new.get("spec"):
        return False
    before, after = old["metadata"], new["metadata"]
    return all(before.get(key) == after.get(key) for key in _INDEXED_METADATA)


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


class InformerFactory:
    """One informer per resource for everybody in a process.

    `transforms` say, by resource, what is kept of each object; resources without one lose only managedFields. `topics`
    say, by resource, what changes are about.
    """

    def __init__(
        self,
        client: Client,
        *,
        transforms: Mapping[str, Transform] | None = None,
        topics: Mapping[str, Topics] | None = None,
    ) -> None:
        self.client = client
        self._transforms = dict(transforms or {})
        self._topics = dict(topics or {})
        self._informers: dict[tuple[str, str, str, str], Informer] = {}
        self._tasks: dict[tuple[str, str, str, str], asyncio.Task[None]] = {}
        self._started = False

    def informer(
        self,
        resource: str | Resource,
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        transform: Transform | None = None,
    ) -> Informer:
        """The shared informer; one that is asked for after `start` is started at once.

        `transform` is for a resource which has none of the factory's own, and counts for who asks first.
        """
        key = (str(resource), namespace, label_selector, field_selector)
        informer = self._informers.get(key)
        if informer is None:
            informer = self._informers[key] = Informer(
                self.client,
                resource,
                namespace=namespace,
                label_selector=label_selector,
                field_selector=field_selector,
                transform=self._transforms.get(str(resource), transform or drop_managed_fields),
                topics=self._topics.get(str(resource)),
            )
            if self._started:
                self._run(key)
        return informer

    async def forget(self, resource: str | Resource) -> None:
        """Stop the informers of a resource that is no longer served."""
        for key in [key for key in self._informers if key[0] == str(resource)]:
            del self._informers[key]
            task = self._tasks.pop(key, None)
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def start(self) -> None:
        self._started = True
        for key in self._informers:
            if key not in self._tasks:
                self._run(key)

    def _run(self, key: tuple[str, str, str, str]) -> None:
        self._tasks[key] = asyncio.get_running_loop().create_task(self._informers[key].run(), name=f"informer {key[0]}")

    async def wait_synced(self, timeout_s: float = 60.0) -> None:
        """Until all informers have their first copy; TimeoutError names those that have not, and why."""
        waiting = [asyncio.ensure_future(informer.synced.wait()) for informer in self._informers.values()]
        if not waiting:
            return
        _, pending = await asyncio.wait(waiting, timeout=timeout_s)
        for task in pending:
            task.cancel()
        if pending:
            late = [informer for informer in self._informers.values() if not informer.synced.is_set()]
            told = ", ".join(
                f"{informer.resource} ({informer.last_error.message if informer.last_error else 'no answer'})"
                for informer in late
            )
            raise TimeoutError(f"informers have not synced within {timeout_s:g} seconds: {told}")

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        self._started = False
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

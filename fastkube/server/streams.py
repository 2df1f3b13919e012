"""Watches: one hub for each resource, which encodes each event once and hands the same bytes to every watcher.

    commit → store.subscribe callback → Hub._on_commit
        → for each Group the event concerns: selectors on old and new → ADDED, MODIFIED or DELETED → encoded (once)
        → Group.flush: all of a commit joined → the same bytes written to each Watcher of the group

Watchers that cannot be told apart by what they receive share a Group: same namespace, selectors, view and framing.

Rules:
  1. A Watcher has a position: it has been sent every event of its selection up to that revision, and none above.
     Only when its position equals the hub's may it join a group; whoever is behind reads the store's log until then.
  2. Nobody waits for a slow client. When more than `_BACKLOG_MAX_BYTES` wait in its socket it leaves the group with the
     position reached so far. What the group is sent from then on is kept for it, as far as there is room (kept.py);
     whoever is further behind comes back through the log, and if compaction passes it meanwhile it is ended with 410.
  3. Order is by revision, in the log and in a group alike. A group is flushed before anybody joins it and before any
     bookmark, so what is pending in a group is always above the position of each of its members.
  4. A watch that begins without a resourceVersion first gets the state as ADDED events, read at one revision.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, NamedTuple, cast

from fastkube import _codec, errors
from fastkube.errors import ApiError
from fastkube.registry.answers import Stored
from fastkube.server.answer import LAST_CHUNK, chunk
from fastkube.server.forms import ADDED, DELETED, MODIFIED, View
from fastkube.server.kept import Block, Kept
from fastkube.server.media import TABLE
from fastkube.store import PUT, Compacted

if TYPE_CHECKING:
    from fastkube.api.catalog import Catalog, ResourceType
    from fastkube.api.selectors import FieldSelector, LabelSelector
    from fastkube.server.connection import Connection
    from fastkube.store import Event, Item, Store, Subscription
    from fastkube.store import Watcher as StoreWatcher

log = logging.getLogger(__name__)

_BACKLOG_MAX_BYTES = 1024 * 1024
"""Bytes that may wait in a client's socket before it is taken out of its group."""
_WRITE_BYTES = 64 * 1024
"""Initial events are written in pieces of about this size."""
_BOOKMARK_INTERVAL_S = 60.0
_BOOKMARK_BEFORE_END_S = 2.0
_FLUSH_PAUSE = 4.0
_FLUSH_PAUSE_MAX_S = 0.02
"""Under load a group is flushed again after so many times what the last flush took: fewer, larger writes, and most of
the time is left for others. The first after a pause does not wait."""


class Framing(NamedTuple):
    """How bytes are packed for the transport: `event` around each event, `batch` around what is written at once."""

    name: str
    event: Callable[[bytes], bytes] | None
    batch: Callable[[bytes], bytes] | None
    end: bytes


CHUNKED = Framing("chunked", None, chunk, LAST_CHUNK)
RAW = Framing("raw", None, None, b"")
"""For HTTP/1.0 clients: the end of the connection is the end of the stream."""


class Selection(NamedTuple):
    """Which objects of a resource: all of them by default."""

    namespace: str = ""
    labels: LabelSelector | None = None
    fields: FieldSelector | None = None

    def matches(self, value: bytes) -> bool:
        if self.labels is not None and not self.labels.matches_bytes(value):
            return False
        return self.fields is None or self.fields.matches_bytes(value)

    def transition(self, event: Event) -> tuple[str, bytes] | None:
        """What the event is to a watcher of the selection: its type and the object to show; None: nothing."""
        prev = event.prev
        if self.labels is None and self.fields is None:
            if event.type == PUT:
                return (ADDED if prev is None else MODIFIED), event.value
            return (DELETED, prev.value) if prev is not None else None
        was = prev is not None and self.matches(prev.value)
        if event.type == PUT and self.matches(event.value):
            return (MODIFIED if was else ADDED), event.value
        return (DELETED, prev.value) if was and prev is not None else None


class GroupKey(NamedTuple):
    """What makes two watchers receive the same bytes."""

    namespace: str
    labels: str
    fields: str
    view: View
    framing: str
    columns: bool


class Group:
    """Watchers that receive the same bytes. `columns`: its members have not had a table's column definitions yet."""

    __slots__ = (
        "columns", "due", "framing", "handle", "hub", "kept", "key", "late", "members", "pending", "position",
        "reached", "selection", "view",
    )  # fmt: skip

    def __init__(self, hub: Hub, key: GroupKey, selection: Selection, framing: Framing) -> None:
        self.hub = hub
        self.key = key
        self.selection = selection
        self.view = key.view
        self.framing = framing
        self.columns = key.columns
        self.members: set[Watcher] = set()
        self.pending: list[bytes] = []
        self.position = hub.position
        """Every member has been sent everything up to here: the revision before the first pending event."""
        self.reached = hub.position
        """The revision of the last pending event."""
        self.late: set[Watcher] = set()
        """Watchers that left because their sockets are full, and come back to what is kept for them."""
        self.kept = Kept()
        self.due = 0.0
        """When it may be flushed again."""
        self.handle: asyncio.TimerHandle | None = None

    def schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        """Flush now, or soon if the last time was a moment ago."""
        if self.handle is not None:
            return
        if loop.time() >= self.due:
            self.flush()
        else:
            self.handle = loop.call_at(self.due, self.flush)

    def flush(self) -> None:
        if self.handle is not None:
            self.handle.cancel()
            self.handle = None
        if self.pending:
            data = b"".join(self.pending)
            self.pending.clear()
            if self.framing.batch is not None:
                data = self.framing.batch(data)
            began = time.perf_counter()
            for watcher in tuple(self.members):
                watcher.send_shared(data)
            if self.late:
                self.kept.add(Block(self.reached, data))
            took_s = time.perf_counter() - began
            self.due = self.hub.loop.time() + min(_FLUSH_PAUSE_MAX_S, _FLUSH_PAUSE * took_s)
            if self.columns:
                self.move_on()

    def add(self, frame: bytes, revision: int) -> None:
        if not self.pending:
            self.position = revision - 1
        self.pending.append(frame if self.framing.event is None else self.framing.event(frame))
        self.reached = revision

    def is_back(self, watcher: Watcher) -> None:
        """The watcher needs nothing of what is kept any more."""
        self.late.discard(watcher)
        if not self.late:
            self.kept.forget(self.position)
            self.hub.drop_if_empty(self)

    def move_on(self) -> None:
        """After the first event of a table watch its watchers belong to the group without column definitions."""
        for watcher in tuple(self.members):
            watcher.columns_sent = True
            self.members.discard(watcher)
            self.hub.enter(watcher)
        self.hub.drop_if_empty(self)


class Hub:
    """All watches of one resource."""

    def __init__(self, store: Store, rtype: ResourceType) -> None:
        self.store = store
        self.rtype = rtype
        self.start = rtype.key_prefix
        self.end = rtype.key_prefix[:-1] + b"0"
        self.loop = asyncio.get_running_loop()
        self.position = store.revision
        """The last revision whose events were handed to the groups."""
        self.watchers: set[Watcher] = set()
        self.events_seen = 0
        self._groups: dict[GroupKey, Group] = {}
        self._everywhere: list[Group] = []
        self._by_namespace: dict[str, list[Group]] = {}
        self._by_field: dict[str, dict[str, list[Group]]] = {path: {} for path in _INDEXED_FIELDS}
        self._subscription: Subscription = self._subscribe()

    def _subscribe(self) -> Subscription:
        return self.store.subscribe(self.start, self.end, self._on_commit, lost=self._on_lost, always=True)

    def _on_lost(self, gone: Compacted) -> None:
        """A snapshot has taken the place of revisions that the log does not tell: watchers find out from there."""
        for group in tuple(self._groups.values()):
            group.flush()
            for watcher in tuple(group.members):
                watcher.fall_behind(self.position)
        self.position = self.store.revision
        for group in self._groups.values():
            group.kept.forget(self.position)
        self._subscription = self._subscribe()

    def enter(self, watcher: Watcher) -> None:
        """Puts a watcher whose position is the hub's into its group."""
        selection, view = watcher.selection, watcher.view
        labels = str(selection.labels) if selection.labels is not None else ""
        fields = str(selection.fields) if selection.fields is not None else ""
        columns = view.form.kind == TABLE and not watcher.columns_sent
        key = GroupKey(selection.namespace, labels, fields, view, watcher.framing.name, columns)
        group = self._groups.get(key)
        if group is not None and group.pending:
            group.flush()
            group = self._groups.get(key)  # a flush may have moved all members on, and so ended the group
        if group is None:
            group = self._groups[key] = Group(self, key, selection, watcher.framing)
            place, value = self._place(group)
            place.setdefault(value, []).append(group)
        group.members.add(watcher)
        watcher.group = group

    def leave(self, watcher: Watcher) -> None:
        group = watcher.group
        if group is not None:
            watcher.group = None
            group.members.discard(watcher)
            self.drop_if_empty(group)

    def drop_if_empty(self, group: Group) -> None:
        if group.members or group.late or self._groups.get(group.key) is not group:
            return
        if group.handle is not None:
            group.handle.cancel()
            group.handle = None
        del self._groups[group.key]
        place, value = self._place(group)
        place[value].remove(group)
        if not place[value]:
            del place[value]

    def _place(self, group: Group) -> tuple[dict[str, list[Group]], str]:
        """Where a group is looked up: by a field that must have one value, or by namespace ("": any)."""
        fields = group.selection.fields
        if fields is not None:
            for path in _INDEXED_FIELDS:
                value = fields.exact(path)
                if value is not None:
                    return self._by_field[path], value
        return self._by_namespace, group.selection.namespace

    def remove(self, watcher: Watcher) -> None:
        self.leave(watcher)
        watcher.come_back()
        self.watchers.discard(watcher)

    def close(self) -> None:
        self._subscription.cancel()

    def oldest(self) -> int:
        """The first revision that a watch can start from. A custom resource has no past before its definition."""
        if not self.rtype.custom:
            return 0
        name = f"{self.rtype.resource}.{self.rtype.group}"
        item = self.store.get(f"/registry/apiextensions.k8s.io/customresourcedefinitions/{name}".encode())
        return item.create_revision if item is not None else 0

    # ---------------------------------------------------------------- events

    def _on_commit(self, events: list[Event], revision: int) -> None:
        if events:
            self.events_seen += len(events)
            if self._groups:
                dirty: set[Group] = set()
                for event in events:
                    self._tell(event, dirty)
                self.position = revision
                for group in dirty:
                    group.schedule(self.loop)
        self.position = revision

    def _tell(self, event: Event, dirty: set[Group]) -> None:
        encoded: Encoded = {}
        for group in self._concerned(event):
            columns = group.columns and not group.pending
            try:
                frame = encode_event(event, group.selection, group.view, columns, encoded)
            except Exception:
                # Its watchers must not miss the event: they start anew, and are told there what is wrong.
                log.exception("an event of %s cannot be encoded", self.rtype.resource)
                for watcher in (*group.members, *group.late):
                    watcher.cut()
                continue
            if frame is not None:
                group.add(frame, event.revision)
                dirty.add(group)

    def _concerned(self, event: Event) -> list[Group]:
        """The groups that may have to be told; their selectors decide."""
        found = list(self._by_namespace.get("", ()))
        namespace = namespace_of(event.key, len(self.start)) if self.rtype.namespaced else ""
        if namespace:
            found += self._by_namespace.get(namespace, ())
        for path, by_value in self._by_field.items():
            if by_value:
                for value in _field_values(event, path):
                    groups = by_value.get(value, ())
                    found += [group for group in groups if group.selection.namespace in ("", namespace)]
        return found


Encoded = dict[tuple[View, bool, str], bytes]
"""The frames made of one event so far, by view, whether with column definitions, and type."""


def encode_event(event: Event, selection: Selection, view: View, columns: bool, encoded: Encoded) -> bytes | None:
    """The frame that tells a selection's watchers of an event; None: it is nothing to them."""
    told = selection.transition(event)
    if told is None:
        return None
    event_type, value = told
    key = (view, columns, event_type)
    frame = encoded.get(key)
    if frame is None:
        frame = encoded[key] = view.frame(event_type, view.event_object(value, event.revision, columns))
    return frame


_INDEXED_FIELDS = ("metadata.name", "spec.nodeName")
"""Fields by which many single watchers are told apart: each kubelet its Pods, each client its one object."""


def namespace_of(key: bytes, start: int) -> str:
    return key[start : key.index(b"/", start)].decode()


def _field_values(event: Event, path: str) -> set[str]:
    """The values of an indexed field before and after."""
    if path == "metadata.name":
        return {event.key.rpartition(b"/")[2].decode()}
    keys = tuple(part.encode() for part in path.split("."))
    values = set()
    if event.type == PUT:
        values.add(_codec.extract(event.value, keys) or "")
    if event.prev is not None:
        values.add(_codec.extract(event.prev.value, keys) or "")
    return values


class Watcher:
    """One client's watch. `run` is its life; everything else is called on it from the hub, timers and the connection.

    It is in one of three states: behind (`group` None: reading the store's log), live (in a group), ended.
    """

    __slots__ = (
        "_bookmark_at", "_ended", "_ends_at", "_feed", "_timer", "_wake", "bookmarks", "clean", "columns_sent",
        "connection", "framing", "group", "hub", "late_in", "position", "selection", "transport", "view",
    )  # fmt: skip

    def __init__(
        self, hub: Hub, selection: Selection, view: View, framing: Framing, connection: Connection, *, bookmarks: bool,
        lifetime_s: float,
    ) -> None:  # fmt: skip
        self.hub = hub
        self.selection = selection
        self.view = view
        self.framing = framing
        transport = connection.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        self.connection = connection
        self.transport = transport
        self.bookmarks = bookmarks
        self.group: Group | None = None
        self.late_in: Group | None = None
        """The group that keeps what this one has not been sent."""
        self.position = 0
        self.columns_sent = False
        self.clean = True
        """Whether the stream ends as HTTP has it: False once the connection is lost or was cut."""
        self._feed: StoreWatcher | None = None
        self._ended = False
        self._wake = asyncio.Event()
        now = hub.loop.time()
        self._ends_at = now + lifetime_s
        self._bookmark_at = self._next_bookmark(now)
        self._timer = hub.loop.call_at(min(self._ends_at, self._bookmark_at), self._on_time)
        hub.watchers.add(self)

    # ---------------------------------------------------------------- life

    async def run(self, position: int, *, initial: bool, announce: bool) -> None:
        """Send events until the watch ends.

        Everything after revision `position`; or, with `initial`, first the present state as ADDED events, and with
        `announce` a bookmark that says where they end.
        """
        try:
            self.position = position
            if initial:
                await self._send_state(announce)
            while not self._ended:
                if self.group is None:
                    await self._catch_up()
                else:
                    await self._wake.wait()
                    self._wake.clear()
        except Compacted as gone:
            self._tell_expired(gone)
        except ApiError as problem:  # a webhook that converts could not be asked
            self._write([self.view.error(problem.to_status())])
        except ConnectionError:
            self.cut()
        finally:
            self._finish()

    async def refuse(self, gone: Compacted, position: int) -> None:
        """Tells that the version asked for is too old, instead of `run`."""
        self.position = position
        try:
            self._tell_expired(gone)
        finally:
            self._finish()

    def _tell_expired(self, gone: Compacted) -> None:
        told = f"too old resource version: {self.position} ({gone.revision})"
        self._write([self.view.error(errors.expired(told).to_status())])

    def _finish(self) -> None:
        self._ended = True
        self._timer.cancel()
        self.hub.remove(self)
        if self.clean and self.framing.end:
            self.transport.write(self.framing.end)

    def end(self) -> None:
        """Ends the watch as if its time were over: the client starts a new one where it is."""
        if self._ended:
            return
        if self.group is not None:
            self.group.flush()
        self._stop()

    def disconnected(self) -> None:
        """The connection is gone."""
        self.clean = False
        self.hub.leave(self)
        self._stop()

    def fall_behind(self, position: int) -> None:
        """Everything up to `position` was sent; go on from the log."""
        self.position = position
        self.hub.leave(self)
        self._wake.set()

    def cut(self) -> None:
        """Ends the watch without a proper end of the stream."""
        if self.clean:
            self.clean = False
            self.transport.abort()
        self._stop()

    def _stop(self) -> None:
        self._ended = True
        self._wake.set()
        if self._feed is not None:
            self._feed.cancel()

    # ---------------------------------------------------------------- sending

    @property
    def _api_version(self) -> str:
        return self.view.rtype.api_version(self.view.version)

    def send_shared(self, data: bytes) -> None:
        """What the group has for all of its members; one whose socket is full leaves it instead."""
        if self.transport.get_write_buffer_size() > _BACKLOG_MAX_BYTES:
            assert self.group is not None
            self.position = self.group.position
            if not self.group.columns:
                self.late_in = self.group
                self.group.late.add(self)
            self.hub.leave(self)
            self._wake.set()
        else:
            self.transport.write(data)

    def come_back(self) -> None:
        """Nothing needs to be kept for this one."""
        group, self.late_in = self.late_in, None
        if group is not None:
            group.is_back(self)

    async def _send_kept(self, group: Group) -> None:
        """What the group was sent meanwhile; the position is the hub's then, unless too much of it is gone."""
        while not self._ended and self.position >= group.kept.lacks:
            block = group.kept.after(self.position)
            if block is None:
                group.flush()  # what is pending is for this one, too
                block = group.kept.after(self.position)
            if block is None:
                self.position = self.hub.position
                return
            if self.transport.is_closing():
                raise ConnectionResetError("the client has gone")
            self.transport.write(block.data)
            self.position = block.end
            await self.connection.drain()

    def _write(self, frames: list[bytes]) -> None:
        if not self.clean or self.transport.is_closing():
            raise ConnectionResetError("the client has gone")
        framing = self.framing
        if framing.event is not None:
            frames = [framing.event(frame) for frame in frames]
        data = b"".join(frames)
        self.transport.write(data if framing.batch is None else framing.batch(data))

    async def _send_state(self, announce: bool) -> None:
        """The present state as ADDED events, all read at one revision."""
        store, selection, view = self.hub.store, self.selection, self.view
        self.position = revision = store.revision
        start, end = self.hub.start, self.hub.end
        if selection.namespace:
            start += selection.namespace.encode() + b"/"
            end = start[:-1] + b"0"
        frames: list[bytes] = []
        size = 0
        scan = cast("Generator[Item, None, None]", store.scan(start, end, revision=revision))
        with contextlib.closing(scan) as items:
            for item in items:
                if not selection.matches(item.value):
                    continue
                if view.asks:
                    (asked,) = await view.rtype.extra["converter"].shown([Stored(item.value, 0)], self._api_version)
                    item = item._replace(value=asked.value)
                shown = view.event_object(item.value, item.mod_revision, not self.columns_sent)
                self.columns_sent = True
                frames.append(view.frame(ADDED, shown))
                size += len(shown)
                if size >= _WRITE_BYTES:
                    self._write(frames)
                    frames, size = [], 0
                    await self.connection.drain()
                    if self._ended:
                        return
        if announce:
            frames.append(view.bookmark(revision, True, not self.columns_sent))
            self.columns_sent = True
        if frames:
            self._write(frames)

    async def _catch_up(self) -> None:
        """Sends what is after the position, until the hub is reached and the group can be joined: what a group has
        kept, or else from the store's log."""
        hub = self.hub
        if self.transport.get_write_buffer_size() > _WRITE_BYTES:
            await self.connection.drain()
        if self.late_in is not None:
            await self._send_kept(self.late_in)
            self.come_back()
        if self.position == hub.position and not self.view.asks:
            hub.enter(self)
            return
        # A position ahead of the hub is a version the client says it has seen: nothing up to there is news.
        self._feed = feed = hub.store.watch(hub.start, hub.end, self.position + 1)
        try:
            while not self._ended:
                if feed.revision == hub.position and not self.view.asks:
                    self.position = hub.position
                    hub.enter(self)
                    return
                events = await anext(feed)
                if self.view.asks:
                    events = await self._asked(events)
                self._send_events(events)
                await self.connection.drain()
        except StopAsyncIteration:
            self._ended = True  # cancelled by `_stop`, or the store was closed
        finally:
            feed.cancel()
            self._feed = None

    async def _asked(self, events: list[Event]) -> list[Event]:
        """The events with their objects as a webhook shows them in the version of the watch."""
        values = [event.value or (event.prev.value if event.prev is not None else b"") for event in events]
        items = [Stored(value, 0) for value in values if value]
        shown = iter(await self.view.rtype.extra["converter"].shown(items, self._api_version))
        made = []
        for event in events:
            if event.value:
                event = event._replace(value=next(shown).value)
            elif event.prev is not None:
                event = event._replace(prev=event.prev._replace(value=next(shown).value))
            made.append(event)
        return made

    def _send_events(self, events: list[Event]) -> None:
        frames = []
        namespace = self.selection.namespace
        for event in events:
            if namespace and namespace_of(event.key, len(self.hub.start)) != namespace:
                continue
            frame = encode_event(event, self.selection, self.view, not self.columns_sent, {})
            if frame is not None:
                frames.append(frame)
                self.columns_sent = True
        if frames:
            self._write(frames)
        self.position = events[-1].revision

    # ---------------------------------------------------------------- time

    def _next_bookmark(self, now: float) -> float:
        """About a minute from now, or shortly before the end if that is sooner."""
        if not self.bookmarks:
            return math.inf
        due = now + _BOOKMARK_INTERVAL_S * random.uniform(0.9, 1.1)
        before_end = self._ends_at - _BOOKMARK_BEFORE_END_S
        return min(due, before_end) if before_end > now else due

    def _on_time(self) -> None:
        now = self.hub.loop.time()
        if now >= self._ends_at:
            self.end()
            return
        if now >= self._bookmark_at:
            if self.group is not None:
                self.group.flush()
            live = self.group is not None or self.view.asks
            if live and not self.transport.is_closing():  # the flush may have found the socket full
                position = self.position if self.view.asks else self.hub.position
                self._write([self.view.bookmark(position, False, not self.columns_sent)])
            self._bookmark_at = self._next_bookmark(now)
        self._timer = self.hub.loop.call_at(min(self._ends_at, self._bookmark_at), self._on_time)


class Streams:
    """The hubs of all resources, made when they are first watched."""

    def __init__(self, store: Store, catalog: Catalog) -> None:
        self._store = store
        self._catalog = catalog
        self._hubs: dict[bytes, Hub] = {}
        self._generation = catalog.generation

    def hub(self, rtype: ResourceType) -> Hub:
        self.follow_catalog()
        hub = self._hubs.get(rtype.key_prefix)
        if hub is None:
            hub = self._hubs[rtype.key_prefix] = Hub(self._store, rtype)
        return hub

    def hubs(self) -> list[Hub]:
        return list(self._hubs.values())

    def follow_catalog(self) -> None:
        """Ends the watches of custom resources that were removed or changed; called now and then."""
        if self._generation == self._catalog.generation:
            return
        self._generation = self._catalog.generation
        for prefix, hub in list(self._hubs.items()):
            rtype = hub.rtype
            if rtype.custom and self._catalog.get(rtype.group, rtype.resource) is not rtype:
                del self._hubs[prefix]
                for watcher in tuple(hub.watchers):
                    watcher.end()
                hub.close()

    def end_all(self) -> None:
        for hub in self._hubs.values():
            for watcher in tuple(hub.watchers):
                watcher.end()

    def close(self) -> None:
        for hub in self._hubs.values():
            hub.close()
        self._hubs.clear()

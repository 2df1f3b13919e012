"""Feeds: one watch for all informers of a process that follow the same resource, so that each event is decoded once.

The rules a feed obeys:
  1. Who joins is told the state at one revision, then every event after it, in order and once.
  2. Who joins while there is no position gets the list that all others get. Who joins later gets a list of its own, and
     the feed's events wait for it; it is brought up to date from these. Too many of them, and it lists again.
  3. A watch that breaks is taken up where it was; a lost position (410) is made up by one new list for all.
  4. A member that fails is put out and told why. The others notice nothing.
  5. Members may be different users. The feed asks as one of them; when that one is refused, as the next.
What is told is shared by all members: none may change it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from fastkube.client.client import Client
from fastkube.client.codec import WatchEvent
from fastkube.client.resource import Resource, object_key
from fastkube.client.watch import INITIAL_EVENTS_END, Watch, WatchLost
from fastkube.errors import ApiError

log = logging.getLogger(__name__)

Object = dict[str, Any]
WatchEvents = list[WatchEvent]
Transform = Callable[[Object, Object | None], Object]
"""Of what came and what has been kept of the same object so far."""
Memo = dict[Transform, dict[int, Object]]
"""What transforms have made of objects, by the objects' ids: members with the same transform keep the same."""

NOT_FOR_PAGES = (401, 403, 404, 410, 429, 503, 504)
"""Refusals of a streaming list that one of pages would meet as well; after any other pages are asked for, as client-go
does: a server whose etcd cannot report progress begins a streaming list and then says 500."""
WATCH_TIMEOUT_S = (300, 600)
"""A watch is asked to last a random time in this range, so that those of many clients do not end together."""
BACKOFF_S = (0.8, 30.0)
EVENTS_PER_TURN = 256
"""After so many events other tasks get a turn."""
WAITING_MAX = 65536
"""So many events wait for a member that lists."""


class Member(Protocol):
    """Who follows a feed: an informer. What raises puts the member out."""

    client: Client
    last_error: ApiError | None

    def gather(self, found: dict[str, Object], obj: Object, memo: Memo) -> None:
        """Put an object into a new list."""

    def replace(self, found: dict[str, Object], revision: int) -> None:
        """The list is whole: this is the state at the revision."""

    def take(self, events: Sequence[WatchEvent], memo: Memo) -> None:
        """What has happened since."""


class _Seat:
    """A member's place in a feed. `waiting`: the events since it began a list of its own."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting: WatchEvents | None = None
        self.overflown = False
        self.listing: asyncio.Task[None] | None = None

    def call(self, function: Callable[..., None], *args: Any) -> None:
        if self.ended.done():
            return
        try:
            function(*args)
        except Exception as error:
            self.ended.set_exception(error)

    def tell(self, events: WatchEvents, memo: Memo) -> None:
        if self.waiting is None:
            self.call(self.member.take, events, memo)
        elif len(self.waiting) < WAITING_MAX:
            self.waiting += events
        else:
            self.overflown = True

    def stop_listing(self) -> None:
        self.waiting = None
        if self.listing is not None:
            self.listing.cancel()
            self.listing = None


class _Lists:
    """A list under way, gathered by several members."""

    def __init__(self, seats: Sequence[_Seat]) -> None:
        self._found: list[tuple[_Seat, dict[str, Object]]] = [(seat, {}) for seat in seats]

    def add(self, objects: Sequence[Object]) -> None:
        memo: Memo = {}
        for seat, found in self._found:
            for obj in objects:
                seat.call(seat.member.gather, found, obj, memo)

    def remove(self, key: str) -> None:
        for _, found in self._found:
            found.pop(key, None)

    def end(self, revision: int) -> None:
        for seat, found in self._found:
            seat.call(seat.member.replace, found, revision)


class Feed:
    """What happens to one resource, in one namespace and under selectors where they are given."""

    def __init__(
        self, resource: str | Resource, namespace: str = "", label_selector: str = "", field_selector: str = ""
    ) -> None:
        self._resource = resource
        self._namespace = namespace
        self._labels = label_selector
        self._fields = field_selector
        self._revision = 0
        self._seats: list[_Seat] = []
        self._running: asyncio.Task[None] | None = None
        self._watch_list = True

    async def follow(self, member: Member) -> None:
        """Keep a member up to date until cancelled. Raises what the member has failed with."""
        seat = _Seat(member)
        self._seats.append(seat)
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._run(), name=f"feed {self._resource}")
        elif self._revision:
            self._begin_late(seat)
        try:
            await seat.ended
        finally:
            await self._leave(seat)

    async def _leave(self, seat: _Seat) -> None:
        self._seats.remove(seat)
        seat.stop_listing()
        if not self._seats and self._running is not None:
            running, self._running = self._running, None
            self._revision = 0
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    # -- following the server ----------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._follow_forever()
        except Exception as error:
            for seat in self._seats:
                if not seat.ended.done():
                    seat.ended.set_exception(error)

    async def _follow_forever(self) -> None:
        """Failures are logged and tried again with growing, jittered pauses."""
        delay = BACKOFF_S[0]
        watch: Watch | None = None
        while True:
            told = self._revision
            try:
                watch = self._watch(self._revision) if self._revision else await self._position()
                await self._follow(watch)
                quiet = self._revision == told
                if not quiet:
                    delay = BACKOFF_S[0]
                    continue
            except ApiError as error:
                if error.code == 410:
                    log.info("%s: the watch position is lost, listing again: %s", self._resource, error.message)
                    self._revision = 0
                    quiet = told == 0
                else:
                    self._note_failure(error)
                    quiet = self._revision == told
                if not quiet:
                    delay = BACKOFF_S[0]
                    if not isinstance(error, WatchLost):
                        continue
            finally:
                if watch is not None:
                    watch.close()
            await asyncio.sleep(delay * random.uniform(0.5, 1.5))
            delay = min(delay * 2, BACKOFF_S[1])

    def _note_failure(self, error: ApiError) -> None:
        log.warning("%s: watch: %s", self._resource, error.message)
        for seat in self._seats:
            seat.member.last_error = error
        if error.code in (401, 403):
            self._seats.append(self._seats.pop(0))

    @property
    def _client(self) -> Client:
        return self._seats[0].member.client

    def _watch(self, revision: int = 0) -> Watch:
        """From a revision on; without one, of the present objects first."""
        return self._client.watch(
            self._resource,
            self._namespace,
            label_selector=self._labels,
            field_selector=self._fields,
            resource_version=str(revision or ""),
            send_initial_events=not revision,
            timeout_s=random.randint(*WATCH_TIMEOUT_S),
            shared=True,
        )

    async def _follow(self, watch: Watch) -> None:
        while events := await watch.batch():
            await self._tell(events)

    async def _tell(self, events: WatchEvents) -> None:
        for start in range(0, len(events), EVENTS_PER_TURN):
            part = events[start : start + EVENTS_PER_TURN]
            memo: Memo = {}
            for seat in tuple(self._seats):
                seat.tell(part, memo)
                if len(part) == EVENTS_PER_TURN:
                    await asyncio.sleep(0)
            self._revision = _revision(part[-1].object)

    # -- lists -------------------------------------------------------------------------------------------------------

    async def _position(self) -> Watch:
        """Tell all members the state at one revision, and give the watch that goes on from there."""
        seats = tuple(self._seats)
        for seat in seats:
            seat.stop_listing()
        watch, self._revision, events = await self._list(seats)
        for seat in self._seats:
            if seat not in seats:
                self._begin_late(seat)
        await self._tell(events)
        return watch

    def _begin_late(self, seat: _Seat) -> None:
        seat.waiting = []
        seat.listing = asyncio.get_running_loop().create_task(self._catch_up(seat), name=f"list {self._resource}")

    async def _catch_up(self, seat: _Seat) -> None:
        """Bring a member that came late to where the others are."""
        delay = BACKOFF_S[0]
        while True:
            seat.waiting, seat.overflown = [], False
            try:
                watch, _, _ = await self._list((seat,))
                watch.close()
                if not seat.overflown:
                    break
                log.warning("%s: too much happens while it is listed, listing again", self._resource)
            except ApiError as error:
                self._note_failure(error)
            await asyncio.sleep(delay * random.uniform(0.5, 1.5))
            delay = min(delay * 2, BACKOFF_S[1])
        while waiting := seat.waiting:
            seat.waiting = waiting[EVENTS_PER_TURN:]
            seat.call(seat.member.take, waiting[:EVENTS_PER_TURN], {})
            await asyncio.sleep(0)
        seat.waiting = seat.listing = None

    async def _list(self, seats: Sequence[_Seat]) -> tuple[Watch, int, WatchEvents]:
        """Tell some members the state at a revision. The watch goes on from there, and has told the events already."""
        if self._watch_list:
            watch = self._watch()
            try:
                return watch, *await self._take_initial_events(watch, _Lists(seats))
            except ApiError as error:
                watch.close()
                if error.code in NOT_FOR_PAGES:
                    raise
                log.info("%s: the server gives no streaming list: %s", self._resource, error.message)
                if error.code in (400, 422):
                    self._watch_list = False
            except BaseException:
                watch.close()
                raise
        revision = await self._take_pages(_Lists(seats))
        return self._watch(revision), revision, []

    async def _take_initial_events(self, watch: Watch, lists: _Lists) -> tuple[int, WatchEvents]:
        while True:
            batch = await watch.batch()
            if not batch:
                raise WatchLost("the watch ended before the initial events did")
            objects: list[Object] = []
            for index, (kind, obj) in enumerate(batch):
                if kind == "BOOKMARK":
                    annotations = obj["metadata"].get("annotations") or {}
                    if annotations.get(INITIAL_EVENTS_END) == "true":
                        lists.add(objects)
                        lists.end(_revision(obj))
                        return _revision(obj), batch[index + 1 :]
                elif kind == "DELETED":
                    lists.add(objects)
                    objects = []
                    lists.remove(object_key(obj))
                else:
                    objects.append(obj)
            lists.add(objects)

    async def _take_pages(self, lists: _Lists) -> int:
        revision = 0
        pages = self._client.pages(
            self._resource, self._namespace, label_selector=self._labels, field_selector=self._fields
        )
        async for page in pages:
            revision = _revision(page)
            kind = str(page.get("kind", "")).removesuffix("List")
            items: list[Object] = page.get("items") or []
            # items of a typed list carry neither kind nor version; a whole object has both first
            lists.add(
                [item if "kind" in item else {"apiVersion": page["apiVersion"], "kind": kind, **item} for item in items]
            )
        lists.end(revision)
        return revision


class Feeds:
    """The feeds of a process, one for each resource and namespace: they have no selectors."""

    def __init__(self) -> None:
        self._feeds: dict[tuple[str, str], Feed] = {}

    def feed(self, resource: str | Resource, namespace: str = "") -> Feed:
        key = (str(resource), namespace)
        found = self._feeds.get(key)
        if found is None:
            found = self._feeds[key] = Feed(resource, namespace)
        return found


def _revision(obj: Object) -> int:
    return int(obj["metadata"]["resourceVersion"])

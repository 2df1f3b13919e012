"""Watches: the revision log, live.

After each commit the store hands its events to the Hub once (`dispatch`), and the hub to whoever asked for their keys:
 - a Subscription is a function called there and then, on the loop: for fan-out hubs above the store;
 - a Watcher is an iterator with a buffer of its own, for everything that reads at its own pace.

Nobody waits for a watcher. One whose buffer is full stops taking events and, when its reader comes back, catches up
from the log in LMDB; it is live again when it has reached the hub. Only a compaction that passes it ends it, and says
so (Compacted). Either way it sees every revision of its range once, in order, and whole.

`hub.revision` is the last revision dispatched. A view may be ahead of it, never behind, so a watcher that has caught up
from a view drops what `dispatch` brings it a second time: everything below its own `_next`.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence

from fastkube.store.errors import Compacted
from fastkube.store.mvcc import Reading
from fastkube.store.ops import TO_THE_END, in_range, single_key_end
from fastkube.store.records import Event

DEFAULT_BUFFER = 4096

_CHUNK_REVISIONS = 512  # of catching up between two turns of the loop: about 2 ms

Callback = Callable[[list[Event], int], None]
Lost = Callable[[Compacted], None]


class _Channel:
    """Everyone who asked for the same range."""

    __slots__ = ("end", "start", "subscriptions", "watchers")

    def __init__(self, start: bytes, end: bytes) -> None:
        self.start = start
        self.end = end
        self.subscriptions: set[Subscription] = set()
        self.watchers: set[Watcher] = set()


class Subscription:
    """A callback on a range; the hub calls it after every commit that the range saw.

    With `always` it is called after every commit, with [] when the range saw nothing.
    """

    __slots__ = ("_channel", "_hub", "always", "callback", "lost")

    def __init__(self, hub: Hub, channel: _Channel, callback: Callback, lost: Lost | None, always: bool) -> None:
        self._hub = hub
        self._channel = channel
        self.callback = callback
        self.lost = lost
        self.always = always
        channel.subscriptions.add(self)

    def cancel(self) -> None:
        self._channel.subscriptions.discard(self)
        self._hub.leave(self._channel)


class Watcher:
    """Batches of events, each of whole revisions. Iterate it with `async for`; `cancel` ends the iteration."""

    def __init__(self, hub: Hub, channel: _Channel, first: int, buffer: int) -> None:
        self._hub = hub
        self._channel = channel
        self._next = first  # every event of a revision below it is in the buffer or was taken
        self._buffer: list[Event] = []
        self._limit = buffer
        self._lagging = first <= hub.revision
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        channel.watchers.add(self)

    @property
    def revision(self) -> int:
        """The watcher has seen everything up to here."""
        if self._buffer:
            return self._buffer[0].revision - 1
        if self._lagging:
            return self._next - 1
        return max(self._next - 1, self._hub.revision)

    def cancel(self) -> None:
        """End the watch; a task that waits on it gets the end of the iteration."""
        if not self._ended:
            self._ended = True
            self._channel.watchers.discard(self)
            self._hub.leave(self._channel)
            self._wake()

    def __aiter__(self) -> Watcher:
        return self

    async def __anext__(self) -> list[Event]:
        while not self._ended:
            if self._buffer:
                batch, self._buffer = self._buffer, []
                return batch
            if not self._lagging:
                await self._delivery()
            elif batch := self._catch_up():
                return batch
            else:
                await asyncio.sleep(0)
        raise StopAsyncIteration

    def deliver(self, events: list[Event]) -> None:
        """What one dispatch has for this watcher (hub only)."""
        if not self._lagging:
            if events[0].revision < self._next:
                events = [event for event in events if event.revision >= self._next]
                if not events:
                    return
            if len(self._buffer) + len(events) > self._limit:
                self._lagging = True
                self._next = events[0].revision
            else:
                self._buffer += events
                self._next = events[-1].revision + 1
        self._wake()

    def fall_behind(self, reached: int) -> None:
        """Go on from the log, behind what the hub had `reached` (hub only)."""
        if not self._lagging:
            self._next = max(self._next, reached + 1)
            self._lagging = True
        self._wake()

    def _catch_up(self) -> list[Event]:
        channel = self._channel
        view = self._hub.view()
        try:
            chunk = view.events_from(self._next, channel.start, channel.end, _CHUNK_REVISIONS, self._limit)
        except Compacted:
            self.cancel()
            raise
        self._next = chunk.reached + 1
        self._lagging = chunk.reached < self._hub.revision
        return chunk.events

    async def _delivery(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Hub:
    """Who watches what. `view` gives the newest Reading."""

    def __init__(self, view: Callable[[], Reading], revision: int) -> None:
        self.view = view
        self.revision = revision
        self._channels: dict[tuple[bytes, bytes], _Channel] = {}
        self._index: _Index | None = None

    @property
    def watchers(self) -> int:
        return sum(len(channel.watchers) for channel in self._channels.values())

    def subscribe(self, start: bytes, end: bytes, callback: Callback, lost: Lost | None, always: bool) -> Subscription:
        return Subscription(self, self._channel(start, end), callback, lost, always)

    def watch(self, start: bytes, end: bytes, first: int, buffer: int) -> Watcher:
        """A watcher of everything from revision `first` on (0: from now). Raises Compacted."""
        view = self.view()
        if first and first < view.compacted:
            raise Compacted(view.compacted)
        return Watcher(self, self._channel(start, end), first or view.revision + 1, buffer)

    def dispatch(self, events: list[Event], revision: int) -> None:
        """Hand on the events of all revisions after the last dispatch up to `revision`."""
        self.revision = revision
        if not self._channels:
            return
        found: dict[_Channel, list[Event]] = {}
        index = self._index or self._rebuild()
        for event in events:
            for channel in index.find(event.key):
                if channel in found:
                    found[channel].append(event)
                else:
                    found[channel] = [event]
        for channel, matched in found.items():
            for watcher in channel.watchers:
                watcher.deliver(matched)
            for subscription in tuple(channel.subscriptions):
                self._call(subscription, matched, revision)
        for channel in index.always:
            if channel not in found:
                for subscription in tuple(channel.subscriptions):
                    if subscription.always:
                        self._call(subscription, [], revision)

    def jump(self, events: list[Event], revision: int, error: Compacted) -> None:
        """The log has a gap: a snapshot took the place of revisions, or compaction passed a process that stood still.

        Whoever asked to be told of every revision is `lost`, or finds out when it catches up; a subscription without
        `lost`, which keeps a picture of its range, gets what is different now as `events`.
        """
        reached, self.revision = self.revision, revision
        for channel in tuple(self._channels.values()):
            for watcher in tuple(channel.watchers):
                watcher.fall_behind(reached)
            for subscription in tuple(channel.subscriptions):
                if subscription.lost is not None:
                    subscription.cancel()
                    subscription.lost(error)
                else:
                    found = [event for event in events if in_range(event.key, channel.start, channel.end)]
                    self._call(subscription, found, revision)

    def close(self) -> None:
        """End every watch."""
        for channel in tuple(self._channels.values()):
            for watcher in tuple(channel.watchers):
                watcher.cancel()
            channel.subscriptions.clear()
        self._channels.clear()

    def leave(self, channel: _Channel) -> None:
        """Forget a channel that nobody uses any more."""
        self._index = None
        if not channel.watchers and not channel.subscriptions:
            self._channels.pop((channel.start, channel.end), None)

    def _channel(self, start: bytes, end: bytes) -> _Channel:
        self._index = None
        key = (start, end)
        channel = self._channels.get(key)
        if channel is None:
            channel = self._channels[key] = _Channel(start, end)
        return channel

    def _rebuild(self) -> _Index:
        self._index = _Index(tuple(self._channels.values()))
        return self._index

    def _call(self, subscription: Subscription, events: list[Event], revision: int) -> None:
        try:
            subscription.callback(events, revision)
        except Exception as error:  # the commit is done: one subscriber's mistake must not reach the others
            _report("a store subscription's callback failed", error)


class _Index:
    """Which channels hold a key: single keys in a dict, ranges as a sorted list of segments."""

    def __init__(self, channels: Sequence[_Channel]) -> None:
        self.always = tuple(
            channel for channel in channels if any(subscription.always for subscription in channel.subscriptions)
        )
        self._single: dict[bytes, tuple[_Channel, ...]] = {}
        ranges = []
        for channel in channels:
            if channel.end == single_key_end(channel.start):
                self._single[channel.start] = (channel,)
            else:
                ranges.append(channel)
        starts = {channel.start for channel in ranges}
        ends = {channel.end for channel in ranges if channel.end != TO_THE_END}
        self._bounds = sorted(starts | ends)
        covers: list[list[_Channel]] = [[] for _ in self._bounds]
        for channel in ranges:
            first = bisect_right(self._bounds, channel.start) - 1
            last = len(covers) if channel.end == TO_THE_END else bisect_right(self._bounds, channel.end) - 1
            for cover in covers[first:last]:
                cover.append(channel)
        self._covers = [tuple(cover) for cover in covers]

    def find(self, key: bytes) -> tuple[_Channel, ...]:
        segment = bisect_right(self._bounds, key) - 1
        found = self._covers[segment] if segment >= 0 else ()
        return found + self._single.get(key, ()) if self._single else found


def _report(message: str, error: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})

"""The Watch service: many watches on one stream.

A watch is live, or it catches up. Live ones of the same range share a `Feed`, which encodes a commit's events once;
what differs (a watch's number) stands before them. A watch whose peer does not keep up leaves its feed, waits until the
peer has taken what was sent, reads the log from where it was, and is live again when it has reached the present. So
every watch sees each revision once, in order and whole, and nothing is kept for slow ones.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from fastkube.etcd.channel import Channel
from fastkube.etcd.keys import bounds, shown_event
from fastkube.etcd.messages import (
    EVENTS,
    NO_DELETE,
    NO_PUT,
    WATCH_REQUEST,
    WATCH_RESPONSE,
    WatchCreateRequest,
    WatchResponse,
    WireEvent,
)
from fastkube.etcd.node import Node
from fastkube.store import DELETE, PUT, Compacted, Event, StoreClosed

NO_WATCH = -1
"""As a number: an answer that is about all watches of the stream, or about one that was not made."""


class Wanted(NamedTuple):
    """What a watch wants to be told of each event."""

    puts: bool
    deletes: bool
    prev: bool

    def shown(self, events: list[Event]) -> list[WireEvent]:
        kinds = {PUT: self.puts, DELETE: self.deletes}
        return [shown_event(event, self.prev) for event in events if kinds[event.type]]


class Watching:
    """The feeds of all streams."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._feeds: dict[tuple[bytes, bytes | None], Feed] = {}

    def feed(self, start: bytes, end: bytes | None) -> Feed:
        found = self._feeds.get((start, end))
        if found is None:
            found = self._feeds[start, end] = Feed(self, start, end)
        return found

    def forget(self, feed: Feed) -> None:
        self._feeds.pop((feed.start, feed.end), None)


class Feed:
    """The live watches of one range."""

    def __init__(self, watching: Watching, start: bytes, end: bytes | None) -> None:
        self.start = start
        self.end = end
        self._watching = watching
        self._watches: dict[Wanted, set[Watch]] = {}
        self._subscription = watching.node.store.subscribe(start, end, self._on_commit, lost=self._on_lost)

    def join(self, watch: Watch) -> None:
        self._watches.setdefault(watch.wanted, set()).add(watch)

    def leave(self, watch: Watch) -> None:
        watches = self._watches[watch.wanted]
        watches.discard(watch)
        if not watches:
            del self._watches[watch.wanted]
        if not self._watches:
            self._subscription.cancel()
            self._watching.forget(self)

    def _on_commit(self, events: list[Event], revision: int) -> None:
        for wanted, watches in list(self._watches.items()):
            shown = wanted.shown(events)
            if shown:
                encoded = EVENTS.encode((shown,))
                for watch in tuple(watches):
                    watch.deliver(shown, encoded)

    def _on_lost(self, _: Compacted) -> None:
        """A snapshot took the store's place: its log tells what came between, or that it is compacted."""
        self._watching.forget(self)
        for watches in list(self._watches.values()):
            for watch in tuple(watches):
                watch.catch_up()


class Watch:
    def __init__(self, stream: WatchStream, number: int, request: WatchCreateRequest, first: int) -> None:
        self.number = number
        self.wanted = Wanted(NO_PUT not in request.filters, NO_DELETE not in request.filters, request.prev_kv)
        self.wants_progress = request.progress_notify
        self.was_told = False
        """Of anything, since the last progress."""
        self._stream = stream
        self._range = bounds(request.key or b"\x00", request.range_end)
        self._fragment = request.fragment
        self._next = first  # all events before it were sent
        self._feed: Feed | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_live(self) -> bool:
        return self._feed is not None

    def start(self) -> None:
        if self._next > self._stream.node.store.revision:
            self._go_live()
        else:
            self.catch_up()

    def deliver(self, events: list[WireEvent], encoded: bytes) -> None:
        """A commit's events; those from before `_next` this watch has, or does not want."""
        if events[0][1].mod_revision < self._next:
            events = [event for event in events if event[1].mod_revision >= self._next]
            if not events:
                return
            encoded = EVENTS.encode((events,))
        if self._stream.channel.is_full:
            self._next = events[0][1].mod_revision
            self.catch_up()
            return
        self._send(events, encoded)

    def catch_up(self) -> None:
        self._leave()
        self._task = asyncio.get_running_loop().create_task(self._catch_up())

    def close(self) -> None:
        self._leave()
        if self._task is not None:
            self._task.cancel()

    def _leave(self) -> None:
        feed, self._feed = self._feed, None
        if feed is not None:
            feed.leave(self)

    def _go_live(self) -> None:
        self._feed = self._stream.watching.feed(*self._range)
        self._feed.join(self)

    async def _catch_up(self) -> None:
        stream, store = self._stream, self._stream.node.store
        try:
            while True:
                await stream.channel.writable()
                chunk = store.events(*self._range, self._next)
                if shown := self.wanted.shown(chunk.events):
                    self._send(shown, EVENTS.encode((shown,)))
                self._next = max(self._next, chunk.reached + 1)
                if self._next > store.revision:
                    break
                await asyncio.sleep(0)
        except Compacted as error:
            stream.end_compacted(self, error.revision)
            return
        except StoreClosed:
            return
        self._task = None
        self._go_live()
        stream.on_live()

    def _send(self, events: list[WireEvent], encoded: bytes) -> None:
        self.was_told = True
        revision = events[-1][1].mod_revision
        self._next = revision + 1
        limit = self._stream.node.max_request_bytes
        if self._fragment and len(encoded) > limit and len(events) > 1:
            pieces = list(_pieces(events, limit))
            for piece in pieces[:-1]:
                self._stream.send(revision, self.number, piece, fragment=True)
            encoded = pieces[-1]
        self._stream.send(revision, self.number, encoded)


def _pieces(events: list[WireEvent], limit: int) -> list[bytes]:
    """The events in several messages, each of no more than `limit` bytes unless one event is larger."""
    pieces = [b""]
    for event in events:
        encoded = EVENTS.encode(([event],))  # a repeated field: joined pieces are the whole
        if pieces[-1] and len(pieces[-1]) + len(encoded) > limit:
            pieces.append(b"")
        pieces[-1] += encoded
    return pieces


class WatchStream:
    """One stream, and the numbers of its watches."""

    def __init__(self, watching: Watching, channel: Channel) -> None:
        self.watching = watching
        self.node: Node = watching.node
        self.channel = channel
        self._watches: dict[int, Watch] = {}
        self._next_number = 0
        self._owes_progress = False
        self._progress: asyncio.Task[None] | None = None

    def on_message(self, message: bytes) -> None:
        request = WATCH_REQUEST.decode(message)
        if request.create is not None:
            self._create(request.create)
        elif request.cancel is not None:
            self._cancel(request.cancel.watch_id)
        elif request.progress is not None:
            self._owes_progress = True
            self.on_live()

    def on_end(self) -> None:
        self.close()
        self.channel.finish()

    def close(self) -> None:
        for watch in self._watches.values():
            watch.close()
        self._watches.clear()
        if self._progress is not None:
            self._progress.cancel()

    def _create(self, request: WatchCreateRequest) -> None:
        revision = self.node.store.revision
        end = request.range_end
        if len(end) > 0 and end != b"\x00" and (request.key or b"\x00") >= end:
            self._refuse("mvcc: watcher range is empty")
            return
        if request.watch_id in self._watches and request.watch_id:
            self._refuse("mvcc: duplicate watch ID provided on the WatchStream")
            return
        number = request.watch_id or self._number()
        first = request.start_revision if request.start_revision > 0 else revision + 1
        watch = self._watches[number] = Watch(self, number, request, first)
        self._tell(WatchResponse(self.node.header(), number, created=True))
        if watch.wants_progress and self._progress is None:
            self._progress = asyncio.get_running_loop().create_task(self._report_progress())
        watch.start()

    def _number(self) -> int:
        while self._next_number in self._watches:
            self._next_number += 1
        number, self._next_number = self._next_number, self._next_number + 1
        return number

    def _refuse(self, reason: str) -> None:
        answer = WatchResponse(self.node.header(), NO_WATCH, created=True, canceled=True, cancel_reason=reason)
        self._tell(answer)

    def _cancel(self, number: int) -> None:
        watch = self._watches.pop(number, None)
        if watch is not None:
            watch.close()
            self._tell(WatchResponse(self.node.header(), number, canceled=True))

    def end_compacted(self, watch: Watch, compacted: int) -> None:
        """What the watch has not seen is gone. As etcd has it: the header is at no revision, and there is no reason."""
        del self._watches[watch.number]
        watch.close()
        self._tell(WatchResponse(self.node.header(0), watch.number, canceled=True, compact_revision=compacted))

    def on_live(self) -> None:
        """A progress that was asked for is told when every watch has all that happened."""
        if self._owes_progress and all(watch.is_live for watch in self._watches.values()):
            self._owes_progress = False
            self._tell(WatchResponse(self.node.header(), NO_WATCH))

    async def _report_progress(self) -> None:
        while True:
            await self.node.clock.sleep(self.node.progress_interval_s)
            for watch in self._watches.values():
                if watch.wants_progress and watch.is_live and not watch.was_told:
                    self._tell(WatchResponse(self.node.header(), watch.number))
                watch.was_told = False

    def send(self, revision: int, number: int, events: bytes, *, fragment: bool = False) -> None:
        head = WatchResponse(self.node.header(revision), number, fragment=fragment)
        self.channel.send(WATCH_RESPONSE.encode(head) + events)

    def _tell(self, response: WatchResponse) -> None:
        self.channel.send(WATCH_RESPONSE.encode(response))

"""The read half of a store: what the writer's process and every reader process have in common.

All reads of one turn of the event loop see one revision, that of the view; the view moves when the store says so:
in the writer's process with each acknowledged commit, in a reader's when the writer's doorbell rings.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import lmdb

from fastkube.store.check import Report, check_if_cut_off, inspect
from fastkube.store.engine import Engine
from fastkube.store.errors import Compacted, StoreClosed
from fastkube.store.follow import Follower
from fastkube.store.mvcc import Chunk, Reading, View
from fastkube.store.ops import TO_THE_END, RangeResult, single_key_end
from fastkube.store.records import Item, record, value_of
from fastkube.store.snapshot import difference
from fastkube.store.watch import DEFAULT_BUFFER, Callback, Hub, Lost, Subscription, Watcher

_FOLLOW_REVISIONS = 1024  # dispatched between two turns of the loop
_FOLLOW_EVENTS = 4096
_COUNTS_MAX = 1024
_CHUNK_REVISIONS = 512  # looked at in one call of `events`: about 2 ms
_CHUNK_EVENTS = 1000
_RECORDS = 64
_MAP_BYTES = 128 << 30  # of addresses, not memory: a map that never grows under a view whose data are still wanted


class Values:
    """Values and mod revisions of keys; or records, with their keys, as they lie there (records.py). Either once."""

    __slots__ = ("_batches",)

    def __init__(self, batches: Iterator[list[tuple[bytes, bytes]]]) -> None:
        self._batches = batches

    def batches(self) -> Iterator[list[tuple[bytes, bytes]]]:
        return self._batches

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        return (value_of(raw) for found in self._batches for _, raw in found)


class ReadHalf:
    """Reads, watches and subscriptions on one open engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._view = View(engine)
        self._closed = False
        self._counts: dict[tuple[bytes, bytes, int], int] = {}
        self._hub = Hub(self._open_view, self._view.revision)

    @property
    def path(self) -> Path:
        return self._engine.path

    @property
    def revision(self) -> int:
        """The newest revision that reads see; FIRST_REVISION for an empty store."""
        return self._open_view().revision

    @property
    def compacted(self) -> int:
        """The oldest revision that can be read; 0 before the first compaction."""
        return self._open_view().compacted

    def catch_up(self) -> None:
        """Before a request is served: see all that is durable. In the process that writes that is always so."""

    def get(self, key: bytes, revision: int = 0) -> Item | None:
        """One key, now or at an older revision. Raises Compacted, FutureRevision."""
        view = self._open_view()
        return view.get_at(key, revision) if revision else view.get(key)

    def newest(self, key: bytes) -> tuple[bytes, int] | None:
        """Value and mod revision of a live key; cheaper than `get`."""
        return self._open_view().newest(key)

    def range(
        self,
        start: bytes,
        end: bytes,
        *,
        revision: int = 0,
        limit: int = 0,
        reverse: bool = False,
        keys_only: bool = False,
        count_only: bool = False,
    ) -> RangeResult:
        """The keys of [start, end) in order (TO_THE_END: all from `start`). Raises Compacted, FutureRevision.

        To count what is left costs more than a page; so it is remembered for whoever reads on at the same revision.
        """
        view = self._open_view()
        at = revision or view.revision
        counted = self._counts.get((start, end, at)) if limit and not reverse else None
        found = view.range(
            start,
            end,
            revision=revision,
            limit=limit,
            reverse=reverse,
            keys_only=keys_only,
            count_only=count_only,
            counted=counted,
        )
        if found.more and not reverse:
            if len(self._counts) >= _COUNTS_MAX:
                self._counts.clear()
            self._counts[start, end, at] = found.count
            self._counts[single_key_end(found.items[-1].key), end, at] = found.count - len(found.items)
        return found

    def scan(self, start: bytes, end: bytes, *, revision: int = 0) -> Iterator[Item]:
        """The keys of [start, end) one by one, all at the revision of the call however long it takes.

        An unfinished scan keeps LMDB from reusing pages: finish or close it. Raises Compacted, FutureRevision.
        """
        view = self._open_view()
        revision = revision or view.revision
        view.check_revision(revision)
        return self._scan(self._begin(), start, end, revision)

    def values(self, start: bytes, end: bytes, *, revision: int = 0) -> Values:
        """As `scan`, but only values and their mod revisions: what lists are made of. Read once."""
        view = self._open_view()
        revision = revision or view.revision
        view.check_revision(revision)
        return Values(self._records(self._begin(), start, end, revision))

    def watch(self, start: bytes, end: bytes | None, revision: int = 0, *, buffer: int = DEFAULT_BUFFER) -> Watcher:
        """Every event of [start, end) (None: the one key) from `revision` on, or from now. Raises Compacted."""
        self._open_view()
        return self._hub.watch(start, single_key_end(start) if end is None else end, revision, buffer)

    def events(self, start: bytes, end: bytes | None, first: int) -> Chunk:
        """A bounded number of events of [start, end), from revision `first` on. Raises Compacted."""
        last = single_key_end(start) if end is None else end
        return self._open_view().events_from(first, start, last, _CHUNK_REVISIONS, _CHUNK_EVENTS)

    def subscribe(
        self,
        start: bytes,
        end: bytes | None,
        callback: Callback,
        *,
        lost: Lost | None = None,
        always: bool = False,
    ) -> Subscription:
        """Call `callback(events, revision)` on the loop after each commit that the range saw.

        With `always` after every commit, with [] if the range saw nothing. It must be quick and must not raise.
        `lost` is called, and the subscription over, if compaction passes it: a process that stood still, or a snapshot
        that has taken the place of the log. Without `lost` the events are then what is different now.
        """
        self._open_view()
        return self._hub.subscribe(start, single_key_end(start) if end is None else end, callback, lost, always)

    def is_stale(self, key: bytes) -> bool:
        """Whether the value would lie otherwise on the disk if it were written again: encrypted with a newer key."""
        return False

    async def check(self) -> Report:
        """Check the store as it is now (check.py), in a thread."""
        self._open_view()
        while True:
            generation = self._engine.generation
            txn = self._begin()
            reading = Reading(txn, self._engine.databases, self._engine.state(txn))
            report = await asyncio.to_thread(inspect, reading)
            txn.abort()
            if report.ok or generation == self._engine.generation:
                return report  # else the map grew and took the transaction away

    def _open_view(self) -> View:
        if self._closed:
            raise StoreClosed(f"{self._engine.path}: the store is closed")
        return self._view

    def _begin(self) -> lmdb.Transaction[bytes]:
        """A read transaction of its own. To begin it may have made the map larger, which takes the view's away."""
        generation = self._engine.generation
        txn = self._engine.read()
        if generation != self._engine.generation:
            self._view.renew()
        return txn

    def _scan(self, txn: lmdb.Transaction[bytes], start: bytes, end: bytes, revision: int) -> Iterator[Item]:
        while True:
            generation = self._engine.generation
            try:
                reading = Reading(txn, self._engine.databases, self._engine.state(txn))
                reading.check_revision(revision)
                for item in reading.items(start, end, revision):
                    start = single_key_end(item.key)
                    yield item
                return
            except lmdb.Error:
                if self._closed:
                    raise StoreClosed(f"{self._engine.path}: the store is closed") from None
                if generation == self._engine.generation:
                    raise
            finally:
                txn.abort()
            txn = self._begin()  # the map grew under the scan: go on behind the last key, at the same revision

    def _records(
        self, txn: lmdb.Transaction[bytes], start: bytes, end: bytes, revision: int
    ) -> Iterator[list[tuple[bytes, bytes]]]:
        generation = self._engine.generation
        try:
            reading = Reading(txn, self._engine.databases, self._engine.state(txn))
            if revision == reading.revision:
                for found in reading.records(start, end):
                    start = single_key_end(found[-1][0])
                    yield found
                return
        except lmdb.Error:
            if self._closed:
                raise StoreClosed(f"{self._engine.path}: the store is closed") from None
            if generation == self._engine.generation:
                raise
        finally:
            txn.abort()
        # it is an older revision, or the map grew: go on behind the last key, at the same revision
        items = self._scan(self._begin(), start, end, revision)
        while found := [(item.key, record(item)) for item in itertools.islice(items, _RECORDS)]:
            yield found

    def _close_reads(self) -> None:
        self._closed = True
        self._hub.close()
        self._view.close()
        self._engine.close()


class StoreReader(ReadHalf):
    """A store that another process writes. It follows by itself; `refresh` looks at once."""

    def __init__(self, path: Path) -> None:
        engine = Engine(path, readonly=True, sync=True, map_bytes=_MAP_BYTES, max_bytes=1 << 62)
        try:
            check_if_cut_off(engine)
            self._follower = Follower(path, self._on_ring)  # before the first look, so that nothing falls in between
            super().__init__(engine)
        except BaseException:
            engine.close()
            raise

    def refresh(self) -> int:
        """See the newest durable commit now; returns its revision."""
        self._open_view()
        self._renew()
        return self._view.revision

    def _renew(self) -> None:
        """Move the view; what it has of the past is still there, should the log of the new one begin too late."""
        before = self._view
        newer = View(self._engine)
        if self._hub.revision + 1 < newer.compacted:
            self._jump(before, newer)
        self._view = newer
        before.close()

    def _jump(self, before: View, newer: View) -> None:
        """Compaction has passed a process that stood still: the rest of the old log, then what is different now."""
        hub = self._hub
        while hub.revision < before.revision:
            self._dispatch_some(_FOLLOW_REVISIONS)
        self._view = newer
        hub.jump(difference(before, newer), newer.revision, Compacted(newer.compacted))

    async def close(self) -> None:
        if not self._closed:
            self._follower.close()
            self._close_reads()

    def _on_ring(self) -> None:
        if not self._closed:
            self.refresh()
            self._dispatch()

    def _dispatch(self) -> None:
        """Hand the revisions after the last dispatched one to the hub, a bounded number in each turn of the loop."""
        if self._closed or self._hub.revision >= self._view.revision:
            return
        self._dispatch_some(_FOLLOW_REVISIONS)
        if self._hub.revision < self._view.revision:
            self._follower.ring_again()

    def _dispatch_some(self, revisions: int) -> None:
        """Hand up to so many revisions of the view's log to the hub."""
        chunk = self._view.events_from(self._hub.revision + 1, b"", TO_THE_END, revisions, _FOLLOW_EVENTS)
        self._hub.dispatch(chunk.events, chunk.reached)

"""Revisions on top of one LMDB transaction: `Reading` answers from it, `Writing` also adds revisions to it.

What holds in every committed transaction (check.py verifies it):
 1. A key is in `current` exactly while it is alive; its mod revision is that of its newest log operation.
 2. A version that was superseded or deleted at revision u is in `history` once, under (key, its mod revision), with
    until = u. So at revision r a key's value is the one version with mod <= r < until, and no tombstone is needed.
 3. `log` has every revision from the oldest kept to the newest, without a gap. Each operation names the version that
    it ended, so that an event can be told with its previous value, and compaction finds what it may drop.
 4. Nothing with revision or until >= compacted is ever dropped: reads and watches from `compacted` on are exact.

Neither class takes a decision about a request: conditions are command.py's.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterator
from operator import itemgetter
from typing import NamedTuple

import lmdb

from fastkube.store.engine import Databases, Engine
from fastkube.store.errors import Compacted, CorruptStore, FutureRevision
from fastkube.store.ops import TO_THE_END, RangeResult, single_key_end
from fastkube.store.records import (
    DELETE,
    HEADER,
    I64,
    PUT,
    STATE,
    TTL,
    U64,
    UNTIL,
    Event,
    Item,
    LogOp,
    State,
    escape,
    history_key,
    item,
    log_op,
    log_ops,
    past_item,
    split_history_key,
    until,
)

_HEADER_BYTES = HEADER.size
_unpack_header = HEADER.unpack_from
_unpack_mod = UNTIL.unpack_from  # of the header's second number
_MOD_AT = 8
_RECORDS = 64
_AFTER_ALL = b"\xff" * 512  # LMDB's keys are shorter
_pack_header = HEADER.pack
_pack_until = UNTIL.pack
_pack_revision = U64.pack
_new = tuple.__new__


class Chunk(NamedTuple):
    """Events of whole revisions; `reached` is the last revision looked at."""

    events: list[Event]
    reached: int


class Reading:
    """The store as one transaction sees it."""

    def __init__(self, txn: lmdb.Transaction[bytes], databases: Databases, state: State) -> None:
        self.txn = txn
        self.databases = databases
        self.revision = state.revision
        self.compacted = state.compacted
        self.applied = state.applied
        self._get = txn.get

    def get(self, key: bytes) -> Item | None:
        """The newest version of a live key."""
        raw = self._get(key, None, self.databases.current)
        return None if raw is None else item(key, raw)

    def newest(self, key: bytes) -> tuple[bytes, int] | None:
        """Value and mod revision of a live key."""
        raw = self._get(key, None, self.databases.current)
        return None if raw is None else (raw[_HEADER_BYTES:], _unpack_mod(raw, _MOD_AT)[0])

    def get_at(self, key: bytes, revision: int) -> Item | None:
        """The version of `key` at `revision`. Raises Compacted, FutureRevision."""
        self.check_revision(revision)
        found = self.get(key)
        if found is not None and found.mod_revision <= revision:
            return found
        cursor = self.txn.cursor(self.databases.history)
        placed = cursor.prev() if cursor.set_range(history_key(key, revision + 1)) else cursor.last()
        if not placed or split_history_key(cursor.key())[0] != key:
            return None
        raw = cursor.value()
        return past_item(key, raw) if until(raw) > revision else None

    def check_revision(self, revision: int) -> None:
        if revision > self.revision:
            raise FutureRevision(self.revision)
        if revision < self.compacted:
            raise Compacted(self.compacted)

    def range(
        self,
        start: bytes,
        end: bytes | None,
        *,
        revision: int = 0,
        limit: int = 0,
        reverse: bool = False,
        keys_only: bool = False,
        count_only: bool = False,
        counted: int | None = None,
    ) -> RangeResult:
        """Keys of [start, end) in order; `end` None is the one key, TO_THE_END every key from `start`. `counted`: how
        many they are, where that is known."""
        if end is None:
            end = single_key_end(start)
        if revision:
            self.check_revision(revision)
        if count_only:
            return RangeResult([], False, self.count(start, end, revision), self.revision)
        found = self.items(start, end, revision, reverse)
        items = list(itertools.islice(found, limit)) if limit else list(found)
        more = bool(limit) and next(found, None) is not None
        if keys_only:
            items = [entry._replace(value=b"") for entry in items]
        count = (self.count(start, end, revision) if counted is None else counted) if more else len(items)
        return RangeResult(items, more, count, self.revision)

    def count(self, start: bytes, end: bytes, revision: int = 0) -> int:
        """How many keys [start, end) holds."""
        if revision and not self._is_newest(revision):
            return sum(1 for _ in self.items(start, end, revision))
        cursor = self.txn.cursor(self.databases.current)
        if not _seek(cursor, start):
            return 0
        keys = cursor.iternext(True, False)
        counter = itertools.count()
        deque(
            zip(keys if end == TO_THE_END else itertools.takewhile(end.__gt__, keys), counter, strict=False), maxlen=0
        )
        return next(counter)

    def items(self, start: bytes, end: bytes, revision: int = 0, reverse: bool = False) -> Iterator[Item]:
        """The versions at `revision` (0: the newest) of all keys in [start, end), one after the other."""
        newest = self._newest_backwards(start, end) if reverse else self._newest(start, end)
        if not revision or self._is_newest(revision):
            return newest
        unchanged = (entry for entry in newest if entry.mod_revision <= revision)
        past = self._past(start, end, revision, reverse)
        return heapq.merge(unchanged, past, key=itemgetter(0), reverse=reverse)

    def _is_newest(self, revision: int) -> bool:
        """Whether `current` alone answers for `revision`."""
        return revision == self.revision

    def _newest(self, start: bytes, end: bytes) -> Iterator[Item]:
        cursor = self.txn.cursor(self.databases.current)
        if not _seek(cursor, start):
            return
        bounded = end != TO_THE_END
        for key, raw in cursor.iternext():
            if bounded and key >= end:
                return
            create, mod, version, lease = _unpack_header(raw)
            yield _new(Item, (key, raw[_HEADER_BYTES:], create, mod, version, lease))

    def records(self, start: bytes, end: bytes) -> Iterator[list[tuple[bytes, bytes]]]:
        """The newest versions of [start, end) as they lie there, with their keys, many at once; cheaper than items."""
        cursor = self.txn.cursor(self.databases.current)
        if not _seek(cursor, start):
            return
        last = end if end != TO_THE_END else _AFTER_ALL
        entries = cursor.iternext()
        while found := list(itertools.islice(entries, _RECORDS)):
            if found[-1][0] < last:
                yield found
                continue
            inside = list(itertools.takewhile(lambda entry: entry[0] < last, found))
            if inside:
                yield inside
            return

    def _newest_backwards(self, start: bytes, end: bytes) -> Iterator[Item]:
        cursor = self.txn.cursor(self.databases.current)
        if not _seek_before(cursor, end):
            return
        for key, raw in cursor.iterprev():
            if key < start:
                return
            yield item(key, raw)

    def _past(self, start: bytes, end: bytes, revision: int, reverse: bool) -> Iterator[Item]:
        """Versions of [start, end) that were alive at `revision` and are not any more: at most one of a key."""
        cursor = self.txn.cursor(self.databases.history)
        first = escape(start)
        last = end if end == TO_THE_END else escape(end)
        if not (_seek_before(cursor, last) if reverse else _seek(cursor, first)):
            return
        for encoded, raw in cursor.iterprev() if reverse else cursor.iternext():
            if encoded < first or (end != TO_THE_END and encoded >= last):
                return
            key, mod = split_history_key(encoded)
            if mod <= revision < until(raw):
                yield past_item(key, raw)

    def events_from(self, first: int, start: bytes, end: bytes, max_revisions: int, max_events: int) -> Chunk:
        """What happened to [start, end) from revision `first` on, whole revisions only.

        Ends after `max_revisions`, or with the revision that makes it `max_events` or more. Raises Compacted.
        """
        if first < self.compacted:
            raise Compacted(self.compacted)
        events: list[Event] = []
        reached = first - 1
        cursor = self.txn.cursor(self.databases.log)
        if not cursor.set_range(U64.pack(first)):
            return Chunk(events, max(reached, self.revision))
        for key, raw in itertools.islice(cursor.iternext(), max_revisions):
            reached = U64.unpack(key)[0]
            ops = [op for op in log_ops(raw) if op.key >= start and (end == TO_THE_END or op.key < end)]
            events += [self._event(reached, op) for op in ops]
            if len(events) >= max_events:
                break
        return Chunk(events, reached)

    def _event(self, revision: int, op: LogOp) -> Event:
        prev = self._version(op.key, op.prev_revision) if op.prev_revision else None
        if op.type == DELETE:
            return Event(DELETE, op.key, b"", revision, 0, 0, 0, prev)
        now = self._version(op.key, revision)
        return Event(PUT, op.key, now.value, revision, now.create_revision, now.version, now.lease, prev)

    def _version(self, key: bytes, mod_revision: int) -> Item:
        """One exact version, which the log says there is."""
        found = self.get(key)
        if found is not None and found.mod_revision == mod_revision:
            return found
        raw = self._get(history_key(key, mod_revision), None, self.databases.history)
        if raw is None:
            raise CorruptStore(f"key {key!r}: the log names revision {mod_revision}, which is not there")
        return past_item(key, raw)

    def needs_trim(self) -> bool:
        """Whether the log still has what a compaction gave up."""
        cursor = self.txn.cursor(self.databases.log)
        return bool(cursor.first()) and U64.unpack(cursor.key())[0] < self.compacted

    def leases(self) -> dict[int, int]:
        """Time to live in seconds of each lease."""
        cursor = self.txn.cursor(self.databases.leases)
        return {I64.unpack(key)[0]: TTL.unpack_from(raw)[0] for key, raw in cursor.iternext()}

    def lease_checkpoints(self) -> dict[int, int]:
        """What was left of leases, in seconds, when that was last written; those of which it never was are not here."""
        cursor = self.txn.cursor(self.databases.leases)
        entries = ((I64.unpack(key)[0], raw) for key, raw in cursor.iternext())
        return {lease: TTL.unpack_from(raw, TTL.size)[0] for lease, raw in entries if len(raw) > TTL.size}

    def members(self) -> bytes:
        """As `set_members` had it; b"" for a store that is not replicated."""
        packed: bytes = self._get(b"members", b"", self.databases.meta)
        return packed

    def is_copy(self) -> bool:
        """Whether revisions are those of another store, of which only a part is here."""
        return self._get(b"copy", None, self.databases.meta) is not None

    def has_lease(self, lease: int) -> bool:
        return self._get(I64.pack(lease), None, self.databases.leases) is not None

    def lease_keys(self, lease: int) -> list[bytes]:
        """The keys attached to a lease, in order."""
        prefix = I64.pack(lease)
        cursor = self.txn.cursor(self.databases.lease_keys)
        if not cursor.set_range(prefix):
            return []
        attached = itertools.takewhile(lambda key: key.startswith(prefix), cursor.iternext(True, False))
        return [key[I64.size :] for key in attached]


class View(Reading):
    """A Reading that can be moved to a newer commit."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        txn = engine.read()
        super().__init__(txn, engine.databases, engine.state(txn))

    def renew(self, state: State | None = None) -> None:
        """See the newest commit; `state` is what it says of itself, where the caller knows."""
        self.close()
        self.txn = txn = self._engine.read()
        self._get = txn.get
        if state is None:
            state = self._engine.state(txn)
        self.revision = state.revision
        self.compacted = state.compacted
        self.applied = state.applied

    def close(self) -> None:
        """Let go of the transaction; LMDB keeps its reader slot for the next one."""
        self.txn.abort()
        del self.txn, self._get


class Writing(Reading):
    """A write transaction. Changes collect into the next revision until `close_revision`."""

    def __init__(self, txn: lmdb.Transaction[bytes], databases: Databases, state: State) -> None:
        super().__init__(txn, databases, state)
        self.events: list[Event] = []
        self.changed = False
        self._ops: list[bytes] = []
        self._put = txn.put

    def insert(self, key: bytes, value: bytes, lease: int) -> bool:
        """Store the first version of a key; False, and nothing done, if the key is alive."""
        revision = self.revision + 1
        header = _pack_header(revision, revision, 1, lease)
        if not self._put(key, header + value, True, False, False, self.databases.current):
            return False
        if lease:
            self._attach(key, lease)
        self._ops.append(log_op(PUT, 0, key))
        self.events.append(_new(Event, (PUT, key, value, revision, revision, 1, lease, None)))
        return True

    def put(self, key: bytes, value: bytes, lease: int, prev: Item | None) -> None:
        """Store a version on top of `prev`, which the caller has just read (None: the key is not alive)."""
        if prev is None:
            self.insert(key, value, lease)
            return
        revision = self.revision + 1
        version = prev.version + 1
        self._to_history(prev, revision)
        header = _pack_header(prev.create_revision, revision, version, lease)
        self._put(key, header + value, True, True, False, self.databases.current)
        if lease != prev.lease:
            if lease:
                self._attach(key, lease)
            if prev.lease:
                self._detach(key, prev.lease)
        self._ops.append(log_op(PUT, prev.mod_revision, key))
        self.events.append(_new(Event, (PUT, key, value, revision, prev.create_revision, version, lease, prev)))

    def delete(self, prev: Item) -> None:
        """End a live key."""
        key = prev.key
        revision = self.revision + 1
        self._to_history(prev, revision)
        self.txn.delete(key, b"", self.databases.current)
        if prev.lease:
            self._detach(key, prev.lease)
        self._ops.append(log_op(DELETE, prev.mod_revision, key))
        self.events.append(_new(Event, (DELETE, key, b"", revision, 0, 0, 0, prev)))

    def retire(self, prev: Item, value: bytes) -> Item:
        """`put` of a last version and its `delete`, each a revision of its own; the version. It is never current."""
        key, revision = prev.key, self.revision + 1
        last = Item(key, value, prev.create_revision, revision, prev.version + 1, 0)
        self._to_history(prev, revision)
        self._to_history(last, revision + 1)
        self.txn.delete(key, b"", self.databases.current)
        if prev.lease:
            self._detach(key, prev.lease)
        self._ops.append(log_op(PUT, prev.mod_revision, key))
        self.events.append(Event(PUT, key, value, revision, last.create_revision, last.version, 0, prev))
        self.close_revision()
        self._ops.append(log_op(DELETE, revision, key))
        self.events.append(Event(DELETE, key, b"", revision + 1, 0, 0, 0, last))
        self.close_revision()
        return last

    def place(self, key: bytes, item: Item | None) -> None:
        """Have this version of a key, or none, without history: revisions are another store's."""
        prev = self.get(key)
        if prev is not None and prev.lease:
            self._detach(key, prev.lease)
        if item is None:
            self.txn.delete(key, b"", self.databases.current)
            return
        header = _pack_header(item.create_revision, item.mod_revision, item.version, item.lease)
        self._put(key, header + item.value, True, True, False, self.databases.current)
        if item.lease:
            self._attach(key, item.lease)

    def begin_log(self, keys: list[bytes]) -> None:
        """Where `place` made the data, the log begins with the newest revision, at which these keys were put."""
        ops = b"".join(log_op(PUT, 0, key) for key in keys)
        self._put(_pack_revision(self.revision), ops, True, True, False, self.databases.log)
        self.changed = True

    def close_revision(self) -> int:
        """Make what changed since the last call one revision; returns the revision the store is now at."""
        if self._ops:
            self.revision += 1
            self._put(_pack_revision(self.revision), b"".join(self._ops), True, True, True, self.databases.log)
            self._ops.clear()
            self.changed = True
        return self.revision

    def advance(self, revision: int) -> None:
        """To a revision of the store that this one is a copy of; what lies between changed nothing here."""
        if revision > self.revision:
            self.revision = revision
            self.changed = True

    @property
    def seen_revision(self) -> int:
        """The one that reads are at now: that of the changes, once there are any."""
        return self.revision + 1 if self._ops else self.revision

    def grant_lease(self, lease: int, ttl_s: int) -> None:
        self._put(I64.pack(lease), TTL.pack(ttl_s), db=self.databases.leases)
        self.changed = True

    def checkpoint_lease(self, lease: int, left_s: int) -> None:
        ttl_s = TTL.unpack_from(self._get(I64.pack(lease), b"", self.databases.leases))[0]
        left = TTL.pack(left_s) if left_s else b""
        self._put(I64.pack(lease), TTL.pack(ttl_s) + left, db=self.databases.leases)
        self.changed = True

    def set_members(self, packed: bytes) -> None:
        self._put(b"members", packed, db=self.databases.meta)
        self.changed = True

    def drop_lease(self, lease: int) -> None:
        """Forget a lease whose keys are gone."""
        self.txn.delete(I64.pack(lease), b"", self.databases.leases)
        self.changed = True

    def compact(self, revision: int) -> None:
        """From now on nothing before `revision` can be read; `trim` frees the room."""
        self.compacted = revision
        self.changed = True

    def trim(self, max_revisions: int) -> bool:
        """Drop up to `max_revisions` of the log before `compacted`, and the versions they ended; True if more is left.

        What a revision below `compacted` ended was invisible before `compacted`, and rule 3 finds it without a search.
        """
        cursor = self.txn.cursor(self.databases.log)
        for _ in range(max_revisions):
            if not cursor.first() or U64.unpack(cursor.key())[0] >= self.compacted:
                return False
            for op in log_ops(cursor.value()):
                if op.prev_revision:
                    self.txn.delete(history_key(op.key, op.prev_revision), b"", self.databases.history)
            cursor.delete()
            self.changed = True
        return self.needs_trim()

    def save_state(self) -> None:
        """The last step before the commit: the data and where it stands go together."""
        self._put(b"state", STATE.pack(self.revision, self.applied, self.compacted), db=self.databases.meta)

    def _is_newest(self, revision: int) -> bool:
        return revision == self.revision and not self._ops

    def _to_history(self, version: Item, ended: int) -> None:
        key, value, create, mod, number, lease = version
        raw = _pack_header(create, mod, number, lease) + value + _pack_until(ended)
        self._put(history_key(key, mod), raw, True, True, False, self.databases.history)

    def _attach(self, key: bytes, lease: int) -> None:
        self._put(I64.pack(lease) + key, b"", db=self.databases.lease_keys)

    def _detach(self, key: bytes, lease: int) -> None:
        self.txn.delete(I64.pack(lease) + key, b"", self.databases.lease_keys)


def _seek(cursor: lmdb.Cursor[bytes], start: bytes) -> bool:
    """To the first key at or after `start`."""
    return bool(cursor.set_range(start) if start else cursor.first())


def _seek_before(cursor: lmdb.Cursor[bytes], end: bytes) -> bool:
    """To the last key before `end`."""
    if end != TO_THE_END and cursor.set_range(end):
        return bool(cursor.prev())
    return bool(cursor.last())

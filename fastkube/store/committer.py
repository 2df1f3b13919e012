"""Group commit: a batch of commands becomes one LMDB transaction and one sync, beside a running event loop.

    start(batch)    begin, apply every command (about 5 us each); the transaction stays open
    append          their record is written to the journal, and synced while the loop goes on with requests
    on_done(batch)  committed, without a sync of its own: readers see it, and those who wait are answered

All of it happens on the loop; what takes long, the sync, is the kernel's (appender.py). A store without a journal (one
whose log is agreed on before, or that is a copy) commits at once.

What can go wrong, and what becomes of the batch (in every case it is all done or not at all):
    map full        the map grows and the batch is applied again; at the size limit it fails with NoSpace
    disk full       NoSpace: nothing was written, the store goes on and may recover
    anything else   StoreFailed: the store takes no more writes; reads go on

What is in the journal and cannot be committed is taken out of it again, before anyone is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import lmdb

from fastkube.store.command import Result, apply
from fastkube.store.engine import Engine, lacks_space
from fastkube.store.errors import NoSpace, StoreFailed, StoreUnavailable
from fastkube.store.mvcc import Writing
from fastkube.store.records import Event, State
from fastkube.store.replica import Proposal

if TYPE_CHECKING:
    from fastkube.store.journal import Journal

TRIM_REVISIONS = 256
"""How much of a compaction one batch carries out: about 2 ms."""

_HEADROOM_DIVISOR = 8
_COUNT_EVERY = 16
_COUNT_AT_BYTES = 1 << 20
_SCARCE_BYTES = 64 << 20


class Batch:
    """Commands that share a transaction, and afterwards what became of them."""

    __slots__ = ("error", "events", "live_bytes", "must_grow", "proposals", "results", "state", "trim", "trim_left")

    def __init__(self, proposals: list[Proposal], trim: bool) -> None:
        self.proposals = proposals
        self.trim = trim
        self.must_grow = False
        self.reset()

    def reset(self) -> None:
        self.results: list[Result | list[Result]] = []
        self.events: list[Event] = []
        self.state: State | None = None
        self.live_bytes = 0
        self.trim_left = False
        self.error: StoreUnavailable | None = None


class Committer:
    """Takes one batch at a time: `start` may be called again once `on_done` was. Both happen on the loop."""

    def __init__(
        self,
        engine: Engine,
        journal: Journal | None,
        *,
        on_done: Callable[[Batch], None],
        on_grow: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._on_done = on_done
        self._on_grow = on_grow
        self._loop = asyncio.get_running_loop()
        self._uncounted = _COUNT_EVERY  # batches since the data were counted
        self._uncounted_bytes = 0
        self._counted_bytes = 0

    def start(self, batch: Batch) -> None:
        """Returns as soon as every command was applied; `on_done` tells the end, never before this returns."""
        txn = self._apply(batch)
        if txn is None or self._journal is None or not batch.proposals:
            self._commit(batch, txn)
            self._loop.call_soon(self._on_done, batch)
        else:
            self._journal.append(batch.proposals, lambda error: self._logged(batch, txn, error))

    def redo(self, batch: Batch) -> None:
        """What is durable already, at once. Raises StoreUnavailable."""
        self._commit(batch, self._apply(batch))
        if batch.error is not None:
            raise batch.error

    def _logged(self, batch: Batch, txn: lmdb.Transaction[bytes], error: Exception | None) -> None:
        if error is not None:
            txn.abort()
            batch.error = self._failure(error)
        else:
            self._commit(batch, txn)
            if batch.error is not None and self._journal is not None:
                self._journal.take_back(lambda failure: self._taken_back(batch, failure))
                return
        self._on_done(batch)

    def _taken_back(self, batch: Batch, failure: Exception | None) -> None:
        if failure is not None:
            batch.error = self._failed(failure, "what was under way may be there after a restart")
        self._on_done(batch)

    def _apply(self, batch: Batch) -> lmdb.Transaction[bytes] | None:
        """The transaction to commit; None if nothing changed or the batch failed."""
        try:
            if self._journal is not None:
                self._journal.secure()
            self._make_room(batch)
            while True:
                batch.reset()
                txn = self._engine.env.begin(write=True)
                try:
                    return self._apply_in(txn, batch)
                except lmdb.MapFullError:
                    txn.abort()
                    self._grow()
                except BaseException:
                    txn.abort()
                    raise
        except StoreUnavailable as error:
            batch.error = error
        except Exception as error:
            batch.error = self._failure(error)
        return None

    def _apply_in(self, txn: lmdb.Transaction[bytes], batch: Batch) -> lmdb.Transaction[bytes] | None:
        engine = self._engine
        writing = Writing(txn, engine.databases, engine.state(txn))
        results = batch.results
        for proposal in batch.proposals:
            if proposal.many:
                results.append([apply(writing, command) for command in proposal.commands])
            else:
                results.append(apply(writing, proposal.commands[0]))
        if batch.trim:
            batch.trim_left = writing.trim(TRIM_REVISIONS)
        if batch.proposals:
            writing.applied = batch.proposals[-1].index
        batch.state = State(writing.revision, writing.applied, writing.compacted)
        batch.live_bytes = self._live_bytes(txn, sum(proposal.size for proposal in batch.proposals))
        if not writing.changed:  # every command was refused: there is nothing to make durable
            txn.abort()
            return None
        writing.save_state()
        batch.events = writing.events
        return txn

    def _live_bytes(self, txn: lmdb.Transaction[bytes], coming_bytes: int) -> int:
        """About what the data fill: counted every `_COUNT_EVERY` batches, when much has come or room is scarce."""
        self._uncounted += 1
        self._uncounted_bytes += coming_bytes
        scarce = self._counted_bytes + _SCARCE_BYTES > self._engine.max_bytes
        if self._uncounted >= _COUNT_EVERY or self._uncounted_bytes > _COUNT_AT_BYTES or scarce:
            self._uncounted = self._uncounted_bytes = 0
            self._counted_bytes = self._engine.live_bytes(txn)
        return self._counted_bytes

    def _commit(self, batch: Batch, txn: lmdb.Transaction[bytes] | None) -> None:
        while txn is not None:
            try:
                txn.commit()
            except lmdb.MapFullError:  # only now: once more, with more room
                batch.must_grow = True
                txn = self._apply(batch)
                continue
            except Exception as error:
                batch.error = self._failure(error)
            else:
                if self._journal is not None:
                    self._journal.committed(len(batch.proposals))
            return

    def _make_room(self, batch: Batch) -> None:
        """Grow before the map is full, so that a commit (which runs beside the loop) hardly ever finds it so."""
        engine = self._engine
        info = engine.env.info()
        file_bytes = (info["last_pgno"] + 1) * engine.page_bytes
        engine.cover(sum(proposal.size for proposal in batch.proposals), file_bytes)
        room = info["map_size"] - file_bytes
        if batch.must_grow:
            batch.must_grow = False
            self._grow()
        elif room < info["map_size"] // _HEADROOM_DIVISOR and info["map_size"] < engine.max_map_bytes:
            self._grow()

    def _grow(self) -> None:
        """Double the map. The loop is blocked, or we are on it: its view is re-opened before it goes on."""
        now = self._engine.map_bytes
        if now >= self._engine.max_map_bytes:
            raise NoSpace(f"{self._engine.path}: the map has reached its limit of {now} bytes")
        self._engine.grow(min(now * 2, self._engine.max_map_bytes))
        self._on_grow()

    def _failure(self, error: Exception) -> StoreUnavailable:
        if lacks_space(error, self._engine.path):
            failure = NoSpace(f"{self._engine.path}: nothing was written: {error}")
        else:
            return self._failed(error, "the store no longer takes writes")
        failure.__cause__ = error
        return failure

    def _failed(self, error: Exception, what: str) -> StoreFailed:
        failure = StoreFailed(f"{self._engine.path}: {what}: {error!r}")
        failure.__cause__ = error
        return failure

"""The store as its callers see it: etcd's key-value model, one LMDB file, one process that writes.

The way of a write, and the files it passes:

    create/update/delete/write/txn/lease_*/compact     store.py      checked, queued, a future returned
      → once per turn of the loop: propose             replica.py    (consensus) the order is agreed
      → a batch of all that is committed               committer.py  applied, in one LMDB transaction
      → apply(Writing, command)                        command.py    conditions decided, mvcc.py changes the data
      → append                                         journal.py    its commands are in the log, synced
      → _done(batch)                                   store.py      view moved, futures answered
      → dispatch(events, revision)                     watch.py      subscriptions called, watchers filled
      → ring                                           follow.py     reader processes told

What callers may rely on:
 1. A write that returned is on the disk. A write that raised a condition's error (KeyExists, ...) was not done.
 2. A read sees every write that was acknowledged before it, and none that is not durable. Where several servers
    replicate the store, one that was acknowledged by another is seen once `read_barrier` has been waited for.
 3. Each write is one revision (a transaction too, however many keys it changes; only `retire` is two); revisions have
    no gaps.
 4. No queue grows without a limit: a write too many is refused with Overloaded.
 5. After a failed commit no write is taken, `status` says why, and reads go on. A full disk is not the end: writes are
    refused with NoSpace while it lasts, deletes and compaction are still tried.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from fastkube.clock import Clock, RealClock
from fastkube.store.check import check_if_cut_off
from fastkube.store.command import CheckpointLease, Command, Compact, GrantLease, Result, RevokeLease, read_txn
from fastkube.store.committer import Batch, Committer
from fastkube.store.engine import DEFAULT_MAX_BYTES, Engine
from fastkube.store.errors import (
    Compacted,
    CorruptStore,
    InvalidRequest,
    NoSpace,
    Overloaded,
    StoreClosed,
    StoreError,
    StoreFailed,
    StoreUnavailable,
)
from fastkube.store.follow import Bell
from fastkube.store.journal import Durability, Journal, is_member_store, open_journal
from fastkube.store.lease import Lessor
from fastkube.store.mvcc import Reading, View
from fastkube.store.ops import (
    ABSENT,
    ANY,
    TO_THE_END,
    Compare,
    Op,
    Retire,
    Txn,
    TxnResult,
    Write,
    check_number,
    check_txn,
    check_write,
    only_reads,
    values_bytes,
)
from fastkube.store.reader import ReadHalf, StoreReader
from fastkube.store.records import Deleted
from fastkube.store.replica import Proposal, Replica, SingleReplica, Waiter
from fastkube.store.snapshot import backup, difference, load_snapshot

if TYPE_CHECKING:
    from fastkube.store.consensus import RaftReplica
    from fastkube.store.replication import Replication

MAX_WRITES = 1024
"""In one call of `Store.write`."""

_BATCH_COMMANDS = 512  # a larger batch would hold the loop for longer than about 5 ms while it is applied
_BATCH_BYTES = 8 << 20
_QUEUE_COMMANDS = 16384
_QUEUE_BYTES = 256 << 20
_SPACE_BYTES = 8 << 20  # free on the disk before puts are tried again after it was full
_STALL_S = 1.0  # before agreed writes that found the disk full are tried again
_MAX_LEASE = (1 << 63) - 1
_MAX_TTL_S = 9_000_000_000  # etcd's limit

_T = TypeVar("_T")


class Status(NamedTuple):
    """`health` is "serving", "no space" or "failed"; `reason` says why in words."""

    health: str
    reason: str
    revision: int
    compacted: int
    applied: int
    live_bytes: int
    file_bytes: int
    map_bytes: int
    max_bytes: int
    queued: int
    watchers: int
    leases: int
    trimming: bool


class LeaseInfo(NamedTuple):
    lease: int
    left_s: float
    granted_s: int
    keys: list[bytes]


class Store(ReadHalf):
    """The writing process's store. Everything is called on the loop that opened it."""

    def __init__(
        self, engine: Engine, clock: Clock, *, journal: Journal | None = None, replicated: bool = False
    ) -> None:
        super().__init__(engine)
        view = self._view
        state = engine.state(view.txn)
        self._loop = asyncio.get_running_loop()
        self.applied = state.applied
        """The last command, by its place in the log, that reads see the effect of."""
        self._live_bytes = engine.live_bytes(view.txn)
        self._proposed: list[Proposal] = []  # waits for the end of this turn
        self._committed: deque[Proposal] = deque()  # agreed, waits for the committer
        self._queued = 0
        self._queued_bytes = 0
        self._busy = False
        self._closing = False
        self._idle: list[asyncio.Future[None]] = []
        self._idle_once: list[asyncio.Future[None]] = []  # wait only for the batch that is being applied
        self._trimming = view.needs_trim()
        self._trim_again = False
        self._trimmed: list[asyncio.Future[None]] = []
        self._failure: StoreUnavailable | None = None
        self._no_space: NoSpace | None = None
        self._replica: Replica = SingleReplica(state.applied, self.on_committed)
        self.consensus: RaftReplica | None = None
        """The members that replicate the store; None with one server, which is its own majority."""
        self._journal = journal
        self._committer = Committer(engine, journal, on_done=self._done, on_grow=self._on_grow)
        self._bell = Bell(engine.path)
        checkpoint = self._checkpoint_lease if replicated else None
        self._lessor = Lessor(clock, view.leases(), self.lease_revoke, checkpoint)
        self._leading: list[Callable[[], None]] = []
        if self._trimming:
            self._loop.call_soon(self._apply_next)

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        sync: bool = True,
        clock: Clock | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
        map_bytes: int = 0,
        replication: Replication | None = None,
        durability: Durability | None = None,
    ) -> Store:
        """Open for writing, creating the directory if need be. Raises StoreLocked, CorruptStore, NoSpace.

        `sync` False gives up durability against a crash of the machine (not of the process). `max_bytes` limits the
        data; `map_bytes` is the size the map starts at, it grows by itself. With `replication` the store is one of
        several that agree on every write. `durability` is the disk of one that is not.
        """
        clock, path = clock or RealClock(), Path(path)
        preparing = replication or durability or Durability()
        preparing.prepare(path)
        engine = Engine(path, readonly=False, sync=False, map_bytes=map_bytes, max_bytes=max_bytes)
        journal = None
        try:
            check_if_cut_off(engine)
            if isinstance(preparing, Durability):
                if is_member_store(engine):
                    raise CorruptStore(f"{path}: this store is a member's: it must be opened with its cluster")
                journal = open_journal(engine, preparing, create=sync)
            store = cls(engine, clock, journal=journal, replicated=replication is not None)
            if replication is not None:
                store._replica = store.consensus = await replication.join(store, engine, clock)
                store.consensus.methods.update(keepalive=store.lease_keepalive, lease_info=store._lease_info_here)
            return store
        except BaseException:
            if journal is not None:
                journal.close(whole=False)
            engine.close()
            raise

    @classmethod
    async def open_reader(cls, path: str | os.PathLike[str]) -> StoreReader:
        """Open, for reading, a store that another process writes. Raises CorruptStore."""
        return StoreReader(Path(path))

    # Writes. Each returns a future at once, for `await`; a bad request and a store that cannot serve raise at once.

    def create(self, key: bytes, value: bytes, lease: int = 0) -> asyncio.Future[int]:
        """Store a new key; its revision. Raises KeyExists."""
        write = Write(key, value, ABSENT, lease)
        return self._submit((write,), check_write(write))

    def create_for(self, waiter: Waiter, key: bytes, value: bytes) -> None:
        """`create` without a future."""
        write = Write(key, value, ABSENT)
        self._submit_for(waiter, (write,), check_write(write))

    def update(self, key: bytes, value: bytes, expected_mod_revision: int, lease: int = 0) -> asyncio.Future[int]:
        """Replace the version of `expected_mod_revision`; the new revision. Raises RevisionMismatch."""
        if expected_mod_revision <= 0:
            raise InvalidRequest("an update needs the mod revision that it replaces")
        write = Write(key, value, expected_mod_revision, lease)
        return self._submit((write,), check_write(write))

    def update_for(self, waiter: Waiter, key: bytes, value: bytes, expected_mod_revision: int) -> None:
        """`update` without a future, of a revision that is one."""
        write = Write(key, value, expected_mod_revision)
        self._submit_for(waiter, (write,), check_write(write))

    def put(self, key: bytes, value: bytes, lease: int = 0) -> asyncio.Future[int]:
        """Store whatever the key had before; the new revision. Raises LeaseNotFound."""
        write = Write(key, value, ANY, lease)
        return self._submit((write,), check_write(write))

    def delete(self, key: bytes, expected_mod_revision: int = 0) -> asyncio.Future[Deleted]:
        """Delete a key; what it was, and when it ended. Raises KeyMissing, RevisionMismatch."""
        write = Write(key, None, expected_mod_revision or ANY)
        return self._submit((write,), check_write(write))

    def retire(self, key: bytes, value: bytes, expected_mod_revision: int) -> asyncio.Future[Deleted]:
        """Replace a version by a last one and delete that; both, or nothing. Raises KeyMissing, RevisionMismatch."""
        size = check_write(Write(key, value, expected_mod_revision))
        return self._submit((Retire(key, value, expected_mod_revision),), size)

    def write(self, writes: Iterable[Write]) -> asyncio.Future[list[Result]]:
        """Independent writes, each with its own revision; for each its result, or its refusal as a StoreError."""
        commands = tuple(writes)
        if len(commands) > MAX_WRITES:
            raise InvalidRequest(f"{len(commands)} writes in one call (at most {MAX_WRITES})")
        return self._submit(commands, sum(map(check_write, commands)), many=True)

    def txn(
        self, compares: Iterable[Compare], success: Iterable[Op], failure: Iterable[Op] = ()
    ) -> asyncio.Future[TxnResult]:
        """etcd's transaction. If it raises, nothing was done.

        Raises Compacted, FutureRevision, LeaseNotFound, DuplicateKey, and KeyMissing for a put that keeps something.
        """
        command = Txn(tuple(compares), tuple(success), tuple(failure))
        check_txn(command)
        ops = command.success + command.failure
        if only_reads(ops):
            return self._answered(lambda: read_txn(self._open_view(), command))
        return self._submit((command,), values_bytes(ops))

    async def lease_grant(self, ttl_s: int, lease: int = 0) -> int:
        """A lease of `ttl_s` seconds; its id, drawn here unless given. Raises LeaseExists."""
        if not 0 < ttl_s <= _MAX_TTL_S or not 0 <= lease <= _MAX_LEASE:
            raise InvalidRequest(f"a lease of {ttl_s} s with id {lease}")
        lease = lease or secrets.randbelow(_MAX_LEASE) + 1
        await self._submit((GrantLease(lease, ttl_s),), 0)
        return lease

    def lease_revoke(self, lease: int) -> asyncio.Future[int]:
        """End a lease and delete its keys, in one revision. Raises LeaseNotFound."""
        check_number(lease, "lease")
        return self._submit((RevokeLease(lease),), 0)

    async def lease_keepalive(self, lease: int) -> int:
        """Begin the lease's time again; returns it, in seconds. Raises LeaseNotFound."""
        self._open_view()
        if self.consensus is not None and not self._lessor.leads:
            left: int = await self.consensus.call("keepalive", lease)
            return left
        return self._lessor.keep_alive(lease)

    async def lease_info(self, lease: int) -> LeaseInfo:
        """`lease_ttl` of the server that keeps the time. Raises LeaseNotFound."""
        if self.consensus is not None and not self._lessor.leads:
            found = LeaseInfo(*await self.consensus.call("lease_info", lease))
            return found._replace(keys=list(found.keys))
        return self.lease_ttl(lease)

    async def _lease_info_here(self, lease: int) -> LeaseInfo:
        return self.lease_ttl(lease)

    def lease_ttl(self, lease: int) -> LeaseInfo:
        """How long the lease lives if nobody keeps it alive, as far as this server knows. Raises LeaseNotFound."""
        view = self._open_view()
        left_s, granted_s = self._lessor.time_left(lease)
        return LeaseInfo(lease, left_s, granted_s, view.lease_keys(lease))

    def leases(self) -> list[int]:
        return self._lessor.ids()

    async def compact(self, revision: int, *, physical: bool = False) -> None:
        """Give up everything before `revision`. Raises Compacted (it is done already), FutureRevision.

        The room is freed in the background, a little with each commit; `physical` waits for that.
        """
        if revision <= 0:
            raise InvalidRequest(f"compaction at revision {revision}")
        await self._submit((Compact(revision),), 0)
        if physical and self._trimming:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._trimmed.append(waiter)
            await waiter

    async def backup(self, target: str | os.PathLike[str]) -> None:
        """Copy the store as it is now to the new directory `target`, writes going on. Raises BackupFailed."""
        self._open_view()
        await backup(self.path, Path(target))

    @property
    def is_replicated(self) -> bool:
        """Whether other servers write this store too, so that `read_barrier` has something to wait for."""
        return self.consensus is not None

    @property
    def leads(self) -> bool:
        """Whether this is the server of several that does what only one needs to do; always with one."""
        return self.consensus is None or self.consensus.leads

    def when_leading(self, callback: Callable[[], None]) -> None:
        """Call it each time this server begins to lead."""
        self._leading.append(callback)

    def read_barrier(self) -> Awaitable[None] | None:
        """What to wait for before reads see all that any server has acknowledged; None: nothing, they do.

        Raises StoreUnavailable, at once or when awaited.
        """
        return self._replica.barrier()

    def status(self) -> Status:
        """Where the store stands, and whether it serves."""
        view = self._open_view()
        health, reason = self._health()
        return Status(
            health,
            reason,
            view.revision,
            view.compacted,
            self.applied,
            self._engine.live_bytes(view.txn),
            self._engine.file_bytes,
            self._engine.map_bytes,
            self._engine.max_bytes,
            self._queued,
            self._hub.watchers,
            len(self._lessor.ids()),
            self._trimming,
        )

    def _health(self) -> tuple[str, str]:
        if self._failure is not None:
            return "failed", str(self._failure)
        if (full := self._find_space()) is not None:
            return "no space", str(full)
        if self.consensus is not None:
            health = self.consensus.status().health
            return health.partition(":")[0], "" if health == "serving" else health
        return "serving", ""

    async def close(self) -> None:
        """Commit what was accepted, end every watch, close the files."""
        first = not self._closing
        self._closing = True
        self._lessor.close()
        if self.consensus is not None:
            if first:
                await self.consensus.leave()
            self.consensus.close()
        while self._busy or self._queued:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._idle.append(waiter)
            await waiter
        if first:
            self._replica.close()
            if self._journal is not None:
                self._journal.close(whole=self._failure is None)
            if self.consensus is not None:
                self.consensus.close_files()
            self._bell.close()
            _fail_all(self._trimmed, StoreClosed(f"{self.path}: the store was closed before it was trimmed"))
            self._close_reads()

    def _submit(self, commands: tuple[Command, ...], size: int, many: bool = False) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._submit_for(future, commands, size, many)
        return future

    def _submit_for(self, waiter: Waiter, commands: tuple[Command, ...], size: int, many: bool = False) -> None:
        self._admit(size)
        if not self._proposed:
            self._loop.call_soon(self._propose)
        self._proposed.append(Proposal(commands, waiter, size, many))
        self._queued += 1
        self._queued_bytes += size

    def _admit(self, size: int) -> None:
        if self._closing:
            raise StoreClosed(f"{self.path}: the store is closed")
        if self._failure is not None:
            raise _again(self._failure)
        if size and self.consensus is not None and self.consensus.no_space is not None:
            raise _again(self.consensus.no_space)
        if self._queued >= _QUEUE_COMMANDS or self._queued_bytes > _QUEUE_BYTES:
            raise Overloaded(f"{self._queued} writes are waiting for the disk")
        if size and (self._no_space is not None or self._live_bytes > self._engine.max_bytes):
            full = self._find_space()
            if full is not None:
                raise _again(full)

    def _find_space(self) -> NoSpace | None:
        """Why there is no room for another put; None if there is."""
        if self._no_space is not None:
            disk = os.statvfs(self.path)
            if disk.f_bavail * disk.f_frsize < _SPACE_BYTES:
                return self._no_space
            self._no_space = None
        if self._live_bytes > self._engine.max_bytes:
            return NoSpace(f"{self.path}: {self._live_bytes} bytes of data reach the limit of {self._engine.max_bytes}")
        return None

    def _answered(self, answer: Callable[[], _T]) -> asyncio.Future[_T]:
        """A future for what needs no write."""
        future: asyncio.Future[_T] = self._loop.create_future()
        try:
            future.set_result(answer())
        except StoreError as refusal:
            future.set_exception(refusal)
        return future

    def _propose(self) -> None:
        proposed, self._proposed = self._proposed, []
        self._replica.propose(proposed)

    def on_committed(self, proposals: list[Proposal]) -> None:
        self._committed.extend(proposals)
        if not self._busy:
            self._apply_next()

    def _apply_next(self) -> None:
        """Give the committer the next batch, if there is anything to do."""
        if self._failure is not None:
            return
        proposals = self._take()
        trim = self._trimming and not self._closing
        if proposals or trim:
            self._busy = True
            self._committer.start(Batch(proposals, trim))

    def _take(self) -> list[Proposal]:
        committed = self._committed
        taken: list[Proposal] = []
        room = _BATCH_BYTES
        while committed and len(taken) < _BATCH_COMMANDS and room > 0:
            proposal = committed.popleft()
            room -= proposal.size
            taken.append(proposal)
        while committed and committed[0].index == taken[-1].index:  # one entry of the log, one index: all or nothing
            taken.append(committed.popleft())
        self._forget(taken)
        return taken

    def _forget(self, proposals: Iterable[Proposal]) -> None:
        """They no longer wait; those of other servers never counted."""
        for proposal in proposals:
            if proposal.future is not None:
                self._queued -= 1
                self._queued_bytes -= proposal.size

    def _done(self, batch: Batch) -> None:
        self._busy = False
        if batch.error is not None or batch.state is None:
            self._failed(batch)
            return
        state = batch.state
        compacted_before = self._view.compacted
        if batch.events or state.revision != self._view.revision or state.compacted != compacted_before:
            self._view.renew(state)
        self.applied = state.applied
        self._live_bytes = batch.live_bytes
        self._trimming = batch.trim_left or state.compacted != compacted_before or self._trim_again
        self._trim_again = False
        if self._committed or self._trimming:
            self._apply_next()  # first of all: the disk shall not wait while requests are answered
        for proposal, result in zip(batch.proposals, batch.results, strict=True):
            self._answer(proposal, result)
        self._hub.dispatch(batch.events, state.revision)
        if batch.events:
            self._bell.ring()
        self._replica.applied(state.applied)
        self._wake_waiters()

    def _answer(self, proposal: Proposal, result: Any) -> None:
        future = proposal.future
        if isinstance(result, StoreError):
            if future is not None and not future.done():
                future.set_exception(result)
            return
        if not proposal.many and proposal.commands[0].__class__ is not Write:
            self._note_lease(proposal.commands[0])
        if future is not None and not future.done():
            future.set_result(result)

    def _note_lease(self, command: Command) -> None:
        if isinstance(command, GrantLease):
            self._lessor.granted(command.lease, command.ttl_s)
        elif isinstance(command, RevokeLease):
            self._lessor.revoked(command.lease)

    def _failed(self, batch: Batch) -> None:
        """Nothing of the batch was written."""
        error = batch.error or StoreUnavailable("the batch was not applied")
        if self.consensus is not None and isinstance(error, NoSpace) and not self._closing:
            self._stall(batch, error)
            return
        doomed = batch.proposals
        if isinstance(error, NoSpace):
            self._no_space = error
            self._trim_again = self._trimming  # when a command gets through
            self._trimming = False
        else:
            self._failure = error
            if self.consensus is not None and isinstance(error, StoreFailed):
                self.consensus.fail(error)
            doomed = [*doomed, *self._committed, *self._proposed]
            self._committed.clear()
            self._proposed.clear()
            self._queued = self._queued_bytes = 0
        _fail_all(self._trimmed, error)
        self._trimmed.clear()
        _fail_all([proposal.future for proposal in doomed], error)
        if self._committed:
            self._apply_next()
        self._wake_waiters()

    # What only a replicated store has to do.

    def _stall(self, batch: Batch, error: NoSpace) -> None:
        """What is agreed on cannot be refused any more: it waits for space, and all behind it with it."""
        self._no_space = error
        self._committed.extendleft(reversed(batch.proposals))
        for proposal in batch.proposals:
            if proposal.future is not None:
                self._queued += 1
                self._queued_bytes += proposal.size
        if self.consensus is not None:
            self.consensus.stalled()
        self._busy = True
        self._loop.call_later(_STALL_S, self._try_again)

    def _try_again(self) -> None:
        self._busy = False
        if not self._closed:
            self._apply_next()

    def on_dropped(self, proposals: list[Proposal], error: StoreUnavailable) -> None:
        """The replica gives up on them. Should they be applied all the same, nobody waits any more."""
        self._forget(proposals)
        for proposal in proposals:
            future, proposal.future = proposal.future, None
            _fail_all([future], error)
        self._wake_waiters()

    def on_lead(self, leads: bool) -> None:
        """This server begins, or ends, to lead: leases run out by the leader's clock."""
        if not leads:
            self._lessor.follow()
            return
        txn = self._engine.read()
        try:
            reading = Reading(txn, self._engine.databases, self._engine.state(txn))
            self._lessor.lead(reading.leases(), reading.lease_checkpoints())
        finally:
            txn.abort()
        for callback in self._leading:
            callback()

    def _checkpoint_lease(self, lease: int, left_s: int) -> asyncio.Future[int]:
        return self._submit((CheckpointLease(lease, left_s),), 0)

    def _on_grow(self) -> None:
        self._view.renew()
        if self._journal is not None:
            self._journal.grown()
        if self.consensus is not None:
            self.consensus.grown()

    async def begin_install(self) -> None:
        """Nothing is applied from here to `end_install` or `abort_install`."""
        while self._busy:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._idle_once.append(waiter)
            await waiter
        self._busy = True

    def make_room(self, size: int) -> None:
        """For a copy of `size` bytes beside the old data. Raises OSError, lmdb.Error."""
        needed = self._engine.file_bytes + 2 * size + _SPACE_BYTES
        if needed > self._engine.map_bytes:
            self._engine.grow(needed)
            self._on_grow()
        self._engine.cover(size, self._engine.file_bytes)

    def load(self, path: Path, index: int, term: int) -> None:
        """Replace everything by what the snapshot has, in one transaction. Raises CorruptStore, lmdb.Error."""
        load_snapshot(self._engine, path, index, term)

    def abort_install(self) -> None:
        self._busy = False
        self._wake_waiters()

    def end_install(self, index: int) -> bytes:
        """Go on with the new data. Watches continue from its log, as far back as that goes."""
        reached, before = self._hub.revision, self._view
        view = self._view = View(self._engine)
        self._busy = False
        self.applied = index
        self._lessor.reload(view.leases())
        self._trimming = view.needs_trim()
        try:
            if reached + 1 >= view.compacted:
                self._dispatch_from(reached)
            else:
                self._hub.jump(difference(before, view), view.revision, Compacted(view.compacted))
        finally:
            before.close()
        self._bell.ring()
        if self._committed:
            self._apply_next()
        return view.members()

    def _dispatch_from(self, reached: int) -> None:
        view = self._view
        while reached < view.revision:
            chunk = view.events_from(reached + 1, b"", TO_THE_END, _BATCH_COMMANDS, _BATCH_COMMANDS)
            self._hub.dispatch(chunk.events, chunk.reached)
            reached = chunk.reached

    def _wake_waiters(self) -> None:
        if self._trimmed and not self._trimming:
            _wake(self._trimmed)
        if not self._busy:
            _wake(self._idle_once)
        if self._idle and not self._busy and not self._queued:
            _wake(self._idle)


def _again(error: StoreUnavailable) -> StoreUnavailable:
    """The same error for another caller: an exception instance carries the traceback of one."""
    return type(error)(*error.args)


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()


def _fail_all(futures: Iterable[Waiter | None], error: StoreUnavailable) -> None:
    for future in futures:
        if future is not None and not future.done():
            future.set_exception(_again(error))

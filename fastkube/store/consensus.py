"""The driver of Raft: a Replica whose proposals are agreed on by a majority of servers.

    propose → batch → leader? raft.propose : forwarded to the leader          one batch, one entry, for a turn's writes
    raft.ready → messages to peers, at once
               → entries and hard state to the log, one record and one sync for all that came together
               → responses, raft.advance
               → committed entries → the store, in their order → applied

The rules of _raft (D1 to D8) are kept here, and these:
 1. Exactly once. A batch is sent under a term and counted only in that term: the leader drops what was sent under
    another, and what it has seen. All entries of a term come before those of a later one. So when an entry of a later
    term is applied and the batch was not, it never will be, and is proposed again. A client notices a new leader by the
    time it takes, not by an error.
 2. What was not applied when its time is over is failed with StoreUnavailable: it may still be done. A batch whose
    result can no longer be known (a snapshot has taken its place) as well.
 3. A read waits until this server has applied what was committed when the read came: as the leader tells by its lease,
    or confirms with a majority. All reads of one turn ask once.
 4. The log is kept from the last checkpoint of the store on (checkpoint.py), and some more for followers that are
    behind. One that needs older entries gets a snapshot; meanwhile nothing is compacted.
 5. The log cannot be written: for want of space, nothing new is taken and the write is tried again; for any other
    reason this member falls silent, and the others go on. The same holds when committed entries cannot be applied,
    or a snapshot cannot be installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import lmdb

from fastkube._raft import LEADER, ROLE_NAMES, Raft, Ready, SoftState
from fastkube._raftlog import CONF_CHANGE, SNAPSHOT, Entry, HardState, Message, entries_bytes
from fastkube.clock import Clock
from fastkube.store.calling import Calling
from fastkube.store.changing import Changing
from fastkube.store.checkpoint import Pin
from fastkube.store.engine import lacks_space
from fastkube.store.errors import (
    DISK_FULL,
    NoSpace,
    StoreClosed,
    StoreError,
    StoreFailed,
    StoreUnavailable,
)
from fastkube.store.log import Recovered, Write
from fastkube.store.members import Membership
from fastkube.store.parts import ANSWER, CALL, FORWARD, MESSAGES, Host, MemberStatus, Parts, Timing
from fastkube.store.proposing import Proposing
from fastkube.store.reading import Reading
from fastkube.store.replica import Proposal
from fastkube.store.wire import message_from_wire, message_to_wire

log = logging.getLogger(__name__)

_RETRY_S = 1.0
_CHECKPOINT_S = 2.0
_CHECKPOINT_BYTES = 32 << 20
CATCH_UP_ENTRIES = 5_000
"""etcd's number of entries that are kept for followers that are a little behind."""

_CATCH_UP_BYTES = 64 << 20


class RaftReplica:
    """Everything happens on the loop that made it."""

    def __init__(
        self,
        host: Host,
        parts: Parts,
        recovered: Recovered,
        membership: Membership,
        *,
        name: str,
        clock: Clock,
        seed: int,
        timing: Timing = Timing(),  # noqa: B008  (a constant tuple)
        catch_up_entries: int = CATCH_UP_ENTRIES,
    ) -> None:
        self.cluster, self.id = parts.log.identity
        self._name = name
        self._host = host
        self._parts = parts
        self._clock = clock
        self._timing = timing
        self._catch_up_entries = catch_up_entries
        self._loop = asyncio.get_running_loop()
        self._raft = Raft(
            self.id,
            seed=seed,
            conf=membership.conf,
            hard_state=recovered.hard_state,
            entries=recovered.entries,
            compacted=recovered.compacted,
            compacted_term=recovered.compacted_term,
            applied=host.applied,
            election_tick=timing.election_ticks,
        )
        self._hard_state = recovered.hard_state
        self._leads = False
        self._handed = host.applied
        # Storage.
        self._unwritten: deque[Ready] = deque()
        self._writing: list[Ready] = []
        self._bytes_since_checkpoint = 0
        self._log_bytes = entries_bytes(recovered.entries)
        self._checkpointing: Pin | None = None
        self._checkpoint_due = 0.0
        self._preparing = False
        self._snapshots_out = 0
        raft, transport = self._raft, parts.transport
        self._proposing = Proposing(raft, host, transport, clock, seed)
        self._reading = Reading(raft, host, clock, seed, timing.election_s / 2, self._pump)
        self._calling = Calling(raft, transport)
        self._changing = Changing(raft, membership, transport, self._calling, clock, timing, self._pump)
        self.methods = self._calling.methods
        self.call = self._calling.call
        self.change_member = self._changing.change_member
        self.transfer = self._changing.transfer
        self._tasks: set[asyncio.Task[None]] = set()
        # Life.
        self._closed = False
        self._failure: StoreFailed | None = None
        self.no_space: NoSpace | None = None
        self._ticked_at = clock.monotonic()
        parts.transport.know(membership)
        self._timer = self._loop.call_later(timing.heartbeat_s, self._on_timer)
        self._pump()

    # ---------------------------------------------------------------- time

    def _on_timer(self) -> None:
        self._timer = self._loop.call_later(self._timing.heartbeat_s, self._on_timer)
        self._catch_up_ticks()
        self._proposing.retry_waiting()
        self._proposing.give_up_late()
        self._reading.ask_again()
        self._maybe_checkpoint()
        self._pump()

    def _catch_up_ticks(self) -> None:
        """D6: one tick for each interval that has passed, however late the timer comes."""
        tick_s = self._timing.heartbeat_s
        passed = int((self._clock.monotonic() - self._ticked_at) / tick_s)
        if passed <= 0:
            return
        self._ticked_at += passed * tick_s
        for _ in range(min(passed, 3 * self._timing.election_ticks)):
            self._raft.tick()

    # ---------------------------------------------------------------- the pump: what raft wants done

    def _pump(self) -> None:
        """Everything that is ready, until nothing is."""
        raft = self._raft
        while raft.has_ready() and not self._closed:
            ready = raft.ready()
            if ready.hard_state is not None:
                self._hard_state = ready.hard_state
            if ready.soft is not None:
                self._on_soft(ready.soft)
            if ready.messages:
                self._send(ready.messages)
            for state in ready.read_states:
                self._reading.on_read_state(state.index, state.context)
            self._unwritten.append(ready)
            if ready.committed:
                self._hand_over(ready.committed)
            self._write()

    def _send(self, messages: list[Message]) -> None:
        by_member: dict[int, list[Any]] = {}
        for message in messages:
            if message.kind == SNAPSHOT:
                self._start(self._send_snapshot(message))
            else:
                by_member.setdefault(message.to, []).append(message_to_wire(message))
        for member, found in by_member.items():
            self._parts.transport.send(member, MESSAGES, found)

    def receive(self, sender: int, kind: int, body: Any) -> None:
        """A frame came in."""
        if self._closed or self._failure is not None:
            return
        if kind == MESSAGES:
            self._catch_up_ticks()
            for packed in body:
                self._raft.step(message_from_wire(packed))
        elif kind == FORWARD:
            self._proposing.on_forward(sender, *body)
        elif kind == CALL:
            self._start(self._calling.on_call(sender, *body))
        elif kind == ANSWER:
            self._calling.on_answer(*body)
        self._pump()

    def unreachable(self, member: int) -> None:
        """The way to it was lost, with what was on it."""
        self._raft.report_unreachable(member)

    def reached(self, member: int) -> None:
        """There is a way to it again: what was forwarded may have been lost with the one before (rule 1)."""
        if member == self._raft.lead:
            self._proposing.resend()

    def _on_soft(self, soft: SoftState) -> None:
        leads = soft.role == LEADER
        if leads != self._leads:
            self._leads = leads
            log.info("%s is %s in term %d", self._name, ROLE_NAMES[soft.role], self._raft.term)
            self._host.on_lead(leads)
        if soft.lead:
            self._loop.call_soon(self._on_leader_known)

    def _on_leader_known(self) -> None:
        if not self._closed:
            self._proposing.retry_waiting()
            self._pump()

    # ---------------------------------------------------------------- storage

    def _write(self) -> None:
        """Give the log what is next: all that waits, up to a snapshot, which is written alone."""
        if self._writing or not self._unwritten or self._failure is not None:
            return
        if self._unwritten[0].snapshot is not None:
            self._writing = [self._unwritten.popleft()]
            self._start(self._install(self._writing[0]))
            return
        while self._unwritten and self._unwritten[0].snapshot is None:
            self._writing.append(self._unwritten.popleft())
        if not any(ready.must_sync for ready in self._writing):
            self._written(None)  # a commit index alone: it goes with the next record
            return
        write = Write(self._newest_hard_state(), self._merged_entries())
        self._submit_write(write)

    def _newest_hard_state(self) -> HardState:
        """Of the readies that are written now; those behind them may know of a later one."""
        found = [ready.hard_state for ready in self._writing if ready.hard_state is not None]
        return found[-1] if found else self._parts.log.hard_state

    def _merged_entries(self) -> list[Entry]:
        """A later ready's entries replace those of the same index."""
        merged: list[Entry] = []
        for ready in self._writing:
            if ready.entries:
                first = ready.entries[0].index
                while merged and merged[-1].index >= first:
                    merged.pop()
                merged += ready.entries
        return merged

    def _submit_write(self, write: Write) -> None:
        def done(error: Exception | None) -> None:
            if error is None:
                size = entries_bytes(write.entries)
                self._bytes_since_checkpoint += size
                self._log_bytes += size
                self._prepare()
            self._on_log(write, error)

        try:
            self._parts.log.append_beside(write, self._parts.appender, done)
        except OSError as error:
            self._loop.call_soon(done, error)

    def _on_log(self, write: Write, error: Exception | None) -> None:
        if self._closed:
            return
        if error is None:
            self.no_space = None
            self._written(write)
        elif isinstance(error, OSError) and error.errno in DISK_FULL:
            self.no_space = NoSpace(f"{self._parts.folder}: the log cannot be written: {error}")
            log.error("%s", self.no_space)
            self._resign()
            self._loop.call_later(_RETRY_S, self._try_again, write)
        else:
            self.fail(StoreFailed(f"{self._parts.folder}: the log cannot be written: {error!r}"))

    def _try_again(self, write: Write) -> None:
        if not self._closed:
            self._submit_write(write)

    def _written(self, write: Write | None) -> None:
        """D2: now the responses may leave."""
        done, self._writing = self._writing, []
        for ready in done:
            if ready.responses:
                self._send(ready.responses)
            self._raft.advance(ready.number)
        if write is not None:
            self._pump()
        self._write()

    def fail(self, error: StoreFailed) -> None:
        """Rule 5: this member falls silent."""
        if self._failure is not None:
            return
        self._failure = error
        log.error("%s: %s", self._name, error)
        self._timer.cancel()
        self._parts.transport.close()
        self._drop_all(error)

    def _resign(self) -> None:
        """Somebody with room should lead."""
        raft = self._raft
        if raft.role == LEADER:
            others = [(raft.progress[one].match, one) for one in raft.config.all_voters() if one != self.id]
            if others:
                raft.transfer(max(others)[1])

    def stalled(self) -> None:
        """The store cannot apply for want of space; it tries again."""
        self._resign()
        self._pump()

    # Checkpoints and compaction.

    def _maybe_checkpoint(self) -> None:
        now = self._clock.monotonic()
        due = now >= self._checkpoint_due or self._bytes_since_checkpoint > _CHECKPOINT_BYTES
        if self._checkpointing is not None or not due or self._host.applied == self._parts.checkpoints.applied:
            return
        self._checkpoint_due = now + _CHECKPOINT_S
        self._bytes_since_checkpoint = 0
        checkpoints = self._parts.checkpoints
        pin = self._checkpointing = checkpoints.begin()

        def done(error: Exception | None) -> None:
            if self._closed or self._checkpointing is not pin:
                checkpoints.end(pin, False)  # the map, or all data, was replaced meanwhile: there is a newer one
                return
            self._checkpointing = None
            checkpoints.end(pin, error is None)
            if error is None:
                self._compact()
            else:
                log.error("%s: no checkpoint: %s", self._name, error)

        self._parts.checkpoint_work.submit(lambda: checkpoints.record(pin), done)

    def grown(self) -> None:
        """The map was replaced, and every transaction with it: a checkpoint at once, before anything is written."""
        self._checkpointing = None
        self._parts.checkpoints.now()

    def _compact(self) -> None:
        """Rule 4."""
        raft = self._raft
        behind = self._parts.checkpoints.applied
        if self._log_bytes <= _CATCH_UP_BYTES:
            behind -= self._catch_up_entries
        if self._snapshots_out or behind <= raft.log.compacted:
            return
        self._log_bytes -= entries_bytes(raft.log.slice(raft.log.first_index(), behind + 1, 1 << 62))
        raft.compact(behind)
        try:
            self._parts.log.compact(behind)
        except OSError as error:
            log.error("%s: old segments of the log remain: %s", self._name, error)

    def _prepare(self) -> None:
        """The next segment of the log. Where there is no room for it, the one who needs it finds out."""
        log, size = self._parts.log, self._parts.log.next_bytes
        if size and not self._preparing:
            self._preparing = True

            def done(error: Exception | None) -> None:
                self._preparing = False

            self._parts.checkpoint_work.submit(lambda: log.prepare(size), done)

    # ---------------------------------------------------------------- committed entries

    def _hand_over(self, entries: list[Entry]) -> None:
        proposals: list[Proposal] = []
        for entry in entries:
            if self._proposing.saw_term(entry.term):
                self._loop.call_soon(self._propose_again)  # after all of these were looked at
            found = self._proposals_of(entry)
            for proposal in found:
                proposal.index = entry.index
            proposals += found
        self._handed = entries[-1].index
        self._host.on_committed(proposals)

    def _proposals_of(self, entry: Entry) -> list[Proposal]:
        if entry.kind == CONF_CHANGE:
            return [self._changing.take(entry)]
        return self._proposing.take(entry) if entry.data else [Proposal((), None, many=True)]

    def applied(self, index: int) -> None:
        """The store has applied everything up to here."""
        raft = self._raft
        if index > raft.log.applied:
            raft.applied_to(index)
        self._reading.applied(index)
        if raft.has_ready() and not self._closed:
            self._loop.call_soon(self._pump)

    # ---------------------------------------------------------------- what the store asks

    def propose(self, proposals: list[Proposal]) -> None:
        if self._closed or self._failure is not None:
            self._host.on_dropped(proposals, self._failure or StoreClosed("the store is closed"))
            return
        self._proposing.propose(proposals)
        self._pump()

    def _propose_again(self) -> None:
        if not self._closed and self._failure is None:
            self._proposing.propose_again()
            self._pump()

    def barrier(self) -> Awaitable[None] | None:
        """What to wait for before a read; None when this server knows that it is current."""
        if self._failure is not None or self._closed:
            raise self._failure or StoreClosed("the store is closed")
        self._catch_up_ticks()
        return self._reading.barrier()

    def _drop_all(self, error: StoreUnavailable) -> None:
        for part in (self._proposing, self._reading, self._calling, self._changing):
            part.drop_all(error)

    @property
    def membership(self) -> Membership:
        """Who replicates the store, as far as this member knows."""
        return self._changing.membership

    # ---------------------------------------------------------------- snapshots

    async def _send_snapshot(self, message: Message) -> None:
        """D7: a copy of the store as it is, newer than the message asks for."""
        arrived = False
        self._snapshots_out += 1
        try:
            path, index, packed = await self._parts.copy(self._parts.folder)
            try:
                conf = Membership.from_bytes(packed).conf
                snapshot = message.snapshot
                assert snapshot is not None
                snapshot = snapshot._replace(index=index, term=self._raft.log.term(index), conf=conf)
                message = message._replace(snapshot=snapshot)
                arrived = await self._parts.transport.send_snapshot(message.to, path, message)
            finally:
                _remove(path)
        except (OSError, lmdb.Error, StoreError) as error:
            log.warning("%s: no snapshot for %x: %s", self._name, message.to, error)
        finally:
            self._snapshots_out -= 1
        if not self._closed:
            self._raft.report_snapshot(message.to, arrived)
            self._pump()

    def snapshot_received(self, path: Path, message: Message) -> None:
        """The file is here, whole and checked."""
        snapshot = message.snapshot
        if self._closed or snapshot is None:
            _remove(path)
            return
        self._raft.step(message._replace(snapshot=snapshot._replace(data=str(path).encode())))
        self._pump()

    async def _install(self, ready: Ready) -> None:
        """The state first, then the log, which begins behind it: in between the state is ahead, as `recover` knows."""
        snapshot = ready.snapshot
        assert snapshot is not None
        while self._host.applied < self._handed:  # D4
            await self._clock.sleep(self._timing.heartbeat_s / 10)
        self._checkpointing = None
        path = Path(snapshot.data.decode())
        await self._host.begin_install()
        try:
            await self._with_space(lambda: self._load(path, snapshot.index, snapshot.term))
            await self._with_space(self._record)
            packed = self._host.end_install(snapshot.index)
        except (OSError, lmdb.Error, StoreError) as error:
            self._host.abort_install()
            self.fail(StoreFailed(f"{self._parts.folder}: a snapshot could not be installed: {error}"))
            return
        except asyncio.CancelledError:
            self._host.abort_install()
            raise
        finally:
            _remove(path)
        self._changing.membership = Membership.from_bytes(packed)
        self._parts.transport.know(self.membership)
        self._handed = snapshot.index
        self._proposing.saw_term(snapshot.term)
        self._proposing.drop_unknown(snapshot.term)
        self._log_bytes = 0
        hard_state = ready.hard_state or self._hard_state
        self._submit_write(Write(hard_state, ready.entries, (snapshot.index, snapshot.term)))

    async def _with_space(self, step: Callable[[], Awaitable[None]]) -> None:
        """A step of an installation, tried again for as long as the disk is full (rule 5)."""
        while True:
            try:
                return await step()
            except (OSError, lmdb.Error) as error:
                if not lacks_space(error, self._parts.folder):
                    raise
                self.no_space = NoSpace(f"{self._parts.folder}: no room to install a snapshot: {error}")
                log.error("%s", self.no_space)
            await self._clock.sleep(_RETRY_S)

    async def _load(self, path: Path, index: int, term: int) -> None:
        self._host.make_room(_size(path))
        await self._work(lambda: self._host.load(path, index, term))

    async def _record(self) -> None:
        checkpoints, recorded = self._parts.checkpoints, False
        pin = checkpoints.begin()
        try:
            await self._work(lambda: checkpoints.record(pin))
            recorded = True
        finally:
            checkpoints.end(pin, recorded)

    def _work(self, job: Callable[[], None]) -> asyncio.Future[None]:
        """A job away from the loop, to be awaited."""
        future: asyncio.Future[None] = self._loop.create_future()

        def done(error: Exception | None) -> None:
            if not future.done():
                future.set_result(None) if error is None else future.set_exception(error)

        self._parts.checkpoint_work.submit(job, done)
        return future

    # ---------------------------------------------------------------- life

    def _start(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def term(self) -> int:
        return self._raft.term

    @property
    def leader(self) -> int:
        """Its id; 0 if none is known."""
        return self._raft.lead

    def status(self) -> MemberStatus:
        raft = self._raft
        health = "serving"
        if self._failure is not None:
            health = f"failed: {self._failure}"
        elif self.no_space is not None:
            health = f"no space: {self.no_space}"
        elif not raft.lead:
            health = "no leader"
        return MemberStatus(
            self.id,
            self._name,
            ROLE_NAMES[raft.role],
            raft.lead,
            raft.term,
            raft.log.committed,
            self._host.applied,
            self.membership,
            health,
        )

    @property
    def leads(self) -> bool:
        return self._leads

    async def leave(self) -> None:
        """Before an orderly end: hand over the lead, so that nobody has to notice by a timeout."""
        self._resign()
        self._pump()
        deadline = self._clock.monotonic() + self._timing.election_s
        while self._leads and self._raft.transferee and self._clock.monotonic() < deadline:
            await self._clock.sleep(self._timing.heartbeat_s / 4)

    def close(self) -> None:
        """Fails what is not agreed on; the last checkpoint is the store's to make, when it has applied the rest."""
        if self._closed:
            return
        self._closed = True
        self._timer.cancel()
        self._parts.transport.close()
        self._drop_all(StoreClosed("the store was closed: a write that was still waiting may be done"))
        for task in self._tasks:
            task.cancel()

    def close_files(self) -> None:
        """After the store's last batch."""
        self._parts.appender.close()
        self._parts.checkpoint_work.close()
        with contextlib.suppress(OSError):
            if self._failure is None:
                self._parts.checkpoints.now()
        self._parts.checkpoints.release()
        self._parts.log.close()


def _size(path: Path) -> int:
    return path.stat().st_size


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)

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
    reason this member falls silent, and the others go on. The same holds when committed entries cannot be applied.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fastkube._raft import LEADER, ROLE_NAMES, ProposalDropped, Raft, Ready, SoftState
from fastkube._raftconf import ADD_LEARNER, ADD_VOTER, REMOVE, ConfChange, ConfChangeRefused, decode_change
from fastkube._raftlog import CONF_CHANGE, SNAPSHOT, Entry, HardState, Message, entries_bytes
from fastkube.clock import Clock
from fastkube.store.checkpoint import Checkpoints, Pin
from fastkube.store.command import SetMembers
from fastkube.store.errors import (
    DISK_FULL,
    InvalidRequest,
    NoSpace,
    StoreClosed,
    StoreError,
    StoreFailed,
    StoreUnavailable,
    error_from_wire,
    error_to_wire,
)
from fastkube.store.log import RaftLog, Recovered, Write
from fastkube.store.members import Member, Membership
from fastkube.store.replica import Proposal
from fastkube.store.wire import command_from_wire, command_to_wire, message_from_wire, message_to_wire, pack, unpack

log = logging.getLogger(__name__)

# Frames between members.
MESSAGES = 1
FORWARD = 2
CALL = 3
ANSWER = 4

REQUEST_TIMEOUT_S = 7.0  # etcd's: five seconds and two election timeouts
_BATCH_PROPOSALS = 512
_BATCH_BYTES = 4 << 20
_RETRY_S = 1.0
_CHECKPOINT_S = 2.0
_CHECKPOINT_BYTES = 32 << 20
CATCH_UP_ENTRIES = 5_000
"""etcd's number of entries that are kept for followers that are a little behind."""
_CATCH_UP_BYTES = 64 << 20
_SEEN_MAX = 4096


class Timing(NamedTuple):
    """etcd's two settings. An election takes from one to two timeouts."""

    heartbeat_s: float = 0.06
    election_s: float = 0.6

    @property
    def election_ticks(self) -> int:
        return max(2, round(self.election_s / self.heartbeat_s))


class Host(Protocol):
    """The store, as its replica sees it."""

    applied: int

    def on_committed(self, proposals: list[Proposal]) -> None: ...

    def on_dropped(self, proposals: list[Proposal], error: StoreUnavailable) -> None:
        """They will never be handed over."""

    def on_lead(self, leads: bool) -> None: ...

    async def begin_install(self, size: int) -> None:
        """Nothing is applied from here to the end; makes room for a copy of `size` bytes."""

    def load(self, path: Path, index: int, term: int) -> None:
        """In any thread: replace all data by that of a snapshot, in one transaction."""

    def end_install(self, index: int) -> bytes:
        """See it; the membership in it."""


class Transport(Protocol):
    """To other members. Nothing blocks; what cannot be sent is lost."""

    def send(self, to: int, kind: int, body: Any) -> None: ...

    def know(self, membership: Membership) -> None:
        """Who there is to talk to."""

    async def send_snapshot(self, to: int, path: Path, message: Message) -> bool:
        """True when the other side has all of it."""

    def close(self) -> None: ...


class Work(Protocol):
    """Runs one job after the other away from the loop, and calls back on it."""

    def submit(self, job: Callable[[], None], done: Callable[[Exception | None], None]) -> None: ...

    def close(self) -> None: ...


Copy = Callable[[Path], Awaitable[tuple[Path, int, bytes]]]
"""Makes a copy of the running store in a folder: (file, applied index, membership)."""


class MemberStatus(NamedTuple):
    id: int
    name: str
    role: str
    leader: int
    term: int
    commit: int
    applied: int
    membership: Membership
    health: str


class _Batch:
    """Proposals that share an entry."""

    __slots__ = ("data", "deadline", "number", "proposals", "term")

    def __init__(self, number: int, proposals: list[Proposal], data: bytes, deadline: float) -> None:
        self.number = number
        self.proposals = proposals
        self.data = data
        self.deadline = deadline
        self.term = 0  # under which it was sent; 0 while it waits for a leader


class _Reads:
    """Readers who asked together."""

    __slots__ = ("asked_at", "waiters")

    def __init__(self, waiters: list[asyncio.Future[None]], asked_at: float) -> None:
        self.waiters = waiters
        self.asked_at = asked_at


class Parts(NamedTuple):
    """What a replica is made of; the simulation has its own."""

    log: RaftLog
    checkpoints: Checkpoints
    transport: Transport
    log_work: Work
    checkpoint_work: Work
    copy: Copy
    folder: Path


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
        self.membership = membership
        self._name = name
        self._host = host
        self._parts = parts
        self._clock = clock
        self._timing = timing
        self._catch_up_entries = catch_up_entries
        self._loop = asyncio.get_running_loop()
        self._incarnation = seed
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
        self._newest_term = self._raft.log.term(host.applied)
        # Storage.
        self._unwritten: deque[Ready] = deque()
        self._writing: list[Ready] = []
        self._bytes_since_checkpoint = 0
        self._log_bytes = entries_bytes(recovered.entries)
        self._checkpointing: Pin | None = None
        self._checkpoint_due = 0.0
        self._snapshots_out = 0
        # Proposals.
        self._numbers = 0
        self._pending: dict[int, _Batch] = {}
        self._seen: dict[tuple[int, int], set[int]] = {}
        self._seen_term = 0
        self._held: list[tuple[int, int, int, int, int, bytes]] = []
        # Reads.
        self._asking: list[asyncio.Future[None]] = []
        self._reads: dict[bytes, _Reads] = {}
        self._read_number = 0
        self._at_index: deque[tuple[int, list[asyncio.Future[None]]]] = deque()
        # Calls.
        self._call_number = 0
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self.methods: dict[str, Callable[..., Awaitable[Any]]] = {
            "change": self._change_here,
            "transfer": self._transfer_here,
        }
        self._changes: dict[int, asyncio.Future[Membership]] = {}
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
        self._retry_waiting()
        self._give_up_late()
        self._ask_again()
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
                self._on_read_state(state.index, state.context)
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
            self._on_forward(sender, *body)
        elif kind == CALL:
            self._start(self._on_call(sender, *body))
        elif kind == ANSWER:
            self._on_answer(*body)
        self._pump()

    def unreachable(self, member: int) -> None:
        """The way to it was lost, with what was on it."""
        self._raft.report_unreachable(member)

    def reached(self, member: int) -> None:
        """There is a way to it again: what was forwarded may have been lost with the one before (rule 1)."""
        if member == self._raft.lead:
            for batch in self._pending.values():
                if batch.term == self._raft.term:
                    self._forward(batch)

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
            self._retry_waiting()
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
            self._on_log(write, error)

        self._parts.log_work.submit(lambda: self._parts.log.append(write), done)

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
                return  # the map was replaced meanwhile: there is a newer checkpoint
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
        self._parts.log_work.submit(lambda: self._parts.log.compact(behind), self._on_compacted)

    def _on_compacted(self, error: Exception | None) -> None:
        if error is not None and not self._closed:
            log.error("%s: old segments of the log remain: %s", self._name, error)

    # ---------------------------------------------------------------- committed entries

    def _hand_over(self, entries: list[Entry]) -> None:
        proposals: list[Proposal] = []
        for entry in entries:
            if entry.term > self._newest_term:
                self._newest_term = entry.term
                self._loop.call_soon(self._propose_again)  # after all of these were looked at
            found = self._proposals_of(entry)
            for proposal in found:
                proposal.index = entry.index
            proposals += found
        self._handed = entries[-1].index
        self._host.on_committed(proposals)

    def _proposals_of(self, entry: Entry) -> list[Proposal]:
        if entry.kind == CONF_CHANGE:
            return [self._change_of(entry)]
        if not entry.data:
            return [Proposal((), None, many=True)]
        origin, incarnation, number, packed = unpack(entry.data)
        if origin == self.id and incarnation == self._incarnation:
            batch = self._pending.pop(number, None)
            if batch is not None:
                return batch.proposals
        return [Proposal(tuple(map(command_from_wire, commands)), None, many=many) for many, commands in unpack(packed)]

    def applied(self, index: int) -> None:
        """The store has applied everything up to here."""
        raft = self._raft
        if index > raft.log.applied:
            raft.applied_to(index)
        while self._at_index and self._at_index[0][0] <= index:
            _wake(self._at_index.popleft()[1])
        if raft.has_ready() and not self._closed:
            self._loop.call_soon(self._pump)

    # ---------------------------------------------------------------- proposals (rule 1)

    def propose(self, proposals: list[Proposal]) -> None:
        size = 0
        group: list[Proposal] = []
        for proposal in proposals:
            group.append(proposal)
            size += proposal.size
            if len(group) >= _BATCH_PROPOSALS or size >= _BATCH_BYTES:
                self._propose_batch(group)
                group, size = [], 0
        if group:
            self._propose_batch(group)
        self._pump()

    def _propose_batch(self, proposals: list[Proposal]) -> None:
        if self._closed or self._failure is not None:
            self._host.on_dropped(proposals, self._failure or StoreClosed("the store is closed"))
            return
        self._numbers += 1
        packed = pack([(each.many, [command_to_wire(one) for one in each.commands]) for each in proposals])
        data = pack((self.id, self._incarnation, self._numbers, packed))
        batch = _Batch(self._numbers, proposals, data, self._clock.monotonic() + REQUEST_TIMEOUT_S)
        self._pending[batch.number] = batch
        self._dispatch(batch)

    def _dispatch(self, batch: _Batch) -> None:
        raft = self._raft
        batch.term = 0
        if raft.role == LEADER:
            with contextlib.suppress(ProposalDropped):  # it waits, for the next timer or leader
                raft.propose([batch.data])
                batch.term = raft.term
        elif raft.lead:
            batch.term = raft.term
            self._forward(batch)

    def _forward(self, batch: _Batch) -> None:
        oldest = next(iter(self._pending))
        body = (batch.term, self._incarnation, batch.number, oldest, batch.data)
        self._parts.transport.send(self._raft.lead, FORWARD, body)

    def _on_forward(self, origin: int, term: int, incarnation: int, number: int, oldest: int, data: bytes) -> None:
        raft = self._raft
        if raft.role != LEADER or raft.term != term:
            return  # the origin notices by the entries of a later term
        if self._seen_term != term:
            self._seen_term = term
            self._seen.clear()
        seen = self._seen.setdefault((origin, incarnation), set())
        if number in seen:
            return
        seen.add(number)
        if len(seen) > _SEEN_MAX:
            self._seen[origin, incarnation] = {each for each in seen if each >= oldest}
        try:
            raft.propose([data])
        except ProposalDropped:
            self._held.append((term, origin, incarnation, number, oldest, data))

    def _retry_waiting(self) -> None:
        held, self._held = self._held, []
        for term, origin, incarnation, number, oldest, data in held:
            self._seen.get((origin, incarnation), set()).discard(number)
            self._on_forward(origin, term, incarnation, number, oldest, data)
        for batch in [one for one in self._pending.values() if not one.term]:
            self._dispatch(batch)

    def _propose_again(self) -> None:
        """Batches of terms that are over and were not among their entries."""
        if self._closed or self._failure is not None:
            return
        for batch in list(self._pending.values()):
            if batch.term and batch.term < self._newest_term:
                self._dispatch(batch)
        self._pump()

    def _give_up_late(self) -> None:
        now = self._clock.monotonic()
        late = [batch for batch in self._pending.values() if batch.deadline <= now]
        for batch in late:
            del self._pending[batch.number]
            sent = "it may still be done" if batch.term else "nothing was written"
            why = "no leader" if not self._raft.lead else "no majority"
            self._host.on_dropped(batch.proposals, StoreUnavailable(f"request timed out ({why}): {sent}"))

    def _drop_all(self, error: StoreUnavailable) -> None:
        batches, self._pending = self._pending, {}
        for batch in batches.values():
            self._host.on_dropped(batch.proposals, error)
        waiters = [*self._asking]
        for reads in self._reads.values():
            waiters += reads.waiters
        for _, found in self._at_index:
            waiters += found
        futures: list[asyncio.Future[Any]] = [*waiters, *self._calls.values(), *self._changes.values()]
        for future in futures:
            if not future.done():
                future.set_exception(type(error)(*error.args))
        self._asking, self._reads, self._calls, self._changes = [], {}, {}, {}
        self._at_index.clear()

    # ---------------------------------------------------------------- reads (rule 3)

    def barrier(self) -> Awaitable[None] | None:
        """What to wait for before a read; None when this server knows that it is current."""
        if self._failure is not None or self._closed:
            raise self._failure or StoreClosed("the store is closed")
        self._catch_up_ticks()
        raft = self._raft
        if raft.has_lease() and self._host.applied >= raft.log.committed:
            return None
        waiter = self._loop.create_future()
        if not self._asking:
            self._loop.call_soon(self._ask)
        self._asking.append(waiter)
        return self._current(waiter)

    async def _current(self, waiter: asyncio.Future[None]) -> None:
        try:
            await asyncio.wait_for(waiter, REQUEST_TIMEOUT_S)
        except TimeoutError:
            raise StoreUnavailable("request timed out: no majority confirms that this server is current") from None

    def _ask(self) -> None:
        waiters = [one for one in self._asking if not one.done()]
        self._asking = []
        if not waiters or self._closed:
            return
        self._read_number += 1
        context = pack((self._incarnation, self._read_number))
        self._reads[context] = _Reads(waiters, self._clock.monotonic())
        self._raft.read_index(context)  # without a leader it is asked again
        self._pump()

    def _ask_again(self) -> None:
        """Questions and answers are lost like any message, and leaders change."""
        old = self._clock.monotonic() - self._timing.election_s / 2
        for context in [one for one, reads in self._reads.items() if reads.asked_at <= old]:
            self._asking += self._reads.pop(context).waiters
        if self._asking:
            self._ask()

    def _on_read_state(self, index: int, context: bytes) -> None:
        reads = self._reads.pop(context, None)
        if reads is None:
            return
        if self._host.applied >= index:
            _wake(reads.waiters)
        else:
            self._at_index.append((index, reads.waiters))
            if len(self._at_index) > 1 and self._at_index[-2][0] > index:
                self._at_index = deque(sorted(self._at_index, key=lambda each: each[0]))

    # ---------------------------------------------------------------- membership

    async def change_member(self, operation: str, member: Member) -> Membership:
        """One change, through the leader. Raises InvalidRequest and StoreUnavailable."""
        packed: bytes = await self.call("change", operation, tuple(member))
        return Membership.from_bytes(packed)

    async def _change_here(self, operation: str, packed: Any) -> bytes:
        member = Member(*packed)
        self._check_change(operation, member)
        change = ConfChange(((operation, member.id),), context=pack(member))
        try:
            index = self._raft.propose_change(change)
        except ConfChangeRefused as refusal:
            raise InvalidRequest(str(refusal)) from None
        except ProposalDropped as refusal:
            raise StoreUnavailable(f"the change was not made: {refusal}") from None
        self._pump()
        waiter = self._changes[index] = self._loop.create_future()
        membership: Membership = await waiter
        return membership.to_bytes()

    def _check_change(self, operation: str, member: Member) -> None:
        """As etcd refuses them: members that are there, are not, or are not ready, and what would cost the majority."""
        raft, known = self._raft, self.membership.find(member.id)
        if operation in (ADD_LEARNER,) or (operation == ADD_VOTER and known is None):
            urls = {url for each in self.membership.members for url in each.peer_urls}
            if known is not None or urls & set(member.peer_urls):
                raise InvalidRequest("etcdserver: Peer URLs already exists")
        elif known is None:
            raise InvalidRequest("etcdserver: member not found")
        if operation == ADD_VOTER and known is not None:
            progress = raft.progress.get(member.id)
            if member.id not in raft.config.learners:
                raise InvalidRequest("etcdserver: can only promote a learner member")
            if progress is None or progress.match * 10 < raft.log.committed * 9:
                raise InvalidRequest("etcdserver: can only promote a learner member which is in sync with leader")
        if operation == REMOVE and member.id in raft.config.voters:
            left = [one for one in raft.config.voters if one != member.id]
            active = sum(1 for one in left if self._is_active(one))
            if active < len(left) // 2 + 1:
                raise InvalidRequest("etcdserver: re-configuration failed due to not enough started members")

    def _is_active(self, member: int) -> bool:
        """Whether it answered a heartbeat lately."""
        rounds = self._raft.progress[self.id].acked_round - self._raft.progress[member].acked_round
        return self._raft.progress[member].recent_active or rounds <= 2 * self._timing.election_ticks

    def _change_of(self, entry: Entry) -> Proposal:
        """A change is part of the state: it is kept with everything else that is applied (D8)."""
        change = decode_change(entry.data)
        conf = self._raft.apply_change(change)
        membership = self.membership._replace(conf=conf)
        if change.context:
            member = Member(*unpack(change.context))
            member = member._replace(peer_urls=tuple(member.peer_urls))
            if member.name or membership.find(member.id) is None:
                membership = membership.with_member(member)
        ids = {*conf.voters, *conf.outgoing, *conf.learners}
        self.membership = membership._replace(members=tuple(one for one in membership.members if one.id in ids))
        self._parts.transport.know(self.membership)
        future = self._changes.pop(entry.index, None)
        if future is not None and not future.done():
            future.set_result(self.membership)
        return Proposal((SetMembers(self.membership.to_bytes()),), None)

    async def transfer(self, target: int) -> None:
        """Have another member lead. Raises InvalidRequest, StoreUnavailable."""
        await self.call("transfer", target)

    async def _transfer_here(self, target: int) -> None:
        if target not in self._raft.config.voters:
            raise InvalidRequest("etcdserver: member not found, or no voter")
        self._raft.transfer(target)
        self._pump()
        deadline = self._clock.monotonic() + 2 * self._timing.election_s
        while self._raft.lead != target:
            if self._clock.monotonic() > deadline:
                raise StoreUnavailable("etcdserver: request timed out, leader transfer took too long")
            await self._clock.sleep(self._timing.heartbeat_s / 2)

    # ---------------------------------------------------------------- calls: what the leader alone can answer

    async def call(self, method: str, *arguments: Any) -> Any:
        """Have the leader do it. Raises what it raises, and StoreUnavailable when there is none."""
        raft = self._raft
        if raft.role == LEADER:
            return await asyncio.wait_for(self.methods[method](*arguments), REQUEST_TIMEOUT_S)
        if not raft.lead:
            raise StoreUnavailable("there is no leader")
        self._call_number += 1
        number = self._call_number
        future = self._calls[number] = self._loop.create_future()
        self._parts.transport.send(raft.lead, CALL, (number, method, arguments))
        try:
            return await asyncio.wait_for(future, REQUEST_TIMEOUT_S)
        except TimeoutError:
            raise StoreUnavailable("request timed out: the leader did not answer") from None
        finally:
            self._calls.pop(number, None)

    async def _on_call(self, sender: int, number: int, method: str, arguments: Any) -> None:
        try:
            if self._raft.role != LEADER:
                raise StoreUnavailable("not the leader")
            answer = (number, True, await self.methods[method](*arguments))
        except StoreError as refusal:
            answer = (number, False, error_to_wire(refusal))
        self._parts.transport.send(sender, ANSWER, answer)

    def _on_answer(self, number: int, well: bool, result: Any) -> None:
        future = self._calls.pop(number, None)
        if future is None or future.done():
            return
        if well:
            future.set_result(result)
        else:
            future.set_exception(error_from_wire(*result))

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
        except (OSError, StoreError) as error:
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
        try:
            await self._host.begin_install(_size(path))
            await self._work(lambda: self._host.load(path, snapshot.index, snapshot.term))
            pin = self._parts.checkpoints.begin()
            await self._work(lambda: self._parts.checkpoints.record(pin))
            self._parts.checkpoints.end(pin, True)
            packed = self._host.end_install(snapshot.index)
        except (OSError, StoreError) as error:
            self.fail(StoreFailed(f"{self._parts.folder}: a snapshot could not be installed: {error}"))
            return
        finally:
            _remove(path)
        self.membership = Membership.from_bytes(packed)
        self._parts.transport.know(self.membership)
        self._handed = snapshot.index
        self._newest_term = max(self._newest_term, snapshot.term)
        self._drop_unknown(snapshot.term)
        self._log_bytes = 0
        hard_state = ready.hard_state or self._hard_state
        self._submit_write(Write(hard_state, ready.entries, (snapshot.index, snapshot.term)))

    def _work(self, job: Callable[[], None]) -> asyncio.Future[None]:
        """A job away from the loop, to be awaited."""
        future: asyncio.Future[None] = self._loop.create_future()

        def done(error: Exception | None) -> None:
            if not future.done():
                future.set_result(None) if error is None else future.set_exception(error)

        self._parts.checkpoint_work.submit(job, done)
        return future

    def _drop_unknown(self, term: int) -> None:
        """Rule 2: what was sent in terms up to the snapshot's may be in it."""
        for batch in [one for one in self._pending.values() if 0 < one.term <= term]:
            del self._pending[batch.number]
            error = StoreUnavailable("this server fell behind: the write may have been done")
            self._host.on_dropped(batch.proposals, error)

    # ---------------------------------------------------------------- life

    def _start(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

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
        self._parts.log_work.close()
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


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)

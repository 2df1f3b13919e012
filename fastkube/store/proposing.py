"""Writes on their way to be agreed on, each exactly once (rules 1 and 2 of consensus.py)."""

from __future__ import annotations

import contextlib

from fastkube._raft import LEADER, ProposalDropped, Raft
from fastkube._raftlog import Entry
from fastkube.clock import Clock
from fastkube.store.errors import StoreUnavailable
from fastkube.store.parts import FORWARD, REQUEST_TIMEOUT_S, Host, Transport
from fastkube.store.replica import Proposal
from fastkube.store.wire import command_from_wire, command_to_wire, pack, unpack

_BATCH_PROPOSALS = 512
_BATCH_BYTES = 4 << 20
_SEEN_MAX = 4096


class _Batch:
    """Proposals that share an entry."""

    __slots__ = ("data", "deadline", "number", "proposals", "term")

    def __init__(self, number: int, proposals: list[Proposal], data: bytes, deadline: float) -> None:
        self.number = number
        self.proposals = proposals
        self.data = data
        self.deadline = deadline
        self.term = 0  # under which it was sent; 0 while it waits for a leader


class Proposing:
    """The batches of this server, and those that others forward to it while it leads."""

    def __init__(self, raft: Raft, host: Host, transport: Transport, clock: Clock, incarnation: int) -> None:
        self._raft = raft
        self._host = host
        self._transport = transport
        self._clock = clock
        self._incarnation = incarnation
        self._newest_term = raft.log.term(host.applied)
        self._numbers = 0
        self._pending: dict[int, _Batch] = {}
        self._seen: dict[tuple[int, int], set[int]] = {}
        self._seen_term = 0
        self._held: list[tuple[int, int, int, int, int, bytes]] = []

    def saw_term(self, term: int) -> bool:
        """An entry of this term is handed over; True if it is the first one, so that `propose_again` has work."""
        if term <= self._newest_term:
            return False
        self._newest_term = term
        return True

    def resend(self) -> None:
        """There is a new way to the leader: what was forwarded may have been lost with the one before."""
        for batch in self._pending.values():
            if batch.term == self._raft.term and self._raft.role != LEADER:
                self._forward(batch)

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

    def _propose_batch(self, proposals: list[Proposal]) -> None:
        self._numbers += 1
        packed = pack([(each.many, [command_to_wire(one) for one in each.commands]) for each in proposals])
        data = pack((self._raft.id, self._incarnation, self._numbers, packed))
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
        self._transport.send(self._raft.lead, FORWARD, body)

    def on_forward(self, origin: int, term: int, incarnation: int, number: int, oldest: int, data: bytes) -> None:
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

    def retry_waiting(self) -> None:
        """What found no leader, or one that took nothing."""
        held, self._held = self._held, []
        for term, origin, incarnation, number, oldest, data in held:
            self._seen.get((origin, incarnation), set()).discard(number)
            self.on_forward(origin, term, incarnation, number, oldest, data)
        for batch in [one for one in self._pending.values() if not one.term]:
            self._dispatch(batch)

    def propose_again(self) -> None:
        """Batches of terms that are over and were not among their entries."""
        for batch in list(self._pending.values()):
            if batch.term and batch.term < self._newest_term:
                self._dispatch(batch)

    def give_up_late(self) -> None:
        """Whoever waits for more than its time is told so."""
        now = self._clock.monotonic()
        late = [batch for batch in self._pending.values() if batch.deadline <= now]
        for batch in late:
            del self._pending[batch.number]
            sent = "it may still be done" if batch.term else "nothing was written"
            why = "no leader" if not self._raft.lead else "no majority"
            self._host.on_dropped(batch.proposals, StoreUnavailable(f"request timed out ({why}): {sent}"))

    def drop_all(self, error: StoreUnavailable) -> None:
        batches, self._pending = self._pending, {}
        for batch in batches.values():
            self._host.on_dropped(batch.proposals, error)

    def take(self, entry: Entry) -> list[Proposal]:
        """What an entry holds: the very objects that were proposed here, or what another server proposed."""
        origin, incarnation, number, packed = unpack(entry.data)
        if origin == self._raft.id and incarnation == self._incarnation:
            batch = self._pending.pop(number, None)
            if batch is not None:
                return batch.proposals
        return [Proposal(tuple(map(command_from_wire, commands)), None, many=many) for many, commands in unpack(packed)]

    def drop_unknown(self, term: int) -> None:
        """Rule 2: what was sent in terms up to the snapshot's may be in it."""
        for batch in [one for one in self._pending.values() if 0 < one.term <= term]:
            del self._pending[batch.number]
            error = StoreUnavailable("this server fell behind: the write may have been done")
            self._host.on_dropped(batch.proposals, error)

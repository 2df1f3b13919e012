"""Raft as a pure state machine: no I/O, no clock, no randomness but an injected seed. The driver does everything else.

Sections and figures are those of "In Search of an Understandable Consensus Algorithm (Extended Version)"; chapters
those of Ongaro's thesis.

    step(message)   what another member said               propose(datas)     entries to be agreed on (leader only)
    tick()          one tick of time has passed            read_index(ctx)    asks from which index on reads are current
    ready()         what the driver has to do now          advance(number)    a ready's storage part is durable
    applied_to(i)   entries up to i are applied            apply_change(c)    a CONF_CHANGE entry is applied

What the driver owes. It may take the next ready before it has finished the last one (storage writes are asynchronous),
as long as it keeps these rules:
  D1. Readies are handled in their order, and `advance` is called for each in that order.
  D2. `ready.snapshot`, `ready.hard_state` and `ready.entries` are made durable together; entries replace those that
      have the same index or a greater one. Only then: `ready.responses` are sent, and `advance` is called.
      `must_sync` False means that nothing of it needs to survive a crash.
  D3. `ready.messages` are sent at once, beside the write. They may be lost, reordered and duplicated.
  D4. `ready.committed` is applied in order, each entry once, after everything that came before it. A CONF_CHANGE entry
      is also given to `apply_change`, before any later entry is applied. When entries are applied, `applied_to` is
      called. A ready's snapshot is installed before anything behind it.
  D5. A message to another member keeps its term: it is not sent on behalf of a later incarnation. A member that lost
      what D2 made durable must never come back under the same id.
  D6. `tick` is called once for every interval of time that has passed, also for those that passed while the process
      stood still, and before a read is asked for: leases are measured in ticks.
  D7. A SNAPSHOT message stands for the whole state. The driver may send a newer one than it says; it reports the end
      by `report_snapshot`. What cannot be reached it reports by `report_unreachable`.
  D8. A restarted member gets back: hard state, configuration at `applied`, log entries behind the compacted one. The
      members that found a cluster begin as if restarted from a snapshot (index 1 of term 1) with its configuration.
      One that joins begins with nothing: what it lacks comes by a snapshot, since no entry tells the first members.

What holds (Figure 3), and what it rests on here:
  R1. Election Safety: one vote a term, durable before the answer leaves (D2); the own vote counts only then, too.
  R2. Leader Append-Only: a leader never calls Log.append for an index that it has.
  R3. Log Matching: Log.maybe_append takes entries only behind one that matches.
  R4. Leader Completeness: only logs that are up to date get votes (§5.4.1); by counting, only entries of the leader's
      own term are committed (§5.4.2); its own log counts only as far as it is durable.
  R5. State Machine Safety: only committed entries are handed out, and only once they are durable here.
  R6. A member that hears from a leader gives no vote, unless that leader asks for it (TRANSFERRED). So no leader is
      elected within `election_tick` ticks of a heartbeat that a majority answered: that is the lease. It is forfeited
      for the rest of the term once a TimeoutNow was sent, since that may take effect at any later time.
  R7. At most one change of the configuration is not applied at any time: what is proposed before is refused.

A member is a follower, a pre-candidate, a candidate or a leader:

    follower ──timeout──▶ pre-candidate ──majority would vote──▶ candidate ──majority──▶ leader
       ▲  ▲──────────── a leader, or a majority refuses ──────────────┘  │                  │
       └─────────────── a higher term, or no majority was heard of for a whole timeout ─────┘
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import cython

from fastkube._raftconf import (
    LOST,
    PROBE,
    REPLICATE,
    SNAPSHOT_STATE,
    WON,
    ConfChange,
    ConfChangeRefused,
    Config,
    Progress,
    encode_change,
)
from fastkube._raftlog import (
    APPEND,
    APPEND_RESPONSE,
    CONF_CHANGE,
    HEARTBEAT,
    HEARTBEAT_RESPONSE,
    NO_LIMIT,
    NORMAL,
    PRE_VOTE,
    PRE_VOTE_RESPONSE,
    READ_INDEX,
    READ_INDEX_RESPONSE,
    SNAPSHOT,
    TIMEOUT_NOW,
    TRANSFER,
    VOTE,
    VOTE_RESPONSE,
    ConfState,
    Entry,
    HardState,
    Log,
    Message,
    Snapshot,
    entries_bytes,
)

COMPILED: bool = cython.compiled

FOLLOWER = 0
PRE_CANDIDATE = 1
CANDIDATE = 2
LEADER = 3
ROLE_NAMES = ("follower", "pre-candidate", "candidate", "leader")

NONE = 0
"""No member: ids are greater."""

TRANSFERRED = b"transferred"
"""Context of a vote request that the leader asked for: R6 does not stand against it."""

_DRIFT = 10
"""Clocks of two members differ in their rate by less than one part in so many; leases are shorter by that much."""

_RANDOM_FACTOR = 6364136223846793005
_RANDOM_STEP = 1442695040888963407
_RANDOM_MASK = (1 << 64) - 1


class ProposalDropped(Exception):
    """Was not appended, for sure; the text says why."""


class SoftState(NamedTuple):
    """What is worth knowing and needs not be kept."""

    lead: int
    role: int


class ReadState(NamedTuple):
    """A read that asked with `context` is current once `index` is applied."""

    index: int
    context: bytes


class Ready(NamedTuple):
    """What to do now; the rules are D1 to D4. Empty parts are empty or None."""

    number: int
    soft: SoftState | None
    hard_state: HardState | None
    snapshot: Snapshot | None
    entries: list[Entry]
    committed: list[Entry]
    messages: list[Message]
    responses: list[Message]
    read_states: list[ReadState]
    must_sync: bool


class _Writing(NamedTuple):
    """A ready whose storage part is not durable yet."""

    number: int
    last_index: int
    last_term: int
    snapshot: int
    own: list[Message]


@cython.cclass
class Raft:
    """One member."""

    id = cython.declare(cython.longlong, visibility="readonly")
    term = cython.declare(cython.longlong, visibility="readonly")
    vote = cython.declare(cython.longlong, visibility="readonly")
    lead = cython.declare(cython.longlong, visibility="readonly")
    role = cython.declare(cython.int, visibility="readonly")
    log = cython.declare(object, visibility="readonly")
    config = cython.declare(object, visibility="readonly")
    progress = cython.declare(dict, visibility="readonly")  # of every id in the configuration (C5), oneself included
    transferee = cython.declare(cython.longlong, visibility="readonly")
    election_timeout = cython.declare(cython.longlong, visibility="readonly")  # drawn anew for each term and role

    # Limits.
    _election_tick: cython.longlong
    _heartbeat_tick: cython.longlong
    _max_append_bytes: cython.longlong
    _max_inflight_messages: cython.longlong
    _max_inflight_bytes: cython.longlong
    _max_uncommitted_bytes: cython.longlong
    _max_committed_bytes: cython.longlong

    # Time, in ticks.
    _now: cython.longlong
    _election_elapsed: cython.longlong
    _heartbeat_elapsed: cython.longlong
    _random: object

    # Of a candidate, and of a leader.
    _votes: dict
    _pending_change: cython.longlong  # no change is proposed before this index is applied (R7)
    _uncommitted_bytes: cython.longlong
    _round: cython.longlong  # of heartbeats, counted through all terms
    _rounds: object  # (round, tick it was sent at) of those no majority has answered yet
    _lease_from: cython.longlong  # when the newest round was sent that a majority has answered; -1 for none
    _lease_forfeited: cython.bint
    _lease_ticks: cython.longlong
    _reads: object  # (round that confirms it, index, reader, context), in the order of rounds
    _early_reads: list  # (reader, context): asked before the first commit of this term

    # What the next ready takes.
    _messages: list
    _after: list  # to be sent, or stepped by oneself, when the storage part is durable
    _read_states: list
    _told_soft: object
    _told_hard: object
    _number: cython.longlong
    _writing: object

    def __init__(
        self,
        id: int,
        *,
        seed: int,
        conf: ConfState,
        hard_state: HardState = HardState(0, 0, 0),  # noqa: B008  (a constant tuple)
        entries: list[Entry] | None = None,
        compacted: int = 0,
        compacted_term: int = 0,
        applied: int = 0,
        election_tick: int = 10,
        heartbeat_tick: int = 1,
        max_append_bytes: int = 1 << 20,
        max_inflight_messages: int = 256,
        max_inflight_bytes: int = 64 << 20,
        max_uncommitted_bytes: int = 256 << 20,
        max_committed_bytes: int = 16 << 20,
    ) -> None:
        if id <= 0:
            raise ValueError(f"{id} is no member id")
        if not 0 < heartbeat_tick < election_tick:
            raise ValueError("election_tick must be greater than heartbeat_tick")
        if conf.voters and not (applied and hard_state.term):
            raise ValueError("a configuration without the snapshot that it came from (D8)")
        self.id = id
        self._election_tick = election_tick
        self._heartbeat_tick = heartbeat_tick
        self._max_append_bytes = max_append_bytes
        self._max_inflight_messages = max_inflight_messages
        self._max_inflight_bytes = max_inflight_bytes
        self._max_uncommitted_bytes = max_uncommitted_bytes
        self._max_committed_bytes = max_committed_bytes
        # Both ends round: the follower's timeout may be short of one tick, the leader's measure of time by another.
        self._lease_ticks = (election_tick - 1) * _DRIFT // (_DRIFT + 1) - 1
        self._random = (seed * _RANDOM_FACTOR + id) & _RANDOM_MASK
        self._now = 0
        self._round = 0
        self._number = 0
        self._messages = []
        self._after = []
        self._read_states = []
        self._writing = deque()
        self.term, self.vote = hard_state.term, hard_state.vote
        commit = max(hard_state.commit, applied, compacted)
        self.log = Log(entries or [], compacted, compacted_term, commit, applied)
        self.config = Config.from_state(conf)
        self.progress = {}
        self._follow_config()
        self._told_hard = HardState(self.term, self.vote, self.log.committed)
        self._become_follower(self.term, NONE)
        self._told_soft = SoftState(NONE, FOLLOWER)

    # ---------------------------------------------------------------- what a member is

    @cython.cfunc
    def _reset(self, term: cython.longlong) -> cython.void:
        """Begin anew in a term: nothing that was counted before counts now."""
        if self.term != term:
            self.term = term
            self.vote = NONE
        self.lead = NONE
        self.transferee = NONE
        self._election_elapsed = 0
        self._heartbeat_elapsed = 0
        self._random = (self._random * _RANDOM_FACTOR + _RANDOM_STEP) & _RANDOM_MASK
        self.election_timeout = self._election_tick + (self._random >> 33) % self._election_tick
        self._votes = {}
        self._pending_change = 0
        self._uncommitted_bytes = 0
        self._rounds = deque()
        self._lease_from = -1
        self._lease_forfeited = False
        self._reads = deque()
        self._early_reads = []

    def _become_follower(self, term: int, lead: int) -> None:
        self._reset(term)
        self.lead = lead
        self.role = FOLLOWER

    def _become_pre_candidate(self) -> None:
        """Thesis 9.6: asks whether it could win, before its term disturbs anyone. Neither term nor vote change."""
        self._reset(self.term)
        self.role = PRE_CANDIDATE

    def _become_candidate(self) -> None:
        self._reset(self.term + 1)
        self.vote = self.id
        self.role = CANDIDATE

    def _become_leader(self) -> None:
        """§5.4.2: an entry of the new term is appended first; nothing older is committed before it is."""
        last: cython.longlong = self.log.last_index()
        self._reset(self.term)
        self.lead = self.id
        self.role = LEADER
        self._new_progress()
        # Changes in the tail may be of an earlier leader: wait until all of it is applied (R7).
        self._pending_change = last
        self._append([(NORMAL, b"")])

    def _new_progress(self) -> None:
        last: cython.longlong = self.log.last_index()
        self.progress = {}
        self._follow_config()
        for member, progress in self.progress.items():
            progress.next = last + 1
            if member == self.id:
                progress.match = self.log.stable
                progress.become_replicate()
                progress.next = last + 1

    @cython.cfunc
    def _follow_config(self) -> cython.void:
        """C5: a Progress for each id of the configuration."""
        config = self.config
        members = config.members()
        for member in [one for one in self.progress if one not in members]:
            del self.progress[member]
        for member in sorted(members):
            is_learner = member in config.learners
            progress = self.progress.get(member)
            if progress is not None:
                progress.is_learner = is_learner
                continue
            # A new one counts as active: a check of the quorum right after the change must not depose the leader.
            self.progress[member] = Progress(
                0, self.log.last_index() + 1, self._max_inflight_messages, self._max_inflight_bytes, is_learner, True
            )

    def is_promotable(self) -> bool:
        """Whether it may campaign: a voter that does not wait for a snapshot."""
        return self.log.snapshot is None and self.id in self.config.all_voters()

    # ---------------------------------------------------------------- time

    def tick(self) -> None:
        """One tick has passed."""
        self._now += 1
        self._election_elapsed += 1
        if self.role == LEADER:
            self._tick_leader()
        elif self._election_elapsed >= self.election_timeout:
            self.campaign()  # a member that may not goes on waiting, and gives its vote to others

    @cython.cfunc
    def _tick_leader(self) -> cython.void:
        self._heartbeat_elapsed += 1
        if self._election_elapsed >= self._election_tick:
            self._election_elapsed = 0
            if not self._has_active_quorum():  # thesis 6.2: nobody listens any more, so somebody else may lead
                self._become_follower(self.term, NONE)
                return
            self.transferee = NONE  # a transfer that takes longer than a timeout is given up
        if self._heartbeat_elapsed >= self._heartbeat_tick:
            self._heartbeat_elapsed = 0
            self._broadcast_heartbeat()

    def _has_active_quorum(self) -> bool:
        """Whether a majority was heard of since the last check; begins the next check."""
        active = {}
        for member, progress in self.progress.items():
            active[member] = progress.recent_active or member == self.id
            progress.recent_active = member == self.id
        return self.config.vote_result(active) == WON

    # ---------------------------------------------------------------- elections (§5.2)

    def campaign(self, transferred: bool = False) -> None:
        """Try to become the leader; not while a change is committed and not applied, whose majority is another."""
        if self.role == LEADER or not self.is_promotable() or self._has_unapplied_change():
            return
        if transferred:
            self._ask_for_votes(VOTE, TRANSFERRED)
        else:
            self._ask_for_votes(PRE_VOTE, b"")

    def _has_unapplied_change(self) -> bool:
        log = self.log
        if log.applied >= log.committed:
            return False
        unapplied = log.slice(log.applied + 1, log.committed + 1, NO_LIMIT)
        return any(entry.kind == CONF_CHANGE for entry in unapplied)

    @cython.cfunc
    def _ask_for_votes(self, kind: cython.int, context: bytes) -> cython.void:
        term: cython.longlong
        if kind == PRE_VOTE:
            self._become_pre_candidate()
            term = self.term + 1  # the one it would have
        else:
            self._become_candidate()
            term = self.term
        index: cython.longlong = self.log.last_index()
        log_term: cython.longlong = self.log.last_term()
        for member in sorted(self.config.all_voters()):
            if member == self.id:
                # R1: the own vote counts when it is durable, as everyone's
                self._after.append(Message(kind + 1, self.id, self.id, term))
            else:
                message = Message(kind, member, self.id, term, log_term=log_term, index=index, context=context)
                self._messages.append(message)

    @cython.cfunc
    def _on_vote(self, message: object) -> cython.void:
        """§5.2, §5.4.1: one vote a term, first come first served, and only for logs that are up to date."""
        pre: cython.bint = message.kind == PRE_VOTE
        free: cython.bint = (
            self.vote == message.sender
            or (self.vote == NONE and self.lead == NONE)
            or (pre and message.term > self.term)
        )
        if pre and self._goes_before(message):
            free = False
        if free and self.log.is_up_to_date(message.index, message.log_term):
            # The answer has the candidate's term: to a pre-vote it is one that this member is not in yet.
            self._after.append(Message(message.kind + 1, message.sender, self.id, message.term))
            if pre and self.role == PRE_CANDIDATE:
                self._become_follower(self.term, NONE)  # it stands back: not both may go on
            if not pre:
                self._election_elapsed = 0
                self.vote = message.sender
        else:
            self._after.append(Message(message.kind + 1, message.sender, self.id, self.term, reject=True))

    @cython.cfunc
    def _goes_before(self, message: object) -> cython.bint:
        """Of two that ask at the same time, each would have the other's pre-vote, and then each only its own vote: the
        term would have no leader, and both wait for one more timeout. So the one with the lower id stands back.

        Only for a heartbeat or two, so that one whose questions are lost does not keep others from leading.
        """
        lately: cython.bint = self.role == PRE_CANDIDATE and self._election_elapsed <= self._heartbeat_tick
        alike: cython.bint = message.index == self.log.last_index() and message.log_term == self.log.last_term()
        return lately and alike and message.sender < self.id

    @cython.cfunc
    def _on_vote_response(self, message: object) -> cython.void:
        pre: cython.bint = message.kind == PRE_VOTE_RESPONSE
        if self.role != (PRE_CANDIDATE if pre else CANDIDATE):
            return
        if message.sender not in self._votes:
            self._votes[message.sender] = not message.reject
        result = self.config.vote_result(self._votes)
        if result == LOST:
            self._become_follower(self.term, NONE)
        elif result == WON and pre:
            self._ask_for_votes(VOTE, b"")
        elif result == WON:
            self._become_leader()
            self._broadcast_append()

    # ---------------------------------------------------------------- messages

    def step(self, message: Message) -> None:
        """Take a message from another member."""
        if message.term > self.term:
            if not self._on_higher_term(message):
                return
        elif message.term < self.term:
            self._on_lower_term(message)
            return
        kind: cython.int = message.kind
        if kind in (VOTE, PRE_VOTE):
            self._on_vote(message)
        elif kind in (VOTE_RESPONSE, PRE_VOTE_RESPONSE):
            self._on_vote_response(message)
        elif kind in (APPEND, HEARTBEAT, SNAPSHOT):
            self._on_leader(message)
        elif kind == TIMEOUT_NOW:
            if self.role == FOLLOWER:
                self.campaign(transferred=True)
        elif kind == TRANSFER:
            self._transfer(int(message.context))
        elif kind == READ_INDEX:
            if self.role == LEADER:
                self._read(message.sender, message.context)
        elif kind == READ_INDEX_RESPONSE:
            self._read_states.append(ReadState(message.index, message.context))
        elif self.role == LEADER:
            progress = self.progress.get(message.sender)
            if progress is None:
                return
            progress.recent_active = True
            if kind == APPEND_RESPONSE:
                self._on_append_response(message, progress)
            elif kind == HEARTBEAT_RESPONSE:
                self._on_heartbeat_response(message, progress)

    @cython.cfunc
    def _on_higher_term(self, message: object) -> cython.bint:
        """§5.1: whoever sees a higher term takes it over. False if the message is to be ignored."""
        kind: cython.int = message.kind
        if kind in (VOTE, PRE_VOTE):
            # R6: the candidate may be one that was cut off, or was removed, and disturbs (§6, thesis 4.2.3)
            in_lease: cython.bint = self.lead != NONE and self._election_elapsed < self._election_tick
            if in_lease and message.context != TRANSFERRED:
                return False
        if kind == PRE_VOTE or (kind == PRE_VOTE_RESPONSE and not message.reject):
            return True  # a term that is only asked for, or that was asked for by this member
        is_leaders: cython.bint = kind in (APPEND, HEARTBEAT, SNAPSHOT)
        self._become_follower(message.term, message.sender if is_leaders else NONE)
        return True

    @cython.cfunc
    def _on_lower_term(self, message: object) -> cython.void:
        """A leader that is none any more is told so: with pre-votes nobody else would end its reign."""
        kind: cython.int = message.kind
        if kind in (APPEND, HEARTBEAT, SNAPSHOT):
            self._messages.append(Message(APPEND_RESPONSE, message.sender, self.id, self.term))
        elif kind == PRE_VOTE:
            self._after.append(Message(PRE_VOTE_RESPONSE, message.sender, self.id, self.term, reject=True))

    @cython.cfunc
    def _on_leader(self, message: object) -> cython.void:
        """The leader of this term speaks."""
        if self.role == LEADER:
            raise AssertionError(f"{message.sender} and {self.id} both lead term {self.term}")  # R1
        if self.role != FOLLOWER:
            self._become_follower(self.term, message.sender)
        self._election_elapsed = 0
        self.lead = message.sender
        if message.kind == APPEND:
            self._on_append(message)
        elif message.kind == HEARTBEAT:
            self._on_heartbeat(message)
        else:
            self._on_snapshot(message)

    # ---------------------------------------------------------------- the follower's part (§5.3)

    @cython.cfunc
    def _on_append(self, message: object) -> cython.void:
        log: object = self.log
        if message.index < log.committed:  # an old one: what is committed here matches anyway
            self._acknowledge(message.sender, log.committed)
            return
        matching: cython.longlong = log.maybe_append(message.index, message.log_term, message.commit, message.entries)
        if matching >= 0:
            self._acknowledge(message.sender, matching)
            return
        # Say where the logs may agree, so that the leader skips what cannot match: whole terms at a time.
        hint, hint_term = log.find_agreement(message.index, message.log_term)
        place = {"index": message.index, "hint": hint, "log_term": hint_term}
        self._after.append(Message(APPEND_RESPONSE, message.sender, self.id, self.term, reject=True, **place))

    @cython.cfunc
    def _acknowledge(self, leader: cython.longlong, index: cython.longlong) -> cython.void:
        """Behind the write: what is acknowledged is durable."""
        self._after.append(Message(APPEND_RESPONSE, leader, self.id, self.term, index=index))

    @cython.cfunc
    def _on_heartbeat(self, message: object) -> cython.void:
        self.log.commit_to(message.commit)
        self._messages.append(Message(HEARTBEAT_RESPONSE, message.sender, self.id, self.term, round=message.round))

    @cython.cfunc
    def _on_snapshot(self, message: object) -> cython.void:
        """§7: it replaces the log, unless the log has what it stands for."""
        snapshot = message.snapshot
        if snapshot.index > self.log.committed and not self.log.matches(snapshot.index, snapshot.term):
            self.log.restore(snapshot)
            self.config = Config.from_state(snapshot.conf)
            self.progress = {}
            self._follow_config()
        else:
            self.log.commit_to(min(snapshot.index, self.log.last_index()))
        self._acknowledge(message.sender, self.log.committed)

    # ---------------------------------------------------------------- the leader's part

    def propose(self, datas: list[bytes]) -> int:
        """Append entries of this term; the index of the first. Raises ProposalDropped: then none was appended."""
        self._check_can_propose()
        size = sum(len(data) for data in datas)
        # Whatever its size, one proposal passes when nothing else waits.
        if size and self._uncommitted_bytes and self._uncommitted_bytes + size > self._max_uncommitted_bytes:
            raise ProposalDropped(f"{self._uncommitted_bytes} bytes wait to be committed")
        first = self._append([(NORMAL, data) for data in datas])
        self._broadcast_append()
        return first

    def propose_change(self, change: ConfChange) -> int:
        """Append a change of the configuration. Raises ProposalDropped, or ConfChangeRefused by the rules C1 to C4."""
        self._check_can_propose()
        if self._pending_change > self.log.applied:
            raise ProposalDropped("another change of the configuration is not applied yet")  # R7
        self.config.changed(change)
        first = self._append([(CONF_CHANGE, encode_change(change))])
        self._pending_change = first
        self._broadcast_append()
        return first

    def _check_can_propose(self) -> None:
        if self.role != LEADER:
            raise ProposalDropped("not the leader")
        if self.id not in self.progress:
            raise ProposalDropped("removed from the configuration")
        if self.transferee != NONE:
            raise ProposalDropped(f"leadership is being transferred to {self.transferee}")

    def _append(self, kinds_and_datas: list) -> int:
        index: cython.longlong = self.log.last_index()
        first: cython.longlong = index + 1
        entries = []
        for kind, data in kinds_and_datas:
            index += 1
            entries.append(Entry(self.term, index, kind, data))
            self._uncommitted_bytes += len(data)
        self.log.append(entries)
        # R4: the leader's own acknowledgement comes, as a follower's, when the entries are durable.
        self._after.append(Message(APPEND_RESPONSE, self.id, self.id, self.term, index=index))
        return first

    @cython.cfunc
    def _broadcast_append(self) -> cython.void:
        for member in self.progress:
            if member != self.id:
                self._send_append(member, True)

    @cython.cfunc
    def _send_append(self, to: cython.longlong, even_if_empty: cython.bint) -> cython.bint:
        """The next entries to a follower, as far as its window allows; True if something was sent."""
        progress: object = self.progress[to]
        if progress.is_paused():
            return False
        log: object = self.log
        before: cython.longlong = progress.next - 1
        term: cython.longlong = log.term(before)
        if term < 0:
            return self._send_snapshot(to, progress)
        entries: list = []
        if progress.state != REPLICATE or not progress.inflights.is_full():
            entries = log.slice(progress.next, log.last_index() + 1, self._max_append_bytes)
        if not entries and not even_if_empty:
            return False
        self._messages.append(
            Message(
                APPEND,
                to,
                self.id,
                self.term,
                log_term=term,
                index=before,
                entries=tuple(entries),
                commit=log.committed,
            )
        )
        progress.sent(len(entries), entries_bytes(entries))
        progress.sent_commit = log.committed
        return True

    def _send_snapshot(self, to: int, progress: object) -> bool:
        """§7: what the follower needs is compacted. The state at `applied` takes its place (D7)."""
        log: object = self.log
        if not progress.recent_active:
            return False
        # A joint configuration that was applied is in `config`; nothing behind `applied` can be.
        snapshot = Snapshot(log.applied, log.term(log.applied), self.config.to_state())
        progress.become_snapshot(snapshot.index)
        self._messages.append(Message(SNAPSHOT, to, self.id, self.term, snapshot=snapshot))
        return True

    @cython.cfunc
    def _on_append_response(self, message: object, progress: object) -> cython.void:
        if message.reject:
            probe: cython.longlong = message.hint
            if message.log_term > 0:
                # The other half of the search: the last of our entries that the follower's term does not rule out.
                probe = self.log.find_agreement(message.hint, message.log_term)[0]
            if progress.rejected(message.index, probe):
                if progress.state == REPLICATE:
                    progress.become_probe()
                self._send_append(message.sender, True)
            return
        was_paused: cython.bint = progress.is_paused()
        news: cython.bint = progress.accepted(message.index)
        if not news and not (progress.state == PROBE and progress.match == message.index):
            return
        if progress.state == PROBE:
            progress.become_replicate()
        elif progress.state == SNAPSHOT_STATE:
            if progress.match + 1 >= self.log.first_index():  # it is where the log can take over
                progress.become_probe()
                progress.become_replicate()
        else:
            progress.inflights.free_to(message.index)
        if self._maybe_commit():
            self._broadcast_append()
        elif message.sender != self.id and (was_paused or progress.sent_commit < self.log.committed):
            self._send_append(message.sender, True)
        if message.sender == self.id:
            return
        while self._send_append(message.sender, False):  # as much as the window takes
            pass
        if message.sender == self.transferee and progress.match == self.log.last_index():
            self._send_timeout_now(message.sender)

    def _maybe_commit(self) -> bool:
        """§5.3, §5.4.2: a majority has it, and it is of this term."""
        progress = self.progress

        def match(member: int) -> int:
            return progress[member].match

        index = self.config.committed(match)
        if index <= self.log.committed or self.log.term(index) != self.term:
            return False
        self.log.commit_to(index)
        if self._early_reads:
            early, self._early_reads = self._early_reads, []
            for reader, context in early:
                self._read(reader, context)
        return True

    # ---------------------------------------------------------------- heartbeats, leases, reads (thesis 6.4)

    @cython.cfunc
    def _broadcast_heartbeat(self) -> cython.void:
        """A new round. Whoever answers it took this member for the leader after the round was begun."""
        self._round += 1
        self._rounds.append((self._round, self._now))
        self.progress[self.id].acked_round = self._round
        for member in self.progress:
            if member != self.id:
                progress: object = self.progress[member]
                commit = min(progress.match, self.log.committed)  # never what the follower may not have
                self._messages.append(Message(HEARTBEAT, member, self.id, self.term, commit=commit, round=self._round))
        self._confirm_rounds()

    @cython.cfunc
    def _on_heartbeat_response(self, message: object, progress: object) -> cython.void:
        if progress.state != SNAPSHOT_STATE:
            progress.paused = False  # what was out may have been lost
        if progress.match < self.log.last_index() or progress.state == PROBE:
            self._send_append(message.sender, True)
        if message.round > progress.acked_round:
            progress.acked_round = message.round
            self._confirm_rounds()

    def _confirm_rounds(self) -> None:
        """A majority has answered a round: the lease runs from when it was sent, and its reads are current."""
        progress = self.progress

        def acked(member: int) -> int:
            return progress[member].acked_round

        confirmed = self.config.committed(acked)
        while self._rounds and self._rounds[0][0] <= confirmed:
            self._lease_from = self._rounds.popleft()[1]
        while self._reads and self._reads[0][0] <= confirmed:
            _, index, reader, context = self._reads.popleft()
            self._answer_read(reader, index, context)

    def has_lease(self) -> bool:
        """Whether no other leader can have been elected (R6): what is committed here is all that is."""
        if self.role != LEADER or self._lease_forfeited or self._lease_from < 0:
            return False
        return self._now - self._lease_from <= self._lease_ticks and self._committed_in_term()

    def _committed_in_term(self) -> bool:
        """Before that, a leader does not know what its predecessors have committed (thesis 6.4)."""
        return self.log.term(self.log.committed) == self.term

    def read_index(self, context: bytes) -> bool:
        """Ask from which index on reads are current; a ReadState with `context` answers. False: there is no leader.

        The answer may be lost on the way, as any message: ask again after a while.
        """
        if self.role == LEADER:
            self._read(self.id, context)
        elif self.lead == NONE:
            return False
        else:
            self._messages.append(Message(READ_INDEX, self.lead, self.id, self.term, context=context))
        return True

    @cython.cfunc
    def _read(self, reader: cython.longlong, context: object) -> cython.void:
        if not self._committed_in_term():
            self._early_reads.append((reader, context))
        elif self.has_lease():
            self._answer_read(reader, self.log.committed, context)
        else:
            self._reads.append((self._round + 1, self.log.committed, reader, context))
            self._broadcast_heartbeat()

    @cython.cfunc
    def _answer_read(self, reader: cython.longlong, index: cython.longlong, context: object) -> cython.void:
        if reader == self.id:
            self._read_states.append(ReadState(index, context))
        else:
            self._messages.append(
                Message(READ_INDEX_RESPONSE, reader, self.id, self.term, index=index, context=context)
            )

    # ---------------------------------------------------------------- transfer of leadership (thesis 3.10)

    def transfer(self, target: int) -> bool:
        """Have `target` lead; False if there is no leader to ask. Whether it comes about, the soft state tells."""
        if self.role == LEADER:
            self._transfer(target)
        elif self.lead == NONE:
            return False
        else:
            self._messages.append(Message(TRANSFER, self.lead, self.id, self.term, context=str(target).encode()))
        return True

    @cython.cfunc
    def _transfer(self, target: cython.longlong) -> cython.void:
        if self.role != LEADER or target == self.id or target == self.transferee:
            return
        if target not in self.config.all_voters():
            return
        self._election_elapsed = 0  # it has one timeout to come about
        self.transferee = target
        progress: object = self.progress[target]
        if progress.match == self.log.last_index():
            self._send_timeout_now(target)
        else:
            progress.paused = False
            self._send_append(target, True)

    @cython.cfunc
    def _send_timeout_now(self, target: cython.longlong) -> cython.void:
        self._lease_forfeited = True  # R6
        self._messages.append(Message(TIMEOUT_NOW, target, self.id, self.term))

    # ---------------------------------------------------------------- membership (§6)

    def apply_change(self, change: ConfChange) -> ConfState:
        """A CONF_CHANGE entry is applied: from now on the new configuration decides.

        A change that has become impossible (it was proposed against another configuration) leaves it as it is, and so
        does one that a snapshot, which is still to be installed, has in it already.
        """
        if self.log.snapshot is not None:
            return self.config.to_state()
        try:
            self.config = self.config.changed(change)
        except ConfChangeRefused:
            return self.config.to_state()
        self._follow_config()
        if self.role == LEADER:
            self._lead_new_config()
        return self.config.to_state()

    @cython.cfunc
    def _lead_new_config(self) -> cython.void:
        if self.id not in self.progress or self.progress[self.id].is_learner:
            self._broadcast_append()  # that others learn what is committed
            self._become_follower(self.term, NONE)
            return
        if self._maybe_commit():  # a smaller majority may have what the greater one lacked
            self._broadcast_append()
        else:
            for member in self.progress:
                if member != self.id:
                    self._send_append(member, False)
        self._confirm_rounds()
        if self.transferee != NONE and self.transferee not in self.config.all_voters():
            self.transferee = NONE

    # ---------------------------------------------------------------- what the driver reports

    def report_unreachable(self, member: int) -> None:
        """Appends on their way to it are probably lost."""
        progress = self.progress.get(member)
        if self.role == LEADER and progress is not None and progress.state == REPLICATE:
            progress.become_probe()

    def report_snapshot(self, member: int, installed: bool) -> None:
        """Sending a snapshot has ended. The next append waits for a sign of life."""
        progress = self.progress.get(member)
        if self.role != LEADER or progress is None or progress.state != SNAPSHOT_STATE:
            return
        if not installed:
            progress.snapshot_failed()
        progress.become_probe()
        progress.paused = True

    # ---------------------------------------------------------------- ready and advance

    def has_ready(self) -> bool:
        """Whether `ready` has anything to say."""
        log: object = self.log
        if self._messages or self._after or self._read_states or log.handed < log.last_index():
            return True
        if log.snapshot is not None and not log.snapshot_handed:
            return True
        if log.appliable_to() > log.applying:
            return True
        hard = self._told_hard
        if self.term != hard.term or self.vote != hard.vote or log.committed != hard.commit:
            return True
        return self.lead != self._told_soft.lead or self.role != self._told_soft.role

    def ready(self) -> Ready:
        """What there is to do; it is the driver's from now on."""
        log: object = self.log
        self._number += 1
        entries = log.unhanded()
        log.hand_over()
        snapshot = None
        if log.snapshot is not None and not log.snapshot_handed:
            snapshot = log.snapshot
            log.hand_over_snapshot()
        committed = log.next_committed(self._max_committed_bytes)
        if committed:
            log.apply_begins(committed[len(committed) - 1].index)
            self._note_committed(committed)
        soft = SoftState(self.lead, self.role)
        hard = HardState(self.term, self.vote, log.committed)
        told_hard = self._told_hard
        must_sync = bool(entries) or snapshot is not None or hard[:2] != told_hard[:2]
        messages, self._messages = self._messages, []
        after, self._after = self._after, []
        read_states, self._read_states = self._read_states, []
        own = [message for message in after if message.to == self.id]
        last = entries[len(entries) - 1] if entries else None
        self._writing.append(
            _Writing(
                self._number,
                last.index if last is not None else 0,
                last.term if last is not None else 0,
                snapshot.index if snapshot is not None else 0,
                own,
            )
        )
        result = Ready(
            self._number,
            None if soft == self._told_soft else soft,
            None if hard == told_hard else hard,
            snapshot,
            entries,
            committed,
            messages,
            [message for message in after if message.to != self.id] if len(own) != len(after) else [],
            read_states,
            must_sync,
        )
        self._told_soft = soft
        self._told_hard = hard
        return result

    @cython.cfunc
    def _note_committed(self, entries: list) -> cython.void:
        """They no longer count against the limit of what is not committed."""
        size: cython.longlong = 0
        for entry in entries:
            size += len(entry.data)
        self._uncommitted_bytes = max(0, self._uncommitted_bytes - size)

    def advance(self, number: int) -> None:
        """The storage part of this ready is durable; readies are finished in their order (D1)."""
        if not self._writing or self._writing[0].number != number:
            raise ValueError(f"ready {number} is not the next to be finished")
        done = self._writing.popleft()
        if done.snapshot:
            self.log.snapshot_stable(done.snapshot)
        if done.last_index:
            self.log.stable_to(done.last_index, done.last_term)
        for message in done.own:
            self._step_own(message)

    @cython.cfunc
    def _step_own(self, message: object) -> cython.void:
        """What this member told itself: if it still is who it was, and, of appends, as far as they are durable (L5)."""
        if message.kind == APPEND_RESPONSE and message.index > self.log.stable:
            return
        if message.kind == PRE_VOTE_RESPONSE:
            if message.term == self.term + 1 and self.role == PRE_CANDIDATE:
                self._on_vote_response(message)
        elif message.term == self.term:
            self.step(message)

    def applied_to(self, index: int) -> None:
        """Entries up to `index` are applied, changes of the configuration among them."""
        self.log.applied_to(index)
        leaves: cython.bint = self.config.auto_leave and index >= self._pending_change
        if leaves and self.role == LEADER and self.id in self.progress:
            self._pending_change = self._append([(CONF_CHANGE, encode_change(ConfChange()))])
            self._broadcast_append()

    def compact(self, index: int) -> None:
        """Drop entries up to `index` from memory; they are applied, and the driver keeps the state they led to."""
        self.log.compact(index)

"""Who takes part, and how far each one is: quorums, configurations and the leader's view of its followers.

A configuration is one set of voters, or two while it is joint (§6): then whatever is decided needs a majority of both.
Learners get the log and are not counted. The rules of a change:

  C1. A simple change adds or removes at most one voter; any other goes through a joint configuration.
  C2. A joint configuration is entered from a simple one only, and left before the next change.
  C3. Voters of the outgoing half that are to be learners afterwards stay voters until it is left (`learners_next`).
  C4. No configuration is without a voter.
  C5. Every id of the configuration has a Progress, and no other id has one.

The leader sends to a follower in one of three ways:

    probe      one append at a time, until the follower says where its log agrees with the leader's
    replicate  appends one after the other without waiting, as far as the window allows
    snapshot   nothing, until the snapshot that the follower needs was installed or has failed

    probe ──accepted──▶ replicate ──rejected, unreachable──▶ probe          any ──entries are gone──▶ snapshot ──▶ probe
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import cython

from fastkube._raftlog import ConfState

COMPILED: bool = cython.compiled

PROBE = 0
REPLICATE = 1
SNAPSHOT_STATE = 2
STATE_NAMES = ("probe", "replicate", "snapshot")

PENDING = 0
WON = 1
LOST = 2

ADD_VOTER = "v"
ADD_LEARNER = "l"
REMOVE = "r"
UPDATE = "u"
"""Operations of a change. UPDATE leaves the configuration as it is: its context is what changes."""

AUTO = 0
IMPLICIT = 1
EXPLICIT = 2
"""How a change is made. AUTO: simply if that is possible (C1), else joint, left as soon as it is applied. IMPLICIT and
EXPLICIT are joint in any case; the latter is left by an empty change of its own."""


class ConfChangeRefused(ValueError):
    """A change that breaks one of the rules."""


class ConfChange(NamedTuple):
    """Operations on ids; none at all leaves a joint configuration. `context` is the driver's."""

    operations: tuple[tuple[str, int], ...] = ()
    transition: int = AUTO
    context: bytes = b""


def encode_change(change: ConfChange) -> bytes:
    """The data of an entry: `v1 r2;0` and, after a newline, the context."""
    words = " ".join(f"{operation}{member}" for operation, member in change.operations)
    return f"{words};{change.transition}\n".encode() + change.context


def decode_change(data: bytes) -> ConfChange:
    head, _, context = data.partition(b"\n")
    words, _, transition = head.decode().rpartition(";")
    operations = tuple((word[0], int(word[1:])) for word in words.split())
    return ConfChange(operations, int(transition), context)


# ---------------------------------------------------------------- quorums


def majority_index(voters: object, acknowledged: object) -> int:
    """The greatest number that a majority has reached; `acknowledged` gives that of each. Nobody: no limit."""
    if not voters:
        return 1 << 62
    numbers = sorted(acknowledged(member) for member in voters)
    return numbers[(len(numbers) - 1) // 2]


def vote_result(voters: object, votes: object) -> int:
    """WON by a majority, LOST when none is possible any more, else PENDING. Nobody: WON."""
    if not voters:
        return WON
    granted = sum(1 for member in voters if votes.get(member) is True)
    missing = sum(1 for member in voters if member not in votes)
    quorum = len(voters) // 2 + 1
    if granted >= quorum:
        return WON
    return PENDING if granted + missing >= quorum else LOST


class Config:
    """A configuration. Its sets are never changed in place: a change makes a new Config."""

    def __init__(
        self,
        voters: object = (),
        outgoing: object = (),
        learners: object = (),
        learners_next: object = (),
        auto_leave: bool = False,
    ) -> None:
        self.voters = frozenset(voters)
        self.outgoing = frozenset(outgoing)
        self.learners = frozenset(learners)
        self.learners_next = frozenset(learners_next)
        self.auto_leave = auto_leave

    @classmethod
    def from_state(cls, state: ConfState) -> Config:
        return cls(*state)

    def to_state(self) -> ConfState:
        def ids(members: frozenset) -> tuple:
            return tuple(sorted(members))

        return ConfState(
            ids(self.voters), ids(self.outgoing), ids(self.learners), ids(self.learners_next), self.auto_leave
        )

    def is_joint(self) -> bool:
        return bool(self.outgoing)

    def all_voters(self) -> frozenset:
        return self.voters | self.outgoing

    def members(self) -> frozenset:
        return self.voters | self.outgoing | self.learners

    def committed(self, acknowledged: object) -> int:
        """What both halves have reached."""
        return min(majority_index(self.voters, acknowledged), majority_index(self.outgoing, acknowledged))

    def vote_result(self, votes: object) -> int:
        """Of both halves."""
        results = {vote_result(self.voters, votes), vote_result(self.outgoing, votes)}
        if LOST in results:
            return LOST
        return PENDING if PENDING in results else WON

    def __str__(self) -> str:
        def told(members: frozenset) -> str:
            return "(" + " ".join(map(str, sorted(members))) + ")"

        text = "voters=" + told(self.voters)
        if self.outgoing:
            text += "&&" + told(self.outgoing)
        if self.learners:
            text += " learners=" + told(self.learners)
        if self.learners_next:
            text += " learners_next=" + told(self.learners_next)
        return text + (" autoleave" if self.auto_leave else "")

    # Changes: each returns a new Config or raises ConfChangeRefused.

    def changed(self, change: ConfChange) -> Config:
        """The configuration that a change leads to."""
        if not change.operations:
            return self._left_joint()
        if change.transition == AUTO and self._is_simple(change):
            return self._changed_simply(change)
        return self._entered_joint(change)

    def _is_simple(self, change: ConfChange) -> bool:
        return sum(1 for operation, _ in change.operations if operation != UPDATE) <= 1

    def _changed_simply(self, change: ConfChange) -> Config:
        if self.is_joint():
            raise ConfChangeRefused("the configuration is a joint one: it must be left first")  # C2
        new = self._apply(change.operations, ())
        if len(self.voters ^ new.voters) > 1:
            raise ConfChangeRefused("more than one voter changes without a joint configuration")  # C1
        return new

    def _entered_joint(self, change: ConfChange) -> Config:
        if self.is_joint():
            raise ConfChangeRefused("the configuration is a joint one already")  # C2
        if not self.voters:
            raise ConfChangeRefused("a configuration without voters cannot become a joint one")
        new = self._apply(change.operations, self.voters)
        new.auto_leave = change.transition != EXPLICIT
        return new

    def _left_joint(self) -> Config:
        if not self.is_joint():
            raise ConfChangeRefused("the configuration is not a joint one")
        return Config(self.voters, (), self.learners | self.learners_next)

    def _apply(self, operations: object, outgoing: object) -> Config:
        voters, learners, later = set(self.voters), set(self.learners), set(self.learners_next)
        for operation, member in operations:
            if member <= 0:
                raise ConfChangeRefused(f"{member} is no member id")
            if operation == ADD_VOTER:
                learners.discard(member)
                later.discard(member)
                voters.add(member)
            elif operation == ADD_LEARNER:
                voters.discard(member)
                (later if member in outgoing else learners).add(member)  # C3
            elif operation == REMOVE:
                voters.discard(member)
                learners.discard(member)
                later.discard(member)
            elif operation != UPDATE:
                raise ConfChangeRefused(f"{operation!r} is no operation of a change")
        if not voters:
            raise ConfChangeRefused("no voter would be left")  # C4
        return Config(voters, outgoing, learners, later)


# ---------------------------------------------------------------- progress


@cython.cclass
class Inflights:
    """Appends on their way to one follower: a window of so many messages and bytes."""

    _sent: object
    _bytes: cython.longlong
    _max_messages: cython.Py_ssize_t
    _max_bytes: cython.longlong

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._sent = deque()
        self._bytes = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes

    def __len__(self) -> int:
        return len(self._sent)

    @cython.ccall
    def is_full(self) -> cython.bint:
        return len(self._sent) >= self._max_messages or self._bytes >= self._max_bytes

    @cython.ccall
    def add(self, last_index: cython.longlong, size: cython.longlong) -> object:
        self._sent.append((last_index, size))
        self._bytes += size
        return None

    @cython.ccall
    def free_to(self, index: cython.longlong) -> object:
        """Everything up to `index` has arrived."""
        while self._sent and self._sent[0][0] <= index:
            self._bytes -= self._sent.popleft()[1]
        return None

    @cython.ccall
    def clear(self) -> object:
        self._sent.clear()
        self._bytes = 0
        return None


@cython.cclass
class Progress:
    """How far one member is, in the eyes of the leader.

    match < next always; in replicate, next may run ahead of what was acknowledged, by what is in flight.
    """

    match = cython.declare(cython.longlong, visibility="public")
    next = cython.declare(cython.longlong, visibility="public")
    state = cython.declare(cython.int, visibility="readonly")
    paused = cython.declare(cython.bint, visibility="public")  # an append is out in probe, or the window was full
    recent_active = cython.declare(cython.bint, visibility="public")  # heard of since the last check of the quorum
    is_learner = cython.declare(cython.bint, visibility="public")
    pending_snapshot = cython.declare(cython.longlong, visibility="readonly")
    sent_commit = cython.declare(cython.longlong, visibility="public")  # the commit index it was told last
    acked_round = cython.declare(cython.longlong, visibility="public")  # of heartbeats
    inflights = cython.declare(Inflights, visibility="readonly")

    def __init__(
        self, match: int, next: int, max_messages: int, max_bytes: int, is_learner: bool, active: bool
    ) -> None:
        self.match = match
        self.next = next
        self.state = PROBE
        self.paused = False
        self.recent_active = active
        self.is_learner = is_learner
        self.pending_snapshot = 0
        self.sent_commit = 0
        self.acked_round = 0
        self.inflights = Inflights(max_messages, max_bytes)

    @cython.cfunc
    def _become(self, state: cython.int) -> cython.void:
        self.paused = False
        self.pending_snapshot = 0
        self.state = state
        self.inflights.clear()

    def become_probe(self) -> None:
        """From a snapshot: behind it, if it was installed, or else where it was."""
        behind: cython.longlong = self.pending_snapshot + 1 if self.state == SNAPSHOT_STATE else 0
        self._become(PROBE)
        self.next = max(self.match + 1, behind)
        self.sent_commit = min(self.sent_commit, self.next - 1)

    def become_replicate(self) -> None:
        self._become(REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self, index: int) -> None:
        self._become(SNAPSHOT_STATE)
        self.pending_snapshot = index
        self.next = index + 1
        self.sent_commit = index

    def snapshot_failed(self) -> None:
        """The next probe begins where the follower was."""
        self.pending_snapshot = 0

    @cython.ccall
    def sent(self, count: cython.Py_ssize_t, size: cython.longlong) -> object:
        """An append with `count` entries of `size` bytes is on its way."""
        if self.state == REPLICATE:
            if count:
                self.next += count
                self.inflights.add(self.next - 1, size)
            self.paused = self.inflights.is_full()
        elif self.state == PROBE and count:
            self.paused = True
        return None

    @cython.ccall
    def accepted(self, index: cython.longlong) -> cython.bint:
        """The follower's log matches up to `index`; True if that is news."""
        news: cython.bint = index > self.match
        if news:
            self.match = index
            self.paused = False
        self.next = max(self.next, index + 1)
        return news

    @cython.ccall
    def rejected(self, index: cython.longlong, hint: cython.longlong) -> cython.bint:
        """The follower does not have the entry at `index`; False for an answer to what is long settled."""
        if self.state == REPLICATE:
            if index <= self.match:
                return False
            self.next = self.match + 1
            return True
        if self.next - 1 != index:
            return False
        self.next = max(min(index, hint + 1), self.match + 1)
        self.sent_commit = min(self.sent_commit, self.next - 1)
        self.paused = False
        return True

    @cython.ccall
    def is_paused(self) -> cython.bint:
        return self.state == SNAPSHOT_STATE or self.paused

    def __str__(self) -> str:
        text = f"{STATE_NAMES[self.state]} match={self.match} next={self.next}"
        if self.is_learner:
            text += " learner"
        if self.is_paused():
            text += " paused"
        if self.pending_snapshot:
            text += f" snapshot={self.pending_snapshot}"
        if len(self.inflights):
            text += f" inflight={len(self.inflights)}"
        return text if self.recent_active else text + " inactive"

"""What Raft's members say and keep: entries, messages, snapshots, and the log with what is durable of it.

The log holds every entry that a member may still have to send, apply or make durable: those after the last compaction.
The driver decides when to compact (`Log.compact`); the log itself does no I/O.

    compacted │ first ............ applied .... applying .... committed ........ last
              │ first ........................ stable ........ handed ........... last

The invariants, numbered as the code refers to them:
  L1. Indexes have no gap: the entry at position i of `_entries` has index `first + i`; terms never fall.
  L2. applied <= applying <= min(committed, stable): an entry is applied only when it is committed, and here durable.
  L3. stable <= handed <= last. An entry is handed to the driver once; one that replaces others is handed anew.
  L4. A committed entry is never replaced, and an applied one never compacted before it was applied.
  L5. Between `handed` and `stable` entries may be replaced by those of a later leader. The driver's acknowledgement
      names a term, so that the one for the entries that were replaced is not taken for that of their successors.
"""

from __future__ import annotations

from typing import NamedTuple

import cython

COMPILED: bool = cython.compiled

NORMAL = 0
CONF_CHANGE = 1
"""Kinds of entries. A NORMAL one without data is the one that a new leader begins its term with."""

ENTRY_OVERHEAD_BYTES = 24
"""What an entry counts beside its data, so that empty ones cannot fill a queue unseen."""

NO_LIMIT = 1 << 62


class Entry(NamedTuple):
    term: int
    index: int
    kind: int
    data: bytes


class HardState(NamedTuple):
    """What a member must remember before it answers: Figure 2 of the paper, "persistent state on all servers"."""

    term: int
    vote: int
    commit: int


class ConfState(NamedTuple):
    """A configuration as it is kept: ids in ascending order. `outgoing` is filled while it is a joint one."""

    voters: tuple[int, ...]
    outgoing: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    learners_next: tuple[int, ...] = ()
    auto_leave: bool = False


class Snapshot(NamedTuple):
    """Stands for everything up to `index`. `data` is the driver's: where the state itself is to be had."""

    index: int
    term: int
    conf: ConfState
    data: bytes = b""


# Kinds of messages between members. Each answer follows what it answers.
APPEND = 1
APPEND_RESPONSE = 2
HEARTBEAT = 3
HEARTBEAT_RESPONSE = 4
SNAPSHOT = 5
VOTE = 6
VOTE_RESPONSE = 7
PRE_VOTE = 8
PRE_VOTE_RESPONSE = 9
TIMEOUT_NOW = 10
TRANSFER = 11
READ_INDEX = 12
READ_INDEX_RESPONSE = 13

MESSAGE_NAMES = {
    APPEND: "Append",
    APPEND_RESPONSE: "AppendResponse",
    HEARTBEAT: "Heartbeat",
    HEARTBEAT_RESPONSE: "HeartbeatResponse",
    SNAPSHOT: "Snapshot",
    VOTE: "Vote",
    VOTE_RESPONSE: "VoteResponse",
    PRE_VOTE: "PreVote",
    PRE_VOTE_RESPONSE: "PreVoteResponse",
    TIMEOUT_NOW: "TimeoutNow",
    TRANSFER: "Transfer",
    READ_INDEX: "ReadIndex",
    READ_INDEX_RESPONSE: "ReadIndexResponse",
}


class Message(NamedTuple):
    """One message. Which fields mean something depends on its kind:

    Append            log_term, index: of the entry before `entries`; commit
    AppendResponse    index: the last that matches now; or reject, index: what was refused, hint and log_term: a guess
                      at where the logs agree
    Heartbeat         commit; round: to be told back
    HeartbeatResponse round
    Snapshot          snapshot
    Vote, PreVote     log_term, index: of the candidate's last entry; context: TRANSFERRED if the leader asked for it
    *VoteResponse     reject
    ReadIndex         context: the reader's; ReadIndexResponse: index to wait for, context
    Transfer          context: the decimal id of who is to lead
    """

    kind: int
    to: int
    sender: int
    term: int
    log_term: int = 0
    index: int = 0
    entries: tuple[Entry, ...] = ()
    commit: int = 0
    reject: bool = False
    hint: int = 0
    round: int = 0
    snapshot: Snapshot | None = None
    context: bytes = b""


@cython.ccall
def entry_bytes(entry: object) -> cython.longlong:
    return len(entry.data) + ENTRY_OVERHEAD_BYTES


def entries_bytes(entries: object) -> int:
    """What entries weigh against limits."""
    total: cython.longlong = 0
    for entry in entries:
        total += entry_bytes(entry)
    return total


@cython.cclass
class Log:
    """The entries after `compacted`. `handed` went to the driver for appending, `stable` is durable."""

    _entries: list
    _compacted_term: cython.longlong
    compacted = cython.declare(cython.longlong, visibility="readonly")
    committed = cython.declare(cython.longlong, visibility="readonly")
    applying = cython.declare(cython.longlong, visibility="readonly")
    applied = cython.declare(cython.longlong, visibility="readonly")
    handed = cython.declare(cython.longlong, visibility="readonly")
    stable = cython.declare(cython.longlong, visibility="readonly")
    # A snapshot that came from the leader: to be handed to the driver, or handed and not yet durable.
    snapshot = cython.declare(object, visibility="readonly")
    snapshot_handed = cython.declare(cython.bint, visibility="readonly")

    def __init__(self, entries: list, compacted: int, compacted_term: int, committed: int, applied: int) -> None:
        self._entries = list(entries)
        self._compacted_term = compacted_term
        self.compacted = compacted
        self.committed = committed
        self.applying = applied
        self.applied = applied
        self.handed = compacted + len(self._entries)
        self.stable = self.handed
        self.snapshot = None
        self.snapshot_handed = False
        if self._entries and self._entries[0].index != compacted + 1:
            raise ValueError(f"the log begins at {self._entries[0].index}, behind a snapshot at {compacted}")
        if not compacted <= applied <= committed <= self.handed:
            raise ValueError(f"compacted {compacted}, applied {applied}, committed {committed}, last {self.handed}")

    @cython.ccall
    def first_index(self) -> cython.longlong:
        return self.compacted + 1

    @cython.ccall
    def last_index(self) -> cython.longlong:
        return self.compacted + len(self._entries)

    @cython.ccall
    def last_term(self) -> cython.longlong:
        return self.term(self.last_index())

    @cython.ccall
    def term(self, index: cython.longlong) -> cython.longlong:
        """The term of an entry; -1 for one that the log does not have (any more)."""
        place: cython.longlong = index - self.compacted - 1
        if place == -1:
            return self._compacted_term
        if place < 0 or place >= len(self._entries):
            return -1
        return self._entries[place].term

    @cython.ccall
    def matches(self, index: cython.longlong, term: cython.longlong) -> cython.bint:
        """Log Matching: whether the entry at `index` is that of `term`, and so all before it are the same too."""
        return self.term(index) == term

    @cython.ccall
    def is_up_to_date(self, index: cython.longlong, term: cython.longlong) -> cython.bint:
        """§5.4.1: whether a log that ends with (index, term) is at least as up to date as this one."""
        mine: cython.longlong = self.last_term()
        return term > mine or (term == mine and index >= self.last_index())

    def slice(self, first: cython.longlong, end: cython.longlong, max_bytes: cython.longlong) -> list:
        """Entries of [first, end) up to a size, but at least one. Those compacted are the caller's mistake."""
        size: cython.longlong = 0
        if first <= self.compacted:
            raise IndexError(f"entry {first} was compacted at {self.compacted}")
        found: list = self._entries[first - self.compacted - 1 : max(end, first) - self.compacted - 1]
        for place, entry in enumerate(found):
            size += entry_bytes(entry)
            if size > max_bytes and place:
                return found[:place]
        return found

    def append(self, entries: object) -> None:
        """Add entries of which the first follows on one that is here; what stood in their place is gone (§5.3)."""
        if not entries:
            return
        first: cython.longlong = entries[0].index
        if first <= self.committed:
            raise AssertionError(f"entry {first} would replace one that is committed ({self.committed})")  # L4
        if first > self.last_index() + 1:
            raise AssertionError(f"entry {first} would leave a gap behind {self.last_index()}")  # L1
        if first <= self.last_index():
            del self._entries[first - self.compacted - 1 :]
            self.handed = min(self.handed, first - 1)
            self.stable = min(self.stable, first - 1)
        self._entries.extend(entries)

    def maybe_append(self, index: int, term: int, commit: int, entries: object) -> int:
        """The receiver's part of AppendEntries: the last index that matches now, or -1 if (index, term) does not."""
        if not self.matches(index, term):
            return -1
        last_new: cython.longlong = index + len(entries)
        place: cython.Py_ssize_t
        for place in range(len(entries)):
            entry = entries[place]
            if not self.matches(entry.index, entry.term):
                self.append(entries[place:])
                break
        self.commit_to(min(commit, last_new))
        return last_new

    def find_agreement(self, index: cython.longlong, term: cython.longlong) -> tuple[int, int]:
        """The last (index, term) here, not behind `index`, whose term is not above `term`: no later one can match."""
        index = min(index, self.last_index())
        while index > self.compacted and self.term(index) > term:
            index -= 1
        return index, max(self.term(index), 0)

    @cython.ccall
    def commit_to(self, index: cython.longlong) -> cython.bint:
        """The commit index never goes back; True if it moved."""
        if index <= self.committed:
            return False
        if index > self.last_index():
            raise AssertionError(f"commit {index} is behind the last entry {self.last_index()}: was the log cut off?")
        self.committed = index
        return True

    # What the driver has to do.

    def unhanded(self) -> list:
        """Entries that are to be made durable and were not handed over yet."""
        return self._entries[self.handed - self.compacted :]

    def hand_over(self) -> None:
        self.handed = self.last_index()

    def stable_to(self, index: int, term: int) -> None:
        """Everything up to this entry is durable, if it is still the same entry (L5)."""
        if self.stable < index <= self.handed and self.term(index) == term:
            self.stable = index

    @cython.ccall
    def appliable_to(self) -> cython.longlong:
        """The last entry that may be applied (L2); nothing while a snapshot waits to take the place of it all."""
        return self.applying if self.snapshot is not None else min(self.committed, self.stable)

    def next_committed(self, max_bytes: int) -> list:
        """What to apply next."""
        end: cython.longlong = self.appliable_to()
        if end <= self.applying:
            return []
        return self.slice(self.applying + 1, end + 1, max_bytes)

    def apply_begins(self, index: int) -> None:
        self.applying = index

    def applied_to(self, index: int) -> None:
        if not self.applied <= index <= self.applying:
            raise ValueError(f"applied {index}, where {self.applied} to {self.applying} was handed over")
        self.applied = index

    def compact(self, index: int) -> None:
        """Drop entries up to `index`, which were applied (L4); its term is kept, for the entry that follows."""
        if index <= self.compacted:
            return
        if index > self.applied:
            raise ValueError(f"compaction at {index}, applied is {self.applied}")
        self._compacted_term = self.term(index)
        del self._entries[: index - self.compacted]
        self.compacted = index

    # A snapshot takes the place of the whole log.

    def restore(self, snapshot: object) -> None:
        """The leader's snapshot replaces every entry; it must be made durable before anything else."""
        self._entries = []
        self.compacted = snapshot.index
        self._compacted_term = snapshot.term
        self.committed = snapshot.index
        self.handed = snapshot.index
        self.stable = min(self.stable, snapshot.index)
        self.snapshot = snapshot
        self.snapshot_handed = False

    def hand_over_snapshot(self) -> None:
        self.snapshot_handed = True

    def snapshot_stable(self, index: int) -> None:
        """The state of a snapshot is installed: it counts as applied."""
        if self.snapshot is not None and self.snapshot.index == index:
            self.snapshot = None
            self.snapshot_handed = False
            self.stable = max(self.stable, index)
            self.applying = max(self.applying, index)
            self.applied = max(self.applied, index)

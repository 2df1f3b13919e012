"""The log of consensus on disk: hard state and entries, one record and one sync for whatever came together.

How records lie in files, and what a crash may leave of them, stands in segments.py; what is damaged is refused, since
it may have been acknowledged or voted: the member must be removed and added again, and gets everything from the others.

 1. A segment's head says who this is, the hard state, and the entry in front of its own.
 2. Entries replace those of the same index and all behind them, in the order of the records.
 3. A write that failed for want of space is written again at the same place; any other failure ends the log.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastkube._raftlog import Entry, HardState
from fastkube.store.disk import Appender, Folder
from fastkube.store.errors import CorruptStore
from fastkube.store.segments import SEGMENT_BYTES, Damaged, Place, Segments
from fastkube.store.wire import pack, unpack
from fastkube.store.work import Done

_FORMAT = "fastkube-log/1"

_HEAD = 0
_BATCH = 1
_RESET = 2


class Identity(NamedTuple):
    """Whose log this is; another's is refused."""

    cluster: int
    member: int


class Recovered(NamedTuple):
    """What the log says when it is opened; entries are those behind `compacted`."""

    hard_state: HardState
    compacted: int
    compacted_term: int
    entries: list[Entry]


class Write:
    """One record to come, and what it changes once it is durable."""

    __slots__ = ("entries", "hard_state", "reset")

    def __init__(self, hard_state: HardState, entries: list[Entry], reset: tuple[int, int] | None = None) -> None:
        self.hard_state = hard_state
        self.entries = entries
        self.reset = reset  # (index, term) of a snapshot that takes the place of everything before


class RaftLog:
    """Not thread-safe, and one record at a time."""

    def __init__(self, folder: Folder, identity: Identity, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._identity = identity
        self._segments = Segments(folder, segment_bytes)
        self._hard_state = HardState(0, 0, 0)
        self._last = (0, 0)  # index and term of the last entry: the head of the next segment tells them

    @classmethod
    def create(
        cls, folder: Folder, identity: Identity, founded: HardState, segment_bytes: int = SEGMENT_BYTES
    ) -> RaftLog:
        """A new log. A founding member's begins behind the entry 1 of term 1, which stands for the first members."""
        log = cls(folder, identity, segment_bytes)
        for name in folder.names():
            folder.remove(name)
        log._hard_state = founded
        log._last = (founded.commit, min(founded.commit, 1))
        log._begin_segment()
        return log

    @classmethod
    def exists(cls, folder: Folder) -> bool:
        """Whether a log was begun here: its first record is whole."""
        return Segments.exist(folder)

    @classmethod
    def open(
        cls, folder: Folder, identity: Identity | None, segment_bytes: int = SEGMENT_BYTES
    ) -> tuple[RaftLog, Recovered]:
        """Read everything. Raises CorruptStore for what is damaged, and for the log of another member."""
        log = cls(folder, identity or Identity(0, 0), segment_bytes)
        replay = _Replay()

        def take(data: bytes, is_head: bool) -> int:
            payload = unpack(data)
            if is_head:
                log._check_identity(Identity(*payload[2]), identity)
            replay.take(payload)
            return int(payload[4]) if is_head else 0

        try:
            log._segments.read(take)
        except Damaged as error:
            raise CorruptStore(f"{error}: remove this member") from None
        log._hard_state = replay.hard_state
        log._last = (replay.last_index, replay.last_term)
        return log, replay.result()

    def _check_identity(self, found: Identity, wanted: Identity | None) -> None:
        if wanted is not None and found != wanted:
            raise CorruptStore(f"the log is that of member {found.member:x} of cluster {found.cluster:x}")
        self._identity = found

    @property
    def hard_state(self) -> HardState:
        """The one that is durable."""
        return self._hard_state

    @property
    def identity(self) -> Identity:
        return self._identity

    def append(self, write: Write) -> None:
        """Durable when it returns. OSError: nothing of it is; by rule 3 the same may be tried again."""
        place = self._place(write)
        self._segments.folder.write(*place)
        self._written(write, place)

    def append_beside(self, write: Write, appender: Appender, done: Done) -> None:
        """The same beside the loop: `done` is called on it, never before this returns. Raises OSError as well."""
        place = self._place(write)

        def written(error: Exception | None) -> None:
            if error is None:
                self._written(write, place)
            done(error)

        appender.write(*place, written)

    def _place(self, write: Write) -> Place:
        if write.reset is not None:
            payload = pack((_RESET, write.reset, write.hard_state, write.entries))
        else:
            payload = pack((_BATCH, write.hard_state, write.entries))
        if not self._segments.fits(payload):
            self._begin_segment(payload)
        return self._segments.place(payload)

    def _written(self, write: Write, place: Place) -> None:
        self._segments.written(place)
        self._hard_state = write.hard_state
        if write.reset is not None:
            self._last = write.reset
        if write.entries:
            self._last = (write.entries[-1].index, write.entries[-1].term)

    def _begin_segment(self, coming: bytes = b"") -> None:
        index, term = self._last
        head = pack((_HEAD, _FORMAT, self._identity, self._hard_state, index, term))
        self._segments.begin(head, index, coming)

    def compact(self, index: int) -> None:
        """Remove segments of which no entry behind `index` is needed."""
        self._segments.drop_before(index)

    @property
    def next_bytes(self) -> int:
        """Of the segment that should be prepared now; 0: none."""
        return self._segments.next_bytes

    def prepare(self, size: int) -> None:
        """Have the next segment ready. In any thread, beside everything else. Raises OSError."""
        self._segments.folder.prepare(size)

    def close(self) -> None:
        self._segments.close()


class _Replay:
    """The records in their order, and what they amount to (rule 2)."""

    def __init__(self) -> None:
        self.hard_state = HardState(0, 0, 0)
        self._compacted = (0, 0)
        self._entries: list[Entry] = []
        self._begun = False

    @property
    def last_index(self) -> int:
        return self._entries[-1].index if self._entries else self._compacted[0]

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self._compacted[1]

    def take(self, payload: Any) -> None:
        if payload[0] == _HEAD:
            if payload[1] != _FORMAT:
                raise CorruptStore(f"log format {payload[1]!r} where {_FORMAT!r} is needed")
            if not self._begun:
                self._begun = True
                self._compacted = (payload[4], payload[5])
            self.hard_state = HardState(*payload[3])
            return
        if payload[0] == _RESET:
            self._compacted = payload[1]
            self._entries = []
            payload = payload[1:]
        self.hard_state = HardState(*payload[1])
        if payload[2]:
            first = payload[2][0][1]
            if not self._compacted[0] < first <= self.last_index + 1:
                raise CorruptStore(f"the log has entry {first} behind {self.last_index}")
            del self._entries[first - self._compacted[0] - 1 :]
            self._entries += [Entry(*packed) for packed in payload[2]]

    def result(self) -> Recovered:
        return Recovered(self.hard_state, *self._compacted, self._entries)

"""The log of consensus on disk: hard state and entries, one record and one sync for whatever came together.

    segment = records, then zeros            record = magic, length, checksum, number, payload

A segment is allocated whole, so that appending to it does not change the file's metadata. Its first record, the head,
says all that the segments before it would say but their entries (who this is, the hard state, the entry in front of
its own), so that they can be removed. A record is written only after the one before it is durable. Therefore:

 1. What is behind the last whole record of the last segment was never durable, hence never acknowledged: a record that
    is torn there is cut off.
 2. A damaged record with a whole one of a higher number behind it, or in an earlier segment, was durable once: the log
    is corrupt. It is refused, since what it has lost may have been acknowledged or voted; the member must be removed
    and added again, and gets everything from the others.
 3. Entries replace those of the same index and all behind them, in the order of the records.
 4. A write that failed for want of space is written again at the same place; any other failure ends the log.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, NamedTuple

from fastkube._raftlog import Entry, HardState
from fastkube.store.disk import Folder
from fastkube.store.errors import CorruptStore
from fastkube.store.wire import pack, unpack

SEGMENT_BYTES = 16 << 20

_FORMAT = "fastkube-log/1"
_HEADER = struct.Struct("<4sIIQ")  # magic, length of the payload, checksum, number
_SUMMED = struct.Struct("<IQ")
_MAGIC = b"fkR1"
_SUFFIX = ".log"

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


class _Segment:
    __slots__ = ("before", "name", "used")

    def __init__(self, name: str, before: int) -> None:
        self.name = name
        self.before = before  # the index in front of its first entry when it was begun
        self.used = 0


class Write:
    """One record to come, and what it changes once it is durable."""

    __slots__ = ("entries", "hard_state", "reset")

    def __init__(self, hard_state: HardState, entries: list[Entry], reset: tuple[int, int] | None = None) -> None:
        self.hard_state = hard_state
        self.entries = entries
        self.reset = reset  # (index, term) of a snapshot that takes the place of everything before


class RaftLog:
    """Not thread-safe: one thing at a time, in whatever thread."""

    def __init__(self, folder: Folder, identity: Identity, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._identity = identity
        self._segment_bytes = segment_bytes
        self._segments: list[_Segment] = []
        self._number = 0
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
        log._begin_segment(1)
        return log

    @classmethod
    def exists(cls, folder: Folder) -> bool:
        """Whether a log was begun here: its first record is whole."""
        names = [name for name in folder.names() if name.endswith(_SUFFIX)]
        return bool(names) and (len(names) > 1 or _parse(folder.read(names[0]), 0) is not None)

    @classmethod
    def open(
        cls, folder: Folder, identity: Identity | None, segment_bytes: int = SEGMENT_BYTES
    ) -> tuple[RaftLog, Recovered]:
        """Read everything. Raises CorruptStore by rule 2, and for the log of another member."""
        log = cls(folder, identity or Identity(0, 0), segment_bytes)
        names = [name for name in folder.names() if name.endswith(_SUFFIX)]
        replay = _Replay()
        for place, name in enumerate(names):
            is_last = place == len(names) - 1
            data = folder.read(name)
            at = 0
            while (found := _parse(data, at)) is not None and found[0] > log._number:
                log._number, payload, end = found
                if at == 0:
                    log._segments.append(_Segment(name, payload[4]))
                    log._check_identity(Identity(*payload[2]), identity)
                replay.take(payload)
                at = end
            log._check_rest(folder, name, data, at, is_last)
            if at:
                log._segments[-1].used = at
            elif not is_last:
                raise CorruptStore(f"{name}: the head of a segment of the log is damaged")
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

    def _check_rest(self, folder: Folder, name: str, data: bytes, at: int, is_last: bool) -> None:
        """Behind the last whole record: nothing, or, in the last segment, what a crash has left (rules 1 and 2)."""
        if data.count(b"\0", at) == len(data) - at:
            return
        if not is_last or _has_record_behind(data, at, self._number):
            raise CorruptStore(f"{name}: the log is damaged at byte {at}, and was durable there: remove this member")
        if at:
            folder.write(name, at, bytes(len(data) - at))
        else:
            folder.remove(name)  # a segment whose head was not durable: nothing was in it

    def append(self, write: Write) -> None:
        """Durable when it returns. OSError: nothing of it is; by rule 4 the same may be tried again."""
        if write.reset is not None:
            payload: tuple[Any, ...] = (_RESET, write.reset, write.hard_state, write.entries)
        else:
            payload = (_BATCH, write.hard_state, write.entries)
        record = self._record(self._number + 1, payload)
        if not self._segments or self._segments[-1].used + len(record) > self._segment_bytes:
            self._begin_segment(len(record))
            record = self._record(self._number + 1, payload)
        segment = self._segments[-1]
        self._folder.write(segment.name, segment.used, record)
        self._number += 1
        segment.used += len(record)
        self._hard_state = write.hard_state
        if write.reset is not None:
            self._last = write.reset
        if write.entries:
            self._last = (write.entries[-1].index, write.entries[-1].term)

    def _begin_segment(self, coming_bytes: int) -> None:
        number = self._number + 1
        name = f"{number:016x}{_SUFFIX}"
        index, term = self._last
        head = (_HEAD, _FORMAT, self._identity, self._hard_state, index, term)
        record = self._record(number, head)
        self._folder.create(name, max(self._segment_bytes, len(record) + coming_bytes))
        self._folder.write(name, 0, record)
        self._number = number
        segment = _Segment(name, index)
        segment.used = len(record)
        self._segments.append(segment)

    @staticmethod
    def _record(number: int, payload: tuple[Any, ...]) -> bytes:
        data = pack(payload)
        return _HEADER.pack(_MAGIC, len(data), _checksum(number, data), number) + data

    def compact(self, index: int) -> None:
        """Remove segments of which no entry behind `index` is needed."""
        while len(self._segments) > 1 and self._segments[1].before <= index:
            self._folder.remove(self._segments[0].name)
            del self._segments[0]

    def close(self) -> None:
        self._folder.close()


class _Replay:
    """The records in their order, and what they amount to (rule 3)."""

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


def _checksum(number: int, data: bytes) -> int:
    """Of the whole record but its magic: of one that is torn in its header, zeros must not pass for a record."""
    return zlib.crc32(data, zlib.crc32(_SUMMED.pack(len(data), number)))


def _parse(data: bytes, at: int) -> tuple[int, Any, int] | None:
    """(number, payload, where it ends) of a whole record."""
    if at + _HEADER.size > len(data):
        return None
    magic, length, checksum, number = _HEADER.unpack_from(data, at)
    start = at + _HEADER.size
    if magic != _MAGIC or start + length > len(data):
        return None
    payload = data[start : start + length]
    if _checksum(number, payload) != checksum:
        return None
    return number, unpack(payload), start + length


def _has_record_behind(data: bytes, at: int, number: int) -> bool:
    """Whether any whole record that is newer than `number` + 1, the torn one, begins behind `at`."""
    while (at := data.find(_MAGIC, at + 1)) >= 0:
        found = _parse(data, at)
        if found is not None and found[0] > number + 1:
            return True
    return False

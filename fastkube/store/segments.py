"""Records in files, one after the other: what the log of consensus and a single server's journal have in common.

    segment = records, then zeros            record = magic, length, checksum, number, payload

A segment is allocated whole, so that appending to it does not change the file's metadata. Its first record, the head,
says all that the segments before it would say but their records, so that they can be removed. A record is written only
after the one before it is durable. Therefore:

 1. What is behind the last whole record of the last segment was never durable, hence never acknowledged: a record that
    is torn there is cut off.
 2. A damaged record with a whole one of a higher number behind it, or in an earlier segment, was durable once: the log
    is corrupt. It is refused, since what it has lost may have been acknowledged.
 3. A write that failed for want of space may be written again at the same place.

What is in a payload may come from anyone. So that it cannot pass for a record, the checksum of all records but heads
begins with a salt that is drawn for each log and stands in its heads (0 for logs that have none).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

from fastkube.store.disk import BLOCK_BYTES, Folder
from fastkube.store.errors import CorruptStore

SEGMENT_BYTES = 16 << 20

_FIRST_BYTES = 256 << 10  # of a segment that has to be made while somebody waits for it
_GROWTH = 4  # each one that is prepared is so much larger than the one before, up to the limit
_HEADER = struct.Struct("<4sIIQ")  # magic, length of the payload, checksum, number
_SUMMED = struct.Struct("<IQ")
_MAGIC = b"fkR1"
_SUFFIX = ".log"


class Damaged(CorruptStore):
    """What was durable once is not whole any more."""


class Place(NamedTuple):
    """Where a record goes, and its bytes."""

    name: str
    offset: int
    data: bytes


class _Segment:
    __slots__ = ("mark", "name", "size", "used")

    def __init__(self, name: str, mark: int, size: int) -> None:
        self.name = name
        self.mark = mark
        self.size = size
        self.used = 0


Take = Callable[[bytes, bool], int]
"""Gets each payload that is read, and whether it is a head's; a head's answer is the segment's mark."""


class Segments:
    """Not thread-safe: one thing at a time, in whatever thread.

    A segment's `mark` is a number that its owner gives it and that does not fall from one to the next: `drop_before`
    goes by it.
    """

    def __init__(self, folder: Folder, segment_bytes: int = SEGMENT_BYTES, salt: int = 0) -> None:
        self.folder = folder
        self.salt = salt
        self._segment_bytes = segment_bytes
        self._segments: list[_Segment] = []
        self._number = 0

    @staticmethod
    def exist(folder: Folder) -> bool:
        """Whether a log was begun here: its first record is whole."""
        names = _names(folder)
        return bool(names) and (len(names) > 1 or _parse(folder.read(names[0]), 0, 0) is not None)

    def read(self, take: Take) -> None:
        """Everything there is, by the rules 1 and 2. Raises Damaged."""
        names = _names(self.folder)
        for place, name in enumerate(names):
            is_last = place == len(names) - 1
            data = self.folder.read(name)
            at = self._read_segment(name, data, take)
            self._check_rest(name, data, at, is_last)
            if at:
                self._segments[-1].used = at
            elif not is_last:
                raise Damaged(f"{name}: the head of a segment of the log is damaged")

    def _read_segment(self, name: str, data: bytes, take: Take) -> int:
        at = 0
        while (found := _parse(data, at, self.salt if at else 0)) is not None and found[0] > self._number:
            self._number, payload, end = found
            mark = take(payload, not at)
            if not at:
                self._segments.append(_Segment(name, mark, len(data)))
            at = end
        return at

    def _check_rest(self, name: str, data: bytes, at: int, is_last: bool) -> None:
        """Behind the last whole record: nothing, or, in the last segment, what a crash has left."""
        is_clean = data[at:] == bytes(len(data) - at)
        if not is_clean and (not is_last or _has_record_behind(data, at, self._number, self.salt)):
            raise Damaged(f"{name}: the log is damaged at byte {at}, and was durable there")
        if not at and is_last:
            self.folder.remove(name)  # a segment whose head was not durable: nothing was in it
        elif not is_clean:
            self.folder.write(name, at, bytes(len(data) - at))

    @property
    def begun(self) -> bool:
        """Whether there is anything, a head at least."""
        return bool(self._segments)

    @property
    def first_mark(self) -> int:
        return self._segments[0].mark

    def fits(self, payload: bytes) -> bool:
        """Whether it has a place in the last segment; otherwise a new one must be begun."""
        if not self._segments:
            return False
        last = self._segments[-1]
        return last.used + _HEADER.size + len(payload) <= last.size

    def begin(self, head: bytes, mark: int, coming: bytes = b"", *, spare: bool = True) -> None:
        """A new segment with room for `coming`; durable when it returns. OSError: there is none."""
        number = self._number + 1
        name = f"{number:016x}{_SUFFIX}"
        record = _record(number, head, 0)
        usual = max(self.folder.spare_bytes if spare else 0, min(self._segment_bytes, _FIRST_BYTES))
        needed = len(record) + _HEADER.size + len(coming)
        size = max(usual, -(-needed // BLOCK_BYTES) * BLOCK_BYTES)
        self.folder.create(name, size)
        self.folder.write(name, 0, record)
        self._number = number
        segment = _Segment(name, mark, size)
        segment.used = len(record)
        self._segments.append(segment)

    def place(self, payload: bytes) -> Place:
        """Where the next record goes; the caller writes it, and calls `written` when it is durable."""
        last = self._segments[-1]
        return Place(last.name, last.used, _record(self._number + 1, payload, self.salt))

    def written(self, place: Place) -> None:
        self._number += 1
        self._segments[-1].used += len(place.data)

    def erasure(self, place: Place) -> Place:
        """What takes the newest record back, once it is written; call `erased` then."""
        return place._replace(data=bytes(len(place.data)))

    def erased(self, place: Place) -> None:
        self._number -= 1
        self._segments[-1].used -= len(place.data)

    def drop_before(self, mark: int) -> None:
        """Remove the segments in front of the last one whose mark is at most this."""
        while len(self._segments) > 1 and self._segments[1].mark <= mark:
            self.folder.remove(self._segments[0].name)
            del self._segments[0]

    @property
    def next_bytes(self) -> int:
        """How large a segment should be prepared now: the last one is half full, and there is none; or 0."""
        last = self._segments[-1]
        if self.folder.spare_bytes or last.used * 2 < last.size:
            return 0
        return min(self._segment_bytes, _GROWTH * last.size)

    def close(self) -> None:
        self.folder.close()


def _names(folder: Folder) -> list[str]:
    return [name for name in folder.names() if name.endswith(_SUFFIX)]


def _record(number: int, payload: bytes, salt: int) -> bytes:
    return _HEADER.pack(_MAGIC, len(payload), _checksum(number, payload, salt), number) + payload


def _checksum(number: int, payload: bytes, salt: int) -> int:
    """Of the whole record but its magic: of one that is torn in its header, zeros must not pass for a record."""
    return zlib.crc32(payload, zlib.crc32(_SUMMED.pack(len(payload), number), salt))


def _parse(data: bytes, at: int, salt: int) -> tuple[int, bytes, int] | None:
    """(number, payload, where it ends) of a whole record."""
    if at + _HEADER.size > len(data):
        return None
    magic, length, checksum, number = _HEADER.unpack_from(data, at)
    start = at + _HEADER.size
    if magic != _MAGIC or start + length > len(data):
        return None
    payload = data[start : start + length]
    if _checksum(number, payload, salt) != checksum:
        return None
    return number, payload, start + length


def _has_record_behind(data: bytes, at: int, number: int, salt: int) -> bool:
    """Whether any whole record that is newer than `number` + 1, the torn one, begins behind `at`."""
    while (at := data.find(_MAGIC, at + 1)) >= 0:
        found = _parse(data, at, salt)
        if found is not None and found[0] > number + 1:
            return True
    return False

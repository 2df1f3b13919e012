"""The log of consensus on disk: what a crash may leave of it, and what is damage."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from fastkube._raftlog import Entry, HardState
from fastkube.store import CorruptStore
from fastkube.store.disk import RealFolder
from fastkube.store.log import Identity, RaftLog, Write

ME = Identity(7, 1)
SEGMENT = 4096


def entry(index: int, term: int = 1, size: int = 20) -> Entry:
    return Entry(term, index, 0, b"%d" % index * size)


def begun(path: Path, entries: int = 0) -> RaftLog:
    log = RaftLog.create(RealFolder(path), ME, HardState(1, 0, 1), SEGMENT)
    for index in range(2, 2 + entries):
        log.append(Write(HardState(1, 1, index - 1), [entry(index)]))
    return log


def reopened(path: Path) -> tuple[RaftLog, list[Entry]]:
    log, found = RaftLog.open(RealFolder(path), ME, SEGMENT)
    return log, found.entries


def last_file(path: Path) -> Path:
    return sorted(path.glob("*.log"))[-1]


def test_what_was_appended_is_there_again(tmp_path: Path) -> None:
    begun(tmp_path, 500).close()
    assert len(list(tmp_path.glob("*.log"))) > 3
    log, found = RaftLog.open(RealFolder(tmp_path), ME, SEGMENT)
    assert found.entries == [entry(index) for index in range(2, 502)]
    assert (found.hard_state, found.compacted, found.compacted_term) == (HardState(1, 1, 500), 1, 1)
    log.append(Write(HardState(1, 1, 501), [entry(502)]))
    log.close()
    assert reopened(tmp_path)[1][-1] == entry(502)


def test_later_entries_replace_those_of_the_same_index_and_all_behind(tmp_path: Path) -> None:
    log = begun(tmp_path, 10)
    log.append(Write(HardState(2, 2, 4), [entry(6, 2), entry(7, 2)]))
    log.close()
    assert [(one.index, one.term) for one in reopened(tmp_path)[1][-3:]] == [(5, 1), (6, 2), (7, 2)]


def test_a_snapshot_takes_the_place_of_all(tmp_path: Path) -> None:
    log = begun(tmp_path, 10)
    log.append(Write(HardState(3, 0, 90), [], (90, 3)))
    log.append(Write(HardState(3, 0, 90), [entry(91, 3)]))
    log.close()
    _, found = RaftLog.open(RealFolder(tmp_path), ME, SEGMENT)
    assert (found.compacted, found.compacted_term, found.entries) == (90, 3, [entry(91, 3)])


def test_old_segments_go_and_what_they_said_stays(tmp_path: Path) -> None:
    log = begun(tmp_path, 500)
    before = len(list(tmp_path.glob("*.log")))
    log.compact(400)
    log.close()
    assert len(list(tmp_path.glob("*.log"))) < before / 2
    _, found = RaftLog.open(RealFolder(tmp_path), ME, SEGMENT)
    assert found.compacted <= 400
    assert found.entries == [entry(index) for index in range(found.compacted + 1, 502)]
    assert (found.compacted_term, found.hard_state.vote) == (1, 1)


@pytest.mark.parametrize("kept", range(0, 120, 3))
def test_a_record_that_is_torn_was_never_acknowledged(tmp_path: Path, kept: int) -> None:
    """Whatever part of the last record reached the disk, the log is what it was before it."""
    log = begun(tmp_path, 5)
    file = last_file(tmp_path)
    before = file.read_bytes()
    log.append(Write(HardState(1, 1, 6), [entry(7)]))
    log.close()
    whole = file.read_bytes()
    end = len(before.rstrip(b"\0"))
    file.write_bytes(whole[: end + kept] + bytes(len(whole) - end - kept))
    log, found = reopened(tmp_path)
    torn = len(whole.rstrip(b"\0")) > end + kept
    assert found == [entry(index) for index in range(2, 7 if torn else 8)]
    log.append(Write(HardState(2, 1, 6), [entry(found[-1].index + 1, 2)]))
    log.close()
    assert reopened(tmp_path)[1][-1].term == 2


def test_a_segment_that_was_begun_and_has_nothing_yet_is_begun_again(tmp_path: Path) -> None:
    """The crash came between the file and its head; what comes next still has room in the segment before."""
    begun(tmp_path, 5).close()
    (tmp_path / f"{99:016x}.log").write_bytes(bytes(SEGMENT))
    log, found = reopened(tmp_path)
    for index in range(found[-1].index + 1, 200):
        log.append(Write(HardState(1, 1, index - 1), [entry(index)]))
    log.close()
    assert [one.index for one in reopened(tmp_path)[1]] == list(range(2, 200))


@pytest.mark.parametrize("where", ["first", "middle"])
def test_damage_before_the_last_record_is_refused(tmp_path: Path, where: str) -> None:
    """It was durable, so it may have been acknowledged, or voted for."""
    begun(tmp_path, 200 if where == "first" else 10).close()
    file = sorted(tmp_path.glob("*.log"))[0]
    data = bytearray(file.read_bytes())
    at = data.index(entry(4).data) + 3
    data[at] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorruptStore, match="damaged"):
        reopened(tmp_path)


def test_another_members_log_is_refused(tmp_path: Path) -> None:
    begun(tmp_path, 3).close()
    with pytest.raises(CorruptStore, match="member 1 of cluster 7"):
        RaftLog.open(RealFolder(tmp_path), Identity(7, 2))


class FullFolder(RealFolder):
    """A disk without room, for a while."""

    room = 1 << 20

    def write(self, name: str, offset: int, data: bytes) -> None:
        if len(data) > self.room:
            super().write(name, offset, data[: self.room])
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(name, offset, data)


def test_a_write_that_found_no_room_is_written_again(tmp_path: Path) -> None:
    folder = FullFolder(tmp_path)
    log = RaftLog.create(folder, ME, HardState(1, 0, 1), SEGMENT)
    log.append(Write(HardState(1, 0, 1), [entry(2)]))
    folder.room = 30
    with pytest.raises(OSError, match="No space"):
        log.append(Write(HardState(1, 0, 2), [entry(3)]))
    folder.room = 1 << 20
    log.append(Write(HardState(1, 0, 2), [entry(3)]))
    log.append(Write(HardState(1, 0, 3), [entry(4)]))
    log.close()
    assert reopened(tmp_path)[1] == [entry(2), entry(3), entry(4)]

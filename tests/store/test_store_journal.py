"""A single server's journal: what is in it is there after a crash; and what a crash leaves is told from damage."""

from __future__ import annotations

import asyncio
import errno
import shutil
from pathlib import Path
from typing import Any

import lmdb
import pytest

from fastkube.store import CorruptStore, NoSpace, Store, restore
from fastkube.store.appender import KernelAppender, ThreadAppender, appender
from fastkube.store.check import check
from fastkube.store.disk import RealFolder
from fastkube.store.engine import CHECKPOINT_FILE, JOURNAL_FOLDER, Engine
from fastkube.store.journal import Durability, Parts, settle
from fastkube.store.snapshot import BackupFailed


class Machine(Durability):
    """One whose boots the test counts."""

    def __init__(self, boot: str = "boot-1") -> None:
        self._boot = boot


def copied(path: Path, to: Path) -> Path:
    """The files as a kill of the process would leave them now."""
    shutil.copytree(path, to, ignore=shutil.ignore_patterns("writer.lock", "lock.mdb", "followers"))
    return to


async def killed(path: Path, to: Path, values: int) -> Path:
    """A store with some values that was not closed."""
    store = await Store.open(path, durability=Machine())
    for number in range(values):
        await store.put(b"key-%d" % number, b"value-%d" % number * 20)
    copied(path, to)
    await store.close()
    return to


async def held(path: Path, boot: str = "boot-1") -> tuple[int, int]:
    """Revision and number of keys, as the next start finds them."""
    store = await Store.open(path, durability=Machine(boot))
    try:
        return store.revision, store.range(b"a", b"z", count_only=True).count
    finally:
        await store.close()


def segment(path: Path) -> Path:
    return sorted((path / JOURNAL_FOLDER).glob("*.log"))[-1]


async def test_after_a_loss_of_power_the_log_has_what_the_data_lack(tmp_path: Path) -> None:
    """The machine's disk has the data as of the start, and the log."""
    path = tmp_path / "store"
    store = await Store.open(path, durability=Machine())
    at_start = (path / "data.mdb").read_bytes()
    for number in range(40):
        await store.put(b"key-%d" % number, b"x" * 100)
    await store.delete(b"key-7")
    lost = copied(path, tmp_path / "lost")
    await store.close()
    (lost / "data.mdb").write_bytes(at_start)
    assert await held(lost, "boot-2") == (42, 39)
    assert check(lost).ok


async def test_after_a_loss_of_power_a_store_is_settled_before_it_is_looked_at(tmp_path: Path) -> None:
    left = await killed(tmp_path / "store", tmp_path / "left", 10)
    await settle(left)
    assert check(left).revision == 11
    assert not (left / CHECKPOINT_FILE).exists()
    with pytest.raises(BackupFailed, match="there is a store already"):
        (left / "data.mdb").unlink()
        restore(tmp_path / "store", left)


async def test_a_store_that_was_closed_needs_neither_checkpoint_nor_log(tmp_path: Path) -> None:
    path = tmp_path / "store"
    await killed(path, tmp_path / "copy", 10)
    assert not (path / CHECKPOINT_FILE).exists()
    shutil.rmtree(path / JOURNAL_FOLDER)
    assert await held(path, "boot-2") == (11, 10)


async def test_a_store_of_before_there_was_a_log_is_opened(tmp_path: Path) -> None:
    """Its writes were synced one by one; it may also have been written by such a version in between."""
    path = tmp_path / "store"
    await killed(path, tmp_path / "copy", 10)
    kept = (path / "data.mdb").read_bytes()
    store = await Store.open(path, durability=Machine())
    await store.put(b"key-10", b"")
    await store.close()
    newer = (path / "data.mdb").read_bytes()
    shutil.rmtree(path / JOURNAL_FOLDER)
    (path / "data.mdb").write_bytes(kept)
    assert await held(path) == (11, 10)
    (path / "data.mdb").write_bytes(newer)
    assert await held(path, "boot-2") == (12, 11)
    (path / "data.mdb").write_bytes(kept)
    assert await held(path, "boot-3") == (11, 10), "a copy of before that was put in its place"


async def test_a_log_that_is_gone_is_missed(tmp_path: Path) -> None:
    left = await killed(tmp_path / "store", tmp_path / "left", 10)
    shutil.rmtree(left / JOURNAL_FOLDER)
    with pytest.raises(CorruptStore, match="the log is gone"):
        await held(left)


@pytest.mark.parametrize("kept", [0, 5, 19, 21, 60, 150])
async def test_a_torn_record_was_never_acknowledged(tmp_path: Path, kept: int) -> None:
    left = await killed(tmp_path / "store", tmp_path / "left", 10)
    file = segment(left)
    whole = file.read_bytes()
    end = len(whole.rstrip(b"\0"))
    last = whole.rindex(b"fkR1", 0, end)
    file.write_bytes(whole[: last + kept] + bytes(len(whole) - last - kept))
    revision, keys = await held(left)
    assert (revision, keys) == (11, 10), "the data had it already"


async def test_damage_before_the_last_record_is_refused(tmp_path: Path) -> None:
    left = await killed(tmp_path / "store", tmp_path / "left", 10)
    file = segment(left)
    data = bytearray(file.read_bytes())
    data[data.index(b"value-3")] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorruptStore, match="damaged at byte"):
        await held(left)


async def test_a_value_that_looks_like_a_record_is_a_value(tmp_path: Path) -> None:
    """Behind a torn record nothing that a client has sent passes for one that was durable."""
    path = tmp_path / "store"
    store = await Store.open(path, durability=Machine())
    await store.put(b"a", b"1")
    record = segment(path).read_bytes().rstrip(b"\0")
    forged = record[record.rindex(b"fkR1") :]
    forged = forged[:12] + (10**6).to_bytes(8, "little") + forged[20:]
    await store.put(b"b", forged * 3)
    left = copied(path, tmp_path / "left")
    await store.close()
    file = segment(left)
    data = bytearray(file.read_bytes())
    data[data.rindex(b"fkR1", 0, data.index(forged)) + 30] ^= 1
    file.write_bytes(data)
    assert await held(left) == (3, 2)


async def test_the_log_does_not_grow_without_end(tmp_path: Path) -> None:
    path = tmp_path / "store"
    store = await Store.open(path, durability=Machine())
    for _ in range(60):
        await asyncio.gather(*(store.put(b"key-%d" % number, b"x" * 60_000) for number in range(20)))
    used = sum(file.stat().st_size for file in (path / JOURNAL_FOLDER).iterdir())
    await store.close()
    assert used < 70 << 20
    assert [file.name for file in (path / JOURNAL_FOLDER).glob("*.log")] == [segment(path).name]
    assert await held(path) == (1201, 20)


@pytest.mark.parametrize("kind", [KernelAppender, ThreadAppender, appender])
async def test_what_appends_tells_when_it_is_done_and_what_went_wrong(tmp_path: Path, kind: Any) -> None:
    folder = RealFolder(tmp_path)
    folder.create("a", 4096)
    one = kind(folder)
    loop = asyncio.get_running_loop()
    for number in range(5):
        done: asyncio.Future[Exception | None] = loop.create_future()
        one.write("a", number * 4, b"%04d" % number, done.set_result)
        assert not done.done()
        assert await asyncio.wait_for(done, 10) is None
    done = loop.create_future()
    one.write("missing", 0, b"x", done.set_result)
    assert isinstance(await asyncio.wait_for(done, 10), FileNotFoundError)
    one.close()
    folder.close()
    assert (tmp_path / "a").read_bytes()[:20] == b"00000001000200030004"


@pytest.mark.parametrize("kind", [KernelAppender, ThreadAppender])
async def test_records_of_any_size_follow_one_another(tmp_path: Path, kind: Any) -> None:
    folder = RealFolder(tmp_path)
    folder.create("a", 1 << 20)
    loop = asyncio.get_running_loop()
    sizes = (10, 5000, 3182, 4096, 4095, 1, 1, 300_000, 77)
    records = [bytes((65 + number,)) * size for number, size in enumerate(sizes)]
    written = b""
    for reopened in range(2):
        one = kind(folder)
        for record in records[reopened::2]:
            done: asyncio.Future[Exception | None] = loop.create_future()
            one.write("a", len(written), record, done.set_result)
            assert await asyncio.wait_for(done, 10) is None
            written += record
        one.close()
        assert (tmp_path / "a").read_bytes() == written + bytes((1 << 20) - len(written))
    folder.close()


class FullFolder(RealFolder):
    """A disk without room for another segment."""

    full = False

    def create(self, name: str, size: int) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().create(name, size)


class FullMachine(Machine):
    def parts(self, engine: Engine) -> Parts:
        parts = super().parts(engine)
        self.folder = FullFolder(engine.path / JOURNAL_FOLDER)
        return parts._replace(folder=self.folder)


async def test_a_log_without_room_refuses_writes_and_loses_nothing(tmp_path: Path) -> None:
    machine = FullMachine()
    store = await Store.open(tmp_path / "store", durability=machine)
    machine.folder.full = True
    with pytest.raises(NoSpace, match="nothing was written"):
        await store.put(b"large", bytes(1 << 20))
    assert store.status().health in ("no space", "serving")
    assert store.get(b"large") is None
    machine.folder.full = False
    assert await store.put(b"large", bytes(1 << 20)) == 2
    await store.close()
    assert await held(tmp_path / "store") == (2, 1)


class _FullTransaction:
    """LMDB's, on a disk that is full when it is committed."""

    def __init__(self, txn: Any) -> None:
        self._txn = txn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._txn, name)

    def commit(self) -> None:
        self._txn.abort()
        error = lmdb.DiskError("mdb_txn_commit: No space left on device")
        error.code = errno.ENOSPC
        raise error


@pytest.mark.parametrize("boot", ["boot-1", "boot-2"])
async def test_what_could_not_be_committed_is_taken_out_of_the_log(tmp_path: Path, boot: str) -> None:
    path = tmp_path / "store"
    store = await Store.open(path, durability=Machine())
    await store.put(b"a", b"1")
    engine = store._engine

    class Full:
        def __getattr__(self, name: str) -> Any:
            return getattr(env, name)

        def begin(self, *, write: bool = False, **options: Any) -> Any:
            return _FullTransaction(env.begin(write=True)) if write else env.begin(**options)

    env, engine.env = engine.env, Full()  # type: ignore[assignment]
    with pytest.raises(NoSpace):
        await store.put(b"b", b"2")
    engine.env = env
    left = copied(path, tmp_path / "left")
    await store.close()
    assert await held(left, boot) == (2, 1)

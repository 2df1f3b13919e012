"""Backup of a running store, and restore: a consistent copy at one revision, which is itself a store.

The copy is made by a process of its own. It reads one LMDB snapshot while the server goes on writing; in the server's
process the same copy would keep the map from growing, and the writers waiting, until it is done.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import lmdb

from fastkube.store.check import Report, check
from fastkube.store.engine import CHECKPOINT_FILE, DATA_FILE, JOURNAL_FOLDER, Databases, Engine, sync_directory
from fastkube.store.errors import CorruptStore, StoreError
from fastkube.store.mvcc import Reading, Writing
from fastkube.store.ops import TO_THE_END
from fastkube.store.records import DELETE, PUT, STATE, Event, Item, State

_PARTIAL = ".partial"
_SECTOR_BYTES = 512  # of which a store's file has a whole number
_PIECE_BYTES = 1 << 20
_PAGE_CHANGES = 1000


class BackupFailed(StoreError):
    """The copy could not be made; what was begun of it is removed."""


async def backup(path: Path, target: Path, by: str = __name__) -> None:
    """Copy the store at `path` to the new directory `target`. Raises BackupFailed.

    `by` is the module that does it, in a process of its own: one that writes another form makes a file of it.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", by, str(path), str(target), stderr=asyncio.subprocess.PIPE
    )
    try:
        _, complaint = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        lines = complaint.decode(errors="replace").strip().splitlines()
        raise BackupFailed(f"{target}: {lines[-1] if lines else f'exit status {process.returncode}'}")


def restore(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> Report:
    """Make a store at `path`, where there must be none, from a backup. Raises CorruptStore for a damaged one."""
    target = Path(path)
    if any((target / name).exists() for name in (DATA_FILE, CHECKPOINT_FILE, JOURNAL_FOLDER)):
        raise BackupFailed(f"{target}: there is a store already")
    report = check(source)
    if not report.ok:
        raise CorruptStore(f"{source}: {report.problems[0]}")
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = target / (DATA_FILE + _PARTIAL)
    shutil.copyfile(Path(source) / DATA_FILE, partial)
    with open(partial, "r+b") as copied:
        os.fsync(copied.fileno())
    partial.rename(target / DATA_FILE)
    sync_directory(target)
    return report


def check_digest(file: Path) -> None:
    """A snapshot that etcdctl saved ends with its SHA-256: compare, and cut it off. Raises CorruptStore."""
    size = file.stat().st_size - hashlib.sha256().digest_size
    if size < 0 or size % _SECTOR_BYTES:
        return
    with file.open("r+b") as snapshot:
        digest = hashlib.sha256()
        left = size
        while left:
            piece = snapshot.read(min(left, _PIECE_BYTES))
            digest.update(piece)
            left -= len(piece)
        if snapshot.read() != digest.digest():
            raise CorruptStore(f"{file}: the snapshot is not what its checksum says")
        snapshot.truncate(size)


class Change(NamedTuple):
    """Of a store that is made of another's records: a version, or None where the key ended."""

    revision: int
    key: bytes
    item: Item | None


def load_changes(engine: Engine, changes: Iterable[Change], leases: Mapping[int, int], compacted: int) -> int:
    """Fill an empty store with changes in their order and with leases; its revision, at which it is compacted."""
    with engine.env.begin() as txn:
        revision = max(compacted, engine.state(txn).revision)
    coming = iter(changes)
    newest: list[bytes] = []  # what was put at `revision`
    while page := list(itertools.islice(coming, _PAGE_CHANGES)):
        for change in page:
            if change.revision > revision:
                revision, newest = change.revision, []
            if change.revision == revision and change.item is not None:
                newest.append(change.key)
        _load_page(engine, page, revision)
    while True:
        try:
            with engine.env.begin(write=True) as txn:
                writing = Writing(txn, engine.databases, engine.state(txn))
                for lease, ttl_s in leases.items():
                    writing.grant_lease(lease, ttl_s)
                writing.advance(revision)
                writing.compact(revision)
                writing.begin_log(newest)
                writing.save_state()
            return revision
        except lmdb.MapFullError:
            engine.grow(engine.map_bytes * 2)


def _load_page(engine: Engine, page: list[Change], revision: int) -> None:
    while True:
        try:
            with engine.env.begin(write=True) as txn:
                writing = Writing(txn, engine.databases, engine.state(txn))
                for change in page:
                    writing.place(change.key, change.item)
                writing.advance(revision)
                writing.save_state()
            return
        except lmdb.MapFullError:
            engine.grow(engine.map_bytes * 2)


def load_snapshot(engine: Engine, path: Path, index: int, term: int) -> None:
    """Put a copy's data in the place of a store's, in one transaction; readers of other processes see one commit.

    Raises CorruptStore for a copy that is not of that applied index.
    """
    source = lmdb.open(str(path), subdir=False, readonly=True, lock=False, max_dbs=len(Databases._fields))
    try:
        handles = Databases(*(source.open_db(name.encode(), create=False) for name in Databases._fields))
        with source.begin() as read, engine.env.begin(write=True) as write:
            if State(*STATE.unpack(read.get(b"state", b"", handles.meta))).applied != index:
                raise CorruptStore(f"{path}: the copy is not of index {index}")
            for old, new in zip(engine.databases, handles, strict=True):
                write.drop(old, delete=False)
                write.cursor(old).putmulti(read.cursor(new).iternext(), append=True)
            write.put(b"installed", STATE.pack(index, term, 0), db=engine.databases.meta)
    finally:
        source.close()


def describe(path: Path) -> tuple[int, bytes]:
    """Applied index and membership of a copy. Raises lmdb.Error."""
    source = lmdb.open(str(path), subdir=False, readonly=True, lock=False, max_dbs=len(Databases._fields))
    try:
        meta = source.open_db(b"meta", create=False)
        with source.begin(db=meta) as txn:
            return State(*STATE.unpack(txn.get(b"state", b""))).applied, txn.get(b"members", b"")
    finally:
        source.close()


def installed(engine: Engine) -> tuple[int, int]:
    """Index and term of the last snapshot that was loaded; zeros if there was none."""
    with engine.env.begin(db=engine.databases.meta) as txn:
        raw = txn.get(b"installed")
    return STATE.unpack(raw)[:2] if raw else (0, 0)


def difference(old: Reading, new: Reading) -> list[Event]:
    """What is not as it was, for those who keep a picture of the newest versions."""
    events: list[Event] = []
    before = {item.key: item for item in old.items(b"", TO_THE_END)}
    for item in new.items(b"", TO_THE_END):
        prev = before.pop(item.key, None)
        if prev is None or prev.mod_revision != item.mod_revision:
            key, value, create, mod, version, lease = item
            events.append(Event(PUT, key, value, mod, create, version, lease, prev))
    gone = [Event(DELETE, key, b"", new.revision, 0, 0, 0, prev) for key, prev in before.items()]
    return [*gone, *sorted(events, key=lambda event: event.revision)]


def _copy(path: Path, target: Path) -> None:
    """In the process of its own: copy to a directory beside the target, and give it its name when it is whole."""
    if target.exists():
        raise BackupFailed(f"{target} exists")
    partial = target.with_name(target.name + _PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700, parents=True)
    try:
        engine = Engine(path, readonly=True, sync=True, map_bytes=0, max_bytes=1 << 62)
        try:
            engine.env.copy(str(partial), compact=True)
        finally:
            engine.close()
        with open(partial / DATA_FILE, "r+b") as copied:
            os.fsync(copied.fileno())
        partial.rename(target)
        sync_directory(target.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


if __name__ == "__main__":
    _copy(Path(sys.argv[1]), Path(sys.argv[2]))

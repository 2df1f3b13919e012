"""The LMDB environment: its files, the writer's lock, its size. Nothing here knows what a revision is.

Rules:
 1. One process writes. It holds an exclusive flock on `writer.lock` for as long as it has the store open.
 2. The map grows only while no transaction of this process is in use: growing makes all of them invalid. The store
    calls `grow` on the event loop (committer.py), and re-opens its view before it goes on.
 3. A reader whose map became too small, because the writer grew it, adopts the new size when it next begins.
 4. Files that are not ours, or are damaged, are refused; they are never repaired or overwritten.
 5. The file covers every page that LMDB counts, for to read behind the end of a mapped file kills the process. LMDB
    itself leaves pages at the end unwritten which a transaction took and gave back, so the file is extended (by a
    hole) ahead of the data. A file that is shorter all the same was perhaps cut off: it is extended and then checked
    in full before anyone uses it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any, NamedTuple

import lmdb

from fastkube.store.errors import DISK_FULL, CorruptStore, StoreLocked
from fastkube.store.records import FIRST_REVISION, FORMAT, STATE, State

DATA_FILE = "data.mdb"
CHECKPOINT_FILE = "checkpoint"
JOURNAL_FOLDER = "log"
LOCK_FILE = "writer.lock"
DEFAULT_MAX_BYTES = 64 << 30

_INITIAL_MAP_BYTES = 1 << 30
_SPARE_MAP_BYTES = 64 << 20  # beyond the size limit: for deletes, compaction, and pages that readers still hold
_COVER_BYTES = 16 << 20  # how far the file is extended at a time
_PAGES_PER_VALUE = 4  # bytes of pages a byte of values may take: itself, its older version, and the pages' slack
_SPACE_FLOOR_BYTES = 1 << 20
_MAX_READERS = 1022
_DATABASES = ("current", "history", "log", "leases", "lease_keys", "meta")


class Databases(NamedTuple):
    """LMDB's handles, in the order of `_DATABASES`."""

    current: Any
    history: Any
    log: Any
    leases: Any
    lease_keys: Any
    meta: Any


class Engine:
    """An open environment. `generation` rises when the map is replaced: transactions begun before it are dead."""

    def __init__(self, path: Path, *, readonly: bool, sync: bool, map_bytes: int, max_bytes: int) -> None:
        self.path = path
        self.readonly = readonly
        self._sync = sync
        self.max_bytes = max_bytes
        self.max_map_bytes = max_bytes + max(max_bytes // 2, _SPARE_MAP_BYTES)
        self.generation = 0
        self._lock = None if readonly else _lock(path)
        try:
            self.env = self._open(sync, min(map_bytes or _INITIAL_MAP_BYTES, max_bytes))
            try:
                if self.was_cut_off:
                    self._cover_all()
                self.databases = self._open_databases()
            except BaseException:
                self.env.close()
                raise
        except BaseException:
            self._unlock()
            raise

    def _open(self, sync: bool, map_bytes: int) -> lmdb.Environment:
        data = self.path / DATA_FILE
        fresh = not data.exists()
        if fresh and self.readonly:
            raise CorruptStore(f"{self.path}: there is no store here")
        if not fresh and not data.stat().st_size:
            raise CorruptStore(f"{self.path}: the data file is empty")
        try:
            env = lmdb.open(
                str(self.path),
                map_size=map_bytes,
                readonly=self.readonly,
                create=False,
                sync=sync,
                metasync=sync,
                mode=0o600,
                max_dbs=len(_DATABASES),
                max_readers=_MAX_READERS,
                max_spare_txns=1,
            )
        except lmdb.Error as error:
            raise CorruptStore(f"{self.path}: {error}") from error
        if fresh and sync:
            sync_directory(self.path)
        self.page_bytes: int = env.stat()["psize"]
        self._covered_bytes = data.stat().st_size
        self.was_cut_off = self._covered_bytes < int(env.info()["last_pgno"] + 1) * self.page_bytes
        return env

    def _open_databases(self) -> Databases:
        try:
            self.env.reader_check()  # slots of processes that were killed
            if not self.readonly:
                self._create_if_empty()
            with self.env.begin() as txn:
                if not txn.stat()["entries"]:
                    raise CorruptStore(f"{self.path}: the store is empty: it was never opened for writing")
            handles = Databases(*(self.env.open_db(name.encode(), create=False) for name in _DATABASES))
            with self.env.begin(db=handles.meta) as txn:
                found = txn.get(b"format")
                state = txn.get(b"state")
        except lmdb.Error as error:
            raise CorruptStore(f"{self.path}: not a fastkube store, or damaged: {error}") from error
        if found != FORMAT:
            raise CorruptStore(f"{self.path}: format {found!r} where {FORMAT!r} is needed")
        if state is None or len(state) != STATE.size:
            raise CorruptStore(f"{self.path}: the record of the revision is damaged")
        return handles

    def _create_if_empty(self) -> None:
        with self.env.begin(write=True) as txn:
            if txn.stat()["entries"]:
                return
            for name in _DATABASES:
                self.env.open_db(name.encode(), txn=txn)
            meta = self.env.open_db(b"meta", txn=txn)
            txn.put(b"format", FORMAT, db=meta)
            txn.put(b"state", STATE.pack(*State(FIRST_REVISION, 0, 0)), db=meta)

    def read(self) -> lmdb.Transaction[bytes]:
        """A read transaction on the newest durable commit."""
        try:
            return self.env.begin()
        except lmdb.MapResizedError:
            self.env.set_mapsize(0)
            self.generation += 1
            return self.env.begin()

    def state(self, txn: lmdb.Transaction[bytes]) -> State:
        return State(*STATE.unpack(txn.get(b"state", b"", self.databases.meta)))

    def cover(self, coming_bytes: int, file_bytes: int) -> None:
        """Before a transaction that brings `coming_bytes` of values: extend the file ahead of its pages (rule 5)."""
        needed = file_bytes + _COVER_BYTES // 2 + _PAGES_PER_VALUE * coming_bytes
        if self._covered_bytes < needed:
            self._extend(needed + _COVER_BYTES)

    def _cover_all(self) -> None:
        """For a file that is too short; but when a writer is alive, it has seen to that already."""
        try:
            lock = _lock(self.path) if self._lock is None else None
        except StoreLocked:
            self.was_cut_off = False
            return
        try:
            self._extend(self.file_bytes)
        finally:
            if lock is not None:
                os.close(lock)

    def _extend(self, to_bytes: int) -> None:
        with open(self.path / DATA_FILE, "r+b") as data:
            if os.fstat(data.fileno()).st_size < to_bytes:
                os.ftruncate(data.fileno(), to_bytes)
                if self._sync:
                    os.fsync(data.fileno())
        self._covered_bytes = to_bytes

    def grow(self, to_bytes: int) -> None:
        """Replace the map by one of `to_bytes`. Every transaction of this process is invalid afterwards (rule 2)."""
        self.env.set_mapsize(to_bytes)
        self.generation += 1

    @property
    def map_bytes(self) -> int:
        size: int = self.env.info()["map_size"]
        return size

    @property
    def file_bytes(self) -> int:
        """The extent of the data file, free pages inside it included."""
        return int(self.env.info()["last_pgno"] + 1) * self.page_bytes

    def live_bytes(self, txn: lmdb.Transaction[bytes]) -> int:
        """What the data fills, free pages excluded."""
        pages = 0
        for database in self.databases:
            stat = txn.stat(database)
            pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return pages * self.page_bytes

    def close(self) -> None:
        self.env.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _lock(path: Path) -> int:
    """The writer's lock; the file tells people who holds it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 32).decode(errors="replace").strip()
        os.close(descriptor)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise StoreLocked(f"{path}: process {holder or '?'} has the store open for writing") from None
        raise
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def sync_directory(path: Path) -> None:
    """Make the names of new files durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lacks_space(error: Exception, path: Path) -> bool:
    """Whether the disk that `path` is on was full. LMDB reports a write that was cut short as an I/O error."""
    code = getattr(error, "code" if isinstance(error, lmdb.Error) else "errno", 0)
    if code != errno.EIO:
        return code in DISK_FULL
    free = os.statvfs(path)
    return free.f_bavail * free.f_frsize < _SPACE_FLOOR_BYTES

"""What makes a single server's writes durable: each batch is one record of a log, and one sync.

    committer.py  a batch is applied in an LMDB transaction, which stays open
    append        its commands become a record; the file is synced (appender.py)
    committer.py  the transaction is committed, without a sync: now readers see it, and it is acknowledged
    committed     now and then, beside all this: a checkpoint (checkpoint.py), and the log before it goes

So what is acknowledged or seen is in the log, and what a loss of power leaves of the data file is of no account: the
last checkpoint is whole, and the commands behind it are applied again, in their order.

What is found when the store is opened:

    checkpoint   log
    no           no          a new store, or one that was written without a log: the data are complete
    no           any         it was closed: the data are complete (or the process died before its first write)
    yes          any         it was not closed: the data, or after a boot the checkpoint's, lack what the log has
    yes          no          the log is lost, and perhaps acknowledged writes with it: refused

A store that was closed has no checkpoint, so whatever writes it meanwhile (restored, or by a version without a log) is
not taken back.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import lmdb

from fastkube.store.appender import appender
from fastkube.store.checkpoint import Checkpoints, Pin, boot_id, put_back
from fastkube.store.committer import Batch, Committer
from fastkube.store.disk import Appender, Folder, RealFolder
from fastkube.store.engine import CHECKPOINT_FILE, DEFAULT_MAX_BYTES, JOURNAL_FOLDER, Engine
from fastkube.store.errors import CorruptStore
from fastkube.store.mvcc import Reading
from fastkube.store.replica import Proposal
from fastkube.store.segments import Place, Segments
from fastkube.store.wire import command_from_wire, command_to_wire, pack, unpack
from fastkube.store.work import Done, ThreadWork, Work

log = logging.getLogger(__name__)

_FORMAT = "fastkube-journal/1"
_INDEX = struct.Struct("<Q")  # the record's last command, by its place in the order of all; its commands follow
_CHECKPOINT_BYTES = 32 << 20
_CHECKPOINT_PAGES = 4096
"""Pages that are replaced are not used again before the next checkpoint: this is how far the data file grows by it."""

_PAGES_PER_COMMIT = 10  # the way from the roots to the leaves, of each table that every write touches
_PAGES_PER_COMMAND = 2


class Parts(NamedTuple):
    """What a journal is made of; the simulation has its own."""

    folder: Folder
    appender: Appender
    checkpoints: Checkpoints
    work: Work


class Durability:
    """A real disk's."""

    def __init__(self) -> None:
        self._boot = boot_id()

    def prepare(self, path: Path) -> bool:
        """Before the data file is opened; whether the machine was booted with the store open."""
        return put_back(path, self._boot)

    def parts(self, engine: Engine) -> Parts:
        folder = RealFolder(engine.path / JOURNAL_FOLDER)
        return Parts(folder, appender(folder), Checkpoints(engine, self._boot), ThreadWork("store-checkpoint"))


class Journal:
    """On the loop that opened it; one append at a time."""

    def __init__(self, engine: Engine, parts: Parts) -> None:
        self._engine = engine
        self._parts = parts
        self._loop = asyncio.get_running_loop()
        self._segments = Segments(parts.folder)
        self._newest: Place | None = None
        self._unapplied: list[bytes] = []
        self._last = 0
        self._preparing = False
        self._checkpointing: Pin | None = None
        self._unpinned = False
        self._bytes = self._pages = 0  # since the last checkpoint

    def open(self) -> None:
        """Read what there is. Raises CorruptStore, OSError, lmdb.Error."""
        segments, path = self._segments, self._engine.path
        self._last = self._applied()
        was_closed = not (path / CHECKPOINT_FILE).exists()
        segments.read(self._take)
        if not segments.begun and not was_closed:
            raise CorruptStore(f"{path}: the log is gone, and perhaps acknowledged writes with it")
        if segments.begun and segments.first_mark > self._last and (self._unapplied or not was_closed):
            raise CorruptStore(f"{path}: the data are at {self._last}, the log begins behind {segments.first_mark}")
        if not segments.begun or segments.first_mark > self._last:
            self._begin_anew()
        self._checkpoint_now()

    def _take(self, payload: bytes, is_head: bool) -> int:
        if is_head:
            form, mark, self._segments.salt = unpack(payload)
            if form != _FORMAT:
                raise CorruptStore(f"log format {form!r} where {_FORMAT!r} is needed")
            return int(mark)
        index = _INDEX.unpack_from(payload)[0]
        if index > self._last:
            self._unapplied.append(payload)
        return 0

    def unapplied(self) -> Iterator[list[Proposal]]:
        """Batches that the data lack, in their order."""
        records, self._unapplied = self._unapplied, []
        for payload in records:
            proposals = [
                Proposal(tuple(map(command_from_wire, commands)), None, many=many)
                for many, commands in unpack(payload[_INDEX.size :])
            ]
            self._last = proposals[-1].index = _INDEX.unpack_from(payload)[0]
            yield proposals

    def append(self, proposals: list[Proposal], done: Done) -> None:
        """Make a batch durable. `done` is called later; with an error there is nothing of it in the log."""
        commands = [(one.many, [command_to_wire(command) for command in one.commands]) for one in proposals]
        index = proposals[-1].index
        payload = _INDEX.pack(index) + pack(commands)
        segments = self._segments
        try:
            if not segments.fits(payload):
                self._begin_segment(payload)
        except OSError as error:
            self._loop.call_soon(done, error)
            return
        place = segments.place(payload)

        def written(error: Exception | None) -> None:
            if error is not None:  # but perhaps some of it
                self._parts.appender.write(*segments.erasure(place), lambda _: done(error))
                return
            segments.written(place)
            self._newest, self._last = place, index
            self._bytes += len(place.data)
            self._prepare()
            done(None)

        self._parts.appender.write(*place, written)

    def take_back(self, done: Done) -> None:
        """Take the newest record out again, for its batch could not be committed."""
        assert self._newest is not None
        place = self._segments.erasure(self._newest)

        def written(error: Exception | None) -> None:
            if error is None:
                self._segments.erased(place)
            done(error)

        self._parts.appender.write(*place, written)

    def _begin_segment(self, coming: bytes = b"", *, spare: bool = True) -> None:
        salt = self._segments.salt or secrets.randbits(32)
        self._segments.begin(pack((_FORMAT, self._last, salt)), self._last, coming, spare=spare)
        self._segments.salt = salt

    def _begin_anew(self) -> None:
        """Behind all that is applied, with nothing before it."""
        self._begin_segment(spare=False)
        self._segments.drop_before(self._last)

    def _prepare(self) -> None:
        """The next segment, away from the loop. Where there is no room for it, the one who needs it finds out."""
        size = self._segments.next_bytes
        if size and not self._preparing:
            self._preparing = True

            def done(error: Exception | None) -> None:
                self._preparing = False

            self._parts.work.submit(lambda: self._parts.folder.prepare(size), done)

    # Checkpoints.

    def committed(self, commands: int) -> None:
        """A batch is in the data."""
        self._pages += _PAGES_PER_COMMIT + _PAGES_PER_COMMAND * commands
        if self._checkpointing is None and (self._pages > _CHECKPOINT_PAGES or self._bytes > _CHECKPOINT_BYTES):
            self._checkpoint()

    def _checkpoint(self) -> None:
        self._bytes = self._pages = 0
        checkpoints = self._parts.checkpoints
        try:
            pin = self._checkpointing = checkpoints.begin()
        except (CorruptStore, OSError, lmdb.Error) as error:
            log.error("%s: no checkpoint: %s", self._engine.path, error)
            return

        def done(error: Exception | None) -> None:
            if self._checkpointing is not pin:
                checkpoints.end(pin, False)  # the map was replaced meanwhile: there is a newer one
                return
            self._checkpointing = None
            checkpoints.end(pin, error is None)
            if error is None:
                self._drop()
            else:
                log.error("%s: no checkpoint: %s", self._engine.path, error)

        self._parts.work.submit(lambda: checkpoints.record(pin), done)

    def _drop(self) -> None:
        try:
            self._segments.drop_before(self._parts.checkpoints.applied)
        except OSError as error:
            log.error("%s: old segments of the log remain: %s", self._engine.path, error)

    def _checkpoint_now(self) -> None:
        self._checkpointing = None
        self._unpinned = True
        self._parts.checkpoints.now()
        self._unpinned = False

    def grown(self) -> None:
        """The map was replaced, and every transaction with it: a checkpoint at once, before anything is written."""
        self._checkpoint_now()

    def secure(self) -> None:
        """Before a transaction that writes: should `grown` have failed, what it lacks comes first."""
        if self._unpinned:
            self._checkpoint_now()

    def close(self, *, whole: bool) -> None:
        """When nothing is under way. With `whole` the data are made complete, so that they need no log."""
        parts = self._parts
        parts.work.close()
        self._checkpointing = None
        try:
            if whole:
                self._complete()
        except (OSError, lmdb.Error) as error:
            log.error("%s: the log stays for the next start: %s", self._engine.path, error)
        finally:
            parts.checkpoints.release()
            parts.appender.close()
            self._segments.close()

    def _complete(self) -> None:
        checkpoints = self._parts.checkpoints
        checkpoints.now()
        self._last = checkpoints.applied
        self._begin_anew()
        checkpoints.forget()

    def _applied(self) -> int:
        with self._engine.env.begin() as txn:
            return self._engine.state(txn).applied


def open_journal(engine: Engine, durability: Durability, *, create: bool = True) -> Journal | None:
    """The journal of a store, which has all afterwards that is in it. None: there is none, and none shall be made.

    Raises CorruptStore, OSError, lmdb.Error, and StoreUnavailable where there is no room for what is in it.
    """
    if not create and not (engine.path / JOURNAL_FOLDER).exists():
        return None
    journal = Journal(engine, durability.parts(engine))
    try:
        journal.open()
        committer = Committer(engine, None, on_done=lambda batch: None, on_grow=journal.grown)
        for proposals in journal.unapplied():
            committer.redo(Batch(proposals, False))
    except BaseException:
        journal.close(whole=False)
        raise
    return journal


async def settle(path: Path) -> None:
    """To a store that nobody has open, after a loss of power: what its next start would do first of all.

    What a member lacks its log tells, which is for the member to read. Raises as `open_journal` does, and StoreLocked.
    """
    durability = Durability()
    if not durability.prepare(path):
        return
    engine = Engine(path, readonly=False, sync=False, map_bytes=0, max_bytes=DEFAULT_MAX_BYTES)
    try:
        if not is_member_store(engine):
            journal = open_journal(engine, durability)
            assert journal is not None
            journal.close(whole=True)
    finally:
        engine.close()


def is_member_store(engine: Engine) -> bool:
    """Whether the store is one of several that replicate it."""
    with engine.env.begin() as txn:
        return bool(Reading(txn, engine.databases, engine.state(txn)).members())

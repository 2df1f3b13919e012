"""Durability of a store whose commits are not synced one by one, because a log is: consensus's, or a single server's.

LMDB without sync survives the death of the process, for the page cache does. It does not survive the machine's: pages
reach the disk in any order, and the root may name pages that never did. So from time to time, beside the running store,

    1. pin     a read transaction begins on the newest commit, C; its root page is copied. While the pin lasts, LMDB
               does not reuse a page of C, whatever is committed after it.
    2. sync    the file is synced, and with it every page of C.
    3. record  the root, the applied index and the id of this boot of the machine are written to a file, durably.
    4. unpin   the pin of the checkpoint before is let go; the log up to C's applied index is no longer needed.

When the store is opened and the machine has been booted since, the recorded root is put back into the file: what it
names is all on the disk. The commits after it come again from the log. Nothing is copied but one page.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import lmdb
import msgpack

from fastkube.store.engine import CHECKPOINT_FILE, DATA_FILE, Engine, sync_directory
from fastkube.store.errors import CorruptStore

_FORMAT = "fastkube-checkpoint/1"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PAGE_NUMBER = struct.Struct("<Q")  # the first field of every page
_TXN_ID = struct.Struct("<Q")
_TXN_ID_AT = 16 + 4 + 4 + 8 + 8 + 2 * 48 + 8
"""Page header; then magic, version, address, map size, two trees, last page."""
_META_PAGES = 2


class Pin(NamedTuple):
    """A commit that is held, and what is recorded of it."""

    txn: lmdb.Transaction[bytes]
    applied: int
    root: bytes


def boot_id() -> str:
    """Changes when the machine is booted; where it cannot be told, every start counts as one after a boot."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


class Checkpoints:
    """`begin` and `end` on the loop, between transactions; `record` in any thread."""

    def __init__(self, engine: Engine, boot: str) -> None:
        self._engine = engine
        self._boot = boot
        self._pin: Pin | None = None
        self._recording = threading.Lock()
        self._recorded = 0
        self.applied = 0
        """What the last checkpoint has; the log is needed from here on."""

    def begin(self) -> Pin:
        engine = self._engine
        txn = engine.env.begin()
        try:
            return Pin(txn, engine.state(txn).applied, _root(engine, txn.id()))
        except BaseException:
            txn.abort()
            raise

    def record(self, pin: Pin) -> None:
        """Raises OSError and lmdb.Error; then the checkpoint before stays the last one.

        One that comes late, when a newer commit is recorded already (`now`, on the loop), is left: its pages may be
        reused by now.
        """
        with self._recording:
            commit = _txn_id(pin.root)
            if commit >= self._recorded:
                self._write(pin)
                self._recorded = commit

    def _write(self, pin: Pin) -> None:
        self._engine.env.sync(True)
        packed = msgpack.packb((_FORMAT, self._boot, pin.applied, pin.root))
        path = self._engine.path / CHECKPOINT_FILE
        partial = path.with_suffix(".partial")
        with open(partial, "wb") as file:
            file.write(zlib.crc32(packed).to_bytes(4, "big") + packed)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        sync_directory(self._engine.path)

    def end(self, pin: Pin, recorded: bool) -> None:
        if not recorded:
            pin.txn.abort()
            return
        self.release()
        self._pin = pin
        self.applied = pin.applied

    def now(self) -> None:
        """All of it at once, blocking: at the start, at the end, and when the map has been replaced."""
        pin = self.begin()
        try:
            self.record(pin)
        except BaseException:
            self.end(pin, False)
            raise
        self.end(pin, True)

    def forget(self) -> None:
        """After `now`, when nothing more is written: the file is whole by itself, and there is nothing to put back."""
        (self._engine.path / CHECKPOINT_FILE).unlink(missing_ok=True)
        sync_directory(self._engine.path)

    def release(self) -> None:
        """Let go of the pin; until the next checkpoint the recorded one is not safe."""
        if self._pin is not None:
            self._pin.txn.abort()
            self._pin = None


def put_back(path: Path, boot: str) -> bool:
    """Before a store is opened: after a boot of the machine, the last checkpoint's root. Raises CorruptStore."""
    file = path / CHECKPOINT_FILE
    if not file.exists():
        return False
    raw = file.read_bytes()
    if len(raw) < 4 or zlib.crc32(raw[4:]) != int.from_bytes(raw[:4], "big"):
        raise CorruptStore(f"{file}: the checkpoint is damaged")
    form, recorded_boot, _, root = msgpack.unpackb(raw[4:])
    if form != _FORMAT:
        raise CorruptStore(f"{file}: format {form!r} where {_FORMAT!r} is needed")
    if boot and recorded_boot == boot:
        return False
    slot = _txn_id(root) % _META_PAGES
    other = bytearray(root)
    _PAGE_NUMBER.pack_into(other, 0, 1 - slot)
    _TXN_ID.pack_into(other, _TXN_ID_AT, 0)  # older than any: LMDB takes the root with the greater one
    with open(path / DATA_FILE, "r+b") as data:
        for place, page in ((slot, root), (1 - slot, other)):
            os.pwrite(data.fileno(), page, place * len(root))
        os.fsync(data.fileno())
    return True


def _root(engine: Engine, txn_id: int) -> bytes:
    """The meta page of a commit; LMDB has two and writes them in turn."""
    size = engine.page_bytes
    with open(engine.path / DATA_FILE, "rb") as data:
        page = os.pread(data.fileno(), size, txn_id % _META_PAGES * size)
    if _txn_id(page) != txn_id:
        raise CorruptStore(f"{engine.path}: the root of commit {txn_id} is not where LMDB has it")
    return page


def _txn_id(page: Any) -> int:
    number: int = _TXN_ID.unpack_from(page, _TXN_ID_AT)[0]
    return number

"""The files of a log, as seams: a folder of files written in whole records, and who makes what was written durable.

The simulation has a Folder of its own, which loses and tears what was not durable.

To write over bytes that are there already costs a sync nothing but the bytes; to write where a file has only been
promised room (fallocate), or behind its end, costs it the file system's journal as well: measured, a third of the time.
So files are made of zeros that were really written, ahead of time: `prepare`, away from the loop, has one ready, and
`create` gives it its name.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Protocol

from fastkube.store.engine import sync_directory
from fastkube.store.work import Done

BLOCK_BYTES = 4096
"""Of every device; files of the log are made of whole ones."""

_SPARE = "spare"
_ZEROS = bytes(1 << 20)


class Folder(Protocol):
    """Names are plain file names. Everything may raise OSError."""

    @property
    def spare_bytes(self) -> int:
        """Of the file that is ready; 0: there is none."""

    def names(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...

    def create(self, name: str, size: int) -> None:
        """A file of `size` zero bytes; durable, name and all. It is the spare one, if that has this size."""

    def prepare(self, size: int) -> None:
        """Have a spare file of `size` zero bytes, if there is none. In any thread, beside everything else."""

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Durable when it returns; a crash before that may leave any part of it."""

    def remove(self, name: str) -> None: ...

    def close(self) -> None: ...


class Appender(Protocol):
    """Writes beside the loop, one thing after the other."""

    def write(self, name: str, offset: int, data: bytes, done: Done) -> None:
        """`done` is called on the loop, never before this returns: None when it is durable, or else an OSError."""

    def close(self) -> None:
        """When nothing is under way."""


class RealFolder:
    """O_DSYNC: one system call writes and syncs, so the interpreter's lock is given up once a batch."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: dict[str, int] = {}
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        spare = path / _SPARE
        self._spare_bytes = spare.stat().st_size if spare.exists() else 0

    @property
    def path(self) -> Path:
        return self._path

    @property
    def spare_bytes(self) -> int:
        return self._spare_bytes

    def names(self) -> list[str]:
        return sorted(name for name in os.listdir(self._path) if not name.startswith(_SPARE))

    def read(self, name: str) -> bytes:
        return (self._path / name).read_bytes()

    def create(self, name: str, size: int) -> None:
        self._forget(name)
        if self._spare_bytes == size:
            self._spare_bytes = 0
            (self._path / _SPARE).rename(self._path / name)
        else:
            _make(self._path / name, size)
        sync_directory(self._path)

    def prepare(self, size: int) -> None:
        if self._spare_bytes:
            return
        partial = self._path / f"{_SPARE}.partial"
        try:
            _make(partial, size)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
        partial.rename(self._path / _SPARE)
        self._spare_bytes = size

    def write(self, name: str, offset: int, data: bytes) -> None:
        descriptor = self._open.get(name)
        if descriptor is None:
            descriptor = self._open[name] = os.open(self._path / name, os.O_WRONLY | os.O_DSYNC | os.O_CLOEXEC)
        write_all(descriptor, offset, data)

    def remove(self, name: str) -> None:
        self._forget(name)
        (self._path / name).unlink()

    def _forget(self, name: str) -> None:
        descriptor = self._open.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)

    def close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()


def write_all(descriptor: int, offset: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _make(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)  # first of all, for want of space shall be known before
        for at in range(0, size, len(_ZEROS)):
            write_all(descriptor, at, _ZEROS[: size - at])
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The files of the log, as a seam: a folder of files that are written in whole records, each durable when it returns.

The simulation has a Folder of its own, which loses and tears what was not durable.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from fastkube.store.engine import sync_directory


class Folder(Protocol):
    """Names are plain file names. Everything may raise OSError."""

    def names(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...

    def create(self, name: str, size: int) -> None:
        """A file of `size` zero bytes; durable, name and all."""

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Durable when it returns; a crash before that may leave any part of it."""

    def remove(self, name: str) -> None: ...

    def close(self) -> None: ...


class RealFolder:
    """O_DSYNC: one system call writes and syncs, so the interpreter's lock is given up once a batch."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: dict[str, int] = {}
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def names(self) -> list[str]:
        return sorted(os.listdir(self._path))

    def read(self, name: str) -> bytes:
        return (self._path / name).read_bytes()

    def create(self, name: str, size: int) -> None:
        descriptor = os.open(self._path / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(self._path)

    def write(self, name: str, offset: int, data: bytes) -> None:
        descriptor = self._open.get(name)
        if descriptor is None:
            descriptor = self._open[name] = os.open(self._path / name, os.O_WRONLY | os.O_DSYNC | os.O_CLOEXEC)
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written

    def remove(self, name: str) -> None:
        descriptor = self._open.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)
        (self._path / name).unlink()

    def close(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

"""Backup of a running store, and restore: a consistent copy at one revision, which is itself a store.

The copy is made by a process of its own. It reads one LMDB snapshot while the server goes on writing; in the server's
process the same copy would keep the map from growing, and the writers waiting, until it is done.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

from fastkube.store.check import Report, check
from fastkube.store.engine import DATA_FILE, Engine, sync_directory
from fastkube.store.errors import CorruptStore, StoreError

_PARTIAL = ".partial"


class BackupFailed(StoreError):
    """The copy could not be made; what was begun of it is removed."""


async def backup(path: Path, target: Path) -> None:
    """Copy the store at `path` to the new directory `target`. Raises BackupFailed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, str(path), str(target), stderr=asyncio.subprocess.PIPE
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
    if (target / DATA_FILE).exists():
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

"""How a reader process learns of a commit: a doorbell, not a poll.

Every follower makes a FIFO in the store's `followers` directory; after each commit the writer puts one byte into each.
The byte only says "look": the news itself is in LMDB, so a full FIFO loses nothing, and a follower that was away finds
all of it in the log. A FIFO without a reader belongs to a process that is gone, and is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

_FOLDER = "followers"
_UNREADY = "."  # begins the name of a FIFO that nobody reads yet
_SETTLE_NS = 100_000_000  # a directory's time stamp is coarse: believe it only when it is this old


class Bell:
    """The writer's side."""

    def __init__(self, path: Path) -> None:
        self._folder = path / _FOLDER
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._fifos: dict[str, int] = {}
        self._seen_ns = -1

    def ring(self) -> None:
        """Tell every follower that there is a new commit."""
        changed_ns = os.stat(self._folder).st_mtime_ns
        if changed_ns != self._seen_ns:
            self._find_followers()
            self._seen_ns = changed_ns if time.time_ns() - changed_ns > _SETTLE_NS else -1
        for name, fifo in tuple(self._fifos.items()):
            try:
                os.write(fifo, b"\0")
            except BlockingIOError:
                pass  # it has not yet looked after the last thousands of rings
            except BrokenPipeError:
                self._remove(name)

    def close(self) -> None:
        for fifo in self._fifos.values():
            os.close(fifo)
        self._fifos.clear()

    def _find_followers(self) -> None:
        for name in os.listdir(self._folder):
            if name not in self._fifos and not name.startswith(_UNREADY):
                try:
                    self._fifos[name] = os.open(self._folder / name, os.O_WRONLY | os.O_NONBLOCK)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    if error.errno != errno.ENXIO:
                        raise
                    (self._folder / name).unlink(missing_ok=True)

    def _remove(self, name: str) -> None:
        os.close(self._fifos.pop(name))
        (self._folder / name).unlink(missing_ok=True)


class Follower:
    """The reader's side: `on_ring` is called on the loop after the writer has committed."""

    def __init__(self, path: Path, on_ring: Callable[[], None]) -> None:
        folder = path / _FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._name = folder / name
        unready = folder / (_UNREADY + name)
        os.mkfifo(unready, 0o600)
        # Open for writing too, so that a writer which closes the store does not look like an end of file.
        self._fifo = os.open(unready, os.O_RDWR | os.O_NONBLOCK)
        unready.rename(self._name)
        self._on_ring = on_ring
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fifo, self._rang)

    def close(self) -> None:
        self._loop.remove_reader(self._fifo)
        self._name.unlink(missing_ok=True)
        os.close(self._fifo)

    def _rang(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fifo, 65536)
        self._on_ring()

    def ring_again(self) -> None:
        """Call `on_ring` in the next turn of the loop."""
        self._loop.call_soon(self._on_ring)

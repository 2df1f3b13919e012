"""Where audit events go: a file of JSON lines that is rotated, and a webhook that takes them as lists."""

from __future__ import annotations

import asyncio
import datetime
import gzip
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from fastkube.server.outbound import Peer, PeerError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from fastkube.clock import Clock

Object = dict[str, Any]

_MEGABYTE = 1024 * 1024
_DAY_S = 86_400.0
_WEBHOOK_TIMEOUT_S = 30.0
_ATTEMPTS_MAX = 5


class LogFile:
    """One line for each event. `-` is standard output.

    A file that reaches `size_max_mb` (0: no limit) is renamed with the time in its name, and compressed where that is
    wanted; of those at most `backups_max` are kept, and none that is older than `age_max_days` (0: no limit). Raises
    OSError for a path that cannot be written.
    """

    name = "log"
    at_once = False

    def __init__(
        self, path: str, clock: Clock, *, size_max_mb: int, backups_max: int, age_max_days: int, compress: bool
    ) -> None:
        self._path = Path(path) if path != "-" else None
        self._clock = clock
        self._size_max_bytes = size_max_mb * _MEGABYTE
        self._backups_max = backups_max
        self._age_max_s = age_max_days * _DAY_S
        self._compress = compress
        self._file = -1
        self._size = 0
        if self._path is not None:
            self._open(self._path)

    def _open(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._file).st_size

    def deliver(self, events: list[Object]) -> None:
        for event in events:
            self._write(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE))

    def _write(self, line: bytes) -> None:
        if self._path is None:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            return
        if self._size_max_bytes and self._size and self._size + len(line) > self._size_max_bytes:
            self._rotate(self._path)
        self._size += os.write(self._file, line)

    def _rotate(self, path: Path) -> None:
        os.close(self._file)
        now = datetime.datetime.fromtimestamp(self._clock.time(), datetime.UTC)
        name = f"{path.stem}-{now:%Y-%m-%dT%H-%M-%S}.{now.microsecond // 1000:03d}{path.suffix}"
        rotated = path.rename(path.with_name(name))
        self._open(path)
        if self._compress:
            with rotated.open("rb") as plain, gzip.open(f"{rotated}.gz", "wb") as packed:
                shutil.copyfileobj(plain, packed)
            rotated.unlink()
        backups = sorted(path.parent.glob(f"{path.stem}-*{path.suffix}*"), reverse=True)
        kept = len(backups) if not self._backups_max else self._backups_max
        for number, backup in enumerate(backups):
            old = self._age_max_s and self._clock.time() - backup.stat().st_mtime > self._age_max_s
            if number >= kept or old:
                backup.unlink()

    async def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Webhook:
    """A list that the webhook does not take is sent again with growing pauses, and then given up."""

    name = "webhook"
    at_once = True

    def __init__(self, peer: Peer, pause_s: float) -> None:
        self._peer = peer
        self._pause_s = pause_s

    def deliver(self, events: list[Object]) -> Awaitable[None]:
        return self._send({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": events})

    async def _send(self, document: Object) -> None:
        pause_s = self._pause_s
        for attempt in range(1, _ATTEMPTS_MAX + 1):
            try:
                await self._peer.send(document, _WEBHOOK_TIMEOUT_S)
                return
            except PeerError:
                if attempt == _ATTEMPTS_MAX:
                    raise
            await asyncio.sleep(pause_s)
            pause_s *= 1.5

    async def close(self) -> None:
        await self._peer.close()

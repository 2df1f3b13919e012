"""Where audit events go: a file of JSON lines that is rotated, and a webhook that takes them in batches."""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from fastkube.server.outbound import Peer, PeerError

if TYPE_CHECKING:
    from fastkube.clock import Clock

log = logging.getLogger(__name__)

Object = dict[str, Any]
Send = Callable[[Object], None]

_MEGABYTE = 1024 * 1024
_DAY_S = 86_400.0
_WEBHOOK_TIMEOUT_S = 30.0
_ATTEMPTS_MAX = 5


class LogFile:
    """One line for each event, written before the request's answer. `-` is standard output.

    A file that reaches `size_max_mb` is renamed with the time in its name; of those at most `backups_max` are kept, and
    none that is older than `age_max_days` (0: no limit). Raises OSError for a path that cannot be written.
    """

    def __init__(self, path: str, clock: Clock, *, size_max_mb: int, backups_max: int, age_max_days: int) -> None:
        self._path = Path(path) if path != "-" else None
        self._clock = clock
        self._size_max_bytes = size_max_mb * _MEGABYTE
        self._backups_max = backups_max
        self._age_max_s = age_max_days * _DAY_S
        self._file = -1
        self._size = 0
        if self._path is not None:
            self._open(self._path)

    def _open(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._file).st_size

    def send(self, event: Object) -> None:
        line = orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)
        if self._path is None:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            return
        if self._size and self._size + len(line) > self._size_max_bytes:
            self._rotate(self._path)
        self._size += os.write(self._file, line)

    def _rotate(self, path: Path) -> None:
        os.close(self._file)
        now = datetime.datetime.fromtimestamp(self._clock.time(), datetime.UTC)
        path.rename(path.with_name(f"{path.stem}-{now:%Y-%m-%dT%H-%M-%S}.{now.microsecond // 1000:03d}{path.suffix}"))
        self._open(path)
        backups = sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"), reverse=True)
        kept = len(backups) if not self._backups_max else self._backups_max
        for number, backup in enumerate(backups):
            old = self._age_max_s and self._clock.time() - backup.stat().st_mtime > self._age_max_s
            if number >= kept or old:
                backup.unlink()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Webhook:
    """Events are queued, and sent as one EventList when there are `batch_max` or the oldest has waited `wait_max_s`.

    A list that the webhook does not take is sent again with growing pauses, then dropped; so is an event for which the
    queue has no room. Both are logged.
    """

    def __init__(self, peer: Peer, *, batch_max: int, wait_max_s: float, queue_max: int, pause_s: float) -> None:
        self._peer = peer
        self._batch_max = batch_max
        self._wait_max_s = wait_max_s
        self._queue_max = queue_max
        self._pause_s = pause_s
        self._queue: deque[Object] = deque()
        self._dropped = 0
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._closing = False
        self._task = asyncio.get_running_loop().create_task(self._run())

    def send(self, event: Object) -> None:
        if len(self._queue) >= self._queue_max:
            self._dropped += 1
            if self._dropped & (self._dropped - 1) == 0:  # told at 1, 2, 4, 8, ...
                log.error("audit webhook: the queue is full, %d events were dropped", self._dropped)
            return
        self._queue.append(event)
        self._arrived.set()
        if len(self._queue) >= self._batch_max:
            self._full.set()

    async def _run(self) -> None:
        while not (self._closing and not self._queue):
            await self._arrived.wait()
            if not self._closing and len(self._queue) < self._batch_max:
                try:
                    async with asyncio.timeout(self._wait_max_s):
                        await self._full.wait()
                except TimeoutError:
                    pass
            batch = [self._queue.popleft() for _ in range(min(self._batch_max, len(self._queue)))]
            if len(self._queue) < self._batch_max:
                self._full.clear()
            if not self._queue and not self._closing:
                self._arrived.clear()
            if batch:
                await self._deliver(batch)

    async def _deliver(self, batch: list[Object]) -> None:
        document = {"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": batch}
        pause_s = self._pause_s
        for attempt in range(1, _ATTEMPTS_MAX + 1):
            try:
                await self._peer.send(document, _WEBHOOK_TIMEOUT_S)
                return
            except PeerError as problem:
                if attempt == _ATTEMPTS_MAX or self._closing:
                    log.error("audit webhook: %d events were dropped: %s", len(batch), problem)
                    return
            await asyncio.sleep(pause_s)
            pause_s *= 1.5

    async def close(self, grace_s: float) -> None:
        """Sends what is left, for at most `grace_s`."""
        self._closing = True
        self._arrived.set()
        self._full.set()
        await asyncio.wait((self._task,), timeout=grace_s)
        self._task.cancel()
        await self._peer.close()

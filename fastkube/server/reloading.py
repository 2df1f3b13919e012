"""Configuration files that are read again when they change, as kube-apiserver does: what cannot be used is logged and
counted, and what was there before holds on.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastkube.clock import Clock
    from fastkube.server.metrics import Page

log = logging.getLogger(__name__)

_LOOK_S = 1.0
"""How often files are looked at: what their system says of them, and their content where that has changed."""

Reload = Callable[[], Awaitable[None] | None]
"""Takes the new content; raises ValueError or OSError for what cannot be used."""


class Watched:
    """Files that are one thing (a certificate and its key), and how its reloads went."""

    def __init__(self, what: str, paths: Iterable[str | Path], reload: Reload, metric: str = "") -> None:
        """`metric` begins the names of the counters that upstream has for it, if any."""
        self.what = what
        self.metric = metric
        self._paths = [Path(path) for path in paths]
        self._reload = reload
        self._seen = self._stamps()
        self.digest = self._content()
        self.ended = {"success": 0, "failure": 0}
        self.at: dict[str, float] = {}

    def _stamps(self) -> list[tuple[int, int, int]]:
        stamps = []
        for path in self._paths:
            try:
                told = path.stat()
            except OSError:
                stamps.append((0, 0, 0))
            else:
                stamps.append((told.st_ino, told.st_mtime_ns, told.st_size))
        return stamps

    def _content(self) -> str:
        digest = hashlib.sha256()
        for path in self._paths:
            try:
                digest.update(path.read_bytes())
            except OSError:
                digest.update(b"\0")
        return digest.hexdigest()

    async def look(self, now: float) -> None:
        """Reloads if the files hold something else than before."""
        stamps = self._stamps()
        if stamps == self._seen:
            return
        self._seen = stamps
        digest = self._content()
        if digest == self.digest:
            return
        try:
            waiting = self._reload()
            if inspect.isawaitable(waiting):
                await waiting
        except (ValueError, OSError) as problem:
            log.error("%s: reloading failed, what was there holds on: %s", self.what, problem)
            result = "failure"
        else:
            log.info("%s: reloaded", self.what)
            self.digest, result = digest, "success"
        self.ended[result] += 1
        self.at[result] = now


class Reloads:
    """Looks at all watched files of a server."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._watched: list[Watched] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, watched: Watched) -> None:
        self._watched.append(watched)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            for watched in self._watched:
                await watched.look(self._clock.time())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def render(self, page: Page) -> None:
        """The counters of upstream's controllers, of those that have any."""
        label = {"apiserver_id_hash": f"sha256:{hashlib.sha256(socket.gethostname().encode()).hexdigest()}"}
        for watched in self._watched:
            if not watched.metric:
                continue
            page.counter(
                f"{watched.metric}_automatic_reloads_total",
                f"Reloads of the {watched.what}.",
                [({**label, "status": status}, count) for status, count in watched.ended.items() if count],
            )
            page.gauge(
                f"{watched.metric}_automatic_reload_last_timestamp_seconds",
                f"When the {watched.what} was last reloaded.",
                [({**label, "status": status}, at) for status, at in watched.at.items()],
            )
            page.gauge(
                f"{watched.metric}_last_config_info",
                f"The {watched.what} that is in use.",
                [({**label, "hash": f"sha256:{watched.digest}"}, 1)],
            )

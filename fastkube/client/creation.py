"""Creates that nobody awaits, for who makes thousands: a callback costs a fraction of a task and a future for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from fastkube.client import codec as codecs
from fastkube.client.transport import Response
from fastkube.errors import ApiError

if TYPE_CHECKING:
    from fastkube.client.batch import Batcher, Outcome, Write

Object = dict[str, Any]
Answered = Callable[["ApiError | None"], None]

_running: set[asyncio.Task[Object]] = set()
"""Held until they are done."""


class Creation:
    """One of them; `alone` makes it as a request of its own. `answered` is told once, unless the loop ends before."""

    __slots__ = ("_alone", "_answered")

    def __init__(self, alone: Callable[[], Coroutine[Any, Any, Object]], answered: Answered) -> None:
        self._alone = alone
        self._answered = answered

    def join(self, batcher: Batcher, write: Write) -> None:
        """Go with others."""
        if batcher.is_for_one(write):
            self.go_alone()
        else:
            batcher.write_nowait(write, self._landed)

    def go_alone(self) -> None:
        task = asyncio.ensure_future(self._alone())
        _running.add(task)
        task.add_done_callback(self._ended)

    def _landed(self, outcome: Outcome) -> None:
        if isinstance(outcome, Response) and outcome.status < 400:
            self._answered(None)
        elif isinstance(outcome, ApiError):
            self._answered(outcome)
        elif outcome is None or (isinstance(outcome, Response) and outcome.status == 415):
            self.go_alone()
        elif isinstance(outcome, Response):
            self._answered(codecs.error_from(outcome.status, outcome.headers, outcome.body))

    def _ended(self, task: asyncio.Task[Object]) -> None:
        _running.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, ApiError):
            raise error
        self._answered(error)

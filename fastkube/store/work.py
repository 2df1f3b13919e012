"""Jobs away from the event loop, one after the other: what must wait for a disk."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Protocol

Job = Callable[[], None]
Done = Callable[[Exception | None], None]


class Work(Protocol):
    """Runs one job after the other away from the loop, and calls back on it."""

    def submit(self, job: Job, done: Done) -> None: ...

    def close(self) -> None: ...


class ThreadWork:
    """A thread that does one job after the other."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[tuple[Job, Done] | None]
        self._jobs = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job, done: Done) -> None:
        self._jobs.put((job, done))

    def _run(self) -> None:
        while (found := self._jobs.get()) is not None:
            job, done = found
            error: Exception | None = None
            try:
                job()
            except Exception as failure:
                error = failure
            self._loop.call_soon_threadsafe(done, error)

    def close(self) -> None:
        """Ends the thread when its jobs are done."""
        self._jobs.put(None)
        self._thread.join()

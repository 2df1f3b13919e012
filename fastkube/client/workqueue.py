"""The work queue of controllers: what client-go's workqueue promises, for tasks of one event loop.

1. An item that is added while it waits is not queued twice.
2. An item that is added while it is being processed is queued again when `done` is called: never processed by two
   workers at a time, never forgotten.
3. Items are handed out in the order in which they were first added; delayed ones count from when their time comes.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from fastkube.clock import Clock, RealClock

T = TypeVar("T", bound=Hashable)

BASE_DELAY_S = 0.005
DELAY_MAX_S = 1000.0


class ShutDown(Exception):
    """The queue is shut down and empty: a worker ends."""


class WorkQueue(Generic[T]):
    """`base_delay_s` doubles with each failure of an item, up to `delay_max_s`."""

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        name: str = "",
        base_delay_s: float = BASE_DELAY_S,
        delay_max_s: float = DELAY_MAX_S,
    ) -> None:
        self.name = name
        self.adds = 0
        self.retries = 0
        self._clock: Clock = clock or RealClock()
        self._base_delay_s = base_delay_s
        self._delay_max_s = delay_max_s
        self._queue: deque[T] = deque()
        self._dirty: set[T] = set()
        self._processing: set[T] = set()
        self._failures: dict[T, int] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._delayed: list[tuple[float, int, T]] = []
        self._due: dict[T, float] = {}
        self._order = itertools.count()
        self._timer: asyncio.Task[None] | None = None
        self._timer_at = 0.0
        self._shut_down = False

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def processing(self) -> int:
        return len(self._processing)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is in work; delayed items may be left."""
        return not self._queue and not self._processing

    # -- adding ------------------------------------------------------------------------------------------------------

    def add(self, item: T) -> None:
        if self._shut_down or item in self._dirty:
            return
        self.adds += 1
        self._dirty.add(item)
        if item not in self._processing:
            self._queue.append(item)
            self._wake_one()

    def add_after(self, item: T, delay_s: float) -> None:
        """Add later; of several delays of one item the earliest counts."""
        if self._shut_down:
            return
        if delay_s <= 0:
            self.add(item)
            return
        due = self._clock.monotonic() + delay_s
        known = self._due.get(item)
        if known is not None and known <= due:
            return
        self._due[item] = due
        heapq.heappush(self._delayed, (due, next(self._order), item))
        self._set_timer()

    def add_rate_limited(self, item: T) -> None:
        """Add after the item's own back-off, which grows with each call until `forget`."""
        failures = self._failures.get(item, 0)
        self._failures[item] = failures + 1
        self.retries += 1
        self.add_after(item, min(self._base_delay_s * 2 ** min(failures, 60), self._delay_max_s))

    def forget(self, item: T) -> None:
        """It succeeded: the next failure starts with the least delay."""
        self._failures.pop(item, None)

    def requeues(self, item: T) -> int:
        return self._failures.get(item, 0)

    # -- working -----------------------------------------------------------------------------------------------------

    async def get(self) -> T:
        """The next item, to be given to `done` later; ShutDown when there will be none."""
        while not self._queue:
            if self._shut_down:
                raise ShutDown
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()  # it was our turn: pass it on
                raise
        return self._take()

    def get_nowait(self) -> T | None:
        """The next item if there is one."""
        return self._take() if self._queue else None

    def _take(self) -> T:
        item = self._queue.popleft()
        self._dirty.discard(item)
        self._processing.add(item)
        return item

    def done(self, item: T) -> None:
        self._processing.discard(item)
        if item in self._dirty:
            self._queue.append(item)
            self._wake_one()

    def shut_down(self) -> None:
        """No more items are taken; those which wait are still handed out, delayed ones are dropped."""
        self._shut_down = True
        self._delayed.clear()
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiters:
            self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    # -- delays ------------------------------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        if not self._delayed:
            return
        due = self._delayed[0][0]
        if self._timer is not None:
            if self._timer_at <= due:
                return
            self._timer.cancel()
        self._timer_at = due
        self._timer = asyncio.get_running_loop().create_task(self._wait(due), name=f"work queue {self.name} delays")

    async def _wait(self, due: float) -> None:
        await self._clock.sleep(due - self._clock.monotonic())
        self._timer = None
        now = self._clock.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            at, _, item = heapq.heappop(self._delayed)
            if self._due.get(item) == at:
                del self._due[item]
                self.add(item)
        self._set_timer()

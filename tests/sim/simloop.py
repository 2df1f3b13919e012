"""A world that is its seed: time, network, disks and the order of everything in it.

Each server runs on an event loop of its own, asyncio's, whose time is the world's (at the server's own rate) and which
waits for nothing. So servers run the code that they run in production, and a crash is a loop that is thrown away.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import random
from collections.abc import Callable, Coroutine
from typing import Any


class _NoSelector:
    def select(self, timeout: float | None = None) -> list[Any]:
        return []


class SimLoop(asyncio.BaseEventLoop):
    """Runs when the world says so."""

    def __init__(self, world: World, rate: float) -> None:
        super().__init__()
        self._selector = _NoSelector()
        self._world = world
        self._rate = rate
        self._clock_resolution = 1e-9
        self.dead = False
        self.errors: list[dict[str, Any]] = []
        self.set_exception_handler(lambda loop, context: self.errors.append(context))

    def time(self) -> float:
        return self._world.now * self._rate

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def next_time(self) -> float:
        """In the world's time; infinity when there is nothing to do."""
        if self._ready:  # type: ignore[attr-defined]
            return self._world.now
        scheduled = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        return scheduled[0]._when / self._rate if scheduled else math.inf

    def run_once(self) -> None:
        """asyncio's turn of a loop, without what is for waiting: what is due, then all that was ready when it began."""
        scheduled, ready = self._scheduled, self._ready  # type: ignore[attr-defined]
        end = self._world.now * self._rate + self._clock_resolution
        while scheduled and scheduled[0]._when < end:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        before = asyncio.events._get_running_loop()
        asyncio.events._set_running_loop(self)
        try:
            for _ in range(len(ready)):
                handle = ready.popleft()
                if not handle._cancelled:
                    handle._run()
        finally:
            asyncio.events._set_running_loop(before)

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start something in this loop from outside."""
        before = asyncio.events._get_running_loop()
        asyncio.events._set_running_loop(self)
        try:
            return self.create_task(coroutine)
        finally:
            asyncio.events._set_running_loop(before)


class SimClock:
    """A server's clock."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def time(self) -> float:
        return 1_800_000_000 + self._loop.time()

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class World:
    """Time, and all that is to happen: `at` for the world's own affairs, loops for the servers'."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 1.0
        self.loops: list[SimLoop] = []
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def loop(self) -> SimLoop:
        """For a server; its clock is up to 4 % fast or slow."""
        made = SimLoop(self, self.random.uniform(0.96, 1.04))
        self.loops.append(made)
        return made

    def kill(self, loop: SimLoop) -> None:
        loop.dead = True
        self.loops.remove(loop)

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + delay_s, next(self._order), action))

    def run_until(self, end: float, until: Callable[[], bool] | None = None) -> None:
        """Let time pass, up to `end` or until the condition holds."""
        while until is None or not until():
            ready = self._next()
            if ready is None or ready[0] > end:
                self.now = max(self.now, end)
                return
            when, act = ready
            self.now = max(self.now, when)
            act()

    def _next(self) -> tuple[float, Callable[[], None]] | None:
        soonest, act = (self._queue[0][0], self._pop) if self._queue else (math.inf, None)
        for loop in self.loops:
            when = loop.next_time()
            if when < soonest:
                soonest, act = when, loop.run_once
        return None if act is None else (soonest, act)

    def _pop(self) -> None:
        heapq.heappop(self._queue)[2]()

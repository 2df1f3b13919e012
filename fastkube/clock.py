"""Time as a part that can be replaced: every component takes a `Clock`, none asks the system for the time itself."""

from __future__ import annotations

import asyncio
import datetime
import heapq
import itertools
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

_QUIET_TURNS = 20
"""A task that is woken may need several turns of the loop before it sends a request or sleeps again."""

_POLL_S = 0.0005


class Clock(Protocol):
    """Wall time, monotonic time and sleeping, all in seconds."""

    def time(self) -> float:
        """Seconds since the Unix epoch."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""

    async def sleep(self, seconds: float) -> None: ...


class RealClock:
    """The machine's own time."""

    monotonic = staticmethod(time.monotonic)

    def time(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ManualClock:
    """Time that stands still until `advance`. Sleepers wake in the order of their times, each seeing its own time.

    Before time goes on, whatever a wake-up has set off comes to rest: no `attach`ed part says that it is busy (a
    request under way), and several turns of the loop pass without one becoming so.
    """

    def __init__(self, start: float | None = None) -> None:
        self._start = time.time() if start is None else start
        self._passed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._busy: list[Callable[[], bool]] = []
        self._advancing = asyncio.Lock()

    def attach(self, busy: Callable[[], bool]) -> None:
        """`busy` says whether a part is in the middle of something that must end before time goes on."""
        self._busy.append(busy)

    def time(self) -> float:
        return self._start + self._passed

    def monotonic(self) -> float:
        return self._passed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._passed + seconds, next(self._order), woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass: wakes each sleeper at its own time and lets all come to rest before the next is woken."""
        async with self._advancing:
            until = self._passed + seconds
            await self._rest()
            while self._sleepers and self._sleepers[0][0] <= until:
                self._passed, _, woken = heapq.heappop(self._sleepers)
                if not woken.done():
                    woken.set_result(None)
                    await self._rest()
            self._passed = until

    async def _rest(self) -> None:
        quiet = 0
        while quiet < _QUIET_TURNS:
            if any(busy() for busy in self._busy):
                quiet = 0
                await asyncio.sleep(_POLL_S)
            else:
                quiet += 1
                await asyncio.sleep(0)


def rfc3339(seconds: float) -> str:
    """`2026-01-02T03:04:05Z`, the form of metav1.Time."""
    return _rfc3339(int(seconds))


@lru_cache(maxsize=64)
def _rfc3339(seconds: int) -> str:
    """Much happens in the same second."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(seconds: float) -> str:
    """`2026-01-02T03:04:05.000006Z`, the form of metav1.MicroTime."""
    whole, micro = divmod(round(seconds * 1e6), 1_000_000)
    return f"{_rfc3339(whole)[:-1]}.{micro:06d}Z"


def parse_rfc3339(text: str) -> float:
    """Seconds since the epoch; raises ValueError on anything that is not RFC 3339."""
    return datetime.datetime.fromisoformat(text).timestamp()


def go_duration(seconds: float) -> str:
    """As Go prints a duration, to the millisecond: `1h1m20s`, `1m0s`, `10s`, `1.5s`, `-500ms`, `0s`."""
    sign, millis = "-" if seconds < 0 else "", round(abs(seconds) * 1000)
    if 0 < millis < 1000:
        return f"{sign}{millis}ms"
    minutes, rest = divmod(millis, 60_000)
    hours, minutes = divmod(minutes, 60)
    told = f"{hours}h" if hours else ""
    told += f"{minutes}m" if hours or minutes else ""
    return f"{sign}{told}{rest / 1000:g}s"

"""Reads that see every write acknowledged before them, on any server (rule 3 of consensus.py)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from fastkube._raft import Raft
from fastkube.clock import Clock
from fastkube.store.errors import StoreUnavailable
from fastkube.store.parts import REQUEST_TIMEOUT_S, Host, fail_all, wake
from fastkube.store.wire import pack


class _Reads:
    """Readers who asked together."""

    __slots__ = ("asked_at", "waiters")

    def __init__(self, waiters: list[asyncio.Future[None]], asked_at: float) -> None:
        self.waiters = waiters
        self.asked_at = asked_at


class Reading:
    """Readers who wait: to be asked for, for the leader's answer, and for this server to have applied as much."""

    def __init__(
        self, raft: Raft, host: Host, clock: Clock, incarnation: int, retry_s: float, pump: Callable[[], None]
    ) -> None:
        self._raft = raft
        self._host = host
        self._clock = clock
        self._incarnation = incarnation
        self._retry_s = retry_s
        self._pump = pump
        self._loop = asyncio.get_running_loop()
        self._asking: list[asyncio.Future[None]] = []
        self._reads: dict[bytes, _Reads] = {}
        self._read_number = 0
        self._at_index: deque[tuple[int, list[asyncio.Future[None]]]] = deque()

    def barrier(self) -> Awaitable[None] | None:
        """What to wait for before a read; None when this server knows that it is current."""
        raft = self._raft
        if raft.has_lease() and self._host.applied >= raft.log.committed:
            return None
        waiter = self._loop.create_future()
        if not self._asking:
            self._loop.call_soon(self._ask)
        self._asking.append(waiter)
        return self._current(waiter)

    async def _current(self, waiter: asyncio.Future[None]) -> None:
        try:
            await asyncio.wait_for(waiter, REQUEST_TIMEOUT_S)
        except TimeoutError:
            raise StoreUnavailable("request timed out: no majority confirms that this server is current") from None

    def _ask(self) -> None:
        waiters = [one for one in self._asking if not one.done()]
        self._asking = []
        if not waiters:
            return
        self._read_number += 1
        context = pack((self._incarnation, self._read_number))
        self._reads[context] = _Reads(waiters, self._clock.monotonic())
        self._raft.read_index(context)  # without a leader it is asked again
        self._pump()

    def ask_again(self) -> None:
        """Questions and answers are lost like any message, and leaders change."""
        old = self._clock.monotonic() - self._retry_s
        for context in [one for one, reads in self._reads.items() if reads.asked_at <= old]:
            self._asking += self._reads.pop(context).waiters
        if self._asking:
            self._ask()

    def on_read_state(self, index: int, context: bytes) -> None:
        reads = self._reads.pop(context, None)
        if reads is None:
            return
        if self._host.applied >= index:
            wake(reads.waiters)
        else:
            self._at_index.append((index, reads.waiters))
            if len(self._at_index) > 1 and self._at_index[-2][0] > index:
                self._at_index = deque(sorted(self._at_index, key=lambda each: each[0]))

    def applied(self, index: int) -> None:
        """Reads see everything up to here."""
        while self._at_index and self._at_index[0][0] <= index:
            wake(self._at_index.popleft()[1])

    def drop_all(self, error: StoreUnavailable) -> None:
        waiters: list[asyncio.Future[Any]] = [*self._asking]
        for reads in self._reads.values():
            waiters += reads.waiters
        for _, found in self._at_index:
            waiters += found
        fail_all(waiters, error)
        self._asking, self._reads = [], {}
        self._at_index.clear()

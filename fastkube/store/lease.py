"""Leases: keys that go away unless someone keeps saying that they should stay.

The lease and its keys are in the store; when it runs out is not: deadlines live in the memory of the server that leads,
as in etcd, and a keepalive writes nothing. Whoever opens the store (or begins to lead) gives every lease its full time
again, or what was left of it at its last checkpoint.
The end of a lease is a command like any other (RevokeLease), so what a clock decides here is deterministic for
everyone who applies it.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable

from fastkube.clock import Clock
from fastkube.store.errors import LeaseNotFound, StoreError, StoreUnavailable

CHECKPOINT_S = 300.0
"""etcd's interval: how often a leader writes what is left of leases that live longer than this."""

_RETRY_S = 1.0  # after an expiry that could not be written


class _Lease:
    __slots__ = ("deadline", "ttl_s")

    def __init__(self, ttl_s: int, deadline: float) -> None:
        self.ttl_s = ttl_s
        self.deadline = deadline


class Lessor:
    """Deadlines of all leases, and the task that revokes those that have passed."""

    def __init__(
        self,
        clock: Clock,
        leases: dict[int, int],
        revoke: Callable[[int], Awaitable[object]],
        checkpoint: Callable[[int, int], Awaitable[object]] | None = None,
    ) -> None:
        self._clock = clock
        self._revoke = revoke
        self._checkpoint = checkpoint
        self.leads = checkpoint is None
        """Whether deadlines count here: always with one server, else on the leader."""
        self._checkpointed: set[int] = set()
        self._checkpoints: asyncio.Task[None] | None = None
        self._leases: dict[int, _Lease] = {}
        self._queue: list[tuple[float, int]] = []  # (a deadline at the time it was queued, lease)
        self._task: asyncio.Task[None] | None = None
        self._wakes_at = 0.0
        for lease, ttl_s in leases.items():
            self._add(lease, ttl_s)
        if leases and self.leads:
            self._wait_for(self._queue[0][0])

    def lead(self, leases: dict[int, int], left: dict[int, int]) -> None:
        """This server leads now: every lease has its full time, or what was `left` when that was last written."""
        self.reload(leases)
        self.leads = True
        self._checkpointed = set(left)
        now = self._clock.monotonic()
        for lease, left_s in left.items():
            if lease in self._leases:
                self._leases[lease].deadline = now + left_s
                heapq.heappush(self._queue, (now + left_s, lease))
        if self._queue:
            self._wait_for(self._queue[0][0])
        self._checkpoints = asyncio.get_running_loop().create_task(self._write_checkpoints())

    def follow(self) -> None:
        """Another server leads: deadlines are its affair."""
        self.leads = False
        self.close()

    def reload(self, leases: dict[int, int]) -> None:
        """The leases of a store that was replaced, or that others have written."""
        self._leases.clear()
        self._queue.clear()
        for lease, ttl_s in leases.items():
            self._add(lease, ttl_s)

    def granted(self, lease: int, ttl_s: int) -> None:
        """A grant was applied."""
        deadline = self._add(lease, ttl_s)
        if self.leads:
            self._wait_for(deadline)

    def revoked(self, lease: int) -> None:
        """A revoke was applied; its queue entry is dropped when it comes up."""
        self._leases.pop(lease, None)

    def keep_alive(self, lease: int) -> int:
        """Start the lease's time again; returns it in seconds. Raises LeaseNotFound, also for one that has run out."""
        found = self._leases.get(lease)
        if found is None or found.deadline <= self._clock.monotonic():
            raise LeaseNotFound(lease)
        found.deadline = self._clock.monotonic() + found.ttl_s
        if lease in self._checkpointed:
            self._checkpointed.discard(lease)
            self._note(lease, 0)
        return found.ttl_s

    def time_left(self, lease: int) -> tuple[float, int]:
        """Seconds left (not below zero) and seconds granted. Raises LeaseNotFound."""
        found = self._leases.get(lease)
        if found is None:
            raise LeaseNotFound(lease)
        return max(0.0, found.deadline - self._clock.monotonic()), found.ttl_s

    def ids(self) -> list[int]:
        return sorted(self._leases)

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._checkpoints is not None:
            self._checkpoints.cancel()
            self._checkpoints = None

    async def _write_checkpoints(self) -> None:
        """What is left of long leases is written now and then, so that a new leader does not begin them again."""
        while True:
            await self._clock.sleep(CHECKPOINT_S)
            now = self._clock.monotonic()
            for lease, found in list(self._leases.items()):
                left_s = found.deadline - now
                if found.ttl_s > CHECKPOINT_S and 0 < left_s < found.ttl_s - CHECKPOINT_S / 2:
                    self._checkpointed.add(lease)
                    self._note(lease, max(1, int(left_s)))

    def _note(self, lease: int, left_s: int) -> None:
        """Nobody waits for it: one that is lost is written again, or the lease has its full time."""
        if self._checkpoint is not None:
            written = asyncio.ensure_future(self._checkpoint(lease, left_s))
            written.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _add(self, lease: int, ttl_s: int) -> float:
        deadline = self._clock.monotonic() + ttl_s
        self._leases[lease] = _Lease(ttl_s, deadline)
        heapq.heappush(self._queue, (deadline, lease))
        return deadline

    def _wait_for(self, deadline: float) -> None:
        """Make sure that the task wakes no later than `deadline`."""
        if self._task is not None and not self._task.done():
            if self._wakes_at <= deadline:
                return
            self._task.cancel()
        self._wakes_at = 0.0
        self._task = asyncio.get_running_loop().create_task(self._expire())

    async def _expire(self) -> None:
        while self._queue:
            deadline, lease = self._queue[0]
            found = self._leases.get(lease)
            if found is None:
                heapq.heappop(self._queue)
            elif found.deadline > deadline:  # it was kept alive since
                heapq.heapreplace(self._queue, (found.deadline, lease))
            elif (wait_s := deadline - self._clock.monotonic()) > 0:
                self._wakes_at = deadline
                await self._clock.sleep(wait_s)
            else:
                self._wakes_at = 0.0
                await self._end(lease)

    async def _end(self, lease: int) -> None:
        try:
            await self._revoke(lease)
        except StoreUnavailable:
            await self._clock.sleep(_RETRY_S)
        except StoreError:
            self.revoked(lease)

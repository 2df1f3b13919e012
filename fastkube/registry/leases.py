"""Store leases for objects that expire by themselves: one lease serves all objects of about the same age."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastkube.clock import Clock
    from fastkube.store import Store

_SHARED_S = 60
"""Objects written within this time share a lease, so they live up to so much longer than asked for."""


class Leases:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._current: dict[int, tuple[int, float]] = {}

    async def get(self, ttl_s: int) -> int:
        """A lease on which an object lives at least `ttl_s` seconds, at most a minute longer."""
        now = self._clock.monotonic()
        lease, shared_until = self._current.get(ttl_s, (0, 0.0))
        if not lease or now >= shared_until:
            lease = await self._store.lease_grant(ttl_s + _SHARED_S)
            self._current[ttl_s] = (lease, now + _SHARED_S)
        return lease

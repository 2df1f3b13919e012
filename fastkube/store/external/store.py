"""A store whose truth is an etcd cluster: many servers, none of which keeps anything, share one state.

    reads     a copy in LMDB that one watch keeps up to date (mirror.py), after a barrier where they must be current:
              etcd is asked for its revision, once for all who wait, and they wait until the copy has it
    writes    a call of etcd, its condition the compare of a transaction (asking.py); answered when it is in the copy
    history   that of the copy: watches and lists at a revision go back to where it began, which is before its start

So everything above sees a `Store` with etcd's revisions. The copy is no more than a cache: it is not synced, and made
anew when the server starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

from fastkube.clock import Clock, RealClock
from fastkube.store.committer import Batch
from fastkube.store.errors import KeyMissing, NoSpace, StoreError, StoreFailed
from fastkube.store.external.client import Client
from fastkube.store.external.mirror import Source
from fastkube.store.external.options import EtcdOptions
from fastkube.store.external.replica import EtcdReplica, filled
from fastkube.store.external.translation import Translation
from fastkube.store.records import Deleted
from fastkube.store.replica import Proposal
from fastkube.store.store import LeaseInfo, Store

_CLOSE_GRACE_S = 1.0


class EtcdStore(Store):
    """Everything is called on the loop that opened it."""

    _remote: EtcdReplica
    _ending = False

    @classmethod
    async def open_external(
        cls, path: str | os.PathLike[str], options: EtcdOptions, translation: Translation, clock: Clock | None = None
    ) -> EtcdStore:
        """Make a copy at `path`, where one of an earlier run is thrown away. Raises StoreUnavailable, StoreLocked."""
        clock = clock or RealClock()
        client = Client(options.endpoints, options.context())
        source = Source(client, translation)
        engine = None
        try:
            await source.learn()
            engine, revision, now = await filled(source, Path(path))
            store = cls(engine, clock)
            store._replica = store._remote = remote = EtcdReplica(store, client, source, translation, clock)
            await remote.begin(revision, now)
            return store
        except BaseException:
            client.close()
            if engine is not None:
                engine.close()
            raise

    @property
    def is_replicated(self) -> bool:
        return True

    def retire(self, key: bytes, value: bytes, expected_mod_revision: int) -> asyncio.Future[Deleted]:
        """As `Store.retire`, but in two steps: etcd puts and deletes no key in one transaction."""
        return asyncio.ensure_future(self._retire(key, value, expected_mod_revision))

    async def _retire(self, key: bytes, value: bytes, expected: int) -> Deleted:
        revision = await self.update(key, value, expected)
        try:
            return await self.delete(key, revision)
        except KeyMissing:  # somebody else removed what was on its way out
            return Deleted(key, value, 0, revision, 0, 0, self.revision)

    async def lease_keepalive(self, lease: int) -> int:
        return await self._remote.keep_alive(lease)

    async def lease_info(self, lease: int) -> LeaseInfo:
        return await self._remote.lease_info(lease)

    async def close(self) -> None:
        if not self._ending:
            self._ending = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_GRACE_S):
                    await self._answered_all()
            await self._remote.end()
        await super().close()

    async def _answered_all(self) -> None:
        while self._queued:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._idle.append(waiter)
            await waiter

    def settled(self, proposal: Proposal, result: Any) -> None:
        """etcd has answered, and the copy shows it; a refusal is a result."""
        future, proposal.future = proposal.future, None
        if future is None:
            return
        self._queued -= 1
        self._queued_bytes -= proposal.size
        if not future.done():
            if isinstance(result, StoreError):
                future.set_exception(result)
            else:
                future.set_result(result)
        self._wake_waiters()

    def _health(self) -> tuple[str, str]:
        if problem := self._remote.problem:
            return "unavailable", problem
        return super()._health()

    def _failed(self, batch: Batch) -> None:
        """A copy that misses a change is none."""
        if isinstance(batch.error, NoSpace):
            batch.error = StoreFailed(f"the copy of etcd cannot be written: {batch.error}")
        super()._failed(batch)

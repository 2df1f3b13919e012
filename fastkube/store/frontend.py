"""The store in a process that does not write it: reads from its own map, writes through the one that does.

    reads    LMDB's newest durable commit, looked at anew in every turn of the loop that reads
    writes   gathered for a turn, sent to the writer (gateway.py), queued there with everybody's; the answer comes when
             they are durable

What callers may rely on is what `Store` promises. A write is answered after its commit, and a commit is in the map for
every process at once; so the first read of any later turn sees it, on whichever frontend: a client that wrote through
one and reads through another never reads the past. Before such a read returns, subscriptions have been called with all
that is new, so what admission and authorization keep in memory is never older than what is read.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Iterable
from pathlib import Path
from typing import Any

from fastkube.store.errors import InvalidRequest, StoreClosed, StoreError, StoreUnavailable
from fastkube.store.frames import Framed, decode, encode, socket_path
from fastkube.store.mvcc import View
from fastkube.store.ops import ABSENT, ANY, Compare, Op, TxnResult, Write, check_write
from fastkube.store.reader import StoreReader
from fastkube.store.records import Deleted
from fastkube.store.replica import Waiter
from fastkube.store.snapshot import backup
from fastkube.store.store import LeaseInfo, Status

_STATUS_S = 1.0
_CATCH_UP_REVISIONS = 4096


class FrontendStore(StoreReader):
    """A `Store` for its callers. Everything is called on the loop that opened it."""

    def __init__(self, path: Path) -> None:
        self._fresh = False
        super().__init__(path)
        self._loop = asyncio.get_running_loop()
        self._wire = Framed(self._answered, self._lost)
        self._number = 0
        self._replicated = False
        self._waiting: dict[int, Waiter] = {}
        self._known = Status("failed", "the writer has not been asked yet", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, False)
        self._asking: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, path: str | os.PathLike[str]) -> FrontendStore:
        """Raises CorruptStore, and OSError when no writer listens."""
        store = cls(Path(path))
        try:
            await store._loop.create_unix_connection(lambda: store._wire, socket_path(store.path))
            store._known = Status(*await store._ask("status"))
            store._replicated = await store._ask("is_replicated")
        except BaseException:
            await store.close()
            raise
        store._asking = asyncio.create_task(store._keep_asking())
        return store

    # ---------------------------------------------------------------- reads

    def catch_up(self) -> None:
        """See the newest durable commit, and call subscriptions with what is new; once in a turn of the loop.

        What subscriptions read themselves is not newer than that, so that no news comes before older news.
        """
        if self._fresh or self._closed:
            return
        self._fresh = True
        self._loop.call_soon(self._outdate)
        self._renew()
        while self._hub.revision < self._view.revision:
            self._dispatch_some(_CATCH_UP_REVISIONS)

    def _on_ring(self) -> None:
        self._fresh = False
        self.catch_up()

    def _outdate(self) -> None:
        self._fresh = False

    def _open_view(self) -> View:
        self.catch_up()
        return super()._open_view()

    # ---------------------------------------------------------------- writes

    def create(self, key: bytes, value: bytes, lease: int = 0) -> asyncio.Future[int]:
        """As `Store.create`."""
        check_write(Write(key, value, ABSENT, lease))
        return self._ask("create", key, value, lease)

    def create_for(self, waiter: Waiter, key: bytes, value: bytes) -> None:
        """As `Store.create_for`."""
        check_write(Write(key, value, ABSENT))
        self._ask_for(waiter, "create", key, value, 0)

    def update(self, key: bytes, value: bytes, expected_mod_revision: int, lease: int = 0) -> asyncio.Future[int]:
        """As `Store.update`."""
        if expected_mod_revision <= 0:
            raise InvalidRequest("an update needs the mod revision that it replaces")
        check_write(Write(key, value, expected_mod_revision, lease))
        return self._ask("update", key, value, expected_mod_revision, lease)

    def update_for(self, waiter: Waiter, key: bytes, value: bytes, expected_mod_revision: int) -> None:
        """As `Store.update_for`."""
        check_write(Write(key, value, expected_mod_revision))
        self._ask_for(waiter, "update", key, value, expected_mod_revision, 0)

    def delete(self, key: bytes, expected_mod_revision: int = 0) -> asyncio.Future[Deleted]:
        """As `Store.delete`."""
        check_write(Write(key, None, expected_mod_revision or ANY))
        return self._ask("delete", key, expected_mod_revision)

    def retire(self, key: bytes, value: bytes, expected_mod_revision: int) -> asyncio.Future[Deleted]:
        """As `Store.retire`."""
        check_write(Write(key, value, expected_mod_revision))
        return self._ask("retire", key, value, expected_mod_revision)

    def write(self, writes: Iterable[Write]) -> asyncio.Future[list[Any]]:
        """As `Store.write`."""
        return self._ask("write", list(writes))

    def txn(
        self, compares: Iterable[Compare], success: Iterable[Op], failure: Iterable[Op] = ()
    ) -> asyncio.Future[TxnResult]:
        """As `Store.txn`."""
        return self._ask("txn", list(compares), list(success), list(failure))

    async def lease_grant(self, ttl_s: int, lease: int = 0) -> int:
        granted: int = await self._ask("lease_grant", ttl_s, lease)
        return granted

    def lease_revoke(self, lease: int) -> asyncio.Future[int]:
        return self._ask("lease_revoke", lease)

    async def lease_keepalive(self, lease: int) -> int:
        ttl_s: int = await self._ask("lease_keepalive", lease)
        return ttl_s

    async def lease_info(self, lease: int) -> LeaseInfo:
        """As `Store.lease_info`."""
        return LeaseInfo(*await self._ask("lease_info", lease))

    @property
    def is_replicated(self) -> bool:
        """As `Store.is_replicated`."""
        return self._replicated

    def read_barrier(self) -> Awaitable[None] | None:
        """As `Store.read_barrier`."""
        return self._ask("read_barrier") if self._replicated else None

    async def compact(self, revision: int, *, physical: bool = False) -> None:
        await self._ask("compact", revision, physical)

    async def backup(self, target: str | os.PathLike[str]) -> None:
        self._open_view()
        await backup(self.path, Path(target))

    def status(self) -> Status:
        """Of the writer, as of a moment ago; revisions are those that are read here."""
        view = self._open_view()
        if not self._wire.open:
            return self._known._replace(health="failed", reason="the writer is gone", revision=view.revision)
        return self._known._replace(
            revision=view.revision, compacted=view.compacted, watchers=self._hub.watchers, queued=len(self._waiting)
        )

    async def _keep_asking(self) -> None:
        while self._wire.open:
            await asyncio.sleep(_STATUS_S)
            self._known = Status(*await self._ask("status"))

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
        self._wire.close()
        self._fail(StoreClosed(f"{self.path}: the store was closed"))
        await super().close()

    # ---------------------------------------------------------------- the wire

    def _ask(self, operation: str, *arguments: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._ask_for(future, operation, *arguments)
        return future

    def _ask_for(self, waiter: Waiter, operation: str, *arguments: Any) -> None:
        if self._closed:
            raise StoreClosed(f"{self.path}: the store is closed")
        if not self._wire.open:
            raise StoreUnavailable("the process that writes the store is gone")
        self._number += 1
        self._waiting[self._number] = waiter
        self._wire.send([self._number, operation, encode(arguments)])

    def _answered(self, message: Any) -> None:
        number, problem, result = message
        future = self._waiting.pop(number)
        self._fresh = False  # what is answered now is durable: it must be seen by whoever goes on
        if future.done():
            return
        if problem is not None:
            refusal: StoreError = decode(problem)
            future.set_exception(refusal)
        else:
            future.set_result(decode(result))

    def _lost(self) -> None:
        self._fail(StoreClosed("the process that writes the store went away; the write may or may not have been done"))

    def _fail(self, error: StoreUnavailable) -> None:
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(type(error)(*error.args))

"""Proposals on their way to etcd, and what it has agreed on on its way to the copy: one more `Replica`."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import shutil
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastkube.store.command import Compact, Mirrored
from fastkube.store.engine import DATA_FILE, DEFAULT_MAX_BYTES, Engine
from fastkube.store.errors import InvalidRequest, LeaseNotFound, StoreClosed, StoreError, StoreFailed, StoreUnavailable
from fastkube.store.external import messages as etcd
from fastkube.store.external.asking import Asking
from fastkube.store.external.client import CALL_TIMEOUT_S, Client, refusal_of
from fastkube.store.external.http2 import GrpcError
from fastkube.store.external.mirror import COMPACT_REVISION_KEY, Arrived, Follower, Passed, Source
from fastkube.store.external.translation import Translation, Untranslatable
from fastkube.store.ops import Write
from fastkube.store.replica import Proposal, Waiter
from fastkube.store.store import LeaseInfo

if TYPE_CHECKING:
    from fastkube.clock import Clock
    from fastkube.store.external.store import EtcdStore

_SWEEP_S = 1.0
_FILL_ATTEMPTS = 5
_INCOMING = "incoming"


class EtcdReplica:
    """The Replica whose consensus is etcd's: proposals go there, and what is agreed on comes by the watch."""

    def __init__(
        self, store: EtcdStore, client: Client, source: Source, translation: Translation, clock: Clock
    ) -> None:
        self._store = store
        self._client = client
        self._source = source
        self._translation = translation
        self._asking = Asking(translation)
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._index = store.applied
        self._follower: Follower | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count()
        # who waits until the copy has a revision: (it, order, call, late); `late` is after when they wait no more
        self._pending: list[tuple[int, int, Callable[[bool], None], float]] = []
        self._asking_now: list[asyncio.Future[None]] | None = None
        self._asking_next: list[asyncio.Future[None]] = []
        self._compactions = 0
        self._sweeper: asyncio.TimerHandle | None = None

    async def begin(self, revision: int, now: int) -> None:
        """Follow etcd from `revision` on; returns when the copy has all up to `now`."""
        self._follower = Follower(self._source, self._clock, revision, self._take, self._renew)
        if now > revision:
            await self._reached(now)
            self._commit(Compact(revision + 1))  # what happened at `revision` itself is not known

    @property
    def problem(self) -> str:
        return self._client.problem or (self._follower.problem if self._follower is not None else "")

    def _commit(self, command: Mirrored | Compact, size: int = 0, future: Waiter | None = None) -> None:
        self._index += 1
        proposal = Proposal((command,), future, size)
        proposal.index = self._index
        self._store.on_committed([proposal])

    def _take(self, batch: Arrived) -> None:
        self._commit(Mirrored(batch.changes, batch.revision), batch.size)

    async def _renew(self) -> int:
        """A new copy in the place of one that etcd's compaction has passed; watchers are told what they missed."""
        store = self._store
        folder = store.path / _INCOMING
        engine, revision, _ = await filled(self._source, folder, self._index + 1)
        engine.close()
        await store.begin_install()
        try:
            store.make_room((folder / DATA_FILE).stat().st_size)
            await asyncio.to_thread(store.load, folder / DATA_FILE, self._index + 1, 0)
            self._index += 1
            store.end_install(self._index)
        except BaseException:
            store.abort_install()  # the follower tries again
            raise
        shutil.rmtree(folder, ignore_errors=True)
        self.applied(self._index)
        return revision

    # ---------------------------------------------------------------- writes

    def propose(self, proposals: list[Proposal]) -> None:
        for proposal in proposals:
            if isinstance(proposal.commands[0] if proposal.commands else None, Compact):
                self._spawn(self._compact(proposal))
            elif proposal.many:
                _Many(proposal, self._store.settled).begin(self.ask)
            else:
                self.ask(proposal.commands[0], partial(self._store.settled, proposal))

    def ask(self, command: Any, told: Callable[[Any], None]) -> None:
        """Have etcd do it; `told` gets the result when the copy shows it, never before this returns."""
        try:
            method, body = self._asking.request(command)
        except ValueError as problem:  # InvalidRequest is one; others are of values that are no objects
            refusal = problem if isinstance(problem, StoreError) else InvalidRequest(f"no object: {problem}")
            self._loop.call_soon(told, refusal)
            return
        self._client.call(method, body).add_done_callback(partial(self._answered, command, told))

    def _answered(self, command: Any, told: Callable[[Any], None], done: asyncio.Future[Any]) -> None:
        if done.cancelled():
            told(StoreClosed("the store was closed: the write may or may not have been done"))
            return
        problem = done.exception()
        if problem is not None:
            told(self._asking.refusal(command, refusal_of(problem)))
            return
        try:
            result, revision = self._asking.outcome(command, done.result())
        except Untranslatable as unreadable:
            told(StoreFailed(f"etcd has what cannot be read: {unreadable}"))
            return
        self._when(revision, lambda reached: told(result))  # late or not: it is done

    async def _compact(self, proposal: Proposal) -> None:
        """As kube-apiserver does: whoever first notes the round compacts etcd; every server forgets as much."""
        (command,) = proposal.commands
        assert isinstance(command, Compact)
        try:
            if await self._is_ours(command.revision):
                await self._client.call(etcd.COMPACT, {"revision": command.revision})
        except (StoreError, GrpcError) as problem:
            if "compacted" not in str(problem):
                self._store.settled(proposal, refusal_of(problem))
                return
        self._commit(command, 0, proposal.future)

    async def _is_ours(self, revision: int) -> bool:
        key = COMPACT_REVISION_KEY
        compare = {"target": etcd.VERSION, "key": key, "version": self._compactions}
        put = {"request_put": {"key": key, "value": str(revision).encode()}}
        found = {"request_range": {"key": key}}
        answer = await self._client.call(etcd.TXN, {"compare": [compare], "success": [put], "failure": [found]})
        if answer.get("succeeded"):
            self._compactions += 1
            return True
        kvs = answer["responses"][0].get("response_range", {}).get("kvs")
        self._compactions = kvs[0]["version"] if kvs else 0
        return False

    # ---------------------------------------------------------------- reads

    def barrier(self) -> Awaitable[None]:
        """Until the copy has what etcd had when this was called. Raises StoreUnavailable when awaited."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._asking_next.append(waiter)
        if self._asking_now is None and len(self._asking_next) == 1:
            self._loop.call_soon(self._ask_revision)
        return waiter

    def _ask_revision(self) -> None:
        """For all who came since the last time."""
        self._asking_now, self._asking_next = self._asking_next, []
        body = {"key": COMPACT_REVISION_KEY, "keys_only": True}
        self._client.call(etcd.RANGE, body, safe=True).add_done_callback(self._on_revision)

    def _on_revision(self, done: asyncio.Future[Any]) -> None:
        waiters, self._asking_now = self._asking_now or [], None
        if self._asking_next:
            self._ask_revision()
        if done.cancelled():
            _fail(waiters, StoreClosed("the store was closed"))
        elif (problem := done.exception()) is not None:
            _fail(waiters, refusal_of(problem))
        else:
            self._when(done.result()["header"]["revision"], partial(_wake_or_fail, waiters))

    def _when(self, revision: int, call: Callable[[bool], None]) -> None:
        """Calls it when the copy has the revision, with True; with False when that takes too long."""
        if revision <= self._store.revision:
            call(True)
            return
        late = self._loop.time() + CALL_TIMEOUT_S
        heapq.heappush(self._pending, (revision, next(self._numbers), call, late))
        if self._follower is not None:
            self._follower.want(revision)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)

    async def _reached(self, revision: int) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._when(revision, partial(_wake_or_fail, [waiter]))
        await waiter

    def applied(self, index: int) -> None:
        revision = self._store.revision
        while self._pending and self._pending[0][0] <= revision:
            heapq.heappop(self._pending)[2](True)

    def _sweep(self) -> None:
        now = self._loop.time()
        late = [each for each in self._pending if each[3] <= now]
        self._pending = [each for each in self._pending if each[3] > now]
        heapq.heapify(self._pending)
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep) if self._pending else None
        for each in late:
            each[2](False)

    # ---------------------------------------------------------------- leases

    async def keep_alive(self, lease: int) -> int:
        """The time it has again, in seconds. Raises LeaseNotFound."""
        stream = await self._client.stream(etcd.LEASE_KEEP_ALIVE, {"ID": lease})
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                answer = await anext(aiter(stream))
        except TimeoutError:
            raise StoreUnavailable("etcdserver: request timed out") from None
        finally:
            stream.close()
        if not answer.get("TTL"):
            raise LeaseNotFound(lease)
        return int(answer["TTL"])

    async def lease_info(self, lease: int) -> LeaseInfo:
        answer = await self._client.call(etcd.LEASE_TIME, {"ID": lease, "keys": True}, safe=True)
        left_s: int = answer.get("TTL", 0)
        if left_s < 0:
            raise LeaseNotFound(lease)
        keys = [key for each in answer.get("keys", ()) if (key := self._translation.key_back(each)) is not None]
        return LeaseInfo(lease, left_s, answer.get("grantedTTL", 0), keys)

    # ---------------------------------------------------------------- the end

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Whoever still waits is told so."""
        if self._follower is not None:
            await self._follower.close()
        self._client.close()
        for task in tuple(self._tasks):
            task.cancel()
        pending, self._pending = self._pending, []
        for each in pending:
            each[2](False)
        await asyncio.sleep(0)

    def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()


class _Many:
    """Writes of one caller, who gets all results at once: those of one key in their order, the rest side by side."""

    def __init__(self, proposal: Proposal, done: Callable[[Proposal, Any], None]) -> None:
        self._proposal = proposal
        self._done = done
        self._results: list[Any] = [None] * len(proposal.commands)
        self._left = len(self._results)

    def begin(self, ask: Callable[[Any, Callable[[Any], None]], None]) -> None:
        places: dict[bytes, list[int]] = {}
        for place, command in enumerate(self._proposal.commands):
            assert isinstance(command, Write)
            places.setdefault(command.key, []).append(place)
        for of_one_key in places.values():
            self._ask(ask, iter(of_one_key))
        if not self._results:
            self._done(self._proposal, [])

    def _ask(self, ask: Callable[[Any, Callable[[Any], None]], None], places: Iterator[int]) -> None:
        """etcd does the calls of one connection in any order, so the next one of a key waits for the one before."""
        place = next(places, None)
        if place is not None:
            ask(self._proposal.commands[place], partial(self._told, ask, places, place))

    def _told(
        self, ask: Callable[[Any, Callable[[Any], None]], None], places: Iterator[int], place: int, result: Any
    ) -> None:
        self._results[place] = result
        self._left -= 1
        if not self._left:
            failed = next((each for each in self._results if isinstance(each, StoreUnavailable)), None)
            self._done(self._proposal, self._results if failed is None else failed)
            return
        self._ask(ask, places)


async def filled(source: Source, path: Path, applied: int = 0) -> tuple[Engine, int, int]:
    """A new copy at `path`: its engine, the revision it begins at, the newest one. Raises StoreUnavailable."""
    for attempt in range(_FILL_ATTEMPTS):
        shutil.rmtree(path, ignore_errors=True)
        engine = Engine(path, readonly=False, sync=False, map_bytes=0, max_bytes=DEFAULT_MAX_BYTES)
        try:
            revision, now = await source.begin()
            if attempt:
                revision = now  # somebody else compacts this etcd, and does not say how far
            await source.fill(engine, revision, applied)
            return engine, revision, now
        except Passed:
            engine.close()
        except BaseException:
            engine.close()
            raise
    raise StoreUnavailable("etcd is compacted faster than its keys can be read")


def _fail(waiters: list[asyncio.Future[None]], error: StoreError) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_exception(type(error)(*error.args))


def _wake_or_fail(waiters: list[asyncio.Future[None]], reached: bool) -> None:
    if not reached:
        _fail(waiters, StoreUnavailable("etcdserver: request timed out: the watch is behind"))
        return
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)

"""The copy of etcd's keys that reads are served from: filled by a list, kept by one watch.

    fill     every key at one revision of the past, so that the history since then can be had from the watch as well:
             a client that was watching elsewhere goes on here without a new list
    follow   a watch from there on; a batch of events is one command, applied with etcd's revisions

Whether the copy has all up to a revision is known in one of two ways. Where etcd's progress requests can be trusted
(3.4.31, 3.5.13, 3.6), they are sent when somebody waits and nothing comes. Before that they could overtake events;
there all keys of the cluster are watched, so that each revision shows itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

import lmdb

from fastkube.store.command import Change
from fastkube.store.engine import Engine
from fastkube.store.errors import StoreError, StoreUnavailable
from fastkube.store.external import messages as etcd
from fastkube.store.external.client import Client, Streaming
from fastkube.store.external.http2 import GrpcError
from fastkube.store.external.messages import Body
from fastkube.store.external.translation import Translation, Untranslatable
from fastkube.store.ops import TO_THE_END, prefix_end, single_key_end
from fastkube.store.records import HEADER, STATE, State

if TYPE_CHECKING:
    from fastkube.clock import Clock

log = logging.getLogger(__name__)

COMPACT_REVISION_KEY = b"compact_rev_key"
"""kube-apiserver's: what all servers of one etcd agree by on who compacts it, and how far."""

_PAGE = 1000
_HISTORY = 50_000  # revisions that are replayed at most when a server starts: about a second
_RETRY_S = 0.1
_RETRY_MAX_S = 2.0
_PROGRESS_S = 0.1
_NUDGE_S = 0.002  # events are mostly there before anybody must ask
_PROGRESS_SINCE = {(3, 4): 31, (3, 5): 13}


class Passed(Exception):
    """etcd has compacted what the copy would go on from."""


class Arrived(NamedTuple):
    """Changes, and up to where they are all; `size` is that of their values."""

    changes: tuple[Change, ...]
    revision: int
    size: int


class Source:
    """What is read of etcd to make and keep a copy."""

    def __init__(self, client: Client, translation: Translation) -> None:
        self._client = client
        self._translation = translation
        self.has_progress = False

    async def revision(self) -> int:
        """The newest one of the cluster, as a majority knows it."""
        answer = await self._client.call(etcd.RANGE, {"key": COMPACT_REVISION_KEY, "keys_only": True}, safe=True)
        revision: int = answer["header"]["revision"]
        return revision

    async def learn(self) -> None:
        """Which way this etcd lets know how far a watch is."""
        answer = await self._client.call(etcd.STATUS, {}, safe=True)
        self.has_progress = _has_progress(answer.get("version", ""))

    async def begin(self) -> tuple[int, int]:
        """Where the history may begin, and the newest revision."""
        answer = await self._client.call(etcd.RANGE, {"key": COMPACT_REVISION_KEY}, safe=True)
        now: int = answer["header"]["revision"]
        told = answer["kvs"][0].get("value", b"") if answer.get("kvs") else b""
        compacted = int(told) if told.isdigit() else 0
        return max(min(now - 1, max(compacted, now - _HISTORY)), 1), now

    async def fill(self, engine: Engine, revision: int, applied: int) -> None:
        """Makes an empty store a copy at that revision. Raises Passed."""
        prefix = self._translation.prefix
        start, end = prefix, prefix_end(prefix)
        while True:
            body = {"key": start, "range_end": end, "limit": _PAGE, "revision": revision}
            try:
                answer = await self._client.call(etcd.RANGE, body, safe=True)
            except GrpcError as problem:
                raise Passed(problem.message) from None
            _load(engine, [record for kv in answer.get("kvs", ()) if (record := self._record(kv)) is not None])
            if not answer.get("more"):
                break
            start = single_key_end(answer["kvs"][-1]["key"])
        with engine.env.begin(write=True) as txn:
            txn.put(b"state", STATE.pack(*State(revision, applied, revision)), db=engine.databases.meta)
            txn.put(b"copy", b"etcd", db=engine.databases.meta)

    def _record(self, kv: Body) -> tuple[bytes, bytes] | None:
        """As it lies in the store; None for what is not ours."""
        key = self._translation.key_back(kv["key"])
        value = None if key is None else self._value(key, kv.get("value", b""))
        if key is None or value is None:
            return None
        return key, HEADER.pack(kv["create_revision"], kv["mod_revision"], kv["version"], 0) + value

    def _value(self, key: bytes, packed: bytes) -> bytes | None:
        try:
            return self._translation.value_back(key, packed)
        except Untranslatable as problem:
            log.error("%s: what etcd has is left out: %s", key.decode(errors="replace"), problem)
            return None

    async def watch(self, after: int) -> Streaming:
        prefix = self._translation.prefix
        span = (prefix, prefix_end(prefix)) if self.has_progress else (b"\x00", TO_THE_END)
        create = {"key": span[0], "range_end": span[1], "start_revision": after + 1}
        return await self._client.stream(etcd.WATCH, {"create_request": create})

    def batch(self, message: Body) -> Arrived | None:
        """What a message of the watch brings; None: nothing. Raises Passed, StoreUnavailable."""
        if message.get("canceled"):
            if message.get("compact_revision"):
                raise Passed(f"etcd has compacted to {message['compact_revision']}")
            raise StoreUnavailable(message.get("cancel_reason") or "etcd has ended the watch")
        events = message.get("events")
        if events is None:
            told = self.has_progress and not message.get("created")
            return Arrived((), message["header"]["revision"], 0) if told else None
        changes, size = [], 0
        for event in events:
            kv = event["kv"]
            key = self._translation.key_back(kv["key"])
            if key is None:
                continue
            value = None if event.get("type") == etcd.DELETE else self._value(key, kv.get("value", b""))
            size += len(value or b"")
            changes.append(Change(kv["mod_revision"], key, value))
        return Arrived(tuple(changes), events[-1]["kv"]["mod_revision"], size)


class Follower:
    """Keeps the copy going. `take` gets each batch; `passed` makes a new copy and says its revision."""

    def __init__(
        self,
        source: Source,
        clock: Clock,
        reached: int,
        take: Callable[[Arrived], None],
        passed: Callable[[], Awaitable[int]],
    ) -> None:
        self.problem = "the watch has not begun"
        """Why nothing comes; "" while the watch runs."""
        self._source = source
        self._clock = clock
        self._take = take
        self._passed = passed
        self._reached = reached
        self._wanted = 0
        self._stream: Streaming | None = None
        self._nudge: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._follow())

    def want(self, revision: int) -> None:
        """Somebody waits for it: see to it that it shows itself."""
        if revision > self._reached and revision > self._wanted:
            self._wanted = revision
            if self._source.has_progress and self._nudge is None:
                self._nudge = self._loop.call_later(_NUDGE_S, self._ask)

    def _ask(self) -> None:
        self._nudge = None
        if self._wanted > self._reached and self._stream is not None:
            self._stream.send({"progress_request": {}})
            self._nudge = self._loop.call_later(_PROGRESS_S, self._ask)

    async def close(self) -> None:
        if self._nudge is not None:
            self._nudge.cancel()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _follow(self) -> None:
        pause_s = _RETRY_S
        while True:
            before = self._reached
            try:
                await self._watch()
            except Passed as problem:
                log.warning("the copy of etcd is made anew: %s", problem)
                with contextlib.suppress(StoreError, Passed):
                    self._reached = await self._passed()
            except StoreError as problem:
                self._lost(str(problem))
            except Exception as problem:
                log.exception("the watch of etcd ended at revision %d", self._reached)
                self._lost(repr(problem))
            self._stream = None
            pause_s = _RETRY_S if self._reached > before else min(pause_s * 2, _RETRY_MAX_S)
            await self._clock.sleep(pause_s)

    def _lost(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("the watch of etcd was lost at revision %d: %s", self._reached, problem)
        self.problem = problem

    async def _watch(self) -> None:
        self._stream = stream = await self._source.watch(self._reached)
        try:
            async for message in stream:
                self.problem = ""
                batch = self._source.batch(message)
                if batch is not None and batch.revision > self._reached:
                    self._reached = batch.revision
                    self._take(batch)
        finally:
            stream.close()


def _has_progress(version: str) -> bool:
    """Whether progress cannot overtake events there, as kube-apiserver decides it."""
    numbers = [int(part) for part in version.split("-")[0].split(".") if part.isdigit()]
    if len(numbers) != 3:
        return False
    major, minor, patch = numbers
    return (major, minor) > (3, 5) or patch >= _PROGRESS_SINCE.get((major, minor), 1 << 30)


def _load(engine: Engine, records: list[tuple[bytes, bytes]]) -> None:
    """A page of records, in their order or not: resources lie otherwise in etcd."""
    while True:
        try:
            with engine.env.begin(write=True, db=engine.databases.current) as txn:
                for key, raw in records:
                    txn.put(key, raw)
            return
        except lmdb.MapFullError:
            engine.grow(engine.map_bytes * 2)

"""A store whose values of some resources lie encrypted on the disk; in memory and to its callers they are plain.

    writes   value → Transformer.seal → Store
    reads    Store → Transformer.open → value; so too for watches, and for what a refused write found

It is only made when the server is told to encrypt; otherwise the plain Store serves and nothing of this runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from fastkube import errors
from fastkube.registry.encryption import Encryption, Transformer, Unreadable
from fastkube.store import (
    Compare,
    Deleted,
    DeleteResponse,
    Event,
    FrontendStore,
    InvalidRequest,
    Item,
    Put,
    PutResponse,
    RangeResult,
    Store,
    StoreError,
    Subscription,
    Txn,
    TxnResult,
    Values,
    Watcher,
    Write,
)
from fastkube.store.mvcc import Chunk
from fastkube.store.ops import Op
from fastkube.store.reader import ReadHalf
from fastkube.store.records import record
from fastkube.store.replica import Waiter
from fastkube.store.watch import DEFAULT_BUFFER, Callback, Lost

_ROOT = b"/registry/"
_GROUPS = frozenset((b"apps", b"autoscaling", b"batch", b"policy"))
"""Groups without a dot in their names, which otherwise tells a group from a resource of the core group."""

_T = TypeVar("_T")


def following(store: Any, config: str) -> Callable[[], None]:
    """What makes an encrypting store go by the configuration file as it is now; raises ValueError and OSError."""
    return lambda: cast(OpenedReads, store).encrypt_as(Encryption.load(config))


class OpenedReads(ReadHalf):
    """What reads, watches and subscriptions of either kind of store do; values are opened as they are handed out."""

    _encryption: Encryption
    _transformers: dict[bytes, Transformer | None]

    def encrypt_as(self, encryption: Encryption) -> None:
        """From now on; called right after opening, and when the configuration has changed."""
        self._encryption, self._transformers = encryption, {}

    def is_stale(self, key: bytes) -> bool:
        transformer = self._transformer(key)
        item = super().get(key)
        return transformer is not None and item is not None and transformer.is_stale(item.value)

    def _transformer(self, key: bytes) -> Transformer | None:
        """By the key's group and resource: /registry/[group/]resource/..."""
        if not key.startswith(_ROOT):
            return None
        first, _, rest = key[len(_ROOT) :].partition(b"/")
        prefix = first + b"/" + rest.partition(b"/")[0] if b"." in first or first in _GROUPS else first
        if prefix not in self._transformers:
            group, _, resource = prefix.decode().rpartition("/")
            self._transformers[prefix] = self._encryption.transformer(group, resource)
        return self._transformers[prefix]

    # ---------------------------------------------------------------- one value

    def _opened(self, key: bytes, value: bytes) -> bytes:
        transformer = self._transformer(key) if value else None
        if transformer is None:
            return value
        try:
            return transformer.open(key, value)
        except Unreadable as problem:
            raise errors.internal(str(problem)) from None

    def _item(self, item: Item) -> Item:
        return item._replace(value=self._opened(item.key, item.value))

    def _event(self, event: Event) -> Event:
        prev = None if event.prev is None else self._item(event.prev)
        return event._replace(value=self._opened(event.key, event.value), prev=prev)

    # ---------------------------------------------------------------- reads

    def get(self, key: bytes, revision: int = 0) -> Item | None:
        item = super().get(key, revision)
        return None if item is None else self._item(item)

    def newest(self, key: bytes) -> tuple[bytes, int] | None:
        item = self.get(key)
        return None if item is None else (item.value, item.mod_revision)

    def range(self, start: bytes, end: bytes, **options: Any) -> RangeResult:
        found = super().range(start, end, **options)
        if options.get("keys_only") or options.get("count_only"):
            return found
        return found._replace(items=[self._item(item) for item in found.items])

    def scan(self, start: bytes, end: bytes, *, revision: int = 0) -> Iterator[Item]:
        return self._scanned(super().scan(start, end, revision=revision))

    def values(self, start: bytes, end: bytes, *, revision: int = 0) -> Values:
        """Of one resource, which is either encrypted or not."""
        if self._transformer(start) is None:
            return super().values(start, end, revision=revision)
        return Values([(item.key, record(item))] for item in self.scan(start, end, revision=revision))

    def _scanned(self, items: Iterator[Item]) -> Iterator[Item]:
        for item in items:
            yield self._item(item)

    def watch(self, start: bytes, end: bytes | None, revision: int = 0, *, buffer: int = DEFAULT_BUFFER) -> Watcher:
        watcher = super().watch(start, end, revision, buffer=buffer)
        return cast(Watcher, _OpenedWatcher(watcher, self._event))

    def events(self, start: bytes, end: bytes | None, first: int) -> Chunk:
        chunk = super().events(start, end, first)
        return chunk._replace(events=[self._event(event) for event in chunk.events])

    def subscribe(
        self,
        start: bytes,
        end: bytes | None,
        callback: Callback,
        *,
        lost: Lost | None = None,
        always: bool = False,
    ) -> Subscription:
        def opened(events: list[Event], revision: int) -> None:
            callback([self._event(event) for event in events], revision)

        return super().subscribe(start, end, opened, lost=lost, always=always)


class SealedStore(OpenedReads, Store):
    """The store of the process that writes."""

    @classmethod
    async def open_sealed(cls, path: Path, encryption: Encryption, **options: Any) -> SealedStore:
        """`Store.open`, with what is encrypted and how."""
        store = cast(SealedStore, await cls.open(path, **options))
        store.encrypt_as(encryption)
        return store

    def _sealed(self, key: bytes, value: bytes) -> bytes:
        transformer = self._transformer(key)
        return value if transformer is None else transformer.seal(key, value)

    def _result(self, result: Any) -> Any:
        """Whatever a write answers, with its values opened."""
        if isinstance(result, StoreError):
            item = getattr(result, "item", None)
            if item is not None:
                result.item = self._item(item)  # type: ignore[attr-defined]
            return result
        if isinstance(result, Item):
            return self._item(result)
        if isinstance(result, Deleted):
            return result._replace(value=self._opened(result.key, result.value))
        if isinstance(result, TxnResult):
            return result._replace(responses=[self._result(each) for each in result.responses])
        if isinstance(result, PutResponse):
            return result._replace(prev=self._result(result.prev))
        if isinstance(result, DeleteResponse):
            return result._replace(deleted=[self._item(each) for each in result.deleted])
        if isinstance(result, RangeResult):
            return result._replace(items=[self._item(each) for each in result.items])
        if isinstance(result, list):
            return [self._result(each) for each in result]
        return result

    def _relay(self, inner: asyncio.Future[_T]) -> asyncio.Future[_T]:
        """The future with its result, or its refusal, opened."""
        outer: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._relay_to(outer, inner)
        return outer

    def _relay_to(self, outer: Waiter, inner: asyncio.Future[_T]) -> None:
        def done(finished: asyncio.Future[_T]) -> None:
            if outer.done():
                return
            try:
                refusal = finished.exception()
                result = self._result(finished.result() if refusal is None else refusal)
            except errors.ApiError as unreadable:
                outer.set_exception(unreadable)
                return
            if refusal is None:
                outer.set_result(result)
            else:
                outer.set_exception(result)

        inner.add_done_callback(done)

    # ---------------------------------------------------------------- writes

    def create(self, key: bytes, value: bytes, lease: int = 0) -> asyncio.Future[int]:
        return self._relay(super().create(key, self._sealed(key, value), lease))

    def create_for(self, waiter: Waiter, key: bytes, value: bytes) -> None:
        self._relay_to(waiter, super().create(key, self._sealed(key, value)))

    def update(self, key: bytes, value: bytes, expected_mod_revision: int, lease: int = 0) -> asyncio.Future[int]:
        return self._relay(super().update(key, self._sealed(key, value), expected_mod_revision, lease))

    def update_for(self, waiter: Waiter, key: bytes, value: bytes, expected_mod_revision: int) -> None:
        self._relay_to(waiter, super().update(key, self._sealed(key, value), expected_mod_revision))

    def put(self, key: bytes, value: bytes, lease: int = 0) -> asyncio.Future[int]:
        return self._relay(super().put(key, self._sealed(key, value), lease))

    def delete(self, key: bytes, expected_mod_revision: int = 0) -> asyncio.Future[Deleted]:
        return self._relay(super().delete(key, expected_mod_revision))

    def retire(self, key: bytes, value: bytes, expected_mod_revision: int) -> asyncio.Future[Deleted]:
        return self._relay(super().retire(key, self._sealed(key, value), expected_mod_revision))

    def write(self, writes: Iterable[Write]) -> asyncio.Future[list[Any]]:
        sealed = [
            each if each.value is None else each._replace(value=self._sealed(each.key, each.value)) for each in writes
        ]
        return self._relay(super().write(sealed))

    def txn(
        self, compares: Iterable[Compare], success: Iterable[Op], failure: Iterable[Op] = ()
    ) -> asyncio.Future[TxnResult]:
        return self._relay(super().txn(*self._sealed_txn(Txn(tuple(compares), tuple(success), tuple(failure)))))

    def _sealed_txn(self, txn: Txn) -> Txn:
        for compare in txn.compares:
            if compare.target == "value" and self._transformer(compare.key) is not None:
                raise InvalidRequest(f"key {compare.key!r}: encrypted values cannot be compared")
        return Txn(txn.compares, *(tuple(map(self._sealed_op, ops)) for ops in (txn.success, txn.failure)))

    def _sealed_op(self, op: Op) -> Op:
        if isinstance(op, Txn):
            return self._sealed_txn(op)
        if isinstance(op, Put) and op.value is not None:
            return op._replace(value=self._sealed(op.key, op.value))
        return op


class SealedFrontend(OpenedReads, FrontendStore):
    """The store of a process that reads; the one that writes seals what it is sent, and opens what it answers."""

    @classmethod
    async def open_sealed(cls, path: Path, encryption: Encryption) -> SealedFrontend:
        """`FrontendStore.open`, with what is encrypted and how."""
        store = cast(SealedFrontend, await cls.open(path))
        store.encrypt_as(encryption)
        return store


class _OpenedWatcher:
    """A Watcher whose events are opened as they are taken."""

    def __init__(self, watcher: Watcher, open_event: Callable[[Event], Event]) -> None:
        self._watcher = watcher
        self._open = open_event

    @property
    def revision(self) -> int:
        return self._watcher.revision

    def cancel(self) -> None:
        self._watcher.cancel()

    def __aiter__(self) -> _OpenedWatcher:
        return self

    async def __anext__(self) -> list[Event]:
        return [self._open(event) for event in await anext(self._watcher)]

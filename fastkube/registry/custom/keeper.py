"""Follows the definitions in the store: the catalog shows at once what is served, and what a definition needs is done.

Everything is derived from the store, so that every process over it comes to the same catalog. Work (names, conditions,
the removal of instances) is done by the process that writes and, of several servers, by the one that leads; each write
is conditional on what it was computed from, so one that no longer leads does no harm.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import TYPE_CHECKING, Any

import msgpack

from fastkube.clock import rfc3339
from fastkube.registry import ownership
from fastkube.registry.custom import establishing
from fastkube.registry.custom.conditions import is_served
from fastkube.store import DELETE, KeyMissing, RevisionMismatch, StoreError

if TYPE_CHECKING:
    from fastkube.api.catalog import Catalog, ResourceType
    from fastkube.clock import Clock
    from fastkube.registry.custom.converting import Post
    from fastkube.store import Event, Item, Store

Object = dict[str, Any]

PREFIX = b"/registry/apiextensions.k8s.io/customresourcedefinitions/"
_END = PREFIX[:-1] + b"0"  # "0" follows "/"
_REMOVAL_POLL_S = 0.5
_CHUNK = 500
_GRACE_S = 2.0

_log = logging.getLogger(__name__)


class Keeper:
    """Start it before requests are served; `close` ends it.

    `post` asks webhooks that convert. `works`: this process does the work, and not only follows.
    """

    def __init__(self, store: Store, catalog: Catalog, clock: Clock, post: Post, *, works: bool = True) -> None:
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._post = post
        self._names: dict[bytes, Object] = {}
        self._types: dict[bytes, tuple[bytes, ResourceType]] = {}
        self._waiting: dict[bytes, None] = {}
        self._wake = asyncio.Event()
        self._doubtful: dict[bytes, ResourceType] = {}
        self._doubt = asyncio.Event()
        self._subscription = store.subscribe(PREFIX, _END, self._on_events)
        for item in store.range(PREFIX, _END).items:
            self._keep(item.key, item.value, item.mod_revision)
        self._tasks = [asyncio.create_task(self._verify())]
        if works:
            store.when_leading(self._wake.set)
            self._tasks.append(asyncio.create_task(self._work()))
        self._wake.set()

    async def close(self) -> None:
        self._subscription.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---------------------------------------------------------------- the catalog

    def _on_events(self, events: list[Event], revision: int) -> None:
        for event in events:
            if event.type == DELETE:
                self._forget(event.key)
            else:
                self._keep(event.key, event.value, event.revision)
        self._wake.set()

    def _keep(self, key: bytes, value: bytes, revision: int) -> None:
        crd = msgpack.unpackb(value)
        self._names[key] = _claims(crd)
        self._waiting[key] = None
        if not is_served(crd):
            self._withdraw(key)
            return
        shape = _digest(crd)
        known = self._types.get(key)
        if known is not None and known[0] == shape:
            return
        if known is not None and known[1].resource != crd["status"]["acceptedNames"]["plural"]:
            self._withdraw(key)
        from fastkube.registry.custom.kinds import make_type  # with all that judges objects, when there are any

        rtype = make_type(crd, value, self._post)
        self._types[key] = (shape, rtype)
        self._catalog.add(rtype)
        if rtype.stale:
            self._doubtful[key] = rtype
            self._doubt.set()

    def _forget(self, key: bytes) -> None:
        claims = self._names.pop(key, None)
        self._waiting.pop(key, None)
        self._withdraw(key)
        if claims is not None:  # its names are free now
            group = claims["spec"]["group"]
            self._waiting.update((other, None) for other, each in self._names.items() if each["spec"]["group"] == group)

    def _withdraw(self, key: bytes) -> None:
        known = self._types.pop(key, None)
        if known is not None:
            self._catalog.remove(known[1])

    async def _verify(self) -> None:
        """Looks once through the objects of kinds whose definition has changed: where all of them are as the present
        one would have stored them (most changes only add to a schema), reading need not bring them up to date."""
        while True:
            await self._doubt.wait()
            self._doubt.clear()
            await self._clock.sleep(_GRACE_S)  # writes that began under the old definition have ended then
            doubtful, self._doubtful = self._doubtful, {}
            for key, rtype in doubtful.items():
                try:
                    fresh = await self._all_fresh(rtype)
                except StoreError:
                    self._doubtful[key] = rtype
                    self._doubt.set()
                    continue
                if fresh and rtype.extra["stale"]:
                    rtype.extra["stale"] = False

    async def _all_fresh(self, rtype: ResourceType) -> bool:
        start, end = rtype.key_prefix, rtype.key_prefix[:-1] + b"0"
        while items := self._store.range(start, end, limit=_CHUNK).items:
            for item in items:
                obj = msgpack.unpackb(item.value)
                if obj["apiVersion"] != rtype.storage_api_version or rtype.extra["refresh"](obj) != obj:
                    return False
            start = items[-1].key + b"\0"
            await asyncio.sleep(0)
        return True

    # ---------------------------------------------------------------- the work

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._store.leads:
                continue  # what waits is done by the server that leads, or here when this one begins to
            waiting, self._waiting = list(self._waiting), {}
            for key in waiting:
                try:
                    await self._settle(key)
                except (RevisionMismatch, KeyMissing):
                    self._again(key, 0.0)
                except StoreError:
                    _log.warning("%s must wait for the store", key.decode(), exc_info=True)
                    self._again(key, _REMOVAL_POLL_S)

    def _again(self, key: bytes, delay_s: float) -> None:
        def put() -> None:
            if key in self._names:
                self._waiting[key] = None
                self._wake.set()

        asyncio.get_running_loop().call_later(delay_s, put)

    async def _settle(self, key: bytes) -> None:
        """Brings one definition a step further, if there is one to take."""
        item = self._store.get(key)
        if item is None:
            return
        revision, crd = item.mod_revision, msgpack.unpackb(item.value)
        now = rfc3339(self._clock.time())
        if "deletionTimestamp" in crd["metadata"]:
            await self._end(key, revision, crd, now)
            return
        others = [each for other, each in self._names.items() if other != key]
        await self._write(key, revision, crd, establishing.established(crd, others, now))

    async def _write(self, key: bytes, revision: int, old: Object, new: Object) -> None:
        if new != old:
            ownership.set_settled(new, old, self._clock.time())
            await self._store.update(key, msgpack.packb(new), revision)

    async def _end(self, key: bytes, revision: int, crd: Object, now: str) -> None:
        if establishing.FINALIZER not in (crd["metadata"].get("finalizers") or ()):
            return
        new = establishing.ending(crd, now)
        if new != crd:
            await self._write(key, revision, crd, new)
            return
        if await self._remove_instances(crd, now):
            self._again(key, _REMOVAL_POLL_S)
            return
        new = establishing.ended(crd, now)
        if new["metadata"].get("finalizers"):
            await self._store.update(key, msgpack.packb(new), revision)
        else:
            await self._store.delete(key, revision)

    async def _remove_instances(self, crd: Object, now: str) -> bool:
        """Removes what can go, marks the rest as terminating; whether any is left."""
        names = (crd.get("status") or {}).get("acceptedNames") or {}
        if not names.get("plural"):
            return False
        prefix = f"/registry/{crd['spec']['group']}/{names['plural']}/".encode()
        start, end, left = prefix, prefix[:-1] + b"0", False
        while items := self._store.range(start, end, limit=_CHUNK).items:
            results = await asyncio.gather(*(self._remove(item, now) for item in items), return_exceptions=True)
            left = left or any(result is not True for result in results)
            start = items[-1].key + b"\0"
        return left

    async def _remove(self, item: Item, now: str) -> bool:
        """Whether the object is gone."""
        obj = msgpack.unpackb(item.value)
        if not obj["metadata"].get("finalizers"):
            await self._store.delete(item.key, item.mod_revision)
            return True
        if "deletionTimestamp" not in obj["metadata"]:
            obj["metadata"]["deletionTimestamp"] = now
            obj["metadata"]["deletionGracePeriodSeconds"] = 0
            await self._store.update(item.key, msgpack.packb(obj), item.mod_revision)
        return False


def _claims(crd: Object) -> Object:
    """What other definitions of the group must know of one; its schemas stay in the store."""
    status = crd.get("status") or {}
    return {"spec": {"group": crd["spec"]["group"]}, "status": {"acceptedNames": status.get("acceptedNames")}}


def _digest(crd: Object) -> bytes:
    """Stands for all that the catalog's entry is made of."""
    status = crd["status"]
    terminating = "deletionTimestamp" in crd["metadata"]
    parts = (crd["spec"], status["acceptedNames"], status.get("storedVersions"), terminating)
    return hashlib.sha256(msgpack.packb(parts)).digest()

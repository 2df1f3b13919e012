"""Renewals of Leases in a batch: what they have in common is looked at once, and one store write takes them all.

A fleet of nodes sends hundreds of them at a time. Whatever is no plain renewal (registry/renewing.py), needs a closer
look (audit, rules for single names, webhooks, policies) or is overtaken goes the way of all other writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastkube.api import codec
from fastkube.clock import rfc3339
from fastkube.errors import ApiError
from fastkube.registry import renewing
from fastkube.registry.strategy import Call
from fastkube.server.admission.plugin import UPDATE
from fastkube.server.calls import default_manager
from fastkube.server.request import RequestInfo

if TYPE_CHECKING:
    from fastkube.server.app import ApiServer
    from fastkube.server.metrics import Series
    from fastkube.server.request import Request
    from fastkube.store import Write

Result = tuple[int, bytes, list[str]]

_COLLECTION = f"/{renewing.GROUP}/v1/"
_ADDED = "/any"


class Renewals:
    """Those of one batch: `prepare` a collection, `take` its writes, then `write` them."""

    def __init__(self, server: ApiServer, request: Request) -> None:
        self._server = server
        self._request = request
        self._started = server.now()
        self._stamp = rfc3339(int(server.clock.time()))
        self._collections: dict[str, tuple[Call, Series] | None] = {}
        self._taken: list[tuple[int, bool, Series, Write]] = []

    async def prepare(self, target: str) -> None:
        """Looks at what all updates in the collection of this object have in common."""
        collection = target.rpartition("/")[0]
        if _COLLECTION in collection and collection not in self._collections:
            self._collections[collection] = await self._common(collection)

    async def _common(self, collection: str) -> tuple[Call, Series] | None:
        server, user = self._server, self._request.user
        info = RequestInfo("PUT", collection + _ADDED, {})
        rtype = server.catalog.lookup(info.group, info.version, info.resource)
        if info.resource != renewing.RESOURCE or info.parts != 2 or not info.namespace or rtype is None:
            return None
        if server.auditor is not None or server.aggregator.remote_of(collection) is not None:
            return None
        if not server.authorizer.allows_all(user, info):
            return None
        call = Call(rtype, info.version, info.verb, info.namespace, user=user, now=server.clock.time())
        call.field_manager = default_manager(self._request.headers.get("User-Agent", ""))
        admission = server.registry.admission
        if admission.constancy(call, UPDATE) is None:
            return None
        try:
            await admission.mutate(call, {"metadata": {}}, {"metadata": {}})
            await admission.validate(call, {"metadata": {}}, {"metadata": {}})
        except ApiError:
            return None
        return call, server.metrics.series(info)

    def take(self, at: int, target: str, body: bytes, brief: bool) -> bool:
        """Whether the update at this place of the batch is a renewal, which is written with the others."""
        collection, _, name = target.rpartition("/")
        common = self._collections.get(collection)
        if common is None:
            return False
        call, series = common
        call.name = name
        item = self._server.store.get(call.rtype.key(call.namespace, name)) if renewing.is_name(name) else None
        write = None if item is None else renewing.renewed(call, item, body, self._stamp)
        if write is None:
            return False
        self._taken.append((at, brief, series, write))
        return True

    async def write(self, results: list[Result | None]) -> list[int]:
        """Puts the results in their places; returns those of the updates that have to be made in the common way."""
        if not self._taken:
            return []
        outcomes = await self._server.store.write([write for *_, write in self._taken])
        seconds = self._server.now() - self._started
        overtaken = []
        for (at, brief, series, write), outcome in zip(self._taken, outcomes, strict=True):
            if not isinstance(outcome, int) or write.value is None:
                overtaken.append(at)
                continue
            series.count(200, seconds)
            results[at] = (200, b"" if brief else codec.value_to_msgpack(write.value, outcome), [])
        return overtaken

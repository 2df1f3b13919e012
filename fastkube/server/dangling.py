"""The condition Dangling of FlowSchemas: whether the priority level that each one names is there."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import msgpack
import orjson

from fastkube.api.field import quote
from fastkube.clock import rfc3339
from fastkube.errors import ApiError
from fastkube.registry.patching import APPLY
from fastkube.registry.strategy import Call, UserInfo

if TYPE_CHECKING:
    from fastkube.registry.registry import Registry
    from fastkube.store import Event, Subscription

GROUP = "flowcontrol.apiserver.k8s.io"
Object = dict[str, Any]

_MANAGER = "api-priority-and-fairness-config-consumer-v1"
_SELF = UserInfo("system:apiserver", ("system:masters",))


class DanglingConditions:
    """Follows schemas and levels, and writes what has changed."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._subscription: Subscription | None = None
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        start, end = f"/registry/{GROUP}/".encode(), f"/registry/{GROUP}0".encode()
        self._subscription = self._registry.store.subscribe(start, end, self._on_commit)
        self._changed.set()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._subscription is not None:
            self._subscription.cancel()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _on_commit(self, events: list[Event], revision: int) -> None:
        if events:
            self._changed.set()

    async def _run(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            levels = {level["metadata"]["name"] for level in self._stored("prioritylevelconfigurations")}
            for schema in self._stored("flowschemas"):
                wanted = _condition(schema["spec"]["priorityLevelConfiguration"]["name"], levels)
                if not _has(schema, wanted):
                    with contextlib.suppress(ApiError):  # it is gone, or has changed and comes again
                        await self._write(schema, wanted)

    def _stored(self, resource: str) -> list[Object]:
        rtype = self._registry.catalog.get(GROUP, resource)
        if rtype is None:
            return []
        prefix = rtype.key_prefix
        return [msgpack.unpackb(item.value) for item in self._registry.store.scan(prefix, prefix[:-1] + b"0")]

    async def _write(self, schema: Object, condition: Object) -> None:
        rtype = self._registry.catalog.get(GROUP, "flowschemas")
        assert rtype is not None
        name = schema["metadata"]["name"]
        call = Call(rtype, rtype.versions[0], "patch", "", name, "status", _SELF)
        call.field_manager, call.force = _MANAGER, True
        timed = {**condition, "lastTransitionTime": rfc3339(self._registry.clock.time())}
        applied = {
            "apiVersion": f"{GROUP}/{rtype.versions[0]}",
            "kind": "FlowSchema",
            "metadata": {"name": name, "uid": schema["metadata"]["uid"]},
            "status": {"conditions": [timed]},
        }
        await self._registry.patch(call, APPLY, orjson.dumps(applied))


def _condition(level: str, levels: set[str]) -> Object:
    named = f"This FlowSchema references the PriorityLevelConfiguration object named {quote(level)}"
    if level in levels:
        return {"type": "Dangling", "status": "False", "reason": "Found", "message": f"{named} and it exists"}
    told = f"{named} but there is no such object"
    return {"type": "Dangling", "status": "True", "reason": "NotFound", "message": told}


def _has(schema: Object, wanted: Object) -> bool:
    conditions = (schema.get("status") or {}).get("conditions") or ()
    return any(all(one.get(key) == wanted[key] for key in wanted) for one in conditions)

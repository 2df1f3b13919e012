"""The changes of a recording made again in another cluster, at the speed that is asked for.

Changes of one object keep their order, and one waits for the creation of whatever it refers to. What only the server or
a component may write goes the way that they have: a Pod's node by a binding, a status by its subresource, a deletion
that something holds by letting go of it. A cluster that replays has no controllers of its own, or they act too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from fastkube.client import Client, Resource
from fastkube.clock import Clock
from fastkube.errors import ApiError
from fastkube.recording.load import CONCURRENCY, RETRY_S, Failure, Loader, Report
from fastkube.recording.objects import Change, for_create, has_directives, renamed

log = logging.getLogger(__name__)
Object = dict[str, Any]

_BARRIERS = frozenset((("", "namespaces"), ("apiextensions.k8s.io", "customresourcedefinitions")))
"""What others need before and miss after: nothing is under way while one of these changes."""
_ATTEMPTS = 20
_PODS = Resource("", "v1", "pods")
_OF_THE_SERVER = (
    "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "resourceVersion"
)  # fmt: skip

_Target = tuple[str, str, str, str]


def parse_speed(text: str) -> float:
    """`10x`, `0.5x` or `max` (infinity); raises ValueError."""
    if text == "max":
        return float("inf")
    try:
        speed = float(text.removesuffix("x"))
    except ValueError:
        speed = 0.0
    if not speed > 0:
        raise ValueError(f"a speed is a number such as 10x, or max, not {text!r}")
    return speed


class Player:
    """`await play(changes)` after the recording's first state has been loaded by `loader`."""

    def __init__(self, client: Client, loader: Loader, clock: Clock, speed: float) -> None:
        self._client, self._loader, self._clock, self._speed = client, loader, clock, speed
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._last: dict[_Target, asyncio.Task[None]] = {}
        self._coming: dict[str, asyncio.Task[None]] = {}
        self.done = 0
        self.report = Report()

    async def play(self, changes: Iterable[Change]) -> Report:
        """In the order of their times; what fails is in the report."""
        began = self._clock.monotonic()
        async with asyncio.TaskGroup() as group:
            for change in changes:
                if (wait := change.at_s / self._speed - (self._clock.monotonic() - began)) > 0:
                    await self._clock.sleep(wait)
                barrier = (change.resource.group, change.resource.plural) in _BARRIERS
                if barrier:
                    await self._rest()
                await self._slots.acquire()
                self._start(group, change)
                if barrier:
                    await self._rest()
        return self.report

    async def _rest(self) -> None:
        if self._last:
            await asyncio.wait(self._last.values())

    def _start(self, group: asyncio.TaskGroup, change: Change) -> None:
        target = (change.resource.group, change.resource.plural, change.namespace, change.name)
        before = [self._last[target]] if target in self._last else []
        before += {self._coming[uid] for uid in _texts(change.template) if uid in self._coming}
        task = group.create_task(self._play_one(change, before))
        self._last[target] = task
        uid = (change.template.get("metadata") or {}).get("uid") if change.method == "create" else None
        if uid:
            self._coming[uid] = task

        def ended(_: asyncio.Task[None]) -> None:
            self._slots.release()
            if self._last.get(target) is task:
                del self._last[target]
            if uid and self._coming.get(uid) is task:
                del self._coming[uid]

        task.add_done_callback(ended)

    async def _play_one(self, change: Change, before: list[asyncio.Task[None]]) -> None:
        if before:
            await asyncio.wait(before)
        for attempt in range(_ATTEMPTS):
            try:
                await self._do(change, renamed(change.template, self._loader.uids))
                self.done += 1
                return
            except ApiError as error:
                # a namespace's ServiceAccount, a new kind's endpoint: there a moment later
                if change.method == "create" and error.code in (403, 404, 500, 503) and attempt < _ATTEMPTS - 1:
                    await asyncio.sleep(RETRY_S)
                    continue
                what = f"{change.method} {change.resource.plural} {change.namespace}/{change.name}"
                self.report.failures.append(Failure(f"{what} at {change.at_s:.1f} s", error.message))
                return

    async def _do(self, change: Change, template: Object) -> None:
        if change.method == "create":
            await self._create(change, template)
        elif change.method == "patch":
            await self._patch(change, template)
        else:
            await self._delete(change)

    async def _create(self, change: Change, template: Object) -> None:
        body, status = for_create(template)
        try:
            made = await self._client.create(change.resource, body, change.namespace)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            made = await self._client.patch(change.resource, change.name, body, change.namespace)
        if uid := (change.template.get("metadata") or {}).get("uid"):
            self._loader.uids[uid] = made["metadata"]["uid"]
        await self._put_status(change, status)

    async def _put_status(self, change: Change, status: Any) -> None:
        if not status and status is not None:
            return
        try:
            await self._write(change, {"status": status}, subresource="status")
        except ApiError as error:
            if error.code not in (404, 405):
                raise

    async def _patch(self, change: Change, template: Object) -> None:
        patch = dict(template)
        status = patch.pop("status", {})
        metadata = dict(patch.pop("metadata", None) or {})
        deleted = bool(metadata.get("deletionTimestamp"))
        metadata = {name: value for name, value in metadata.items() if name not in _OF_THE_SERVER}
        if metadata:
            patch["metadata"] = metadata
        if change.resource == _PODS and patch.get("spec"):
            patch["spec"] = await self._pod_spec(change, dict(patch["spec"]))
        patch = {name: value for name, value in patch.items() if value != {}}
        if patch:
            await self._write(change, patch)
        if deleted:  # before the status, which may say that it is so
            await self._client.delete(change.resource, change.name, change.namespace, propagation="Background")
        await self._put_status(change, status)

    async def _pod_spec(self, change: Change, spec: Object) -> Object:
        """Does what of a Pod's spec has a way of its own; returns the rest."""
        if node := spec.pop("nodeName", None):
            binding = {
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"name": change.name},
                "target": {"apiVersion": "v1", "kind": "Node", "name": node},
            }
            await self._client.create(
                _PODS, binding, change.namespace, name=change.name, subresource="binding", brief=True
            )
        if ephemeral := spec.pop("ephemeralContainers", None):
            await self._write(change, {"spec": {"ephemeralContainers": ephemeral}}, subresource="ephemeralcontainers")
        return spec

    async def _write(self, change: Change, patch: Object, subresource: str = "") -> None:
        await self._client.patch(
            change.resource,
            change.name,
            patch,
            change.namespace,
            kind="strategic" if has_directives(patch) else "merge",
            subresource=subresource,
            brief=True,
        )

    async def _delete(self, change: Change) -> None:
        """The object is gone in the recording, so nothing holds it any more."""
        grace = 0 if change.resource == _PODS else None
        try:
            await self._client.delete(
                change.resource, change.name, change.namespace, grace_period_s=grace, propagation="Background"
            )
            there = await self._client.get(change.resource, change.name, change.namespace)
            if there["metadata"].get("finalizers"):
                await self._write(change, {"metadata": {"finalizers": None}})
            if (change.resource.group, change.resource.plural) == ("", "namespaces"):
                there["spec"] = {**(there.get("spec") or {}), "finalizers": []}
                await self._client.update(change.resource, there, subresource="finalize")
        except ApiError as error:
            if error.code not in (404, 409):
                raise


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)

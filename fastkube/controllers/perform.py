"""The one place where controllers touch the world: actions become requests, answers go back into the caches."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from fastkube.client import Client
from fastkube.client.discovery import discover
from fastkube.client.events import EventRecorder
from fastkube.controllers.actions import (
    Action,
    Ask,
    Create,
    Delete,
    DeleteAll,
    Discover,
    Fail,
    Patch,
    Post,
    Remember,
    Requeue,
    Review,
    Tell,
    Together,
    Update,
    Write,
)
from fastkube.controllers.caches import Caches
from fastkube.errors import ApiError

Object = dict[str, Any]

METADATA_ONLY = ",".join(
    f"application/json;as={kind};g=meta.k8s.io;v=v1" for kind in ("PartialObjectMetadataList", "PartialObjectMetadata")
)


class Stopped(Exception):
    """The attempt ends here without being a failure: its namespace is terminating."""


class Failed(Exception):
    """A reconcile gave up its attempt by its own decision."""


class Performer:
    """Performs actions in the name of one controller (`component`, as events tell it)."""

    def __init__(self, client: Client, caches: Caches, recorder: EventRecorder, component: str) -> None:
        self._client = client
        self._caches = caches
        self._recorder = recorder
        self._component = component
        self.memory: dict[str, Any] = {}
        """What reconciles asked to be remembered."""

    async def perform(self, actions: Iterable[Action]) -> float | None:
        """All of them in order; the seconds after which to look again, if any said so. Raises what failed first."""
        again: float | None = None
        for action in actions:
            if isinstance(action, Requeue):
                again = action.after_s if again is None else min(again, action.after_s)
            else:
                await self._do(action)
        return again

    async def ask(self, asks: Sequence[Action]) -> dict[str, Any]:
        """Read what is asked for, concurrently: {key: answer, or None for 404}."""
        if any(isinstance(ask, Discover) for ask in asks):
            return {Discover.KEY: await discover(self._client)}
        questions = [ask for ask in asks if isinstance(ask, Ask | Review)]
        answers = await asyncio.gather(*(self._read(ask) for ask in questions))
        return {ask.key: answer for ask, answer in zip(questions, answers, strict=True)}

    async def _read(self, ask: Ask | Review) -> Object | ApiError | None:
        if isinstance(ask, Review):
            return await self._client.create(ask.resource, ask.obj)
        try:
            return await self._client.get_path(ask.path, accept=METADATA_ONLY if ask.metadata_only else "")
        except ApiError as error:
            if error.code == 404 and not ask.tolerant:
                return None
            if ask.tolerant:
                return error
            raise

    async def _do(self, action: Action) -> None:
        if isinstance(action, Write):
            await self._write(action)
        elif isinstance(action, Tell):
            component = action.component or self._component
            self._recorder.event(action.about, action.type, action.reason, action.message, component=component)
        elif isinstance(action, Together):
            await self._together(action)
        elif isinstance(action, DeleteAll):
            await self._client.delete_collection(action.resource, action.namespace, propagation=action.propagation)
        elif isinstance(action, Remember):
            if action.value is None:
                self.memory.pop(action.key, None)
            else:
                self.memory[action.key] = action.value
        elif isinstance(action, Fail):
            raise Failed(action.message)
        else:
            raise TypeError(f"{action!r} cannot be performed")

    async def _together(self, action: Together) -> None:
        try:
            await self._batches(action)
        except ApiError as error:
            if action.otherwise is not None:
                await self.perform(action.otherwise(error))
            raise

    async def _batches(self, action: Together) -> None:
        actions = action.actions
        size = 1 if action.slow_start else len(actions)
        start = 0
        while start < len(actions):
            await self._batch(actions[start : start + size])
            start += size
            size *= 2

    async def _batch(self, actions: Sequence[Action]) -> None:
        if len(actions) == 1:
            await self._do(actions[0])
            return
        results = await asyncio.gather(*(self._do(action) for action in actions), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _write(self, action: Write) -> None:
        try:
            answer = await self._send(action)
        except ApiError as error:
            if error.reason in action.ignore:
                return
            if isinstance(action, Create) and _namespace_is_terminating(error):
                raise Stopped from error
            if action.otherwise is not None:
                await self.perform(action.otherwise(error))
            raise
        if action.then is not None:
            await self.perform(action.then(answer))

    async def _send(self, action: Write) -> Object:
        client, resource, metadata = self._client, action.resource, action.obj["metadata"]
        namespace = metadata.get("namespace", "")
        if isinstance(action, Create):
            answer = await client.create(resource, action.obj, namespace, shared=True)
        elif isinstance(action, Update):
            answer = await client.update(resource, action.obj, subresource=action.subresource, shared=True)
        elif isinstance(action, Patch):
            answer = await client.patch(
                resource,
                metadata["name"],
                action.body,
                namespace,
                kind=action.kind,
                subresource=action.subresource,
                field_manager=action.field_manager,
                force=action.force,
                shared=True,
            )
        elif isinstance(action, Delete):
            return await self._delete(action)
        elif isinstance(action, Post):
            return await client.create(
                resource, action.body, namespace, name=metadata["name"], subresource=action.subresource
            )
        else:
            raise TypeError(f"{action!r} cannot be performed")
        if getattr(action, "subresource", "") != "scale":  # which is answered with another kind of object
            self._caches.observe(resource, answer)
        return answer

    async def _delete(self, action: Delete) -> Object:
        metadata = action.obj["metadata"]
        answer = await self._client.delete(
            action.resource,
            metadata["name"],
            metadata.get("namespace", ""),
            propagation=action.propagation,
            grace_period_s=action.grace_period_s,
            uid=metadata["uid"],
            resource_version=action.resource_version,
        )
        if _is_left(answer):
            self._caches.observe(action.resource, answer)
        else:
            self._caches.observe_deleted(action.resource, action.obj)
        return answer


def _is_left(answer: Object) -> bool:
    """Whether the answer to a DELETE is an object that something still holds: finalizers or a grace period."""
    if answer.get("kind") == "Status":
        return False
    metadata = answer["metadata"]
    return bool(metadata.get("deletionTimestamp")) and bool(
        metadata.get("finalizers") or metadata.get("deletionGracePeriodSeconds")
    )


def _namespace_is_terminating(error: ApiError) -> bool:
    causes = (error.details or {}).get("causes") or ()
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)

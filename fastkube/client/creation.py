"""Creates that nobody awaits, for who makes thousands: a callback costs a fraction of a task and a future for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgpack

from fastkube.client import codec as codecs
from fastkube.client.batch import Write
from fastkube.client.resource import Resource, collection_path, object_path
from fastkube.client.transport import Response
from fastkube.errors import ApiError

if TYPE_CHECKING:
    from fastkube.client.batch import Batcher, Outcome
    from fastkube.client.client import Client

Object = dict[str, Any]
Answered = Callable[["ApiError | None"], None]

_alone: set[asyncio.Task[Object]] = set()
"""Held until they are done."""


class Creation:
    """One of them. `answered` is told once, unless the loop ends before."""

    __slots__ = ("_answered", "_client", "_name", "_namespace", "_obj", "_resource", "_subresource")

    def __init__(
        self,
        client: Client,
        answered: Answered,
        resource: str | Resource,
        obj: Object,
        namespace: str,
        name: str,
        subresource: str,
    ) -> None:
        self._client = client
        self._answered = answered
        self._resource = resource
        self._obj = obj
        self._namespace = namespace
        self._name = name
        self._subresource = subresource

    def join(self, batcher: Batcher, base: str) -> None:
        """Go with others."""
        path = collection_path(self._resource, self._namespace)
        if self._subresource:
            path = object_path(self._resource, self._namespace, self._name, self._subresource)
        write = Write("POST", base + path, codecs.MSGPACK, msgpack.packb(self._obj), True)
        if batcher.is_for_one(write):
            self.go_alone()
        else:
            batcher.write_nowait(write, self._landed)

    def go_alone(self) -> None:
        create = self._client.create(
            self._resource, self._obj, self._namespace, name=self._name, subresource=self._subresource, brief=True
        )
        task = asyncio.ensure_future(create)
        _alone.add(task)
        task.add_done_callback(self._ended)

    def _landed(self, outcome: Outcome) -> None:
        if isinstance(outcome, Response) and outcome.status < 400:
            self._answered(None)
        elif isinstance(outcome, ApiError):
            self._answered(outcome)
        elif outcome is None or (isinstance(outcome, Response) and outcome.status == 415):
            self.go_alone()
        elif isinstance(outcome, Response):
            self._answered(codecs.error_from(outcome.status, outcome.headers, outcome.body))

    def _ended(self, task: asyncio.Task[Object]) -> None:
        _alone.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, ApiError):
            raise error
        self._answered(error)

"""How audit events get to where they go (audit_backends): cut to size, then at once or in batches.

batch             gathered, and handed on beside the requests
blocking          handed on before the request goes on; what fails is counted
blocking-strict   the same, and a request whose coming cannot be told of fails
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from fastkube.server.outbound import PeerError
from fastkube.server.token_bucket import TokenBucket

if TYPE_CHECKING:
    from fastkube.server.audit_options import Batching, Truncation
    from fastkube.server.metrics import Page

log = logging.getLogger(__name__)

Object = dict[str, Any]

_OBJECTS = ("requestObject", "responseObject")
_TRUNCATED = {"audit.k8s.io/truncated": "true"}


class Backend(Protocol):
    """A place for events. Raises OSError or PeerError where it does not take them."""

    name: str
    at_once: bool
    """Whether several batches may be under way."""

    def deliver(self, events: list[Object]) -> Awaitable[None] | None: ...

    async def close(self) -> None: ...


class AuditMeasures:
    """What /metrics tells of auditing."""

    def __init__(self) -> None:
        self.events = 0
        self.rejected = 0
        self.levels: dict[str, int] = {}
        self.errors: dict[str, int] = {}

    def failed(self, plugin: str, problem: object, count: int) -> None:
        """Events that got lost."""
        self.errors[plugin] = self.errors.get(plugin, 0) + count
        total = self.errors[plugin]
        if total & (total - 1) == 0 or count > 1:  # told at 1, 2, 4, 8, ...
            log.error("audit %s: %d events were lost: %s", plugin, count, problem)

    def render(self, page: Page) -> None:
        page.counter("apiserver_audit_event_total", "Audit events handed on.", [({}, self.events)])
        rows = [({"plugin": plugin}, count) for plugin, count in sorted(self.errors.items())]
        page.counter("apiserver_audit_error_total", "Audit events that got lost.", rows)
        rows = [({"level": level}, count) for level, count in sorted(self.levels.items())]
        page.counter("apiserver_audit_level_total", "Levels of audited requests.", rows)
        told = "Requests that were refused since they could not be audited."
        page.counter("apiserver_audit_requests_rejected_total", told, [({}, self.rejected)])


class Sink:
    """One backend with what is done to events on their way there."""

    def __init__(
        self,
        backend: Backend,
        mode: str,
        batching: Batching,
        truncation: Truncation,
        measures: AuditMeasures,
        monotonic: Callable[[], float],
    ) -> None:
        self._backend = backend
        self._truncation = truncation
        self._measures = measures
        self.strict = mode == "blocking-strict"
        self._batches = Batches(backend, batching, measures, monotonic) if mode == "batch" else None

    def send(self, event: Object) -> Awaitable[bool] | bool:
        """Whether the event was taken; in the mode `batch` that it will be is enough."""
        fitting = self._cut(event) if self._truncation.enabled else event
        if fitting is None:
            return True
        if self._batches is not None:
            self._batches.put(fitting)
            return True
        try:
            waiting = self._backend.deliver([fitting])
        except OSError as problem:
            self._measures.failed(self._backend.name, problem, 1)
            return False
        return True if waiting is None else self._settled(waiting)

    async def _settled(self, waiting: Awaitable[None]) -> bool:
        try:
            await waiting
        except (OSError, PeerError) as problem:
            self._measures.failed(self._backend.name, problem, 1)
            return False
        return True

    def _cut(self, event: Object) -> Object | None:
        largest = self._truncation.event_max_bytes
        if len(orjson.dumps(event)) <= largest:
            return event
        if event["level"] in ("Request", "RequestResponse"):
            event = {key: value for key, value in event.items() if key not in _OBJECTS}
            event["annotations"] = {**event.get("annotations", {}), **_TRUNCATED}
            if len(orjson.dumps(event)) <= largest:
                return event
        self._measures.failed("truncate", "event is too large even after truncating", 1)
        return None

    async def close(self, grace_s: float) -> None:
        """Hands on what is left, for at most `grace_s`."""
        if self._batches is not None:
            await self._batches.close(grace_s)
        await self._backend.close()


class Batches:
    """Events are handed on when there are `batch_max` or the oldest has waited `wait_max_s`; those for which the queue
    has no room are dropped, and so are those that the backend does not take."""

    def __init__(
        self, backend: Backend, batching: Batching, measures: AuditMeasures, monotonic: Callable[[], float]
    ) -> None:
        self._backend = backend
        self._batching = batching
        self._measures = measures
        self._monotonic = monotonic
        self._throttle = TokenBucket(batching.per_s, batching.burst, monotonic()) if batching.throttled else None
        self._queue: deque[Object] = deque()
        self._arrived, self._full = asyncio.Event(), asyncio.Event()
        self._closing = False
        self._under_way: set[asyncio.Task[None]] = set()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def put(self, event: Object) -> None:
        if len(self._queue) >= self._batching.queue_max:
            self._measures.failed("buffered", "audit buffer queue blocked", 1)
            return
        self._queue.append(event)
        self._arrived.set()
        if len(self._queue) >= self._batching.batch_max:
            self._full.set()

    async def _run(self) -> None:
        while not (self._closing and not self._queue):
            await self._arrived.wait()
            batch = await self._next_batch()
            if not batch:
                continue
            if self._throttle is not None and not self._closing:
                await asyncio.sleep(self._throttle.wait_s(self._monotonic()))
            task = asyncio.ensure_future(self._hand_on(batch))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            if not self._backend.at_once:
                await task
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _next_batch(self) -> list[Object]:
        largest = self._batching.batch_max
        if not self._closing and len(self._queue) < largest:
            try:
                async with asyncio.timeout(self._batching.wait_max_s):
                    await self._full.wait()
            except TimeoutError:
                pass
        batch = [self._queue.popleft() for _ in range(min(largest, len(self._queue)))]
        if len(self._queue) < largest:
            self._full.clear()
        if not self._queue and not self._closing:
            self._arrived.clear()
        return batch

    async def _hand_on(self, batch: list[Object]) -> None:
        try:
            waiting = self._backend.deliver(batch)
            if waiting is not None:
                await waiting
        except (OSError, PeerError) as problem:
            self._measures.failed(self._backend.name, problem, len(batch))

    async def close(self, grace_s: float) -> None:
        self._closing = True
        self._arrived.set()
        self._full.set()
        await asyncio.wait((self._task,), timeout=grace_s)
        self._task.cancel()
        for task in self._under_way:
            task.cancel()

"""Recording Events: what happened to an object, told to people, without flooding the server.

Two recorders, as upstream has: `EventRecorder` writes core/v1 Events (controllers, kubelets), `SeriesRecorder` writes
events.k8s.io/v1 Events (the scheduler). Both only queue in the caller's turn; a task writes. Losing an event is
allowed, waiting for one is not.

How floods are kept off (client-go's correlator, its numbers):
  1. The same event again (object, type, reason and message) is a PATCH of count and lastTimestamp.
  2. More than SIMILAR_MAX events which differ in the message only, each within SIMILAR_WITHIN_S of the one before,
     become one event "(combined from similar events): ...".
  3. An object may have SPAM_BURST events from one source, and one more every SPAM_REFILL_S; the rest is dropped.
A series (events.k8s.io) is opened by the second occurrence; later ones only count, and are written every
SERIES_REFRESH_S and when the series ends, SERIES_END_S after its last occurrence.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from functools import partial
from typing import Any, NamedTuple

from fastkube.client.client import Client, Unreachable
from fastkube.clock import Clock, rfc3339, rfc3339_micro
from fastkube.errors import ApiError

log = logging.getLogger(__name__)

Object = dict[str, Any]

QUEUED_MAX = 10_000
CACHED_MAX = 4096
SIMILAR_MAX = 10
SIMILAR_WITHIN_S = 600.0
SPAM_BURST = 25
SPAM_REFILL_S = 300.0
SERIES_END_S = 360.0
SERIES_REFRESH_S = 1800.0
WRITES_MAX = 256
"""Events that a recorder has under way at a time."""
TRIES_MAX = 12
RETRY_S = 10.0

EVENTS_CORE = "v1/events"
EVENTS = "events.k8s.io/v1/events"


def reference(obj: Object) -> Object:
    """An ObjectReference to `obj`; a reference passes as it is."""
    if "metadata" not in obj:
        return obj
    metadata = obj["metadata"]
    fields = {
        "kind": obj.get("kind"),
        "namespace": metadata.get("namespace"),
        "name": metadata.get("name"),
        "uid": metadata.get("uid"),
        "apiVersion": obj.get("apiVersion"),
        "resourceVersion": metadata.get("resourceVersion"),
    }
    return {key: value for key, value in fields.items() if value}


def event_name(about: Object, now: float) -> str:
    """The name of the object and the time in nanoseconds; the rare clash is refused by the server, and ignored."""
    return f"{about.get('name', '')}.{int(now * 1e9):x}"


class _Lru(OrderedDict[Any, Any]):
    """A cache of at most CACHED_MAX entries."""

    def put(self, key: Any, value: Any) -> None:
        self[key] = value
        self.move_to_end(key)
        if len(self) > CACHED_MAX:
            self.popitem(last=False)


class _Similar(NamedTuple):
    messages: set[str]
    last: float


class _Bucket(NamedTuple):
    tokens: float
    at: float


class Write(NamedTuple):
    """An event to create, or with `patch` one to patch; the whole event is there for a patch that finds nothing."""

    event: Object
    patch: Object | None


class Correlator:
    """Decides what becomes of an event: a creation, a patch of an earlier one, or nothing. Pure but for its memory."""

    def __init__(self) -> None:
        self._similar = _Lru()
        self._seen = _Lru()
        self._buckets = _Lru()

    def correlate(self, event: Object, now: float) -> Write | None:
        about = tuple(sorted((k, v) for k, v in event["involvedObject"].items() if k != "resourceVersion"))
        source = (event["source"].get("component"), event["source"].get("host"), about)
        key = self._aggregate(event, (*source, event["type"], event["reason"]), now)
        write = self._count(event, key)
        return write if self._allowed(source, now) else None

    def _aggregate(self, event: Object, group: tuple[Any, ...], now: float) -> tuple[Any, ...]:
        """The key under which repetitions are counted; rewrites the message of a combined event."""
        messages, last = self._similar.get(group, (set(), now))
        if now - last > SIMILAR_WITHIN_S:
            messages = set()
        messages.add(event["message"])
        self._similar.put(group, _Similar(messages, now))
        if len(messages) < SIMILAR_MAX:
            return (*group, event["message"])
        messages.pop()  # it need not grow any more
        event["message"] = f"(combined from similar events): {event['message']}"
        return group

    def _count(self, event: Object, key: tuple[Any, ...]) -> Write:
        seen = self._seen.get(key)
        if seen is None:
            self._seen.put(key, event)
            return Write(event, None)
        whole = {
            **event,
            "metadata": seen["metadata"],
            "firstTimestamp": seen["firstTimestamp"],
            "count": seen["count"] + 1,
        }
        self._seen.put(key, whole)
        patch = {name: whole[name] for name in ("count", "lastTimestamp", "message")}
        return Write(whole, patch)

    def _allowed(self, source: tuple[Any, ...], now: float) -> bool:
        tokens, at = self._buckets.get(source, (float(SPAM_BURST), now))
        tokens = min(float(SPAM_BURST), tokens + (now - at) / SPAM_REFILL_S)
        allowed = tokens >= 1
        self._buckets.put(source, _Bucket(tokens - 1 if allowed else tokens, now))
        return bool(allowed)


class _Writer:
    """The queue that both recorders write from: what has queued up while others were written shares requests."""

    def __init__(self, client: Client, resource: str) -> None:
        self.dropped = 0
        self._client = client
        self._resource = resource
        self._queue: deque[Write] = deque()
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun = False
        self._busy = 0

    def start(self) -> None:
        self._begun = True
        self._advance()

    def put(self, write: Write) -> None:
        if len(self._queue) >= QUEUED_MAX:
            self.dropped += 1
            return
        self._queue.append(write)
        self._idle.clear()
        self._advance()

    async def flush(self, timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s):
            await self._idle.wait()

    async def stop(self) -> None:
        self._begun = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _advance(self) -> None:
        """Write what waits, as far as there is room for it."""
        while self._begun and self._queue and self._busy < WRITES_MAX:
            self._busy += 1
            write = self._queue.popleft()
            if write.patch is None:
                self._create(write)
            else:
                self._retry(write, 0.0)

    def _create(self, write: Write) -> None:
        event = write.event
        namespace = event["metadata"]["namespace"]
        self._client.create_nowait(self._resource, event, namespace, answered=partial(self._created, write))

    def _created(self, write: Write, error: ApiError | None) -> None:
        if isinstance(error, Unreachable) and self._begun:
            self._retry(write, RETRY_S)
            return
        if error is not None and not isinstance(error, Unreachable):
            _note(error)
        self._done()

    def _retry(self, write: Write, after_s: float) -> None:
        task = asyncio.get_running_loop().create_task(self._write(write, after_s), name=f"event {self._resource}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _done(self) -> None:
        self._busy -= 1
        self._advance()
        if not self._queue and not self._busy:
            self._idle.set()

    async def _write(self, write: Write, after_s: float) -> None:
        try:
            for _ in range(TRIES_MAX):
                await asyncio.sleep(after_s)  # in real time: it is the network that has to come back
                try:
                    await self._send(write)
                    return
                except Unreachable:
                    after_s = RETRY_S
                except ApiError as error:
                    _note(error)
                    return
            log.warning("an event could not be written: %s", write.event.get("reason"))
        finally:
            self._done()

    async def _send(self, write: Write) -> None:
        metadata = write.event["metadata"]
        if write.patch is not None:
            try:
                await self._client.patch(
                    self._resource, metadata["name"], write.patch, metadata["namespace"], kind="strategic", brief=True
                )
                return
            except ApiError as error:
                if error.code != 404:
                    raise
        await self._client.create(self._resource, write.event, metadata["namespace"], brief=True)


def _note(error: ApiError) -> None:
    if error.reason != "AlreadyExists" and not _terminating(error):
        log.warning("the server refused an event: %s", error.message)


def _terminating(error: ApiError) -> bool:
    """The namespace is going or gone, and its events with it."""
    causes = (error.details or {}).get("causes") or []
    return error.code == 404 or any(cause.get("reason") == "NamespaceTerminating" for cause in causes)


class EventRecorder:
    """Writes core/v1 Events; `component` is who tells, such as deployment-controller."""

    def __init__(self, client: Client, component: str, clock: Clock, *, host: str = "") -> None:
        self._component = component
        self._host = host
        self._clock = clock
        self._correlator = Correlator()
        self._writer = _Writer(client, EVENTS_CORE)

    def start(self) -> None:
        self._writer.start()

    async def stop(self) -> None:
        """Writes nothing more: who wants the last events written calls `flush` first."""
        await self._writer.stop()

    async def flush(self, timeout_s: float = 5.0) -> None:
        """Until what was told so far is written; raises TimeoutError."""
        await self._writer.flush(timeout_s)

    def event(
        self,
        about: Object,
        type: str,
        reason: str,
        message: str,
        *,
        component: str = "",
        annotations: dict[str, str] | None = None,
    ) -> None:
        """Tell that `reason` happened to `about` (an object or a reference). `type` is Normal or Warning."""
        now = self._clock.time()
        ref = reference(about)
        component = component or self._component
        namespace = ref.get("namespace") or "default"
        metadata: Object = {"name": event_name(ref, now), "namespace": namespace}
        if annotations:
            metadata["annotations"] = annotations
        source = {"component": component, "host": self._host} if self._host else {"component": component}
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": metadata,
            "involvedObject": ref,
            "reason": reason,
            "message": message[:1024],
            "source": source,
            "firstTimestamp": rfc3339(now),
            "lastTimestamp": rfc3339(now),
            "count": 1,
            "type": type,
            "eventTime": None,
            "reportingComponent": component,
            "reportingInstance": self._host,
        }
        write = self._correlator.correlate(event, now)
        if write is not None:
            self._writer.put(write)


class SeriesRecorder:
    """Writes events.k8s.io/v1 Events; `controller` is who tells, `instance` which of its replicas."""

    def __init__(self, client: Client, controller: str, instance: str, clock: Clock) -> None:
        self._controller = controller
        self._instance = instance
        self._clock = clock
        self._cache: OrderedDict[tuple[Any, ...], Object] = OrderedDict()
        self._writer = _Writer(client, EVENTS)
        self._refreshed = clock.time()
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._writer.start()
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="event series")

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        await self._writer.stop()

    async def flush(self, timeout_s: float = 5.0) -> None:
        """Until what was told so far is written; raises TimeoutError."""
        await self._writer.flush(timeout_s)

    def event(
        self, about: Object, type: str, reason: str, action: str, note: str, *, related: Object | None = None
    ) -> None:
        """Tell that `action` was taken on `about` (an object or a reference) and `reason` was the outcome."""
        now = self._clock.time()
        ref = reference(about)
        other = reference(related) if related is not None else None
        key = (type, action, reason, tuple(ref.items()), tuple(other.items()) if other else None)
        known = self._cache.get(key)
        if known is not None:
            self._again(known, now)
            return
        event: Object = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": event_name(ref, now), "namespace": ref.get("namespace") or "default"},
            "eventTime": rfc3339_micro(now),
            "reportingController": self._controller,
            "reportingInstance": self._instance,
            "action": action,
            "reason": reason,
            "regarding": ref,
            "note": note[:1024],
            "type": type,
        }
        if other:
            event["related"] = other
        self._cache[key] = {"event": event, "count": 1, "last": now}
        if len(self._cache) > CACHED_MAX:
            self._cache.popitem(last=False)
        self._writer.put(Write(event, None))

    def _again(self, known: Object, now: float) -> None:
        known["count"] += 1
        known["last"] = now
        if known["count"] == 2:
            self._writer.put(_series(known))

    async def _keep(self) -> None:
        while True:
            await self._clock.sleep(SERIES_END_S)
            now = self._clock.time()
            refresh = now - self._refreshed >= SERIES_REFRESH_S
            if refresh:
                self._refreshed = now
            for key, known in list(self._cache.items()):
                ended = now - known["last"] >= SERIES_END_S
                if known["count"] > 1 and (ended or refresh):
                    self._writer.put(_series(known))
                if ended:
                    del self._cache[key]


def _series(known: Object) -> Write:
    series = {"count": known["count"], "lastObservedTime": rfc3339_micro(known["last"])}
    return Write({**known["event"], "series": series}, {"series": series})

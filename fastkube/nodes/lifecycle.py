"""Objects that wait for their Stages, all in one heap, and what a Stage does, done through the API server."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from fastkube.client import Client, Resource
from fastkube.client.discovery import ApiResource, Discovery, discover
from fastkube.clock import Clock, rfc3339
from fastkube.errors import ApiError
from fastkube.nodes.stages import Apply, Event, Finalizers, Patch, Stage, StageError, rendered

log = logging.getLogger(__name__)
Object = dict[str, Any]

CONCURRENCY = 256
RETRY_S = 0.5
_MANAGER = "fastkube-nodes"


class Subject:
    """An object that has a life; `turn` rises with every change: a Stage that was chosen before it is dropped."""

    __slots__ = ("resource", "turn", "uid")

    def __init__(self, resource: Resource, uid: str) -> None:
        self.resource = resource
        self.uid = uid
        self.turn = 0

    def failed(self) -> None:
        """What was to be written is not."""


class Later(NamedTuple):
    """Nothing is to be written now; look again after so many seconds (infinity: when the object changes)."""

    seconds: float


class Over(NamedTuple):
    """The object can go."""


StatusOf = Callable[[Subject, str, Object], Object | Later | Over]
Changed = Callable[[Subject, Object], None]


class Lifecycle:
    """`status_of` makes the status that a Stage names; `enter` is called before templates are run for an object;
    `changed` is told what a Stage with an immediate next one has made."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        *,
        status_of: StatusOf,
        enter: Callable[[Subject, Object], None],
        changed: Changed,
    ) -> None:
        self._client, self._clock = client, clock
        self._status_of, self._enter, self._changed = status_of, enter, changed
        self._due: list[tuple[float, int, Subject, int, Stage, Object]] = []
        self._order = itertools.count()
        self._wake = asyncio.Event()
        self.slots = asyncio.Semaphore(CONCURRENCY)
        self._tasks: set[asyncio.Task[None]] = set()
        self._users: dict[str, Client] = {}
        self._discovery = Discovery([], {})

    def put(self, subject: Subject, stage: Stage, obj: Object, delay_s: float) -> None:
        """Perform the Stage after the delay, if the object has not changed by then."""
        due = self._clock.monotonic() + delay_s
        heapq.heappush(self._due, (due, next(self._order), subject, subject.turn, stage, obj))
        self._wake.set()

    async def run(self) -> None:
        """Perform each Stage when its time has come."""
        while True:
            now = self._clock.monotonic()
            while self._due and self._due[0][0] <= now:
                _, _, subject, turn, stage, obj = heapq.heappop(self._due)
                if subject.turn == turn:
                    await self.slots.acquire()
                    self.start(self._perform(subject, turn, stage, obj))
            self._wake.clear()
            if not self._due:
                await self._wake.wait()
            else:
                await self._sleep_or_wake(self._due[0][0] - now)

    async def _sleep_or_wake(self, seconds: float) -> None:
        sleeper = asyncio.ensure_future(self._clock.sleep(seconds))
        waker = asyncio.ensure_future(self._wake.wait())
        await asyncio.wait((sleeper, waker), return_when=asyncio.FIRST_COMPLETED)
        sleeper.cancel()
        waker.cancel()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _perform(self, subject: Subject, turn: int, stage: Stage, obj: Object) -> None:
        """Holds one of the slots; gives it back."""
        metadata = obj["metadata"]
        try:
            await self._do(subject, turn, stage, obj)
        except StageError as error:
            log.warning("%s %s, stage %s: %s", subject.resource.plural, metadata["name"], stage.name, error)
            await self._tell(obj, f"Stage {stage.name}: {error}")
        except ApiError as error:
            subject.failed()
            if error.reason not in ("NotFound", "Conflict"):  # it has changed: its event brings the next stage
                log.warning("%s %s, stage %s: %s", subject.resource.plural, metadata["name"], stage.name, error.message)
                if subject.turn == turn:
                    self.put(subject, stage, obj, RETRY_S)
        finally:
            self.slots.release()

    async def _do(self, subject: Subject, turn: int, stage: Stage, obj: Object) -> None:
        for number, step in enumerate(stage.steps, 1):
            last = stage.immediate and number == len(stage.steps)
            if step.event:
                await self._event(subject, obj, step.event)
            elif step.finalizers:
                obj = await self._finalizers(subject, obj, step.finalizers)
            elif step.delete:
                await self._delete(subject, obj)
                return
            elif step.patch:
                obj = await self._patch(subject, obj, step.patch, brief=not last)
            elif step.apply:
                self._enter(subject, obj)
                await self._apply(step.apply, rendered(step.apply.template, obj), obj)
            elif step.status:
                status = self._status_of(subject, step.status, obj)
                if isinstance(status, Later):
                    if status.seconds < float("inf") and subject.turn == turn:
                        self.put(subject, stage, obj, status.seconds)
                    return
                if isinstance(status, Over):
                    await self._delete(subject, obj)
                    return
                body = {"metadata": {"uid": subject.uid}, "status": status}
                obj = await self._write(self._client, subject, obj, body, "strategic", "status", brief=not last)
        if stage.immediate and subject.turn == turn:
            self._changed(subject, obj)

    # -- what a step does --------------------------------------------------------------------------------------------

    async def _delete(self, subject: Subject, obj: Object) -> None:
        metadata, grace = obj["metadata"], 0 if subject.resource.plural == "pods" else None
        await self._client.delete(
            subject.resource,
            metadata["name"],
            metadata.get("namespace", ""),
            grace_period_s=grace,
            uid=subject.uid,
            brief=True,
        )

    async def _finalizers(self, subject: Subject, obj: Object, finalizers: Finalizers) -> Object:
        metadata = obj["metadata"]
        present = metadata.get("finalizers") or []
        after = finalizers.after(present)
        if after == present:
            return obj
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"], "finalizers": after or None}}
        return await self._write(self._client, subject, obj, body, "merge", "", brief=False)

    async def _patch(self, subject: Subject, obj: Object, patch: Patch, *, brief: bool) -> Object:
        self._enter(subject, obj)
        body = patch.body(obj)
        client = self._as(patch.user)
        return await self._write(client, subject, obj, body, patch.kind, patch.subresource, brief=brief)

    def _as(self, user: str) -> Client:
        if not user:
            return self._client
        if user not in self._users:
            self._users[user] = self._client.impersonating(user)
        return self._users[user]

    async def _write(
        self, client: Client, subject: Subject, obj: Object, body: Any, kind: Any, subresource: str, *, brief: bool
    ) -> Object:
        """The object after the patch; as it was, where a brief answer is enough."""
        metadata = obj["metadata"]
        made = await client.patch(
            subject.resource,
            metadata["name"],
            body,
            metadata.get("namespace", ""),
            kind=kind,
            subresource=subresource,
            brief=brief,
        )
        return made if made.get("metadata") else obj

    async def _apply(self, apply: Apply, made: Any, obj: Object) -> None:
        if not isinstance(made, dict) or not isinstance(made.get("metadata"), dict):
            raise StageError("apply: the template makes no object")
        found = await self.resource_of(made.get("apiVersion", ""), made.get("kind", ""))
        namespace = made["metadata"].get("namespace") or obj["metadata"].get("namespace") or "default"
        namespace = namespace if found.namespaced else ""
        client, name = self._as(apply.user), made["metadata"]["name"]
        if apply.kind == "apply":
            await client.patch(
                found.resource,
                name,
                made,
                namespace,
                kind="apply",
                subresource=apply.subresource,
                field_manager=_MANAGER,
                force=True,
                brief=True,
            )
            return
        try:
            await client.patch(
                found.resource,
                name,
                made,
                namespace,
                kind="merge" if apply.kind == "merge" else "strategic",
                subresource=apply.subresource,
                brief=True,
            )
        except ApiError as error:
            if error.reason != "NotFound" or apply.subresource:
                raise
            await client.create(found.resource, made, namespace, brief=True)

    async def resource_of(self, api_version: str, kind: str) -> ApiResource:
        """Raises StageError for one that is not served."""
        found = self._discovery.by_kind(api_version, kind)
        if found is None:
            self._discovery = await discover(self._client)
            found = self._discovery.by_kind(api_version, kind)
        if found is None:
            raise StageError(f'no matches for kind "{kind}" in version "{api_version}"')
        return found

    async def _event(self, subject: Subject, obj: Object, event: Event) -> None:
        self._enter(subject, obj)
        await self.event(obj, event.type, event.reason.render(obj), event.message.render(obj))

    async def _tell(self, obj: Object, message: str) -> None:
        """What cannot be done with an object is told where its owner looks."""
        try:
            await self.event(obj, "Warning", "FailedStage", message[:1024])
        except ApiError as error:
            log.warning("an event about %s: %s", obj["metadata"]["name"], error.message)

    async def event(self, obj: Object, kind: str, reason: str, message: str, *, field: str = "") -> None:
        """As the kubelet of the object's node tells it; `field` is the part that it is about."""
        metadata, now = obj["metadata"], rfc3339(self._clock.time())
        namespace = metadata.get("namespace") or "default"
        about: Object = {"apiVersion": obj.get("apiVersion", "v1"), "kind": obj.get("kind", "Pod")}
        about |= {"name": metadata["name"], "uid": metadata["uid"]}
        if "namespace" in metadata:
            about["namespace"] = namespace
        if field:
            about["fieldPath"] = field
        spec: Object = obj.get("spec") or {}
        host = metadata["name"] if about["kind"] == "Node" else spec.get("nodeName") or ""
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": metadata["name"] + ".", "namespace": namespace},
            "involvedObject": about,
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": "kubelet", "host": host},
            "reportingComponent": "kubelet",
            "reportingInstance": host,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        await self._client.create("v1/events", body, namespace, brief=True)

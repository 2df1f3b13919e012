"""Writing down why a Pod is not scheduled: its PodScheduled condition, and the node it is nominated to.

Writes are queued, one for each Pod: a newer one replaces an older one that has not been sent. A few are under way at a
time, so that a thousand hopeless Pods do not stand in the way of bindings.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NamedTuple

from fastkube.client import Client
from fastkube.clock import Clock, rfc3339
from fastkube.errors import ApiError
from fastkube.scheduler.pods import PodInfo

log = logging.getLogger(__name__)

Object = dict[str, Any]

WRITERS = 8

UNSCHEDULABLE, SCHEDULER_ERROR, GATED = "Unschedulable", "SchedulerError", "SchedulingGated"


class _Write(NamedTuple):
    pod: PodInfo
    status: Object


class StatusWriter:
    """Patches the status of Pods."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._writes: dict[str, _Write] = {}
        self._wake = asyncio.Semaphore(0)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._run(), name="pod conditions") for _ in range(WRITERS)]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def not_scheduled(self, pod: PodInfo, reason: str, message: str, nominated: str | None = None) -> None:
        """`nominated`: the node to set, "" to clear it, None to leave it as it is."""
        known = pod.pod.get("status") or {}
        status: Object = {}
        condition = self._condition(pod, known, reason, message)
        if condition is not None:
            status["conditions"] = [condition]
        if nominated is not None and nominated != (known.get("nominatedNodeName") or ""):
            status["nominatedNodeName"] = nominated or None
        if status:
            self._put(pod, status)

    def _put(self, pod: PodInfo, status: Object) -> None:
        pending = self._writes.pop(pod.uid, None)
        if pending is not None:
            status = {**pending.status, **status}
        else:
            self._wake.release()
        self._writes[pod.uid] = _Write(pod, status)

    def clear_nomination(self, pod: PodInfo) -> None:
        """The Pod is not nominated to a node any more."""
        self._put(pod, {"nominatedNodeName": None})

    def forget(self, uid: str) -> None:
        """The Pod is gone or scheduled: what has not been written is no longer true."""
        self._writes.pop(uid, None)

    def _condition(self, pod: PodInfo, known: Object, reason: str, message: str) -> Object | None:
        """The condition to write, None when it stands there already."""
        now = rfc3339(self._clock.time())
        old = next((each for each in known.get("conditions") or () if each.get("type") == "PodScheduled"), None)
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": reason,
            "message": message,
            "lastProbeTime": None,
            "lastTransitionTime": now,
        }
        generation = pod.pod["metadata"].get("generation")
        if generation:
            condition["observedGeneration"] = generation
        if old is None:
            return condition
        if old.get("status") == "False":
            condition["lastTransitionTime"] = old.get("lastTransitionTime") or now
        same = ("status", "reason", "message", "observedGeneration")
        return None if all(old.get(name) == condition.get(name) for name in same) else condition

    async def _run(self) -> None:
        while True:
            await self._wake.acquire()
            if not self._writes:
                continue  # what this turn was for has been forgotten
            uid = next(iter(self._writes))
            pod, status = self._writes.pop(uid)
            body = {"metadata": {"uid": pod.uid}, "status": status}
            try:
                await self._client.patch(
                    "v1/pods", pod.name, body, pod.namespace, kind="strategic", subresource="status", brief=True
                )
            except ApiError as error:
                if error.code not in (404, 409):
                    log.warning("the status of pod %s could not be written: %s", pod.key, error.message)

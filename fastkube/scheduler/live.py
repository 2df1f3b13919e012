"""What plugins can do in a running scheduler: record events, reject Pods that wait, try Pods again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fastkube.client import Client, Informer
from fastkube.clock import Clock
from fastkube.scheduler.cache import Cache
from fastkube.scheduler.framework import Handle
from fastkube.scheduler.pods import PodInfo

if TYPE_CHECKING:
    from fastkube.scheduler.scheduler import Scheduler


class LiveHandle(Handle):
    """What plugins can do in a running scheduler."""

    def __init__(
        self, scheduler: Scheduler, cache: Cache, clock: Clock, lister: Callable[[str], Informer], client: Client
    ) -> None:
        super().__init__(cache, clock, lister, client)
        self._scheduler = scheduler

    def event(
        self, pod: PodInfo, type: str, reason: str, action: str, note: str, *, related: PodInfo | None = None
    ) -> None:
        name = (related or pod).spec.scheduler_name
        recorder = self._scheduler.recorders.get(name) or next(iter(self._scheduler.recorders.values()))
        recorder.event(pod.pod, type, reason, action, note, related=related.pod if related else None)

    def clear_nomination(self, pod: PodInfo) -> None:
        self._scheduler.status.clear_nomination(pod)

    def reject_waiting(self, uid: str, plugin: str, message: str) -> bool:
        waiting = self._scheduler.binder.waiting.get(uid)
        if waiting is not None:
            waiting.reject(plugin, message)
            return True
        return self._scheduler.binder.cancel(uid, f"{message} by {plugin}")

    def allow_waiting(self, uid: str, plugin: str) -> None:
        waiting = self._scheduler.binder.waiting.get(uid)
        if waiting is not None:
            waiting.allow(plugin)

    def activate(self, uid: str) -> None:
        self._scheduler.queue.activate((uid,))


NOTE_LENGTH_MAX = 1024


def event_note(message: str) -> str:
    """As much as fits into an event."""
    data = message.encode()
    if len(data) <= NOTE_LENGTH_MAX:
        return message
    return data[: NOTE_LENGTH_MAX - 4].decode("utf-8", "ignore") + " ..."

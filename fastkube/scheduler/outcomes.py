"""How attempts end: bound, refused or broken; what is counted, told and queued then."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from fastkube.client.events import SeriesRecorder
from fastkube.clock import Clock
from fastkube.scheduler.binding import Binding, Refused
from fastkube.scheduler.cache import Cache
from fastkube.scheduler.events import ASSIGNED_POD, Action, ClusterEvent
from fastkube.scheduler.live import event_note
from fastkube.scheduler.metrics import ERROR, SCHEDULED, UNSCHEDULABLE, Metrics
from fastkube.scheduler.pods import PodInfo
from fastkube.scheduler.profile import Profile
from fastkube.scheduler.queue import QueuedPod, SchedulingQueue
from fastkube.scheduler.status import SCHEDULER_ERROR, StatusWriter
from fastkube.scheduler.status import UNSCHEDULABLE as REASON_UNSCHEDULABLE


class Outcomes:
    """`pending(pod)` gives the latest state of a Pod that still needs a node, or None."""

    def __init__(
        self,
        cache: Cache,
        queue: SchedulingQueue,
        clock: Clock,
        metrics: Metrics,
        status: StatusWriter,
        recorders: Mapping[str, SeriesRecorder],
        pending: Callable[[PodInfo], PodInfo | None],
    ) -> None:
        self._cache = cache
        self._queue = queue
        self._clock = clock
        self._metrics = metrics
        self._status = status
        self._recorders = recorders
        self._pending = pending

    def bound(self, binding: Binding) -> None:
        pod, queued, profile = binding.pod, binding.queued, binding.profile
        now = self._clock.monotonic()
        self._metrics.attempts.add(profile.name, SCHEDULED)
        self._metrics.attempt_duration.observe(now - binding.started, profile.name, SCHEDULED)
        self._metrics.pod_attempts.observe(queued.attempts)
        if queued.was_flushed:
            self._metrics.flushed.add()
        if queued.first_attempt is not None:
            attempts = "15+" if queued.attempts >= 15 else str(queued.attempts)
            self._metrics.sli_duration.observe(now - queued.first_attempt, attempts)
        self._status.forget(pod.uid)
        self._recorders[profile.name].event(
            pod.pod, "Normal", "Scheduled", "Binding", f"Successfully assigned {pod.key} to {binding.node.name}"
        )
        for plugin in profile.post_bind:
            plugin.post_bind(binding.cycle, binding.node)

    def binding_failed(self, binding: Binding, refused: Refused) -> None:
        pod, profile = binding.pod, binding.profile
        for plugin in reversed(profile.reserve):
            plugin.unreserve(binding.cycle, binding.node)
        if binding.nominated:
            self._status.clear_nomination(pod)
        forgotten = self._cache.forget(pod)
        if refused.plugin:
            message = f"0/1 nodes are available: 1 {refused.message}."
            self.unschedulable(binding.queued, profile, message, (refused.plugin,), binding.started)
        else:
            self.failed(binding.queued, profile, refused.message, binding.started)
        if forgotten:
            # for others it is as if a Pod had gone; it would not help this one, which is back in the queue for that
            self._queue.move_all(ClusterEvent(ASSIGNED_POD, Action.DELETE, pod, None), but=pod.uid)

    def unschedulable(
        self,
        queued: QueuedPod,
        profile: Profile,
        message: str,
        plugins: Iterable[str],
        started: float,
        *,
        pending: bool = False,
        nominated: str | None = "",
    ) -> None:
        """No node takes the Pod now. `nominated`: the node that it hopes for, None to leave that as it is."""
        self._count(profile, UNSCHEDULABLE, started)
        pod = self._pending(queued.pod)
        if pod is None:
            self._queue.done(queued.pod.uid)
            return
        queued.pod = pod
        self._queue.add_unschedulable(queued, plugins, pending=pending)
        if nominated:
            self._cache.nominate(pod, nominated)
        elif nominated is not None:
            self._cache.denominate(pod.uid)
        self._tell(profile, pod, REASON_UNSCHEDULABLE, message, nominated)

    def failed(self, queued: QueuedPod, profile: Profile, message: str, started: float) -> None:
        """An error kept the Pod from being bound."""
        self._count(profile, ERROR, started)
        pod = self._pending(queued.pod)
        if pod is None:
            self._queue.done(queued.pod.uid)
            return
        queued.pod = pod
        self._queue.add_failed(queued)
        self._cache.denominate(pod.uid)
        self._tell(profile, pod, SCHEDULER_ERROR, message, "")

    def _count(self, profile: Profile, result: str, started: float) -> None:
        self._metrics.attempts.add(profile.name, result)
        self._metrics.attempt_duration.observe(self._clock.monotonic() - started, profile.name, result)

    def _tell(self, profile: Profile, pod: PodInfo, reason: str, message: str, nominated: str | None) -> None:
        self._recorders[profile.name].event(pod.pod, "Warning", "FailedScheduling", "Scheduling", event_note(message))
        self._status.not_scheduled(pod, reason, message, nominated)

"""The scheduler: informers fill the cache and the queue, a loop places one Pod after another, bindings follow behind.

    informers ─→ Watcher ─→ cache, queue            (handlers on the event loop, never in the middle of a decision)
    loop: queue.pop → NodeSearch.place → assume → reserve → permit → Binder      (the scheduling cycle: no waiting)
    Binder ─→ POST pods/binding ─→ bound | failed → forget, back into the queue   (the binding cycle)

A decision is made in one turn of the event loop, so that it sees one state of the cluster; between decisions, at the
latest after DECISION_TURN_S, other tasks get their turn.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import uuid
from collections.abc import Callable, Iterable, Mapping

from fastkube.client import Client, Informer, InformerFactory
from fastkube.client.events import SeriesRecorder
from fastkube.clock import Clock
from fastkube.scheduler import config as configs
from fastkube.scheduler.binding import Binder, Binding, Refused
from fastkube.scheduler.cache import Cache
from fastkube.scheduler.config import SchedulerConfig
from fastkube.scheduler.events import ASSIGNED_POD, Action, ClusterEvent
from fastkube.scheduler.framework import Cycle, Handle, Reasons, Rejected
from fastkube.scheduler.metrics import ERROR, SCHEDULED, UNSCHEDULABLE, Metrics
from fastkube.scheduler.options import SchedulerOptions
from fastkube.scheduler.pods import PodInfo, PodTrimmer
from fastkube.scheduler.profile import PluginClass, Profile, known_plugins
from fastkube.scheduler.queue import QueuedPod, SchedulingQueue
from fastkube.scheduler.search import FitError, NoNodesError, Placement
from fastkube.scheduler.status import SCHEDULER_ERROR, StatusWriter
from fastkube.scheduler.status import UNSCHEDULABLE as REASON_UNSCHEDULABLE
from fastkube.scheduler.watcher import PODS, Watcher

log = logging.getLogger(__name__)

DECISION_TURN_S = 0.004
FLUSH_S = 1.0
UNDER_WAY_MAX = 4096
"""So many bindings may wait for the API server; then deciding pauses, for what is decided early is decided worse."""
SYNC_TIMEOUT_S = 60.0


class Scheduler:
    """All profiles over one cache and one queue. `ready` is set once the informers have synced."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        options: SchedulerOptions,
        *,
        config: SchedulerConfig | None = None,
        plugins: Mapping[str, PluginClass] | None = None,
    ) -> None:
        """`config` stands for the file that the options name; `plugins` for those that are installed.

        Raises ConfigError.
        """
        if config is None:
            config = configs.load(options.config) if options.config else SchedulerConfig()
        self.client = client
        self.ready = asyncio.Event()
        self._clock = clock
        self._options = options
        self.cache = Cache(options.scheduler_seed or random.getrandbits(48))
        self.informers = InformerFactory(client, transforms={PODS: PodTrimmer()})
        self.handle = _LiveHandle(self, self.cache, clock, self._lister, client)
        self._turn = [0]
        self._workloads = 0
        known = plugins or known_plugins()
        reasons = Reasons()
        self.profiles = {
            each.scheduler_name: Profile(
                each,
                self.handle,
                known,
                reasons=reasons,
                percentage=config.percentage,
                turn=self._turn,
                workloads=lambda: self._workloads,
            )
            for each in config.profiles
        }
        self.metrics = self.handle.metrics = Metrics(lambda: self.queue.counts(), self._cached)
        self.queue = SchedulingQueue(
            self.profiles,
            clock,
            initial_backoff_s=config.initial_backoff_s,
            max_backoff_s=config.max_backoff_s,
            max_unschedulable_s=options.pod_max_in_unschedulable_pods_duration_s,
            moved=self.metrics.incoming.add,
        )
        self.status = StatusWriter(client, clock)
        self.binder = Binder(client, clock, options.bindings_in_flight, bound=self._bound, failed=self._binding_failed)
        self.watcher = Watcher(self.cache, self.queue, self.profiles, self.informers, self.binder, self.status)
        host = f"{socket.gethostname()}_{uuid.uuid4()}"
        self.recorders = {name: SeriesRecorder(client, name, f"{name}-{host}", clock) for name in self.profiles}
        self._task: asyncio.Task[None] | None = None

    def _lister(self, resource: str) -> Informer:
        return self.informers.informer(resource)

    def _cached(self) -> dict[str, float]:
        cache = self.cache
        return {"nodes": cache.nodes.live, "pods": len(cache.pods), "assumed_pods": len(cache.assumed)}

    def workloads_changed(self) -> None:
        """Services or owners of Pods came or went: default spreading has other selectors."""
        self._workloads += 1

    # -- life ----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns when the cache is filled; scheduling has begun then."""
        self._task = asyncio.get_running_loop().create_task(self.run(), name="scheduler")
        ready = asyncio.ensure_future(self.ready.wait())
        await asyncio.wait((ready, self._task), return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._task.done():
            await self._task

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Schedule until cancelled, or until `stop` is set."""
        self.watcher.watch(self.workloads_changed)
        self.informers.start()
        try:
            await self.informers.wait_synced(SYNC_TIMEOUT_S)
            self.binder.start()
            self.status.start()
            for recorder in self.recorders.values():
                recorder.start()
            self.ready.set()
            await self._run_until(stop)
        finally:
            self.ready.clear()
            await self.binder.stop()
            await self.status.stop()
            for recorder in self.recorders.values():
                await recorder.stop()
            await self.informers.stop()

    async def _run_until(self, stop: asyncio.Event | None) -> None:
        works = [asyncio.ensure_future(self._loop()), asyncio.ensure_future(self._keep_time())]
        if stop is not None:
            works.append(asyncio.ensure_future(stop.wait()))  # type: ignore[arg-type]
        try:
            done, _ = await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in works:
                task.cancel()
            await asyncio.gather(*works, return_exceptions=True)

    async def _keep_time(self) -> None:
        """Back-offs and long waits end."""
        while True:
            await self._clock.sleep(FLUSH_S)
            self.queue.flush()

    async def _loop(self) -> None:
        while True:
            if not self.queue.ready():
                await self.queue.changed()
                continue
            if self.binder.under_way >= UNDER_WAY_MAX:
                await asyncio.sleep(DECISION_TURN_S)
                continue
            self.schedule_for(DECISION_TURN_S)
            await asyncio.sleep(0)

    # -- the scheduling cycle ------------------------------------------------------------------------------------------

    def schedule_for(self, seconds: float) -> int:
        """Place Pods for about that long; says how many were tried."""
        end = self._clock.monotonic() + seconds
        tried = 0
        while (queued := self.queue.pop_nowait()) is not None:
            self.schedule_one(queued)
            tried += 1
            if self._clock.monotonic() >= end or self.binder.under_way >= UNDER_WAY_MAX:
                break
        return tried

    def schedule_one(self, queued: QueuedPod) -> None:
        """One attempt to place a Pod."""
        pod = queued.pod
        profile = self.profiles[pod.spec.scheduler_name]
        if pod.terminating:
            self.recorders[profile.name].event(
                pod.pod,
                "Warning",
                "FailedScheduling",
                "Scheduling",
                f"skip schedule deleting pod: {pod.key}",
            )
            self.queue.done(pod.uid)
            return
        started = self._clock.monotonic()
        cycle = Cycle(pod)
        try:
            placement = profile.search.place(cycle)
        except FitError as error:
            self._no_fit(queued, cycle, profile, error, started)
        except NoNodesError as error:
            self._unschedulable(queued, profile, str(error), (), started)
        except Exception:
            log.exception("deciding for pod %s broke", pod.key)
            self._failed(queued, profile, "internal error while scheduling", started)
        else:
            self.metrics.algorithm_duration.observe(self._clock.monotonic() - started)
            self._assume(queued, cycle, profile, placement, started)

    def _no_fit(self, queued: QueuedPod, cycle: Cycle, profile: Profile, error: FitError, started: float) -> None:
        """No node takes the Pod as things are: plugins may make room."""
        node: str | None = None
        pending = error.pending
        messages = []
        for plugin in profile.post_filter:
            try:
                told = plugin.post_filter(cycle, error, profile.search)
            except Exception:
                log.exception("post-filter plugin %s broke for pod %s", plugin.name, cycle.pod.key)
                continue
            if told.message:
                messages.append(told.message)
            node = told.node if told.node is not None else node
            pending = pending or told.pending
            if told.node or told.pending:
                messages.clear()
                break
        error.post_filter_message = ", ".join(messages)
        self.metrics.algorithm_duration.observe(self._clock.monotonic() - started)
        self._unschedulable(queued, profile, str(error), error.plugins, started, pending=pending, nominated=node)

    def _assume(self, queued: QueuedPod, cycle: Cycle, profile: Profile, placement: Placement, started: float) -> None:
        pod, node = cycle.pod, placement.node
        self.cache.assume(pod, node.name)
        permits: dict[str, float] = {}
        try:
            for plugin in profile.reserve:
                plugin.reserve(cycle, node)
            for plugin in profile.permit:
                seconds = plugin.permit(cycle, node)
                if seconds > 0:
                    permits[plugin.name] = seconds
        except Rejected as rejected:
            self._take_back(cycle, profile, placement)
            message = f"0/1 nodes are available: 1 {rejected.message}."
            self._unschedulable(queued, profile, message, (plugin.name,), started)
            return
        self.queue.done(pod.uid)
        self.binder.put(Binding(queued, cycle, profile, node, started, permits))

    def _take_back(self, cycle: Cycle, profile: Profile, placement: Placement) -> None:
        for plugin in reversed(profile.reserve):
            plugin.unreserve(cycle, placement.node)
        self.cache.forget(cycle.pod)

    # -- how attempts end ----------------------------------------------------------------------------------------------

    def _bound(self, binding: Binding) -> None:
        pod, queued, profile = binding.pod, binding.queued, binding.profile
        now = self._clock.monotonic()
        self.metrics.attempts.add(profile.name, SCHEDULED)
        self.metrics.attempt_duration.observe(now - binding.started, profile.name, SCHEDULED)
        self.metrics.pod_attempts.observe(queued.attempts)
        if queued.first_attempt is not None:
            attempts = "15+" if queued.attempts >= 15 else str(queued.attempts)
            self.metrics.sli_duration.observe(now - queued.first_attempt, attempts)
        self.status.forget(pod.uid)
        self.recorders[profile.name].event(
            pod.pod, "Normal", "Scheduled", "Binding", f"Successfully assigned {pod.key} to {binding.node.name}"
        )
        for plugin in profile.post_bind:
            plugin.post_bind(binding.cycle, binding.node)

    def _binding_failed(self, binding: Binding, refused: Refused) -> None:
        pod, profile = binding.pod, binding.profile
        for plugin in reversed(profile.reserve):
            plugin.unreserve(binding.cycle, binding.node)
        if self.cache.forget(pod):
            # for others it is as if a Pod had gone; it would not help this one
            self.queue.move_all(ClusterEvent(ASSIGNED_POD, Action.DELETE, pod, None), but=pod.uid)
        if refused.plugin:
            message = f"0/1 nodes are available: 1 {refused.message}."
            self._unschedulable(binding.queued, profile, message, (refused.plugin,), binding.started)
        else:
            self._failed(binding.queued, profile, refused.message, binding.started)

    def _unschedulable(
        self,
        queued: QueuedPod,
        profile: Profile,
        message: str,
        plugins: Iterable[str],
        started: float,
        *,
        pending: bool = False,
        nominated: str | None = None,
    ) -> None:
        """No node takes the Pod now."""
        self._count(profile, UNSCHEDULABLE, started)
        pod = self.watcher.pending(queued.pod)
        if pod is None:
            self.queue.done(queued.pod.uid)
            return
        queued.pod = pod
        self.queue.add_unschedulable(queued, plugins, pending=pending)
        if nominated:
            self.cache.nominate(pod, nominated)
        elif nominated is not None:
            self.cache.denominate(pod.uid)
        self._tell(profile, pod, REASON_UNSCHEDULABLE, message, nominated)

    def _failed(self, queued: QueuedPod, profile: Profile, message: str, started: float) -> None:
        """An error kept the Pod from being bound."""
        self._count(profile, ERROR, started)
        pod = self.watcher.pending(queued.pod)
        if pod is None:
            self.queue.done(queued.pod.uid)
            return
        queued.pod = pod
        self.queue.add_failed(queued)
        self._tell(profile, pod, SCHEDULER_ERROR, message, None)

    def _count(self, profile: Profile, result: str, started: float) -> None:
        self.metrics.attempts.add(profile.name, result)
        self.metrics.attempt_duration.observe(self._clock.monotonic() - started, profile.name, result)

    def _tell(self, profile: Profile, pod: PodInfo, reason: str, message: str, nominated: str | None) -> None:
        self.recorders[profile.name].event(pod.pod, "Warning", "FailedScheduling", "Scheduling", _note(message))
        self.status.not_scheduled(pod, reason, message, nominated)


class _LiveHandle(Handle):
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
        return waiting is not None

    def allow_waiting(self, uid: str, plugin: str) -> None:
        waiting = self._scheduler.binder.waiting.get(uid)
        if waiting is not None:
            waiting.allow(plugin)

    def activate(self, uid: str) -> None:
        self._scheduler.queue.activate((uid,))


NOTE_LENGTH_MAX = 1024


def _note(message: str) -> str:
    """As much as fits into an event."""
    data = message.encode()
    if len(data) <= NOTE_LENGTH_MAX:
        return message
    return data[: NOTE_LENGTH_MAX - 4].decode("utf-8", "ignore") + " ..."

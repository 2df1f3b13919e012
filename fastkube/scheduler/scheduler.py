"""The scheduler: informers fill the cache and the queue, a loop places one Pod after another, bindings follow behind.

    informers ─→ Watcher ─→ cache, queue            (handlers on the event loop, never in the middle of a decision)
    loop: queue.pop → NodeSearch.place → assume → reserve → permit → Binder      (the scheduling cycle: no waiting)
    Binder ─→ POST pods/binding ─→ bound | failed → forget, back into the queue   (the binding cycle)

A decision is made in one turn of the event loop, so that it sees one state of the cluster; between decisions, at the
latest after DECISION_TURN_S, other tasks get their turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
from collections.abc import AsyncIterator, Mapping

from fastkube.api import gates
from fastkube.client import Client, Feeds, Informer, InformerFactory
from fastkube.client.events import SeriesRecorder
from fastkube.client.kept import keep_pod
from fastkube.client.leader import LeaderElector
from fastkube.clock import Clock
from fastkube.errors import ApiError
from fastkube.scheduler import config as configs
from fastkube.scheduler.binding import Binder, Binding
from fastkube.scheduler.cache import Cache
from fastkube.scheduler.config import SchedulerConfig
from fastkube.scheduler.extended import ExtendedSearch
from fastkube.scheduler.extenders import ExtenderError, Extenders
from fastkube.scheduler.framework import Cycle, Nomination, PluginError, Reasons, Rejected
from fastkube.scheduler.groupcycle import GroupCycle
from fastkube.scheduler.live import LiveHandle
from fastkube.scheduler.metrics import SUCCESS, Gauges, Metrics
from fastkube.scheduler.options import SchedulerOptions, election_options
from fastkube.scheduler.outcomes import Outcomes
from fastkube.scheduler.profile import PluginClass, Profile, known_plugins
from fastkube.scheduler.queue import WINDOW_S, QueuedPod, SchedulingQueue
from fastkube.scheduler.search import FitError, NoNodesError, Placement
from fastkube.scheduler.serving import Endpoint
from fastkube.scheduler.status import StatusWriter
from fastkube.scheduler.watcher import PODS, Watcher

log = logging.getLogger(__name__)

DECISION_TURN_S = 0.004
UNDER_WAY_MAX = 4096
"""So many bindings may wait for the API server; then deciding pauses, for what is decided early is decided worse."""
SYNC_TIMEOUT_S = 60.0
OPTIONAL = {"resource.k8s.io/v1": ("resourceclaims", "resourceslices", "deviceclasses")}
"""Group and version → resources that the scheduler can do without."""
WORKLOADS = {"scheduling.k8s.io/v1alpha2": ("podgroups",)}
"""And those of a feature gate."""


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
        feeds: Feeds | None = None,
    ) -> None:
        """`config` stands for the file that the options name; `plugins` for those that are installed; `feeds` are
        those of the process.

        Raises ConfigError.
        """
        if config is None:
            config = configs.load(options.config) if options.config else SchedulerConfig()
        self._gates = gates.parse(options.feature_gates)
        config = configs.with_gates(config, self._gates)
        self.client = client
        self.ready = asyncio.Event()
        self._clock = clock
        self._options = options
        self.cache = Cache(options.scheduler_seed or random.getrandbits(48))
        self.informers = InformerFactory(client, transforms={PODS: keep_pod}, feeds=feeds)
        self.handle = LiveHandle(self, self.cache, clock, self._lister, client)
        self.handle.gates = self._gates
        self._turn = [0]
        self._asking: QueuedPod | None = None
        self._workloads = 0
        self.metrics = self.handle.metrics = Metrics(
            Gauges(
                pending=lambda: {(name,): count for name, count in self.queue.counts().items()},
                cached=self._cached,
                unschedulable=lambda: self.queue.refused(),
                in_flight=lambda: self.queue.remembered(),
                at_work=lambda: {("binding",): self.binder.under_way},
            )
        )
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
        self.queue = SchedulingQueue(
            self.profiles,
            clock,
            initial_backoff_s=config.initial_backoff_s,
            max_backoff_s=config.max_backoff_s,
            max_unschedulable_s=options.pod_max_in_unschedulable_pods_duration_s,
            moved=self.metrics.incoming.add,
            weighed=self.metrics.events.observe,
        )
        self.status = StatusWriter(client, clock)
        self.extenders = Extenders(config.extenders)
        self._extended = ExtendedSearch(self.extenders)
        self.binder = Binder(
            client,
            clock,
            options.bindings_in_flight,
            extenders=self.extenders,
            metrics=self.metrics,
            permitted=lambda binding: self.queue.done(binding.pod.uid),
            bound=lambda binding: self.outcomes.bound(binding),
            failed=lambda binding, refused: self.outcomes.binding_failed(binding, refused),
        )
        self.watcher = Watcher(self.cache, self.queue, self.profiles, self.informers, self.binder, self.status)
        self.identity = f"{socket.gethostname()}_{os.urandom(8).hex()}"
        self.recorders = {
            name: SeriesRecorder(client, name, f"{name}-{self.identity}", clock) for name in self.profiles
        }
        self.outcomes = Outcomes(
            self.cache, self.queue, clock, self.metrics, self.status, self.recorders, self.watcher.pending
        )
        self._groups = GroupCycle(self)
        self.election = election_options(options, config.leader_election)
        self._task: asyncio.Task[None] | None = None

    def _lister(self, resource: str) -> Informer:
        return self.informers.informer(resource)

    def _cached(self) -> dict[tuple[str, ...], float]:
        cache = self.cache
        return {("nodes",): cache.nodes.live, ("pods",): len(cache.pods), ("assumed_pods",): len(cache.assumed)}

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
        """Schedule until cancelled, until `stop` is set, or until leadership is lost."""
        async with self._serving():
            if not self.election.leader_elect:
                await self._lead(stop)
                return
            elector = LeaderElector(self.client, self.identity, self.election, self._clock)
            elector.on_standby = self.ready.set
            await elector.run(lambda: self._lead(stop))

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        """With an endpoint for metrics and health, where one is asked for."""
        if not self._options.scheduler_metrics_address:
            yield
            return
        endpoint = Endpoint(self._options.scheduler_metrics_address, self.metrics.text, self.ready.is_set)
        await endpoint.start()
        try:
            yield
        finally:
            await endpoint.stop()

    async def _lead(self, stop: asyncio.Event | None) -> None:
        self.watcher.watch(self.workloads_changed, groups=gates.GENERIC_WORKLOAD in self._gates)
        await self._pass_over_unserved()
        self.informers.start()
        try:
            await self.informers.wait_synced(SYNC_TIMEOUT_S)
            self.status.start()
            for recorder in self.recorders.values():
                recorder.start()
            self.ready.set()
            await self._run_until(stop)
        finally:
            self.ready.clear()
            await self.binder.stop()
            await self.status.stop()
            await self._groups.stop()
            for recorder in self.recorders.values():
                await recorder.stop()
            await self.extenders.close()
            await self.informers.stop()

    async def _pass_over_unserved(self) -> None:
        """An older API server has no ResourceClaims: nothing is waited for that cannot come."""
        optional = {**OPTIONAL, **(WORKLOADS if gates.GENERIC_WORKLOAD in self._gates else {})}
        for group, resources in optional.items():
            try:
                await self.client.get_path(f"/apis/{group}")
            except ApiError as error:
                if error.code != 404:
                    raise
                log.warning("the API server does not serve %s: Pods cannot have its resources", group)
                for resource in resources:
                    await self.informers.forget(f"{group}/{resource}")

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
            await self._clock.sleep(WINDOW_S - self._clock.monotonic() % WINDOW_S)
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
            if self._asking is not None:
                queued, self._asking = self._asking, None
                await self._schedule_extended(queued)
            await asyncio.sleep(0)

    # -- the scheduling cycle ------------------------------------------------------------------------------------------

    def schedule_for(self, seconds: float) -> int:
        """Place Pods for about that long; says how many were tried."""
        end = self._clock.monotonic() + seconds
        tried = 0
        while (queued := self.queue.pop_nowait()) is not None:
            if self.extenders.about(queued.pod) and not self._is_grouped(queued):
                self._asking = queued  # an answer must be waited for, which only the loop can do
                break
            if self._is_grouped(queued):
                self._schedule_group(queued)
            else:
                self.schedule_one(queued)
            tried += 1
            if self._clock.monotonic() >= end or self.binder.under_way >= UNDER_WAY_MAX:
                break
        return tried

    def _is_grouped(self, queued: QueuedPod) -> bool:
        return queued.pod.group is not None and gates.GENERIC_WORKLOAD in self._gates

    def _schedule_group(self, queued: QueuedPod) -> None:
        """One attempt to place the PodGroup of a Pod."""
        group, condition = queued.pod.group, self._groups.schedule(queued)
        if group is not None and condition is not None:
            self._groups.tell(group, condition)

    def schedule_one(self, queued: QueuedPod) -> None:
        """One attempt to place a Pod about which no extender has to be asked."""
        profile = self.profiles[queued.pod.spec.scheduler_name]
        if self.skip(queued, profile):
            return
        started = self._clock.monotonic()
        cycle = Cycle(queued.pod, sampled=profile.timing.sample())
        try:
            placement = profile.search.place(cycle)
        except FitError as error:
            asked = self._clock.monotonic()
            told = self.make_room(cycle, profile, error)
            profile.timing.point("PostFilter", asked, SUCCESS if told.node else "Unschedulable")
            self._no_fit(queued, profile, error, told, started)
        except NoNodesError as error:
            self.outcomes.unschedulable(queued, profile, str(error), (), started)
        except PluginError as error:
            self.outcomes.failed(queued, profile, str(error), started)
        except Exception:
            log.exception("deciding for pod %s broke", queued.pod.key)
            self.outcomes.failed(queued, profile, "internal error while scheduling", started)
        else:
            self.metrics.algorithm_duration.observe(self._clock.monotonic() - started)
            self.assume(queued, cycle, profile, placement, started)

    async def _schedule_extended(self, queued: QueuedPod) -> None:
        """One attempt to place a Pod, with extenders. Meanwhile the cluster may change, but no other Pod is placed."""
        profile = self.profiles[queued.pod.spec.scheduler_name]
        if self.skip(queued, profile):
            return
        started = self._clock.monotonic()
        cycle = Cycle(queued.pod, sampled=profile.timing.sample())
        try:
            try:
                placement = await self._extended.place(cycle, profile.search)
            except FitError as error:
                told = await self._make_room_extended(cycle, profile, error)
                self._no_fit(queued, profile, error, told, started)
                return
        except NoNodesError as error:
            self.outcomes.unschedulable(queued, profile, str(error), (), started)
        except (ExtenderError, PluginError) as error:
            self.outcomes.failed(queued, profile, str(error), started)
        except Exception:
            log.exception("deciding for pod %s broke", queued.pod.key)
            self.outcomes.failed(queued, profile, "internal error while scheduling", started)
        else:
            self.metrics.algorithm_duration.observe(self._clock.monotonic() - started)
            if self.watcher.pending(queued.pod) is None:
                self.queue.done(queued.pod.uid)
            else:
                self.assume(queued, cycle, profile, placement, started)

    def skip(self, queued: QueuedPod, profile: Profile) -> bool:
        """Whether a Pod is on its way out and not to be tried."""
        pod = queued.pod
        if pod.terminating:
            note = f"skip schedule deleting pod: {pod.key}"
            self.recorders[profile.name].event(pod.pod, "Warning", "FailedScheduling", "Scheduling", note)
            self.queue.done(pod.uid)
        return pod.terminating

    def make_room(self, cycle: Cycle, profile: Profile, error: FitError) -> Nomination:
        """What the post-filter plugins come to: the first to find a node, or all that they have to say."""
        found, call = _PostFilter(), profile.timing.call
        for plugin in profile.post_filter:
            try:
                told = call(cycle.sampled, "PostFilter", plugin.name, plugin.post_filter, cycle, error, profile.search)
                if found.add(told):
                    break
            except Exception:
                log.exception("post-filter plugin %s broke for pod %s", plugin.name, cycle.pod.key)
        return found.told()

    async def _make_room_extended(self, cycle: Cycle, profile: Profile, error: FitError) -> Nomination:
        """The same with extenders, which may object to victims."""
        found = _PostFilter()
        for plugin in profile.post_filter:
            try:
                if found.add(await plugin.post_filter_with(cycle, error, profile.search, self.extenders)):
                    break
            except ExtenderError as failure:
                found.add(Nomination(None, str(failure), failed=True))
                break
            except Exception:
                log.exception("post-filter plugin %s broke for pod %s", plugin.name, cycle.pod.key)
        return found.told()

    def _no_fit(self, queued: QueuedPod, profile: Profile, error: FitError, told: Nomination, started: float) -> None:
        """No node takes the Pod as things are."""
        error.post_filter_message = told.message
        pending = error.pending or told.pending
        self.metrics.algorithm_duration.observe(self._clock.monotonic() - started)
        self.outcomes.unschedulable(
            queued, profile, str(error), error.plugins, started, pending=pending, nominated=told.node
        )

    def assume(self, queued: QueuedPod, cycle: Cycle, profile: Profile, placement: Placement, started: float) -> None:
        pod, node = cycle.pod, placement.node
        self.cache.assume(pod, node.name)
        permits: dict[str, float] = {}
        timing = profile.timing
        try:
            begun = timing.now()
            for plugin in profile.reserve:
                timing.call(cycle.sampled, "Reserve", plugin.name, plugin.reserve, cycle, node)
            begun = timing.point("Reserve", begun)
            for plugin in profile.permit:
                seconds = timing.call(cycle.sampled, "Permit", plugin.name, plugin.permit, cycle, node)
                if seconds > 0:
                    permits[plugin.name] = seconds
            timing.point("Permit", begun, "Wait" if permits else SUCCESS)
        except Rejected as rejected:
            self._take_back(cycle, profile, placement)
            message = f"0/1 nodes are available: 1 {rejected.message}."
            self.outcomes.unschedulable(queued, profile, message, (plugin.name,), started)
            return
        if not permits:  # events count as long as the Pod can be refused
            self.queue.done(pod.uid)
        self.binder.put(Binding(queued, cycle, profile, node, started, permits))

    def _take_back(self, cycle: Cycle, profile: Profile, placement: Placement) -> None:
        for plugin in reversed(profile.reserve):
            plugin.unreserve(cycle, placement.node)
        self.cache.forget(cycle.pod)


class _PostFilter:
    """Collects what post-filter plugins say; a node or something set going makes the rest unneeded."""

    def __init__(self) -> None:
        self._node: str | None = None
        self._pending = False
        self._messages: list[str] = []

    def add(self, told: Nomination) -> bool:
        """True when no further plugin is to be asked."""
        if told.failed:
            self._node, self._messages = None, [told.message]
            return True
        if told.message:
            self._messages.append(told.message)
        self._node = told.node if told.node is not None else self._node
        self._pending = told.pending
        if told.node or told.pending:
            self._messages.clear()
            return True
        return False

    def told(self) -> Nomination:
        return Nomination(self._node, ", ".join(self._messages), self._pending)

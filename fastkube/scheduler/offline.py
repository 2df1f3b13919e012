"""A scheduler without an API server: the same cache, queue, profiles and decisions over objects that are handed in.

`fastkube scheduler simulate` and `explain` run on it. What a bound Pod would change in the cluster is assumed, nothing
is written, and nobody is preempted unless the caller asks for it.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from fastkube.client import make_key, object_key
from fastkube.clock import Clock, RealClock
from fastkube.scheduler.cache import Cache
from fastkube.scheduler.config import SchedulerConfig
from fastkube.scheduler.framework import Cycle, Handle, PluginError, Reasons
from fastkube.scheduler.pods import PodInfo
from fastkube.scheduler.profile import PluginClass, Profile, known_plugins
from fastkube.scheduler.queue import SchedulingQueue
from fastkube.scheduler.search import FitError, NoNodesError

Object = dict[str, Any]

_PLURALS = {
    "StorageClass": "storageclasses",
    "DeviceClass": "deviceclasses",
    "CSIStorageCapacity": "csistoragecapacities",
}


class ObjectLister:
    """Objects of one resource, read as an Informer is."""

    def __init__(self) -> None:
        self.revision = 0
        self._indexers: dict[str, Callable[[Object], Iterable[str]]] = {}
        self._objects: dict[str, Object] = {}
        self._handlers: list[tuple[Callable[[Object], None] | None, Callable[[Object, Object], None] | None]] = []

    def add(self, obj: Object) -> None:
        self.revision += 1
        old = self._objects.get(object_key(obj))
        self._objects[object_key(obj)] = obj
        for on_add, on_update in self._handlers:
            if old is None and on_add is not None:
                on_add(obj)
            elif old is not None and on_update is not None:
                on_update(old, obj)

    def add_handler(
        self,
        on_add: Callable[[Object], None] | None = None,
        on_update: Callable[[Object, Object], None] | None = None,
        on_delete: Callable[[Object], None] | None = None,
    ) -> None:
        """Objects come and change; none goes. Those that are there are told as added."""
        self._handlers.append((on_add, on_update))
        if on_add is not None:
            for obj in self.list():
                on_add(obj)

    def get(self, namespace: str, name: str) -> Object | None:
        return self._objects.get(make_key(namespace, name))

    def list(self) -> list[Object]:
        return list(self._objects.values())

    def add_indexer(self, name: str, indexer: Callable[[Object], Iterable[str]]) -> None:
        self._indexers[name] = indexer

    def by_index(self, name: str, key: str) -> builtins.list[Object]:
        indexer = self._indexers[name]
        return [obj for obj in self._objects.values() if key in indexer(obj)]


class Decision(NamedTuple):
    """What became of a Pod: `node` where it would run, or `message` why nowhere."""

    pod: PodInfo
    node: str
    message: str
    evaluated: int
    feasible: int
    victims: tuple[str, ...] = ()
    """Pods that had to leave, namespace/name."""


class _OfflineHandle(Handle):
    """Victims of preemption leave at once."""

    def __init__(self, cache: Cache, clock: Clock, lister: Callable[[str], Any]) -> None:
        super().__init__(cache, clock, lister)
        self.evicted: list[PodInfo] = []

    def evict(self, pods: Iterable[PodInfo]) -> None:
        for pod in pods:
            self.cache.remove_pod(pod.uid)
            self.evicted.append(pod)


class OfflineScheduler:
    """`objects` is a cluster: nodes, Pods, namespaces, Services, volumes, in any order."""

    def __init__(
        self,
        objects: Iterable[Object] = (),
        config: SchedulerConfig | None = None,
        *,
        seed: int = 1,
        clock: Clock | None = None,
        plugins: Mapping[str, PluginClass] | None = None,
    ) -> None:
        config = config or SchedulerConfig()
        self.cache = Cache(seed)
        self._listers: dict[str, ObjectLister] = {}
        handle = self._handle = _OfflineHandle(self.cache, clock or RealClock(), self.lister)
        self._workloads = 0
        known = plugins or known_plugins()
        reasons, turn = Reasons(), [0]
        self.profiles = {
            each.scheduler_name: Profile(
                each,
                handle,
                known,
                reasons=reasons,
                percentage=config.percentage,
                turn=turn,
                workloads=lambda: self._workloads,
            )
            for each in config.profiles
        }
        self.queue = SchedulingQueue(self.profiles, handle.clock)
        for obj in objects:
            self.add(obj)

    def lister(self, resource: str) -> ObjectLister:
        return self._listers.setdefault(resource, ObjectLister())

    def add(self, obj: Object) -> None:
        """Take an object in, as an informer's handler would. Pods without a node go into the queue."""
        kind = obj.get("kind", "")
        if kind == "Node":
            self.cache.set_node(obj)
        elif kind == "Namespace":
            self.cache.tallies.set_namespace(obj["metadata"]["name"], obj["metadata"].get("labels") or {})
        elif kind == "Pod":
            self._add_pod(obj)
        else:
            plural = _PLURALS.get(kind, kind.lower() + "s")
            self.lister(f"{obj.get('apiVersion', 'v1')}/{plural}").add(obj)
            self._workloads += 1

    def _add_pod(self, obj: Object) -> None:
        if (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return
        pod = self.cache.parse(obj)
        if pod.node:
            self.cache.set_pod(pod)
        elif pod.spec.scheduler_name in self.profiles:
            self.queue.add(pod)

    def decide(self, pod: PodInfo) -> Decision:
        """Where a Pod would go now. Changes nothing but the place where the next search starts."""
        try:
            placement = self.profiles[pod.spec.scheduler_name].search.place(Cycle(pod))
        except (FitError, NoNodesError, PluginError) as error:
            return Decision(pod, "", str(error), 0, 0)
        return Decision(pod, placement.node.name, "", placement.evaluated, placement.feasible)

    def run(self, *, preempt: bool = False) -> Iterator[Decision]:
        """Try every Pod of the queue once, in its order; those that fit are assumed to run.

        With `preempt` room is made for those that do not, where post-filter plugins find a way.
        """
        while (queued := self.queue.pop_nowait()) is not None:
            decision = self.decide(queued.pod)
            if preempt and not decision.node:
                decision = self._decide_with_victims(queued.pod, decision)
            if decision.node:
                self._take_place(queued.pod, decision)
            self.queue.done(queued.pod.uid)
            yield decision

    def _take_place(self, pod: PodInfo, decision: Decision) -> None:
        """The Pod runs on its node, and has there what plugins reserve for it."""
        self.cache.assume(pod, decision.node)
        profile = self.profiles[pod.spec.scheduler_name]
        if pod.volumes or pod.claims or pod.spec.devices:
            cycle = Cycle(pod)
            profile.search.prepare(cycle)
            for plugin in profile.reserve:
                plugin.reserve(cycle, self.cache.infos[decision.node])

    def _decide_with_victims(self, pod: PodInfo, refused: Decision) -> Decision:
        profile = self.profiles[pod.spec.scheduler_name]
        cycle = Cycle(pod)
        try:
            profile.search.place(cycle)
        except NoNodesError:
            return refused
        except FitError as error:
            self._handle.evicted.clear()
            for plugin in profile.post_filter:
                if plugin.post_filter(cycle, error, profile.search).node:
                    victims = tuple(each.key for each in self._handle.evicted)
                    return self.decide(pod)._replace(victims=victims)
        return refused

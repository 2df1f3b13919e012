"""NodeResourcesFit and NodeResourcesBalancedAllocation: what Pods request must fit, and how the rest is best used.

The arithmetic is fastkube._sched.Screen (fit) and ResourceScore (strategies); here is which resources count and how.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastkube import _sched
from fastkube.api import resources
from fastkube.scheduler.config_validation import aggregate, fit_faults
from fastkube.scheduler.dra.extended import IMPLICIT_PREFIX
from fastkube.scheduler.events import (
    ASSIGNED_POD,
    DEVICE_CLASS,
    NODE,
    UNSCHEDULED_POD,
    Action,
    ClusterEvent,
    Interest,
)
from fastkube.scheduler.framework import Cycle, Handle, Plugin, Reason, Refusal, ScreenDraft
from fastkube.scheduler.nodes import bits
from fastkube.scheduler.pods import PodInfo, PodSpec

_STRATEGIES = {
    "LeastAllocated": _sched.LEAST_ALLOCATED,
    "MostAllocated": _sched.MOST_ALLOCATED,
    "RequestedToCapacityRatio": _sched.REQUESTED_TO_CAPACITY_RATIO,
}
_DEFAULT_RESOURCES: tuple[Mapping[str, Any], ...] = (
    {"name": resources.CPU, "weight": 1},
    {"name": resources.MEMORY, "weight": 1},
)

Resources = tuple[tuple[str, int], ...]


def _resources(told: Iterable[Mapping[str, Any]] | None) -> Resources:
    return tuple((each["name"], int(each.get("weight") or 1)) for each in told or _DEFAULT_RESOURCES)


def _counted(spec: PodSpec, wanted: Resources, draft: ScreenDraft, *, nonzero: bool) -> list[tuple[int, int, int, int]]:
    """The columns of a ResourceScore. Scalar resources that the Pod does not request are left out."""
    told = []
    for name, weight in wanted:
        column = draft.cache.column(name)
        used, amount = column, spec.requests.get(name, 0)
        if nonzero and name == resources.CPU:
            used, amount = _sched.NONZERO_CPU, spec.nonzero[0]
        elif nonzero and name == resources.MEMORY:
            used, amount = _sched.NONZERO_MEMORY, spec.nonzero[1]
        if amount or not resources.is_scalar(name):
            told.append((used, column, amount, weight))
    return told


class NodeResourcesFit(Plugin):
    name = "NodeResourcesFit"
    about = "claims"
    interests = (
        Interest(ASSIGNED_POD, Action.DELETE | Action.UPDATE_POD_SCALE_DOWN),
        Interest(UNSCHEDULED_POD, Action.UPDATE_POD_SCALE_DOWN),
        Interest(NODE, Action.ADD | Action.UPDATE_NODE_ALLOCATABLE),
        Interest(DEVICE_CLASS, Action.ADD | Action.UPDATE),
    )

    def __init__(self, args: Mapping[str, Any], handle: Handle, weight: int = 1) -> None:
        super().__init__(args, handle, weight)
        self._classes = handle.extended_classes
        self._ignored = frozenset(args.get("ignoredResources") or ())
        self._ignored_groups = frozenset(args.get("ignoredResourceGroups") or ())
        faults = fit_faults(dict(args))
        if faults:
            raise ValueError(aggregate(faults))
        strategy = args.get("scoringStrategy") or {}
        self._strategy = _STRATEGIES[strategy.get("type") or "LeastAllocated"]
        self._resources = _resources(strategy.get("resources"))
        told = (strategy.get("requestedToCapacityRatio") or {}).get("shape") or ()
        # scores of the configuration are from 0 to 10
        self._shape = [(int(point["utilization"]), int(point["score"]) * 10) for point in told]

    def ignores(self, resource: str) -> bool:
        """Whether an extended resource is left for others (an extender) to check."""
        if not resources.is_extended(resource):
            return False
        return resource in self._ignored or resource.partition("/")[0] in self._ignored_groups

    def screen_filter(self, spec: PodSpec, draft: ScreenDraft) -> None:
        draft.check_fit = True
        draft.unchecked = frozenset(
            name for name in spec.requests if self.ignores(name) or self._classes.get(name) is not None
        )

    def refusals(self, cycle: Cycle) -> Iterable[Refusal]:
        """Nodes that offer a resource themselves, though a device class stands for it, and have too little of it."""
        spec, cache = cycle.pod.spec, self.handle.cache
        for name in spec.devices:
            if self._classes.get(name) is None or self.ignores(name):
                continue
            column, wanted = cache.column(name), spec.requests[name]
            short = never = 0
            for slot in bits(cache.index.all if cycle.only is None else cycle.only):
                info = cache.slots[slot]
                offered = info.allocatable.get(name, 0) if info is not None else 0
                if offered and wanted > offered - cache.nodes.requested_of(slot, column):
                    short |= 1 << slot
                    never |= (wanted > offered) << slot
            yield Refusal(never, Reason(self.name, f"Insufficient {name}", resolvable=False))
            yield Refusal(short & ~never, Reason(self.name, f"Insufficient {name}"))

    def screen_score(self, spec: PodSpec, draft: ScreenDraft) -> None:
        counted = _counted(spec, self._resources, draft, nonzero=True)
        draft.resources.append(_sched.ResourceScore(self.name, self._strategy, self.weight, counted, self._shape))

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        if event.resource == UNSCHEDULED_POD:
            return bool(event.new.uid == pod.uid)
        if event.resource == DEVICE_CLASS:
            return self._stands_for_more(pod.spec, event)
        if event.resource == ASSIGNED_POD:
            return event.new is None or self._shrank(pod.spec, event.old.spec.requests, event.new.spec.requests)
        now = resources.parse_list((event.new.get("status") or {}).get("allocatable"))
        if not self._could_fit(pod.spec, now):
            return False
        if event.old is None:
            return True
        before = resources.parse_list((event.old.get("status") or {}).get("allocatable"))
        if any(self._delegates(name, now) for name in pod.spec.devices):
            return True
        return self._shrank(pod.spec, now, before) or now.get(resources.PODS, 0) > before.get(resources.PODS, 0)

    @staticmethod
    def _shrank(spec: PodSpec, before: Mapping[str, int], after: Mapping[str, int]) -> bool:
        """Whether of anything that the Pod requests there is less in `after`."""
        return any(value and after.get(name, 0) < before.get(name, 0) for name, value in spec.requests.items())

    def _could_fit(self, spec: PodSpec, allocatable: Mapping[str, int]) -> bool:
        return allocatable.get(resources.PODS, 0) > 0 and all(
            value <= allocatable.get(name, 0) or self._delegates(name, allocatable)
            for name, value in spec.requests.items()
            if not self.ignores(name)
        )

    def _delegates(self, resource: str, allocatable: Mapping[str, int]) -> bool:
        """Whether a node leaves a resource to its devices."""
        return self._classes.get(resource) is not None and not allocatable.get(resource)

    @staticmethod
    def _stands_for_more(spec: PodSpec, event: ClusterEvent) -> bool:
        """Whether a DeviceClass stands for a resource of the Pod since now."""
        now = event.new["spec"].get("extendedResourceName") or ""
        if event.old is None and IMPLICIT_PREFIX + event.new["metadata"]["name"] in spec.devices:
            return True
        before = ((event.old or {}).get("spec") or {}).get("extendedResourceName") or ""
        return now != before and now in spec.devices


class NodeResourcesBalancedAllocation(Plugin):
    name = "NodeResourcesBalancedAllocation"

    def __init__(self, args: Mapping[str, Any], handle: Handle, weight: int = 1) -> None:
        super().__init__(args, handle, weight)
        self._resources = _resources(args.get("resources"))

    def screen_score(self, spec: PodSpec, draft: ScreenDraft) -> None:
        if not any(spec.requests.get(name) for name, _ in self._resources):
            return  # a Pod that requests nothing would be drawn to one and the same node
        counted = _counted(spec, self._resources, draft, nonzero=False)
        draft.resources.append(_sched.ResourceScore(self.name, _sched.BALANCED, self.weight, counted))

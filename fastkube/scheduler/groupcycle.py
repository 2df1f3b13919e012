"""The scheduling cycle of a PodGroup: all its waiting Pods are tried in one turn, and bound if enough of them fit.

As upstream (feature gate GenericWorkload): the Pods are tried one after the other, those before counting as placed; a
Pod that needs preemption counts as placed where the victims go. When the permit plugins let any of them through, the
group is placed: the Pods that fit are bound, the others wait. If not, or if victims have to go first, all go back into
the queue. The outcome is a condition of the PodGroup.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from fastkube.clock import rfc3339
from fastkube.errors import ApiError
from fastkube.scheduler.framework import Cycle, PluginError, Rejected
from fastkube.scheduler.metrics import ERROR, SCHEDULED, UNSCHEDULABLE
from fastkube.scheduler.podgroups import PODGROUPS
from fastkube.scheduler.pods import GroupId
from fastkube.scheduler.queue import QueuedPod
from fastkube.scheduler.search import FitError, NoNodesError, Placement

if TYPE_CHECKING:
    from fastkube.scheduler.profile import Profile
    from fastkube.scheduler.scheduler import Scheduler

log = logging.getLogger(__name__)

Object = dict[str, Any]

CONDITION = "PodGroupScheduled"
GROUP_UNSCHEDULABLE = "pod group is unschedulable"
NO_EXTENDERS = "extenders for the pods of a pod group are not supported"
WAITING_FOR_VICTIMS = "pod group is waiting for preemption to complete"
_WAITS = "one or more plugins asked to wait and no plugin rejected pod"


class Fate(NamedTuple):
    """What one Pod of the group came to: a placement, or why there is none."""

    queued: QueuedPod
    cycle: Cycle
    started: float
    placement: Placement | None = None
    victims_first: bool = False
    """The place is free once victims have gone."""
    permitted: bool = False
    wait: str = ""
    """What it waits for, when it is not permitted yet."""
    message: str = ""
    plugins: frozenset[str] = frozenset()
    nominated: str | None = None
    broken: bool = False
    """An error, and no answer."""


class GroupCycle:
    """Places PodGroups, with the parts of a scheduler."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._conditions: dict[GroupId, Object] = {}
        self._writing: asyncio.Task[None] | None = None

    def schedule(self, queued: QueuedPod) -> Object | None:
        """One attempt to place all waiting Pods of a Pod's group; gives the condition to write."""
        scheduler = self._scheduler
        assert queued.pod.group is not None
        members = self._members(queued)
        started = scheduler.handle.clock.monotonic()
        names = sorted({each.pod.spec.scheduler_name for each in members})
        if len(names) > 1:
            told = " and ".join(f'"{name}"' for name in names[:2])
            message = f"all pods in a single pod group should have the same .spec.schedulerName set, got: {told}"
            for each in members:
                profile = scheduler.profiles[each.pod.spec.scheduler_name]
                scheduler.outcomes.failed(each, profile, message, started)
            return None
        profile = scheduler.profiles[names[0]]
        members = [each for each in members if not scheduler.skip(each, profile)]
        if not members:
            return None
        if any(scheduler.extenders.about(each.pod) for each in members):
            for each in members:
                scheduler.outcomes.failed(each, profile, NO_EXTENDERS, started)
            return None
        fates = self._try_all(members, profile)
        scheduler.metrics.group_algorithm_duration.observe(scheduler.handle.clock.monotonic() - started)
        result, condition = self._conclude(fates, profile)
        scheduler.metrics.group_attempts.add(profile.name, result)
        took = scheduler.handle.clock.monotonic() - started
        scheduler.metrics.group_duration.observe(took, profile.name, result)
        return condition

    def _members(self, first: QueuedPod) -> list[QueuedPod]:
        """The Pods of the group that can be had, the most important and the oldest first."""
        queue, group = self._scheduler.queue, first.pod.group
        assert group is not None
        others = [each for each in self._scheduler.cache.groups.get(group).unplaced() if each.uid != first.pod.uid]
        found = (queue.take(each.uid) for each in others)
        members = [first, *(each for each in found if each is not None)]
        return sorted(members, key=lambda each: (-each.pod.priority, each.first_attempt or 0.0))

    def _try_all(self, members: list[QueuedPod], profile: Profile) -> list[Fate]:
        """All of them, or as far as the first that breaks. Nothing is changed in the end."""
        fates: list[Fate] = []
        for each in members:
            if fates and fates[-1].broken:  # nobody needs to know any more
                fates.append(fates[-1]._replace(queued=each, cycle=Cycle(each.pod), message=""))
            else:
                fates.append(self._try(each, profile))
        for fate in reversed(fates):
            if fate.placement is not None:
                self._take_back(fate, profile)
        return fates

    def _try(self, queued: QueuedPod, profile: Profile) -> Fate:
        scheduler = self._scheduler
        started = scheduler.handle.clock.monotonic()
        cycle = Cycle(queued.pod, sampled=profile.timing.sample())
        fate = Fate(queued, cycle, started)
        try:
            fate = fate._replace(placement=profile.search.place(cycle))
        except FitError as error:
            told = scheduler.make_room(cycle, profile, error)
            error.post_filter_message = told.message
            node = scheduler.cache.infos.get(told.node or "")
            if node is None:
                return fate._replace(message=str(error), plugins=frozenset(error.plugins), nominated=told.node)
            fate = fate._replace(
                placement=Placement(node, 1, 1),
                victims_first=True,
                message=str(error),
                plugins=frozenset(error.plugins),
                nominated=told.node,
            )
        except NoNodesError as error:
            return fate._replace(message=str(error))
        except PluginError as error:
            return fate._replace(message=str(error), broken=True)
        except Exception:
            log.exception("deciding for pod %s broke", queued.pod.key)
            return fate._replace(message="internal error while scheduling", broken=True)
        return self._reserve(fate, profile)

    def _reserve(self, fate: Fate, profile: Profile) -> Fate:
        """Let the Pod count as placed, and ask whether it may be bound."""
        assert fate.placement is not None
        node = fate.placement.node
        self._scheduler.cache.assume(fate.cycle.pod, node.name)
        waits: list[str] = []
        try:
            for plugin in profile.reserve:
                plugin.reserve(fate.cycle, node)
            waits = [plugin.name for plugin in profile.permit if plugin.permit(fate.cycle, node) > 0]
        except Rejected as rejected:
            self._take_back(fate, profile)
            message = f"0/1 nodes are available: 1 {rejected.message}."
            return fate._replace(
                placement=None, victims_first=False, message=message, plugins=frozenset((plugin.name,))
            )
        reason = profile.plugins[waits[0]].wait_reason if waits else ""
        return fate._replace(permitted=not waits, wait=f"{reason}, {_WAITS}" if reason else _WAITS)

    def _take_back(self, fate: Fate, profile: Profile) -> None:
        assert fate.placement is not None
        for plugin in reversed(profile.reserve):
            plugin.unreserve(fate.cycle, fate.placement.node)
        self._scheduler.cache.forget(fate.cycle.pod)

    def _conclude(self, fates: list[Fate], profile: Profile) -> tuple[str, Object]:
        """Bind the Pods or give them back; how it went for the metrics, and as a condition."""
        broken = next((each for each in fates if each.broken), None)
        if broken is not None:
            message = f"failed to schedule other pod from a pod group: {broken.message}"
            self._give_back_broken(fates, message, profile)
            return ERROR, _condition("False", "SchedulerError", message)
        if not any(each.permitted for each in fates):
            self._give_back(fates, "", profile)
            return UNSCHEDULABLE, _condition("False", "Unschedulable", GROUP_UNSCHEDULABLE)
        if any(each.victims_first for each in fates):
            message = f"{GROUP_UNSCHEDULABLE}, {WAITING_FOR_VICTIMS}"
            self._give_back(fates, message, profile)
            return "waiting_on_preemption", _condition("False", "Unschedulable", message)
        for fate in fates:
            if fate.placement is None:
                self._refuse(fate, profile)
            else:
                self._scheduler.assume(fate.queued, fate.cycle, profile, fate.placement, fate.started)
        return SCHEDULED, _condition("True", "Scheduled", "")

    def _give_back(self, fates: list[Fate], waiting: str, profile: Profile) -> None:
        """All go back into the queue; those that fit are told what they wait for."""
        for fate in fates:
            if fate.placement is None or (fate.victims_first and waiting):
                self._refuse(fate, profile)
                continue
            message = waiting or f"{GROUP_UNSCHEDULABLE}, {fate.wait}"
            node = fate.placement.node.name if waiting else ""
            self._scheduler.outcomes.unschedulable(fate.queued, profile, message, (), fate.started, nominated=node)

    def _give_back_broken(self, fates: list[Fate], message: str, profile: Profile) -> None:
        for fate in fates:
            told = fate.message if fate.broken and fate.message else message
            self._scheduler.outcomes.failed(fate.queued, profile, told, fate.started)

    def _refuse(self, fate: Fate, profile: Profile) -> None:
        self._scheduler.outcomes.unschedulable(
            fate.queued, profile, fate.message, fate.plugins, fate.started, nominated=fate.nominated
        )

    def tell(self, group: GroupId, condition: Object) -> None:
        """Write a condition of a PodGroup soon; of several the last one."""
        self._conditions.pop(group, None)
        self._conditions[group] = condition
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write(), name="pod group conditions")

    async def stop(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)

    async def _write(self) -> None:
        """One after the other, so that the last word is the last."""
        while self._conditions:
            group = next(iter(self._conditions))
            await self._write_condition(group, self._conditions.pop(group))

    async def _write_condition(self, group: GroupId, condition: Object) -> None:
        """A group that has been placed once stays so, whatever becomes of further Pods."""
        found = self._scheduler.informers.informer(PODGROUPS).get(*group)
        if found is None:
            return
        known = (found.get("status") or {}).get("conditions") or ()
        old: Object = next((each for each in known if each.get("type") == CONDITION), {})
        if old.get("status") == "True" and condition["status"] != "True":
            return
        condition["observedGeneration"] = found["metadata"].get("generation", 0)
        if all(old.get(name) == value for name, value in condition.items()):
            return
        same = old.get("status") == condition["status"]
        now = rfc3339(self._scheduler.handle.clock.time())
        condition["lastTransitionTime"] = old["lastTransitionTime"] if same else now
        body = {"status": {"conditions": [condition]}}
        try:
            answer = await self._scheduler.client.patch(
                PODGROUPS, group[1], body, group[0], kind="strategic", subresource="status"
            )
            self._scheduler.informers.informer(PODGROUPS).observe(answer)
        except ApiError as error:
            if error.code != 404:
                log.warning("the status of pod group %s could not be written: %s", "/".join(group), error.message)


def _condition(status: str, reason: str, message: str) -> Object:
    return {"type": CONDITION, "status": status, "reason": reason, "message": message}

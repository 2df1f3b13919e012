"""DefaultPreemption: when no node takes a Pod, makes room by deleting Pods of lower priority.

Which ones is decided by fastkube.scheduler.preemption. Deleting them goes on after the scheduling cycle; meanwhile the
Pod is nominated to the node, which keeps the room for it. When the victims are gone the Pod is tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastkube.clock import rfc3339
from fastkube.errors import ApiError
from fastkube.scheduler.events import ASSIGNED_POD, Action, Interest
from fastkube.scheduler.framework import Cycle, Handle, Nomination, Plugin
from fastkube.scheduler.pods import PodInfo
from fastkube.scheduler.preemption import CANDIDATES_MIN, CANDIDATES_PERCENTAGE, Budget, Preemption, Preemptor, Victims
from fastkube.scheduler.search import FitError, NodeSearch

if TYPE_CHECKING:
    from fastkube.scheduler.extenders import Extenders

log = logging.getLogger(__name__)

Object = dict[str, Any]

BUDGETS = "policy/v1/poddisruptionbudgets"


class DefaultPreemption(Plugin):
    name = "DefaultPreemption"
    interests = (Interest(ASSIGNED_POD, Action.DELETE),)

    def __init__(self, args: Mapping[str, Any], handle: Handle, weight: int = 1) -> None:
        super().__init__(args, handle, weight)
        percentage = args.get("minCandidateNodesPercentage", CANDIDATES_PERCENTAGE)
        least = args.get("minCandidateNodesAbsolute", CANDIDATES_MIN)
        handle.lister(BUDGETS)  # asked for now, so that it is synced before the first Pod is tried
        self._generation = -1
        self._budgets: list[Budget] = []
        self._preemptor = Preemptor(
            handle.cache, handle.clock.time, self._budgets_now, percentage=percentage, least=least
        )
        self._tasks: set[asyncio.Task[None]] = set()

    def _budgets_now(self) -> tuple[int, list[Budget]]:
        lister = self.handle.lister(BUDGETS)
        if lister.revision != self._generation:
            self._generation = lister.revision
            self._budgets = [Budget(obj) for obj in lister.list()]
        return self._generation, self._budgets

    def post_filter(self, cycle: Cycle, error: FitError, search: NodeSearch) -> Nomination:
        """Where room will be; or why nowhere."""
        told = self._preemptor.ineligible(cycle.pod, error)
        if told:
            return Nomination(None, f"preemption: {told}")
        self.handle.metrics.preemption_attempts.add()
        found = self._preemptor.preempt(cycle, error, search)
        return self._carry_out(cycle.pod, found.victims, found.message)

    async def post_filter_with(
        self, cycle: Cycle, error: FitError, search: NodeSearch, extenders: Extenders
    ) -> Nomination:
        """Extenders may object to nodes and change who must go."""
        told = self._preemptor.ineligible(cycle.pod, error)
        if told:
            return Nomination(None, f"preemption: {told}")
        self.handle.metrics.preemption_attempts.add()
        found = self._preemptor.candidates(cycle, error, search)
        if isinstance(found, Preemption):
            return self._carry_out(cycle.pod, None, found.message)
        agreed = await extenders.preempt(cycle.pod, found)
        if not agreed:
            return self._carry_out(cycle.pod, None, "no candidate node for preemption")
        return self._carry_out(cycle.pod, self._preemptor.best_of(agreed.values()), "")

    def _carry_out(self, pod: PodInfo, victims: Victims | None, message: str) -> Nomination:
        if victims is None:
            return Nomination("", f"preemption: {message}")
        self.handle.metrics.preemption_victims.observe(len(victims.pods))
        self._make_room(pod, victims)
        return Nomination(victims.node.name, "")

    def _make_room(self, pod: PodInfo, victims: Victims) -> None:
        """Delete the victims, and take the nomination from Pods of lower priority that hoped for the same room."""
        for other in list(victims.node.nominated.values()):
            if other.priority < pod.priority and other.uid != pod.uid:
                self.handle.cache.denominate(other.uid)
                self.handle.clear_nomination(other)
        if self.handle.client is None:  # nothing is written in a simulation
            self.handle.evict(victims.pods)
            return
        task = asyncio.get_running_loop().create_task(self._delete(pod, victims), name=f"preempt for {pod.key}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _delete(self, pod: PodInfo, victims: Victims) -> None:
        started, metrics = self.handle.clock.monotonic(), self.handle.metrics
        result = "success" if await self._delete_all(pod, victims) else "error"
        metrics.evictions.add(result)
        metrics.eviction_duration.observe(self.handle.clock.monotonic() - started, result)

    async def _delete_all(self, pod: PodInfo, victims: Victims) -> bool:
        """False when a victim could not be deleted."""
        for victim in victims.pods:
            if self.handle.reject_waiting(victim.uid, self.name, "preempted"):
                continue
            try:
                await self._delete_one(pod, victim)
            except ApiError as error:
                if error.code != 404:
                    log.warning("pod %s could not be preempted: %s", victim.key, error.message)
                    self.handle.clear_nomination(pod)
                    self.handle.activate(pod.uid)
                    return False
            self.handle.event(
                victim,
                "Normal",
                "Preempted",
                "Preempting",
                f"Preempted by pod {pod.uid} on node {victims.node.name}",
                related=pod,
            )
        return True

    async def _delete_one(self, pod: PodInfo, victim: PodInfo) -> None:
        now = rfc3339(self.handle.clock.time())
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": f"{pod.spec.scheduler_name}: preempting to accommodate a higher priority pod",
            "lastTransitionTime": now,
        }
        client = self.handle.client
        if not victim.terminating:
            body = {"metadata": {"uid": victim.uid}, "status": {"conditions": [condition]}}
            await client.patch("v1/pods", victim.name, body, victim.namespace, kind="strategic", subresource="status")
        await client.delete("v1/pods", victim.name, victim.namespace, uid=victim.uid)

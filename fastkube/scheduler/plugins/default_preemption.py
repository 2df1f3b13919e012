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
from fastkube.scheduler.preemption import (
    CANDIDATES_MIN,
    CANDIDATES_PERCENTAGE,
    PREEMPTED,
    Budget,
    Preemption,
    Preemptor,
    Victims,
)
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
        self._preempting: dict[str, PodInfo | None] = {}
        """Pods for which victims are being deleted, by uid, and the last victim once only that is left."""

    def pre_enqueue(self, pod: PodInfo) -> str | None:
        if pod.uid not in self._preempting:
            return None
        last = self._preempting[pod.uid]
        known = self.handle.cache.pods.get(last.uid) if last is not None else None
        if last is not None and (known is None or known.terminating):
            return None  # it is going: what waits for that need not wait for the answer as well
        return "waiting for the preemption for this pod to be finished"

    def _budgets_now(self) -> tuple[int, list[Budget]]:
        lister = self.handle.lister(BUDGETS)
        if lister.revision != self._generation:
            self._generation = lister.revision
            self._budgets = [Budget(obj) for obj in lister.list()]
        return self._generation, self._budgets

    def post_filter(self, cycle: Cycle, error: FitError, search: NodeSearch) -> Nomination:
        """Where room will be; or why nowhere."""
        self.handle.metrics.preemption_attempts.add()
        told = self._preemptor.ineligible(cycle.pod, error)
        if told:
            return Nomination(None, f"preemption: {told}")
        found = self._preemptor.preempt(cycle, error, search)
        return self._carry_out(cycle.pod, found.victims, found.message)

    async def post_filter_with(
        self, cycle: Cycle, error: FitError, search: NodeSearch, extenders: Extenders
    ) -> Nomination:
        """Extenders may object to nodes and change who must go."""
        self.handle.metrics.preemption_attempts.add()
        told = self._preemptor.ineligible(cycle.pod, error)
        if told:
            return Nomination(None, f"preemption: {told}")
        found = self._preemptor.candidates(cycle, error, search)
        if isinstance(found, Preemption):
            return self._carry_out(cycle.pod, None, found.message)
        agreed = await extenders.preempt(cycle.pod, found)
        if not agreed:
            return Nomination(None, "preemption: no candidate node for preemption")
        return self._carry_out(cycle.pod, self._preemptor.best_of(agreed.values()), "")

    def _carry_out(self, pod: PodInfo, victims: Victims | None, message: str) -> Nomination:
        if victims is None:
            return Nomination("", f"preemption: {message}")
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
        leaving = [victim for victim in victims.pods if not victim.terminating]
        if not leaving:
            return
        self.handle.metrics.preemption_victims.observe(len(victims.pods))
        self._preempting[pod.uid] = None
        work = self._delete(pod, victims.node.name, leaving)
        task = asyncio.get_running_loop().create_task(work, name=f"preempt for {pod.key}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _delete(self, pod: PodInfo, node: str, victims: list[PodInfo]) -> None:
        started, metrics = self.handle.clock.monotonic(), self.handle.metrics
        *others, last = victims
        deleted = all(await asyncio.gather(*(self._delete_one(pod, node, victim) for victim in others)))
        if deleted:
            self._preempting[pod.uid] = last
            deleted = await self._delete_one(pod, node, last)
        del self._preempting[pod.uid]
        if not deleted:
            self.handle.clear_nomination(pod)
            self.handle.activate(pod.uid)
        result = "success" if deleted else "error"
        metrics.evictions.add(result)
        metrics.eviction_duration.observe(self.handle.clock.monotonic() - started, result)

    async def _delete_one(self, pod: PodInfo, node: str, victim: PodInfo) -> bool:
        """False when the victim could not be deleted."""
        note = f"Preempted by pod {pod.uid} on node {node}"
        if self.handle.reject_waiting(victim.uid, self.name, "preempted"):
            note += " (in kube-scheduler memory)."
        else:
            try:
                await self._write(pod, victim)
            except ApiError as error:
                if error.code != 404:
                    log.warning("pod %s could not be preempted: %s", victim.key, error.message)
                return error.code == 404
        self.handle.event(victim, "Normal", "Preempted", "Preempting", note, related=pod)
        return True

    async def _write(self, pod: PodInfo, victim: PodInfo) -> None:
        now = rfc3339(self.handle.clock.time())
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": PREEMPTED,
            "message": f"{pod.spec.scheduler_name}: preempting to accommodate a higher priority pod",
            "lastTransitionTime": now,
        }
        generation = victim.pod["metadata"].get("generation")
        if generation:
            condition["observedGeneration"] = generation
        client, body = self.handle.client, {"metadata": {"uid": victim.uid}, "status": {"conditions": [condition]}}
        await client.patch("v1/pods", victim.name, body, victim.namespace, kind="strategic", subresource="status")
        await client.delete("v1/pods", victim.name, victim.namespace, uid=victim.uid)

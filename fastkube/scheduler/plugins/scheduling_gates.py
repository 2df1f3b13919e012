"""SchedulingGates: a Pod with gates is not tried until somebody has taken the last one away."""

from __future__ import annotations

from fastkube.scheduler.events import UNSCHEDULED_POD, Action, ClusterEvent, Interest
from fastkube.scheduler.framework import Plugin
from fastkube.scheduler.pods import PodInfo


class SchedulingGates(Plugin):
    name = "SchedulingGates"
    interests = (Interest(UNSCHEDULED_POD, Action.UPDATE_POD_GATES_ELIMINATED),)

    def pre_enqueue(self, pod: PodInfo) -> str | None:
        if not pod.gates:
            return None
        return f"waiting for scheduling gates: [{' '.join(pod.gates)}]"

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        return bool(event.new.uid == pod.uid)

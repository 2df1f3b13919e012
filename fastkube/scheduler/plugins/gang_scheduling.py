"""GangScheduling: of a PodGroup with the gang policy as many Pods as it asks for get nodes, or none does.

Its Pods are not tried before minCount of them exist. Each that has a node waits for permission to be bound until
minCount have one; then all go on. Behind the feature gate of the same name, as upstream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastkube.api import gates
from fastkube.scheduler.events import POD_GROUP, UNSCHEDULED_POD, Action, ClusterEvent, Interest
from fastkube.scheduler.framework import Cycle, Handle, Plugin, Rejected
from fastkube.scheduler.nodes import NodeInfo
from fastkube.scheduler.podgroups import PODGROUPS
from fastkube.scheduler.pods import GroupId, PodInfo

WAIT_MAX_S = 300.0
TOO_FEW_EXIST = "waiting for minCount pods from a gang to appear in scheduling queue"
TOO_FEW_PLACED = "waiting for minCount pods from a gang to be scheduled"


class GangScheduling(Plugin):
    name = "GangScheduling"
    wait_reason = TOO_FEW_PLACED
    interests = (Interest(UNSCHEDULED_POD, Action.ADD), Interest(POD_GROUP, Action.ADD))

    def __init__(self, args: Mapping[str, Any], handle: Handle, weight: int = 1) -> None:
        super().__init__(args, handle, weight)
        if gates.GANG_SCHEDULING not in handle.gates:
            raise ValueError(f"the feature gate {gates.GANG_SCHEDULING} is off")
        self._groups = handle.lister(PODGROUPS)

    def _min_count(self, group: GroupId) -> int | None:
        """None when there is no such PodGroup; 0 for one without the gang policy."""
        found = self._groups.get(*group)
        if found is None:
            return None
        return int((found["spec"].get("schedulingPolicy", {}).get("gang") or {}).get("minCount") or 0)

    def pre_enqueue(self, pod: PodInfo) -> str | None:
        if pod.group is None:
            return None
        least = self._min_count(pod.group)
        if least is None:
            return f'waiting for pods\'s pod group "{pod.group[1]}" to appear in scheduling queue'
        return TOO_FEW_EXIST if len(self.handle.cache.groups.get(pod.group).known) < least else None

    def permit(self, cycle: Cycle, node: NodeInfo) -> float:
        pod, cache = cycle.pod, self.handle.cache
        if pod.group is None:
            return 0.0
        least = self._min_count(pod.group)
        if least is None:
            raise Rejected(f"failed to get podGroup {'/'.join(pod.group)}")
        group = cache.groups.get(pod.group)
        if len(group.placed) < least:
            for other in group.unplaced():
                self.handle.activate(other.uid)
            return WAIT_MAX_S
        for uid in group.placed:
            self.handle.allow_waiting(uid, self.name)
        return 0.0

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        if event.resource == UNSCHEDULED_POD:
            return bool(event.new.group == pod.group)
        metadata = event.new["metadata"]
        return pod.group == (metadata.get("namespace"), metadata["name"])

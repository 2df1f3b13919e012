"""NodePorts: two Pods cannot have the same host port, protocol and address on one node."""

from __future__ import annotations

from fastkube import _sched
from fastkube.api.resources import ports_conflict
from fastkube.scheduler.events import ASSIGNED_POD, NODE, Action, ClusterEvent, Interest
from fastkube.scheduler.framework import PlanDraft, Plugin, PodKind, Reason
from fastkube.scheduler.pods import PodInfo


class NodePorts(Plugin):
    name = "NodePorts"
    interests = (Interest(ASSIGNED_POD, Action.DELETE), Interest(NODE, Action.ADD))

    TAKEN = Reason(name, "node(s) didn't have free ports for the requested pod ports")

    def plan_filter(self, kind: PodKind, draft: PlanDraft) -> None:
        if kind.spec.ports:
            tallies = draft.cache.tallies.port_conflicts(kind.spec.ports)
            draft.ports.append(_sched.Forbid(tallies, draft.code(self.TAKEN)))

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        if event.resource == NODE:
            return True
        return any(ports_conflict(ours, theirs) for ours in pod.spec.ports for theirs in event.old.spec.ports)

"""NodeUnschedulable: cordoned nodes take no Pods, except those that tolerate the taint which says so."""

from __future__ import annotations

from fastkube.scheduler.events import NODE, UNSCHEDULED_POD, Action, ClusterEvent, Interest
from fastkube.scheduler.framework import Plugin, Reason, ScreenDraft
from fastkube.scheduler.pods import PodInfo, PodSpec, Taint

TAINT = Taint("node.kubernetes.io/unschedulable", "", "NoSchedule")


class NodeUnschedulable(Plugin):
    name = "NodeUnschedulable"
    pre_filters = False
    interests = (
        Interest(NODE, Action.ADD | Action.UPDATE_NODE_TAINT),
        Interest(UNSCHEDULED_POD, Action.UPDATE_POD_TOLERATION),
    )

    UNSCHEDULABLE = Reason(name, "node(s) were unschedulable", resolvable=False)

    def screen_filter(self, spec: PodSpec, draft: ScreenDraft) -> None:
        if draft.cache.index.unschedulable and not spec.tolerates(TAINT):
            draft.refuse(draft.cache.index.unschedulable, self.UNSCHEDULABLE)

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        if event.resource == UNSCHEDULED_POD:
            return event.new.uid == pod.uid and bool(event.new.spec.tolerates(TAINT))
        was = event.old is None or (event.old.get("spec") or {}).get("unschedulable")
        return bool(was) and not (event.new.get("spec") or {}).get("unschedulable")

"""NodeDeclaredFeatures: Pods which need a feature of the kubelet run on nodes that declare it."""

from __future__ import annotations

from fastkube.scheduler.events import NODE, UNSCHEDULED_POD, Action, ClusterEvent, Interest
from fastkube.scheduler.framework import Plugin, Reason, ScreenDraft
from fastkube.scheduler.pods import PodInfo, PodSpec


class NodeDeclaredFeatures(Plugin):
    name = "NodeDeclaredFeatures"
    interests = (
        Interest(NODE, Action.ADD | Action.UPDATE_NODE_DECLARED_FEATURE),
        Interest(UNSCHEDULED_POD, Action.UPDATE),
    )

    MISSING = Reason(name, "node(s) didn't match Pod's required features", resolvable=False)

    def screen_filter(self, spec: PodSpec, draft: ScreenDraft) -> None:
        index = draft.cache.index
        for feature in spec.features:
            draft.refuse(index.all & ~index.declaring(feature), self.MISSING)

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        if event.resource == UNSCHEDULED_POD:
            return bool(event.new.uid == pod.uid and event.new.spec.features != pod.spec.features)
        return True

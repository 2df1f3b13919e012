"""TaintToleration: NoSchedule and NoExecute taints keep Pods away that do not tolerate them; nodes with fewer
intolerable PreferNoSchedule taints score higher."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from fastkube import _columns, _scores
from fastkube.scheduler.events import NODE, UNSCHEDULED_POD, Action, ClusterEvent, Interest
from fastkube.scheduler.framework import MAX_SCORE, Plugin, Reason, ScreenDraft
from fastkube.scheduler.nodes import parse_taint
from fastkube.scheduler.pods import PodInfo, PodSpec, Taint

_HARD = ("NoSchedule", "NoExecute")
_SOFT = "PreferNoSchedule"


def untolerated(spec: PodSpec, taints: Iterable[Taint]) -> bool:
    """Whether any of the taints keeps the Pod away."""
    return any(taint.effect in _HARD and not spec.tolerates(taint) for taint in taints)


class TaintToleration(Plugin):
    name = "TaintToleration"
    pre_filters = False
    interests = (
        Interest(NODE, Action.ADD | Action.UPDATE_NODE_TAINT),
        Interest(UNSCHEDULED_POD, Action.UPDATE_POD_TOLERATION),
    )

    UNTOLERATED = Reason(name, "node(s) had untolerated taint(s)", resolvable=False)

    def screen_filter(self, spec: PodSpec, draft: ScreenDraft) -> None:
        for taints, mask in draft.cache.index.taints():
            if untolerated(spec, taints):
                draft.refuse(mask, self.UNTOLERATED)

    def screen_score(self, spec: PodSpec, draft: ScreenDraft) -> None:
        if not any(taint.effect == _SOFT for taints, _ in draft.cache.index.taints() for taint in taints):
            draft.constant_score(self.name, self.weight, MAX_SCORE)
            return
        soft = [each for each in spec.tolerations if each.effect in ("", _SOFT)]
        values = array("q", bytes(8 * draft.cache.nodes.capacity))
        for taints, mask in draft.cache.index.taints():
            count = sum(taint.effect == _SOFT and not any(each.tolerates(taint) for each in soft) for taint in taints)
            _columns.add_where(values, mask, count)
        draft.fixed_score(self.name, self.weight, values, _scores.REVERSED)

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        if event.resource == UNSCHEDULED_POD:
            return bool(event.new.uid == pod.uid)
        now = map(parse_taint, (event.new.get("spec") or {}).get("taints") or ())
        if untolerated(pod.spec, now):
            return False
        if event.old is None:
            return True
        before = map(parse_taint, (event.old.get("spec") or {}).get("taints") or ())
        return untolerated(pod.spec, before)

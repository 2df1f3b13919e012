"""NodeAffinity: nodeSelector, required and preferred node affinity, and what a profile adds to those of all Pods."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

from fastkube import _columns, _scores
from fastkube.scheduler.events import NODE, Action, ClusterEvent, Interest
from fastkube.scheduler.framework import Cycle, Handle, Plugin, Reason, Rejected, ScreenDraft
from fastkube.scheduler.nodeaffinity import RequiredNodes, preferred_nodes, required_nodes
from fastkube.scheduler.nodes import NodeIndex, NodeInfo
from fastkube.scheduler.pods import PodInfo, PodSpec


class NodeAffinity(Plugin):
    name = "NodeAffinity"
    interests = (Interest(NODE, Action.ADD | Action.UPDATE_NODE_LABEL),)

    MISMATCH = Reason(name, "node(s) didn't match Pod's node affinity/selector", resolvable=False)
    ENFORCED = Reason(name, "node(s) didn't match scheduler-enforced node affinity", resolvable=False)

    def __init__(self, args: Mapping[str, Any], handle: Handle, weight: int = 1) -> None:
        super().__init__(args, handle, weight)
        added = args.get("addedAffinity")
        self._added: RequiredNodes = required_nodes({"affinity": {"nodeAffinity": added}})
        self._added_preferred = preferred_nodes(added)

    def pre_filter(self, cycle: Cycle) -> None:
        """Where every term names nodes, only those are looked at."""
        names = cycle.pod.spec.required.names()
        if cycle.pod.only_node:
            only = frozenset((cycle.pod.only_node,))
            names = only if names is None else names & only
        if names is None:
            return
        if not names:
            raise Rejected("pod affinity terms conflict")
        cycle.narrow(_named(self.handle.cache.index, names), self.name)

    def asks(self, spec: PodSpec) -> bool:
        return bool(self._added or spec.required)

    def screen_filter(self, spec: PodSpec, draft: ScreenDraft) -> None:
        index = draft.cache.index
        if self._added:
            draft.refuse(index.all & ~self._added.mask(index), self.ENFORCED)
        if spec.required:
            draft.refuse(index.all & ~spec.required.mask(index), self.MISMATCH)

    def screen_score(self, spec: PodSpec, draft: ScreenDraft) -> None:
        preferred = (*self._added_preferred, *spec.preferred)
        if not preferred:
            return
        values = array("q", bytes(8 * draft.cache.nodes.capacity))
        for weight, term in preferred:
            _columns.add_where(values, term.mask(draft.cache.index), weight)
        draft.fixed_score(self.name, self.weight, values, _scores.NORMALIZED)

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        if pod.only_node and event.new["metadata"]["name"] != pod.only_node:
            return False
        if not self._matches(pod.spec, event.new):
            return False
        return event.old is None or not self._matches(pod.spec, event.old)

    def _matches(self, spec: PodSpec, node: Mapping[str, Any]) -> bool:
        index = single(dict(node))
        return bool(self._added.mask(index) and spec.required.mask(index))


def single(node: dict[str, Any]) -> NodeIndex:
    """An index of one node: to match selectors with it alone."""
    info = NodeInfo(node["metadata"]["name"])
    info.take(node)
    info.slot = 0
    index = NodeIndex()
    index.add(info)
    return index


def _named(index: NodeIndex, names: frozenset[str]) -> int:
    mask = 0
    for name in names:
        mask |= index.named(name)
    return mask

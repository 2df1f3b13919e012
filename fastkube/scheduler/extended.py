"""Decisions in which extenders take part: the plugins' search, then HTTP, then the choice among what is left.

While an extender is asked the cluster may change. What it left is judged again before a node is chosen; when the plan
itself no longer holds (nodes came or went), the decision is made anew.
"""

from __future__ import annotations

from fastkube.scheduler.extenders import PLUGIN, ExtenderError, Extenders, Filtered
from fastkube.scheduler.framework import Cycle
from fastkube.scheduler.search import FitError, NodeSearch, Placement

ATTEMPTS_MAX = 4


class ExtendedSearch:
    """Searches with the extenders of a scheduler."""

    def __init__(self, extenders: Extenders) -> None:
        self._extenders = extenders

    async def place(self, cycle: Cycle, search: NodeSearch) -> Placement:
        """Raises FitError, NoNodesError or ExtenderError."""
        pod = cycle.pod
        for _ in range(ATTEMPTS_MAX):
            candidates = search.find(cycle)
            filtered = await self._extenders.filter(pod, candidates.nodes)
            if not filtered.names:
                raise self._refused(search, cycle, candidates.error(), filtered)
            names = set(filtered.names)
            left = [node for node in candidates.nodes if node.name in names]
            scores = await self._extenders.scores(pod, left) if len(left) > 1 else {}
            placement = search.choose_among(cycle, candidates, left, scores)
            if placement is not None:
                return placement
            cycle = Cycle(pod)
        raise ExtenderError("the cluster kept changing while extenders were asked")

    @staticmethod
    def _refused(search: NodeSearch, cycle: Cycle, error: FitError, filtered: Filtered) -> FitError:
        """The plugins' refusals and the extenders'."""
        for text in (*filtered.failed.values(), *filtered.unresolvable.values()):
            error.counts[text] += 1
        error.plugins.add(PLUGIN)
        error.also_hopeful(search.slots_of(filtered.failed), search.capacity)
        return error

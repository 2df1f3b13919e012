"""How often plugins were asked: counted for sets of plugins, so that an attempt costs a few additions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fastkube.scheduler.metrics_text import Labels, sample


class Asked:
    """The plugins that have something to say about Pods of one kind, and how often they were asked."""

    __slots__ = ("attempts", "looked_at", "plugins", "ranked", "scored")

    def __init__(self, plugins: tuple[frozenset[str], ...]) -> None:
        """`plugins`: those of PreFilter, Filter, PreScore and Score."""
        self.plugins = plugins
        self.attempts = self.looked_at = self.ranked = self.scored = 0

    def count(self, looked_at: int, found: int) -> None:
        """A search has looked at so many nodes and found so many of them; one alone is not scored."""
        self.attempts += 1
        self.looked_at += looked_at
        if found > 1:
            self.ranked += 1
            self.scored += found


class Evaluations:
    """scheduler_plugin_evaluation_total: attempts for PreFilter and PreScore, nodes for Filter and Score."""

    kind = "counter"
    name = "scheduler_plugin_evaluation_total"
    help = "Number of times that a plugin was asked at an extension point, for a Pod or for a node."
    labels: Labels = ("plugin", "extension_point", "profile")

    def __init__(self) -> None:
        self._asked: dict[tuple[str, tuple[frozenset[str], ...]], Asked] = {}

    def of(self, profile: str, *plugins: Iterable[str]) -> Asked:
        """The counts of a set of plugins, shared by all kinds of Pods that have the same."""
        sets = tuple(map(frozenset, plugins))
        return self._asked.setdefault((profile, sets), Asked(sets))

    def lines(self) -> Iterator[str]:
        totals: dict[Labels, int] = {}
        points = ("PreFilter", "Filter", "PreScore", "Score")
        for (profile, sets), asked in self._asked.items():
            counts = (asked.attempts, asked.looked_at, asked.ranked, asked.scored)
            for point, plugins, count in zip(points, sets, counts, strict=True):
                for plugin in sorted(plugins) if count else ():
                    key: Labels = (plugin, point, profile)
                    totals[key] = totals.get(key, 0) + count
        for key, total in totals.items():
            yield sample(self.name, dict(zip(self.labels, key, strict=True)), total)

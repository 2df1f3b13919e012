"""What if: Pods placed on a copy of a cluster, with one configuration or with two side by side."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from fastkube import _sched
from fastkube.scheduler.config import SchedulerConfig
from fastkube.scheduler.explain import aligned
from fastkube.scheduler.offline import Decision, OfflineScheduler

Object = dict[str, Any]


class Utilization(NamedTuple):
    """Requested share of what the nodes have, in percent: mean, greatest, and standard deviation over the nodes."""

    mean: float
    most: float
    deviation: float


class Outcome(NamedTuple):
    """Of one configuration."""

    name: str
    decisions: list[Decision]
    nodes_used: int
    """Nodes that run any Pod at the end."""
    cpu: Utilization
    memory: Utilization

    @property
    def placed(self) -> int:
        return sum(bool(each.node) for each in self.decisions)

    @property
    def preempted(self) -> int:
        return sum(len(each.victims) for each in self.decisions)

    def to_object(self) -> Object:
        """For programs."""
        return {
            "configuration": self.name,
            "placed": self.placed,
            "unschedulable": len(self.decisions) - self.placed,
            "preempted": self.preempted,
            "nodesUsed": self.nodes_used,
            "cpuPercent": self.cpu._asdict(),
            "memoryPercent": self.memory._asdict(),
            "pods": [
                {"pod": each.pod.key, "node": each.node, "message": each.message, "victims": list(each.victims)}
                for each in self.decisions
            ],
        }


def simulate(
    name: str,
    cluster: Iterable[Object],
    pods: Sequence[Object],
    config: SchedulerConfig | None,
    *,
    seed: int = 1,
    preempt: bool = False,
) -> Outcome:
    """Place the pending Pods of the cluster and then these, in the queue's order. Raises ConfigError."""
    scheduler = OfflineScheduler(cluster, config, seed=seed)
    for obj in pods:
        scheduler.add(obj)
    decisions = list(scheduler.run(preempt=preempt))
    infos = [info for info in scheduler.cache.infos.values() if info.slot >= 0]
    return Outcome(
        name,
        decisions,
        sum(bool(info.pods) for info in infos),
        _utilization(scheduler, _sched.CPU, "cpu"),
        _utilization(scheduler, _sched.MEMORY, "memory"),
    )


def _utilization(scheduler: OfflineScheduler, column: int, resource: str) -> Utilization:
    cache = scheduler.cache
    shares = [
        100 * cache.nodes.requested_of(info.slot, column) / info.allocatable[resource]
        for info in cache.infos.values()
        if info.slot >= 0 and info.allocatable.get(resource)
    ]
    if not shares:
        return Utilization(0.0, 0.0, 0.0)
    return Utilization(
        *(round(value, 1) for value in (statistics.fmean(shares), max(shares), statistics.pstdev(shares)))
    )


def table(outcomes: Sequence[Outcome], limit: int) -> str:
    """For people: at most `limit` Pods (0 for all), a column a configuration, then the sums."""
    pods = [each.pod.key for each in outcomes[0].decisions]
    by_pod = [{each.pod.key: each for each in outcome.decisions} for outcome in outcomes]
    shown = pods[:limit] if limit else pods
    rows = [["POD", *(outcome.name for outcome in outcomes), *(["SAME"] if len(outcomes) > 1 else [])]]
    for key in shown:
        told = [found[key] for found in by_pod]
        same = ["yes" if len({each.node for each in told}) == 1 else "no"] if len(outcomes) > 1 else []
        rows.append([key, *(_place(each) for each in told), *same])
    text = aligned(rows)
    if len(shown) < len(pods):
        text += f"... and {len(pods) - len(shown)} more Pods (--limit 0 shows all)\n"
    text += "\n" + aligned(
        [
            ["", *(outcome.name for outcome in outcomes)],
            ["placed", *(str(outcome.placed) for outcome in outcomes)],
            ["unschedulable", *(str(len(outcome.decisions) - outcome.placed) for outcome in outcomes)],
            ["preempted", *(str(outcome.preempted) for outcome in outcomes)],
            ["nodes in use", *(str(outcome.nodes_used) for outcome in outcomes)],
            ["cpu requested", *(_shares(outcome.cpu) for outcome in outcomes)],
            ["memory requested", *(_shares(outcome.memory) for outcome in outcomes)],
        ]
    )
    for outcome in outcomes:
        for message, count in Counter(each.message for each in outcome.decisions if not each.node).most_common(10):
            text += f"\n{outcome.name}: {count} Pod{'s' * (count != 1)}: {message}"
    return text.rstrip() + "\n"


def _place(decision: Decision) -> str:
    victims = f" (preempts {', '.join(decision.victims)})" if decision.victims else ""
    return (decision.node or "-") + victims


def _shares(told: Utilization) -> str:
    return f"mean {told.mean:g}%, most {told.most:g}%, deviation {told.deviation:g}"

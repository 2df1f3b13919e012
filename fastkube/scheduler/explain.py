"""Why a Pod goes where it goes: each node's verdict and each plugin's score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from fastkube.scheduler.framework import Cycle, Plugin
from fastkube.scheduler.nodes import NodeInfo
from fastkube.scheduler.offline import OfflineScheduler
from fastkube.scheduler.plans import Plan
from fastkube.scheduler.pods import PodInfo
from fastkube.scheduler.profile import Profile
from fastkube.scheduler.search import FitError, NoNodesError

Object = dict[str, Any]


class NodeVerdict(NamedTuple):
    """`refused_by` and `reasons` of a node that does not take the Pod; else the weighted scores by plugin."""

    node: str
    scores: dict[str, int]
    refused_by: str = ""
    reasons: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return sum(self.scores.values())


class Explanation(NamedTuple):
    """`message`: why the Pod is scheduled nowhere, as its condition would say; "" when there is a node for it."""

    pod: PodInfo
    profile: str
    verdicts: list[NodeVerdict]
    """The best first, then those that refuse the Pod, by name."""
    message: str
    best: list[str]
    """Nodes with the best score: one of them is taken, at random."""

    def to_object(self) -> Object:
        """For programs."""
        return {
            "pod": self.pod.key,
            "schedulerName": self.profile,
            "message": self.message,
            "best": self.best,
            "nodes": [
                {"node": each.node, "feasible": not each.reasons, "scores": each.scores, "total": each.total}
                if not each.reasons
                else {"node": each.node, "feasible": False, "plugin": each.refused_by, "reasons": list(each.reasons)}
                for each in self.verdicts
            ],
        }


def explain(scheduler: OfflineScheduler, pod: PodInfo) -> Explanation:
    """All nodes are looked at and scored, whatever percentageOfNodesToScore says. Raises KeyError for a Pod of a
    scheduler that the configuration does not have."""
    profile = scheduler.profiles[pod.spec.scheduler_name]
    cycle = Cycle(pod)
    try:
        plan, extra = profile.search.prepare(cycle)
    except (FitError, NoNodesError) as error:
        return Explanation(pod, profile.name, [], str(error), [])
    plan.core.search(0, scheduler.cache.nodes.live, extra)
    found = profile.search.nodes_found(plan.core)
    scores = _scores(profile, cycle, plan, found)
    taken = [NodeVerdict(info.name, {name: told[place] for name, told in scores.items()})
             for place, info in enumerate(found)]  # fmt: skip
    taken.sort(key=lambda each: (-each.total, each.node))
    feasible = {info.slot for info in found}
    refused = [
        _refusal(info, plan, 0 if extra is None else extra[info.slot], cycle)
        for info in scheduler.cache.infos.values()
        if info.slot >= 0 and info.slot not in feasible
    ]
    refused.sort(key=lambda each: each.node)
    message = "" if taken else str(profile.search.fit_error(cycle, plan, extra))
    best = [each.node for each in taken if each.total == taken[0].total]
    return Explanation(pod, profile.name, [*taken, *refused], message, best)


def _scores(profile: Profile, cycle: Cycle, plan: Plan, found: Sequence[NodeInfo]) -> dict[str, list[int]]:
    """Plugin → weighted scores of the nodes found."""
    told = plan.core.scores()
    for plugin in _that_score(profile.plugins.values()):
        own = plugin.score(cycle, found)
        if own is not None:
            told[plugin.name] = list(own)
    return {name: [profile.plugins[name].weight * score for score in scores] for name, scores in told.items()}


def _that_score(plugins: Iterable[Plugin]) -> list[Plugin]:
    return [plugin for plugin in plugins if type(plugin).score is not Plugin.score]


def _refusal(info: NodeInfo, plan: Plan, code: int, cycle: Cycle) -> NodeVerdict:
    reasons = plan.explain(plan.core.verdict(info.slot, code))
    if not reasons and cycle.only is not None:
        names = " ".join(sorted(cycle.narrowed_by))
        return NodeVerdict(info.name, {}, names, (f"node(s) didn't satisfy plugin(s) [{names}]",))
    return NodeVerdict(info.name, {}, reasons[0].plugin, tuple(reason.text for reason in reasons))


def table(told: Explanation, limit: int) -> str:
    """For people: at most `limit` nodes (0 for all), then the outcome."""
    names = list(dict.fromkeys(name for each in told.verdicts for name in each.scores))
    rows = [["NODE", "VERDICT", *names, *(["TOTAL"] if names else [])]]
    shown = told.verdicts[:limit] if limit else told.verdicts
    for each in shown:
        if each.reasons:
            rows.append([each.node, f"{each.refused_by}: {', '.join(each.reasons)}"])
        else:
            rows.append([each.node, "fits", *(str(each.scores[name]) for name in names), str(each.total)])
    text = aligned(rows)
    if len(shown) < len(told.verdicts):
        text += f"... and {len(told.verdicts) - len(shown)} more nodes (--limit 0 shows all)\n"
    if told.message:
        return f"{text}\n{told.pod.key} is not scheduled: {told.message}\n"
    others = f", equal to {len(told.best) - 1} more" if len(told.best) > 1 else ""
    return f"{text}\n{told.pod.key} goes to {told.best[0]}{others} (scheduler {told.profile})\n"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns as kubectl prints them; a long last cell of a short row is left as it is."""
    columns = max(map(len, rows), default=0)
    widths = [
        max((len(row[column]) for row in rows if column < len(row) and (column < len(row) - 1 or len(row) == columns)),
            default=0)
        for column in range(columns)
    ]  # fmt: skip
    return "".join(
        "   ".join(cell.ljust(widths[column]) for column, cell in enumerate(row)).rstrip() + "\n" for row in rows
    )

"""Preemption: which Pods must leave which node for a Pod of higher priority to fit. Decides only; others delete.

As upstream (DefaultPreemption):
    1. Candidates are nodes that refuse the Pod for a reason which taking Pods away may end. At least 100 of them, or a
       tenth of all nodes, are tried, from a random place on, and more until one is found that violates no budget.
    2. On a node all Pods of lower priority are taken away; if the Pod does not fit then, nothing helps here. Otherwise
       they are put back one by one, the most important first, those whose PodDisruptionBudget would be violated before
       all others; those that cannot be put back are the victims.
    3. The node is chosen by: fewest violated budgets, then the least of: highest priority of a victim, sum of
       priorities, number of victims; then the latest start of its most important victims.

What was found out about a node holds for equal Pods until the node changes, unless tallies are involved.
"""

from __future__ import annotations

import weakref
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any, NamedTuple

from fastkube import _scores
from fastkube.api import selectors
from fastkube.api.selectors import LabelSelector
from fastkube.scheduler.cache import Cache, Trial
from fastkube.scheduler.framework import Cycle
from fastkube.scheduler.nodes import NodeInfo
from fastkube.scheduler.plans import Plan
from fastkube.scheduler.pods import PodInfo
from fastkube.scheduler.search import FitError, NodeSearch, fit_message

Object = dict[str, Any]

CANDIDATES_PERCENTAGE = 10
CANDIDATES_MIN = 100

NO_VICTIMS = "No preemption victims found for incoming pod"
NOT_HELPFUL = "Preemption is not helpful for scheduling"
PREEMPTED = "PreemptionByScheduler"
"""The reason that victims are given in their condition DisruptionTarget."""
NEVER = "not eligible due to preemptionPolicy=Never."
TERMINATING = "not eligible due to a terminating pod on the nominated node."


class Budget:
    """A PodDisruptionBudget, as far as preemption cares."""

    __slots__ = ("allowed", "disrupted", "namespace", "selector")

    def __init__(self, obj: Object) -> None:
        status = obj.get("status") or {}
        self.namespace: str = obj["metadata"].get("namespace", "")
        self.selector: LabelSelector = selectors.from_object((obj.get("spec") or {}).get("selector"))
        self.allowed = int(status.get("disruptionsAllowed") or 0)
        self.disrupted = frozenset(status.get("disruptedPods") or ())

    def covers(self, pod: PodInfo) -> bool:
        """An empty selector covers nothing, and so does a budget for Pods that are on their way out already."""
        labels = pod.labels
        return (
            labels.namespace == self.namespace
            and bool(labels.labels)
            and bool(self.selector)
            and pod.name not in self.disrupted
            and self.selector.matches(labels.labels)
        )


class Victims(NamedTuple):
    """Pods that must leave a node, the most important first, and how many budgets that violates."""

    node: NodeInfo
    pods: tuple[PodInfo, ...]
    violations: int

    def rank(self, now: float) -> tuple[int, ...]:
        """The less, the better."""
        pods = self.pods
        highest, started, total = pods[0].spec.priority, inf, len(pods) << 31
        for pod in pods:
            priority = pod.spec.priority
            total += priority
            if priority == highest:
                started = min(started, now if pod.start_time is None else pod.start_time)
        return self.violations, highest, total, len(pods), -int(started * 1000)


def _is_preempted(pod: PodInfo) -> bool:
    """Whether a Pod is on its way out because a scheduler wanted its room."""
    if not pod.terminating:
        return False
    conditions = (pod.pod.get("status") or {}).get("conditions") or ()
    found: Object = next((each for each in conditions if each.get("type") == "DisruptionTarget"), {})
    return found.get("status") == "True" and found.get("reason") == PREEMPTED


def most_important_first(pods: list[PodInfo], now: float) -> None:
    """By priority, then by start; a Pod that has not started counts as started now."""
    pods.sort(key=lambda pod: (-pod.spec.priority, now if pod.start_time is None else pod.start_time))


class Preemption(NamedTuple):
    """What preemption came to: `victims` to delete, or a message why nobody is. Either may clear the nomination."""

    victims: Victims | None
    message: str


class Preemptor:
    """Preemption for one profile. `budgets()` gives the PodDisruptionBudgets, and a number that rises with changes."""

    def __init__(
        self,
        cache: Cache,
        now: Callable[[], float],
        budgets: Callable[[], tuple[int, list[Budget]]],
        *,
        percentage: int = CANDIDATES_PERCENTAGE,
        least: int = CANDIDATES_MIN,
    ) -> None:
        self._cache = cache
        self._now = now
        self._budgets = budgets
        self._percentage = percentage
        self._least = least
        self._known: weakref.WeakKeyDictionary[Plan, _Known] = weakref.WeakKeyDictionary()

    def ineligible(self, pod: PodInfo, error: FitError) -> str:
        """Why a Pod must not preempt now; "" when it may."""
        if not pod.spec.preempts:
            return NEVER
        info = self._cache.infos.get(pod.nominated) if pod.nominated else None
        if info is None or info.slot < 0 or not error.may_help(info.slot):
            return ""
        # victims of the last time are still going: another node need not be emptied as well
        leaving = any(other.priority < pod.priority and _is_preempted(other) for other in info.pods.values())
        return TERMINATING if leaving else ""

    def preempt(self, cycle: Cycle, error: FitError, search: NodeSearch) -> Preemption:
        """Find the least harmful victims for a Pod that no node takes."""
        round_ = self._rank(cycle, error, search)
        if isinstance(round_, Preemption):
            return round_
        return Preemption(round_.victims[round_.ranking.best], "")

    def candidates(self, cycle: Cycle, error: FitError, search: NodeSearch) -> dict[str, Victims] | Preemption:
        """Every node that was found to help, by name, with its victims; or why there is none."""
        round_ = self._rank(cycle, error, search)
        if isinstance(round_, Preemption):
            return round_
        versions = self._cache.nodes.versions
        current = (slot for slot in round_.victims if round_.versions[slot] == versions[slot])
        return {round_.victims[slot].node.name: round_.victims[slot] for slot in current}

    def best_of(self, candidates: Iterable[Victims]) -> Victims:
        return min(candidates, key=lambda found: found.rank(self._now()))

    def _rank(self, cycle: Cycle, error: FitError, search: NodeSearch) -> _Known | Preemption:
        """Try candidates until enough are found: what is known then, at least one node being ranked; or why none is."""
        hopeful = error.hopeful()
        count = error.hopeful_count if hopeful is not None else 0
        total = error.total
        if hopeful is None or not count or error.plan is None:
            return Preemption(None, fit_message(total, Counter({NOT_HELPFUL: total})))
        lowest, now = min(self._cache.priorities, default=cycle.pod.priority), self._now()
        if lowest >= cycle.pod.priority:
            return Preemption(None, _nobody(total, count, {NO_VICTIMS: count}))
        round_ = self._round(error.plan, error.extra)
        want = min(count, max(self._least, count * self._percentage // 100))
        round_.ranking.begin(self._cache.nodes.random_below(max(1, self._cache.nodes.live)))
        budgets = self._budgets()[1]
        while (slot := round_.next(self._cache, hopeful, want)) >= 0:
            info = self._cache.slots[slot]
            assert info is not None
            found = self._victims(cycle, error, info, search, budgets, now)
            round_.put(self._cache, info, found, now)
        if round_.ranking.best >= 0:
            return round_
        reasons: Counter[str] = Counter()
        for slot, told in round_.refusals.items():
            if hopeful[slot]:
                reasons.update(told)
        return Preemption(None, _nobody(total, count, reasons))

    def _round(self, plan: Plan, extra: array[int] | None) -> _Known:
        """What is known for Pods of this plan.

        That is nothing where tallies make nodes depend on each other, or where nodes refuse this Pod alone.
        """
        generation, capacity = self._budgets()[0], self._cache.nodes.capacity
        if plan.core.has_rules or extra is not None:
            return _Known(generation, capacity)
        known = self._known.get(plan)
        if known is None or known.generation != generation or known.capacity != capacity:
            known = self._known[plan] = _Known(generation, capacity)
        return known

    def _victims(
        self,
        cycle: Cycle,
        error: FitError,
        info: NodeInfo,
        search: NodeSearch,
        budgets: list[Budget],
        now: float,
    ) -> Victims | tuple[str, ...]:
        """The victims on a node, or the reasons why it is of no use."""
        plan, extra, priority = error.plan, error.extra, cycle.pod.spec.priority
        assert plan is not None
        lesser = [other for other in info.pods.values() if other.spec.priority < priority]
        if not lesser:
            return (NO_VICTIMS,)
        most_important_first(lesser, now)
        if not plan.core.has_rules and (extra is None or not extra[info.slot]):
            return _crowding(plan, info, lesser, budgets, now)
        with self._cache.trial(info) as trial:
            for other in lesser:
                trial.remove(other)
            verdict = search.verdict_beside_nominated(cycle, plan, extra, info)
            if verdict:
                return tuple(reason.text for reason in plan.explain(verdict))
            violating, others = _split_by_budgets(lesser, budgets)

            def fits() -> bool:
                return search.verdict_beside_nominated(cycle, plan, extra, info) == 0

            violated = _not_put_back(violating, trial, fits)
            harmless = _not_put_back(others, trial, fits)
        return _least_important_last(info, violated, harmless, now)


def _crowding(
    plan: Plan, info: NodeInfo, lesser: list[PodInfo], budgets: list[Budget], now: float
) -> Victims | tuple[str, ...]:
    """The victims where only resources matter: what a trial would come to, by arithmetic."""
    violating, others = _split_by_budgets(lesser, budgets) if budgets else ([], lesser)
    ordered = violating + others if violating else others
    verdict, away = plan.core.crowding(info.slot, [other.spec.request for other in ordered])
    if verdict:
        return tuple(reason.text for reason in plan.explain(verdict))
    if not violating:
        return Victims(info, tuple([others[place] for place in away]), 0) if away else (NO_VICTIMS,)
    violated = [ordered[place] for place in away if place < len(violating)]
    harmless = [ordered[place] for place in away if place >= len(violating)]
    return _least_important_last(info, violated, harmless, now)


def _least_important_last(
    info: NodeInfo, violated: list[PodInfo], harmless: list[PodInfo], now: float
) -> Victims | tuple[str, ...]:
    victims = violated + harmless
    if not victims:
        return (NO_VICTIMS,)
    if violated and harmless:  # each is in order already
        most_important_first(victims, now)
    return Victims(info, tuple(victims), len(violated))


class _Known:
    """Ranks of nodes for one plan, and why the others are of no use."""

    def __init__(self, generation: int, capacity: int) -> None:
        self.generation = generation
        self.capacity = capacity
        self.ranking = _scores.Ranking(capacity)
        self.victims: dict[int, Victims] = {}
        self.versions: dict[int, int] = {}
        self.refusals: dict[int, tuple[str, ...]] = {}

    def next(self, cache: Cache, hopeful: array[int], want: int) -> int:
        return self.ranking.advance(cache.nodes.places, cache.nodes.versions, hopeful, want)

    def put(self, cache: Cache, info: NodeInfo, found: Victims | tuple[str, ...], now: float) -> None:
        version = cache.nodes.versions[info.slot]
        if isinstance(found, Victims):
            self.victims[info.slot] = found
            self.versions[info.slot] = version
            self.refusals.pop(info.slot, None)
            self.ranking.put(info.slot, version, found.rank(now))
        else:
            self.refusals[info.slot] = found
            self.ranking.put(info.slot, version, None)


def _nobody(total: int, hopeful: int, reasons: Mapping[str, int]) -> str:
    """The message when there is no candidate; nodes that were not hopeful come to it too."""
    counts = Counter(reasons)
    counts[NOT_HELPFUL] += total - hopeful
    return fit_message(total, +counts)


def _split_by_budgets(pods: Iterable[PodInfo], budgets: list[Budget]) -> tuple[list[PodInfo], list[PodInfo]]:
    """Pods whose eviction would violate a budget, and the others, in their order."""
    left = [budget.allowed for budget in budgets]
    violating: list[PodInfo] = []
    others: list[PodInfo] = []
    for pod in pods:
        violates = False
        for place, budget in enumerate(budgets):
            if budget.covers(pod):
                left[place] -= 1
                violates = violates or left[place] < 0
        (violating if violates else others).append(pod)
    return violating, others


def _not_put_back(pods: Iterable[PodInfo], trial: Trial, fits: Callable[[], bool]) -> list[PodInfo]:
    """Put Pods back in their order while the preemptor still fits; those that must stay away."""
    away = []
    for pod in pods:
        trial.add(pod)
        if not fits():
            trial.remove(pod)
            away.append(pod)
    return away

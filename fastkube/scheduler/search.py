"""From a Pod to a node: one attempt, as upstream's schedulePod. No I/O: what needs the network comes before or after.

    pre-filters → plan → the nominated node alone, if there is one → search from where the last one ended
    → filters of other plugins → scores → choice

A search stops at as many feasible nodes as percentageOfNodesToScore says; with the default (0) that is upstream's
adaptive share, at least 100 nodes.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from fastkube import _columns, _sched
from fastkube.scheduler.cache import Cache
from fastkube.scheduler.framework import Cycle, Plugin, Reason, Reasons, Refusal, Rejected
from fastkube.scheduler.metrics import Timing
from fastkube.scheduler.nodes import NodeInfo, bits
from fastkube.scheduler.plans import Plan, Plans
from fastkube.scheduler.pods import PodInfo

FEASIBLE_MIN = 100
PERCENTAGE_MIN = 5

NO_NODES = "no nodes available to schedule pods"


class Placement(NamedTuple):
    """Where a Pod goes, and out of how many nodes."""

    node: NodeInfo
    evaluated: int
    feasible: int


class FitError(Exception):
    """No node takes the Pod. `plugins` refused it, for the reasons that `counts` counts."""

    def __init__(
        self,
        pod: PodInfo,
        total: int,
        *,
        counts: Counter[str] | None = None,
        plugins: Iterable[str] = (),
        message: str = "",
        pending: bool = False,
    ) -> None:
        super().__init__(message)
        self.pod = pod
        self.total = total
        self.counts: Counter[str] = counts if counts is not None else Counter()
        self.plugins = set(plugins)
        self.pending = pending
        self.unasked: frozenset[str] = frozenset()
        """Plugins whose turn in pre-filtering did not come."""
        self.pre_filter_message = message
        self.post_filter_message = ""
        self.hopeful: Callable[[], array[int] | None] = lambda: None
        """A byte for each slot: whether taking Pods off the node may help."""
        self.hopeful_count = 0
        self.plan: Plan | None = None
        self.extra: array[int] | None = None

    def also_hopeful(self, slots: list[int], capacity: int) -> None:
        """Taking Pods off these nodes, of slots below `capacity`, may help as well."""
        found = self.hopeful()
        both = array("B", bytes(capacity)) if found is None else found
        for slot in slots:
            both[slot] = 1
        self.hopeful = lambda: both
        self.hopeful_count = _columns.marked(both)

    def may_help(self, slot: int) -> bool:
        """Whether taking Pods off a node may help."""
        hopeful = self.hopeful()
        return hopeful is not None and bool(hopeful[slot])

    def __str__(self) -> str:
        return fit_message(self.total, self.counts, self.pre_filter_message, self.post_filter_message)


def fit_message(total: int, counts: Counter[str], whole_pod: str = "", preemption: str = "") -> str:
    """Upstream's words: how many nodes there are, and how many were refused for each reason."""
    message = f"0/{total} nodes are available:"
    if whole_pod:
        message += f" {whole_pod}."
    elif counts:
        message += " " + ", ".join(sorted(f"{count} {reason}" for reason, count in counts.items())) + "."
    return f"{message} {preemption}" if preemption else message


class NoNodesError(Exception):
    """There are no nodes at all."""

    def __init__(self) -> None:
        super().__init__(NO_NODES)


class Filters(NamedTuple):
    """The plugins of a profile that are asked for each Pod."""

    pre_filter: Sequence[Plugin]
    refusals: Sequence[Plugin]
    score: Sequence[Plugin]

    def about(self, volumes: bool, claims: bool) -> Filters:
        """Those that have to do with Pods which have volumes or claims, or neither."""
        others = {about for about, has in (("volumes", volumes), ("claims", claims)) if not has}
        return Filters(*([plugin for plugin in point if plugin.about not in others] for point in self))

    @staticmethod
    def key(pod: PodInfo) -> tuple[bool, bool]:
        return bool(pod.volumes), bool(pod.claims or pod.spec.devices)


class Prepared(NamedTuple):
    """The names of the plugins that have the points before filters and scores."""

    filters: frozenset[str]
    scores: frozenset[str]


class Candidates(NamedTuple):
    """Nodes that take a Pod, before one is chosen; `error` says why the others do not."""

    nodes: list[NodeInfo]
    plan: Plan
    extra: array[int] | None
    error: Callable[[], FitError]


class NodeSearch:
    """Searches for one profile. `turn`, shared by all profiles, is the place where the next search starts."""

    def __init__(
        self,
        cache: Cache,
        plans: Plans,
        reasons: Reasons,
        filters: Filters,
        percentage: int,
        turn: list[int],
        timing: Timing,
        prepared_by: Prepared,
    ) -> None:
        self._cache = cache
        self._prepared_by = prepared_by
        self._timing = timing
        self._plans = plans
        self._reasons = reasons
        self._filters = {
            (volumes, claims): filters.about(volumes, claims) for volumes in (False, True) for claims in (False, True)
        }
        self._pre_filters = [plugin.name for plugin in filters.pre_filter]
        self._percentage = percentage
        self._turn = turn

    def place(self, cycle: Cycle) -> Placement:
        """Raises FitError or NoNodesError."""
        timing = self._timing
        begun = timing.now()
        plan, extra = self.prepare(cycle)
        prepared = timing.now()
        nominated = self._cache.denominate(cycle.pod.uid)  # the room that is kept for it is not in its own way
        if nominated:
            found = self._try_nominated(nominated, plan, extra)
            if found is not None:
                timing.point("PreFilter", begun, until=prepared)
                timing.point("Filter", prepared)
                return found
        core = plan.core
        core.search(self._turn[0], self._wanted(cycle), extra)
        self.advance(core.visited)
        self._count(cycle.pod, plan)
        if core.found:
            searched = timing.now()
            found = self.choose(cycle, plan)
            timing.decided(begun, prepared, searched)
            return found
        timing.point("PreFilter", begun, until=prepared)
        timing.point("Filter", prepared, "Unschedulable")
        error = self.fit_error(cycle, plan, extra)
        if nominated:
            self._cache.nominate(cycle.pod, nominated)
        raise error

    def find(self, cycle: Cycle) -> Candidates:
        """What `place` would choose from; raises FitError or NoNodesError. The choice is `choose_among`."""
        plan, extra = self.prepare(cycle)
        nominated = self._cache.denominate(cycle.pod.uid)
        found = self._try_nominated(nominated, plan, extra) if nominated else None
        if found is not None:
            nodes = [found.node]
        else:
            plan.core.search(self._turn[0], self._wanted(cycle), extra)
            self.advance(plan.core.visited)
            self._count(cycle.pod, plan)
            nodes = self.nodes_found(plan.core)
        if nominated:
            self._cache.nominate(cycle.pod, nominated)
        if not nodes:
            raise self.fit_error(cycle, plan, extra)
        return Candidates(nodes, plan, extra, lambda: self.fit_error(cycle, plan, extra))

    def choose_among(
        self, cycle: Cycle, candidates: Candidates, nodes: list[NodeInfo], scores: Mapping[str, int]
    ) -> Placement | None:
        """The best of some of the candidates as they are now; None when what was found no longer holds.

        `scores`: node name → what is added to the plugins' scores.
        """
        plan, extra = candidates.plan, candidates.extra
        if not self._plans.is_current(cycle.pod, plan):
            return None
        nominated = self._cache.denominate(cycle.pod.uid)
        slots = [node.slot for node in nodes if node.slot >= 0]
        slots = [slot for slot in slots if not plan.core.verdict(slot, 0 if extra is None else extra[slot])]
        if not slots:
            self._cache.nominate(cycle.pod, nominated)
            return None
        plan.core.keep(slots)
        bonus = self._bonus(cycle, plan.core) or array("q", bytes(8 * len(slots)))
        for place, node in enumerate(self.nodes_found(plan.core)):
            bonus[place] += scores.get(node.name, 0)
        best = self._cache.slots[plan.core.pick(bonus)]
        assert best is not None
        return Placement(best, plan.core.visited, len(candidates.nodes))

    @property
    def capacity(self) -> int:
        """All slots are below it."""
        return self._cache.nodes.capacity

    def slots_of(self, names: Iterable[str]) -> list[int]:
        """The slots of the nodes that are still there."""
        infos = (self._cache.infos.get(name) for name in names)
        return [info.slot for info in infos if info is not None and info.slot >= 0]

    def prepare(self, cycle: Cycle) -> tuple[Plan, array[int] | None]:
        """The plan for a Pod, and the nodes which plugins refuse for it alone. Raises FitError, NoNodesError."""
        cache, pod = self._cache, cycle.pod
        if not cache.index.all:
            raise NoNodesError
        for plugin in self._filters[Filters.key(pod)].pre_filter:
            try:
                self._timing.call(cycle.sampled, "PreFilter", plugin.name, plugin.pre_filter, cycle)
            except Rejected as rejected:
                raise self._rejected(pod, plugin, rejected) from None
        plan = self._plans.plan_for(pod, sampled=cycle.sampled)
        return plan, self._extra(cycle, plan)

    def _rejected(self, pod: PodInfo, plugin: Plugin, rejected: Rejected) -> FitError:
        total = self._cache.index.all.bit_count()
        error = FitError(pod, total, plugins=[plugin.name], message=rejected.message, pending=rejected.pending)
        error.unasked = frozenset(self._pre_filters[self._pre_filters.index(plugin.name) + 1 :])
        if rejected.resolvable:
            error.hopeful, error.hopeful_count = self._cache.everywhere, total
        return error

    def _wanted(self, cycle: Cycle) -> int:
        if cycle.only is not None:
            return max(1, cycle.only.bit_count())
        return nodes_to_find(self._cache.nodes.live, self._percentage)

    def advance(self, visited: int) -> None:
        """The next search starts behind the nodes that this one has looked at."""
        self._turn[0] = (self._turn[0] + visited) % max(1, self._cache.nodes.live)

    def _count(self, pod: PodInfo, plan: Plan) -> None:
        """The plugins that the last search stood for were asked."""
        key = Filters.key(pod)
        asked = plan.asked.get(key)
        if asked is None:
            own = self._filters[key]
            filters = plan.filters.union(plugin.name for plugin in own.refusals)
            scores = plan.scores.union(plugin.name for plugin in own.score)
            before = self._prepared_by
            asked = self._timing.asked(filters & before.filters, filters, scores & before.scores, scores)
            plan.asked[key] = asked
        asked.count(plan.core.visited, plan.core.found)

    def choose(self, cycle: Cycle, plan: Plan) -> Placement:
        """Out of what the last search found."""
        core = plan.core
        found = core.found
        bonus = self._bonus(cycle, core) if found > 1 and self._filters[Filters.key(cycle.pod)].score else None
        node = self._cache.slots[core.pick(bonus)]
        assert node is not None  # only slots in use are searched
        return Placement(node, core.visited, found)

    def _bonus(self, cycle: Cycle, core: _sched.Plan) -> array[int] | None:
        """Weighted scores that depend on the Pod alone."""
        total: array[int] | None = None
        nodes: list[NodeInfo] = []
        for plugin in self._filters[Filters.key(cycle.pod)].score:
            nodes = nodes or self.nodes_found(core)
            scores = self._timing.call(cycle.sampled, "Score", plugin.name, plugin.score, cycle, nodes)
            if scores is None:
                continue
            total = total or array("q", bytes(8 * len(nodes)))
            for place, score in enumerate(scores):
                total[place] += plugin.weight * score
        return total

    def nodes_found(self, core: _sched.Plan) -> list[NodeInfo]:
        """What the last search found, in its order."""
        return [node for slot in core.feasible() if (node := self._cache.slots[slot]) is not None]

    # -- nodes refused for this Pod alone ------------------------------------------------------------------------------

    def _extra(self, cycle: Cycle, plan: Plan) -> array[int] | None:
        """Codes of nodes that plugins refuse for this Pod, the first to do so being blamed."""
        extra: array[int] | None = None
        plugins = self._filters[Filters.key(cycle.pod)].refusals
        told = [refusal for plugin in plugins for refusal in self._refused_by(plugin, cycle)]
        if cycle.only is not None:
            told.insert(0, Refusal(self._cache.index.all & ~cycle.only, _outside(cycle)))
        for mask, reason in told:
            if mask:
                if extra is None:
                    extra = array("B", bytes(self._cache.nodes.capacity))
                _columns.mark(extra, mask, self._reasons.code(reason))
        if self._cache.nominated and plan.core.has_rules:
            extra = self._beside_nominated(cycle.pod, plan, extra)
        return extra

    def _refused_by(self, plugin: Plugin, cycle: Cycle) -> list[Refusal]:
        return self._timing.call(cycle.sampled, "Filter", plugin.name, lambda: list(plugin.refusals(cycle)))

    def _beside_nominated(self, pod: PodInfo, plan: Plan, extra: array[int] | None) -> array[int] | None:
        """Refuse nodes that would not take the Pod once the Pods that are nominated to them are there.

        Resources are in the columns already; this is for ports, affinity and spreading.
        """
        for name in {node for _, node in self._cache.nominated.values()}:
            info = self._cache.infos[name]
            others = self._nominated_before(pod, info)
            if not others or info.slot < 0:
                continue
            verdict = self._with_pods(plan, info, others)
            if verdict and verdict & 0xFF != _sched.FIT:
                if extra is None:
                    extra = array("B", bytes(self._cache.nodes.capacity))
                extra[info.slot] = extra[info.slot] or verdict
        return extra

    def _with_pods(self, plan: Plan, info: NodeInfo, pods: list[PodInfo]) -> int:
        """The verdict on a node as if these Pods were on it instead of being nominated to it."""
        with self._cache.trial(info) as trial:
            trial.clear_nominated()
            for pod in pods:
                trial.add(pod)
            return plan.core.verdict(info.slot)

    def _try_nominated(self, name: str, plan: Plan, extra: array[int] | None) -> Placement | None:
        """The node that preemption made room on for a Pod, if it takes it now."""
        info = self._cache.infos.get(name)
        if info is None or info.slot < 0:
            return None
        code = 0 if extra is None else extra[info.slot]
        return Placement(info, 1, 1) if plan.core.verdict(info.slot, code) == 0 else None

    # -- nothing found -------------------------------------------------------------------------------------------------

    def fit_error(self, cycle: Cycle, plan: Plan, extra: array[int] | None) -> FitError:
        """Why no node takes the Pod, counted by reason."""
        cache = self._cache
        counts: Counter[str] = Counter()
        plugins: set[str] = set()
        hopeful: list[int] = []
        verdicts = self._verdicts(cycle, plan, extra)
        for verdict, number in verdicts.items():
            reasons = plan.explain(verdict)
            for reason in reasons:
                counts[reason.text] = counts.get(reason.text, 0) + number
                plugins.add(reason.plugin)
            if reasons and all(reason.resolvable for reason in reasons):
                hopeful.append(verdict)
        if cycle.only is not None:
            outside = (cache.index.all & ~cycle.only).bit_count()
            counts += Counter({_outside(cycle).text: outside})
            plugins |= cycle.narrowed_by
        error = FitError(cycle.pod, cache.nodes.live, counts=counts, plugins=plugins)
        error.plan, error.extra = plan, extra
        error.hopeful_count = sum(verdicts[verdict] for verdict in hopeful)
        if error.hopeful_count == error.total:
            error.hopeful = cache.everywhere
        elif hopeful:
            only = cycle.only

            def among() -> array[int]:
                slots = cache.everywhere() if only is None else _columns.expand(only, cache.nodes.capacity)
                return _columns.among(cache.nodes.verdicts, hopeful, slots)

            error.hopeful = among
        return error

    def verdict_beside_nominated(self, cycle: Cycle, plan: Plan, extra: array[int] | None, info: NodeInfo) -> int:
        """The verdict on a node in the middle of a trial: as it is now, and with the Pods nominated to it."""
        code = 0
        if extra is not None and extra[info.slot]:
            code = self._refused_again(cycle, info)
        verdict = plan.core.verdict(info.slot, code)
        if verdict or not plan.core.has_rules:
            return verdict
        others = self._nominated_before(cycle.pod, info)
        return self._with_pods(plan, info, others) if others else 0

    def _refused_again(self, cycle: Cycle, info: NodeInfo) -> int:
        """Ask the plugins that refuse nodes for single Pods about one node, as it is in a trial."""
        bit = 1 << info.slot
        if cycle.only is not None and not cycle.only & bit:
            return self._reasons.code(_outside(cycle))
        for plugin in self._filters[Filters.key(cycle.pod)].refusals:
            for refusal in plugin.refusals(cycle):
                if refusal.mask & bit:
                    return self._reasons.code(refusal.reason)
        return 0

    @staticmethod
    def _nominated_before(pod: PodInfo, info: NodeInfo) -> list[PodInfo]:
        """Pods nominated to a node whose room a Pod must leave."""
        return [other for other in info.nominated.values() if other.priority >= pod.priority and other.uid != pod.uid]

    def _verdicts(self, cycle: Cycle, plan: Plan, extra: array[int] | None) -> dict[int, int]:
        """Verdict → number of the nodes that were to be looked at."""
        told = plan.core.verdicts(extra)
        if cycle.only is None:
            return told
        return Counter(self._cache.nodes.verdicts[slot] for slot in bits(cycle.only))


def _outside(cycle: Cycle) -> Reason:
    """Why the nodes are refused that a plugin left out before the search."""
    names = sorted(cycle.narrowed_by)
    return Reason(names[0], f"node(s) didn't satisfy plugin(s) [{' '.join(names)}]", resolvable=False)


def nodes_to_find(nodes: int, percentage: int) -> int:
    """How many feasible nodes end a search; `percentage` 0 is the adaptive share."""
    if nodes < FEASIBLE_MIN:
        return nodes
    if percentage == 0:
        percentage = max(PERCENTAGE_MIN, 50 - nodes // 125)
    return max(FEASIBLE_MIN, nodes * percentage // 100)

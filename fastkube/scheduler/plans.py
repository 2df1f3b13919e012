"""Plans for Pods, kept for as long as they hold: the bridge from plugins to fastkube._sched.

A screen (what a PodSpec may run on, and its resource scores) lives until nodes come, go, or change labels or taints; a
plan (rules and scorers on tallies) until what it was made from changes. Both are made again when they are next needed,
and the least recently used ones are given up.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fastkube import _sched
from fastkube.api import resources
from fastkube.scheduler.cache import Cache
from fastkube.scheduler.evaluations import Asked
from fastkube.scheduler.framework import PlanDraft, Plugin, PodKind, Reason, Reasons, ScreenDraft
from fastkube.scheduler.metrics import Timing
from fastkube.scheduler.pods import PodInfo, PodSpec
from fastkube.scheduler.tallies import Selected

SCREEN_BYTES_MAX = 64 * 1024 * 1024
SCREENS_MIN = 16
PLANS_MAX = 2048
_SCREEN_BYTES_PER_NODE = 17

TOO_MANY_PODS = "Too many pods"
FIT_PLUGIN = "NodeResourcesFit"


EXPIRED = "expired"
"""Why a plan is given up: the nodes, or what the plan counts, are others now."""


class Points(NamedTuple):
    """The plugins of a profile which plans are made from, by extension point."""

    screen_filter: Sequence[Plugin]
    screen_score: Sequence[Plugin]
    plan_filter: Sequence[Plugin]
    plan_score: Sequence[Plugin]


class Screen:
    """A core screen, what it depends on, and how its verdicts about resources are told."""

    __slots__ = (
        "core", "filters", "fit_names", "image_generation", "kinds", "scorers", "scores", "static_generation",
        "uses_images",
    )  # fmt: skip

    def __init__(
        self,
        core: _sched.Screen,
        draft: ScreenDraft,
        cache: Cache,
        fit_names: list[str],
        filters: frozenset[str],
        scores: frozenset[str],
    ) -> None:
        self.core = core
        self.filters = filters
        self.scores = scores
        self.scorers = draft.scorers
        self.uses_images = draft.uses_images
        self.static_generation = cache.static_generation
        self.image_generation = cache.image_generation
        self.fit_names = fit_names
        self.kinds: set[PodKind] = set()
        """Of the plans that were made with it."""

    def holds(self, cache: Cache) -> bool:
        if self.static_generation != cache.static_generation:
            return False
        return not self.uses_images or self.image_generation == cache.image_generation


class Plan:
    """A core plan, what it depends on, and what its verdicts mean."""

    __slots__ = (
        "__weakref__", "_explained", "_generations", "_held_at", "_reasons", "asked", "core", "filters", "scores",
        "screen", "selected",
    )  # fmt: skip

    def __init__(
        self,
        core: _sched.Plan,
        screen: Screen,
        selected: list[Selected],
        generations: tuple[int | None, ...],
        reasons: Reasons,
        filters: frozenset[str],
        scores: frozenset[str],
    ) -> None:
        """`filters` and `scores` are the plugins that have something to say about such Pods."""
        self.core = core
        self.screen = screen
        self.selected = selected
        self._generations = generations
        self._held_at: tuple[int, ...] = ()
        self._reasons = reasons
        self._explained: dict[int, tuple[Reason, ...]] = {}
        self.filters = filters
        self.scores = scores
        self.asked: dict[tuple[bool, bool], Asked] = {}
        """Counts, for Pods with and without volumes and claims."""

    def holds(self, cache: Cache, now: tuple[int, ...]) -> bool:
        """`now`: the generations that Plans._generations gives."""
        if not self.screen.holds(cache):
            return False
        if now != self._held_at:
            if not all(then is None or then == at for then, at in zip(self._generations, now, strict=True)):
                return False
            self._held_at = now
        return True

    def explain(self, verdict: int) -> tuple[Reason, ...]:
        """Why a node with this verdict is refused: one reason, or one for each resource that is lacking."""
        found = self._explained.get(verdict)
        if found is None:
            found = self._explained[verdict] = self._explain(verdict)
        return found

    def _explain(self, verdict: int) -> tuple[Reason, ...]:
        if verdict & 0xFF != _sched.FIT:
            return (self._reasons.reason(verdict),) if verdict else ()
        resolvable = not verdict >> 31
        return tuple(
            Reason(FIT_PLUGIN, _lacking(name), resolvable)
            for place, name in enumerate(self.screen.fit_names)
            if verdict >> (8 + place) & 1
        )


def _lacking(resource: str) -> str:
    return TOO_MANY_PODS if resource == resources.PODS else f"Insufficient {resource}"


class Plans:
    """The plans of one profile."""

    def __init__(
        self, cache: Cache, points: Points, reasons: Reasons, workloads: Callable[[], int], timing: Timing
    ) -> None:
        """`workloads` gives a number that rises when Services or owners of Pods change."""
        self._cache = cache
        self._points = points
        self._timing = timing
        self._reasons = reasons
        self._workloads = workloads
        self._screens: OrderedDict[PodSpec, Screen] = OrderedDict()
        self._plans: OrderedDict[PodKind, Plan] = OrderedDict()

    def plan_for(self, pod: PodInfo, *, sampled: bool = False) -> Plan:
        """The plan for a Pod, made now if there is none that holds."""
        kind, timing = PodKind(pod.spec, pod.labels, pod.owner), self._timing
        started = timing.now() if sampled else None
        plan = self._plans.get(kind)
        now = self._generations()
        if plan is not None and plan.holds(self._cache, now):
            self._plans.move_to_end(kind)
            timing.hinted(True, started)
            return plan
        timing.hinted(False, started)
        if plan is not None:
            timing.flushed(EXPIRED)
            del self._plans[kind]
            plan.screen.kinds.discard(kind)
            self._give_up(plan)
        self._cache.order()
        begun = timing.now()
        plan = self._plans[kind] = self._make(kind)
        timing.worked_out(begun)
        self._plans.move_to_end(kind)
        plan.screen.kinds.add(kind)
        if len(self._plans) > PLANS_MAX:
            oldest, gone = self._plans.popitem(last=False)
            gone.screen.kinds.discard(oldest)
            self._give_up(gone)
        return plan

    def is_current(self, pod: PodInfo, plan: Plan) -> bool:
        """Whether a plan that was made for a Pod still holds."""
        kind = PodKind(pod.spec, pod.labels, pod.owner)
        return self._plans.get(kind) is plan and plan.holds(self._cache, self._generations())

    def _generations(self) -> tuple[int, ...]:
        tallies = self._cache.tallies
        return tallies.terms_generation, tallies.namespace_generation, tallies.placement_generation, self._workloads()

    def _give_up(self, plan: Plan) -> None:
        for selected in plan.selected:
            self._cache.tallies.release(selected)

    def _make(self, kind: PodKind) -> Plan:
        if kind.spec.request is None:
            self._cache.prepare(kind.spec)
        draft = PlanDraft(self._cache, self._reasons)
        call = self._timing.call
        filters, scores = set(), set()
        for plugin in self._points.plan_filter:
            before = len(draft.ports) + len(draft.rules)
            call(True, "Filter", plugin.name, plugin.plan_filter, kind, draft)
            if len(draft.ports) + len(draft.rules) > before:
                filters.add(plugin.name)
        for plugin in self._points.plan_score:
            before = len(draft.scorers)
            call(True, "Score", plugin.name, plugin.plan_score, kind, draft)
            if len(draft.scorers) > before:
                scores.add(plugin.name)
        screen = self._screen(kind.spec)  # last: drafting may have added columns
        core = _sched.Plan(self._cache.nodes, screen.core, draft.ports, draft.rules, [*screen.scorers, *draft.scorers])
        terms, namespaces, placement, workloads = self._generations()
        generations = (
            terms if draft.follows_terms else None,
            namespaces if draft.follows_terms else None,
            placement if draft.follows_placement else None,
            workloads if draft.follows_workloads else None,
        )
        asked = screen.filters | filters, screen.scores | scores
        return Plan(core, screen, draft.selected, generations, self._reasons, *asked)

    def _screen(self, spec: PodSpec) -> Screen:
        screen = self._screens.get(spec)
        if screen is None or not screen.holds(self._cache):
            if screen is not None:
                self._end_screen(screen)
            limit = max(SCREENS_MIN, SCREEN_BYTES_MAX // (_SCREEN_BYTES_PER_NODE * self._cache.nodes.capacity))
            while len(self._screens) >= limit:
                self._end_screen(self._screens.popitem(last=False)[1])
            screen = self._screens[spec] = self._make_screen(spec)
        self._screens.move_to_end(spec)
        return screen

    def _end_screen(self, screen: Screen) -> None:
        """With it end the plans that were made with it, so that its memory is free."""
        for kind in screen.kinds:
            plan = self._plans.get(kind)
            if plan is not None and plan.screen is screen:
                del self._plans[kind]
                self._give_up(plan)
        screen.core.give_back()

    def _make_screen(self, spec: PodSpec) -> Screen:
        draft = ScreenDraft(self._cache)
        call = self._timing.call
        for plugin in self._points.screen_filter:
            call(True, "Filter", plugin.name, plugin.screen_filter, spec, draft)
        scores = set()
        for plugin in self._points.screen_score:
            before = len(draft.scorers) + len(draft.resources)
            call(True, "Score", plugin.name, plugin.screen_score, spec, draft)
            if len(draft.scorers) + len(draft.resources) > before:
                scores.add(plugin.name)
        request = spec.request
        if draft.unchecked:
            checked = {name: value for name, value in spec.requests.items() if name not in draft.unchecked}
            request = _sched.Request({self._cache.column(name): value for name, value in checked.items()})
        core = _sched.Screen(self._cache.nodes, request, spec.priority, draft.resources, draft.check_fit)
        for refusal in draft.refusals:
            core.refuse(refusal.mask, self._reasons.code(refusal.reason))
        names = {column: name for name, column in self._cache.columns.items()}
        fit_names = [names[column] for column in request.fit_columns()]
        filters = frozenset(plugin.name for plugin in self._points.screen_filter if plugin.asks(spec))
        return Screen(core, draft, self._cache, fit_names, filters, frozenset(scores))

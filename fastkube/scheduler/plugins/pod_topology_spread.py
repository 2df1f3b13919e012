"""PodTopologySpread: Pods of a kind are spread over zones, hosts or any other topology.

Hard constraints are rules, soft ones a score. Which nodes and Pods count follows upstream: only nodes that have the
labels of all the Pod's constraints (of one strictness), and that pass its node affinity and, if asked, its taints; only
Pods of the same namespace that are not terminating.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastkube import _sched, _scores
from fastkube.api import selectors
from fastkube.api.selectors import EQUALS, NOTHING, LabelSelector, Requirement
from fastkube.scheduler.cache import Cache
from fastkube.scheduler.events import ASSIGNED_POD, NODE, UNSCHEDULED_POD, Action, ClusterEvent, Interest
from fastkube.scheduler.framework import Handle, PlanDraft, Plugin, PodKind, Reason
from fastkube.scheduler.nodes import HOSTNAME_LABEL, ZONE_LABELS
from fastkube.scheduler.plugins.taint_toleration import untolerated
from fastkube.scheduler.pods import LabelClass, Owner, PodInfo, PodSpec, SpreadConstraint, parse_constraint
from fastkube.scheduler.tallies import NODE as EACH_NODE
from fastkube.scheduler.tallies import Matcher, match_spread

_SYSTEM_DEFAULTS = (
    SpreadConstraint(3, HOSTNAME_LABEL, hard=False, selector=None),
    SpreadConstraint(5, ZONE_LABELS[0], hard=False, selector=None),
)

SERVICES = "v1/services"
_OWNERS = {
    ("v1", "ReplicationController"): "v1/replicationcontrollers",
    ("apps/v1", "ReplicaSet"): "apps/v1/replicasets",
    ("apps/v1", "StatefulSet"): "apps/v1/statefulsets",
}


class PodTopologySpread(Plugin):
    name = "PodTopologySpread"
    interests = (
        Interest(ASSIGNED_POD, Action.ADD | Action.DELETE | Action.UPDATE_POD_LABEL),
        Interest(UNSCHEDULED_POD, Action.UPDATE_POD_LABEL | Action.UPDATE_POD_TOLERATION),
        Interest(NODE, Action.ADD | Action.DELETE | Action.UPDATE_NODE_LABEL | Action.UPDATE_NODE_TAINT),
    )

    UNEVEN = Reason(name, "node(s) didn't match pod topology spread constraints")
    MISSING = Reason(
        name, "node(s) didn't match pod topology spread constraints (missing required label)", resolvable=False
    )

    def __init__(self, args: Mapping[str, Any], handle: Handle, weight: int = 1) -> None:
        super().__init__(args, handle, weight)
        self._system_defaults = (args.get("defaultingType") or "System") == "System"
        self._defaults: tuple[SpreadConstraint, ...] = _SYSTEM_DEFAULTS
        if not self._system_defaults:
            told = args.get("defaultConstraints") or ()
            self._defaults = tuple(parse_constraint(each)._replace(selector=None) for each in told)
        handle.lister(SERVICES).add_indexer("namespace", _namespace_of)
        for resource in _OWNERS.values():
            handle.lister(resource)

    def plan_filter(self, kind: PodKind, draft: PlanDraft) -> None:
        constraints = self._constraints(kind, draft, hard=True)
        if not constraints:
            return
        draft.follows_placement = True
        uneven, missing = draft.code(self.UNEVEN), draft.code(self.MISSING)
        labelled = _having_all(draft.cache, constraints)
        for constraint, selector in constraints:
            eligible = labelled & _included(draft.cache, kind.spec, constraint)
            matcher = _counted(kind.spec.namespace, selector)
            tally = draft.tally(matcher, constraint.topology_key, eligible)
            own = selector.matches(kind.labels.labels)
            draft.rules.append(_sched.Spread(tally, constraint.max_skew, own, constraint.min_domains, uneven, missing))

    def plan_score(self, kind: PodKind, draft: PlanDraft) -> None:
        constraints = self._constraints(kind, draft, hard=False)
        if not constraints:
            return
        draft.follows_placement = True
        # nodes without a zone are still spread over by their host names, if that is all that is asked by default
        require_all = bool(kind.spec.spread) or not self._system_defaults
        labelled = _having_all(draft.cache, constraints) if require_all else draft.cache.index.all
        parts: list[tuple[_sched.Tally, _sched.Topology | None, int]] = []
        for constraint, selector in constraints:
            matcher = _counted(kind.spec.namespace, selector)
            if constraint.topology_key == HOSTNAME_LABEL:
                tally, hosts = draft.tally(matcher, EACH_NODE), draft.cache.tallies.topology(HOSTNAME_LABEL)
                parts.append((tally, hosts, constraint.max_skew))
            else:
                eligible = labelled & _included(draft.cache, kind.spec, constraint)
                parts.append((draft.tally(matcher, constraint.topology_key, eligible), None, constraint.max_skew))
        draft.scorers.append(_scores.SpreadScore(self.name, self.weight, parts, require_all))

    # -- which constraints ---------------------------------------------------------------------------------------------

    def _constraints(
        self, kind: PodKind, draft: PlanDraft, *, hard: bool
    ) -> list[tuple[SpreadConstraint, LabelSelector]]:
        """The Pod's constraints of one strictness with their selectors, or the defaults when it has none at all."""
        if kind.spec.spread:
            return [
                (each, _with_label_keys(each, kind.labels.labels)) for each in kind.spec.spread if each.hard is hard
            ]
        defaults = [each for each in self._defaults if each.hard is hard]
        if not defaults:
            return []
        draft.follows_workloads = True
        selector = self._default_selector(kind.labels, kind.owner)
        return [(each, selector) for each in defaults] if selector else []

    def _default_selector(self, labels: LabelClass, owner: Owner | None) -> LabelSelector:
        """What selects the Pods of the same Services and owner; empty when there are none."""
        requirements: dict[str, Requirement] = {}
        extra: list[Requirement] = []
        for service in self.handle.lister(SERVICES).by_index("namespace", labels.namespace):
            selector = (service.get("spec") or {}).get("selector")
            if selector and selectors.from_labels(selector).matches(labels.labels):
                requirements |= {key: Requirement(key, EQUALS, (value,)) for key, value in selector.items()}
        resource = _OWNERS.get((owner.api_version, owner.kind)) if owner else None
        found = self.handle.lister(resource).get(labels.namespace, owner.name) if resource and owner else None
        if found is not None:
            told = (found.get("spec") or {}).get("selector")
            if resource == "v1/replicationcontrollers":
                requirements |= {key: Requirement(key, EQUALS, (value,)) for key, value in (told or {}).items()}
            else:
                extra = list(selectors.from_object(told).requirements)
        return LabelSelector((*requirements.values(), *extra))

    # -- who wakes -----------------------------------------------------------------------------------------------------

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        hard = [each for each in pod.spec.spread if each.hard]
        if event.resource == UNSCHEDULED_POD:
            return event.new.uid == pod.uid and self._pod_differs(pod, hard, event.old, event.new)
        if event.resource == ASSIGNED_POD:
            return self._pod_helps(pod, hard, event)
        before, now = (_node_labels(each, hard) for each in (event.old, event.new))
        if event.old is None or event.new is None or (before is None) != (now is None):
            return before is not None or now is not None
        old, new = (_taints_of(each) for each in (event.old, event.new))
        return now is not None and (before != now or old != new)

    def _pod_differs(self, pod: PodInfo, hard: list[SpreadConstraint], old: PodInfo, new: PodInfo) -> bool:
        """Whether an update of a Pod changes what its constraints count, or where."""
        if old.spec.tolerations != new.spec.tolerations and any(each.honor_taints for each in hard):
            return True
        before, now = old.labels.labels, new.labels.labels
        return before != now and (
            not pod.spec.spread or any(_selects(each, before) != _selects(each, now) for each in hard)
        )

    def _pod_helps(self, pod: PodInfo, hard: list[SpreadConstraint], event: ClusterEvent) -> bool:
        """Whether a Pod with a node that came, changed or went is one that is counted."""
        if any(each is not None and each.namespace != pod.namespace for each in (event.old, event.new)):
            return False
        if event.old is not None and event.new is not None:
            return self._pod_differs(pod, hard, event.old, event.new)
        labels = (event.new or event.old).labels.labels
        return not pod.spec.spread or any(_selects(each, labels) for each in hard)


def _selects(constraint: SpreadConstraint, labels: Mapping[str, str]) -> bool:
    return constraint.selector is not None and constraint.selector.matches(labels)


def _node_labels(node: dict[str, Any] | None, constraints: list[SpreadConstraint]) -> list[str] | None:
    """The domains of a node; None where it lacks one, or is not there."""
    labels = ((node or {}).get("metadata") or {}).get("labels") or {}
    if node is None or any(each.topology_key not in labels for each in constraints):
        return None
    return [labels[each.topology_key] for each in constraints]


def _taints_of(node: dict[str, Any]) -> Any:
    return (node.get("spec") or {}).get("taints") or []


def _namespace_of(obj: dict[str, Any]) -> tuple[str, ...]:
    return (obj["metadata"].get("namespace") or "",)


def _with_label_keys(constraint: SpreadConstraint, labels: Mapping[str, str]) -> LabelSelector:
    """The selector, narrowed to the Pod's own values of matchLabelKeys."""
    selector = constraint.selector if constraint.selector is not None else NOTHING
    own = [Requirement(key, EQUALS, (labels[key],)) for key in constraint.match_label_keys if key in labels]
    if not own or selector is NOTHING:
        return selector
    return LabelSelector((*selector.requirements, *own))


def _counted(namespace: str, selector: LabelSelector) -> Matcher:
    """The Pods that count: none, as upstream has it, for a selector of all."""
    chosen = selector if selector.requirements else NOTHING
    return match_spread(namespace, chosen, chosen is NOTHING)


def _having_all(cache: Cache, constraints: list[tuple[SpreadConstraint, LabelSelector]]) -> int:
    mask = cache.index.all
    for constraint, _ in constraints:
        mask &= cache.index.having(constraint.topology_key)
    return mask


def _included(cache: Cache, spec: PodSpec, constraint: SpreadConstraint) -> int:
    """The nodes that the constraint's inclusion policies let count."""
    mask = spec.required.mask(cache.index) if constraint.honor_affinity else cache.index.all
    if constraint.honor_taints:
        for taints, tainted in cache.index.taints():
            if untolerated(spec, taints):
                mask &= ~tainted
    return mask

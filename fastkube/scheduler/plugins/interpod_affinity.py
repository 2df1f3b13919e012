"""InterPodAffinity: Pods that want to be near others, or away from them; and the others' wishes about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastkube import _sched, _scores
from fastkube.scheduler.events import ASSIGNED_POD, NODE, UNSCHEDULED_POD, Action, ClusterEvent, Interest
from fastkube.scheduler.framework import Handle, PlanDraft, Plugin, PodKind, Reason
from fastkube.scheduler.pods import PodInfo, PodSpec, PodTerm
from fastkube.scheduler.tallies import KEEP_AWAY, LIKE, NEED, match_terms


class InterPodAffinity(Plugin):
    name = "InterPodAffinity"
    interests = (
        Interest(ASSIGNED_POD, Action.ADD | Action.DELETE | Action.UPDATE_POD_LABEL),
        Interest(UNSCHEDULED_POD, Action.UPDATE_POD_LABEL),
        Interest(NODE, Action.ADD | Action.UPDATE_NODE_LABEL),
    )

    UNWANTED_HERE = Reason(name, "node(s) didn't satisfy existing pods anti-affinity rules")
    LONELY = Reason(name, "node(s) didn't match pod affinity rules", resolvable=False)
    CROWDED = Reason(name, "node(s) didn't match pod anti-affinity rules")

    def __init__(self, args: Mapping[str, Any], handle: Handle, weight: int = 1) -> None:
        super().__init__(args, handle, weight)
        hard = args.get("hardPodAffinityWeight")
        self._hard_weight = 1 if hard is None else int(hard)
        self._ignore_others = bool(args.get("ignorePreferredTermsOfExistingPods"))

    def plan_filter(self, kind: PodKind, draft: PlanDraft) -> None:
        spec, labels = kind.spec, kind.labels
        if spec.affinity:
            matcher = match_terms(spec.affinity)
            keys = dict.fromkeys(term.topology_key for term in spec.affinity)
            near = [draft.tally(matcher, key) for key in keys]
            namespace_labels = draft.cache.tallies.namespace_labels(spec.namespace)
            own = all(term.matches(spec.namespace, namespace_labels, labels.labels) for term in spec.affinity)
            draft.rules.append(_sched.Require(near, draft.code(self.LONELY), own))
        if spec.anti_affinity:
            away = [draft.tally(match_terms((term,)), term.topology_key) for term in spec.anti_affinity]
            draft.rules.append(_sched.Forbid(away, draft.code(self.CROWDED)))
        draft.follows_terms = True
        carried = draft.cache.tallies.carried_for(labels)
        unwanted = [each.tally for each in carried if each.kind == KEEP_AWAY]
        if unwanted:
            draft.rules.append(_sched.Forbid(unwanted, draft.code(self.UNWANTED_HERE)))

    def plan_score(self, kind: PodKind, draft: PlanDraft) -> None:
        spec = kind.spec
        parts = [self._wish(draft, weight, term) for weight, term in spec.preferred_affinity]
        parts += [self._wish(draft, -weight, term) for weight, term in spec.preferred_anti_affinity]
        if not parts and self._ignore_others:
            return
        draft.follows_terms = True
        for carried in draft.cache.tallies.carried_for(kind.labels):
            if carried.kind == LIKE:
                parts.append((carried.tally, 1))
            elif carried.kind == NEED and self._hard_weight:
                parts.append((carried.tally, self._hard_weight))
        if parts:
            draft.scorers.append(_scores.Affinity(self.name, self.weight, parts))

    @staticmethod
    def _wish(draft: PlanDraft, weight: int, term: PodTerm) -> tuple[_sched.Tally, int]:
        return draft.tally(match_terms((term,)), term.topology_key), weight

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        if event.resource == UNSCHEDULED_POD:
            return bool(event.new.uid == pod.uid)
        if event.resource == ASSIGNED_POD:
            return self._pod_helps(pod, event)
        return self._node_helps(pod.spec, event)

    @staticmethod
    def _node_helps(spec: PodSpec, event: ClusterEvent) -> bool:
        """A node that joined a domain may be near wanted Pods; one that left a domain has lost unwanted ones."""
        if not spec.affinity and not spec.anti_affinity:
            return True  # others keep the Pod away, from other domains maybe
        now = event.new["metadata"].get("labels") or {}
        before = ((event.old or {}).get("metadata") or {}).get("labels") or {}
        joined = {key for key, value in now.items() if before.get(key) != value}
        left = {key for key, value in before.items() if now.get(key) != value}
        if any(term.topology_key in joined for term in spec.affinity):
            return True
        return bool(spec.anti_affinity) and (
            event.old is None or any(term.topology_key in left for term in spec.anti_affinity)
        )

    def _pod_helps(self, pod: PodInfo, event: ClusterEvent) -> bool:
        """A Pod that came may be wanted; one that went, or is not what it was, may have been in the way."""
        old, new, spec = event.old, event.new, pod.spec
        if new is not None and self._selects_all(spec.affinity, new):
            return old is None or not self._selects_all(spec.affinity, old)
        if old is None:
            return False
        if new is not None and self._selects_any(spec.anti_affinity, new):
            return False
        return self._selects_any(spec.anti_affinity, old) or (
            new is None and self._selects_any(old.spec.anti_affinity, pod)
        )

    def _selects_all(self, terms: tuple[PodTerm, ...], pod: PodInfo) -> bool:
        return bool(terms) and all(self._selects(term, pod) for term in terms)

    def _selects_any(self, terms: tuple[PodTerm, ...], pod: PodInfo) -> bool:
        return any(self._selects(term, pod) for term in terms)

    def _selects(self, term: PodTerm, pod: PodInfo) -> bool:
        labels = self.handle.cache.tallies.namespace_labels(pod.namespace)
        return term.matches(pod.namespace, labels, pod.labels.labels)

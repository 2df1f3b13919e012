"""ReplicaSets: as many Pods as wanted, adopted where they match, created in bursts, taken away in upstream's order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from fastkube.api.meta import controller_of
from fastkube.controllers.actions import GONE, Action, Create, Delete, Requeue, Tell, Together, status_update
from fastkube.controllers.common import (
    PODS,
    Object,
    Objects,
    available_in,
    claim,
    condition,
    controlled_by_or_matching,
    deletion_order,
    is_active,
    is_finished,
    is_terminating,
    make_condition,
    pod_from_template,
)
from fastkube.controllers.pod_topics import REPLICA_TOPICS
from fastkube.controllers.runner import Context, Controller, Watch
from fastkube.errors import ApiError

REPLICASETS = "apps/v1/replicasets"

BURST = 500
"""Pods that one attempt creates or deletes at most; the next goes on."""


class View(NamedTuple):
    replicaset: Object
    resource: str
    owned: Objects
    orphans: Objects
    related: Objects
    """Pods of all ReplicaSets of the same owner: a scale-down prefers nodes that run many of them."""
    now: float
    live: dict[str, Any] = {}  # noqa: RUF012 - never changed, only replaced


def view(context: Context, key: str) -> View | None:
    return view_of(REPLICASETS, context, key)


def view_of(resource: str, context: Context, key: str) -> View | None:
    """Shared with ReplicationControllers, which differ in their API only."""
    caches = context.caches
    replicaset = caches.by_key(resource, key)
    if replicaset is None:
        return None
    metadata = replicaset["metadata"]
    owned = caches.index(PODS, "controller", metadata["uid"])
    orphans = caches.index(PODS, "orphan", metadata["namespace"])
    related = owned
    if len(owned) > _wanted(replicaset) and (owner := controller_of(replicaset)):
        siblings = caches.index(resource, "controller", owner["uid"])
        related = [pod for rs in siblings for pod in caches.index(PODS, "controller", rs["metadata"]["uid"])]
    return View(replicaset, resource, owned, orphans, related, context.now)


def _wanted(replicaset: Object) -> int:
    replicas = replicaset["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)


def reconcile(view: View) -> Sequence[Action]:
    replicaset, resource = view.replicaset, view.resource
    claimed = claim(PODS, replicaset, resource, view.owned, view.orphans, view.live)
    if claimed.asks:
        return claimed.asks
    pods = [pod for pod in claimed.objects if not is_finished(pod)]
    active = [pod for pod in pods if not is_terminating(pod)]
    missing = _wanted(replicaset) - len(active)
    status = _status(view, active, len(pods) - len(active))
    if missing and not is_terminating(replicaset):
        # the status follows with the next attempt, which these changes bring about
        return [*claimed.actions, _manage(view, active, missing, status)]
    actions = [*claimed.actions]
    if status != replicaset.get("status"):
        actions.append(status_update(resource, replicaset, status))
    if (again := _next_available(replicaset, active, view.now)) is not None:
        actions.append(Requeue(again))
    return actions


def _manage(view: View, active: Objects, missing: int, status: Object) -> Together:
    """Create what is missing, or delete what is too much."""
    failed = partial(_failed, view, status, "FailedCreate" if missing > 0 else "FailedDelete")
    if missing > 0:
        return Together(_creations(view.replicaset, min(missing, BURST)), slow_start=True, otherwise=failed)
    surplus = min(-missing, BURST)
    victims = active
    if surplus < len(active):
        company = Counter(pod["spec"].get("nodeName") or "" for pod in view.related if is_active(pod))
        victims = deletion_order(active, company, view.now)[:surplus]
    return Together(_deletions(view.replicaset, victims), otherwise=failed)


def _creations(replicaset: Object, count: int) -> list[Action]:
    pod = pod_from_template(replicaset["spec"]["template"], replicaset, prefix=f"{replicaset['metadata']['name']}-")
    create = Create(
        PODS,
        pod,
        then=lambda made: [Tell(replicaset, "Normal", "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")],
        otherwise=lambda error: [Tell(replicaset, "Warning", "FailedCreate", f"Error creating: {error.message}")],
    )
    return [create] * count


def _deletions(owner: Object, pods: Objects) -> list[Action]:
    return [delete_pod(owner, pod) for pod in pods]


def delete_pod(owner: Object, pod: Object) -> Delete:
    """Delete a Pod, and tell it on its owner."""
    name = pod["metadata"]["name"]
    return Delete(
        PODS,
        pod,
        ignore=GONE,
        then=lambda _: [Tell(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {name}")],
        otherwise=lambda error: [Tell(owner, "Warning", "FailedDelete", f"Error deleting: {error.message}")],
    )


def _failed(view: View, status: Object, reason: str, error: ApiError) -> Sequence[Action]:
    """Tell in the status that Pods could not be made or deleted; once, as long as it lasts."""
    replicaset = view.replicaset
    if condition(replicaset, "ReplicaFailure") is not None:
        failed = {**status, "conditions": replicaset["status"]["conditions"]}
    else:
        told = make_condition("ReplicaFailure", "True", reason, error.message, view.now)
        failed = {**status, "conditions": [*status.get("conditions", ()), told]}
    if failed == replicaset.get("status"):
        return ()
    return [status_update(view.resource, replicaset, failed)]


def _status(view: View, active: Objects, terminating: int) -> Object:
    """The status after an attempt without failures."""
    replicaset = view.replicaset
    spec = replicaset["spec"]
    wanted_labels = (spec["template"].get("metadata") or {}).get("labels") or {}
    min_ready_s = spec.get("minReadySeconds", 0)
    labeled = ready = available = 0
    known: dict[tuple[int, int], tuple[bool, float | None]] = {}  # by the ids of parts which many Pods share
    for pod in active:
        labels, conditions = pod["metadata"].get("labels"), (pod.get("status") or {}).get("conditions")
        found = known.get((id(labels), id(conditions)))
        if found is None:
            is_labeled = wanted_labels.items() <= (labels or {}).items()
            found = known[id(labels), id(conditions)] = is_labeled, available_in(pod, min_ready_s, view.now)
        is_labeled, left = found
        labeled += is_labeled
        ready += left is not None
        available += left == 0
    counts = {
        "replicas": len(active),
        "fullyLabeledReplicas": labeled,
        "readyReplicas": ready,
        "availableReplicas": available,
        "observedGeneration": replicaset["metadata"].get("generation", 0),
    }
    status: Object = {key: value for key, value in counts.items() if value or key == "replicas"}
    if replicaset["kind"] == "ReplicaSet":
        status["terminatingReplicas"] = terminating
    conditions = (replicaset.get("status") or {}).get("conditions") or ()
    left_over = [known for known in conditions if known["type"] != "ReplicaFailure"]
    if left_over:
        status["conditions"] = left_over
    return status


def _next_available(replicaset: Object, active: Objects, now: float) -> float | None:
    """Seconds until the next ready Pod becomes available, where minReadySeconds asks for a wait."""
    min_ready_s = replicaset["spec"].get("minReadySeconds", 0)
    if not min_ready_s:
        return None
    waits = [left for pod in active if (left := available_in(pod, min_ready_s, now))]
    return min(waits, default=None)


CONTROLLER = Controller(
    name="replicaset-controller",
    watches=(
        Watch(REPLICASETS, indexes=("namespace", "controller")),
        Watch(
            PODS,
            controlled_by_or_matching("ReplicaSet", REPLICASETS),
            ("controller", "orphan"),
            about=REPLICA_TOPICS["ReplicaSet"],
        ),
    ),
    view=view,
    reconcile=reconcile,
    workers="concurrent_replicaset_syncs",
)

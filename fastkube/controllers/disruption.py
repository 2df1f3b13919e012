"""PodDisruptionBudgets: how many Pods may be evicted now, from how many are healthy and how many are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from fastkube.api.meta import controller_of
from fastkube.client import object_key
from fastkube.client.discovery import Discovery
from fastkube.client.resource import object_path
from fastkube.clock import rfc3339
from fastkube.controllers.actions import GONE, Action, Ask, Fail, Patch, Requeue, Tell, status_update
from fastkube.controllers.caches import Caches
from fastkube.controllers.common import (
    PODS,
    Object,
    Objects,
    condition,
    condition_is,
    int_or_percent,
    is_finished,
    is_ready,
    is_terminating,
    seconds,
    selector_of,
    selector_text,
)
from fastkube.controllers.deployment import DEPLOYMENTS
from fastkube.controllers.pod_topics import HEALTH, METADATA, PHASE
from fastkube.controllers.replicaset import REPLICASETS
from fastkube.controllers.replicationcontroller import REPLICATION_CONTROLLERS
from fastkube.controllers.runner import Context, Controller, Watch, nothing
from fastkube.controllers.statefulset import STATEFULSETS

BUDGETS = "policy/v1/poddisruptionbudgets"

TARGET = "DisruptionTarget"
_POD = "pod:"
"""Begins the keys of Pods; the others are of budgets."""

EVICTION_TIMEOUT_S = 120.0
"""A Pod whose eviction was granted counts as gone for so long, though it is still there."""
_UNMANAGED = (
    "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of "
    "the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please "
    'set ".spec.minAvailable" field of the PDB to an integer value.'
)
_KNOWN = {
    ("ReplicaSet", "apps"): REPLICASETS,
    ("StatefulSet", "apps"): STATEFULSETS,
    ("Deployment", "apps"): DEPLOYMENTS,
    ("ReplicationController", ""): REPLICATION_CONTROLLERS,
}


class Scale(NamedTuple):
    """The controller of some of the Pods: its wanted number, or where to ask for it (`path`)."""

    uid: str
    replicas: int | None
    path: str = ""


class View(NamedTuple):
    budget: Object
    pods: Objects
    scales: list[Scale]
    """Of the Pods' controllers, each once; only where the budget needs them."""
    unmanaged: bool
    """Whether there are Pods without a controller, which a share of the wanted number cannot take into account."""
    unknown: str
    """The name of a Pod whose controller has no scale that could be known."""
    now: float
    live: dict[str, Any] = {}  # noqa: RUF012 - never changed, only replaced


class TargetView(NamedTuple):
    """A Pod that somebody announced to disrupt."""

    pod: Object
    now: float


def view(context: Context, key: str) -> View | TargetView | None:
    caches = context.caches
    if key.startswith(_POD):
        pod = caches.by_key(PODS, key.removeprefix(_POD))
        return None if pod is None else TargetView(pod, context.now)
    budget = caches.by_key(BUDGETS, key)
    if budget is None:
        return None
    namespace = budget["metadata"]["namespace"]
    matches = selector_of(budget).matches
    pods = [pod for pod in caches.index(PODS, "namespace", namespace) if matches(pod["metadata"].get("labels"))]
    scales: dict[str, Scale] = {}
    unmanaged, unknown = False, ""
    if _needs_scale(budget["spec"]):
        for pod in pods:
            scale = _scale(caches, context.facts.discovery, pod)
            if scale is not None:
                scales[scale.uid] = scale
            elif controller_of(pod) is None:
                unmanaged = True
            else:
                unknown = unknown or str(pod["metadata"]["name"])
    return View(budget, pods, list(scales.values()), unmanaged, unknown, context.now)


def _needs_scale(spec: Object) -> bool:
    """Only a plain number of Pods that must be there does not depend on how many there should be."""
    return "maxUnavailable" in spec or isinstance(spec.get("minAvailable"), str)


def _scale(caches: Caches, discovery: Discovery, pod: Object) -> Scale | None:
    """The scale of whoever controls the Pod; for a ReplicaSet of a Deployment that of the Deployment."""
    owner, thing, namespace = controller_of(pod), pod, pod["metadata"]["namespace"]
    while owner is not None:
        resource = _KNOWN.get((owner["kind"], owner["apiVersion"].rpartition("/")[0]))
        if resource is None:
            served = discovery.by_kind(owner["apiVersion"], owner["kind"])
            if served is None:
                return None
            return Scale(owner["uid"], None, object_path(served.resource, namespace, owner["name"], "scale"))
        found = caches.get(resource, namespace, owner["name"])
        if found is None or found["metadata"]["uid"] != owner["uid"]:
            return None
        thing, above = found, controller_of(found)
        if resource != REPLICASETS or above is None or above["kind"] != "Deployment":
            replicas = thing["spec"].get("replicas")
            return Scale(owner["uid"], 1 if replicas is None else int(replicas))
        owner = above
    return None


# ---------------------------------------------------------------- the decision


def reconcile(view: View | TargetView) -> Sequence[Action]:
    if isinstance(view, TargetView):
        return _target(view)
    budget = view.budget
    asks: list[Action] = [Ask(scale.path) for scale in view.scales if scale.path and scale.path not in view.live]
    if asks:
        return asks
    actions: list[Action] = []
    if not view.pods:
        actions.append(Tell(budget, "Normal", "NoPods", "No matching pods found"))
    elif view.unknown:
        return _refuse(view, f'found no controllers for pod "{view.unknown}"')
    elif view.unmanaged:
        actions.append(
            Tell(budget, "Warning", "UnmanagedPods", _UNMANAGED.format(selector_text(budget["spec"].get("selector"))))
        )
    disrupted, again, late = _still_disrupted(view)
    actions += late
    healthy = sum(
        is_ready(pod) and not is_terminating(pod) and pod["metadata"]["name"] not in disrupted for pod in view.pods
    )
    expected, desired = _counts(view)
    allowed = max(0, healthy - desired) if expected > 0 else 0
    status: Object = {
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
        "disruptionsAllowed": allowed,
        "observedGeneration": budget["metadata"].get("generation", 0),
    }
    if disrupted:
        status["disruptedPods"] = disrupted
    reason, state = ("SufficientPods", "True") if allowed else ("InsufficientPods", "False")
    status["conditions"] = _conditions(view, state, reason, "")
    actions += _write(view, status)
    if again is not None:
        actions.append(Requeue(again))
    return actions


def _counts(view: View) -> tuple[int, int]:
    """(expected, desired healthy) Pods."""
    spec = view.budget["spec"]
    alive = len(view.pods)
    if not _needs_scale(spec):
        return alive, int(spec.get("minAvailable", 1))
    expected = sum(_replicas(view, scale) for scale in view.scales)
    if "maxUnavailable" in spec:
        return expected, max(0, expected - int_or_percent(spec["maxUnavailable"], expected, round_up=True))
    return expected, int_or_percent(spec["minAvailable"], expected, round_up=True)


def _replicas(view: View, scale: Scale) -> int:
    if scale.replicas is not None:
        return scale.replicas
    found = view.live.get(scale.path)
    return int((found or {}).get("spec", {}).get("replicas") or 0)


def _still_disrupted(view: View) -> tuple[dict[str, str], float | None, list[Action]]:
    """The Pods whose eviction was granted and that have not gone yet; when to look again; what is overdue."""
    given = (view.budget.get("status") or {}).get("disruptedPods") or {}
    pods = {pod["metadata"]["name"]: pod for pod in view.pods}
    kept: dict[str, str] = {}
    waits: list[float] = []
    late: list[Action] = []
    for name, at in given.items():
        pod = pods.get(name)
        if pod is None or is_terminating(pod):
            continue
        left = seconds(at) + EVICTION_TIMEOUT_S - view.now
        if left > 0:
            kept[name] = at
            waits.append(left)
        else:
            message = f"Pod was expected by PDB {object_key(view.budget)} to be deleted but it wasn't"
            late.append(Tell(pod, "Warning", "NotDeleted", message))
    return kept, min(waits, default=None), late


def _refuse(view: View, why: str) -> list[Action]:
    """Nothing may be evicted while it is not known how many Pods there should be."""
    told = Tell(
        view.budget,
        "Warning",
        "CalculateExpectedPodCountFailed",
        f"Failed to calculate the number of expected pods: {why}",
    )
    return [told, *_write(view, _failed(view, why)), Fail(why)]


def _failed(view: View, message: str) -> Object:
    status = dict(view.budget.get("status") or {})
    status["disruptionsAllowed"] = 0
    for key in ("currentHealthy", "desiredHealthy", "expectedPods"):
        status.setdefault(key, 0)
    status["conditions"] = _conditions(view, "False", "SyncFailed", message)
    return status


def _conditions(view: View, state: str, reason: str, message: str) -> Objects:
    known = (view.budget.get("status") or {}).get("conditions") or ()
    made: Object = {
        "type": "DisruptionAllowed",
        "status": state,
        "reason": reason,
        "message": message,
        "observedGeneration": view.budget["metadata"].get("generation", 0),
        "lastTransitionTime": rfc3339(view.now),
    }
    for each in known:
        if each["type"] == "DisruptionAllowed" and each["status"] == state:
            made["lastTransitionTime"] = each["lastTransitionTime"]
    return [*(each for each in known if each["type"] != "DisruptionAllowed"), made]


def _write(view: View, status: Object) -> list[Action]:
    return [status_update(BUDGETS, view.budget, status)] if status != view.budget.get("status") else []


# ---------------------------------------------------------------- Pods that were to be disrupted


def _target(view: TargetView) -> Sequence[Action]:
    """A Pod that is still there long after its disruption was announced is no longer a target of it."""
    pod = view.pod
    if not _is_target(pod):
        return ()
    found = condition(pod, TARGET) or {}
    left = seconds(found["lastTransitionTime"]) + EVICTION_TIMEOUT_S - view.now
    if left > 0:
        return [Requeue(left)]
    over = {"type": TARGET, "status": "False", "lastTransitionTime": rfc3339(view.now), "reason": None, "message": None}
    body = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": {"conditions": [over]}}
    return [Patch(PODS, pod, body=body, kind="strategic", subresource="status", ignore=GONE)]


def _is_target(pod: Object) -> bool:
    return condition_is(pod, TARGET) and not is_terminating(pod) and not is_finished(pod)


# ---------------------------------------------------------------- wiring


def _budgets_of_pod(caches: Caches, pod: Object) -> Iterable[str]:
    labels = pod["metadata"].get("labels")
    budgets = caches.index(BUDGETS, "namespace", pod["metadata"]["namespace"])
    keys = [object_key(budget) for budget in budgets if selector_of(budget).matches(labels)]
    return [*keys, f"{_POD}{object_key(pod)}"] if _is_target(pod) else keys


def _budgets_of_namespace(caches: Caches, workload: Object) -> Iterable[str]:
    budgets = caches.index(BUDGETS, "namespace", workload["metadata"]["namespace"])
    return [object_key(budget) for budget in budgets]


def _pod_matters(old: Object, new: Object) -> bool:
    return _facts(old) != _facts(new)


def _facts(pod: Object) -> tuple[Any, ...]:
    metadata = pod["metadata"]
    state = (is_ready(pod), is_terminating(pod), is_finished(pod), condition_is(pod, TARGET))
    return *state, metadata.get("labels"), metadata.get("ownerReferences")


def _scale_changed(old: Object, new: Object) -> bool:
    return bool(old["spec"].get("replicas") != new["spec"].get("replicas"))


CONTROLLER = Controller(
    name="disruption-controller",
    component="controllermanager",
    watches=(
        Watch(BUDGETS, indexes=("namespace",)),
        Watch(PODS, _budgets_of_pod, ("namespace",), changed=_pod_matters, about=(PHASE | HEALTH | METADATA,)),
        Watch(DEPLOYMENTS, _budgets_of_namespace, changed=_scale_changed),
        Watch(STATEFULSETS, _budgets_of_namespace, changed=_scale_changed),
        Watch(REPLICASETS, nothing),
        Watch(REPLICATION_CONTROLLERS, _budgets_of_namespace, changed=_scale_changed),
    ),
    view=view,
    reconcile=reconcile,
    workers="concurrent_disruption_syncs",
)

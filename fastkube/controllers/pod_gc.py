"""Pods that nobody will remove otherwise: on nodes that are gone, terminating on nodes out of service, never bound.

Looks at the whole every CHECK_S. What it deletes is marked as failed first, so that controllers count it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from fastkube.client.resource import object_path
from fastkube.controllers.actions import GONE, Action, Ask, Delete, Patch, Requeue, Together
from fastkube.controllers.common import (
    PODS,
    Object,
    Objects,
    condition_is,
    is_finished,
    is_terminating,
    make_condition,
    phase,
    seconds,
)
from fastkube.controllers.runner import Context, Controller, Watch, nothing

NODES = "v1/nodes"

CHECK_S = 20.0
QUARANTINE_S = 40.0
"""A node may be unknown for this long before its Pods are given up: it may be about to register."""
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"


class View(NamedTuple):
    finished: Objects
    """Only if there are more than may be kept."""
    terminating: Objects
    by_missing_node: dict[str, Objects]
    out_of_service: frozenset[str]
    threshold: int
    now: float
    live: dict[str, Any] = {}  # noqa: RUF012 - never changed, only replaced


def view(context: Context, _key: str) -> View:
    caches, threshold = context.caches, context.options.terminated_pod_gc_threshold
    finished: Objects = []
    terminating: Objects = []
    by_missing_node: dict[str, Objects] = {}
    for pod in caches.list(PODS):
        if is_terminating(pod):
            terminating.append(pod)
        elif is_finished(pod):
            finished.append(pod)
        node = pod["spec"].get("nodeName")
        if node and caches.get(NODES, "", node) is None:
            by_missing_node.setdefault(node, []).append(pod)
    out_of_service = frozenset(
        node["metadata"]["name"]
        for node in caches.list(NODES)
        if not condition_is(node, "Ready")
        and any(taint["key"] == OUT_OF_SERVICE for taint in node["spec"].get("taints") or ())
    )
    if not threshold or len(finished) <= threshold:
        finished = []
    return View(finished, terminating, by_missing_node, out_of_service, threshold, context.now)


def reconcile(view: View) -> Sequence[Action]:
    asks: list[Action] = [
        Ask(path)
        for node, pods in view.by_missing_node.items()
        if any(_quarantined(pod, view.now) for pod in pods) and (path := object_path(NODES, "", node)) not in view.live
    ]
    if asks:
        return asks
    actions: list[Action] = []
    for node, pods in view.by_missing_node.items():
        if object_path(NODES, "", node) in view.live and view.live[object_path(NODES, "", node)] is None:
            actions += [step for pod in pods for step in _orphaned(pod, view.now)]
    for pod in view.terminating:
        if not pod["spec"].get("nodeName"):
            actions.append(_force(pod))
        elif pod["spec"]["nodeName"] in view.out_of_service:
            actions += _end(pod, view.now, "")
    if view.finished:
        surplus = sorted(view.finished, key=_evicted_and_oldest)[: len(view.finished) - view.threshold]
        actions += [_force(pod) for pod in surplus]
    again = Requeue(CHECK_S)
    return [Together(actions), again] if actions else [again]


def _quarantined(pod: Object, now: float) -> bool:
    """Whether the Pod is old enough: caches of Pods and Nodes are not of the same moment."""
    return now - seconds(pod["metadata"]["creationTimestamp"]) > QUARANTINE_S


def _evicted_and_oldest(pod: Object) -> tuple[bool, str, str]:
    evicted = (pod.get("status") or {}).get("reason") == "Evicted"
    return not evicted, pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]


def _orphaned(pod: Object, now: float) -> Sequence[Action]:
    return _end(pod, now, "PodGC: node no longer exists")


def _end(pod: Object, now: float, message: str) -> Sequence[Action]:
    """Fail the Pod, then remove it without waiting for its node."""
    if phase(pod) in ("Succeeded", "Failed"):
        return [_force(pod)]
    status: Object = {"phase": "Failed"}
    if message:
        told = make_condition("DisruptionTarget", "True", "DeletionByPodGC", message, now)
        status["conditions"] = [told]
    body = {"status": status}
    fail = Patch(
        PODS, pod, body=body, kind="strategic", subresource="status", ignore=GONE, then=lambda _: [_force(pod)]
    )
    return [fail]


def _force(pod: Object) -> Delete:
    return Delete(PODS, pod, grace_period_s=0, ignore=GONE)


CONTROLLER = Controller(
    name="pod-garbage-collector-controller",
    component="pod-garbage-collector",
    watches=(Watch(PODS, nothing), Watch(NODES, nothing)),
    view=view,
    reconcile=reconcile,
    keys=("all",),
)

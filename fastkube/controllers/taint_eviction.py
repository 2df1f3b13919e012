"""Pods on nodes with NoExecute taints are removed: at once, or when the time for which they tolerate them is over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fastkube.api.placement import tolerates
from fastkube.client import object_key, split_key
from fastkube.controllers.actions import GONE, Action, Delete, Patch, Remember, Requeue, Tell
from fastkube.controllers.caches import Caches
from fastkube.controllers.common import PODS, Object, Objects, is_finished, is_terminating, make_condition, seconds
from fastkube.controllers.pod_topics import SPEC
from fastkube.controllers.runner import Context, Controller, Watch

NODES = "v1/nodes"


class View(NamedTuple):
    pod: Object
    taints: Objects
    """The NoExecute taints of its node, each with the time since which it is there."""
    now: float
    waits: bool = False
    """Whether its deletion was put off, and not called off since."""


class Gone(NamedTuple):
    """A Pod that somebody else has deleted while its deletion was put off."""

    key: str


def view(context: Context, key: str) -> View | Gone | None:
    caches = context.caches
    pod = caches.by_key(PODS, key)
    waits = context.memory.get(key)
    if pod is None or is_terminating(pod) or is_finished(pod):
        return Gone(key) if waits and pod is None else None
    node = caches.get(NODES, "", pod["spec"].get("nodeName") or "")
    taints = _no_execute(node) if node is not None else []
    if not taints and not waits:
        return None
    since = caches.life(NODES, _no_execute).get(pod["spec"].get("nodeName") or "", context.now)
    return View(pod, [_dated(taint, since) for taint in taints], context.now, bool(waits))


def _no_execute(node: Object) -> Objects:
    return [taint for taint in node["spec"].get("taints") or () if taint["effect"] == "NoExecute"]


def _dated(taint: Object, since: float) -> Object:
    """A taint that a user made carries no time: it counts from when it was seen."""
    return {**taint, "since": seconds(taint["timeAdded"]) if taint.get("timeAdded") else since}


def reconcile(view: View | Gone) -> Sequence[Action]:
    if isinstance(view, Gone):
        return _call_off(view.key)
    key = object_key(view.pod)
    ends: list[float] = []
    for taint in view.taints:
        matching = [known for known in view.pod["spec"].get("tolerations") or () if tolerates(known, taint)]
        if not matching:
            return _evict(view)
        limits = [
            max(0, known["tolerationSeconds"]) for known in matching if known.get("tolerationSeconds") is not None
        ]
        if limits:
            ends.append(taint["since"] + min(limits))
    if not ends:
        return _call_off(key) if view.waits else ()
    left = min(ends) - view.now
    return _evict(view) if left <= 0 else [Remember(key, True), Requeue(left)]


def _call_off(key: str) -> Sequence[Action]:
    return [_told(key, f"Cancelling deletion of Pod {key}"), Remember(key, None)]


def _told(key: str, message: str) -> Tell:
    namespace, name = split_key(key)
    about = {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name}
    return Tell(about, "Normal", "TaintManagerEviction", message)


def _evict(view: View) -> Sequence[Action]:
    pod = view.pod
    message = "Taint manager: deleting due to NoExecute taint"
    told = make_condition("DisruptionTarget", "True", "DeletionByTaintManager", message, view.now)
    return [
        _told(object_key(pod), f"Marking for deletion Pod {object_key(pod)}"),
        Remember(object_key(pod), None),
        Patch(PODS, pod, body={"status": {"conditions": [told]}}, kind="strategic", subresource="status", ignore=GONE),
        Delete(PODS, pod, ignore=GONE),
    ]


def _pods_on(caches: Caches, node: Object) -> Sequence[str]:
    if not _no_execute(node):
        return ()
    return [object_key(pod) for pod in caches.index(PODS, "node", node["metadata"]["name"])]


def _pod_on_tainted(caches: Caches, pod: Object) -> Sequence[str]:
    node = caches.get(NODES, "", pod["spec"].get("nodeName") or "")
    return (object_key(pod),) if node is not None and _no_execute(node) else ()


def _taints_changed(old: Object, new: Object) -> bool:
    return _no_execute(old) != _no_execute(new)


def _tolerations_changed(old: Object, new: Object) -> bool:
    left, right = old["spec"], new["spec"]
    return any(left.get(key) != right.get(key) for key in ("nodeName", "tolerations"))


CONTROLLER = Controller(
    name="taint-eviction-controller",
    watches=(
        Watch(NODES, _pods_on, changed=_taints_changed, sign_of_life=_no_execute),
        Watch(PODS, _pod_on_tainted, ("node",), changed=_tolerations_changed, about=(SPEC,)),
    ),
    view=view,
    reconcile=reconcile,
    parallel=100,
)

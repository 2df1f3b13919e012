"""Pods that hold a device with a NoExecute taint are removed: at once, or when the time of their toleration is over.

Taints stand with the devices in ResourceSlices; tolerations stand with each device in the allocation of the claim.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fastkube.api.placement import tolerates
from fastkube.client import object_key
from fastkube.controllers.actions import GONE, Action, Delete, Patch, Requeue, Tell
from fastkube.controllers.caches import Caches
from fastkube.controllers.common import PODS, Object, Objects, is_finished, is_terminating, make_condition, seconds
from fastkube.controllers.resourceclaim import CLAIMS
from fastkube.controllers.runner import Context, Controller, Watch, nothing

SLICES = "resource.k8s.io/v1/resourceslices"


class Held(NamedTuple):
    """A device of a claim: the NoExecute taints that it has, and what the claim tolerates."""

    taints: Objects
    tolerations: Objects


class View(NamedTuple):
    devices: list[Held]
    pods: Objects
    """Those that hold the claim."""
    now: float


def view(context: Context, key: str) -> View | None:
    caches = context.caches
    claim = caches.by_key(CLAIMS, key)
    devices = [_held(caches, result) for result in _results(claim)] if claim is not None else []
    if claim is None or not any(held.taints for held in devices):
        return None
    namespace = claim["metadata"]["namespace"]
    pods = []
    for entry in (claim.get("status") or {}).get("reservedFor") or ():
        pod = caches.get(PODS, namespace, entry["name"]) if entry.get("resource") == "pods" else None
        if pod is not None and pod["metadata"]["uid"] == entry["uid"]:
            pods.append(pod)
    return View(devices, pods, context.now)


def _results(claim: Object) -> Objects:
    allocation = (claim.get("status") or {}).get("allocation") or {}
    found: Objects = (allocation.get("devices") or {}).get("results") or []
    return found


def _held(caches: Caches, result: Object) -> Held:
    taints = [
        taint
        for found in caches.index(SLICES, "pool", _pool(result["driver"], result["pool"]))
        for device in found["spec"].get("devices") or ()
        if device["name"] == result["device"]
        for taint in device.get("taints") or ()
        if taint["effect"] == "NoExecute"
    ]
    return Held(taints, result.get("tolerations") or [])


def _pool(driver: str, pool: str) -> str:
    return f"{driver}/{pool}"


def reconcile(view: View) -> Sequence[Action]:
    ends = [_end(held, taint, view.now) for held in view.devices for taint in held.taints]
    over = min((end for end in ends if end is not None), default=None)
    if over is None:
        return ()
    if over > view.now:
        return [Requeue(over - view.now)]
    actions: list[Action] = []
    for pod in view.pods:
        if not is_terminating(pod) and not is_finished(pod):
            actions += _evict(pod, view.now)
    return actions


def _end(held: Held, taint: Object, now: float) -> float | None:
    """Until when the taint is tolerated: None for ever, the past where it is not."""
    matching = [known for known in held.tolerations if tolerates(known, taint)]
    if not matching:
        return 0.0
    limits = [max(0, known["tolerationSeconds"]) for known in matching if known.get("tolerationSeconds") is not None]
    if not limits:
        return None
    since = seconds(taint["timeAdded"]) if taint.get("timeAdded") else now
    return since + float(min(limits))


def _evict(pod: Object, now: float) -> list[Action]:
    message = "Device Taint manager: deleting due to NoExecute taint"
    told = make_condition("DisruptionTarget", "True", "DeletionByDeviceTaintManager", message, now)
    return [
        Tell(pod, "Normal", "DeviceTaintManagerEviction", "Marking for deletion"),
        Patch(PODS, pod, body={"status": {"conditions": [told]}}, kind="strategic", subresource="status", ignore=GONE),
        Delete(PODS, pod, ignore=GONE),
    ]


def _claims_of_slice(caches: Caches, found: Object) -> Iterable[str]:
    """The claims that hold a device of the pool."""
    pool = (found["spec"]["driver"], found["spec"]["pool"]["name"])
    return [
        object_key(claim)
        for claim in caches.list(CLAIMS)
        if any((result["driver"], result["pool"]) == pool for result in _results(claim))
    ]


def _devices_changed(old: Object, new: Object) -> bool:
    return bool(old["spec"].get("devices") != new["spec"].get("devices"))


CONTROLLER = Controller(
    name="device-taint-eviction-controller",
    watches=(
        Watch(SLICES, _claims_of_slice, ("pool",), changed=_devices_changed),
        Watch(CLAIMS),
        Watch(PODS, nothing),
    ),
    view=view,
    reconcile=reconcile,
)

"""Claims and volumes in use are not deleted before their use ends: a finalizer holds them.

PersistentVolumeClaims are in use by Pods that have not ended, PersistentVolumes by a claim they are bound to, volume
attributes classes by claims and volumes that name them, PodGroups by Pods that belong to them and have not ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from fastkube.client.resource import collection_path
from fastkube.controllers.actions import GONE, Action, Ask, Patch
from fastkube.controllers.caches import Caches, by_claim
from fastkube.controllers.common import PODS, Object, is_finished, is_terminating
from fastkube.controllers.pod_topics import CLAIMING, GROUPED, PHASE
from fastkube.controllers.runner import Context, Controller, Watch
from fastkube.controllers.statefulset import CLAIMS
from fastkube.controllers.volumes import VOLUMES

POD_GROUPS = "scheduling.k8s.io/v1alpha2/podgroups"
ATTRIBUTES_CLASSES = "storage.k8s.io/v1/volumeattributesclasses"

CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
POD_GROUP_FINALIZER = "scheduling.k8s.io/podgroup-protection"
VOLUME_FINALIZER = "kubernetes.io/pv-protection"
ATTRIBUTES_CLASS_FINALIZER = "kubernetes.io/vac-protection"


class View(NamedTuple):
    resource: str
    obj: Object
    finalizer: str
    used: bool
    path: str = ""
    """The list of Pods to ask the server for, before a claim that seems unused is let go."""
    live: dict[str, Any] = {}  # noqa: RUF012 - never changed, only replaced


def reconcile(view: View) -> Sequence[Action]:
    obj, finalizer = view.obj, view.finalizer
    finalizers = obj["metadata"].get("finalizers") or []
    if not is_terminating(obj):
        return () if finalizer in finalizers else [_patch(view, [*finalizers, finalizer])]
    if finalizer not in finalizers or view.used:
        return ()
    if view.path:
        if view.path not in view.live:
            return [Ask(view.path)]
        if any(_uses(pod, obj) for pod in (view.live[view.path] or {}).get("items") or ()):
            return ()
    return [_patch(view, [name for name in finalizers if name != finalizer])]


def _uses(pod: Object, claim: Object) -> bool:
    """Whether a Pod that may still run uses the claim; one that was never bound and is deleted does not."""
    if is_finished(pod) or (is_terminating(pod) and not pod["spec"].get("nodeName")):
        return False
    return f"{claim['metadata']['namespace']}/{claim['metadata']['name']}" in by_claim(pod)


def _patch(view: View, finalizers: list[str]) -> Patch:
    metadata = {"resourceVersion": view.obj["metadata"]["resourceVersion"], "finalizers": finalizers or None}
    return Patch(view.resource, view.obj, body={"metadata": metadata}, ignore=GONE)


# ---------------------------------------------------------------- claims


def view_claim(context: Context, key: str) -> View | None:
    caches = context.caches
    claim = caches.by_key(CLAIMS, key)
    if claim is None:
        return None
    used = any(_uses(pod, claim) for pod in caches.index(PODS, "claim", key))
    return View(CLAIMS, claim, CLAIM_FINALIZER, used, collection_path(PODS, claim["metadata"]["namespace"]))


def _claims_of_pod(_caches: Caches, pod: Object) -> Iterable[str]:
    return by_claim(pod)


CLAIM_PROTECTION = Controller(
    name="persistentvolumeclaim-protection-controller",
    component="pvc-protection-controller",
    watches=(Watch(CLAIMS), Watch(PODS, _claims_of_pod, ("claim",), about=(CLAIMING,))),
    view=view_claim,
    reconcile=reconcile,
)

# ---------------------------------------------------------------- volumes


def view_volume(context: Context, key: str) -> View | None:
    volume = context.caches.by_key(VOLUMES, key)
    if volume is None:
        return None
    bound = (volume.get("status") or {}).get("phase") == "Bound"
    return View(VOLUMES, volume, VOLUME_FINALIZER, bound)


VOLUME_PROTECTION = Controller(
    name="persistentvolume-protection-controller",
    component="pv-protection-controller",
    watches=(Watch(VOLUMES),),
    view=view_volume,
    reconcile=reconcile,
)

# ---------------------------------------------------------------- volume attributes classes


def view_attributes_class(context: Context, key: str) -> View | None:
    caches = context.caches
    found = caches.by_key(ATTRIBUTES_CLASSES, key)
    if found is None:
        return None
    users = [*caches.list(CLAIMS), *caches.list(VOLUMES)] if is_terminating(found) else []
    used = any(key in _attributes_classes(user) for user in users)
    return View(ATTRIBUTES_CLASSES, found, ATTRIBUTES_CLASS_FINALIZER, used)


def _attributes_classes(user: Object) -> set[str]:
    status = user.get("status") or {}
    names = {user["spec"].get("volumeAttributesClassName"), status.get("currentVolumeAttributesClassName")}
    names.add((status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName"))
    return {name for name in names if name}


def _classes_of(_caches: Caches, user: Object) -> Iterable[str]:
    return _attributes_classes(user)


ATTRIBUTES_CLASS_PROTECTION = Controller(
    name="volumeattributesclass-protection-controller",
    watches=(Watch(ATTRIBUTES_CLASSES), Watch(CLAIMS, _classes_of), Watch(VOLUMES, _classes_of)),
    view=view_attributes_class,
    reconcile=reconcile,
)

# ---------------------------------------------------------------- Pod groups


def view_pod_group(context: Context, key: str) -> View | None:
    group = context.caches.by_key(POD_GROUPS, key)
    if group is None or not is_terminating(group):
        return None  # admission has set the finalizer
    used = any(key in _groups_of(context.caches, pod) and not is_finished(pod) for pod in context.caches.list(PODS))
    return View(POD_GROUPS, group, POD_GROUP_FINALIZER, used)


def _groups_of(_caches: Caches, pod: Object) -> Iterable[str]:
    name = (pod["spec"].get("schedulingGroup") or {}).get("podGroupName")
    return (f"{pod['metadata']['namespace']}/{name}",) if name else ()


POD_GROUP_PROTECTION = Controller(
    name="podgroup-protection-controller",
    watches=(Watch(POD_GROUPS), Watch(PODS, _groups_of, about=(GROUPED, PHASE))),
    view=view_pod_group,
    reconcile=reconcile,
    gated=True,
)

CONTROLLERS = (CLAIM_PROTECTION, VOLUME_PROTECTION, ATTRIBUTES_CLASS_PROTECTION, POD_GROUP_PROTECTION)

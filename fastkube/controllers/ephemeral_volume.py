"""Generic ephemeral volumes: a claim for each volume of a Pod that has a template for one, owned by the Pod."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fastkube.api.meta import controller_of, owner_reference
from fastkube.client import object_key
from fastkube.controllers.actions import Action, Create, Fail, Tell
from fastkube.controllers.caches import Caches
from fastkube.controllers.common import PODS, Object, controlled_by, is_terminating
from fastkube.controllers.pod_topics import CLAIMING
from fastkube.controllers.runner import Context, Controller, Watch
from fastkube.controllers.statefulset import CLAIMS
from fastkube.errors import ApiError


class View(NamedTuple):
    pod: Object
    claims: dict[str, Object]
    """Those that are there of the names which the volumes need."""


def view(context: Context, key: str) -> View | None:
    pod = context.caches.by_key(PODS, key)
    if pod is None or is_terminating(pod):
        return None
    namespace = pod["metadata"]["namespace"]
    names = [claim_name(pod, volume) for volume in _volumes(pod)]
    found = {name: context.caches.get(CLAIMS, namespace, name) for name in names}
    return View(pod, {name: claim for name, claim in found.items() if claim is not None})


def claim_name(pod: Object, volume: Object) -> str:
    return f"{pod['metadata']['name']}-{volume['name']}"


def _volumes(pod: Object) -> list[Object]:
    return [volume for volume in pod["spec"].get("volumes") or () if "ephemeral" in volume]


def reconcile(view: View) -> Sequence[Action]:
    pod = view.pod
    actions: list[Action] = []
    for volume in _volumes(pod):
        name = claim_name(pod, volume)
        present = view.claims.get(name)
        if present is None:
            actions.append(_create(pod, volume, name))
        elif (controller_of(present) or {}).get("uid") != pod["metadata"]["uid"]:
            why = f"PVC {object_key(present)} was not created for pod {object_key(pod)} (pod is not owner)"
            return [*actions, _failed(pod, volume, why), Fail(why)]
    return actions


def _create(pod: Object, volume: Object, name: str) -> Create:
    template = volume["ephemeral"]["volumeClaimTemplate"]
    given = template.get("metadata") or {}
    metadata: Object = {key: given[key] for key in ("labels", "annotations") if given.get(key)}
    metadata |= {"name": name, "namespace": pod["metadata"]["namespace"], "ownerReferences": [owner_reference(pod)]}
    made = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": template["spec"]}

    def failed(error: ApiError) -> Sequence[Action]:
        return [_failed(pod, volume, f"create PVC {name}: {error.message}")]

    return Create(CLAIMS, made, otherwise=failed)


def _failed(pod: Object, volume: Object, why: str) -> Tell:
    return Tell(pod, "Warning", "FailedBinding", f"ephemeral volume {volume['name']}: {why}")


def _with_volumes(_caches: Caches, pod: Object) -> Iterable[str]:
    return (object_key(pod),) if _volumes(pod) and not is_terminating(pod) else ()


CONTROLLER = Controller(
    name="ephemeral-volume-controller",
    component="ephemeral_volume",
    watches=(
        Watch(PODS, _with_volumes, updates=False, about=(CLAIMING,)),
        Watch(CLAIMS, controlled_by("Pod"), updates=False),
    ),
    view=view,
    reconcile=reconcile,
    workers="concurrent_ephemeralvolume_syncs",
)

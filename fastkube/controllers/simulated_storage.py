"""The simulated provisioner: storage for clusters of simulated nodes, whose volumes are objects and hold no data.

It is what an external CSI provisioner and resizer are to a real cluster, under a name that says what it is. Its
StorageClass is the default one, unless there is another. It has no counterpart in kube-controller-manager and is off
unless named in --controllers; `fastkube up` names it when it runs simulated nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fastkube.client import object_key
from fastkube.controllers.actions import EXISTS, GONE, Action, Create, Delete, Tell, Update, status_update
from fastkube.controllers.caches import Caches
from fastkube.controllers.common import Object, Objects, is_terminating
from fastkube.controllers.runner import Context, Controller, Watch, nothing
from fastkube.controllers.statefulset import CLAIMS
from fastkube.controllers.volume_expander import wants_to_grow
from fastkube.controllers.volumes import (
    CLASSES,
    DEFAULT_CLASS,
    PROVISIONED_BY,
    PROVISIONER,
    VOLUMES,
    annotations_of,
    class_of,
    default_class,
    is_claimed_by,
    phase,
    requested,
)

NAME = "simulated-provisioner"
DRIVERS = "storage.k8s.io/v1/csidrivers"
DRIVER = "simulated.fastkube.io"
CLASS = "simulated"

_SETUP = "setup"
_CLAIM = "claim:"
_VOLUME = "volume:"


class SetupView(NamedTuple):
    classes: Objects
    drivers: Objects


class ClaimView(NamedTuple):
    claim: Object
    storage_class: Object | None
    volume: Object | None
    """The one which the claim has, or which was made for it."""


class VolumeView(NamedTuple):
    volume: Object


def view(context: Context, key: str) -> SetupView | ClaimView | VolumeView | None:
    caches = context.caches
    if key == _SETUP:
        return SetupView(caches.list(CLASSES), caches.list(DRIVERS))
    if key.startswith(_VOLUME):
        volume = caches.by_key(VOLUMES, key.removeprefix(_VOLUME))
        return None if volume is None else VolumeView(volume)
    claim = caches.by_key(CLAIMS, key.removeprefix(_CLAIM))
    if claim is None or annotations_of(claim).get(PROVISIONER) != DRIVER:
        return None
    volume = caches.get(VOLUMES, "", claim["spec"].get("volumeName") or volume_name(claim))
    return ClaimView(claim, caches.get(CLASSES, "", class_of(claim)), volume)


def volume_name(claim: Object) -> str:
    return f"pvc-{claim['metadata']['uid']}"


def reconcile(view: SetupView | ClaimView | VolumeView) -> Sequence[Action]:
    if isinstance(view, SetupView):
        return _set_up(view)
    if isinstance(view, VolumeView):
        return _delete(view.volume)
    claim = view.claim
    if view.volume is not None:
        return _grow(view.volume, claim)
    if is_terminating(claim) or claim["spec"].get("volumeName") or view.storage_class is None:
        return ()
    return _provision(claim, view.storage_class)


def _set_up(view: SetupView) -> Sequence[Action]:
    """The driver and the class, once: whoever deletes them later does not want them."""
    actions: list[Action] = []
    if not any(found["metadata"]["name"] == DRIVER for found in view.drivers):
        spec = {"attachRequired": False, "podInfoOnMount": False}
        driver = {"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": DRIVER}, "spec": spec}
        actions.append(Create(DRIVERS, driver, ignore=EXISTS))
    if not any(found["metadata"]["name"] == CLASS for found in view.classes):
        metadata: Object = {"name": CLASS}
        if default_class(view.classes) is None:
            metadata["annotations"] = {DEFAULT_CLASS: "true"}
        made: Object = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": metadata,
            "provisioner": DRIVER,
        }
        made |= {"reclaimPolicy": "Delete", "volumeBindingMode": "Immediate", "allowVolumeExpansion": True}
        actions.append(Create(CLASSES, made, ignore=EXISTS))
    return actions


def _provision(claim: Object, storage_class: Object) -> Sequence[Action]:
    name, metadata = volume_name(claim), claim["metadata"]
    ref = {key: metadata[key] for key in ("namespace", "name", "uid", "resourceVersion")}
    spec: Object = {
        "capacity": {"storage": requested(claim)},
        "accessModes": claim["spec"].get("accessModes") or ["ReadWriteOnce"],
        "volumeMode": claim["spec"].get("volumeMode") or "Filesystem",
        "storageClassName": storage_class["metadata"]["name"],
        "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy") or "Delete",
        "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **ref},
        "csi": {"driver": DRIVER, "volumeHandle": name},
    }
    if storage_class.get("mountOptions"):
        spec["mountOptions"] = storage_class["mountOptions"]
    if attributes := claim["spec"].get("volumeAttributesClassName"):
        spec["volumeAttributesClassName"] = attributes
    made_metadata = {"name": name, "annotations": {PROVISIONED_BY: DRIVER}}
    volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": made_metadata, "spec": spec}
    begun = f'External provisioner is provisioning volume for claim "{object_key(claim)}"'
    told = Tell(claim, "Normal", "ProvisioningSucceeded", f"Successfully provisioned volume {name}")
    return [
        Tell(claim, "Normal", "Provisioning", begun),
        Create(VOLUMES, volume, ignore=EXISTS, then=lambda _: [told]),
    ]


def _grow(volume: Object, claim: Object) -> Sequence[Action]:
    ours = annotations_of(volume).get(PROVISIONED_BY) == DRIVER
    if not ours or not wants_to_grow(claim) or not is_claimed_by(volume, claim):
        return ()
    size = {"storage": requested(claim)}
    actions: list[Action] = []
    if volume["spec"].get("capacity") != size:
        actions.append(Update(VOLUMES, {**volume, "spec": {**volume["spec"], "capacity": size}}))
    actions.append(status_update(CLAIMS, claim, {**claim["status"], "capacity": size}))
    name = volume["metadata"]["name"]
    return [*actions, Tell(claim, "Normal", "VolumeResizeSuccessful", f"Resize volume {name} succeeded")]


def _delete(volume: Object) -> Sequence[Action]:
    if annotations_of(volume).get(PROVISIONED_BY) != DRIVER or is_terminating(volume):
        return ()
    released = phase(volume) == "Released" and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
    return [Delete(VOLUMES, volume, ignore=GONE)] if released else ()


def _claim_keys(_caches: Caches, claim: Object) -> Iterable[str]:
    return (f"{_CLAIM}{object_key(claim)}",) if annotations_of(claim).get(PROVISIONER) == DRIVER else ()


def _volume_keys(_caches: Caches, volume: Object) -> Iterable[str]:
    return (f"{_VOLUME}{volume['metadata']['name']}",) if annotations_of(volume).get(PROVISIONED_BY) == DRIVER else ()


CONTROLLER = Controller(
    name=NAME,
    component=DRIVER,
    keys=(_SETUP,),
    watches=(
        Watch(CLAIMS, _claim_keys),
        Watch(VOLUMES, _volume_keys),
        Watch(CLASSES, nothing),
        Watch(DRIVERS, nothing),
    ),
    view=view,
    reconcile=reconcile,
    optional=True,
)

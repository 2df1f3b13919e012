"""The PersistentVolume binder: claims find volumes, or a provisioner is asked for one; what is left is reclaimed.

A binding is four writes, each of which may be the last before a crash: the volume points to the claim, the volume is
Bound, the claim points to the volume, the claim is Bound. Whoever looks next goes on with what is missing. The volume
decides: it points to one claim only, by uid. One key at a time is in work, so that no volume is promised twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from fastkube.client import object_key
from fastkube.client.resource import object_path
from fastkube.controllers.actions import GONE, Action, Ask, Tell, Update, status_update
from fastkube.controllers.caches import Caches
from fastkube.controllers.common import PODS, Object, Objects, is_finished
from fastkube.controllers.runner import Context, Controller, Watch, nothing
from fastkube.controllers.statefulset import CLAIMS
from fastkube.controllers.volumes import (
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    CLASSES,
    PROVISIONED_BY,
    PROVISIONER,
    PROVISIONER_BETA,
    SELECTED_NODE,
    VOLUMES,
    annotations_of,
    best_match,
    class_of,
    default_class,
    has_class,
    is_claimed_by,
    mismatch,
    mode,
    phase,
    with_annotations,
)

_CLAIM = "claim:"
_VOLUME = "volume:"
NO_PROVISIONER = "kubernetes.io/no-provisioner"


class ClaimView(NamedTuple):
    claim: Object
    volumes: Objects
    """All that there are, unless the claim names one: then that one, if it is there."""
    classes: Objects
    waiting_pods: list[str]
    """Names of the Pods that use the claim and have no node yet."""


class VolumeView(NamedTuple):
    volume: Object
    claim: Object | None
    live: dict[str, Any] = {}  # noqa: RUF012 - never changed, only replaced


def view(context: Context, key: str) -> ClaimView | VolumeView | None:
    caches = context.caches
    if key.startswith(_VOLUME):
        volume = caches.by_key(VOLUMES, key.removeprefix(_VOLUME))
        if volume is None:
            return None
        ref = volume["spec"].get("claimRef") or {}
        return VolumeView(volume, caches.get(CLAIMS, ref.get("namespace", ""), ref["name"]) if ref else None)
    claim = caches.by_key(CLAIMS, key.removeprefix(_CLAIM))
    if claim is None:
        return None
    name = claim["spec"].get("volumeName")
    named = caches.get(VOLUMES, "", name) if name else None
    volumes = ([named] if named is not None else []) if name else caches.list(VOLUMES)
    users = caches.index(PODS, "claim", object_key(claim))
    waiting = [pod["metadata"]["name"] for pod in users if not pod["spec"].get("nodeName") and not is_finished(pod)]
    return ClaimView(claim, volumes, caches.list(CLASSES), sorted(waiting))


def reconcile(view: ClaimView | VolumeView) -> Sequence[Action]:
    if isinstance(view, VolumeView):
        return _sync_volume(view)
    if BIND_COMPLETED in annotations_of(view.claim):
        return _sync_bound(view)
    return _sync_named(view) if view.claim["spec"].get("volumeName") else _sync_unbound(view)


# ---------------------------------------------------------------- claims


def _sync_unbound(view: ClaimView) -> Sequence[Action]:
    claim = view.claim
    wanted = class_of(claim)
    found = next((each for each in view.classes if each["metadata"]["name"] == wanted), None) if wanted else None
    waits = (found or {}).get("volumeBindingMode") == "WaitForFirstConsumer"
    delayed = waits and SELECTED_NODE not in annotations_of(claim)
    volume = best_match(claim, view.volumes, delayed=delayed)
    if volume is not None:
        return _bind(volume, claim)
    if not has_class(claim) and (default := default_class(view.classes)) is not None:
        spec = {**claim["spec"], "storageClassName": default["metadata"]["name"]}
        return [Update(CLAIMS, {**claim, "spec": spec}, ignore=GONE)]
    pending = _claim_phase(claim, "Pending")
    if delayed:
        return [_waits(view), *pending]
    if wanted:
        return _provision(claim, wanted, found)
    message = "no persistent volumes available for this claim and no storage class is set"
    return [Tell(claim, "Normal", "FailedBinding", message), *pending]


def _waits(view: ClaimView) -> Tell:
    if view.waiting_pods:
        noun = "pod" if len(view.waiting_pods) == 1 else "pods"
        message = f"waiting for {noun} {','.join(view.waiting_pods)} to be scheduled"
        return Tell(view.claim, "Normal", "WaitForPodScheduled", message)
    message = "waiting for first consumer to be created before binding"
    return Tell(view.claim, "Normal", "WaitForFirstConsumer", message)


def _provision(claim: Object, wanted: str, found: Object | None) -> Sequence[Action]:
    """Ask the provisioner of the class, by an annotation: none is part of this controller."""
    pending = _claim_phase(claim, "Pending")
    if found is None:
        message = f'storageclass.storage.k8s.io "{wanted}" not found'
        return [Tell(claim, "Warning", "ProvisioningFailed", message), *pending]
    provisioner = found["provisioner"]
    if provisioner == NO_PROVISIONER:
        message = f"no volume plugin matched name: {NO_PROVISIONER}"
        return [Tell(claim, "Warning", "ProvisioningFailed", message), *pending]
    told = Tell(
        claim,
        "Normal",
        "ExternalProvisioning",
        f"Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the "
        "system administrator. If volume creation is delayed, please verify that the provisioner is running and "
        "correctly registered.",
    )
    if annotations_of(claim).get(PROVISIONER) == provisioner:
        return [told, *pending]
    metadata = with_annotations(claim, {PROVISIONER: provisioner, PROVISIONER_BETA: provisioner})
    return [Update(CLAIMS, {**claim, "metadata": metadata}, then=lambda made: [told, *_claim_phase(made, "Pending")])]


def _sync_named(view: ClaimView) -> Sequence[Action]:
    """A claim that names its volume, by whoever wrote it."""
    claim = view.claim
    pending = _claim_phase(claim, "Pending")
    if not view.volumes:
        return pending
    (volume,) = view.volumes
    if volume["spec"].get("claimRef") is None:
        if why := mismatch(volume, claim):
            message = f'Cannot bind to requested volume "{volume["metadata"]["name"]}": {why}'
            return [Tell(claim, "Warning", "VolumeMismatch", message), *pending]
        return _bind(volume, claim)
    if is_claimed_by(volume, claim):
        return _bind(volume, claim)
    name = volume["metadata"]["name"]
    if BOUND_BY_CONTROLLER not in annotations_of(claim):
        ref = volume["spec"]["claimRef"]
        message = f'volume "{name}" already bound to a different claim "{ref.get("namespace")}/{ref.get("name")}".'
        return [Tell(claim, "Warning", "FailedBinding", message), *pending]
    return pending


def _sync_bound(view: ClaimView) -> Sequence[Action]:
    claim = view.claim
    if not claim["spec"].get("volumeName"):
        message = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"
        return _lose(claim, "ClaimLost", message)
    if not view.volumes:
        return _lose(claim, "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
    (volume,) = view.volumes
    ref = volume["spec"].get("claimRef")
    if ref is None or ref.get("uid") == claim["metadata"]["uid"]:
        return _bind(volume, claim)
    return _lose(claim, "ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")


def _lose(claim: Object, reason: str, message: str) -> Sequence[Action]:
    if phase(claim) == "Lost":
        return ()
    return [Tell(claim, "Warning", reason, message), status_update(CLAIMS, claim, {"phase": "Lost"}, ignore=GONE)]


def _claim_phase(claim: Object, wanted: str) -> list[Action]:
    if phase(claim) == wanted:
        return []
    return [status_update(CLAIMS, claim, {**(claim.get("status") or {}), "phase": wanted}, ignore=GONE)]


# ---------------------------------------------------------------- binding


def _bind(volume: Object, claim: Object) -> list[Action]:
    """The four writes, each after the one before: only those which are missing."""
    ref = volume["spec"].get("claimRef") or {}
    if ref.get("uid") != claim["metadata"]["uid"]:
        bound = {**ref, "kind": "PersistentVolumeClaim", "apiVersion": "v1"}
        bound |= {key: claim["metadata"][key] for key in ("namespace", "name", "uid", "resourceVersion")}
        metadata = volume["metadata"] if ref else with_annotations(volume, {BOUND_BY_CONTROLLER: "yes"})
        new = {**volume, "metadata": metadata, "spec": {**volume["spec"], "claimRef": bound}}
        return [Update(VOLUMES, new, then=lambda made: _bind_further(made, claim))]
    return _bind_further(volume, claim)


def _bind_further(volume: Object, claim: Object) -> list[Action]:
    if phase(volume) != "Bound":
        status = {"phase": "Bound"}
        return [status_update(VOLUMES, volume, status, then=lambda made: _bind_claim(made, claim))]
    return _bind_claim(volume, claim)


def _bind_claim(volume: Object, claim: Object) -> list[Action]:
    name = volume["metadata"]["name"]
    marks: dict[str, str | None] = {}
    if claim["spec"].get("volumeName") != name:
        marks[BOUND_BY_CONTROLLER] = "yes"
    if BIND_COMPLETED not in annotations_of(claim):
        marks[BIND_COMPLETED] = "yes"
    if marks:
        spec = {**claim["spec"], "volumeName": name}
        new = {**claim, "metadata": with_annotations(claim, marks), "spec": spec}
        return [Update(CLAIMS, new, ignore=GONE, then=lambda made: _finish(volume, made))]
    return _finish(volume, claim)


def _finish(volume: Object, claim: Object) -> list[Action]:
    status = claim.get("status") or {}
    wanted = {**status, "phase": "Bound", "accessModes": volume["spec"].get("accessModes") or []}
    if phase(claim) != "Bound":
        # once bound, what the claim has changes with its expansion only
        wanted["capacity"] = volume["spec"].get("capacity") or {}
        if attributes := volume["spec"].get("volumeAttributesClassName"):
            wanted["currentVolumeAttributesClassName"] = attributes
    return [] if wanted == status else [status_update(CLAIMS, claim, wanted, ignore=GONE)]


# ---------------------------------------------------------------- volumes


def _sync_volume(view: VolumeView) -> Sequence[Action]:
    volume = view.volume
    ref = volume["spec"].get("claimRef")
    if ref is None or not ref.get("uid"):
        return _volume_phase(volume, "Available")
    claim = view.claim
    if claim is None or claim["metadata"]["uid"] != ref["uid"]:
        # the copy of claims may be behind that of volumes: the server decides before anything is lost
        path = object_path(CLAIMS, ref["namespace"], ref["name"])
        if path not in view.live:
            return [Ask(path)]
        claim = view.live[path]
        if claim is None or claim["metadata"]["uid"] != ref["uid"]:
            return _reclaim(volume)
    named = claim["spec"].get("volumeName")
    if named == volume["metadata"]["name"]:
        return _volume_phase(volume, "Bound")
    if named:
        return _misbound(volume)
    if mode(volume) != mode(claim):
        message = (
            f'Cannot bind PersistentVolume to requested PersistentVolumeClaim "{claim["metadata"]["name"]}" '
            "due to incompatible volumeMode."
        )
        return [Tell(volume, "Warning", "VolumeMismatch", message)]
    return _bind(volume, claim)


def _misbound(volume: Object) -> Sequence[Action]:
    """Its claim is bound to another volume: what was made for it goes, what was only promised is free again."""
    if PROVISIONED_BY in annotations_of(volume) and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete":
        return _reclaim(volume)
    spec = dict(volume["spec"])
    metadata = with_annotations(volume, {BOUND_BY_CONTROLLER: None})
    if BOUND_BY_CONTROLLER in annotations_of(volume):
        del spec["claimRef"]
    else:
        spec["claimRef"] = {key: value for key, value in spec["claimRef"].items() if key != "uid"}
    return [Update(VOLUMES, {**volume, "metadata": metadata, "spec": spec}, ignore=GONE)]


def _reclaim(volume: Object) -> Sequence[Action]:
    """Released; then what the policy says. Volumes with a provisioner are deleted by that."""
    if phase(volume) == "Failed":
        return ()
    released = _volume_phase(volume, "Released")
    policy = volume["spec"].get("persistentVolumeReclaimPolicy", "Retain")
    if released or policy == "Retain":
        return released
    if policy == "Recycle":
        return _fail(volume, "VolumeFailedRecycle", "No recycler plugin found for the volume!")
    if PROVISIONED_BY in annotations_of(volume) or "csi" in volume["spec"]:
        return ()
    name = volume["metadata"]["name"]
    why = f'error getting deleter volume plugin for volume "{name}": no deletable volume plugin matched'
    return _fail(volume, "VolumeFailedDelete", why)


def _fail(volume: Object, reason: str, message: str) -> Sequence[Action]:
    status = {"phase": "Failed", "message": message}
    return [Tell(volume, "Warning", reason, message), status_update(VOLUMES, volume, status, ignore=GONE)]


def _volume_phase(volume: Object, wanted: str) -> list[Action]:
    if phase(volume) == wanted:
        return []
    return [status_update(VOLUMES, volume, {"phase": wanted}, ignore=GONE)]


# ---------------------------------------------------------------- wiring


def _claim_keys(_caches: Caches, claim: Object) -> Iterable[str]:
    name = claim["spec"].get("volumeName")
    return (f"{_CLAIM}{object_key(claim)}", f"{_VOLUME}{name}") if name else (f"{_CLAIM}{object_key(claim)}",)


def _volume_keys(caches: Caches, volume: Object) -> Iterable[str]:
    """The volume, and the claims which it may serve: its own, or else all that wait."""
    keys = [f"{_VOLUME}{volume['metadata']['name']}"]
    if ref := volume["spec"].get("claimRef"):
        return [*keys, f"{_CLAIM}{ref.get('namespace')}/{ref.get('name')}"]
    return [*keys, *_unbound(caches)]


def _unbound(caches: Caches) -> Iterable[str]:
    return [f"{_CLAIM}{object_key(claim)}" for claim in caches.list(CLAIMS) if phase(claim) != "Bound"]


def _class_keys(caches: Caches, _class: Object) -> Iterable[str]:
    return _unbound(caches)


CONTROLLER = Controller(
    name="persistentvolume-binder-controller",
    component="persistentvolume-controller",
    watches=(
        Watch(VOLUMES, _volume_keys),
        Watch(CLAIMS, _claim_keys),
        Watch(CLASSES, _class_keys),
        Watch(PODS, nothing, ("claim",)),
    ),
    view=view,
    reconcile=reconcile,
    resync="pvclaimbinder_sync_period_s",
)

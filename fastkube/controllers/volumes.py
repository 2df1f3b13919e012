"""What controllers need to know about PersistentVolumes and their claims: classes, sizes, and which fit each other."""

from __future__ import annotations

from typing import Any, NamedTuple

from fastkube.api import quantity, selectors
from fastkube.controllers.common import Object, Objects, is_terminating

VOLUMES = "v1/persistentvolumes"
CLASSES = "storage.k8s.io/v1/storageclasses"

BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
PROVISIONER = "volume.kubernetes.io/storage-provisioner"
PROVISIONER_BETA = "volume.beta.kubernetes.io/storage-provisioner"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_CLASS_BETA = "volume.beta.kubernetes.io/storage-class"


def annotations_of(obj: Object) -> dict[str, str]:
    found: dict[str, str] = obj["metadata"].get("annotations") or {}
    return found


def with_annotations(obj: Object, changes: dict[str, str | None]) -> Object:
    """The metadata of an object with annotations set, and those removed whose new value is None."""
    merged: dict[str, Any] = {**annotations_of(obj), **changes}
    return {**obj["metadata"], "annotations": {key: value for key, value in merged.items() if value is not None}}


def class_of(obj: Object) -> str:
    """The storage class of a volume or claim; "" for none."""
    beta = annotations_of(obj).get(_CLASS_BETA)
    return beta if beta is not None else str(obj["spec"].get("storageClassName") or "")


def has_class(claim: Object) -> bool:
    """Whether a claim says which class it wants, be it none."""
    return _CLASS_BETA in annotations_of(claim) or claim["spec"].get("storageClassName") is not None


def default_class(classes: Objects) -> Object | None:
    """The class of claims that name none: the newest of those marked as default, of equally old ones by name."""
    marked = [found for found in classes if annotations_of(found).get(DEFAULT_CLASS) == "true"]
    by_name = sorted(marked, key=lambda found: str(found["metadata"]["name"]))
    return max(by_name, key=lambda found: str(found["metadata"]["creationTimestamp"]), default=None)


def requested(claim: Object) -> str:
    return str(((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage", "0"))


def capacity(volume: Object) -> str:
    return str((volume["spec"].get("capacity") or {}).get("storage", "0"))


def mode(obj: Object) -> str:
    return str(obj["spec"].get("volumeMode") or "Filesystem")


def phase(obj: Object) -> str:
    return str((obj.get("status") or {}).get("phase") or "")


def is_claimed_by(volume: Object, claim: Object) -> bool:
    """Whether the volume is for this claim: by name, and by uid once it is bound."""
    ref = volume["spec"].get("claimRef")
    metadata = claim["metadata"]
    if ref is None or (ref.get("namespace"), ref.get("name")) != (metadata["namespace"], metadata["name"]):
        return False
    return not ref.get("uid") or ref["uid"] == metadata["uid"]


def attributes_class(obj: Object) -> str:
    return str(obj["spec"].get("volumeAttributesClassName") or "")


def mismatch(volume: Object, claim: Object) -> str:
    """Why a volume cannot serve a claim that names it; "" if it can."""
    if quantity.cmp(capacity(volume), requested(claim)) < 0:
        return "requested PV is too small"
    if class_of(volume) != class_of(claim):
        return "storageClassName does not match"
    if attributes_class(volume) != attributes_class(claim):
        return "volumeAttributesClassName does not match"
    if mode(volume) != mode(claim):
        return "incompatible volumeMode"
    if not set(claim["spec"].get("accessModes") or ()) <= set(volume["spec"].get("accessModes") or ()):
        return "incompatible accessMode"
    return ""


class Choice(NamedTuple):
    volume: Object
    size: int


def best_match(claim: Object, volumes: Objects, *, delayed: bool) -> Object | None:
    """The volume meant for the claim, or else the smallest free one that fits; `delayed`: only what is meant for it."""
    selector = claim["spec"].get("selector")
    matches = selectors.from_object(selector).matches if selector else None
    best: Choice | None = None
    for volume in volumes:
        meant = is_claimed_by(volume, claim)
        if is_terminating(volume) or (volume["spec"].get("claimRef") and not meant):
            continue
        if meant and mode(volume) == mode(claim) and quantity.cmp(capacity(volume), requested(claim)) >= 0:
            return volume
        if meant or delayed or phase(volume) != "Available" or mismatch(volume, claim):
            continue
        if matches is not None and not matches(volume["metadata"].get("labels")):
            continue
        size = quantity.value(capacity(volume))
        if best is None or size < best.size:
            best = Choice(volume, size)
    return best.volume if best is not None else None

"""PersistentVolumes. Upstream: ValidatePersistentVolume, ValidatePersistentVolumeUpdate."""

from __future__ import annotations

import posixpath

from fastkube.api import field, quantity
from fastkube.clock import rfc3339
from fastkube.errors import Cause
from fastkube.registry.strategies import checks, claims, pod_scheduling, volume_sources
from fastkube.registry.strategies.checks import Errors, equal
from fastkube.registry.strategies.go_values import diff, shown
from fastkube.registry.strategies.pod_defaults import default_amounts, default_shared_source
from fastkube.registry.strategies.pod_warnings import DEPRECATED_VOLUMES, node_selector_warnings
from fastkube.registry.strategy import Call, Object, Strategy

CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
_MOUNT_OPTIONS = "volume.beta.kubernetes.io/mount-options"
_RECLAIM_POLICIES = ("Delete", "Recycle", "Retain")
_SOURCES = tuple(source.key for source in volume_sources.PERSISTENT_SOURCES)
_MOUNTABLE = frozenset((
    "gcePersistentDisk", "awsElasticBlockStore", "glusterfs", "cinder", "rbd", "nfs", "cephfs", "iscsi", "quobyte",
    "azureFile", "vsphereVolume", "azureDisk", "csi",
))  # fmt: skip
_SUCCESSORS = {
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
    "beta.kubernetes.io/instance-type": "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/os": "kubernetes.io/os",
    "beta.kubernetes.io/arch": "kubernetes.io/arch",
}
"""Labels of nodes that a volume's affinity may name by their newer names afterwards."""


class PersistentVolumeStrategy(Strategy):
    has_generation = False

    def default(self, obj: Object) -> None:
        default_phase(obj)
        spec = obj.setdefault("spec", {})
        if not spec.get("persistentVolumeReclaimPolicy"):
            spec["persistentVolumeReclaimPolicy"] = "Retain"
        if spec.get("volumeMode") is None:
            spec["volumeMode"] = "Filesystem"
        default_volume_spec(spec)

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        obj["status"] = {"phase": "Pending", "lastPhaseTransitionTime": rfc3339(call.now)}

    def prepare_for_status_update(self, call: Call, new: Object, old: Object) -> None:
        super().prepare_for_status_update(call, new, old)
        now, was = new.setdefault("status", {}), old.get("status") or {}
        given, kept = now.get("lastPhaseTransitionTime"), was.get("lastPhaseTransitionTime")
        if now.get("phase") != was.get("phase"):
            if given is None or given == kept:
                now["lastPhaseTransitionTime"] = rfc3339(call.now)
        elif given is None and kept is not None:
            now["lastPhaseTransitionTime"] = kept

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        volume_spec(errs, "spec", obj["spec"], obj["metadata"].get("name") or "")
        annotated = _MOUNT_OPTIONS in (obj["metadata"].get("annotations") or {})
        if annotated and not any(obj["spec"].get(key) for key in _MOUNTABLE):
            problem = "may not specify mount options for this volume type"
            errs.append(field.forbidden(f"metadata.annotations.{_MOUNT_OPTIONS}", problem))
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs = self.validate(call, new)
        volume_spec(errs, "spec", new["spec"], new["metadata"]["name"])
        _changes(errs, new["spec"], old["spec"])
        return errs

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        return _warnings(obj["metadata"].get("annotations") or {}, obj["spec"])


def default_phase(obj: Object) -> None:
    status = obj.get("status")
    if status is None or not status.get("phase"):
        obj["status"] = {**(status or {}), "phase": "Pending"}


def default_volume_spec(spec: Object) -> None:
    """The defaults which the spec of an inline volume has too."""
    default_amounts(spec.get("capacity"))
    for key in _SOURCES:
        if spec.get(key) is not None:
            default_shared_source(key, spec[key])


# ---------------------------------------------------------------- validation


def volume_spec(errs: Errors, path: str, spec: Object, name: str, *, inline: bool = False) -> None:
    """`inline`: as part of a VolumeAttachment, where only what says how to attach may stand."""
    if inline:
        _inline(errs, path, spec)
    modes = spec.get("accessModes") or []
    if not modes:
        errs.append(field.required(f"{path}.accessModes"))
    claims.access_modes(errs, f"{path}.accessModes", modes)
    if not inline:
        _capacity(errs, f"{path}.capacity", spec.get("capacity"))
    policy = spec.get("persistentVolumeReclaimPolicy")
    if policy:
        if inline:
            problem = "may not be specified in the context of inline volumes"
            errs.append(field.forbidden(f"{path}.persistentVolumeReclaimPolicy", problem))
        else:
            checks.one_of(errs, f"{path}.persistentVolumeReclaimPolicy", policy, _RECLAIM_POLICIES)
    affinity = spec.get("nodeAffinity")
    if affinity is not None:
        if affinity.get("required") is None:
            problem = "must specify required node constraints"
            errs.append(field.required(f"{path}.nodeAffinity.required", problem))
        else:
            pod_scheduling.node_selector(errs, f"{path}.nodeAffinity.required", affinity["required"])
    _sources(errs, path, spec, name)
    if (
        spec.get("hostPath") is not None
        and policy == "Recycle"
        and posixpath.normpath(spec["hostPath"].get("path") or ".") in ("/", "//")
    ):
        problem = "may not be 'recycle' for a hostPath mount of '/'"
        errs.append(field.forbidden(f"{path}.persistentVolumeReclaimPolicy", problem))
    _class_and_mode(errs, path, spec, inline)


def _inline(errs: Errors, path: str, spec: Object) -> None:
    for key in ("claimRef", "capacity", "csi"):
        problem = "may not be specified in the context of inline volumes"
        if key == "csi":
            if spec.get("csi") is None:
                errs.append(field.required(f"{path}.csi"))
        elif spec.get(key):
            errs.append(field.forbidden(f"{path}.{key}", problem))


def _capacity(errs: Errors, path: str, capacity: dict[str, str] | None) -> None:
    if not capacity:
        errs.append(field.required(path))
    if not capacity or "storage" not in capacity or len(capacity) > 1:
        errs.append(field.not_supported(path, capacity or None, ("storage",)))
    for resource, amount in (capacity or {}).items():
        whole = quantity.value(amount)
        if whole < 0:
            errs.append(field.invalid(f"{path}[{resource}]", whole, "must be a valid resource quantity"))
        checks.positive_quantity(errs, f"{path}[{resource}]", amount)


def _sources(errs: Errors, path: str, spec: Object, name: str) -> None:
    volume_sources.one_source(errs, path, spec, volume_sources.PERSISTENT_SOURCES)
    found = [key for key in _SOURCES if spec.get(key) is not None]
    if found[:1] == ["iscsi"]:
        volume_sources.iscsi_persistent(errs, f"{path}.iscsi", spec["iscsi"], name)
    if found[:1] == ["local"] and spec.get("nodeAffinity") is None:
        errs.append(field.required(f"{path}.nodeAffinity", "Local volume requires node affinity"))


def _class_and_mode(errs: Errors, path: str, spec: Object, inline: bool) -> None:
    name, mode, attributes = (spec.get(key) for key in ("storageClassName", "volumeMode", "volumeAttributesClassName"))
    problem = "may not be specified in the context of inline volumes"
    if name:
        if inline:
            errs.append(field.forbidden(f"{path}.storageClassName", problem))
        else:
            checks.subdomain(errs, f"{path}.storageClassName", name)
    if mode is not None:
        if inline:
            errs.append(field.forbidden(f"{path}.volumeMode", problem))
        else:
            checks.one_of(errs, f"{path}.volumeMode", mode, claims.VOLUME_MODES)
    at = f"{path}.volumeAttributesClassName"
    if attributes == "":
        errs.append(field.required(at, "an empty string is disallowed"))
    elif attributes is not None:
        checks.subdomain(errs, at, attributes)
    if attributes is not None and spec.get("csi") is None:
        errs.append(field.required(f"{path}.csi", "has to be specified when using volumeAttributesClassName"))


# ---------------------------------------------------------------- updates


def _changes(errs: Errors, now: Object, was: Object) -> None:
    compared = now
    if (was.get("csi") or {}).get("controllerExpandSecretRef") is None and was.get("csi") and now.get("csi"):
        csi = {key: value for key, value in now["csi"].items() if key != "controllerExpandSecretRef"}
        compared = {**now, "csi": csi}
    new, old = ({key: spec[key] for key in _SOURCES if spec.get(key) is not None} for spec in (compared, was))
    if not equal(new, old):
        path = "spec.persistentvolumesource"
        told = f"{path} is immutable after creation\n{diff('PersistentVolumeSource', old, new)}"
        errs.append(field.forbidden(path, told))
    checks.immutable(errs, "volumeMode", now.get("volumeMode"), was.get("volumeMode"))
    affinity, before = now.get("nodeAffinity"), was.get("nodeAffinity")
    if before is not None and not _same_affinity(affinity, before):
        problem = f"{field.IMMUTABLE}, except for updating from beta label to GA"
        errs.append(field.invalid("nodeAffinity", shown("VolumeNodeAffinity", affinity), problem))
    if was.get("volumeAttributesClassName") is not None and now.get("volumeAttributesClassName") is None:
        problem = "update from non-nil value to nil is forbidden"
        errs.append(field.forbidden("spec.volumeAttributesClassName", problem))


def _same_affinity(new: Object | None, old: Object) -> bool:
    """Whether nothing but old names of labels changed, into the new ones."""
    if equal(new, old):
        return True
    terms, before = (((each or {}).get("required") or {}).get("nodeSelectorTerms") or [] for each in (new, old))
    if len(terms) != len(before):
        return False
    for term, previous in zip(terms, before, strict=True):
        if not equal(term.get("matchFields"), previous.get("matchFields")):
            return False
        now, was = (each.get("matchExpressions") or [] for each in (term, previous))
        if len(now) != len(was) or not all(map(_same_requirement, now, was)):
            return False
    return True


def _same_requirement(new: Object, old: Object) -> bool:
    key = new.get("key")
    return key in (old.get("key"), _SUCCESSORS.get(old.get("key") or "")) and equal(new, {**old, "key": key})


# ---------------------------------------------------------------- warnings


def class_annotation_warning(annotations: dict[str, str]) -> list[str]:
    told = 'deprecated since v1.8; use "storageClassName" attribute instead'
    return [f"metadata.annotations[{CLASS_ANNOTATION}]: {told}"] if CLASS_ANNOTATION in annotations else []


def _warnings(annotations: dict[str, str], spec: Object) -> list[str]:
    told = class_annotation_warning(annotations)
    if _MOUNT_OPTIONS in annotations:
        instead = 'deprecated since v1.31; use "mountOptions" attribute instead'
        told.append(f"metadata.annotations[{_MOUNT_OPTIONS}]: {instead}")
    if spec.get("persistentVolumeReclaimPolicy") == "Recycle":
        instead = "Instead, the recommended approach is to use dynamic provisioning."
        told.append(f"spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. {instead}")
    told += node_selector_warnings("spec.nodeAffinity.required", (spec.get("nodeAffinity") or {}).get("required"))
    found = next((key for key in _SOURCES if spec.get(key) is not None), "")
    if found in DEPRECATED_VOLUMES:
        told.append(f"spec.{DEPRECATED_VOLUMES[found]}")
    return told


STRATEGIES: dict[tuple[str, str], Strategy] = {("", "persistentvolumes"): PersistentVolumeStrategy()}

"""PersistentVolumeClaims. Upstream: ValidatePersistentVolumeClaim and its Update and StatusUpdate."""

from __future__ import annotations

from typing import Any

from fastkube.api import field
from fastkube.api.meta import copy_of
from fastkube.errors import Cause
from fastkube.registry.strategies import checks, claims, resources
from fastkube.registry.strategies.checks import Errors, amount, equal
from fastkube.registry.strategies.go_values import diff
from fastkube.registry.strategies.pod_defaults import default_amounts, default_claim_spec
from fastkube.registry.strategies.volumes import CLASS_ANNOTATION, class_annotation_warning, default_phase
from fastkube.registry.strategy import Call, Object, Strategy

_RESIZE_STATUSES = (
    "ControllerResizeInProgress", "ControllerResizeInfeasible", "NodeResizePending", "NodeResizeInProgress",
    "NodeResizeInfeasible",
)  # fmt: skip
_IMMUTABLE = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"


class PersistentVolumeClaimStrategy(Strategy):
    has_generation = False

    def default(self, obj: Object) -> None:
        default_phase(obj)
        for key in ("capacity", "allocatedResources"):
            default_amounts(obj["status"].get(key))
        spec = obj.setdefault("spec", {})
        spec.setdefault("resources", {})
        default_claim_spec(spec)

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        obj["status"] = {"phase": "Pending"}
        _settle_data_sources(obj["spec"], None)

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        super().prepare_for_update(call, new, old)
        _settle_data_sources(new["spec"], old["spec"])

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        claims.claim_spec(errs, "spec", obj["spec"])
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        lax = any((old["spec"].get(key) or {}).get("apiGroup") for key in ("dataSource", "dataSourceRef"))
        claims.claim_spec(errs, "spec", new["spec"], lax_api_group=lax)
        _changes(errs, new, old)
        return errs

    def validate_status_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        if not new["spec"].get("accessModes"):
            errs.append(field.required("Spec.accessModes"))
        _status(errs, new.get("status") or {})
        return errs

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        annotations = obj["metadata"].get("annotations") or {}
        return class_annotation_warning(annotations) + claims.claim_warnings("spec", obj["spec"])


# ---------------------------------------------------------------- where a claim's data come from

_KNOWN_SOURCES = (("", "PersistentVolumeClaim"), ("snapshot.storage.k8s.io", "VolumeSnapshot"))


def _settle_data_sources(spec: Object, old: Object | None) -> None:
    """dataSource and dataSourceRef, its successor, say the same; what dataSource never supported is dropped."""
    reference = spec.get("dataSourceRef")
    if reference and reference.get("namespace") and not (old or {}).get("dataSourceRef"):
        spec.pop("dataSourceRef")  # data sources of other namespaces are off by default in 1.36
    source = spec.get("dataSource")
    if source is not None and not (old or {}).get("dataSource") and _identity(source) not in _KNOWN_SOURCES:
        spec.pop("dataSource")
    _same_data_sources(spec)


def _same_data_sources(spec: Object) -> None:
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if reference is None and source is not None:
        spec["dataSourceRef"] = _typed(source)
    elif source is None and reference is not None and not reference.get("namespace"):
        spec["dataSource"] = _typed(reference)


def _identity(source: Object) -> tuple[str, str]:
    return source.get("apiGroup") or "", source.get("kind") or ""


def _typed(source: Object) -> dict[str, Any]:
    """As a reference without a namespace."""
    return {key: source.get(key) for key in ("apiGroup", "kind", "name")}


# ---------------------------------------------------------------- updates


def _changes(errs: Errors, new: Object, old: Object) -> None:
    now, was = copy_of(new["spec"]), copy_of(old["spec"])
    _same_data_sources(was)
    if not was.get("volumeName"):
        _take(was, now, "volumeName")
    _class(errs, new, old, now, was)
    size, before = (((spec.get("resources") or {}).get("requests") or {}).get("storage") for spec in (now, was))
    requests = (now.get("resources") or {}).get("requests")
    if (new.get("status") or {}).get("phase") == "Bound" and requests:
        requests["storage"] = before or "0"
    if (new.get("status") or {}).get("phase") == "Bound":
        _take(now, was, "volumeAttributesClassName")
    if not equal(now, was):
        changed = diff("PersistentVolumeClaimSpec", was, now)
        errs.append(field.forbidden("spec", f"{_IMMUTABLE}\n{changed}"))
    if amount(size or "0") < amount(before or "0"):
        held = ((old.get("status") or {}).get("capacity") or {}).get("storage") or "0"
        if amount(size or "0") <= amount(held):
            problem = "field can not be less than status.capacity"
            errs.append(field.forbidden("spec.resources.requests.storage", problem))
    checks.immutable(errs, "volumeMode", now.get("volumeMode"), was.get("volumeMode"))
    attributes = new["spec"].get("volumeAttributesClassName")
    if (old.get("status") or {}).get("currentVolumeAttributesClassName") is not None and not attributes:
        what = "nil" if attributes is None else "empty string"
        problem = f"update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil"
        if attributes != old["spec"].get("volumeAttributesClassName"):
            errs.append(field.forbidden("spec.volumeAttributesClassName", problem))


def _take(spec: Object, other: Object, key: str) -> None:
    if other.get(key) is None:
        spec.pop(key, None)
    else:
        spec[key] = other[key]


def _class(errs: Errors, new: Object, old: Object, now: Object, was: Object) -> None:
    """The class may move from its annotation of old to the field, or be given once; `now` and `was` are made alike."""
    noted, before = ((obj["metadata"].get("annotations") or {}).get(CLASS_ANNOTATION) for obj in (new, old))
    name, previous = now.get("storageClassName"), was.get("storageClassName")
    if before is not None and previous is None and name == before and noted in (None, before):
        now.pop("storageClassName")
        return
    if (noted or "") != (before or ""):
        errs.append(field.invalid(f"metadata.annotations.{CLASS_ANNOTATION}", noted or "", field.IMMUTABLE))
    if before in (None, name) and previous is None and name is not None:
        now.pop("storageClassName")


# ---------------------------------------------------------------- status


def _status(errs: Errors, status: Object) -> None:
    for resource, text in (status.get("capacity") or {}).items():
        _not_negative(errs, f"status.capacity[{resource}]", text)
    path = "status.allocatedResourceStatuses"
    for resource, state in (status.get("allocatedResourceStatuses") or {}).items():
        _key(errs, path, resource)
        if state not in _RESIZE_STATUSES:
            errs.append(field.not_supported(path, resource, sorted(_RESIZE_STATUSES)))
    path = "status.allocatedResources"
    for resource, text in (status.get("allocatedResources") or {}).items():
        before = len(errs)
        _key(errs, path, resource)
        if len(errs) == before:
            _not_negative(errs, f"{path}[{resource}]", text)


def _not_negative(errs: Errors, path: str, text: str) -> None:
    if amount(text) < 0:
        errs.append(field.invalid(path, amount(text) // 1_000_000_000, "must be a valid resource quantity"))


def _key(errs: Errors, path: str, resource: str) -> None:
    before = len(errs)
    checks.qualified(errs, path, resource)
    if len(errs) == before and resources.is_native(resource) and resource != "storage":
        errs.append(field.not_supported(path, resource, ("storage",)))


STRATEGIES: dict[tuple[str, str], Strategy] = {("", "persistentvolumeclaims"): PersistentVolumeClaimStrategy()}

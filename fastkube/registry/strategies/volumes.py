"""PersistentVolumes and PersistentVolumeClaims."""

from __future__ import annotations

from typing import Any

from fastkube.clock import rfc3339
from fastkube.registry.strategies.pod_defaults import default_amounts, default_claim_spec, default_shared_source
from fastkube.registry.strategy import Call, Object, Strategy


class PersistentVolumeStrategy(Strategy):
    has_generation = False

    def default(self, obj: Object) -> None:
        _default_phase(obj)
        spec = obj.setdefault("spec", {})
        if not spec.get("persistentVolumeReclaimPolicy"):
            spec["persistentVolumeReclaimPolicy"] = "Retain"
        if spec.get("volumeMode") is None:
            spec["volumeMode"] = "Filesystem"
        default_amounts(spec.get("capacity"))
        for key, source in spec.items():
            if isinstance(source, dict):
                default_shared_source(key, source)

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


class PersistentVolumeClaimStrategy(Strategy):
    has_generation = False

    def default(self, obj: Object) -> None:
        _default_phase(obj)
        default_claim_spec(obj.setdefault("spec", {}))

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        obj["status"] = {"phase": "Pending"}
        settle_data_sources(obj["spec"], None)

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        super().prepare_for_update(call, new, old)
        settle_data_sources(new["spec"], old["spec"])


def _default_phase(obj: Object) -> None:
    status = obj.get("status")
    if status is None or not status.get("phase"):
        obj["status"] = {**(status or {}), "phase": "Pending"}


# ---------------------------------------------------------------- where a claim's data come from

_KNOWN_SOURCES = (("", "PersistentVolumeClaim"), ("snapshot.storage.k8s.io", "VolumeSnapshot"))


def settle_data_sources(spec: Object, old: Object | None) -> None:
    """dataSource and dataSourceRef, its successor, say the same; what dataSource never supported is dropped."""
    reference = spec.get("dataSourceRef")
    if reference and reference.get("namespace") and not (old or {}).get("dataSourceRef"):
        spec.pop("dataSourceRef")  # data sources of other namespaces are off by default in 1.36
    source = spec.get("dataSource")
    if source is not None and not (old or {}).get("dataSource") and _identity(source) not in _KNOWN_SOURCES:
        spec.pop("dataSource")
    same_data_sources(spec)


def same_data_sources(spec: Object) -> None:
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if reference is None and source is not None:
        spec["dataSourceRef"] = _typed(source)
    elif source is None and reference is not None and not reference.get("namespace"):
        spec["dataSource"] = _typed(reference)


def _identity(source: Object) -> tuple[str, str]:
    return source.get("apiGroup") or "", source.get("kind") or ""


def _typed(source: Object) -> dict[str, Any]:
    """As a type-level reference: without a namespace."""
    return {key: source.get(key) for key in ("apiGroup", "kind", "name")}


STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("", "persistentvolumes"): PersistentVolumeStrategy(),
    ("", "persistentvolumeclaims"): PersistentVolumeClaimStrategy(),
}

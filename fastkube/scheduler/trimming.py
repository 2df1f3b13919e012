"""What an informer keeps of Pods: of those that have a node only what scheduling needs, equal parts once."""

from __future__ import annotations

from typing import Any

import orjson

from fastkube.api import resources
from fastkube.scheduler.pods import VOLUME_SOURCES

Object = dict[str, Any]

_SPEC_FIELDS = (
    "schedulerName",
    "priority",
    "preemptionPolicy",
    "nodeSelector",
    "affinity",
    "tolerations",
    "topologySpreadConstraints",
    "overhead",
    "resources",
    "resourceClaims",
    "schedulingGroup",
)
_CONTAINER_FIELDS = ("name", "image", "resources", "ports", "restartPolicy")
_METADATA_FIELDS = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "labels",
    "deletionTimestamp",
    "ownerReferences",
)
_STATUS_FIELDS = ("phase", "conditions", "startTime", "nominatedNodeName", "resourceClaimStatuses")
_SHARED_MAX = 8192


class PodTrimmer:
    """An informer's transform: of a Pod that has a node keeps what scheduling needs, equal parts only once.

    Pods without a node stay whole but for managedFields: there are few of them, and plugins may look at anything.
    """

    def __init__(self) -> None:
        self._shared: dict[bytes, Any] = {}

    def __call__(self, pod: Object, known: Object | None = None) -> Object:
        metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
        if not spec.get("nodeName"):
            metadata.pop("managedFields", None)
            return pod
        kept = known["spec"] if known is not None and _is_same_spec(known, pod) else self._spec(spec)
        told = _pick(status, _STATUS_FIELDS)
        if resources.resized(spec, status):
            told |= _pick(status, ("containerStatuses", "initContainerStatuses"))
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": _pick(metadata, _METADATA_FIELDS),
            "spec": kept,
            "status": told,
        }

    def _spec(self, spec: Object) -> Object:
        kept = {key: self._share(spec[key]) for key in _SPEC_FIELDS if spec.get(key) is not None}
        kept["nodeName"] = spec["nodeName"]
        for field in ("containers", "initContainers"):
            if spec.get(field):
                kept[field] = self._share([_pick(each, _CONTAINER_FIELDS) for each in spec[field]])
        volumes = [each for each in spec.get("volumes") or () if not each.keys().isdisjoint(_KEPT_VOLUMES)]
        if volumes:
            kept["volumes"] = volumes
        return kept

    def _share(self, value: Any) -> Any:
        if not isinstance(value, dict | list):
            return value
        key = orjson.dumps(value)
        found = self._shared.get(key)
        if found is None:
            if len(self._shared) >= _SHARED_MAX:
                self._shared.clear()
            found = self._shared[key] = value
        return found


def _is_same_spec(known: Object, pod: Object) -> bool:
    """Whether a Pod's spec is as it was when it was trimmed: changes count up the generation."""
    generation = pod["metadata"].get("generation")
    return bool(
        generation
        and generation == known["metadata"].get("generation")
        and known["spec"].get("nodeName") == pod["spec"]["nodeName"]
    )


_KEPT_VOLUMES = frozenset((*VOLUME_SOURCES, "image"))


def _pick(obj: Object, fields: tuple[str, ...]) -> Object:
    return {key: obj[key] for key in fields if obj.get(key) is not None}

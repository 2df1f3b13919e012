"""Who owns which fields: metadata.managedFields for every writer (the rules are those of fastkube.api.apply).

Fields are compared in the version of the request, after defaults and before admission changes anything, as upstream
does. Bindings, evictions and deletions have no field manager.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastkube.api import apply, conversion, schema
from fastkube.api.apply import SPEC, STATUS, Writer
from fastkube.api.catalog import split_api_version
from fastkube.registry import decoding
from fastkube.registry.strategy import Call, Object, Strategy

if TYPE_CHECKING:
    from fastkube.api.catalog import ResourceType
    from fastkube.api.fieldsets import FieldSet
    from fastkube.api.schema import Schema

_NOTHING: FieldSet = {}
_LEAF: FieldSet = {}
_SPEC_AND_METADATA: FieldSet = {"f:metadata": _LEAF, **SPEC}
_CSR = ("certificates.k8s.io", "certificatesigningrequests")

_DEFINITION = ("apiextensions.k8s.io/v1", "CustomResourceDefinition")

_RESET: dict[tuple[str, str, str], FieldSet] = {
    ("", "namespaces", "finalize"): STATUS,
    ("", "pods", "status"): {"f:metadata": {"f:deletionTimestamp": _LEAF, "f:ownerReferences": _LEAF}, **SPEC},
    ("apiextensions.k8s.io", "customresourcedefinitions", "status"): _SPEC_AND_METADATA,
    ("apiregistration.k8s.io", "apiservices", "status"): _SPEC_AND_METADATA,
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", "status"): _SPEC_AND_METADATA,
    ("apps", "deployments", "status"): {"f:metadata": {"f:labels": _LEAF}, **SPEC},
    (*_CSR, ""): {**SPEC, **STATUS},
    (*_CSR, "approval"): {"f:status": {"f:certificate": _LEAF}, **SPEC},
    (*_CSR, "status"): {"f:status": {"f:conditions": _LEAF}, **SPEC},
    ("flowcontrol.apiserver.k8s.io", "flowschemas", "status"): _SPEC_AND_METADATA,
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations", "status"): _SPEC_AND_METADATA,
    ("networking.k8s.io", "servicecidrs", "status"): _SPEC_AND_METADATA,
    ("resource.k8s.io", "resourceclaims", "status"): _SPEC_AND_METADATA,
    ("scheduling.k8s.io", "podgroups", "status"): _SPEC_AND_METADATA,
    ("storage.k8s.io", "volumeattachments", "status"): _SPEC_AND_METADATA,
    **dict.fromkeys((("", "pods", "ephemeralcontainers"), ("", "pods", "resize")), _NOTHING),
}
"""What writes to a (group, resource, subresource) never change, where that is not status, or spec for /status."""


class Versions:
    """The versions in which one resource is served (`apply.Versions`)."""

    def __init__(self, rtype: ResourceType) -> None:
        self._rtype = rtype

    def schema(self, api_version: str) -> Schema | None:
        group, version = split_api_version(api_version)
        if group != self._rtype.group or version not in self._rtype.versions:
            return None
        return decoding.schema_of(self._rtype, group, version, self._rtype.kind)

    def convert(self, obj: Object, api_version: str) -> Object:
        return conversion.convert(self._rtype, obj, api_version)


def writer_of(call: Call, strategy: Strategy) -> Writer:
    """Who writes what: the main resource's writers never change status, and those of /status nothing but it."""
    rtype, subresource = call.rtype, call.subresource
    ignored = _RESET.get((rtype.group, rtype.resource, subresource))
    if ignored is None:
        if subresource == "status":
            ignored = SPEC
        else:
            ignored = STATUS if strategy.has_status else _NOTHING
    version = rtype.api_version(call.version)
    return Writer(call.field_manager, version, call.now, subresource, ignored)


def schema_of(call: Call) -> Schema:
    """The schema of the resource in the version of the request."""
    rtype = call.rtype
    return decoding.schema_of(rtype, rtype.group, call.version, rtype.kind)


def set_created(call: Call, strategy: Strategy, obj: Object) -> None:
    """All that a new object sets belongs to its creator."""
    shown = decoding.from_storage(call, obj)
    _set(obj, apply.created(shown, schema_of(call), writer_of(call, strategy)))


def set_updated(call: Call, strategy: Strategy, new: Object, old: Object) -> None:
    """What changed belongs to the writer."""
    shown_old, shown_new = decoding.from_storage(call, old), decoding.from_storage(call, new)
    versions = Versions(call.rtype)
    _set(new, apply.updated(shown_old, shown_new, schema_of(call), writer_of(call, strategy), versions))


def set_settled(new: Object, old: Object, now: float) -> None:
    """What the server itself makes of a CustomResourceDefinition's status is its own."""
    writer = Writer("kube-apiserver", _DEFINITION[0], now, "status", _SPEC_AND_METADATA)
    _set(new, apply.updated(old, new, schema.load(*_DEFINITION), writer))


def settle(new: Object, old: Object) -> None:
    """An update that changes nothing leaves the times of the entries too."""
    if "managedFields" in new["metadata"]:
        _set(new, apply.settled(old, new))


def _set(obj: Object, entries: list[Object]) -> None:
    if entries:
        obj["metadata"]["managedFields"] = entries
    else:
        obj["metadata"].pop("managedFields", None)


# ---------------------------------------------------------------- scale


def scale_writer(call: Call) -> Writer:
    return Writer(call.field_manager, apply.SCALE_VERSION, call.now, call.subresource, _NOTHING)


def scale_entries(call: Call, obj: Object, path: str) -> list[Object]:
    """Who manages the Scale of an object; `path` is where the replicas are (".spec.replicas")."""
    return apply.scale_entries(obj["metadata"].get("managedFields") or [], _replicas(call.rtype, path))


def set_scaled(call: Call, obj: Object, entries: list[Object], path: str) -> None:
    """Who manages the object after its Scale was written, which is managed by `entries` now."""
    before = obj["metadata"].get("managedFields") or []
    version = call.rtype.api_version(call.version)
    _set(obj, apply.entries_after_scale(before, entries, _replicas(call.rtype, path), version))


def _replicas(rtype: ResourceType, path: str) -> apply.Replicas:
    parts = tuple(f"f:{key}" for key in path.split(".")[1:])
    return {rtype.api_version(version): parts for version in rtype.versions}

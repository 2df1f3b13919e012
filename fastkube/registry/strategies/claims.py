"""The spec of a PersistentVolumeClaim, wherever it stands: a claim itself, a template of one, an ephemeral volume."""

from __future__ import annotations

from fastkube.api import field
from fastkube.api.names import dns1123_label, dns1123_subdomain
from fastkube.api.selectors import validate_label_selector
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.checks import Errors, Object

ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
VOLUME_MODES = ("Block", "Filesystem")


def access_modes(errs: Errors, path: str, modes: list[str]) -> None:
    for mode in modes:
        checks.one_of(errs, path, mode, ACCESS_MODES)
    if "ReadWriteOncePod" in modes and any(mode in ACCESS_MODES[:3] for mode in modes):
        errs.append(field.forbidden(path, "may not use ReadWriteOncePod with other access modes"))


def claim_spec(errs: Errors, path: str, spec: Object, *, lax_api_group: bool = False) -> None:
    """`lax_api_group`: the old object had a data source with a group, whose form was not checked once."""
    modes = spec.get("accessModes") or []
    if not modes:
        errs.append(field.required(f"{path}.accessModes", "at least 1 access mode is required"))
    errs += validate_label_selector(spec.get("selector"), f"{path}.selector")
    access_modes(errs, f"{path}.accessModes", modes)
    _storage(errs, f"{path}.resources[storage]", spec)
    class_name = spec.get("storageClassName")
    if class_name:
        checks.subdomain(errs, f"{path}.storageClassName", class_name)
    mode = spec.get("volumeMode")
    if mode is not None:
        checks.one_of(errs, f"{path}.volumeMode", mode, VOLUME_MODES)
    _data_sources(errs, path, spec, lax_api_group)
    attributes = spec.get("volumeAttributesClassName")
    if attributes:
        checks.subdomain(errs, f"{path}.volumeAttributesClassName", attributes)


def _storage(errs: Errors, path: str, spec: Object) -> None:
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if storage is None:
        errs.append(field.required(path))
    else:
        checks.positive_quantity(errs, path, storage)


def _data_sources(errs: Errors, path: str, spec: Object, lax_api_group: bool) -> None:
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if source is not None:
        _data_source(errs, f"{path}.dataSource", source, lax_api_group)
    if reference is None:
        return
    at = f"{path}.dataSourceRef"
    _data_source(errs, at, reference, lax_api_group)
    namespace = reference.get("namespace")
    if namespace:
        errs += [field.invalid(f"{at}.namespace", namespace, fault) for fault in dns1123_label(namespace)]
    if source is None:
        return
    if namespace:
        problem = "may not be specified when dataSourceRef.namespace is specified"
        errs.append(field.invalid(path, field.struct({}), problem))
    elif any(source.get(key) != reference.get(key) for key in ("apiGroup", "kind", "name")):
        errs.append(field.invalid(path, field.struct({}), "must match dataSourceRef"))


def _data_source(errs: Errors, path: str, source: Object, lax_api_group: bool) -> None:
    checks.required(errs, path, source, "name", "kind")
    group, kind = source.get("apiGroup") or "", source.get("kind") or ""
    if not group and kind != "PersistentVolumeClaim":
        problem = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
        errs.append(field.invalid(path, kind, problem))
    if group and not lax_api_group:
        errs += [field.invalid(f"{path}.apiGroup", group, fault) for fault in dns1123_subdomain(group)]


def claim_warnings(path: str, spec: Object) -> list[str]:
    """Byte counts with a fraction."""
    told = []
    resources = spec.get("resources") or {}
    for kind in ("requests", "limits"):
        amount = (resources.get(kind) or {}).get("storage")
        if amount is not None and checks.amount(amount) % 1_000_000_000:
            problem = f"fractional byte value {field.quote(amount)} is invalid, must be an integer"
            told.append(f"{path}.resources.{kind}[storage]: {problem}")
    return told

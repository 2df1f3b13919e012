"""References to fields of a Pod or of its containers' resources: in environment variables and downward API files."""

from __future__ import annotations

from fastkube.api import field
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.checks import Errors, Object

ENV_FIELDS = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
    "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip
VOLUME_FIELDS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")

_KNOWN = frozenset((
    "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid",
    "spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "spec.schedulerName",
    "status.phase", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
))  # fmt: skip
_ALIASES = {"spec.host": "spec.nodeName"}
_SUBSCRIPTED = ("metadata.annotations", "metadata.labels")

_RESOURCES = (
    "limits.cpu", "limits.ephemeral-storage", "limits.memory",
    "requests.cpu", "requests.ephemeral-storage", "requests.memory",
)  # fmt: skip
_HUGE_PAGES = ("limits.hugepages-", "requests.hugepages-")
_BYTE_DIVISORS = frozenset(("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"))
_BYTES_TOLD = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei"


def _split(path: str) -> tuple[str, str, bool]:
    """`metadata.labels['x']` is the field metadata.labels and the key x."""
    if not path.endswith("']"):
        return path, "", False
    name, bracket, key = path[:-2].partition("['")
    return (name, key, True) if bracket and name else (path, "", False)


def object_field(errs: Errors, path: str, reference: Object, allowed: tuple[str, ...]) -> None:
    """An ObjectFieldSelector; `allowed` is sorted."""
    told = reference.get("fieldPath") or ""
    if not reference.get("apiVersion"):
        errs.append(field.required(f"{path}.apiVersion"))
        return
    if not told:
        errs.append(field.required(f"{path}.fieldPath"))
        return
    if reference["apiVersion"] != "v1":
        problem = f"error converting fieldPath: unsupported pod version: {reference['apiVersion']}"
        errs.append(field.invalid(f"{path}.fieldPath", told, problem))
        return
    name, key, subscripted = _split(told)
    if subscripted and name not in _SUBSCRIPTED:
        problem = f"error converting fieldPath: field label does not support subscript: {told}"
        errs.append(field.invalid(f"{path}.fieldPath", told, problem))
    elif subscripted:
        checks.qualified(errs, path, key.lower() if name == "metadata.annotations" else key)
    elif name not in _KNOWN and name not in _ALIASES:
        problem = f"error converting fieldPath: field label not supported: {told}"
        errs.append(field.invalid(f"{path}.fieldPath", told, problem))
    elif _ALIASES.get(name, name) not in allowed:
        errs.append(field.not_supported(f"{path}.fieldPath", _ALIASES.get(name, name), allowed))


def resource_field(errs: Errors, path: str, reference: Object, *, in_volume: bool) -> None:
    """A ResourceFieldSelector; in a volume it must name the container."""
    resource = reference.get("resource") or ""
    if in_volume and not reference.get("containerName"):
        errs.append(field.required(f"{path}.containerName"))
    elif not resource:
        errs.append(field.required(f"{path}.resource"))
    elif resource not in _RESOURCES and not resource.startswith(_HUGE_PAGES):
        errs.append(field.not_supported(f"{path}.resource", resource, _RESOURCES))
    divisor = reference.get("divisor")
    if divisor is not None and checks.amount(divisor):
        _divisor(errs, f"{path}.divisor", resource, divisor)


def _divisor(errs: Errors, path: str, resource: str, divisor: str) -> None:
    if resource.endswith(".cpu"):
        if divisor not in ("1m", "1"):
            problem = "only divisor's values 1m and 1 are supported with the cpu resource"
            errs.append(field.invalid(path, resource, problem))
        return
    if resource.endswith(".memory"):
        what = "memory resource"
    elif resource.endswith(".ephemeral-storage"):
        what = "local ephemeral storage resource"
    elif resource.startswith(_HUGE_PAGES):
        what = "hugepages resource"
    else:
        return
    if divisor not in _BYTE_DIVISORS:
        problem = f"only divisor's values {_BYTES_TOLD} are supported with the {what}"
        errs.append(field.invalid(path, resource, problem))

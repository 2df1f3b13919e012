"""Names and amounts of resources: of containers and pods, in limit ranges and quotas, on nodes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import lru_cache

from fastkube.api import field, quantity
from fastkube.api.names import is_label_key, label_key
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.checks import Errors, Object

_UNIT = 1_000_000_000  # nanos
_MILLI = 1_000_000

_COMPUTE = frozenset(("cpu", "memory", "ephemeral-storage"))
_INTEGERS = frozenset((
    "pods", "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps",
    "persistentvolumeclaims", "services.nodeports", "services.loadbalancers",
))  # fmt: skip
_QUOTA = _COMPUTE | _INTEGERS | {
    "requests.cpu", "requests.memory", "requests.ephemeral-storage", "requests.storage",
    "limits.cpu", "limits.memory", "limits.ephemeral-storage",
}  # fmt: skip
_STANDARD = _QUOTA | {"storage"}

HUGE_PAGES = "hugepages-"
_POD_LEVEL = ("cpu", HUGE_PAGES, "memory")

NameCheck = Callable[[Errors, str, str], None]


def is_native(name: str) -> bool:
    """Whether Kubernetes itself defined the resource: no domain, or its own."""
    return "/" not in name or "kubernetes.io/" in name


@lru_cache(maxsize=1024)
def is_extended(name: str) -> bool:
    return not is_native(name) and not name.startswith("requests.") and is_label_key(f"requests.{name}")


def may_overcommit(name: str) -> bool:
    return is_native(name) and not name.startswith(HUGE_PAGES)


def is_standard_quota(name: str) -> bool:
    return name in _QUOTA or name.startswith((HUGE_PAGES, "requests.hugepages-"))


def _is_standard(name: str) -> bool:
    return name in _STANDARD or name.startswith((HUGE_PAGES, "requests.hugepages-"))


# ---------------------------------------------------------------- names


def name(errs: Errors, path: str, value: str) -> None:
    if not is_label_key(value):
        errs += [field.invalid(path, value, fault) for fault in label_key(value)]
    elif "/" not in value and not _is_standard(value):
        errs.append(field.invalid(path, value, "must be a standard resource type or fully qualified"))


def container_name(errs: Errors, path: str, value: str) -> None:
    if value in _COMPUTE:
        return
    name(errs, path, value)
    if "/" not in value:
        if not value.startswith(HUGE_PAGES):
            errs.append(field.invalid(path, value, "must be a standard resource for containers"))
    elif not is_native(value) and not is_extended(value):
        errs.append(field.invalid(path, value, "doesn't follow extended resource name standard"))


def pod_name(errs: Errors, path: str, value: str) -> None:
    """A resource of the pod as a whole."""
    before = len(errs)
    name(errs, path, value)
    if len(errs) == before and value not in ("cpu", "memory") and not value.startswith(HUGE_PAGES):
        errs.append(field.not_supported(path, value, _POD_LEVEL))


def quota_name(errs: Errors, path: str, value: str) -> None:
    name(errs, path, value)
    if "/" not in value and not is_standard_quota(value):
        errs.append(field.invalid(path, value, "must be a standard resource for quota"))


# ---------------------------------------------------------------- amounts


def value(errs: Errors, path: str, resource: str, amount: str) -> None:
    """An amount that is not negative and, of things that are counted, whole."""
    nanos = checks.amount(amount)
    if nanos < 0:
        errs.append(field.invalid(path, amount, field.at_least(0)))
    if (resource in _INTEGERS or is_extended(resource)) and nanos % _UNIT:
        errs.append(field.invalid(path, amount, "must be an integer"))


def _huge_page_value(errs: Errors, path: str, resource: str, amount: str) -> None:
    try:
        page = quantity.parse(resource[len(HUGE_PAGES) :]).nanos
    except quantity.QuantityError:
        page = 0
    if page <= 0 or page % _UNIT or quantity.value(amount) * _UNIT % page:
        errs.append(field.invalid(path, amount, f"{amount} is not positive integer multiple of {resource}"))


def requirements(
    errs: Errors, path: str, resources: Object, claims: Collection[str] = (), check: NameCheck = container_name
) -> None:
    """Requests, limits and claims; `claims` are the names that the pod offers."""
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for resource, amount in limits.items():
        _amount(errs, f"{path}.limits[{resource}]", resource, amount, check)
    for resource, amount in requests.items():
        _amount(errs, f"{path}.requests[{resource}]", resource, amount, check)
        limit = limits.get(resource)
        if limit is None:
            if not may_overcommit(resource):
                problem = "Limit must be set for non overcommitable resources"
                errs.append(field.required(f"{path}.limits", problem))
        elif limit != amount:
            _within_limit(errs, f"{path}.requests", resource, amount, limit)
    named = limits.keys() | requests.keys()
    if not named & {"cpu", "memory"} and any(resource.startswith(HUGE_PAGES) for resource in named):
        errs.append(field.forbidden(path, "HugePages require cpu or memory"))
    if resources.get("claims"):
        _claims(errs, f"{path}.claims", resources["claims"], claims)


def _amount(errs: Errors, path: str, resource: str, amount: str, check: NameCheck) -> None:
    check(errs, path, resource)
    value(errs, path, resource, amount)
    if resource.startswith(HUGE_PAGES):
        _huge_page_value(errs, path, resource, amount)


def _within_limit(errs: Errors, path: str, resource: str, amount: str, limit: str) -> None:
    difference = quantity.cmp(amount, limit)
    if difference and not may_overcommit(resource):
        errs.append(field.invalid(path, amount, f"must be equal to {resource} limit of {limit}"))
    elif difference > 0:
        errs.append(field.invalid(path, amount, f"must be less than or equal to {resource} limit of {limit}"))


def _claims(errs: Errors, path: str, claims: list[Object], offered: Collection[str]) -> None:
    seen: set[str] = set()
    for number, claim in enumerate(claims):
        at = f"{path}[{number}]"
        claimed, request = claim.get("name") or "", claim.get("request") or ""
        if not claimed:
            errs.append(field.required(at))
            continue
        key = f"{claimed}/{request}" if request else claimed
        if claimed in seen:
            errs.append(field.duplicate(at, claimed))
        else:
            if request:
                checks.label(errs, f"{at}.request", request)
            if key in seen:
                errs.append(field.duplicate(at, key))
            elif not request:
                errs += [field.duplicate(at, claimed) for each in seen if each.split("/")[0] == claimed]
            seen.add(key)
        if claimed not in offered:
            told = f": {', '.join(sorted(offered))}" if offered else " which is empty"
            problem = f"must be one of the names in pod.spec.resourceClaims{told}"
            errs.append(field.not_found(at, claimed, problem))

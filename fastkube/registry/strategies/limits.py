"""LimitRanges and ResourceQuotas."""

from __future__ import annotations

from fastkube.api import field, quantity
from fastkube.api.meta import new_uid
from fastkube.errors import Cause
from fastkube.registry.strategies import checks, resources
from fastkube.registry.strategies.checks import Errors, amount
from fastkube.registry.strategies.go_values import shown
from fastkube.registry.strategies.pod_defaults import default_amounts
from fastkube.registry.strategy import Call, Object, Strategy

_UNIT = 1_000_000_000  # nanos
_MILLI_VALUE_MAX = (2**63 - 1) // 1000
_LIMIT_TYPES = ("Pod", "Container", "PersistentVolumeClaim")
_AMOUNTS = ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")


class LimitRangeStrategy(Strategy):
    metadata_checks = ("whole",)
    has_generation = False
    has_status = False
    allow_create_on_update = True

    def default(self, obj: Object) -> None:
        for limit in (obj.get("spec") or {}).get("limits") or ():
            for key in _AMOUNTS:
                default_amounts(limit.get(key))
            if limit.get("type") == "Container":
                _fill(limit)

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        super().prepare_for_create(call, obj)
        if not obj["metadata"].get("name"):
            obj["metadata"]["name"] = new_uid()

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        seen: set[str] = set()
        for number, limit in enumerate((obj.get("spec") or {}).get("limits") or ()):
            path, kind = f"spec.limits[{number}]", limit.get("type") or ""
            before = len(errs)
            checks.qualified(errs, f"{path}.type", kind)
            if len(errs) == before and "/" not in kind and kind not in _LIMIT_TYPES:
                problem = "must be a standard limit type or fully qualified"
                errs.append(field.invalid(f"{path}.type", kind, problem))
            if kind in seen:
                errs.append(field.duplicate(f"{path}.type", kind))
            seen.add(kind)
            _limit(errs, path, kind, limit)
        return errs


def _fill(limit: Object) -> None:
    """Of containers: the default is the maximum, the default request is the default, or else the minimum."""
    defaults = {**(limit.get("max") or {}), **(limit.get("default") or {})}
    requests = {**(limit.get("min") or {}), **defaults, **(limit.get("defaultRequest") or {})}
    for key, amounts in (("default", defaults), ("defaultRequest", requests)):
        if amounts:
            limit[key] = amounts


def _limit(errs: Errors, path: str, kind: str, limit: Object) -> None:
    named = resources.container_name if kind in ("Pod", "Container") else resources.name
    for key in _AMOUNTS:
        amounts = limit.get(key) or {}
        if kind == "Pod" and key in ("default", "defaultRequest"):
            if amounts:
                errs.append(field.forbidden(f"{path}.{key}", "may not be specified when `type` is 'Pod'"))
            continue
        if key == "maxLimitRequestRatio" and kind == "PersistentVolumeClaim":
            _claim_limit(errs, path, limit)
        for resource in amounts:
            named(errs, f"{path}.{key}[{resource}]", resource)
    skipped = ("default", "defaultRequest") if kind == "Pod" else ()
    keys = dict.fromkeys(resource for key in _AMOUNTS if key not in skipped for resource in limit.get(key) or ())
    for resource in keys:
        amounts = {key: (limit.get(key) or {}).get(resource) for key in _AMOUNTS if key not in skipped}
        _ordered(errs, path, resource, {key: text for key, text in amounts.items() if text is not None})


def _claim_limit(errs: Errors, path: str, limit: Object) -> None:
    if not any("storage" in (limit.get(key) or {}) for key in ("min", "max")):
        problem = "either minimum or maximum storage value is required, but neither was provided"
        errs.append(field.required(f"{path}.limits", problem))


_ORDER = (
    # the one that must not be larger, than which, the field complained about, the value shown, their names in words
    ("min", "max", "min", "min", "min value", "max value"),
    ("min", "defaultRequest", "defaultRequest", "defaultRequest", "min value", "default request value"),
    ("defaultRequest", "max", "defaultRequest", "defaultRequest", "default request value", "max value"),
    ("defaultRequest", "default", "defaultRequest", "defaultRequest", "default request value", "default limit value"),
    ("min", "default", "default", "min", "min value", "default value"),
    ("default", "max", "default", "max", "default value", "max value"),
)


def _ordered(errs: Errors, path: str, resource: str, amounts: dict[str, str]) -> None:
    for smaller, larger, place, shown_key, one, other in _ORDER:
        if smaller in amounts and larger in amounts and amount(amounts[smaller]) > amount(amounts[larger]):
            problem = f"{one} {amounts[smaller]} is greater than {other} {amounts[larger]}"
            errs.append(field.invalid(f"{path}.{place}[{resource}]", amounts[shown_key], problem))
    ratio = amounts.get("maxLimitRequestRatio")
    if ratio is not None:
        _ratio(errs, f"{path}.maxLimitRequestRatio[{resource}]", ratio, amounts.get("min"), amounts.get("max"))
    default, request = amounts.get("default"), amounts.get("defaultRequest")
    if default is None or request is None or resources.may_overcommit(resource):
        return
    if amount(default) != amount(request):
        problem = f"default value {default} must equal to defaultRequest value {request} in {resource}"
        errs.append(field.invalid(f"{path}.defaultRequest[{resource}]", request, problem))


def _ratio(errs: Errors, path: str, ratio: str, least: str | None, most: str | None) -> None:
    if amount(ratio) < _UNIT:
        errs.append(field.invalid(path, ratio, f"ratio {ratio} is less than 1"))
    if least is None or most is None:
        return
    read = quantity.value
    share = float(quantity.value(ratio))
    if all(quantity.value(text) < _MILLI_VALUE_MAX for text in (ratio, least, most)):
        read = quantity.milli
        share = quantity.milli(ratio) / 1000
    if not read(least):
        return
    limit = read(most) / read(least)
    if share > limit:
        errs.append(field.invalid(path, ratio, f"ratio {ratio} is greater than max/min = {limit:f}"))


# ---------------------------------------------------------------- ResourceQuota

_SCOPES_OF_PODS = ("Terminating", "NotTerminating", "NotBestEffort", "PriorityClass", "CrossNamespacePodAffinity")
_SCOPES = (*_SCOPES_OF_PODS, "BestEffort", "VolumeAttributesClass")
_POD_RESOURCES = frozenset(("pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"))
_CLAIM_RESOURCES = frozenset(("persistentvolumeclaims", "requests.storage"))
_CONFLICTING = ({"BestEffort", "NotBestEffort"}, {"Terminating", "NotTerminating"})
_EXISTENCE_ONLY = ("BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity")
_ONLY_EXISTS = (
    "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "
    "ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
)


class ResourceQuotaStrategy(Strategy):
    metadata_checks = ("update",)
    has_generation = False

    def default(self, obj: Object) -> None:
        default_amounts((obj.get("spec") or {}).get("hard"))
        for key in ("hard", "used"):
            default_amounts((obj.get("status") or {}).get(key))

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        _quota_spec(errs, obj.get("spec") or {})
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs = self.validate(call, new)
        now, was = ((obj.get("spec") or {}).get("scopes") or [] for obj in (new, old))
        if set(now) != set(was):
            errs.append(field.invalid("spec.scopes", now or None, field.IMMUTABLE))
        return errs

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        return [] if old is not None else _inverted((obj.get("spec") or {}).get("hard") or {})

    def validate_status_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        for key in ("hard", "used"):
            _amounts(errs, f"status.{key}", (new.get("status") or {}).get(key) or {})
        return errs


def _inverted(hard: dict[str, str]) -> list[str]:
    """Complaints about more that may be asked for than may be used."""
    told = []
    for resource in ("cpu", "memory", "storage", "ephemeral-storage"):
        asked, limit = f"requests.{resource}", f"limits.{resource}"
        if asked not in hard and resource in ("cpu", "memory"):
            asked = resource
        if asked in hard and limit in hard and quantity.cmp(hard[asked], hard[limit]) > 0:
            told.append(f"ResourceQuota {asked} ({hard[asked]}) should be less than {limit} ({hard[limit]})")
    return told


def _amounts(errs: Errors, path: str, amounts: dict[str, str]) -> None:
    for resource, text in amounts.items():
        resources.quota_name(errs, f"{path}[{resource}]", resource)
        resources.value(errs, f"{path}[{resource}]", resource, text)


def _quota_spec(errs: Errors, spec: Object) -> None:
    hard, scopes = spec.get("hard") or {}, spec.get("scopes") or []
    _amounts(errs, "spec.hard", hard)
    path = "spec.scopes"
    for scope in scopes:
        if scope not in _SCOPES:
            errs.append(field.invalid(path, scopes, "unsupported scope"))
        errs += [field.invalid(path, scopes, "unsupported scope applied to resource")] * _misapplied(scope, hard)
    _conflicts(errs, path, scopes, scopes)
    if spec.get("scopeSelector") is not None:
        _scope_selector(errs, spec["scopeSelector"], hard, scopes)


def _misapplied(scope: str, hard: Object) -> int:
    """To how many resources the scope does not apply."""
    if scope in _SCOPES_OF_PODS:
        applies = _POD_RESOURCES
    elif scope == "BestEffort":
        applies = frozenset(("pods",))
    elif scope == "VolumeAttributesClass":
        applies = _CLAIM_RESOURCES
    else:
        return 0
    return sum(resources.is_standard_quota(resource) and resource not in applies for resource in hard)


def _conflicts(errs: Errors, path: str, given: list[str], scopes: list[str]) -> None:
    for pair in _CONFLICTING:
        if pair <= set(given):
            errs.append(field.invalid(path, scopes or None, "conflicting scopes"))


def _scope_selector(errs: Errors, selector: Object, hard: Object, scopes: list[str]) -> None:
    path = "spec.scopeSelector.matchExpressions"
    expressions = selector.get("matchExpressions") or []
    for expression in expressions:
        scope, operator = expression.get("scopeName") or "", expression.get("operator") or ""
        values = expression.get("values") or []
        if scope not in _SCOPES:
            errs.append(field.invalid(f"{path}.scopeName", scope, "unsupported scope"))
        told = shown("ScopeSelector", selector)
        errs += [field.invalid(path, told, "unsupported scope applied to resource")] * _misapplied(scope, hard)
        if scope in _EXISTENCE_ONLY and operator != "Exists":
            errs.append(field.invalid(f"{path}.operator", operator, _ONLY_EXISTS))
        if operator in ("In", "NotIn"):
            if not values:
                problem = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
                errs.append(field.required(f"{path}.values", problem))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                problem = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
                errs.append(field.invalid(f"{path}.values", values, problem))
        else:
            errs.append(field.invalid(f"{path}.operator", operator, "not a valid selector operator"))
    _conflicts(errs, path, [expression.get("scopeName") or "" for expression in expressions], scopes)


STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("", "limitranges"): LimitRangeStrategy(),
    ("", "resourcequotas"): ResourceQuotaStrategy(),
}

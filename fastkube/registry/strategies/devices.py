"""Dynamic resources as they are asked for: DeviceClasses, ResourceClaims and their templates.

Upstream: pkg/apis/resource/validation. What devices there are is in resource_slices.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import orjson

from fastkube.api import field
from fastkube.api.names import c_identifier, dns1123_label, label_value
from fastkube.errors import Cause
from fastkube.registry.strategies import checks, resources
from fastkube.registry.strategies.checks import Errors, equal
from fastkube.registry.strategies.go_values import shown
from fastkube.registry.strategies.pod_volumes import template_metadata
from fastkube.registry.strategies.volume_sources import csi_driver_name
from fastkube.registry.strategy import Call, Object, Strategy

REQUESTS_MAX = CONSTRAINTS_MAX = CONFIGS_MAX = SELECTORS_MAX = 32
_ALTERNATIVES_MAX, TOLERATIONS_MAX, _ID_MAX = 8, 16, 32
_EXPRESSION_MAX_BYTES = _PARAMETERS_MAX_BYTES = 10 * 1024
TAINT_EFFECTS = ("NoExecute", "NoSchedule", "None")

Check = Callable[[Errors, str, Any], None]
Names = dict[str, set[str]]
"""The requests of a claim, and of each the alternatives that it names."""


# ---------------------------------------------------------------- lists and names


def listed(errs: Errors, path: str, items: list[Any] | None, most: int, check: Check) -> bool:
    """Each item is good, and they are not too many; False if they are."""
    items = items or []
    if 0 <= most < len(items):
        errs.append(field.too_many(path, len(items), most))
        return False
    for number, item in enumerate(items):
        check(errs, f"{path}[{number}]", item)
    return True


def unique(
    errs: Errors, path: str, items: list[Any] | None, most: int, check: Check, key: Callable[[Any], Hashable]
) -> None:
    """`listed`, and no two have the same key."""
    if not listed(errs, path, items, most, check):
        return
    seen: set[Hashable] = set()
    for number, item in enumerate(items or ()):
        if key(item) in seen:
            errs.append(field.duplicate(f"{path}[{number}]", key(item)))
        seen.add(key(item))


def name_of(item: Object) -> str:
    name: str = item.get("name") or ""
    return name


def _itself(item: str) -> str:
    return item


def qualified_name(errs: Errors, path: str, name: str) -> None:
    """An identifier, with a domain or without."""
    domain, slash, rest = name.partition("/")
    if not slash:
        _identifier(errs, path, domain)
        return
    if "/" in rest:
        errs.append(field.invalid(path, name, "must not contain more than one slash"))
        return
    if not domain:
        errs.append(field.invalid(path, "", "the domain must not be empty"))
    else:
        csi_driver_name(errs, path, domain)
    if not rest:
        errs.append(field.invalid(path, "", "the name must not be empty"))
    else:
        _identifier(errs, path, rest)


def _identifier(errs: Errors, path: str, text: str) -> None:
    if len(text) > _ID_MAX:
        errs.append(field.too_long(path, _ID_MAX))
    checks.faults(errs, path, text, c_identifier)


def fully_qualified_name(errs: Errors, path: str, name: str) -> None:
    qualified_name(errs, path, name)
    if "/" not in name:
        problem = "a fully qualified name must be a domain and a name separated by a slash"
        errs.append(field.invalid(path, name, problem))


def pool_name(errs: Errors, path: str, name: str) -> None:
    if not name:
        errs.append(field.required(path))
        return
    if len(name) > 253:
        errs.append(field.too_long(path, 253))
    for part in name.split("/"):
        checks.subdomain(errs, path, part)


def raw_object(errs: Errors, path: str, value: Any, most: int) -> None:
    """Free-form data, which must be a JSON object."""
    if value is None:
        errs.append(field.required(path))
    elif len(orjson.dumps(value)) > most:
        errs.append(field.too_long(path, most))
    elif not isinstance(value, dict):
        errs.append(field.invalid(path, "<value omitted>", "must be a valid JSON object"))


# ---------------------------------------------------------------- selectors, tolerations, configuration


def selector(errs: Errors, path: str, told: Object) -> None:
    cel = told.get("cel")
    if cel is None:
        errs.append(field.required(f"{path}.cel"))
        return
    at, expression = f"{path}.cel.expression", cel.get("expression") or ""
    if len(expression.encode()) > _EXPRESSION_MAX_BYTES:
        errs.append(field.too_long(at, _EXPRESSION_MAX_BYTES))
        return
    from fastkube.cel import devices  # most servers never load CEL

    problem = devices.fault(expression)
    if problem is not None:
        errs.append(field.invalid(at, expression, problem))
    elif devices.is_too_complex(expression):
        errs.append(field.forbidden(at, "too complex, exceeds cost limit"))


def toleration(errs: Errors, path: str, told: Object) -> None:
    operator, value, effect = (told.get(key) or "" for key in ("operator", "value", "effect"))
    if told.get("key"):
        checks.qualified(errs, f"{path}.key", told["key"])
    if operator == "Exists":
        if value:
            errs.append(field.invalid(f"{path}.value", value, "must be empty for operator `Exists`"))
    elif operator == "Equal":
        checks.faults(errs, f"{path}.value", value, label_value)
    else:
        checks.one_of_required(errs, f"{path}.operator", operator, ("Equal", "Exists"))
    if effect:
        checks.one_of(errs, f"{path}.effect", effect, TAINT_EFFECTS)


def configuration(errs: Errors, path: str, told: Object) -> None:
    opaque = told.get("opaque")
    if opaque is None:
        errs.append(field.required(f"{path}.opaque"))
        return
    csi_driver_name(errs, f"{path}.opaque.driver", opaque.get("driver") or "")
    raw_object(errs, f"{path}.opaque.parameters", opaque.get("parameters"), _PARAMETERS_MAX_BYTES)


# ---------------------------------------------------------------- claims


def default_claim(spec: Object) -> None:
    for request in (spec.setdefault("devices", {})).get("requests") or ():
        for each in (request.get("exactly"), *(request.get("firstAvailable") or ())):
            if each is None:
                continue
            if not each.get("allocationMode"):
                each["allocationMode"] = "ExactCount"
            if each["allocationMode"] == "ExactCount" and not each.get("count"):
                each["count"] = 1
            for told in each.get("tolerations") or ():
                if not told.get("operator"):
                    told["operator"] = "Equal"


def request_names(spec: Object) -> Names:
    requests = (spec.get("devices") or {}).get("requests") or ()
    return {name_of(each): {name_of(sub) for sub in each.get("firstAvailable") or ()} for each in requests}


def reference(errs: Errors, path: str, name: str, names: Names) -> None:
    """The name of a request, or of one of its alternatives."""
    problem = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
    request, slash, alternative = name.partition("/")
    if "/" in alternative:
        errs.append(field.invalid(path, name, problem))
        return
    for part in name.split("/"):
        checks.faults(errs, path, part, dns1123_label)
    if request not in names or (slash and alternative not in names[request]):
        errs.append(field.invalid(path, name, problem))


def references(errs: Errors, path: str, told: list[str] | None, names: Names) -> None:
    unique(errs, path, told, REQUESTS_MAX, lambda errs, at, name: reference(errs, at, name, names), _itself)


def claim_spec(errs: Errors, path: str, spec: Object) -> None:
    devices, names = spec.get("devices") or {}, request_names(spec)
    at = f"{path}.devices"
    unique(errs, f"{at}.requests", devices.get("requests"), REQUESTS_MAX, _request, name_of)

    def constraint(errs: Errors, where: str, told: Object) -> None:
        references(errs, f"{where}.requests", told.get("requests"), names)
        _attribute(errs, where, told)

    def config(errs: Errors, where: str, told: Object) -> None:
        references(errs, f"{where}.requests", told.get("requests"), names)
        configuration(errs, where, told)

    listed(errs, f"{at}.constraints", devices.get("constraints"), CONSTRAINTS_MAX, constraint)
    listed(errs, f"{at}.config", devices.get("config"), CONFIGS_MAX, config)


def _request(errs: Errors, path: str, request: Object) -> None:
    checks.label(errs, f"{path}.name", name_of(request))
    exactly, first = request.get("exactly"), request.get("firstAvailable")
    problem = "exactly one of `exactly` or `firstAvailable` is required"
    if exactly is None and not first:
        errs.append(field.required(path, problem))
    elif exactly is not None and first:
        errs.append(field.invalid(path, None, f"{problem}, but multiple fields are set"))
    elif exactly is not None:
        _exact(errs, f"{path}.exactly", exactly)
    else:
        unique(errs, f"{path}.firstAvailable", first, _ALTERNATIVES_MAX, _alternative, name_of)


def _alternative(errs: Errors, path: str, request: Object) -> None:
    checks.label(errs, f"{path}.name", name_of(request))
    _exact(errs, path, request)


def _exact(errs: Errors, path: str, request: Object) -> None:
    name = request.get("deviceClassName")
    if not name:
        errs.append(field.required(f"{path}.deviceClassName"))
    else:
        checks.subdomain(errs, f"{path}.deviceClassName", name)
    listed(errs, f"{path}.selectors", request.get("selectors"), SELECTORS_MAX, selector)
    mode, count = request.get("allocationMode") or "", request.get("count") or 0
    if mode == "All":
        if count:
            problem = "must not be specified when allocationMode is 'All'"
            errs.append(field.invalid(f"{path}.count", count, problem))
    elif mode == "ExactCount":
        checks.positive(errs, f"{path}.count", count)
    else:
        errs.append(field.not_supported(f"{path}.allocationMode", mode, ("All", "ExactCount")))
    listed(errs, f"{path}.tolerations", request.get("tolerations"), TOLERATIONS_MAX, toleration)


def _attribute(errs: Errors, path: str, constraint: Object) -> None:
    for key in ("matchAttribute", "distinctAttribute"):
        if constraint.get(key) is not None:
            fully_qualified_name(errs, f"{path}.{key}", constraint[key])
            return
    problem = 'exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set'
    errs.append(field.required(path, problem))


class ResourceClaimTemplateStrategy(Strategy):
    has_generation = False
    has_status = False

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("metadata", {})
        default_claim(spec.setdefault("spec", {}))

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        template_metadata(errs, "spec.metadata", obj["spec"]["metadata"])
        claim_spec(errs, "spec.spec", obj["spec"]["spec"])
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs = self.validate(call, new)
        told = shown("ResourceClaimTemplateSpec", new["spec"])
        checks.immutable(errs, "spec", new["spec"], old["spec"], told)
        return errs


class DeviceClassStrategy(Strategy):
    has_status = False

    def validate_name(self, name: str, prefix: bool) -> list[str]:
        """Only the name that was made is judged, not what it was made of."""
        return [] if prefix else super().validate_name(name, prefix)

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        return _class(obj.get("spec") or {}, {})

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        return _class(new.get("spec") or {}, old.get("spec") or {})


def _class(spec: Object, before: Object) -> Errors:
    """Expressions and parameters that are as they were are good, whatever the rules are today."""
    errs: Errors = []
    for key, most, check in (("selectors", SELECTORS_MAX, selector), ("config", CONFIGS_MAX, configuration)):
        kept = bool(before) and equal(spec.get(key), before.get(key))
        listed(errs, f"spec.{key}", spec.get(key), most, _good if kept else check)
    name = spec.get("extendedResourceName")
    if name is not None and not resources.is_extended(name):
        errs.append(field.invalid("spec.extendedResourceName", name, "must be a valid extended resource name"))
    return errs


def _good(errs: Errors, path: str, told: Object) -> None:
    """Nothing is asked."""

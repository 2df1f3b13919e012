"""ResourceSlices: the devices that a driver offers, on one node or on several.

Upstream: ValidateResourceSlice, ValidateResourceSliceUpdate. A device that is as it was is not judged anew where the
rules have become stricter since.
"""

from __future__ import annotations

import re

from fastkube.api import field
from fastkube.api.names import dns1123_label, dns1123_subdomain, label_value
from fastkube.clock import rfc3339
from fastkube.errors import Cause
from fastkube.registry.strategies import checks, devices, pod_scheduling
from fastkube.registry.strategies.checks import Errors, amount, equal
from fastkube.registry.strategies.devices import listed, name_of, unique
from fastkube.registry.strategies.go_values import shown, shown_list
from fastkube.registry.strategies.resource_claims import binding_conditions
from fastkube.registry.strategies.volume_sources import csi_driver_name
from fastkube.registry.strategy import Call, Object, Strategy

_DEVICES_MAX, _ADVANCED_DEVICES_MAX, _ATTRIBUTES_MAX, _TAINTS_MAX = 128, 64, 32, 16
_COUNTER_SETS_MAX, _COUNTERS_MAX, _CONSUMPTIONS_MAX, _OPTIONS_MAX = 8, 32, 2, 10
_VALUE_MAX = 64
_UNIT = 1_000_000_000  # nanos
_NODES = ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection")
_SWITCHED_OFF = ("bools", "ints", "strings", "versions")
"""Attributes that are lists: off by default in 1.36, as are mappings to resources of nodes."""

_NUMBER, _PRE = r"(0|[1-9]\d*)", r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
_is_version = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_PRE}(\.{_PRE})*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?", re.ASCII
).fullmatch


class ResourceSliceStrategy(Strategy):
    has_status = False

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        _prepare(call, obj["spec"])

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        _prepare(call, new["spec"])

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        return _slice(obj["spec"], None)

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        return _slice(new["spec"], old["spec"])


def _prepare(call: Call, spec: Object) -> None:
    for device in spec.get("devices") or ():
        device.pop("nodeAllocatableResourceMappings", None)
        for attribute in (device.get("attributes") or {}).values():
            for key in _SWITCHED_OFF:
                attribute.pop(key, None)
        for taint in device.get("taints") or ():
            if taint.get("timeAdded") is None:
                taint["timeAdded"] = rfc3339(call.now)


def _slice(spec: Object, old: Object | None) -> Errors:
    errs: Errors = []
    driver, pool = spec.get("driver") or "", spec.get("pool") or {}
    csi_driver_name(errs, "spec.driver", driver)
    devices.pool_name(errs, "spec.pool.name", pool.get("name") or "")
    if (pool.get("resourceSliceCount") or 0) <= 0:
        problem = "must be greater than zero"
        errs.append(field.invalid("spec.pool.resourceSliceCount", pool.get("resourceSliceCount") or 0, problem))
    if (pool.get("generation") or 0) < 0:
        problem = "must be greater than or equal to zero"
        errs.append(field.invalid("spec.pool.generation", pool["generation"], problem))
    if old is not None:
        was = old.get("pool") or {}
        checks.immutable(errs, "spec.pool.name", pool.get("name") or "", was.get("name") or "")
        checks.immutable(errs, "spec.driver", driver, old.get("driver") or "")
        checks.fields_immutable(errs, "spec", spec, old, "nodeName")
    _nodes(errs, spec)
    given = spec.get("devices")
    if spec.get("sharedCounters") and given:
        errs.append(field.invalid("spec", "", "only one of `sharedCounters` or `devices` is allowed"))
    advanced = any(device.get("taints") or device.get("consumesCounters") for device in given or ())
    known = {name_of(device): device for device in (old or {}).get("devices") or ()}
    per_device = bool(spec.get("perDeviceNodeSelection"))

    def device(errs: Errors, path: str, told: Object) -> None:
        _device(errs, path, told, known.get(name_of(told)), per_device)

    most = _ADVANCED_DEVICES_MAX if advanced else _DEVICES_MAX
    unique(errs, "spec.devices", given, most, device, name_of)
    unique(errs, "spec.sharedCounters", spec.get("sharedCounters"), _COUNTER_SETS_MAX, _counter_set, name_of)
    return errs


# ---------------------------------------------------------------- where the devices are


def _nodes(errs: Errors, spec: Object) -> None:
    """Exactly one way of saying it."""
    found = []
    for key in _NODES:
        value, path = spec.get(key), f"spec.{key}"
        if value is None:
            continue
        if key == "nodeName" and not value:
            errs.append(field.invalid(path, value, "must be either unset or set to a non-empty string"))
            continue
        if value is False:
            errs.append(field.invalid(path, value, "must be either unset or set to true"))
            continue
        found.append(f"`{key}`")
        if key == "nodeName":
            checks.faults(errs, path, value, dns1123_subdomain)
        elif key == "nodeSelector":
            pod_scheduling.node_selector(errs, path, value)
            terms = value.get("nodeSelectorTerms") or []
            if len(terms) != 1:
                problem = "must have exactly one node selector term"
                shown_terms = shown_list("NodeSelectorTerm", terms)
                errs.append(field.invalid(f"{path}.nodeSelectorTerms", shown_terms, problem))
    needed = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
    if not found:
        errs.append(field.required("spec", needed))
    elif len(found) > 1:
        told = f"{{{', '.join(found)}}}"
        errs.append(field.invalid("spec", told, f"{needed}, but multiple fields are set"))


def _device_nodes(errs: Errors, path: str, device: Object, per_device: bool) -> None:
    name, selector, everywhere = (device.get(key) for key in _NODES[:3])
    if not per_device:
        if (name, selector, everywhere) != (None, None, None):
            problem = (
                "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true "
                "in the ResourceSlice spec"
            )
            errs.append(field.invalid(path, None, problem))
        return
    found = []
    if name:
        found.append("`nodeName`")
        checks.faults(errs, f"{path}.nodeName", name, dns1123_subdomain)
    elif name is not None:
        errs.append(field.invalid(f"{path}.nodeName", name, "must not be empty"))
    if selector is not None:
        found.append("`nodeSelector`")
        pod_scheduling.node_selector(errs, f"{path}.nodeSelector", selector)
    if everywhere:
        found.append("`allNodes`")
    elif everywhere is not None:
        errs.append(field.invalid(f"{path}.allNodes", everywhere, "must be either unset or set to true"))
    needed = (
        "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to "
        "true in the ResourceSlice spec"
    )
    if not found:
        errs.append(field.required(path, needed))
    elif len(found) > 1:
        errs.append(field.invalid(path, f"{{{', '.join(found)}}}", needed))


# ---------------------------------------------------------------- devices


def _device(errs: Errors, path: str, device: Object, old: Object | None, per_device: bool) -> None:
    checks.label(errs, f"{path}.name", name_of(device))
    attributes, capacity = device.get("attributes") or {}, device.get("capacity") or {}
    if len(attributes) + len(capacity) > _ATTRIBUTES_MAX:
        problem = f"the total number of attributes and capacities must not exceed {_ATTRIBUTES_MAX}"
        errs.append(field.invalid(path, len(attributes) + len(capacity), problem))
    for name, value in attributes.items():
        devices.qualified_name(errs, f"{path}.attributes", name)
        _attribute(errs, f"{path}.attributes[{name}]", value)
    if old is None or not equal(old.get("capacity"), device.get("capacity")):
        for name, value in capacity.items():
            devices.qualified_name(errs, f"{path}.capacity", name)
            _capacity(errs, f"{path}.capacity[{name}]", value, bool(device.get("allowMultipleAllocations")))
    if old is None or not equal(old.get("taints"), device.get("taints")):
        listed(errs, f"{path}.taints", device.get("taints"), _TAINTS_MAX, _taint)
    consumed = device.get("consumesCounters")
    unique(
        errs, f"{path}.consumesCounters", consumed, _CONSUMPTIONS_MAX, _consumption, lambda each: each.get("counterSet")
    )
    _device_nodes(errs, path, device, per_device)
    binding_conditions(errs, path, device)


def _attribute(errs: Errors, path: str, attribute: Object) -> None:
    given = [key for key in ("bool", "int", "string", "version") if attribute.get(key) is not None]
    version = attribute.get("version")
    for key in ("string", "version"):
        if key == "version" and version is not None and not _is_version(version):
            problem = "must be a string compatible with semver.org spec 2.0.0"
            errs.append(field.invalid(f"{path}.version", version, problem))
        if len((attribute.get(key) or "").encode()) > _VALUE_MAX:
            errs.append(field.too_long(f"{path}.{key}", _VALUE_MAX))
    if len(given) != 1:
        told = shown("DeviceAttribute", attribute) if given else ""
        errs.append(field.invalid(path, told, "exactly one value must be specified"))


def _capacity(errs: Errors, path: str, capacity: Object, shared: bool) -> None:
    policy, at = capacity.get("requestPolicy"), f"{path}.requestPolicy"
    if policy is None:
        return
    values, limits, default = policy.get("validValues") or [], policy.get("validRange"), policy.get("default")
    if not shared:
        errs.append(field.forbidden(at, "allowMultipleAllocations must be true"))
    elif values and limits is not None:
        problem = 'exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time'
        errs.append(field.forbidden(at, problem))
    elif values or limits is not None:
        name = "validValues" if values else "validRange"
        if default is None:
            errs.append(field.required(f"{at}.default", f"required when {name} is defined"))
        elif values:
            _valid_values(errs, f"{at}.validValues", values, default, capacity.get("value") or "0")
        else:
            _valid_range(errs, f"{at}.validRange", limits or {}, default, capacity.get("value") or "0")


def _valid_values(errs: Errors, path: str, values: list[str], default: str, most: str) -> None:
    for number in range(1, len(values)):
        if amount(values[number - 1]) > amount(values[number]):
            errs.append(field.invalid(f"{path}[{number}]", values[number], "values must be sorted in ascending order"))

    def option(errs: Errors, at: str, text: str) -> None:
        if amount(text) > amount(most):
            errs.append(field.invalid(at, text, f"option is larger than capacity value: {most}"))

    unique(errs, path, values, _OPTIONS_MAX, option, lambda text: str(-(-amount(text) // _UNIT)))
    if all(amount(text) != amount(default) for text in values):
        errs.append(field.invalid(path, default, "default value is not valid according to the requestPolicy"))


def _valid_range(errs: Errors, path: str, limits: Object, default: str, most: str) -> None:
    low, high, step = (limits.get(key) for key in ("min", "max", "step"))
    if low is None:
        errs.append(field.required(f"{path}.min", "required when validRange is defined"))
        return
    told = [
        ("min", low, low, most, "min is larger than capacity value"),
        ("default", default, low, default, "default is less than min"),
    ]
    if high is not None:
        told += [
            ("max", low, low, high, "min is larger than max"),
            ("max", high, high, most, "max is larger than capacity value"),
            ("default", default, default, high, "default is more than max"),
        ]
    for key, value, larger, smaller, problem in told:
        if amount(larger) > amount(smaller):
            limit = larger if "less" in problem else smaller
            errs.append(field.invalid(f"{path}.{key}", value, f"{problem}: {limit}"))
    if step is None:
        return
    if amount(step) <= 0:
        errs.append(field.invalid(f"{path}.step", step, "must be greater than zero"))
        return
    if amount(low) + amount(step) > amount(most):
        first = _text(amount(low) + amount(step))
        problem = f"one step {first} is larger than capacity value: {most}"
        errs.append(field.invalid(f"{path}.step", step, problem))
    for value in (default, high):
        if value is not None and (amount(value) - amount(low)) % amount(step):
            problem = f"value is not a multiple of a given step ({step}) from ({low})"
            errs.append(field.invalid(f"{path}.step", value, problem))


def _text(nanos: int) -> str:
    return str(nanos // _UNIT) if nanos % _UNIT == 0 else f"{nanos}n"


def _taint(errs: Errors, path: str, taint: Object) -> None:
    checks.qualified(errs, f"{path}.key", taint.get("key") or "")
    if taint.get("value"):
        checks.faults(errs, f"{path}.value", taint["value"], label_value)
    checks.one_of_required(errs, f"{path}.effect", taint.get("effect") or "", devices.TAINT_EFFECTS)


# ---------------------------------------------------------------- counters


def _consumption(errs: Errors, path: str, told: Object) -> None:
    _counters(errs, path, "counterSet", told)


def _counter_set(errs: Errors, path: str, told: Object) -> None:
    _counters(errs, path, "name", told)


def _counters(errs: Errors, path: str, key: str, told: Object) -> None:
    name, counters = told.get(key), told.get("counters") or {}
    if not name:
        errs.append(field.required(f"{path}.{key}"))
    else:
        checks.faults(errs, f"{path}.{key}", name, dns1123_label)
    if not counters:
        errs.append(field.required(f"{path}.counters"))
    elif len(counters) > _COUNTERS_MAX:
        errs.append(field.too_many(f"{path}.counters", len(counters), _COUNTERS_MAX))
    else:
        for counter in counters:
            checks.faults(errs, f"{path}.counters", counter, dns1123_label)


STRATEGIES: dict[tuple[str, str], Strategy] = {("resource.k8s.io", "resourceslices"): ResourceSliceStrategy()}

"""Validation of a KubeSchedulerConfiguration, with upstream's rules, paths and words.

`check` gives everything that is wrong, in upstream's order; the arguments of plugins that are not upstream's own are
theirs to check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from fastkube.api import field, names
from fastkube.api.resources import is_extended
from fastkube.clock import go_duration
from fastkube.errors import Cause
from fastkube.scheduler.config_fields import duration_s
from fastkube.scheduler.options import CONTENT_TYPES

if TYPE_CHECKING:
    from fastkube.scheduler.config import ExtenderConfig, LeaderElectionConfig, ProfileConfig, SchedulerConfig

Object = dict[str, Any]
Causes = Iterator[Cause]

REMOVED_PLUGINS = ("AzureDiskLimits", "CinderLimits", "EBSLimits", "GCEPDLimits")
"""Plugins that older versions of the configuration knew."""
POINTS = (
    "preEnqueue",
    "queueSort",
    "preFilter",
    "filter",
    "postFilter",
    "preScore",
    "score",
    "reserve",
    "permit",
    "preBind",
    "bind",
    "postBind",
)
MULTI_POINT = "multiPoint"
STRATEGIES = ("LeastAllocated", "MostAllocated", "RequestedToCapacityRatio")
SCORE_MAX = 10
"""The greatest score in a shape of the configuration."""

_POINT = {"utilization": None, "score": None}
_RESOURCE = {"name": None, "weight": None}
_CONSTRAINT = dict.fromkeys(("maxSkew", "topologyKey", "whenUnsatisfiable", "labelSelector", "minDomains",
                             "nodeAffinityPolicy", "nodeTaintsPolicy", "matchLabelKeys"))  # fmt: skip
_ARGS: Mapping[str, Mapping[str, Any]] = {
    "DefaultPreemption": {"minCandidateNodesPercentage": None, "minCandidateNodesAbsolute": None},
    "DynamicResources": {"filterTimeout": None, "bindingTimeout": None},
    "InterPodAffinity": {"hardPodAffinityWeight": None, "ignorePreferredTermsOfExistingPods": None},
    "NodeAffinity": {"addedAffinity": None},
    "NodeResourcesBalancedAllocation": {"resources": _RESOURCE},
    "NodeResourcesFit": {
        "ignoredResources": None,
        "ignoredResourceGroups": None,
        "scoringStrategy": {
            "type": None,
            "resources": _RESOURCE,
            "requestedToCapacityRatio": {"shape": _POINT},
        },
    },
    "PodTopologySpread": {"defaultConstraints": _CONSTRAINT, "defaultingType": None},
    "VolumeBinding": {"bindTimeoutSeconds": None, "shape": _POINT},
}
"""Fields of the arguments of upstream's plugins; None is not looked into."""


def unknown_args(plugin: str, args: Object) -> list[str]:
    """Paths of the fields that a plugin's arguments do not have."""
    known = _ARGS.get(plugin)
    if known is None:
        return []
    return _unknown(args, {"apiVersion": None, "kind": None, **known}, "")


def _unknown(value: Any, known: Mapping[str, Any], path: str) -> list[str]:
    if isinstance(value, list):
        return [each for n, item in enumerate(value) for each in _unknown(item, known, f"{path}[{n}]")]
    if not isinstance(value, dict):
        return []
    found = []
    for key, part in value.items():
        at = f"{path}.{key}" if path else key
        if key not in known:
            found.append(at)
        elif known[key] is not None:
            found += _unknown(part, known[key], at)
    return found


def check(config: SchedulerConfig) -> list[str]:
    """All faults as `path: message`."""
    return [f"{cause.field}: {cause.message}" for cause in _whole(config)]


def _whole(config: SchedulerConfig) -> Causes:
    content_type = config.client_connection.content_type
    if content_type and content_type not in CONTENT_TYPES:
        yield field.not_supported("clientConnection.contentType", content_type, CONTENT_TYPES)
    if config.client_connection.burst < 0:
        yield field.invalid("clientConnection.burst", config.client_connection.burst, "must be non-negative")
    if config.leader_election is not None and config.leader_election.leader_elect:
        yield from _leader_election(config.leader_election)
    if config.parallelism <= 0:
        yield field.invalid("parallelism", config.parallelism, "should be an integer value greater than zero")
    seen: dict[str, int] = {}
    for place, profile in enumerate(config.profiles):
        path = f"profiles[{place}]"
        yield from _profile(path, profile)
        if profile.scheduler_name in seen:
            yield field.duplicate(f"{path}.schedulerName", f"profiles[{seen[profile.scheduler_name]}].schedulerName")
        seen[profile.scheduler_name] = place
    yield from _common_queue_sort(config.profiles)
    yield from _percentage("percentageOfNodesToScore", config.percentage)
    if config.initial_backoff_s <= 0:
        yield field.invalid("podInitialBackoffSeconds", config.initial_backoff_s, "must be greater than 0")
    if config.max_backoff_s < config.initial_backoff_s:
        yield field.invalid(
            "podMaxBackoffSeconds", config.max_backoff_s, "must be greater than or equal to PodInitialBackoffSeconds"
        )
    yield from _extenders(config.extenders)


def _leader_election(told: LeaderElectionConfig) -> Causes:
    path = "leaderElection"
    for name, seconds in (
        ("leaseDuration", told.lease_duration_s),
        ("renewDeadline", told.renew_deadline_s),
        ("retryPeriod", told.retry_period_s),
    ):
        if seconds <= 0:
            yield field.invalid(f"{path}.{name}", go_duration(seconds), "must be greater than zero")
    if told.lease_duration_s <= told.renew_deadline_s:
        shown = go_duration(told.renew_deadline_s)
        yield field.invalid(f"{path}.leaseDuration", shown, "LeaseDuration must be greater than RenewDeadline")
    if told.resource_lock != "leases":
        yield field.invalid(f"{path}.resourceLock", told.resource_lock, 'resourceLock value must be "leases"')


def _percentage(path: str, value: int | None) -> Causes:
    if value is not None and not 0 <= value <= 100:
        yield field.invalid(path, value, "not in valid range [0-100]")


# -- profiles ----------------------------------------------------------------------------------------------------------


def _profile(path: str, profile: ProfileConfig) -> Causes:
    if not profile.scheduler_name:
        yield field.required(f"{path}.schedulerName", "")
    yield from _percentage(f"{path}.percentageOfNodesToScore", profile.percentage)
    for point in POINTS:
        plugins = profile.plugins.get(point)
        for place, plugin in enumerate(plugins.enabled if plugins else ()):
            if plugin.name in REMOVED_PLUGINS:
                yield _removed(f"{path}.plugins.{point}.enabled[{place}]", plugin.name)
    for at, repeated in profile.repeated:
        yield field.duplicate(at, repeated)
    for place, (name, args) in enumerate(profile.args.items()):
        at = f"{path}.pluginConfig[{place}]"
        if name in REMOVED_PLUGINS:
            yield _removed(at, name)
        elif name in _CHECKS:
            yield from _CHECKS[name](f"{at}.args", args)


def _removed(path: str, name: str) -> Cause:
    version = "kubescheduler.config.k8s.io/v1"
    told = f'was invalid in version "{version}" (KubeSchedulerConfiguration is version "{version}")'
    return field.invalid(path, name, told)


def _common_queue_sort(profiles: Sequence[ProfileConfig]) -> Causes:
    """One queue for all profiles means one order."""
    first, *others = (profile.plugins["queueSort"] for profile in profiles)
    if len(first.enabled) > 1:
        path = "profiles[0].plugins.queueSort.Enabled"
        yield field.invalid(path, len(first.enabled), "only one queue sort plugin can be enabled")
    for place, other in enumerate(others, 1):
        if other != first:
            told = {
                "Enabled": [{"Name": each.name, "Weight": each.weight} for each in other.enabled] or None,
                "Disabled": [{"Name": name, "Weight": 0} for name in sorted(other.disabled)] or None,
            }
            shown = orjson.dumps(told).decode()  # in the order of Go's struct
            yield field.unfit(f"profiles[{place}].plugins.queueSort", f"{shown}: must be the same for all profiles")


def _extenders(extenders: Sequence[ExtenderConfig]) -> Causes:
    managed: set[str] = set()
    for place, extender in enumerate(extenders):
        path = f"extenders[{place}]"
        if extender.prioritize_verb and extender.weight <= 0:
            yield field.invalid(f"{path}.weight", extender.weight, "must have a positive weight applied to it")
        for number, (resource, _) in enumerate(extender.managed_resources):
            at = f"{path}.managedResources[{number}].name"
            yield from _extended_resource(at, resource)
            if resource in managed:
                yield field.invalid(at, resource, "duplicate extender managed resource name")
            managed.add(resource)
    binders = sum(bool(extender.bind_verb) for extender in extenders)
    if binders > 1:
        told = f"found {binders} extenders implementing bind"
        yield field.invalid("extenders", told, "only one extender can implement bind")


def _extended_resource(path: str, name: str) -> Causes:
    faults = names.label_key(name)
    for fault in faults:
        yield field.invalid(path, name, fault)
    if not faults and not is_extended(name):
        yield field.invalid(path, name, "is an invalid extended resource name")


# -- arguments of plugins ----------------------------------------------------------------------------------------------


def _default_preemption(path: str, args: Object) -> Causes:
    percentage = args.get("minCandidateNodesPercentage", 10)
    absolute = args.get("minCandidateNodesAbsolute", 100)
    at, other = f"{path}.minCandidateNodesPercentage", f"{path}.minCandidateNodesAbsolute"
    if not 0 <= percentage <= 100:
        yield field.invalid(at, percentage, "not in valid range [0, 100]")
    if absolute < 0:
        yield field.invalid(other, absolute, "not in valid range [0, inf)")
    if percentage == 0 and absolute == 0:
        yield field.invalid(at, percentage, "cannot be zero at the same time as minCandidateNodesAbsolute")
        yield field.invalid(other, absolute, "cannot be zero at the same time as minCandidateNodesPercentage")


def _dynamic_resources(path: str, args: Object) -> Causes:
    for key, least_s, problem in (
        ("filterTimeout", 0.0, "must be zero or positive"),
        ("bindingTimeout", 1.0, "must be at least 1 second"),
    ):
        if args.get(key) is not None and duration_s(args[key]) < least_s:
            yield field.invalid(f"{path}.{key}", go_duration(duration_s(args[key])), problem)


def _inter_pod_affinity(path: str, args: Object) -> Causes:
    weight = args.get("hardPodAffinityWeight")
    if weight is not None and not 0 <= weight <= 100:
        yield field.invalid(f"{path}.hardPodAffinityWeight", weight, "not in valid range [0, 100]")


def _node_affinity(path: str, args: Object) -> Causes:
    added = args.get("addedAffinity") or {}
    required = added.get("requiredDuringSchedulingIgnoredDuringExecution")
    at = f"{path}.addedAffinity.requiredDuringSchedulingIgnoredDuringExecution"
    if required is not None:
        terms = required.get("nodeSelectorTerms") or []
        for place, term in enumerate(terms):
            yield from _selector_term(f"{at}.nodeSelectorTerms[{place}]", term)
    at = f"{path}.addedAffinity.preferredDuringSchedulingIgnoredDuringExecution"
    for place, each in enumerate(added.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
        yield from _selector_term(f"{at}[{place}]", each.get("preference") or {})


_COUNTS = {
    "In": (1, None, "for 'in', 'notin' operators, values set can't be empty"),
    "NotIn": (1, None, "for 'in', 'notin' operators, values set can't be empty"),
    "Exists": (0, 0, "values set must be empty for exists and does not exist"),
    "DoesNotExist": (0, 0, "values set must be empty for exists and does not exist"),
    "Gt": (1, 1, "for 'Gt', 'Lt' operators, exactly one value is required"),
    "Lt": (1, 1, "for 'Gt', 'Lt' operators, exactly one value is required"),
}


def _selector_term(path: str, term: Object) -> Causes:
    for place, each in enumerate(term.get("matchExpressions") or ()):
        at = f"{path}.matchExpressions[{place}]"
        operator, values = each.get("operator", ""), each.get("values") or []
        if operator not in _COUNTS:
            yield field.not_supported(f"{at}.operator", operator, _COUNTS)
            continue
        least, most, told = _COUNTS[operator]
        if len(values) < least or (most is not None and len(values) > most):
            yield field.invalid(f"{at}.values", values, told)
        for fault in names.label_key(each.get("key", "")):
            yield field.invalid(f"{at}.key", each.get("key", ""), fault)
        for number, value in enumerate(values):
            for fault in names.label_value(value):
                yield field.invalid(f"{at}.values[{number}]", value, fault)
    for place, each in enumerate(term.get("matchFields") or ()):
        at = f"{path}.matchFields[{place}]"
        if each.get("operator") not in ("In", "NotIn"):
            yield field.not_supported(f"{at}.operator", each.get("operator", ""), ("In", "NotIn"))
        elif len(each.get("values") or ()) != 1:
            yield field.invalid(f"{at}.values", each.get("values") or [], "must have one element")


def _balanced_allocation(path: str, args: Object) -> Causes:
    seen = set()
    for place, resource in enumerate(args.get("resources") or ()):
        at = f"{path}.resources[{place}]"
        if resource.get("name") in seen:
            yield field.duplicate(f"{at}.name", resource.get("name"))
        seen.add(resource.get("name"))
        if (resource.get("weight") or 1) != 1:
            yield field.invalid(f"{at}.weight", resource["weight"], "must be 1")


def fit_faults(args: Object) -> list[str]:
    """What is wrong with the arguments of NodeResourcesFit, which upstream checks only when it makes the plugin."""
    return [f"{cause.field}: {cause.message}" for cause in _resources_fit(args)]


def _resources_fit(args: Object) -> Causes:
    for name in ("ignoredResources", "ignoredResourceGroups"):
        for place, text in enumerate(args.get(name) or ()):
            at = f"{name}[{place}]"
            if name == "ignoredResourceGroups" and "/" in text:
                yield field.invalid(at, text, "resource group name can't contain '/'")
            for fault in names.label_key(text):
                yield field.invalid(at, text, fault)
    strategy = args.get("scoringStrategy")
    if strategy is not None:
        yield from _strategy(strategy)


def _strategy(strategy: Object) -> Causes:
    at, kind = "scoringStrategy", strategy.get("type") or ""
    if kind not in STRATEGIES:
        yield field.not_supported(f"{at}.type", kind, STRATEGIES)
    for place, resource in enumerate(strategy.get("resources") or ()):
        weight = resource.get("weight") or 1
        if not 0 < weight <= 100:
            told = f"resource weight of {resource.get('name', '')} not in valid range (0, 100]"
            yield field.invalid(f"{at}.resources[{place}].weight", weight, told)
    at, ratio = f"{at}.requestedToCapacityRatio", strategy.get("requestedToCapacityRatio")
    if kind != "RequestedToCapacityRatio":
        if ratio is not None:
            yield field.forbidden(at, "must be nil when type is not RequestedToCapacityRatio")
    elif ratio is None:
        yield field.required(at, "must be specified when type is RequestedToCapacityRatio")
    else:
        yield from _shape(f"{at}.shape", ratio.get("shape") or [])


def aggregate(faults: Sequence[str]) -> str:
    """Several errors as one, in Go's form."""
    return faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]"


def _shape(path: str, shape: Sequence[Object]) -> Causes:
    if not shape:
        yield field.required(path, "at least one point must be specified")
        return
    points = [(int(point.get("utilization", 0)), int(point.get("score", 0))) for point in shape]
    for place in range(1, len(points)):
        if points[place - 1][0] >= points[place][0]:
            told = "values must be sorted in increasing order"
            yield field.invalid(f"{path}[{place}].utilization", points[place][0], told)
            break
    for place, (utilization, score) in enumerate(points):
        if not 0 <= utilization <= 100:
            yield field.invalid(f"{path}[{place}].utilization", utilization, "not in valid range [0, 100]")
        if not 0 <= score <= SCORE_MAX:
            yield field.invalid(f"{path}[{place}].score", score, f"not in valid range [0, {SCORE_MAX}]")


def _topology_spread(path: str, args: Object) -> Causes:
    kind, constraints = args.get("defaultingType") or "System", args.get("defaultConstraints") or []
    if kind not in ("System", "List"):
        yield field.not_supported(f"{path}.defaultingType", kind, ("System", "List"))
    elif kind == "System" and constraints:
        yield field.invalid(f"{path}.defaultingType", kind, "when .defaultConstraints are not empty")
    for place, each in enumerate(constraints):
        at = f"{path}.defaultConstraints[{place}]"
        yield from _constraint(at, each)
        pair = each.get("topologyKey", ""), each.get("whenUnsatisfiable", "")
        if any((other.get("topologyKey", ""), other.get("whenUnsatisfiable", "")) == pair
               for other in constraints[:place]):  # fmt: skip
            yield field.duplicate(at, f"{{{pair[0]}, {pair[1]}}}")


def _constraint(path: str, each: Object) -> Causes:
    if each.get("maxSkew", 0) <= 0:
        yield field.invalid(f"{path}.maxSkew", each.get("maxSkew", 0), "not in valid range (0, inf)")
    key, action = each.get("topologyKey", ""), each.get("whenUnsatisfiable", "")
    if not key:
        yield field.required(f"{path}.topologyKey", "can not be empty")
    else:
        for fault in names.label_key(key):
            yield field.invalid(f"{path}.topologyKey", key, fault)
    if not action:
        yield field.required(f"{path}.whenUnsatisfiable", "can not be empty")
    elif action not in ("DoNotSchedule", "ScheduleAnyway"):
        yield field.not_supported(f"{path}.whenUnsatisfiable", action, ("DoNotSchedule", "ScheduleAnyway"))
    if each.get("labelSelector") is not None:
        told = "constraint must not define a selector, as they deduced for each pod"
        yield field.forbidden(f"{path}.labelSelector", told)


def _volume_binding(path: str, args: Object) -> Causes:
    timeout = args.get("bindTimeoutSeconds")
    if timeout is not None and timeout < 0:
        told = "invalid BindTimeoutSeconds, should not be a negative value"
        yield field.invalid(f"{path}.bindTimeoutSeconds", timeout, told)
    if args.get("shape") is not None:
        yield from _shape(f"{path}.shape", args["shape"])


_CHECKS: Mapping[str, Callable[[str, Object], Causes]] = {
    "DefaultPreemption": _default_preemption,
    "DynamicResources": _dynamic_resources,
    "InterPodAffinity": _inter_pod_affinity,
    "NodeAffinity": _node_affinity,
    "NodeResourcesBalancedAllocation": _balanced_allocation,
    "PodTopologySpread": _topology_spread,
    "VolumeBinding": _volume_binding,
}

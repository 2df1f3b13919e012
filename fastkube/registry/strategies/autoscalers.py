"""HorizontalPodAutoscalers, in the form of autoscaling/v2 in which they are stored (upstream: pkg/apis/autoscaling)."""

from __future__ import annotations

from fastkube.api import field
from fastkube.api.names import path_segment
from fastkube.errors import Cause
from fastkube.registry.strategies import checks, resources
from fastkube.registry.strategies.checks import Errors, Object, fields_non_negative
from fastkube.registry.strategy import Call, Strategy

_CPU_SHARE = 80
_PERIOD_MAX_S, _WINDOW_MAX_S = 1800, 3600
_SOURCES = {  # type of a metric: the field it is told in, in the order in which upstream looks at them
    "Object": "object",
    "External": "external",
    "Pods": "pods",
    "Resource": "resource",
    "ContainerResource": "containerResource",
}
_SOURCE_TYPES = tuple(sorted(_SOURCES))
_NO_SOURCE = "must populate information for the given metric source"


class AutoscalerStrategy(Strategy):
    metadata_checks = ("update",)
    has_generation = False

    def default(self, obj: Object) -> None:
        spec: Object = obj.setdefault("spec", {})
        spec.setdefault("minReplicas", 1)
        if not spec.get("metrics"):
            target = {"type": "Utilization", "averageUtilization": _CPU_SHARE}
            spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
        behavior = spec.get("behavior")
        if behavior is not None:
            up = behavior["scaleUp"] = behavior.get("scaleUp") or {}
            up.setdefault("stabilizationWindowSeconds", 0)
            _default_rules(up, (("Pods", 4), ("Percent", 100)))
            down = behavior["scaleDown"] = behavior.get("scaleDown") or {}
            _default_rules(down, (("Percent", 100),))

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        _spec(errs, obj["spec"], least=1, was={})
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        was = old["spec"]
        _spec(errs, new["spec"], least=0 if was.get("minReplicas") == 0 else 1, was=was)
        return errs

    def validate_status_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        fields_non_negative(errs, "status", new.get("status") or {}, "currentReplicas", "desiredReplicas")
        return errs


def _default_rules(rules: Object, policies: tuple[tuple[str, int], ...]) -> None:
    rules.setdefault("selectPolicy", "Max")
    if rules.get("policies") is None:
        rules["policies"] = [{"type": kind, "value": value, "periodSeconds": 15} for kind, value in policies]


def _spec(errs: Errors, spec: Object, *, least: int, was: Object) -> None:
    """`was` is the spec of the old object: a version that it named already is not checked again."""
    low, high = spec["minReplicas"], spec.get("maxReplicas") or 0
    if low < least:
        errs.append(field.invalid("spec.minReplicas", low, field.at_least(least)))
    if high < 1:
        if high == 0:
            errs.append(field.required("spec.maxReplicas", "must be set and greater than 0"))
        else:
            errs.append(field.invalid("spec.maxReplicas", high, field.at_least(1)))
    if high < low:
        errs.append(field.invalid("spec.maxReplicas", high, "must be greater than or equal to `minReplicas`"))
    target = spec.get("scaleTargetRef") or {}
    _reference(errs, "spec.scaleTargetRef", target, was.get("scaleTargetRef"), core=_is_core(target))
    metrics = spec["metrics"]
    for number, metric in enumerate(metrics):
        _metric(errs, f"spec.metrics[{number}]", metric)
    if low == 0 and not any(metric.get("type") in ("Object", "External") for metric in metrics):
        problem = "must specify at least one Object or External metric to support scaling to zero replicas"
        errs.append(field.forbidden("spec.metrics", problem))
    for key in ("scaleUp", "scaleDown"):
        rules = (spec.get("behavior") or {}).get(key)
        if rules is not None:
            _rules(errs, f"spec.behavior.{key}", rules)


def _is_core(target: Object) -> bool:
    """The one scalable kind whose group has no name."""
    return target.get("kind") == "ReplicationController"


def _reference(errs: Errors, path: str, reference: Object, old: Object | None, *, core: bool) -> None:
    """`core`: the version may be one of the group without a name."""
    for key in ("kind", "name"):
        told = reference.get(key) or ""
        if told:
            checks.faults(errs, f"{path}.{key}", told, path_segment)
        else:
            errs.append(field.required(f"{path}.{key}"))
    version = reference.get("apiVersion") or ""
    if old is not None and (old.get("apiVersion") or "") == version:
        return
    if version.count("/") > 1:
        problem = f"unexpected GroupVersion string: {version}"
        errs.append(field.invalid(f"{path}.apiVersion", version, problem))
    elif not core and not version.rpartition("/")[0]:
        errs.append(field.invalid(f"{path}.apiVersion", version, "apiVersion must specify API group"))


# ---------------------------------------------------------------- behaviour


def _rules(errs: Errors, path: str, rules: Object) -> None:
    window = rules.get("stabilizationWindowSeconds")
    at = f"{path}.stabilizationWindowSeconds"
    if window is not None and window < 0:
        errs.append(field.invalid(at, window, "must be greater than or equal to zero"))
    if window is not None and window > _WINDOW_MAX_S:
        errs.append(field.invalid(at, window, f"must be less than or equal to {_WINDOW_MAX_S}"))
    checks.one_of(errs, f"{path}.selectPolicy", rules["selectPolicy"], ("Disabled", "Max", "Min"))
    policies = rules.get("policies") or []
    if not policies:
        errs.append(field.required(f"{path}.policies", "must specify at least one Policy"))
    for number, policy in enumerate(policies):
        _policy(errs, f"{path}.policies[{number}]", policy)
    if rules.get("tolerance") is not None:
        checks.non_negative_quantity(errs, f"{path}.tolerance", rules["tolerance"])


def _policy(errs: Errors, path: str, policy: Object) -> None:
    checks.one_of(errs, f"{path}.type", policy.get("type") or "", ("Percent", "Pods"))
    checks.positive(errs, f"{path}.value", policy.get("value") or 0)
    period = policy.get("periodSeconds") or 0
    checks.positive(errs, f"{path}.periodSeconds", period)
    if period > _PERIOD_MAX_S:
        problem = f"must be less than or equal to {_PERIOD_MAX_S}"
        errs.append(field.invalid(f"{path}.periodSeconds", period, problem))


# ---------------------------------------------------------------- metrics


def _metric(errs: Errors, path: str, metric: Object) -> None:
    kind = metric.get("type") or ""
    if not kind:
        errs.append(field.required(f"{path}.type", "must specify a metric source type"))
    checks.one_of(errs, f"{path}.type", kind, _SOURCE_TYPES)
    present = [key for key in _SOURCES.values() if metric.get(key) is not None]
    if present:
        _CHECKS[present[0]](errs, f"{path}.{present[0]}", metric[present[0]])
    expected = _SOURCES.get(kind)
    if expected is None:
        errs.append(field.not_supported(f"{path}.type", kind, _SOURCE_TYPES))
    elif expected not in present:
        errs.append(field.required(f"{path}.{expected}", _NO_SOURCE))
    if len(present) != 1:
        errs += [
            field.forbidden(f"{path}.{key}", "must populate the given metric source only")
            for key in present
            if key != expected
        ]


def _object(errs: Errors, path: str, source: Object) -> None:
    _reference(errs, f"{path}.describedObject", source.get("describedObject") or {}, None, core=True)
    target = _named_target(errs, path, source)
    if target.get("value") is None and target.get("averageValue") is None:
        problem = "must set either a target value or averageValue"
        errs.append(field.required(f"{path}.target.averageValue", problem))


def _external(errs: Errors, path: str, source: Object) -> None:
    target = _named_target(errs, path, source)
    value, average = target.get("value"), target.get("averageValue")
    if value is None and average is None:
        problem = "must set either a target value for metric or a per-pod target"
        errs.append(field.required(f"{path}.target.averageValue", problem))
    if value is not None and average is not None:
        problem = "may not set both a target value for metric and a per-pod target"
        errs.append(field.forbidden(f"{path}.target.value", problem))


def _pods(errs: Errors, path: str, source: Object) -> None:
    target = _named_target(errs, path, source)
    if target.get("averageValue") is None:
        problem = "must specify a positive target averageValue"
        errs.append(field.required(f"{path}.target.averageValue", problem))


def _container_resource(errs: Errors, path: str, source: Object) -> None:
    name, container = source.get("name") or "", source.get("container") or ""
    if name:
        resources.container_name(errs, f"{path}.name", name)
    else:
        errs.append(field.required(f"{path}.name", "must specify a resource name"))
    if container:
        checks.label(errs, f"{path}.container", container)
    else:
        errs.append(field.required(f"{path}.container", "must specify a container"))
    _share_or_amount(errs, f"{path}.target", source.get("target") or {})


def _resource(errs: Errors, path: str, source: Object) -> None:
    if not source.get("name"):
        errs.append(field.required(f"{path}.name", "must specify a resource name"))
    _share_or_amount(errs, f"{path}.target", source.get("target") or {})


_CHECKS = {
    "object": _object,
    "external": _external,
    "pods": _pods,
    "resource": _resource,
    "containerResource": _container_resource,
}


def _named_target(errs: Errors, path: str, source: Object) -> Object:
    name = (source.get("metric") or {}).get("name") or ""
    if name:
        checks.faults(errs, f"{path}.metric.name", name, path_segment)
    else:
        errs.append(field.required(f"{path}.metric.name", "must specify a metric name"))
    target: Object = source.get("target") or {}
    _target(errs, f"{path}.target", target)
    return target


def _share_or_amount(errs: Errors, path: str, target: Object) -> None:
    _target(errs, path, target)
    share, average = target.get("averageUtilization"), target.get("averageValue")
    if share is None and average is None:
        problem = "must set either a target raw value or a target utilization"
        errs.append(field.required(f"{path}.averageUtilization", problem))
    if share is not None and average is not None:
        problem = "may not set both a target raw value and a target utilization"
        errs.append(field.forbidden(f"{path}.averageValue", problem))


def _target(errs: Errors, path: str, target: Object) -> None:
    kind = target.get("type") or ""
    if not kind:
        errs.append(field.required(f"{path}.type", "must specify a metric target type"))
    if kind not in ("Utilization", "Value", "AverageValue"):
        problem = "must be either Utilization, Value, or AverageValue"
        errs.append(field.invalid(f"{path}.type", kind, problem))
    for key in ("value", "averageValue"):
        if target.get(key) is not None and checks.amount(target[key]) <= 0:
            errs.append(field.invalid(f"{path}.{key}", target[key], "must be positive"))
    share = target.get("averageUtilization")
    if share is not None and share < 1:
        errs.append(field.invalid(f"{path}.averageUtilization", share, "must be greater than 0"))


STRATEGIES: dict[tuple[str, str], Strategy] = {("autoscaling", "horizontalpodautoscalers"): AutoscalerStrategy()}

"""Conversions between the versions in which one resource is served: objects are stored in one, read and written in all.

    autoscaling/v1 ↔ autoscaling/v2   HorizontalPodAutoscaler; what v1 has no fields for lives in its annotations
    v1 ↔ events.k8s.io/v1             Event; the same fields under other names

Versions of a custom kind differ in nothing but apiVersion, unless its definition names a webhook (`converter` of the
entry in the catalog, which may have to be asked first). Converted objects share their parts with the original.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgpack

from fastkube.api import scalars

if TYPE_CHECKING:
    from fastkube.api.catalog import ResourceType

Object = dict[str, Any]


class ConversionNeeded(Exception):
    """A webhook must be asked before this object can be had in the version `wanted`."""

    def __init__(self, obj: Object, wanted: str) -> None:
        super().__init__(wanted)
        self.obj = obj
        self.wanted = wanted


def convert(rtype: ResourceType, obj: Object, wanted: str) -> Object:
    """The object in the version `wanted` (an apiVersion of this resource, or of the one it shares its objects with)."""
    if rtype.stale:
        obj = rtype.extra["refresh"](obj)
    given = obj["apiVersion"]
    if given == wanted:
        return obj
    if rtype.by_webhook:
        made: Object = rtype.extra["converter"].lookup(obj, wanted)
        return made
    change = _CONVERSIONS.get((rtype.kind, given, wanted)) if not rtype.custom else None
    converted = change(obj) if change else dict(obj)
    converted["apiVersion"] = wanted
    return converted


def convert_value(rtype: ResourceType, value: bytes, wanted: str) -> bytes:
    """`convert` for an encoded object."""
    packed: bytes = msgpack.packb(convert(rtype, msgpack.unpackb(value), wanted))
    return packed


# ---------------------------------------------------------------- Event

_EVENT_NAMES = {  # core: events.k8s.io
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_EVENT_NAMES_BACK = {new: core for core, new in _EVENT_NAMES.items()}
_ALWAYS_IN_CORE = ("reportingComponent", "reportingInstance")  # where events.k8s.io leaves out empty ones


def event_field(name: str) -> str:
    """The core name of a field of events.k8s.io (`regarding.name` is `involvedObject.name`), for field selectors."""
    head, dot, rest = name.partition(".")
    return _EVENT_NAMES_BACK.get(head, head) + dot + rest


def _event_from_core(obj: Object) -> Object:
    made = {_EVENT_NAMES.get(key, key): value for key, value in obj.items()}
    for key in ("reportingController", "reportingInstance"):
        if not made.get(key):
            made.pop(key, None)
    return made


def _event_to_core(obj: Object) -> Object:
    made = {_EVENT_NAMES_BACK.get(key, key): value for key, value in obj.items()}
    for key in _ALWAYS_IN_CORE:
        made.setdefault(key, "")
    return made


# ---------------------------------------------------------------- HorizontalPodAutoscaler

_ALPHA = "autoscaling.alpha.kubernetes.io/"
_METRICS, _CURRENT, _CONDITIONS, _BEHAVIOR = (
    _ALPHA + name for name in ("metrics", "current-metrics", "conditions", "behavior")
)
_PARTS = {  # type of a metric: where its parts stand
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "External": "external",
}
_CONDITION_FIELDS = ("type", "status", "lastTransitionTime", "reason", "message", "observedGeneration")


def _present(**fields: Any) -> Object:
    return {key: value for key, value in fields.items() if value is not None}


def _text(value: Any) -> str:
    """JSON as Go writes it into an annotation."""
    escaped = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return escaped.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _is_cpu_utilization(metric: Object) -> bool:
    resource = metric.get("resource") or {}
    on_cpu = metric.get("type") == "Resource" and resource.get("name") == "cpu"
    return on_cpu and (resource.get("target") or {}).get("averageUtilization") is not None


def _autoscaler_to_v1(obj: Object) -> Object:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    metrics = spec.get("metrics") or []
    target = next((m["resource"]["target"]["averageUtilization"] for m in metrics if _is_cpu_utilization(m)), None)
    notes = {}
    if others := [_metric_to_v1(metric) for metric in metrics if not _is_cpu_utilization(metric)]:
        notes[_METRICS] = _text(others)
    if current := status.get("currentMetrics"):
        notes[_CURRENT] = _text([_status_to_v1(metric) for metric in current])
    if conditions := status.get("conditions"):
        told = ({key: condition[key] for key in _CONDITION_FIELDS if condition.get(key)} for condition in conditions)
        notes[_CONDITIONS] = _text(list(told))
    if behavior := spec.get("behavior"):
        notes[_BEHAVIOR] = _text(_go_behavior(behavior))
    made = dict(obj)
    if notes:
        metadata = obj.get("metadata") or {}
        made["metadata"] = {**metadata, "annotations": {**(metadata.get("annotations") or {}), **notes}}
    made["spec"] = {
        **{key: spec[key] for key in ("scaleTargetRef", "minReplicas", "maxReplicas") if key in spec},
        **_present(targetCPUUtilizationPercentage=target),
    }
    made["status"] = {
        **{key: status[key] for key in ("observedGeneration", "lastScaleTime") if key in status},
        "currentReplicas": status.get("currentReplicas", 0),
        "desiredReplicas": status.get("desiredReplicas", 0),
        **_present(currentCPUUtilizationPercentage=_cpu_now(status)),
    }
    return made


def _cpu_now(status: Object) -> int | None:
    for metric in status.get("currentMetrics") or ():
        resource = metric.get("resource") or {}
        if metric.get("type") == "Resource" and resource.get("name") == "cpu":
            found: int | None = (resource.get("current") or {}).get("averageUtilization")
            if found is not None:
                return found
    return None


def _autoscaler_to_v2(obj: Object) -> Object:
    spec, status, metadata = obj.get("spec") or {}, obj.get("status") or {}, obj.get("metadata") or {}
    notes = metadata.get("annotations") or {}
    metrics = [_metric_from_v1(metric) for metric in _listed(notes, _METRICS)]
    target = spec.get("targetCPUUtilizationPercentage")
    if target is not None:
        metrics.append(_cpu("target", {"type": "Utilization", "averageUtilization": target}))
    current = [_status_from_v1(metric) for metric in _listed(notes, _CURRENT)]
    now = status.get("currentCPUUtilizationPercentage")
    if not current and now is not None:
        current = [_cpu("current", {"averageUtilization": now})]
    made = dict(obj)
    made["metadata"] = _without_notes(metadata)
    made["spec"] = {
        **{key: spec[key] for key in ("scaleTargetRef", "minReplicas", "maxReplicas") if key in spec},
        **_present(metrics=metrics or None, behavior=_behavior_from_go(_parsed(notes, _BEHAVIOR))),
    }
    made["status"] = {
        **{key: status[key] for key in ("observedGeneration", "lastScaleTime") if key in status},
        **_present(currentReplicas=status.get("currentReplicas") or None),
        "desiredReplicas": status.get("desiredReplicas", 0),
        "currentMetrics": current or None,
        **_present(conditions=_listed(notes, _CONDITIONS) or None),
    }
    return made


def _cpu(key: str, value: Object) -> Object:
    return {"type": "Resource", "resource": {"name": "cpu", key: value}}


def _without_notes(metadata: Object) -> Object:
    notes = metadata.get("annotations") or {}
    kept = {key: value for key, value in notes.items() if key not in (_METRICS, _CURRENT, _CONDITIONS, _BEHAVIOR)}
    if len(kept) == len(notes):
        return metadata
    made = {key: value for key, value in metadata.items() if key != "annotations"}
    return {**made, "annotations": kept} if kept else made


def _parsed(notes: Object, key: str) -> Any:
    """What an annotation holds; upstream ignores one that it cannot read."""
    try:
        return json.loads(notes[key]) if key in notes else None
    except ValueError:
        return None


def _listed(notes: Object, key: str) -> list[Object]:
    found = _parsed(notes, key)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _metric_to_v1(metric: Object) -> Object:
    """A MetricSpec of v2 in the words of v1."""
    kind = metric.get("type", "")
    part = metric.get(_PARTS.get(kind, "")) or {}
    target = part.get("target") or {}
    name, selector = (part.get("metric") or {}).get("name", ""), (part.get("metric") or {}).get("selector")
    value, average, share = target.get("value"), target.get("averageValue"), target.get("averageUtilization")
    match kind:
        case "Object":
            made = _present(target=part.get("describedObject"), metricName=name, targetValue=value or "0")
            made |= _present(selector=selector, averageValue=average)
        case "Pods":
            made = _present(metricName=name, targetAverageValue=average or "0", selector=selector)
        case "External":
            made = _present(metricName=name, metricSelector=selector, targetValue=value, targetAverageValue=average)
        case "Resource" | "ContainerResource":
            made = _present(name=part.get("name"), targetAverageUtilization=share, targetAverageValue=average)
            made |= _present(container=part.get("container"))
        case _:
            return {"type": kind}
    return {"type": kind, _PARTS[kind]: made}


def _metric_from_v1(metric: Object) -> Object:
    """A MetricSpec of v1 in the words of v2."""
    kind = metric.get("type", "")
    part = metric.get(_PARTS.get(kind, "")) or {}
    share = part.get("targetAverageUtilization")
    average = _quantity(part, "averageValue" if kind == "Object" else "targetAverageValue")
    value = _quantity(part, "targetValue")
    by_value = kind in ("Object", "External") and (average is None if kind == "Object" else value is not None)
    named = "Value" if by_value else "AverageValue" if share is None else "Utilization"
    target = _present(type=named, value=value, averageValue=average, averageUtilization=share)
    match kind:
        case "Object":
            made = {"describedObject": part.get("target"), "target": target, "metric": _identifier(part, "selector")}
        case "Pods":
            made = {"metric": _identifier(part, "selector"), "target": target}
        case "External":
            made = {"metric": _identifier(part, "metricSelector"), "target": target}
        case "Resource" | "ContainerResource":
            made = _present(name=part.get("name"), container=part.get("container"), target=target)
        case _:
            return {"type": kind}
    return {"type": kind, _PARTS[kind]: made}


def _status_to_v1(metric: Object) -> Object:
    """A MetricStatus of v2 in the words of v1."""
    kind = metric.get("type", "")
    part = metric.get(_PARTS.get(kind, "")) or {}
    current = part.get("current") or {}
    name, selector = (part.get("metric") or {}).get("name", ""), (part.get("metric") or {}).get("selector")
    value, average, share = current.get("value"), current.get("averageValue"), current.get("averageUtilization")
    match kind:
        case "Object":
            made = _present(target=part.get("describedObject"), metricName=name, currentValue=value or "0")
            made |= _present(selector=selector, averageValue=average)
        case "Pods":
            made = _present(metricName=name, currentAverageValue=average or "0", selector=selector)
        case "External":
            made = _present(metricName=name, metricSelector=selector, currentValue=value or "0")
            made |= _present(currentAverageValue=average)
        case "Resource" | "ContainerResource":
            made = _present(name=part.get("name"), currentAverageUtilization=share, currentAverageValue=average or "0")
            made |= _present(container=part.get("container"))
        case _:
            return {"type": kind}
    return {"type": kind, _PARTS[kind]: made}


def _status_from_v1(metric: Object) -> Object:
    """A MetricStatus of v1 in the words of v2."""
    kind = metric.get("type", "")
    part = metric.get(_PARTS.get(kind, "")) or {}
    current = _present(
        value=_quantity(part, "currentValue"),
        averageValue=_quantity(part, "averageValue" if kind == "Object" else "currentAverageValue"),
        averageUtilization=part.get("currentAverageUtilization"),
    )
    match kind:
        case "Object":
            made = {"metric": _identifier(part, "selector"), "current": current, "describedObject": part.get("target")}
        case "Pods":
            made = {"metric": _identifier(part, "selector"), "current": current}
        case "External":
            made = {"metric": _identifier(part, "metricSelector"), "current": current}
        case "Resource" | "ContainerResource":
            made = _present(name=part.get("name"), container=part.get("container"), current=current)
        case _:
            return {"type": kind}
    return {"type": kind, _PARTS[kind]: made}


def _quantity(part: Object, key: str) -> str | None:
    """A quantity out of an annotation, which nobody has checked yet; one that is none is left to validation."""
    try:
        return scalars.quantity(part[key]) if part.get(key) is not None else None
    except ValueError:
        return str(part[key])


def _identifier(part: Object, selector: str) -> Object:
    return _present(name=part.get("metricName", ""), selector=part.get(selector))


def _go_behavior(behavior: Object) -> Object:
    """The behaviour as upstream's internal type prints: Go's names, nothing left out."""
    return {
        "ScaleUp": _go_rules(behavior.get("scaleUp")),
        "ScaleDown": _go_rules(behavior.get("scaleDown")),
    }


def _go_rules(rules: Object | None) -> Object | None:
    if rules is None:
        return None
    policies = rules.get("policies")
    return {
        "StabilizationWindowSeconds": rules.get("stabilizationWindowSeconds"),
        "SelectPolicy": rules.get("selectPolicy"),
        "Policies": [
            {
                "Type": policy.get("type", ""),
                "Value": policy.get("value", 0),
                "PeriodSeconds": policy.get("periodSeconds", 0),
            }
            for policy in policies
        ]
        if policies
        else None,
        "Tolerance": rules.get("tolerance"),
    }


def _behavior_from_go(behavior: Any) -> Object | None:
    if not isinstance(behavior, dict):
        return None
    return _present(
        scaleUp=_rules_from_go(behavior.get("ScaleUp")), scaleDown=_rules_from_go(behavior.get("ScaleDown"))
    )


def _rules_from_go(rules: Any) -> Object | None:
    if not isinstance(rules, dict):
        return None
    policies = [
        {
            "type": policy.get("Type", ""),
            "value": policy.get("Value", 0),
            "periodSeconds": policy.get("PeriodSeconds", 0),
        }
        for policy in rules.get("Policies") or ()
    ]
    return _present(
        stabilizationWindowSeconds=rules.get("StabilizationWindowSeconds"),
        selectPolicy=rules.get("SelectPolicy"),
        policies=policies or None,
        tolerance=rules.get("Tolerance"),
    )


_CONVERSIONS: dict[tuple[str, str, str], Callable[[Object], Object]] = {
    ("Event", "v1", "events.k8s.io/v1"): _event_from_core,
    ("Event", "events.k8s.io/v1", "v1"): _event_to_core,
    ("HorizontalPodAutoscaler", "autoscaling/v1", "autoscaling/v2"): _autoscaler_to_v2,
    ("HorizontalPodAutoscaler", "autoscaling/v2", "autoscaling/v1"): _autoscaler_to_v1,
}

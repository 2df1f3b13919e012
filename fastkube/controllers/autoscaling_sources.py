"""The five kinds of metrics an autoscaler may name: what each is read from, and how many replicas it asks for."""

from __future__ import annotations

from typing import Any, NamedTuple

from fastkube.api import quantity
from fastkube.client.discovery import Discovery
from fastkube.controllers import autoscaling_metrics as metrics
from fastkube.controllers.autoscaling_metrics import Unknown
from fastkube.controllers.autoscaling_replicas import (
    Proposal,
    Timing,
    Tolerances,
    by_average,
    by_share,
    by_utilization,
    by_value,
)
from fastkube.controllers.common import Object, Objects, selector_text


class Uncomputable(Exception):
    """A metric gives no number. `reason` and `why` are those of the event and of the condition."""

    def __init__(self, reason: str, why: str, told: str) -> None:
        super().__init__(told)
        self.reason, self.why = reason, why


class Measured(NamedTuple):
    replicas: int
    name: str
    status: Object
    """An entry of status.currentMetrics."""


class Measure(NamedTuple):
    """What all metrics of one attempt are measured against."""

    namespace: str
    selector: str
    pods: Objects
    replicas: int
    """As the target is to have."""
    observed: int
    """As it has."""
    behavior: Object
    tolerance: float
    timing: Timing
    discovery: Discovery
    answers: dict[str, Any]

    @property
    def tolerances(self) -> Tolerances:
        down, up = ((self.behavior.get(direction) or {}).get("tolerance") for direction in ("scaleDown", "scaleUp"))
        return Tolerances(
            self.tolerance if down is None else quantity.milli(str(down)) / 1000,
            self.tolerance if up is None else quantity.milli(str(up)) / 1000,
        )


def paths_of(spec: Object, namespace: str, selector: str, discovery: Discovery) -> list[str]:
    """What has to be asked before `measure` can tell."""
    kind = spec["type"]
    if kind in ("Resource", "ContainerResource"):
        return [metrics.resource_path(namespace, selector)]
    if kind == "Pods":
        return metrics.pods_paths(namespace, spec["pods"]["metric"], selector)
    if kind == "External":
        return [metrics.external_path(namespace, spec["external"]["metric"])]
    try:
        return metrics.object_paths(namespace, spec["object"], discovery)
    except Unknown:
        return []  # `measure` says why


def measure(basis: Measure, spec: Object) -> Measured:
    """Raises Uncomputable."""
    kind = spec["type"]
    if kind == "Resource":
        return _resource(basis, spec["resource"], "", "Resource", "resource")
    if kind == "ContainerResource":
        source = spec["containerResource"]
        return _resource(basis, source, source["container"], "ContainerResource", "containerResource")
    return {"Pods": _pods, "Object": _object, "External": _external}[kind](basis, spec)


def _read(basis: Measure, paths: list[str], api: str, resource: str) -> Object:
    return metrics.answered(basis.answers, paths, api, resource)


# ---------------------------------------------------------------- resources


def _resource(basis: Measure, source: Object, container: str, kind: str, field: str) -> Measured:
    name, target = source["name"], source["target"]
    what = "utilization" if target.get("averageValue") is None else "usage"
    try:
        proposal = _by_resource(basis, name, target, container)
    except Unknown as error:
        why = f"failed to get {name} {what}: {error}"
        word = f"{name} container" if container else f"{name}"
        raise Uncomputable(
            f"FailedGet{kind}Metric", why, f"failed to get {word} resource metric value: {why}"
        ) from None
    current: Object = {"averageValue": _amount(proposal.average)}
    told = f"{name} resource"
    if what == "utilization":
        current = {"averageUtilization": proposal.utilization, **current}
        told = f"{name} {'container ' if container else ''}resource utilization (percentage of request)"
    status = {"name": name, "current": current, **({"container": container} if container else {})}
    return Measured(proposal.replicas, told, {"type": kind, field: status})


def _by_resource(basis: Measure, name: str, target: Object, container: str) -> Proposal:
    try:
        path = metrics.resource_path(basis.namespace, basis.selector)
        answer = _read(basis, [path], "resource", "pods.metrics.k8s.io")
        samples = metrics.resource_samples(answer, name, container)
    except Unknown as error:
        raise Unknown(f"unable to get metrics for resource {name}: {error}") from None
    if target.get("averageValue") is not None:
        wanted = quantity.milli(target["averageValue"])
        return by_average(basis.replicas, basis.pods, samples, wanted, name, basis.tolerances, basis.timing)
    share = target.get("averageUtilization")
    if share is None:
        told = "neither an average utilization target nor an average value (usage) target was set"
        raise Unknown(f"invalid resource metric source: {told}")
    return by_utilization(
        basis.replicas, basis.pods, samples, int(share), name, container, basis.tolerances, basis.timing
    )


def _amount(milli: int) -> str:
    return quantity.canonical(f"{milli}m")


# ---------------------------------------------------------------- others


def _pods(basis: Measure, spec: Object) -> Measured:
    source = spec["pods"]
    name = source["metric"]["name"]
    try:
        paths = metrics.pods_paths(basis.namespace, source["metric"], basis.selector)
        samples = metrics.pods_samples(_read(basis, paths, "custom", "pods.custom.metrics.k8s.io *"))
        target = quantity.milli(source["target"]["averageValue"])
        proposal = by_average(basis.replicas, basis.pods, samples, target, "", basis.tolerances, basis.timing)
    except Unknown as error:
        why = f"unable to get metric {name}: {error}"
        raise Uncomputable("FailedGetPodsMetric", why, f"failed to get pods metric value: {why}") from None
    status = {"metric": source["metric"], "current": {"averageValue": _amount(proposal.average)}}
    return Measured(proposal.replicas, f"pods metric {name}", {"type": "Pods", "pods": status})


def _object(basis: Measure, spec: Object) -> Measured:
    source = spec["object"]
    described, metric, target = source["describedObject"], source["metric"], source["target"]
    try:
        paths = metrics.object_paths(basis.namespace, source, basis.discovery)
        kind = f"{described['kind'].lower()}s.custom.metrics.k8s.io {described['name']}"
        usage = metrics.object_value(_read(basis, paths, "custom", kind))
        told, proposal, current = _by_target(
            basis, target, usage, f"{described['kind']} metric {metric['name']}", metric
        )
    except Unknown as error:
        where = f"{described['kind']} on {basis.namespace} {described['name']}"
        why = f"unable to get metric {metric['name']}: {where}/{error}"
        raise Uncomputable("FailedGetObjectMetric", why, f"failed to get object metric value: {why}") from None
    status = {"metric": metric, "current": current, "describedObject": described}
    return Measured(proposal.replicas, told, {"type": "Object", "object": status})


def _external(basis: Measure, spec: Object) -> Measured:
    source = spec["external"]
    metric, target = source["metric"], source["target"]
    name = metric["name"]
    try:
        path = metrics.external_path(basis.namespace, metric)
        usage = metrics.external_value(_read(basis, [path], "external", f"{name}.external.metrics.k8s.io"))
        told, proposal, current = _by_target(basis, target, usage, _external_name(metric), metric)
    except Unknown as error:
        selected = selector_text(metric.get("selector"))
        cause = f"unable to get external metric {basis.namespace}/{name}/{selected}: {error}"
        averaged = target.get("averageValue") is not None
        why = (
            f"failed to get {name} external metric: {cause}"
            if averaged
            else (f"failed to get external metric {name}: {cause}")
        )
        told = f"failed to get {name} external metric value: {why}"
        raise Uncomputable("FailedGetExternalMetric", why, told) from None
    return Measured(proposal.replicas, told, {"type": "External", "external": {"metric": metric, "current": current}})


def _by_target(basis: Measure, target: Object, usage: int, name: str, metric: Object) -> tuple[str, Proposal, Object]:
    """(name, proposal, what status tells) of a metric that is no Pod's own."""
    if target.get("value") is not None and target.get("averageValue") is None:
        wanted = quantity.milli(target["value"])
        proposal = by_value(basis.replicas, basis.pods, usage, wanted, basis.tolerances)
        return name, proposal, {"value": _amount(usage)}
    share = quantity.milli(target["averageValue"])
    proposal = by_share(basis.observed, usage, share, basis.tolerances)
    return _external_name(metric), proposal, {"averageValue": _amount(proposal.average)}


def _external_name(metric: Object) -> str:
    return f"external metric {metric['name']}({selector_text(metric.get('selector'))})"

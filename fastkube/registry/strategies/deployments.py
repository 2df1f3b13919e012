"""Deployments (upstream: pkg/apis/apps/v1/defaults.go, pkg/registry/apps/deployment, pkg/apis/apps/validation)."""

from __future__ import annotations

from fastkube.api import field
from fastkube.errors import Cause
from fastkube.registry.strategies import checks, workloads
from fastkube.registry.strategies.checks import Errors, Object, fields_non_negative
from fastkube.registry.strategies.go_values import shown
from fastkube.registry.strategies.pod_templates import default_template
from fastkube.registry.strategies.replicasets import replicated_template
from fastkube.registry.strategies.workloads import WorkloadStrategy
from fastkube.registry.strategy import Call, Strategy

_SHARE = "25%"


class DeploymentStrategy(WorkloadStrategy):
    kept_on_status = ("labels",)
    metadata_checks = ("update",)

    def default(self, obj: Object) -> None:
        spec: Object = obj.setdefault("spec", {})
        default_template(spec)
        spec.setdefault("replicas", 1)
        strategy: Object = spec.setdefault("strategy", {})
        if not strategy.get("type"):
            strategy["type"] = "RollingUpdate"
        if strategy["type"] == "RollingUpdate":
            rolling: Object = strategy.setdefault("rollingUpdate", {})
            rolling.setdefault("maxUnavailable", _SHARE)
            rolling.setdefault("maxSurge", _SHARE)
        spec.setdefault("revisionHistoryLimit", 10)
        spec.setdefault("progressDeadlineSeconds", 600)

    def spec_changed(self, new: Object, old: Object) -> bool:
        """Annotations count too: they go on to the ReplicaSets."""
        annotations = (each["metadata"].get("annotations") or {} for each in (new, old))
        return super().spec_changed(new, old) or next(annotations) != next(annotations)

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        deployment_spec(errs, obj["spec"])
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs = self.validate(call, new)
        selector = new["spec"].get("selector")
        checks.immutable(errs, "spec.selector", selector, old["spec"].get("selector"), checks.selector_shown(selector))
        return errs

    def check_status(self, errs: Errors, status: Object) -> None:
        workloads.non_negative_status(
            errs, status, "observedGeneration", "replicas", "updatedReplicas", "readyReplicas", "availableReplicas",
            "unavailableReplicas", "terminatingReplicas", "collisionCount",
        )  # fmt: skip
        workloads.within_replicas(errs, status, "updatedReplicas", "readyReplicas", "availableReplicas")
        workloads.available_within_ready(errs, status)


def deployment_spec(errs: Errors, spec: Object) -> None:
    fields_non_negative(errs, "spec", spec, "replicas")
    selector, template = spec.get("selector"), spec["template"]
    workloads.required_selector(errs, selector, "empty selector is invalid for deployment")
    replicated_template(errs, selector, template)
    _strategy(errs, "spec.strategy", spec["strategy"])
    fields_non_negative(errs, "spec", spec, "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds")
    deadline = spec["progressDeadlineSeconds"]
    if deadline <= (spec.get("minReadySeconds") or 0):
        errs.append(field.invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))


def _strategy(errs: Errors, path: str, strategy: Object) -> None:
    kind, rolling = strategy["type"], strategy.get("rollingUpdate")
    if kind == "RollingUpdate":
        _rolling_update(errs, f"{path}.rollingUpdate", strategy["rollingUpdate"])
    elif kind != "Recreate":
        errs.append(field.not_supported(path, shown("DeploymentStrategy", strategy), ("Recreate", "RollingUpdate")))
    elif rolling is not None:
        problem = "may not be specified when strategy `type` is 'Recreate'"
        errs.append(field.forbidden(f"{path}.rollingUpdate", problem))


def _rolling_update(errs: Errors, path: str, rolling: Object) -> None:
    workloads.rolling_amounts(errs, path, rolling)
    unavailable = rolling["maxUnavailable"]
    if checks.is_zero(unavailable) and checks.is_zero(rolling["maxSurge"]):
        errs.append(field.invalid(f"{path}.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0"))
    checks.at_most_hundred_percent(errs, f"{path}.maxUnavailable", unavailable)


STRATEGIES: dict[tuple[str, str], Strategy] = {("apps", "deployments"): DeploymentStrategy()}

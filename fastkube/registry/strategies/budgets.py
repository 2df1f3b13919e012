"""PodDisruptionBudgets (upstream: pkg/apis/policy/validation, pkg/registry/policy/poddisruptionbudget)."""

from __future__ import annotations

from fastkube.api import field
from fastkube.api.names import path_segment
from fastkube.api.selectors import validate_label_selector
from fastkube.errors import Cause
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.checks import Errors, Object, fields_non_negative
from fastkube.registry.strategies.go_values import shown
from fastkube.registry.strategy import Call, Strategy

_COUNTS = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")


class DisruptionBudgetStrategy(Strategy):
    metadata_checks = ()
    allow_unconditional_update = False
    metadata_last = True

    def validate_name(self, name: str, prefix: bool) -> list[str]:
        return path_segment(name, prefix)

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        spec = obj.get("spec") or {}
        least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
        if least is not None and most is not None:
            problem = "minAvailable and maxUnavailable cannot be both set"
            errs.append(field.invalid("spec", shown("PodDisruptionBudgetSpec", spec), problem))
        for key, value in (("minAvailable", least), ("maxUnavailable", most)):
            if value is not None:
                checks.int_or_percent(errs, f"spec.{key}", value)
                checks.at_most_hundred_percent(errs, f"spec.{key}", value)
        errs += validate_label_selector(spec.get("selector"), "spec.selector")
        policy = spec.get("unhealthyPodEvictionPolicy")
        if policy is not None:
            path = "spec.unhealthyPodEvictionPolicy"
            checks.one_of(errs, path, policy, ("AlwaysAllow", "IfHealthyBudget"))
        return errs

    def validate_status_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        status = new.get("status") or {}
        checks.conditions(errs, "status.conditions", status.get("conditions"))
        fields_non_negative(errs, "status", status, *_COUNTS)
        return errs


STRATEGIES: dict[tuple[str, str], Strategy] = {("policy", "poddisruptionbudgets"): DisruptionBudgetStrategy()}

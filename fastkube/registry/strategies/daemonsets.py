"""DaemonSets."""

from __future__ import annotations

from fastkube.api import field
from fastkube.api.selectors import validate_label_selector
from fastkube.errors import Cause
from fastkube.registry.strategies import checks, workloads
from fastkube.registry.strategies.checks import Errors, Object, fields_non_negative, selector_shown
from fastkube.registry.strategies.go_values import shown
from fastkube.registry.strategies.pod_templates import default_template, validate_template
from fastkube.registry.strategies.workloads import WorkloadStrategy
from fastkube.registry.strategy import Call, Strategy

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
_COUNTS = (
    "currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady", "observedGeneration",
    "updatedNumberScheduled", "numberAvailable", "numberUnavailable", "collisionCount",
)  # fmt: skip


class DaemonSetStrategy(WorkloadStrategy):
    metadata_checks = ("update",)
    names_pods = False

    def default(self, obj: Object) -> None:
        spec: Object = obj.setdefault("spec", {})
        default_template(spec)
        strategy: Object = spec.setdefault("updateStrategy", {})
        if not strategy.get("type"):
            strategy["type"] = "RollingUpdate"
        if strategy["type"] == "RollingUpdate":
            rolling: Object = strategy.setdefault("rollingUpdate", {})
            rolling.setdefault("maxUnavailable", 1)
            rolling.setdefault("maxSurge", 0)
        spec.setdefault("revisionHistoryLimit", 10)
        _set_template_generation(obj, _template_generation(obj))

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        super().prepare_for_create(call, obj)
        _set_template_generation(obj, max(_template_generation(obj), 1))

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        super().prepare_for_update(call, new, old)
        changed = new["spec"]["template"] != old["spec"]["template"]
        _set_template_generation(new, _template_generation(old) + changed)

    def prepare_for_status_update(self, call: Call, new: Object, old: Object) -> None:
        super().prepare_for_status_update(call, new, old)
        _set_template_generation(new, _template_generation(old))  # which upstream keeps in spec

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        _daemon_set_spec(errs, obj["spec"])
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        selector = new["spec"].get("selector")
        checks.immutable(errs, "spec.selector", selector, old["spec"].get("selector"), selector_shown(selector))
        _daemon_set_spec(errs, new["spec"])
        return errs

    def check_status(self, errs: Errors, status: Object) -> None:
        workloads.non_negative_status(errs, status, *_COUNTS)


def _daemon_set_spec(errs: Errors, spec: Object) -> None:
    selector, template = spec.get("selector"), spec["template"]
    errs += validate_label_selector(selector, "spec.selector")
    usable = workloads.as_selector(selector)
    if usable is not None:
        workloads.selects_template(errs, usable, "spec.template", template)
    if selector is not None and workloads.is_empty(selector):
        errs.append(field.invalid("spec.selector", selector_shown(selector), "empty selector is invalid for daemonset"))
    validate_template(errs, "spec.template", template)
    workloads.runs_forever(errs, "spec.template", template, "DaemonSet")
    fields_non_negative(errs, "spec", spec, "minReadySeconds")
    _update_strategy(errs, "spec.updateStrategy", spec["updateStrategy"])
    fields_non_negative(errs, "spec", spec, "revisionHistoryLimit")


def _update_strategy(errs: Errors, path: str, strategy: Object) -> None:
    kind = strategy["type"]
    if kind == "RollingUpdate":
        _rolling_update(errs, f"{path}.rollingUpdate", strategy["rollingUpdate"])
    elif kind != "OnDelete":
        value = shown("DaemonSetUpdateStrategy", strategy)
        errs.append(field.not_supported(path, value, ("RollingUpdate", "OnDelete")))


def _rolling_update(errs: Errors, path: str, rolling: Object) -> None:
    """Either Pods are missing meanwhile, or there are more of them."""
    workloads.rolling_amounts(errs, path, rolling)
    unavailable, surge = rolling["maxUnavailable"], rolling["maxSurge"]
    checks.at_most_hundred_percent(errs, f"{path}.maxUnavailable", unavailable)
    checks.at_most_hundred_percent(errs, f"{path}.maxSurge", surge)
    if not checks.is_zero(unavailable) and not checks.is_zero(surge):
        errs.append(field.invalid(f"{path}.maxSurge", surge, "may not be set when maxUnavailable is non-zero"))
    elif checks.is_zero(unavailable) and checks.is_zero(surge):
        errs.append(field.required(f"{path}.maxUnavailable", "cannot be 0 when maxSurge is 0"))


def _template_generation(obj: Object) -> int:
    """How often the template has changed: a field of older versions, which apps/v1 shows as an annotation."""
    told = (obj["metadata"].get("annotations") or {}).get(TEMPLATE_GENERATION, "")
    return int(told) if told.isascii() and told.isdigit() else 0


def _set_template_generation(obj: Object, generation: int) -> None:
    obj["metadata"].setdefault("annotations", {})[TEMPLATE_GENERATION] = str(generation)


STRATEGIES: dict[tuple[str, str], Strategy] = {("apps", "daemonsets"): DaemonSetStrategy()}

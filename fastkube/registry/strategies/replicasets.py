"""ReplicaSets and their predecessors, ReplicationControllers."""

from __future__ import annotations

from fastkube.api import field
from fastkube.api.selectors import from_labels
from fastkube.errors import Cause
from fastkube.registry.strategies import checks, workloads
from fastkube.registry.strategies.checks import Errors, Object, fields_non_negative, selector_shown
from fastkube.registry.strategies.pod_templates import (
    default_template,
    drop_switched_off,
    template_warnings,
    validate_template,
)
from fastkube.registry.strategies.workloads import WorkloadStrategy
from fastkube.registry.strategy import Call, Strategy

_STATUS_PARTS = ("fullyLabeledReplicas", "readyReplicas", "availableReplicas")


def replicated_template(errs: Errors, selector: Object | None, template: Object) -> None:
    """The template of a ReplicaSet or Deployment with the selector for its Pods."""
    usable = workloads.as_selector(selector)
    if usable is None:
        errs.append(field.invalid("spec.selector", selector_shown(selector), "invalid label selector"))
        return
    workloads.selects_template(errs, usable, "spec.template", template)
    validate_template(errs, "spec.template", template)
    workloads.runs_forever(errs, "spec.template", template, "ReplicaSet")


class ReplicaSetStrategy(WorkloadStrategy):
    metadata_checks = ("update",)

    def default(self, obj: Object) -> None:
        spec: Object = obj.setdefault("spec", {})
        default_template(spec)
        spec.setdefault("replicas", 1)

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        spec = obj["spec"]
        fields_non_negative(errs, "spec", spec, "replicas", "minReadySeconds")
        selector = spec.get("selector")
        workloads.required_selector(errs, selector, "empty selector is invalid for deployment")
        replicated_template(errs, selector, spec["template"])
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs = self.validate(call, new)
        selector = new["spec"].get("selector")
        checks.immutable(errs, "spec.selector", selector, old["spec"].get("selector"), selector_shown(selector))
        return errs

    def check_status(self, errs: Errors, status: Object) -> None:
        workloads.non_negative_status(
            errs, status, "replicas", *_STATUS_PARTS, "terminatingReplicas", "observedGeneration"
        )
        workloads.within_replicas(errs, status, *_STATUS_PARTS)
        workloads.available_within_ready(errs, status)


class ReplicationControllerStrategy(WorkloadStrategy):
    metadata_checks = ("update",)

    def validate_name(self, name: str, prefix: bool) -> list[str]:
        """Only the name that was made is judged, not what it was made of."""
        return [] if prefix else super().validate_name(name, prefix)

    def default(self, obj: Object) -> None:
        """Without labels and selector those of the template serve."""
        spec: Object = obj.setdefault("spec", {})
        labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
        if labels:
            if not spec.get("selector"):
                spec["selector"] = dict(labels)
            if not obj["metadata"].get("labels"):
                obj["metadata"]["labels"] = dict(labels)
        spec.setdefault("replicas", 1)
        if spec.get("template") is not None:
            default_template(spec)

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        self.reset_status(obj)
        _drop_switched_off(call, obj["spec"])

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        Strategy.prepare_for_update(self, call, new, old)
        _drop_switched_off(call, new["spec"])

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        spec = obj["spec"]
        fields_non_negative(errs, "spec", spec, "minReadySeconds")
        if not spec.get("selector"):
            errs.append(field.required("spec.selector"))
        fields_non_negative(errs, "spec", spec, "replicas")
        template = spec.get("template")
        if template is None:
            errs.append(field.required("spec.template"))
            return errs
        workloads.selects_template(errs, from_labels(spec.get("selector")), "spec.template", template)
        validate_template(errs, "spec.template", template)
        workloads.runs_forever(errs, "spec.template", template, "ReplicationController")
        return errs

    def check_status(self, errs: Errors, status: Object) -> None:
        workloads.non_negative_status(errs, status, "replicas", *_STATUS_PARTS, "observedGeneration")
        workloads.within_replicas(errs, status, *_STATUS_PARTS)
        workloads.available_within_ready(errs, status)

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        if workloads.is_same_generation(obj, old):
            return []
        told = workloads.name_warnings(obj) if old is None else []
        return told + template_warnings("spec.template", obj["spec"].get("template"))


def _drop_switched_off(call: Call, spec: Object) -> None:
    if spec.get("template") is not None:
        drop_switched_off(call, spec["template"]["spec"])


STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("apps", "replicasets"): ReplicaSetStrategy(),
    ("", "replicationcontrollers"): ReplicationControllerStrategy(),
}

"""Admission policies and their bindings. What is in a policy's spec is checked in policy_validation."""

from __future__ import annotations

from fastkube.api import field
from fastkube.api.names import dns1123_subdomain, path_segment
from fastkube.api.selectors import validate_label_selector
from fastkube.errors import Cause
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.admission_matching import default_matching, default_rules, match_resources
from fastkube.registry.strategies.checks import Errors, Object
from fastkube.registry.strategy import ALL_METADATA, Call, Strategy

_ACTIONS = ("Audit", "Deny", "Warn")
_REPEATED = (
    "must not contain both Deny and Warn (repeating the same validation failure information in the API response and "
    "headers serves no purpose)"
)


def _default_resources(resources: Object | None) -> None:
    if resources is None:
        return
    default_matching(resources)
    for key in ("resourceRules", "excludeResourceRules"):
        default_rules(resources.get(key))


class PolicyStrategy(Strategy):
    """Of both kinds: `mutating` policies change objects and have no status, the others check them."""

    kept_on_status = ALL_METADATA
    allow_unconditional_update = False
    metadata_checks = ("update",)

    def __init__(self, *, mutating: bool) -> None:
        self.has_status = not mutating
        self._mutating = mutating

    def default(self, obj: Object) -> None:
        spec: Object = obj.setdefault("spec", {})
        spec.setdefault("failurePolicy", "Fail")
        _default_resources(spec.get("matchConstraints"))

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        return self._check(obj, check_conditions=True)

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        keys = ("paramKind", "matchConditions")
        changed = any(not checks.equal(new["spec"].get(key), old["spec"].get(key)) for key in keys)
        return self._check(new, check_conditions=changed)

    def _check(self, obj: Object, *, check_conditions: bool) -> list[Cause]:
        from fastkube.registry.strategies import policy_validation

        errs: Errors = []
        check = policy_validation.mutating_policy if self._mutating else policy_validation.validating_policy
        check(errs, obj, check_conditions=check_conditions)
        return errs

    def validate_status_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        status = new.get("status") or {}
        warnings = (status.get("typeChecking") or {}).get("expressionWarnings") or ()
        for number, warning in enumerate(warnings):
            at = f"status.typeChecking.expressionWarnings[{number}]"
            checks.required(errs, at, warning, "warning", "fieldRef")
        checks.conditions(errs, "status.conditions", status.get("conditions"))
        return errs


class BindingStrategy(Strategy):
    """`acts`: the binding says what is done about objects that fail."""

    allow_unconditional_update = False
    metadata_checks = ("update",)
    has_status = False

    def __init__(self, *, acts: bool) -> None:
        self._acts = acts

    def default(self, obj: Object) -> None:
        _default_resources(obj.setdefault("spec", {}).get("matchResources"))

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        spec = obj["spec"]
        name = spec.get("policyName") or ""
        if name:
            checks.faults(errs, "spec.policyName", name, dns1123_subdomain)
        else:
            errs.append(field.required("spec.policyName"))
        if spec.get("paramRef") is not None:
            _param_ref(errs, "spec.paramRef", spec["paramRef"])
        if spec.get("matchResources") is not None:
            match_resources(errs, "spec.matchResources", spec["matchResources"])
        if self._acts:
            _actions(errs, "spec.validationActions", spec.get("validationActions") or [])
        return errs


def _param_ref(errs: Errors, path: str, reference: Object) -> None:
    name, selector = reference.get("name") or "", reference.get("selector")
    both = "name and selector are mutually exclusive"
    if name:
        checks.faults(errs, f"{path}.name", name, path_segment)
        if selector is not None:
            errs.append(field.forbidden(f"{path}.name", both))
    if selector is not None:
        errs += validate_label_selector(selector, f"{path}.selector")
        if name:
            errs.append(field.forbidden(f"{path}.selector", both))
    if not name and selector is None:
        errs.append(field.required(path, "one of name or selector must be specified"))
    action = reference.get("parameterNotFoundAction") or ""
    checks.one_of_required(errs, f"{path}.parameterNotFoundAction", action, ("Deny", "Allow"))


def _actions(errs: Errors, path: str, actions: list[str]) -> None:
    for number, action in enumerate(actions):
        checks.one_of(errs, f"{path}[{number}]", action, _ACTIONS)
        if action in actions[:number]:
            errs.append(field.duplicate(f"{path}[{number}]", action))
    if "Deny" in actions and "Warn" in actions:
        errs.append(field.invalid(path, actions, _REPEATED))
    if not actions:
        errs.append(field.required(path, "at least one validation action is required"))


_GROUP = "admissionregistration.k8s.io"

STRATEGIES: dict[tuple[str, str], Strategy] = {
    (_GROUP, "validatingadmissionpolicies"): PolicyStrategy(mutating=False),
    (_GROUP, "validatingadmissionpolicybindings"): BindingStrategy(acts=True),
    (_GROUP, "mutatingadmissionpolicies"): PolicyStrategy(mutating=True),
    (_GROUP, "mutatingadmissionpolicybindings"): BindingStrategy(acts=False),
}

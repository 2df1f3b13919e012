"""What webhook configurations and admission policies say of the requests that they are for: rules, selectors and match
conditions (upstream: pkg/apis/admissionregistration/validation and v1/defaults.go)."""

from __future__ import annotations

from collections.abc import Collection

from fastkube.api import field
from fastkube.api.names import path_segment
from fastkube.api.selectors import validate_label_selector
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.checks import Errors, Object

OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
FAILURE_POLICIES = ("Fail", "Ignore")
MATCH_POLICIES = ("Equivalent", "Exact")
REINVOCATION_POLICIES = ("IfNeeded", "Never")
_SCOPES = ("*", "Cluster", "Namespaced")
_CONDITIONS_MAX = 64

# ---------------------------------------------------------------- defaults


def default_rules(rules: list[Object] | None) -> None:
    for rule in rules or ():
        rule.setdefault("scope", "*")


def default_matching(holder: Object) -> None:
    """Of a webhook, or of the matchResources of a policy."""
    holder.setdefault("matchPolicy", "Equivalent")
    for key in ("namespaceSelector", "objectSelector"):
        if holder.get(key) is None:
            holder[key] = {}


# ---------------------------------------------------------------- rules


def rule(errs: Errors, path: str, told: Object) -> None:
    """A rule with its operations."""
    operations = told.get("operations") or []
    if not operations:
        errs.append(field.required(f"{path}.operations"))
    _wildcard_alone(errs, f"{path}.operations", operations, "operations")
    for number, operation in enumerate(operations):
        checks.one_of(errs, f"{path}.operations[{number}]", operation, OPERATIONS)
    for key, what in (("apiGroups", "API groups"), ("apiVersions", "API versions")):
        if not told.get(key):
            errs.append(field.required(f"{path}.{key}"))
        _wildcard_alone(errs, f"{path}.{key}", told.get(key) or [], what)
    for number, version in enumerate(told.get("apiVersions") or ()):
        if not version:
            errs.append(field.required(f"{path}.apiVersions[{number}]"))
    _resources(errs, f"{path}.resources", told.get("resources") or [])
    if told.get("scope") is not None:
        checks.one_of(errs, f"{path}.scope", told["scope"], _SCOPES)


def _wildcard_alone(errs: Errors, path: str, values: list[str], what: str) -> None:
    if len(values) > 1 and "*" in values:
        errs.append(field.invalid(path, values, f"if '*' is present, must not specify other {what}"))


def _resources(errs: Errors, path: str, resources: list[str]) -> None:
    """`pods`, `pods/status`, `pods/*`, `*/status`, `*`, `*/*`; none that another includes."""
    if not resources:
        errs.append(field.required(path))
    whole, everywhere = set(), set()
    has_plain = False
    for number, told in enumerate(resources):
        if not told:
            errs.append(field.required(f"{path}[{number}]"))
            continue
        resource, slash, sub = told.partition("/")
        if not slash:
            has_plain = told != "*"
            continue
        if resource in whole:
            problem = f"if '{resource}/*' is present, must not specify {told}"
            errs.append(field.invalid(f"{path}[{number}]", told, problem))
        if sub in everywhere:
            problem = f"if '*/{sub}' is present, must not specify {told}"
            errs.append(field.invalid(f"{path}[{number}]", told, problem))
        if sub == "*":
            whole.add(resource)
        if resource == "*":
            everywhere.add(sub)
    if len(resources) > 1 and "*/*" in resources:
        errs.append(field.invalid(path, resources, "if '*/*' is present, must not specify other resources"))
    if "*" in resources and has_plain:
        problem = "if '*' is present, must not specify other resources without subresources"
        errs.append(field.invalid(path, resources, problem))


def named_rule(errs: Errors, path: str, told: Object) -> None:
    """A rule which may be for objects of some names only."""
    seen: set[str] = set()
    for number, name in enumerate(told.get("resourceNames") or ()):
        at = f"{path}.resourceNames[{number}]"
        checks.faults(errs, at, name, path_segment)
        if name in seen:
            errs.append(field.duplicate(at, name))
        seen.add(name)
    rule(errs, path, told)


# ---------------------------------------------------------------- matching


def selectors(errs: Errors, path: str, holder: Object) -> None:
    for key in ("namespaceSelector", "objectSelector"):
        errs += validate_label_selector(holder.get(key), f"{path}.{key}")


def match_resources(errs: Errors, path: str, told: Object) -> None:
    """What a policy or a binding is for."""
    checks.one_of(errs, f"{path}.matchPolicy", told["matchPolicy"], MATCH_POLICIES)
    selectors(errs, path, told)
    for key in ("resourceRules", "excludeResourceRules"):
        for number, each in enumerate(told.get(key) or ()):
            named_rule(errs, f"{path}.{key}[{number}]", each)


def match_conditions(errs: Errors, path: str, conditions: list[Object] | None, *, params: bool = False) -> None:
    conditions = conditions or []
    if len(conditions) > _CONDITIONS_MAX:
        errs.append(field.too_many(path, len(conditions), _CONDITIONS_MAX))
    seen: set[str] = set()
    for number, condition in enumerate(conditions):
        at = f"{path}[{number}]"
        _match_condition(errs, f"{at}.expression", (condition.get("expression") or "").strip(), params)
        name = condition.get("name") or ""
        if not name:
            errs.append(field.required(f"{at}.name"))
            continue
        checks.qualified(errs, f"{at}.name", name)
        if name in seen:
            errs.append(field.duplicate(f"{at}.name", name))
        seen.add(name)


def _match_condition(errs: Errors, path: str, expression: str, params: bool) -> None:
    if not expression:
        errs.append(field.required(path))
        return
    from fastkube.cel.admission import ExpressionError, match_condition  # most servers never load CEL

    try:
        match_condition(expression, params)
    except ExpressionError as problem:
        errs.append(field.invalid(path, expression, str(problem)))


def one_of_given(errs: Errors, path: str, value: str | None, allowed: Collection[str]) -> None:
    if value is not None:
        checks.one_of(errs, path, value, allowed)

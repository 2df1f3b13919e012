"""Validation of what steers scheduling: affinity, node selectors, tolerations, taints, topology spread."""

from __future__ import annotations

from collections.abc import Callable

from fastkube.api import field
from fastkube.api.names import dns1123_label, dns1123_subdomain, label_key, label_value
from fastkube.api.selectors import validate_label_selector
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.checks import Errors, Object
from fastkube.registry.strategies.go_values import shown

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"

TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_BAD_OPERATOR = "not a valid selector operator"
_BAD_WEIGHT = "must be in the range 1-100"


def affinity(errs: Errors, path: str, given: Object) -> None:
    node = given.get("nodeAffinity")
    if node is not None:
        at = f"{path}.nodeAffinity"
        if node.get(REQUIRED) is not None:
            node_selector(errs, f"{at}.{REQUIRED}", node[REQUIRED])
        for number, term in enumerate(node.get(PREFERRED) or ()):
            where = f"{at}.{PREFERRED}[{number}]"
            _weight(errs, where, term)
            _node_term(errs, f"{where}.preference", term.get("preference") or {}, check_values=False)
    for key in ("podAffinity", "podAntiAffinity"):
        if given.get(key) is None:
            continue
        for number, term in enumerate(given[key].get(REQUIRED) or ()):
            _pod_term(errs, f"{path}.{key}.{REQUIRED}[{number}]", term)
        for number, weighted in enumerate(given[key].get(PREFERRED) or ()):
            where = f"{path}.{key}.{PREFERRED}[{number}]"
            _weight(errs, where, weighted)
            _pod_term(errs, f"{where}.podAffinityTerm", weighted.get("podAffinityTerm") or {})


def _weight(errs: Errors, path: str, term: Object) -> None:
    weight = term.get("weight") or 0
    if not 0 < weight <= 100:
        errs.append(field.invalid(f"{path}.weight", weight, _BAD_WEIGHT))


# ---------------------------------------------------------------- node selectors


def node_selector(errs: Errors, path: str, selector: Object) -> None:
    terms = selector.get("nodeSelectorTerms")
    if not terms:
        errs.append(field.required(f"{path}.nodeSelectorTerms", "must have at least one node selector term"))
        return
    for number, term in enumerate(terms):
        _node_term(errs, f"{path}.nodeSelectorTerms[{number}]", term, check_values=True)


def _node_term(errs: Errors, path: str, term: Object, *, check_values: bool) -> None:
    for number, requirement in enumerate(term.get("matchExpressions") or ()):
        _node_expression(errs, f"{path}.matchExpressions[{number}]", requirement, check_values)
    for number, requirement in enumerate(term.get("matchFields") or ()):
        _node_field(errs, f"{path}.matchFields[{number}]", requirement)


def _node_expression(errs: Errors, path: str, requirement: Object, check_values: bool) -> None:
    operator, values = requirement.get("operator") or "", requirement.get("values") or ()
    if operator in ("In", "NotIn"):
        if not values:
            errs.append(field.required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            problem = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            errs.append(field.forbidden(f"{path}.values", problem))
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            problem = "must be specified single value when `operator` is 'Lt' or 'Gt'"
            errs.append(field.required(f"{path}.values", problem))
    else:
        errs.append(field.invalid(f"{path}.operator", operator, _BAD_OPERATOR))
    checks.faults(errs, f"{path}.key", requirement.get("key") or "", label_key)
    if check_values:
        for number, value in enumerate(values):
            checks.faults(errs, f"{path}.values[{number}]", value, label_value)


def _node_field(errs: Errors, path: str, requirement: Object) -> None:
    operator, values = requirement.get("operator") or "", requirement.get("values") or ()
    if operator not in ("In", "NotIn"):
        errs.append(field.invalid(f"{path}.operator", operator, _BAD_OPERATOR))
    elif len(values) != 1:
        problem = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
        errs.append(field.required(f"{path}.values", problem))
    key = requirement.get("key") or ""
    if key != "metadata.name":
        errs.append(field.invalid(f"{path}.key", key, "not a valid field selector key"))
        return
    for number, value in enumerate(values):
        checks.faults(errs, f"{path}.values[{number}]", value, dns1123_subdomain)


# ---------------------------------------------------------------- pods and topology


def _pod_term(errs: Errors, path: str, term: Object) -> None:
    selector = term.get("labelSelector")
    errs += validate_label_selector(selector, f"{path}.labelSelector")
    errs += validate_label_selector(term.get("namespaceSelector"), f"{path}.namespaceSelector")
    for namespace in term.get("namespaces") or ():
        checks.faults(errs, f"{path}.namespace", namespace, dns1123_label)
    _match_label_keys(errs, path, term.get("matchLabelKeys"), term.get("mismatchLabelKeys"), selector)
    key = term.get("topologyKey") or ""
    if not key:
        errs.append(field.required(f"{path}.topologyKey", "can not be empty"))
    checks.faults(errs, f"{path}.topologyKey", key, label_key)


def _match_label_keys(
    errs: Errors, path: str, match: list[str] | None, mismatch: list[str] | None, selector: Object | None
) -> None:
    """Keys whose value the pod itself brings; `prepare` has put them into the selector already."""
    for name, keys in (("matchLabelKeys", match), ("mismatchLabelKeys", mismatch)):
        if not keys:
            continue
        if selector is None:
            problem = "must not be specified when labelSelector is not set"
            errs.append(field.forbidden(f"{path}.{name}", problem))
            continue
        for number, key in enumerate(keys):
            checks.faults(errs, f"{path}.{name}[{number}]", key, label_key)
    if not match:
        return
    if selector is not None:
        _repeated_keys(errs, path, match, selector)
    for number, key in enumerate(match):
        if key in (mismatch or ()):
            problem = "exists in both matchLabelKeys and mismatchLabelKeys"
            errs.append(field.invalid(f"{path}.matchLabelKeys[{number}]", key, problem))


def _repeated_keys(errs: Errors, path: str, match: list[str], selector: Object) -> None:
    positions = {key: number for number, key in enumerate(match)}
    seen = set(selector.get("matchLabels") or ())
    for expression in selector.get("matchExpressions") or ():
        key = expression.get("key") or ""
        if key in positions and key in seen:
            problem = "exists in both matchLabelKeys and labelSelector"
            errs.append(field.invalid(f"{path}[{positions[key]}]", key, problem))
        seen.add(key)


def topology_spread(errs: Errors, path: str, constraints: list[Object]) -> None:
    for number, constraint in enumerate(constraints):
        at = f"{path}[{number}]"
        checks.positive(errs, f"{at}.maxSkew", constraint.get("maxSkew") or 0)
        key, action = constraint.get("topologyKey") or "", constraint.get("whenUnsatisfiable") or ""
        if not key:
            errs.append(field.required(f"{at}.topologyKey", "can not be empty"))
        checks.one_of(errs, f"{at}.whenUnsatisfiable", action, ("DoNotSchedule", "ScheduleAnyway"))
        for later in constraints[number + 1 :]:
            if (later.get("topologyKey") or "", later.get("whenUnsatisfiable") or "") == (key, action):
                where = f"{at}.{{topologyKey, whenUnsatisfiable}}"
                errs.append(field.duplicate(where, f"{{{key}, {action}}}"))
                break
        _min_domains(errs, f"{at}.minDomains", constraint.get("minDomains"), action)
        for name in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            policy = constraint.get(name)
            if policy is not None:
                checks.one_of(errs, f"{at}.{name}", policy, ("Honor", "Ignore"))
        selector = constraint.get("labelSelector")
        _match_label_keys(errs, at, constraint.get("matchLabelKeys"), None, selector)
        errs += validate_label_selector(selector, f"{at}.labelSelector")


def _min_domains(errs: Errors, path: str, domains: int | None, action: str) -> None:
    if domains is None:
        return
    checks.positive(errs, path, domains)
    if action != "DoNotSchedule":
        problem = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
        errs.append(field.invalid(path, domains, problem))


# ---------------------------------------------------------------- taints and tolerations


def tolerations(errs: Errors, path: str, listed: list[Object]) -> None:
    for number, toleration in enumerate(listed):
        key, operator = toleration.get("key"), toleration.get("operator") or ""
        effect, value = toleration.get("effect") or "", toleration.get("value") or ""
        if key and operator == "Exists" and not value and (effect == "NoExecute" or not effect):
            if found := label_key(key):  # the common case: nothing else can be wrong
                errs += [field.invalid(f"{path}[{number}].key", key, fault) for fault in found]
            if effect or toleration.get("tolerationSeconds") is None:
                continue
        elif key:
            checks.faults(errs, f"{path}[{number}].key", key, label_key)
        _toleration(errs, f"{path}[{number}]", toleration, operator, effect, value)


def _toleration(errs: Errors, path: str, toleration: Object, operator: str, effect: str, value: str) -> None:
    if not toleration.get("key") and operator != "Exists":
        problem = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        errs.append(field.invalid(f"{path}.operator", operator, problem))
    if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
        problem = "effect must be 'NoExecute' when `tolerationSeconds` is set"
        errs.append(field.invalid(f"{path}.effect", effect, problem))
    if operator in ("Equal", ""):
        if found := label_value(value):
            errs.append(field.invalid(f"{path}.operator", value, ";".join(found)))
    elif operator == "Exists":
        if value:
            errs.append(field.invalid(f"{path}.operator", value, "value must be empty when `operator` is 'Exists'"))
    else:
        allowed = ("Equal", "Exists", "Lt", "Gt") if operator in ("Lt", "Gt") else ("Equal", "Exists")
        errs.append(field.not_supported(f"{path}.operator", operator, allowed))
    if effect:
        checks.one_of(errs, f"{path}.effect", effect, TAINT_EFFECTS)


def taints(errs: Errors, path: str, listed: list[Object]) -> None:
    seen: set[tuple[str, str]] = set()
    for number, taint in enumerate(listed):
        at = f"{path}[{number}]"
        key, value, effect = (taint.get(name) or "" for name in ("key", "value", "effect"))
        checks.faults(errs, f"{at}.key", key, label_key)
        if found := label_value(value):
            errs.append(field.invalid(f"{at}.value", value, ";".join(found)))
        checks.one_of_required(errs, f"{at}.effect", effect, TAINT_EFFECTS)
        if (effect, key) in seen:
            problem = "taints must be unique by key and effect pair"
            errs.append(field.duplicate(at, shown("Taint", taint), problem))
        seen.add((effect, key))


# ---------------------------------------------------------------- topology selectors of storage classes


def topology_terms(
    errs: Errors, path: str, terms: list[Object], on_term: Callable[[str, dict[str, frozenset[str]]], None]
) -> None:
    """`on_term` is told each term as a map of its keys to their values."""
    for number, term in enumerate(terms):
        at = f"{path}[{number}]"
        known: dict[str, frozenset[str]] = {}
        for index, requirement in enumerate(term.get("matchLabelExpressions") or ()):
            where = f"{at}.matchLabelExpressions[{index}]"
            key, values = requirement.get("key") or "", requirement.get("values") or ()
            if not values:
                errs.append(field.required(f"{where}.values"))
            for position, value in enumerate(values):
                if value in values[:position]:
                    errs.append(field.duplicate(f"{where}.values[{position}]", value))
            checks.faults(errs, f"{where}.key", key, label_key)
            if key in known:
                errs.append(field.duplicate(f"{where}.key", key))
            known[key] = frozenset(values)
        on_term(at, known)

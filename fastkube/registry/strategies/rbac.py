"""Roles and bindings. Who may grant what is decided by the server's escalation check."""

from __future__ import annotations

from fastkube.api import field
from fastkube.api.names import path_segment
from fastkube.api.selectors import validate_label_selector
from fastkube.errors import Cause
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.checks import Errors
from fastkube.registry.strategies.go_values import shown
from fastkube.registry.strategy import Call, Object, Strategy

_GROUP = "rbac.authorization.k8s.io"
_SUBJECTS = ("ServiceAccount", "User", "Group")


class _RbacStrategy(Strategy):
    has_generation = False
    has_status = False
    allow_create_on_update = True

    def validate_name(self, name: str, prefix: bool) -> list[str]:
        return path_segment(name, prefix)


class RoleStrategy(_RbacStrategy):
    def validate(self, call: Call, obj: Object) -> list[Cause]:
        return _rules(obj.get("rules") or [], namespaced=True)


class ClusterRoleStrategy(_RbacStrategy):
    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs = _rules(obj.get("rules") or [], namespaced=False)
        aggregation = obj.get("aggregationRule")
        if aggregation is None:
            return errs
        path, selectors = "aggregationRule.clusterRoleSelectors", aggregation.get("clusterRoleSelectors") or []
        if not selectors:
            problem = "at least one clusterRoleSelector required if aggregationRule is non-nil"
            errs.append(field.required(path, problem))
        for number, selector in enumerate(selectors):
            faults = validate_label_selector(selector, f"{path}[{number}]")
            if faults:
                errs += faults
                errs.append(field.invalid(f"{path}[{number}]", None, "invalid label selector."))
        return errs


def _rules(rules: list[Object], *, namespaced: bool) -> Errors:
    errs: Errors = []
    for number, rule in enumerate(rules):
        path = f"rules[{number}]"
        if not rule.get("verbs"):
            errs.append(field.required(f"{path}.verbs", "verbs must contain at least one value"))
        urls = rule.get("nonResourceURLs")
        if urls:
            _urls(errs, f"{path}.nonResourceURLs", rule, urls, namespaced)
            continue
        if not rule.get("apiGroups"):
            errs.append(field.required(f"{path}.apiGroups", "resource rules must supply at least one api group"))
        if not rule.get("resources"):
            errs.append(field.required(f"{path}.resources", "resource rules must supply at least one resource"))
    return errs


def _urls(errs: Errors, path: str, rule: Object, urls: list[str], namespaced: bool) -> None:
    if namespaced:
        errs.append(field.invalid(path, urls, "namespaced rules cannot apply to non-resource URLs"))
    if any(rule.get(key) for key in ("apiGroups", "resources", "resourceNames")):
        problem = "rules cannot apply to both regular resources and non-resource URLs"
        errs.append(field.invalid(path, urls, problem))


# ---------------------------------------------------------------- bindings


class RoleBindingStrategy(_RbacStrategy):
    namespaced = True
    kinds: tuple[str, ...] = ("Role", "ClusterRole")

    def default(self, obj: Object) -> None:
        reference = obj.setdefault("roleRef", {})
        if not reference.get("apiGroup"):
            reference["apiGroup"] = _GROUP
        for subject in obj.get("subjects") or ():
            if not subject.get("apiGroup") and subject.get("kind") in ("User", "Group"):
                subject["apiGroup"] = _GROUP

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        reference = obj["roleRef"]
        checks.one_of(errs, "roleRef.apiGroup", reference["apiGroup"], (_GROUP,))
        checks.one_of(errs, "roleRef.kind", reference.get("kind") or "", self.kinds)
        if not reference.get("name"):
            errs.append(field.required("roleRef.name"))
        else:
            checks.faults(errs, "roleRef.name", reference["name"], path_segment)
        for number, subject in enumerate(obj.get("subjects") or ()):
            _subject(errs, f"subjects[{number}]", subject, self.namespaced)
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs = super().validate_update(call, new, old)
        if new["roleRef"] != old.get("roleRef"):
            errs.append(field.invalid("roleRef", shown("RoleRef", new["roleRef"]), "cannot change roleRef"))
        return errs


class ClusterRoleBindingStrategy(RoleBindingStrategy):
    namespaced = False
    kinds = ("ClusterRole",)


def _subject(errs: Errors, path: str, subject: Object, namespaced: bool) -> None:
    name, kind, group = (subject.get(key) or "" for key in ("name", "kind", "apiGroup"))
    if not name:
        errs.append(field.required(f"{path}.name"))
    if kind == "ServiceAccount":
        if name:
            checks.subdomain(errs, f"{path}.name", name)
        checks.one_of(errs, f"{path}.apiGroup", group, ("",))
        if not namespaced and not subject.get("namespace"):
            errs.append(field.required(f"{path}.namespace"))
    elif kind in ("User", "Group"):
        checks.one_of(errs, f"{path}.apiGroup", group, (_GROUP,))
    else:
        errs.append(field.not_supported(f"{path}.kind", kind, _SUBJECTS))


STRATEGIES: dict[tuple[str, str], Strategy] = {
    (_GROUP, "roles"): RoleStrategy(),
    (_GROUP, "clusterroles"): ClusterRoleStrategy(),
    (_GROUP, "rolebindings"): RoleBindingStrategy(),
    (_GROUP, "clusterrolebindings"): ClusterRoleBindingStrategy(),
}

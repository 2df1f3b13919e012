"""FlowSchemas and PriorityLevelConfigurations: how requests to the server are sorted and queued."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from fastkube.api import field
from fastkube.api.generated import table
from fastkube.api.names import dns1123_label
from fastkube.errors import Cause
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.checks import Errors, equal
from fastkube.registry.strategies.go_values import shown
from fastkube.registry.strategy import ALL_METADATA, Call, Object, Strategy

_GROUP = "flowcontrol.apiserver.k8s.io"
_EXEMPT, _CATCH_ALL = "exempt", "catch-all"
_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch")
_SUBJECTS = ("Group", "ServiceAccount", "User")
_PRECEDENCE_MAX = 10000


@cache
def _fixed(resource: str) -> dict[str, Any]:
    """The specs that two objects must have, by name."""
    items = table("bootstrap")[f"{_GROUP}/v1/{resource}"]["items"]
    return {
        each["metadata"]["name"]: each["spec"] for each in items if each["metadata"]["name"] in (_EXEMPT, _CATCH_ALL)
    }


_ZERO_SHARES = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares"


def _conditions(errs: Errors, obj: Object) -> None:
    conditions = (obj.get("status") or {}).get("conditions") or []
    kinds = [condition.get("type") or "" for condition in conditions]
    for number, kind in enumerate(kinds):
        if kind in kinds[:number]:
            errs.append(field.duplicate(f"status.conditions[{number}].type", kind))
        if not kind:
            errs.append(field.required(f"status.conditions[{number}].type"))


# ---------------------------------------------------------------- FlowSchema


class FlowSchemaStrategy(Strategy):
    kept_on_status = ALL_METADATA
    metadata_checks = ("whole",)

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        if not spec.get("matchingPrecedence"):
            spec["matchingPrecedence"] = 1000

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        spec, name = obj["spec"], obj["metadata"].get("name") or ""
        _schema(errs, name, spec)
        fixed = _fixed("flowschemas").get(name)
        if fixed is not None and not equal(spec, fixed):
            problem = f"spec of '{name}' must equal the fixed value"
            errs.append(field.invalid("spec", shown("FlowSchemaSpec", spec), problem))
        _conditions(errs, obj)
        return errs

    def validate_status_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        return self.validate(call, new)


def _schema(errs: Errors, name: str, spec: Object) -> None:
    precedence, path = spec.get("matchingPrecedence") or 0, "spec.matchingPrecedence"
    if precedence <= 0:
        errs.append(field.invalid(path, precedence, "must be a positive value"))
    if precedence > _PRECEDENCE_MAX:
        errs.append(field.invalid(path, precedence, f"must not be greater than {_PRECEDENCE_MAX}"))
    if precedence == 1 and name != _EXEMPT:
        problem = "only the schema named 'exempt' may have matchingPrecedence 1"
        errs.append(field.invalid(path, precedence, problem))
    method = spec.get("distinguisherMethod")
    if method is not None and method.get("type") not in ("ByNamespace", "ByUser"):
        told = field.struct({"Type": method.get("type") or ""})
        errs.append(field.not_supported("spec.distinguisherMethod.type", told, ("ByNamespace", "ByUser")))
    level = (spec.get("priorityLevelConfiguration") or {}).get("name")
    if level:
        checks.subdomain(errs, "spec.priorityLevelConfiguration.name", level)
    else:
        errs.append(field.required("spec.priorityLevelConfiguration.name", "must reference a priority level"))
    for number, rule in enumerate(spec.get("rules") or ()):
        _rule(errs, f"spec.rules[{number}]", rule)


def _rule(errs: Errors, path: str, rule: Object) -> None:
    subjects = rule.get("subjects") or []
    if not subjects:
        errs.append(field.required(f"{path}.subjects", "subjects must contain at least one value"))
    for number, subject in enumerate(subjects):
        _subject(errs, f"{path}.subjects[{number}]", subject)
    resources, others = rule.get("resourceRules") or [], rule.get("nonResourceRules") or []
    if not resources and not others:
        problem = "at least one of resourceRules and nonResourceRules has to be non-empty"
        errs.append(field.required(path, problem))
    for number, each in enumerate(resources):
        _resource_rule(errs, f"{path}.resourceRules[{number}]", each)
    for number, each in enumerate(others):
        _url_rule(errs, f"{path}.nonResourceRules[{number}]", each)


_SUBJECT_KEYS = {"ServiceAccount": "serviceAccount", "User": "user", "Group": "group"}


def _subject(errs: Errors, path: str, subject: Object) -> None:
    kind = subject.get("kind") or ""
    if kind not in _SUBJECT_KEYS:
        errs.append(field.not_supported(f"{path}.kind", kind, _SUBJECTS))
        return
    key = _SUBJECT_KEYS[kind]
    who = subject.get(key)
    if who is None:
        errs.append(field.required(f"{path}.{key}", f"{key} is required when subject kind is '{kind}'"))
    elif kind == "ServiceAccount":
        _account(errs, f"{path}.{key}", who)
    elif not who.get("name"):
        errs.append(field.required(f"{path}.{key}.name"))
    for other, name in _SUBJECT_KEYS.items():
        if other != kind and subject.get(name) is not None:
            problem = f"{name} is forbidden when subject kind is not '{other}'"
            errs.append(field.forbidden(f"{path}.{name}", problem))


def _account(errs: Errors, path: str, account: Object) -> None:
    name, namespace = account.get("name"), account.get("namespace")
    if not name:
        errs.append(field.required(f"{path}.name"))
    elif name != "*":
        checks.subdomain(errs, f"{path}.name", name)
    if namespace:
        checks.label(errs, f"{path}.namespace", namespace)
    else:
        errs.append(field.required(f"{path}.namespace", "must specify namespace for service account"))


def _verbs(errs: Errors, path: str, verbs: list[str]) -> None:
    if not verbs:
        errs.append(field.required(path, "verbs must contain at least one value"))
    elif "*" in verbs:
        _alone(errs, path, verbs, "verbs")
    elif not set(verbs) <= set(_VERBS):
        errs.append(field.not_supported(path, verbs, _VERBS))


def _alone(errs: Errors, path: str, values: list[str], what: str) -> None:
    if len(values) > 1 and "*" in values:
        errs.append(field.invalid(path, values, f"if '*' is present, must not specify other {what}"))


def _resource_rule(errs: Errors, path: str, rule: Object) -> None:
    _verbs(errs, f"{path}.verbs", rule.get("verbs") or [])
    for key, one, what in (("apiGroups", "api group", "api groups"), ("resources", "resource", "resources")):
        values = rule.get(key) or []
        if not values:
            errs.append(field.required(f"{path}.{key}", f"resource rules must supply at least one {one}"))
        _alone(errs, f"{path}.{key}", values, what)
    at, namespaces = f"{path}.namespaces", rule.get("namespaces") or []
    if not namespaces and not rule.get("clusterScope"):
        problem = "resource rules that are not cluster scoped must supply at least one namespace"
        errs.append(field.required(at, problem))
    elif "*" in namespaces:
        _alone(errs, at, namespaces, "namespaces")
    else:
        for number, namespace in enumerate(namespaces):
            for fault in dns1123_label(namespace):
                problem = f"each member of this list must be '*' or a DNS-1123 label; {fault}"
                errs.append(field.invalid(f"{at}[{number}]", namespace, problem))


def _url_rule(errs: Errors, path: str, rule: Object) -> None:
    _verbs(errs, f"{path}.verbs", rule.get("verbs") or [])
    at, urls = f"{path}.nonResourceURLs", rule.get("nonResourceURLs") or []
    if not urls:
        errs.append(field.required(at, "nonResourceURLs must contain at least one value"))
    elif "*" in urls:
        _alone(errs, at, urls, "non-resource URLs")
    else:
        for number, url in enumerate(urls):
            fault = _url_fault(url)
            if fault:
                errs.append(field.invalid(f"{at}[{number}]", url, fault))


def _url_fault(url: str) -> str:
    if not url:
        return "must not be empty"
    if url == "/":
        return ""
    if not url.startswith("/"):
        return "must start with slash"
    if " " in url:
        return "must not contain white-space"
    if "//" in url:
        return "must not contain double slash"
    stars = url.count("*")
    return "wildcard can only do suffix matching" if stars > 1 or (stars and not url.endswith("/*")) else ""


# ---------------------------------------------------------------- PriorityLevelConfiguration

_QUEUES_MAX = 10_000_000
_HASH_BITS_MAX = 60
_NOT_NEGATIVE = "must be a non-negative integer"


class PriorityLevelConfigurationStrategy(Strategy):
    kept_on_status = ALL_METADATA
    metadata_checks = ("whole",)

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        if spec.get("type") == "Exempt" and spec.get("exempt") is None:
            spec["exempt"] = {}
        for key, shares in (("exempt", 0), ("limited", 30)):
            level = spec.get(key)
            if level is None:
                continue
            for name, value in (("nominalConcurrencyShares", shares), ("lendablePercent", 0)):
                if level.get(name) is None:
                    level[name] = value
        queuing = ((spec.get("limited") or {}).get("limitResponse") or {}).get("queuing")
        if queuing is not None:
            for name, value in (("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)):
                if not queuing.get(name):
                    queuing[name] = value

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        spec, name = obj["spec"], obj["metadata"].get("name") or ""
        if _ZERO_SHARES in (obj["metadata"].get("annotations") or {}):  # only v1beta3 has a use for it
            errs.append(field.forbidden("metadata.annotations", f"annotation '{_ZERO_SHARES}' is forbidden"))
        _level(errs, name, spec)
        fixed = _fixed("prioritylevelconfigurations").get(name)
        if fixed is not None:
            given, except_for = spec, ""
            if name == _EXEMPT:
                given, except_for = {**spec, "exempt": fixed.get("exempt")}, " except the 'spec.exempt' field"
            if not equal(given, fixed):
                problem = f"spec of '{name}'{except_for} must equal the fixed value"
                errs.append(field.invalid("spec", shown("PriorityLevelConfigurationSpec", spec), problem))
        _conditions(errs, obj)
        return errs

    def validate_status_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        return self.validate(call, new)


def _level(errs: Errors, name: str, spec: Object) -> None:
    kind, exempt, limited = spec.get("type") or "", spec.get("exempt"), spec.get("limited")
    if (name == _EXEMPT) != (kind == "Exempt"):
        errs.append(field.invalid("spec.type", kind, "must be 'Exempt' if and only if `name` is 'exempt'"))
    if kind == "Exempt":
        if limited is not None:
            errs.append(field.forbidden("spec.limited", "must be nil if the type is not Limited"))
        _shares(errs, "spec.exempt", exempt or {})
        _lendable(errs, "spec.exempt", exempt or {})
    elif kind == "Limited":
        if exempt is not None:
            errs.append(field.forbidden("spec.exempt", "must be nil if the type is Limited"))
        if limited is None:
            errs.append(field.required("spec.limited", "must not be empty when type is Limited"))
        else:
            _limited(errs, "spec.limited", limited)
    else:
        errs.append(field.not_supported("spec.type", kind, ("Exempt", "Limited")))


def _shares(errs: Errors, path: str, level: Object) -> None:
    shares = level.get("nominalConcurrencyShares") or 0
    if shares < 0:
        errs.append(field.invalid(f"{path}.nominalConcurrencyShares", shares, _NOT_NEGATIVE))


def _lendable(errs: Errors, path: str, level: Object) -> None:
    percent = level.get("lendablePercent")
    if percent is not None and not 0 <= percent <= 100:
        errs.append(field.invalid(f"{path}.lendablePercent", percent, field.between(0, 100)))


def _limited(errs: Errors, path: str, level: Object) -> None:
    _shares(errs, path, level)
    response = level.get("limitResponse") or {}
    kind, queuing, at = response.get("type") or "", response.get("queuing"), f"{path}.limitResponse.queuing"
    if kind == "Reject":
        if queuing is not None:
            errs.append(field.forbidden(at, "must be nil if limited.limitResponse.type is not Limited"))
    elif kind == "Queue":
        if queuing is None:
            errs.append(field.required(at, "must not be empty if limited.limitResponse.type is Limited"))
        else:
            _queuing(errs, at, queuing)
    else:
        errs.append(field.not_supported(f"{path}.limitResponse.type", kind, ("Queue", "Reject")))
    _lendable(errs, path, level)
    borrowing = level.get("borrowingLimitPercent")
    if borrowing is not None and borrowing < 0:
        problem = "if specified, must be a non-negative integer"
        errs.append(field.invalid(f"{path}.borrowingLimitPercent", borrowing, problem))


def _queuing(errs: Errors, path: str, queuing: Object) -> None:
    length, queues, hand = (queuing[key] for key in ("queueLengthLimit", "queues", "handSize"))
    if length <= 0:
        errs.append(field.invalid(f"{path}.queueLengthLimit", length, "must be positive"))
    if queues <= 0:
        errs.append(field.invalid(f"{path}.queues", queues, "must be positive"))
    elif queues > _QUEUES_MAX:
        errs.append(field.invalid(f"{path}.queues", queues, f"must not be greater than {_QUEUES_MAX}"))
    at = f"{path}.handSize"
    if hand <= 0:
        errs.append(field.invalid(at, hand, "must be positive"))
    elif hand > queues:
        errs.append(field.invalid(at, hand, f"should not be greater than queues ({queues})"))
    elif math.ceil(math.log2(queues) * hand) > _HASH_BITS_MAX:
        problem = (
            f"required entropy bits of deckSize {queues} and handSize {hand} should not be greater than "
            f"{_HASH_BITS_MAX}"
        )
        errs.append(field.invalid(at, hand, problem))


STRATEGIES: dict[tuple[str, str], Strategy] = {
    (_GROUP, "flowschemas"): FlowSchemaStrategy(),
    (_GROUP, "prioritylevelconfigurations"): PriorityLevelConfigurationStrategy(),
}

"""Which requests a webhook or policy is for: rules, selectors, equivalent resources and match conditions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastkube import errors
from fastkube.api import selectors

if TYPE_CHECKING:
    from fastkube.api.catalog import Catalog
    from fastkube.cel import Program
    from fastkube.registry.strategy import Object
    from fastkube.server.admission.lookup import Mirror
    from fastkube.server.admission.plugin import Identity
    from fastkube.server.admission.requests import Attempt, Target


class Matcher:
    """What is matched once for all webhooks and policies alike: of a webhook, or of the matchResources of a policy.

    `rules` of a webhook are all that it is for; a policy or binding without `resourceRules` is for everything.
    """

    def __init__(self, told: Object, catalog: Catalog, namespaces: Mirror) -> None:
        self._is_open = "rules" not in told and not told.get("resourceRules")
        self._rules: list[Object] = told.get("rules") or told.get("resourceRules") or []
        self._excluded: list[Object] = told.get("excludeResourceRules") or []
        self._equivalent = told.get("matchPolicy") != "Exact"
        self._of_namespace = selectors.from_object(told.get("namespaceSelector") or {})
        self._of_object = selectors.from_object(told.get("objectSelector") or {})
        self._catalog = catalog
        self._namespaces = namespaces

    def may_match(self, identity: Identity, operation: str) -> bool:
        """Whether any request for this resource and operation may match, whatever its version."""
        known = [(identity[0], identity[1])]
        if self._equivalent:
            known += [(group, resource) for group, resource in _TWINS.get(known[0], ())]
        return any(
            _has(rule.get("operations"), operation)
            and any(_has(rule.get("apiGroups"), group) and _names(rule, name, identity[2]) for group, name in known)
            for rule in self._rules
        )

    def match(self, attempt: Attempt) -> Target | None:
        """As what the request matches. Raises 404 when its namespace is asked about and is not there."""
        if not self._object_selected(attempt):
            return None
        target = attempt.target if self._is_open else self._target(self._rules, attempt)
        if target is None or (self._excluded and self._target(self._excluded, attempt) is not None):
            return None
        return target if self._namespace_selected(attempt) else None

    def _target(self, rules: Sequence[Object], attempt: Attempt) -> Target | None:
        own = attempt.target
        for rule in rules:
            if _rule_matches(rule, attempt, own):
                return own
        if not self._equivalent:
            return None
        others = list(self._equivalents(attempt))
        return next((target for rule in rules for target in others if _rule_matches(rule, attempt, target)), None)

    def _equivalents(self, attempt: Attempt) -> Iterator[Target]:
        """The other versions and groups in which the same objects are served."""
        own, rtype = attempt.target, attempt.call.rtype
        is_own_kind = own.kind == rtype.kind
        twins = (self._catalog.get(*twin) for twin in _TWINS.get((rtype.group, rtype.resource), ()))
        for other in filter(None, (rtype, *twins)):
            for version in other.versions:
                target = own._replace(group=other.group, version=version, resource=other.resource)
                if is_own_kind:
                    target = target._replace(kind_group=other.group, kind_version=version, kind=other.kind)
                if target != own:
                    yield target

    def _object_selected(self, attempt: Attempt) -> bool:
        if not self._of_object:
            return True
        known = (each.get("metadata") or {} for each in (attempt.obj, attempt.old) if each is not None)
        return any(self._of_object.matches(metadata.get("labels") or {}) for metadata in known)

    def _namespace_selected(self, attempt: Attempt) -> bool:
        if not self._of_namespace or (not attempt.namespace and not attempt.is_namespace):
            return True
        if attempt.is_namespace and attempt.obj is not None:
            return self._of_namespace.matches(attempt.obj["metadata"].get("labels") or {})
        namespace = attempt.old if attempt.is_namespace else self._namespaces.get("", attempt.namespace)
        if namespace is None:
            raise errors.not_found("", "namespaces", attempt.namespace)
        return self._of_namespace.matches(namespace["metadata"].get("labels") or {})


_TWINS = {
    ("", "events"): (("events.k8s.io", "events"),),
    ("events.k8s.io", "events"): (("", "events"),),
}
"""Resources of two groups that share their objects."""


def _has(values: Sequence[str] | None, wanted: str) -> bool:
    return values is not None and ("*" in values or wanted in values)


def _names(rule: Object, resource: str, subresource: str) -> bool:
    for told in rule.get("resources") or ():
        name, _, sub = told.partition("/")
        if name in ("*", resource) and sub in ("*", subresource):
            return True
    return False


def _rule_matches(rule: Object, attempt: Attempt, target: Target) -> bool:
    if not _has(rule.get("operations"), attempt.operation):
        return False
    if not (_has(rule.get("apiGroups"), target.group) and _has(rule.get("apiVersions"), target.version)):
        return False
    if not _names(rule, target.resource, attempt.call.subresource):
        return False
    names = rule.get("resourceNames")
    if names and attempt.name not in names:
        return False
    scope = rule.get("scope") or "*"
    is_namespaced = bool(attempt.namespace) and not attempt.is_namespace
    return scope == "*" or (scope == "Namespaced") == is_namespaced


# ---------------------------------------------------------------- match conditions


class ConditionsFailed(Exception):
    """A match condition could not be worked out, and none has said no."""


class Conditions:
    """The match conditions of a webhook or policy. `is_lenient`: one that fails is taken for a no."""

    def __init__(self, programs: Sequence[Program], *, is_lenient: bool) -> None:
        self._programs = programs
        self._is_lenient = is_lenient

    def hold(self, bindings: Mapping[str, Any]) -> bool:
        """Raises ConditionsFailed."""
        from fastkube.cel import EvalError

        problems: list[str] = []
        for program in self._programs:
            try:
                if program.evaluate(bindings) is False:
                    return False
            except EvalError as problem:
                problems.append(f"expression '{program.text}' resulted in error: {problem}")
        if not problems:
            return True
        if self._is_lenient:
            return False
        unique = list(dict.fromkeys(problems))
        raise ConditionsFailed(unique[0] if len(unique) == 1 else f"[{', '.join(unique)}]")

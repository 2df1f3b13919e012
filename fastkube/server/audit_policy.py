"""Which requests are audited, how thoroughly, and at which stages: an audit.k8s.io/v1 Policy.

The first rule that matches a request decides its level; what none matches is not audited.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fastkube.api.field import quote

if TYPE_CHECKING:
    from fastkube.registry.strategy import UserInfo
    from fastkube.server.request import Attributes

Object = dict[str, Any]

LEVELS = ("None", "Metadata", "Request", "RequestResponse")
STAGES = ("RequestReceived", "ResponseStarted", "ResponseComplete", "Panic")

_RULE_FIELDS = frozenset(
    (
        "level", "users", "userGroups", "verbs", "resources", "namespaces", "nonResourceURLs", "omitStages",
        "omitManagedFields",
    )
)  # fmt: skip


class Verdict(NamedTuple):
    """`level` is an index of LEVELS."""

    level: int
    omitted: frozenset[str]
    omit_managed_fields: bool


NOTHING = Verdict(0, frozenset(), False)


class Policy:
    """Raises ValueError, naming the field, for a document that is no policy."""

    def __init__(self, document: Object) -> None:
        if document.get("kind") != "Policy" or document.get("apiVersion") != "audit.k8s.io/v1":
            raise ValueError("expected a Policy of audit.k8s.io/v1")
        _check_stages(document.get("omitStages"), "omitStages")
        rules = document.get("rules") or []
        if not rules:
            raise ValueError("rules: Required value: a policy without rules audits nothing")
        omitted = frozenset(document.get("omitStages") or ())
        plain = bool(document.get("omitManagedFields"))
        self._rules = [_rule(rule, f"rules[{number}]", omitted, plain) for number, rule in enumerate(rules)]

    @classmethod
    def load(cls, path: str) -> Policy:
        import yaml

        try:
            document = yaml.safe_load(Path(path).read_text())
        except yaml.YAMLError as problem:
            raise ValueError(f"audit-policy-file: {path}: {problem}") from None
        try:
            return cls(document if isinstance(document, dict) else {})
        except ValueError as problem:
            raise ValueError(f"audit-policy-file: {path}: {problem}") from None

    def verdict(self, user: UserInfo, attributes: Attributes) -> Verdict:
        for rule, verdict in self._rules:
            if _matches(rule, user, attributes):
                return verdict
        return NOTHING


def _rule(rule: Object, path: str, omitted: frozenset[str], plain: bool) -> tuple[Object, Verdict]:
    unknown = sorted(set(rule) - _RULE_FIELDS)
    if unknown:
        raise ValueError(f'{path}: unknown field "{unknown[0]}"')
    level = rule.get("level") or ""
    if level not in LEVELS:
        known = ", ".join(map(quote, LEVELS))
        raise ValueError(f"{path}.level: Unsupported value: {quote(level)}: supported values: {known}")
    _check_stages(rule.get("omitStages"), f"{path}.omitStages")
    urls = rule.get("nonResourceURLs") or []
    if urls and (rule.get("resources") or rule.get("namespaces")):
        problem = "rules cannot apply to both regular resources and non-resource URLs"
        raise ValueError(f"{path}.nonResourceURLs: Invalid value: {urls}: {problem}")
    for number, url in enumerate(urls):
        if url != "*" and (not url.startswith("/") or "*" in url[:-1]):
            problem = "non-resource URLs must begin with a '/' and may only have a trailing '*'"
            raise ValueError(f"{path}.nonResourceURLs[{number}]: Invalid value: {quote(url)}: {problem}")
    for number, group in enumerate(rule.get("resources") or ()):
        if group.get("resourceNames") and not group.get("resources"):
            problem = "using resourceNames requires at least one resource"
            raise ValueError(f"{path}.resources[{number}].resourceNames: Invalid value: {problem}")
    omit = rule.get("omitManagedFields")
    omitted = omitted | frozenset(rule.get("omitStages") or ())
    return rule, Verdict(LEVELS.index(level), omitted, plain if omit is None else bool(omit))


def _check_stages(stages: list[str] | None, path: str) -> None:
    for number, stage in enumerate(stages or ()):
        if stage not in STAGES:
            raise ValueError(f"{path}[{number}]: Invalid value: {quote(stage)}: allowed stages are {','.join(STAGES)}")


def _matches(rule: Object, user: UserInfo, attributes: Attributes) -> bool:
    users, groups, verbs = rule.get("users"), rule.get("userGroups"), rule.get("verbs")
    if users and user.name not in users:
        return False
    if groups and not any(group in groups for group in user.groups):
        return False
    if verbs and attributes.verb not in verbs:
        return False
    if rule.get("namespaces") or rule.get("resources"):
        return attributes.is_resource and _matches_resource(rule, attributes)
    if rule.get("nonResourceURLs"):
        return not attributes.is_resource and any(
            _matches_path(url, attributes.path) for url in rule["nonResourceURLs"]
        )
    return True


def _matches_path(url: str, path: str) -> bool:
    return url in ("*", path) or (url.endswith("*") and path.startswith(url[:-1]))


def _matches_resource(rule: Object, attributes: Attributes) -> bool:
    namespaces = rule.get("namespaces")
    if namespaces and attributes.namespace not in namespaces:
        return False
    groups = rule.get("resources")
    if not groups:
        return True
    combined = attributes.resource
    if attributes.subresource:
        combined += f"/{attributes.subresource}"
    for entry in groups:
        if (entry.get("group") or "") != attributes.group:
            continue
        resources, names = entry.get("resources"), entry.get("resourceNames")
        if not resources:
            return True
        if names and attributes.name not in names:
            continue
        if any(_is_resource(wanted, combined, attributes.subresource) for wanted in resources):
            return True
    return False


def _is_resource(wanted: str, combined: str, subresource: str) -> bool:
    """`pods`, `pods/log`, `pods/*` (every subresource), `*/scale`, `*`."""
    if wanted == combined or wanted == "*":
        return True
    if wanted.endswith("/*") and subresource:
        return combined.startswith(wanted[:-1])
    return bool(subresource) and wanted == f"*/{subresource}"

"""Nobody gives what they do not have: roles and bindings may only grant what their writer holds.

Source: "Privilege escalation prevention and bootstrapping" of the Kubernetes documentation. Whoever may `escalate`
roles, or `bind` to the role, is exempt, and so is system:masters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fastkube import errors
from fastkube.api.field import quote
from fastkube.server.admission.plugin import CREATE, UPDATE, Identity, Plugin
from fastkube.server.authz import MASTERS
from fastkube.server.rbac import GROUP
from fastkube.server.request import Attributes

if TYPE_CHECKING:
    from fastkube.registry.strategy import Call
    from fastkube.server.authz import Authorizer

Object = dict[str, Any]

_ROLES = ("roles", "clusterroles")
_BINDINGS = ("rolebindings", "clusterrolebindings")


class EscalationGuard(Plugin):
    """In upstream a part of the registry of roles and bindings; here a validating plugin that is always on."""

    name = "RBACEscalation"
    validates = True

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    def handles(self, target: Identity, operation: str) -> bool:
        group, resource, subresource = target
        known = group == GROUP and resource in (*_ROLES, *_BINDINGS) and not subresource
        return known and operation in (CREATE, UPDATE) and self._authorizer.rbac is not None

    def validate(self, call: Call, obj: Object, old: Object | None) -> None:
        if MASTERS in call.user.groups:
            return
        if call.rtype.resource in _ROLES:
            self._check_role(call, obj, old)
        else:
            self._check_binding(call, obj, old)

    def _check_role(self, call: Call, obj: Object, old: Object | None) -> None:
        rules = obj.get("rules") or []
        if old is not None and rules == (old.get("rules") or []):
            return
        name = obj["metadata"].get("name") or ""
        if not self._may(call, "escalate", call.rtype.resource, name):
            self._check_held(call, name, rules)

    def _check_binding(self, call: Call, obj: Object, old: Object | None) -> None:
        if old is not None and all(obj.get(key) == old.get(key) for key in ("roleRef", "subjects")):
            return
        reference = obj["roleRef"]
        resource = "clusterroles" if reference["kind"] == "ClusterRole" else "roles"
        if self._may(call, "bind", resource, reference["name"]):
            return
        rbac = self._authorizer.rbac
        assert rbac is not None  # `handles` has asked
        rules = rbac.role_rules(reference["kind"], call.namespace, reference["name"])
        if rules is None:
            raise errors.not_found(GROUP, call.rtype.resource, reference["name"])
        self._check_held(call, obj["metadata"].get("name") or "", rules)

    def _may(self, call: Call, verb: str, resource: str, name: str) -> bool:
        return self._authorizer.allows(call.user, Attributes(verb, GROUP, resource, "", call.namespace, name))

    def _check_held(self, call: Call, name: str, wanted: list[Object]) -> None:
        rbac = self._authorizer.rbac
        assert rbac is not None
        missing = not_covered(rbac.rules_for(call.user, call.namespace), wanted)
        if missing:
            groups = " ".join(map(quote, call.user.groups))
            told = "\n".join(sorted(map(show_rule, missing)))
            why = f"user {quote(call.user.name)} (groups=[{groups}]) is attempting to grant RBAC permissions not"
            raise errors.forbidden(GROUP, call.rtype.resource, name, f"{why} currently held:\n{told}")


def not_covered(held: list[Object], wanted: list[Object]) -> list[Object]:
    """The part of the wanted rules that no held rule covers, one verb after the other gathered again."""
    missing: dict[tuple[str, ...], Object] = {}
    for rule in wanted:
        for single in _single(rule):
            if any(_covers(owned, single) for owned in held):
                continue
            key = tuple(str(single.get(part)) for part in ("apiGroups", "resources", "resourceNames"))
            if "nonResourceURLs" in single:
                key = (*single["nonResourceURLs"], *single["verbs"])
            known = missing.setdefault(key, single)
            if known is not single and single["verbs"][0] not in known["verbs"]:
                known["verbs"] += single["verbs"]
    return list(missing.values())


def _single(rule: Object) -> Iterable[Object]:
    """The rule as rules of one group, resource, name and verb, or of one path and verb."""
    for group in rule.get("apiGroups") or ():
        for resource in rule.get("resources") or ():
            for verb in rule.get("verbs") or ():
                one: Object = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
                if not rule.get("resourceNames"):
                    yield one
                for name in rule.get("resourceNames") or ():
                    yield {**one, "verbs": [verb], "resourceNames": [name]}
    for path in rule.get("nonResourceURLs") or ():
        for verb in rule.get("verbs") or ():
            yield {"nonResourceURLs": [path], "verbs": [verb]}


def _covers(owned: Object, single: Object) -> bool:
    if not _has(owned.get("verbs"), single["verbs"][0]):
        return False
    if "nonResourceURLs" in single:
        return any(_path_covers(path, single["nonResourceURLs"][0]) for path in owned.get("nonResourceURLs") or ())
    if not _has(owned.get("apiGroups"), single["apiGroups"][0]):
        return False
    resource = single["resources"][0]
    resources = owned.get("resources") or ()
    subresource = resource.partition("/")[2]
    if not (_has(resources, resource) or (subresource and f"*/{subresource}" in resources)):
        return False
    names = owned.get("resourceNames")
    return not names or bool(single.get("resourceNames") and single["resourceNames"][0] in names)


def _has(values: Iterable[str] | None, value: str) -> bool:
    return values is not None and ("*" in values or value in values)


def _path_covers(owned: str, wanted: str) -> bool:
    return owned in ("*", wanted) or (owned.endswith("*") and wanted.startswith(owned.rstrip("*")))


_SHOWN = (
    ("APIGroups", "apiGroups"),
    ("Resources", "resources"),
    ("NonResourceURLs", "nonResourceURLs"),
    ("ResourceNames", "resourceNames"),
    ("Verbs", "verbs"),
)


def show_rule(rule: Object) -> str:
    """The rule in upstream's short form."""
    parts = [f"{title}:[{' '.join(map(quote, rule[key]))}]" for title, key in _SHOWN if rule.get(key)]
    return "{" + ", ".join(parts) + "}"

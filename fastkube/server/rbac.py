"""Role-based access control: which rules a user has, compiled once, and the decisions kept.

Source: "Using RBAC Authorization" of the Kubernetes documentation.
Theory of operation:
  1. The index holds every role and binding of the store, and follows it by subscription: each commit's changes are in
     force before the write is answered.
  2. For a user (name and groups) the rules of all their bindings are gathered at the first question: those of the
     cluster, and those of each namespace.
  3. A decision depends on (verb, group, resource, subresource, namespace) and, only for rules with resourceNames, on
     the name. So the verdict is kept by that key as True, or as the set of names that are allowed.
  4. Any change of a role or binding forgets all compiled rules and verdicts; changes are rare, questions are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack

from fastkube.registry.strategy import UserInfo

if TYPE_CHECKING:
    from fastkube.api.catalog import Catalog
    from fastkube.server.request import Attributes
    from fastkube.store import Event, Store, Subscription

GROUP = "rbac.authorization.k8s.io"
Object = dict[str, Any]

_USERS_MAX = 10_000
_VERDICTS_MAX = 4_096
"""Beyond these numbers everything kept is forgotten at once: simple, and rare."""

Verdict = bool | frozenset[str]
_NONE: frozenset[str] = frozenset()


class Rule:
    """One PolicyRule. A set that is None matches everything; `names` None means that any name will do."""

    __slots__ = ("groups", "names", "origin", "paths", "resources", "source", "verbs")

    def __init__(self, rule: Object, origin: str) -> None:
        self.source = rule
        self.origin = origin
        """Why a request that matches is allowed, in upstream's words."""
        self.verbs = _set(rule.get("verbs"))
        self.groups = _set(rule.get("apiGroups"))
        self.resources = _set(rule.get("resources"))
        self.names = frozenset(rule["resourceNames"]) if rule.get("resourceNames") else None
        self.paths: list[str] = rule.get("nonResourceURLs") or []

    def covers(self, attributes: Attributes) -> bool:
        """Whether the rule is about these attributes, names aside."""
        if self.verbs is not None and attributes.verb not in self.verbs:
            return False
        if not attributes.is_resource:
            return any(_path_matches(path, attributes.path) for path in self.paths)
        if self.groups is not None and attributes.group not in self.groups:
            return False
        if self.resources is None:
            return True
        subresource = attributes.subresource
        if not subresource:
            return attributes.resource in self.resources
        return f"{attributes.resource}/{subresource}" in self.resources or f"*/{subresource}" in self.resources


def _set(values: list[str] | None) -> frozenset[str] | None:
    return None if values and "*" in values else frozenset(values or ())


def _path_matches(pattern: str, path: str) -> bool:
    if pattern == "*" or pattern == path:
        return True
    return pattern.endswith("*") and path.startswith(pattern.rstrip("*"))


class _Binding(NamedTuple):
    """A RoleBinding or ClusterRoleBinding: subjects are ("User", name) or ("Group", name) and how they are told."""

    kind: str
    namespace: str
    name: str
    role_kind: str
    role: str
    subjects: dict[tuple[str, str], str]

    def origin(self, subject: str) -> str:
        where = f"{self.name}/{self.namespace}" if self.namespace else self.name
        return f'RBAC: allowed by {self.kind} "{where}" of {self.role_kind} "{self.role}" to {subject}'


def _read_binding(kind: str, binding: Object) -> _Binding:
    metadata, reference = binding["metadata"], binding["roleRef"]
    namespace = metadata.get("namespace") or ""
    subjects: dict[tuple[str, str], str] = {}
    for subject in binding.get("subjects") or ():
        name = subject["name"]
        if subject["kind"] == "ServiceAccount":
            home = subject.get("namespace") or namespace
            subjects["User", f"system:serviceaccount:{home}:{name}"] = f'ServiceAccount "{name}/{home}"'
        elif subject["kind"] in ("User", "Group"):
            subjects[subject["kind"], name] = f'{subject["kind"]} "{name}"'
    return _Binding(kind, namespace, metadata["name"], reference["kind"], reference["name"], subjects)


class _UserRules:
    """What one user may do, gathered from all bindings; verdicts are kept."""

    __slots__ = ("cluster", "missing", "namespaced", "verdicts")

    def __init__(self) -> None:
        self.cluster: list[Rule] = []
        self.namespaced: dict[str, list[Rule]] = {}
        self.missing: dict[str, list[str]] = {}
        """Complaints about bindings to roles that are not there, by namespace ("" for the cluster)."""
        self.verdicts: dict[Any, Verdict] = {}

    def rules(self, namespace: str) -> Iterator[Rule]:
        yield from self.cluster
        if namespace:
            yield from self.namespaced.get(namespace, ())

    def verdict(self, attributes: Attributes) -> Verdict:
        names: frozenset[str] = _NONE
        for rule in self.rules(attributes.namespace):
            if rule.covers(attributes):
                if rule.names is None or not attributes.is_resource:
                    return True
                names |= rule.names
        return names


class Rbac:
    """The authorizer, and the rule resolver for reviews and escalation checks."""

    def __init__(self, store: Store, catalog: Catalog) -> None:
        self._store = store
        self.generation = 0
        """Rises with every change of a role or binding."""
        self._roles: dict[tuple[str, str], list[Object]] = {}
        self._cluster_bindings: dict[str, _Binding] = {}
        self._bindings: dict[tuple[str, str], _Binding] = {}
        self._users: dict[tuple[str, tuple[str, ...]], _UserRules] = {}
        self._subscription: Subscription | None = None
        self._resources = {
            rtype.key_prefix: rtype.kind for rtype in catalog.all() if rtype.group == GROUP and rtype.persisted
        }
        self._start = f"/registry/{GROUP}/".encode()
        self._end = f"/registry/{GROUP}0".encode()

    def start(self) -> None:
        """Reads what is stored and follows it from then on."""
        self._subscription = self._store.subscribe(self._start, self._end, self._on_commit)
        for item in self._store.scan(self._start, self._end):
            self._put(item.key, item.value)

    def stop(self) -> None:
        if self._subscription is not None:
            self._subscription.cancel()
            self._subscription = None

    # ---------------------------------------------------------------- decisions

    def allows(self, user: UserInfo, attributes: Attributes) -> bool:
        verdict = self._verdict(user, attributes)
        return verdict is True or (verdict is not _NONE and attributes.name in verdict)  # type: ignore[operator]

    def allows_all(self, user: UserInfo, attributes: Attributes) -> bool:
        """As `allows`, whatever the name."""
        return self._verdict(user, attributes) is True

    def _verdict(self, user: UserInfo, attributes: Attributes) -> Verdict:
        rules = self._users.get((user.name, user.groups)) or self._compile(user)
        key = attributes.key if attributes.is_resource else (attributes.verb, attributes.path)
        verdict = rules.verdicts.get(key)
        if verdict is None:
            verdict = rules.verdict(attributes)
            if len(rules.verdicts) >= _VERDICTS_MAX:
                rules.verdicts.clear()
            rules.verdicts[key] = verdict
        return verdict

    def reason(self, user: UserInfo, attributes: Attributes) -> str:
        """Which binding allows it, or what is wrong with the bindings that might have; "" when there is none."""
        rules = self._users.get((user.name, user.groups)) or self._compile(user)
        for rule in rules.rules(attributes.namespace):
            named = rule.names is None or not attributes.is_resource or attributes.name in rule.names
            if named and rule.covers(attributes):
                return rule.origin
        missing = list(rules.missing.get("", ()))
        if attributes.namespace:
            missing += rules.missing.get(attributes.namespace, ())
        if not missing:
            return ""
        told = list(dict.fromkeys(missing))
        return f"RBAC: {told[0]}" if len(told) == 1 else f"RBAC: [{', '.join(told)}]"

    def rules_for(self, user: UserInfo, namespace: str) -> list[Object]:
        """Every PolicyRule the user has there, as they are written in the roles."""
        rules = self._users.get((user.name, user.groups)) or self._compile(user)
        return [rule.source for rule in rules.rules(namespace)]

    def role_rules(self, kind: str, namespace: str, name: str) -> list[Object] | None:
        """The rules of a Role or ClusterRole; None when there is no such role."""
        return self._roles.get(("" if kind == "ClusterRole" else namespace, name))

    def _compile(self, user: UserInfo) -> _UserRules:
        compiled = _UserRules()
        subjects = [("User", user.name), *(("Group", group) for group in user.groups)]
        for binding in self._cluster_bindings.values():
            self._gather(binding, subjects, compiled)
        for binding in self._bindings.values():
            self._gather(binding, subjects, compiled)
        if len(self._users) >= _USERS_MAX:
            self._users.clear()
        self._users[user.name, user.groups] = compiled
        return compiled

    def _gather(self, binding: _Binding, subjects: Iterable[tuple[str, str]], compiled: _UserRules) -> None:
        told = next((binding.subjects[subject] for subject in subjects if subject in binding.subjects), None)
        if told is None:
            return
        rules = self.role_rules(binding.role_kind, binding.namespace, binding.role)
        if rules is None:
            kind = "clusterrole" if binding.role_kind == "ClusterRole" else "role"
            complaint = f'{kind}.{GROUP} "{binding.role}" not found'
            compiled.missing.setdefault(binding.namespace, []).append(complaint)
            return
        into = compiled.namespaced.setdefault(binding.namespace, []) if binding.namespace else compiled.cluster
        origin = binding.origin(told)
        into.extend(Rule(rule, origin) for rule in rules)

    # ---------------------------------------------------------------- following the store

    def _on_commit(self, events: list[Event], revision: int) -> None:
        if not events:
            return
        for event in events:
            if event.type == 0:
                self._put(event.key, event.value)
            else:
                self._delete(event.key)
        self._users.clear()
        self.generation += 1

    def _kind_of(self, key: bytes) -> str:
        return self._resources.get(key[: key.index(b"/", len(self._start)) + 1], "")

    def _put(self, key: bytes, value: bytes) -> None:
        obj = msgpack.unpackb(value)
        metadata = obj["metadata"]
        name, namespace = metadata["name"], metadata.get("namespace") or ""
        kind = self._kind_of(key)
        if kind in ("Role", "ClusterRole"):
            self._roles[namespace, name] = obj.get("rules") or []
        elif kind == "ClusterRoleBinding":
            self._cluster_bindings[name] = _read_binding(kind, obj)
        elif kind == "RoleBinding":
            self._bindings[namespace, name] = _read_binding(kind, obj)

    def _delete(self, key: bytes) -> None:
        kind = self._kind_of(key)
        namespace, _, name = key[key.index(b"/", len(self._start)) + 1 :].decode().rpartition("/")
        if kind in ("Role", "ClusterRole"):
            self._roles.pop((namespace, name), None)
        elif kind == "ClusterRoleBinding":
            self._cluster_bindings.pop(name, None)
        elif kind == "RoleBinding":
            self._bindings.pop((namespace, name), None)

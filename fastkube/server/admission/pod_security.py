"""PodSecurity: what Pods of a namespace may do, by the namespace's labels.

    pod-security.kubernetes.io/enforce   Pods that violate this level are refused
    pod-security.kubernetes.io/warn      violations, also of Pod templates, are told to the client
    pod-security.kubernetes.io/audit     violations are annotations of the request's audit event
    ...-version                          the version of the policy (v1.22, or latest) for each of them

Without a label everything is allowed; where only `enforce` is given, `warn` is the same. Namespaces whose labels cannot
be read are refused; when a stricter level is set, the client is told which Pods there are violate it already.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import msgpack

from fastkube import errors
from fastkube.api import field
from fastkube.api.names import dns1123_label, dns1123_subdomain
from fastkube.errors import Cause
from fastkube.server.admission.configuration import Configurations, only
from fastkube.server.admission.plugin import CREATE, UPDATE, Identity, Plugin, forbid
from fastkube.server.admission.pod_security_checks import LATEST, Finding, checks_of

if TYPE_CHECKING:
    from fastkube.registry.strategy import Call, Object
    from fastkube.server.admission.lookup import Lookups

_PREFIX = "pod-security.kubernetes.io/"
_LEVELS = ("privileged", "baseline", "restricted")
_KIND = ("PodSecurityConfiguration", "pod-security.admission.config.k8s.io", ("v1", "v1beta1", "v1alpha1"))
_PODS_MAX = 3000
"""Existing Pods that are looked at when a namespace gets a new level."""

_NAMESPACE: Identity = ("", "namespaces", "")
_POD: Identity = ("", "pods", "")
_EPHEMERAL: Identity = ("", "pods", "ephemeralcontainers")
_SECCOMP_ANNOTATION = "seccomp.security.alpha.kubernetes.io/pod"

_TEMPLATES: dict[Identity, tuple[str, ...]] = {
    ("", "podtemplates", ""): ("template",),
    ("", "replicationcontrollers", ""): ("spec", "template"),
    ("apps", "daemonsets", ""): ("spec", "template"),
    ("apps", "deployments", ""): ("spec", "template"),
    ("apps", "replicasets", ""): ("spec", "template"),
    ("apps", "statefulsets", ""): ("spec", "template"),
    ("batch", "cronjobs", ""): ("spec", "jobTemplate", "spec", "template"),
    ("batch", "jobs", ""): ("spec", "template"),
}
"""Where each kind keeps the template of its Pods."""

_LEVEL_PROBLEM = f"must be one of {', '.join(_LEVELS)}"
_VERSION_PROBLEM = 'must be "latest" or "v1.x"'
_is_version = re.compile(r"v1\.(0|[1-9][0-9]{0,5})", re.ASCII).fullmatch


class Level(NamedTuple):
    """One level of one version of the policies."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"

    def findings(self, metadata: Object, spec: Object) -> list[Finding]:
        minor = LATEST if self.version == "latest" else min(int(self.version[3:]), LATEST)
        found = (check(metadata, spec) for check in checks_of(self.name, minor))
        return [finding for finding in found if finding is not None]


class _Policy(NamedTuple):
    enforce: Level
    audit: Level
    warn: Level
    faults: tuple[Cause, ...]


_OPEN = Level("privileged", "latest")
_FREE = _Policy(_OPEN, _OPEN, _OPEN, ())


class Exemptions(NamedTuple):
    """Whom the policies are not for."""

    usernames: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    runtime_classes: frozenset[str] = frozenset()

    def of(self, call: Call) -> str:
        """Why a request is exempt, before its Pod is looked at; "" if it is not."""
        if call.namespace in self.namespaces:
            return "namespace"
        return "user" if call.user.name in self.usernames else ""


@lru_cache(maxsize=256)
def _parse(told: tuple[tuple[str, str], ...], defaults: _Policy) -> _Policy:
    labels = dict(told)
    faults: list[Cause] = []
    levels: dict[str, Level] = {}
    for mode, default in (("enforce", defaults.enforce), ("audit", defaults.audit), ("warn", defaults.warn)):
        name, version = labels.get(_PREFIX + mode, default.name), labels.get(f"{_PREFIX}{mode}-version")
        if name not in _LEVELS:
            faults.append(_fault(_PREFIX + mode, name, _LEVEL_PROBLEM))
            name = "restricted" if mode == "enforce" else "privileged"
        if version is not None and version != "latest" and not _is_version(version):
            faults.append(_fault(f"{_PREFIX}{mode}-version", version, _VERSION_PROBLEM))
            version = "latest"
        levels[mode] = Level(name, version or default.version)
    enforce, warn = levels["enforce"], levels["warn"]
    stricter = _LEVELS.index(enforce.name) > _LEVELS.index(warn.name)
    if _PREFIX + "warn" not in labels and labels.get(_PREFIX + "enforce") in _LEVELS and stricter:
        warn = Level(enforce.name, warn.version if f"{_PREFIX}warn-version" in labels else enforce.version)
    return _Policy(enforce, levels["audit"], warn, tuple(faults))


def _fault(label: str, value: str, problem: str) -> Cause:
    return field.invalid(f"metadata.labels[{label}]", value, problem)


class PodSecurity(Plugin):
    name = "PodSecurity"
    validates = True
    by_shape = True

    def __init__(self, lookups: Lookups, configurations: Configurations) -> None:
        """Raises ValueError for a configuration that cannot be."""
        self._lookups = lookups
        document = configurations.of(self.name, *_KIND)
        self._defaults, self._exempt = _configured(document) if document is not None else (_FREE, Exemptions())

    def by_more(self, namespace: str) -> bool:
        """Users may be exempt."""
        return bool(self._exempt.usernames)

    def _policy_of(self, namespace: Object) -> _Policy:
        """What the namespace's labels say; most namespaces say nothing."""
        labels = namespace["metadata"].get("labels") or {}
        told = tuple((key, value) for key, value in labels.items() if key.startswith(_PREFIX))
        return _parse(told, self._defaults) if told else self._defaults

    def handles(self, target: Identity, operation: str) -> bool:
        if operation not in (CREATE, UPDATE):
            return False
        return target in (_NAMESPACE, _POD, _EPHEMERAL) or target in _TEMPLATES

    def validate(self, call: Call, obj: Object, old: Object | None) -> None:
        if call.rtype.resource == "namespaces":
            self._check_namespace(call, obj, old)
            return
        exempt = self._exempt.of(call)
        if exempt:
            _tell_exempt(call, exempt)
            return
        namespace = self._lookups.namespaces.get("", call.namespace)
        policy = self._policy_of(namespace) if namespace is not None else self._defaults
        if call.annotations is not None and call.rtype.resource == "pods":
            call.annotations[_PREFIX + "enforce-policy"] = str(policy.enforce)
        if policy is _FREE:
            return
        if call.rtype.resource == "pods":
            if (old is None or _matters(obj, old)) and not self._is_exempt_class(call, obj["spec"]):
                _check_pod(call, obj, policy)
            return
        template = _template_of(obj, _TEMPLATES[call.rtype.group, call.rtype.resource, ""])
        if template is not None and not self._is_exempt_class(call, template["spec"]):
            _audit(call, policy, template.get("metadata") or {}, template["spec"])
            _warn(call, policy, template.get("metadata") or {}, template["spec"])

    def _is_exempt_class(self, call: Call, spec: Object) -> bool:
        if spec.get("runtimeClassName") not in self._exempt.runtime_classes:
            return False
        _tell_exempt(call, "runtimeClass")
        return True

    def _check_namespace(self, call: Call, obj: Object, old: Object | None) -> None:
        policy = self._policy_of(obj)
        before = self._policy_of(old) if old is not None else None
        if policy.faults and (before is None or policy.faults != before.faults):
            raise errors.invalid("", "Namespace", obj["metadata"]["name"], policy.faults)
        name = obj["metadata"]["name"]
        if before is None:
            if name in self._exempt.namespaces:
                self._warn_exempt(call, obj, policy)
            return
        if policy.enforce == before.enforce or policy.enforce.name == "privileged":
            return
        same_version = policy.enforce.version == before.enforce.version
        if same_version and _LEVELS.index(policy.enforce.name) < _LEVELS.index(before.enforce.name):
            return
        if name in self._exempt.namespaces:
            self._warn_exempt(call, obj, policy)
            return
        call.warnings += self._violations(name, policy.enforce)

    def _warn_exempt(self, call: Call, namespace: Object, policy: _Policy) -> None:
        """Labels that are without effect are told of."""
        levels = (("enforce", policy.enforce), ("audit", policy.audit), ("warn", policy.warn))
        if all(level.name == "privileged" for _, level in levels) or policy[:3] == self._defaults[:3]:
            return
        labels = namespace["metadata"].get("labels") or {}
        told = ", ".join(
            f"{mode}={level}"
            for mode, level in levels
            if level.name != "privileged" and (_PREFIX + mode in labels or f"{_PREFIX}{mode}-version" in labels)
        )
        name = field.quote(namespace["metadata"]["name"])
        call.warnings.append(f"namespace {name} is exempt from Pod Security, and the policy ({told}) will be ignored")

    def _violations(self, namespace: str, level: Level) -> list[str]:
        """Warnings about the Pods that are in the namespace already, alike ones together."""
        rtype = self._lookups.catalog.get("", "pods")
        assert rtype is not None
        start = rtype.key(namespace, "")
        found = self._lookups.store.range(start, start[:-1] + b"0", limit=_PODS_MAX)
        names: dict[str, list[str]] = {}
        for item in found.items:
            pod: Object = msgpack.unpackb(item.value)
            if pod["spec"].get("runtimeClassName") in self._exempt.runtime_classes:
                continue
            reasons = ", ".join(finding.reason for finding in level.findings(pod["metadata"], pod["spec"]))
            if reasons:
                names.setdefault(reasons, []).append(pod["metadata"]["name"])
        warnings = []
        if found.more:
            warnings.append(
                f"new PodSecurity enforce level only checked against the first {len(found.items)} of {found.count} "
                "existing pods"
            )
        if names:
            new = f'violate the new PodSecurity enforce level "{level}"'
            warnings.append(f'existing pods in namespace "{namespace}" {new}')
        return warnings + sorted(f"{_some(group)}: {reasons}" for reasons, group in names.items())


def _tell_exempt(call: Call, why: str) -> None:
    if call.annotations is not None:
        call.annotations[_PREFIX + "exempt"] = why


def _configured(document: Object) -> tuple[_Policy, Exemptions]:
    """A PodSecurityConfiguration; raises ValueError."""
    only(document, "", "defaults", "exemptions")
    told, exempt = document.get("defaults") or {}, document.get("exemptions") or {}
    modes = ("enforce", "audit", "warn")
    only(told, "defaults", *modes, *(f"{mode}-version" for mode in modes))
    only(exempt, "exemptions", "usernames", "namespaces", "runtimeClasses")
    faults: list[Cause] = []
    levels = []
    for mode in ("enforce", "warn", "audit"):
        name, version = str(told.get(mode) or "privileged"), str(told.get(f"{mode}-version") or "latest")
        if name not in _LEVELS:
            faults.append(field.invalid(f"defaults.{mode}", name, _LEVEL_PROBLEM))
        if version != "latest" and not _is_version(version):
            faults.append(field.invalid(f"defaults.{mode}-version", version, _VERSION_PROBLEM))
        levels.append(Level(name, version))
    found = Exemptions(
        _exempt_names(exempt, "usernames", lambda name: [] if name else ["username must not be empty"], faults),
        _exempt_names(exempt, "namespaces", dns1123_label, faults),
        _exempt_names(exempt, "runtimeClasses", dns1123_subdomain, faults),
    )
    if faults:
        problems = [f"{fault.field}: {fault.message}" for fault in faults]
        raise ValueError(problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")
    return _Policy(levels[0], levels[2], levels[1], ()), found


def _exempt_names(exempt: Object, key: str, check: Callable[[str], list[str]], faults: list[Cause]) -> frozenset[str]:
    names: set[str] = set()
    for number, told in enumerate(exempt.get(key) or ()):
        name, path = str(told), f"exemptions.{key}[{number}]"
        problems = check(name)
        if problems:
            faults.append(field.invalid(path, name, ", ".join(problems)))
        elif name in names:
            faults.append(field.duplicate(path, name))
        names.add(name)
    return frozenset(names)


def _some(names: list[str]) -> str:
    """`a (and 2 other pods)`."""
    others = len(names) - 1
    if not others:
        return names[0]
    return f"{min(names)} (and {others} other {'pod' if others == 1 else 'pods'})"


def _template_of(obj: Object, path: tuple[str, ...]) -> Object | None:
    found: Object | None = obj
    for key in path:
        found = (found or {}).get(key)
    return found


def _check_pod(call: Call, pod: Object, policy: _Policy) -> None:
    _audit(call, policy, pod["metadata"], pod["spec"])
    findings = policy.enforce.findings(pod["metadata"], pod["spec"])
    if findings:
        raise forbid(call, pod, f'violates PodSecurity "{policy.enforce}": {_told(findings)}')
    if policy.warn != policy.enforce:
        _warn(call, policy, pod["metadata"], pod["spec"])


def _audit(call: Call, policy: _Policy, metadata: Object, spec: Object) -> None:
    """Where the request is audited, its event tells of violations."""
    if call.annotations is None:
        return
    findings = policy.audit.findings(metadata, spec)
    if findings:
        told = f'would violate PodSecurity "{policy.audit}": {_told(findings)}'
        call.annotations[_PREFIX + "audit-violations"] = told


def _warn(call: Call, policy: _Policy, metadata: Object, spec: Object) -> None:
    findings = policy.warn.findings(metadata, spec)
    if findings:
        call.warnings.append(f'would violate PodSecurity "{policy.warn}": {_told(findings)}')


def _told(findings: list[Finding]) -> str:
    return ", ".join(f"{finding.reason} ({finding.detail})" for finding in findings)


def _matters(new: Object, old: Object) -> bool:
    """Whether an update changes anything that the checks look at: images, containers, seccomp."""
    now, was = new["metadata"].get("annotations") or {}, old["metadata"].get("annotations") or {}
    if now.get(_SECCOMP_ANNOTATION) != was.get(_SECCOMP_ANNOTATION):
        return True
    return list(_images(new)) != list(_images(old))


def _images(pod: Object) -> Iterator[tuple[str, str, str]]:
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for container in pod["spec"].get(key) or ():
            yield key, container["name"], container.get("image") or ""

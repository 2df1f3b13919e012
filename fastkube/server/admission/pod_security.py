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
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import msgpack

from fastkube import errors
from fastkube.api import field
from fastkube.errors import Cause
from fastkube.server.admission.plugin import CREATE, UPDATE, Identity, Plugin, forbid
from fastkube.server.admission.pod_security_checks import LATEST, Finding, checks_of

if TYPE_CHECKING:
    from fastkube.registry.strategy import Call, Object
    from fastkube.server.admission.lookup import Lookups

_PREFIX = "pod-security.kubernetes.io/"
_LEVELS = ("privileged", "baseline", "restricted")
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


def _policy_of(namespace: Object) -> _Policy:
    """What the namespace's labels say; most namespaces say nothing."""
    labels = namespace["metadata"].get("labels") or {}
    told = tuple((key, value) for key, value in labels.items() if key.startswith(_PREFIX))
    return _parse(told) if told else _FREE


@lru_cache(maxsize=256)
def _parse(told: tuple[tuple[str, str], ...]) -> _Policy:
    labels = dict(told)
    faults: list[Cause] = []
    levels: dict[str, Level] = {}
    for mode in ("enforce", "audit", "warn"):
        name, version = labels.get(_PREFIX + mode), labels.get(f"{_PREFIX}{mode}-version")
        level = name if name in _LEVELS else "privileged"
        if name is not None and name not in _LEVELS:
            faults.append(_fault(_PREFIX + mode, name, f"must be one of {', '.join(_LEVELS)}"))
            level = "restricted" if mode == "enforce" else "privileged"
        if version is not None and version != "latest" and not _is_version(version):
            faults.append(_fault(f"{_PREFIX}{mode}-version", version, 'must be "latest" or "v1.x"'))
            version = None
        levels[mode] = Level(level or "privileged", version or "latest")
    enforce, warn = levels["enforce"], levels["warn"]
    if _PREFIX + "warn" not in labels:
        warn = Level(enforce.name, warn.version if f"{_PREFIX}warn-version" in labels else enforce.version)
    return _Policy(enforce, levels["audit"], warn, tuple(faults))


def _fault(label: str, value: str, problem: str) -> Cause:
    return field.invalid(f"metadata.labels[{label}]", value, problem)


class PodSecurity(Plugin):
    name = "PodSecurity"
    validates = True
    by_shape = True

    def __init__(self, lookups: Lookups) -> None:
        self._lookups = lookups

    def handles(self, target: Identity, operation: str) -> bool:
        if operation not in (CREATE, UPDATE):
            return False
        return target in (_NAMESPACE, _POD, _EPHEMERAL) or target in _TEMPLATES

    def validate(self, call: Call, obj: Object, old: Object | None) -> None:
        if call.rtype.resource == "namespaces":
            self._check_namespace(call, obj, old)
            return
        namespace = self._lookups.namespaces.get("", call.namespace)
        policy = _policy_of(namespace) if namespace is not None else _FREE
        if call.annotations is not None and call.rtype.resource == "pods":
            call.annotations[_PREFIX + "enforce-policy"] = str(policy.enforce)
        if policy is _FREE:
            return
        if call.rtype.resource == "pods":
            if old is None or _matters(obj, old):
                _check_pod(call, obj, policy)
            return
        template = _template_of(obj, _TEMPLATES[call.rtype.group, call.rtype.resource, ""])
        if template is not None:
            _audit(call, policy, template.get("metadata") or {}, template["spec"])
            _warn(call, policy, template.get("metadata") or {}, template["spec"])

    def _check_namespace(self, call: Call, obj: Object, old: Object | None) -> None:
        policy = _policy_of(obj)
        before = _policy_of(old) if old is not None else None
        if policy.faults and (before is None or policy.faults != before.faults):
            raise errors.invalid("", "Namespace", obj["metadata"]["name"], policy.faults)
        if before is None or policy.enforce == before.enforce or policy.enforce.name == "privileged":
            return
        same_version = policy.enforce.version == before.enforce.version
        if same_version and _LEVELS.index(policy.enforce.name) < _LEVELS.index(before.enforce.name):
            return
        call.warnings += self._violations(obj["metadata"]["name"], policy.enforce)

    def _violations(self, namespace: str, level: Level) -> list[str]:
        """Warnings about the Pods that are in the namespace already, alike ones together."""
        rtype = self._lookups.catalog.get("", "pods")
        assert rtype is not None
        start = rtype.key(namespace, "")
        found = self._lookups.store.range(start, start[:-1] + b"0", limit=_PODS_MAX)
        names: dict[str, list[str]] = {}
        for item in found.items:
            pod: Object = msgpack.unpackb(item.value)
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

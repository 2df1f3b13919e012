"""Warnings about pods and pod templates: deprecated, doubtful or ineffective fields."""

from __future__ import annotations

from fastkube.api.field import quote
from fastkube.api.names import label_value
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.checks import Object
from fastkube.registry.strategies.claims import claim_warnings
from fastkube.registry.strategies.pod_containers import each
from fastkube.registry.strategies.pod_scheduling import PREFERRED, REQUIRED
from fastkube.registry.strategies.pod_security import APP_ARMOR, SECCOMP_CONTAINER, SECCOMP_POD
from fastkube.registry.strategies.volume_warnings import overlapping_paths

_UNIT = 1_000_000_000  # nanos

DEPRECATED_NODE_LABELS = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": 'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
    "failure-domain.beta.kubernetes.io/zone": 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
    "beta.kubernetes.io/instance-type": 'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
}
_DEPRECATED_ANNOTATIONS = {
    "scheduler.alpha.kubernetes.io/critical-pod": 'non-functional in v1.16+; use the "priorityClassName" field instead',
    "security.alpha.kubernetes.io/sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
    "security.alpha.kubernetes.io/unsafe-sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
}
DEPRECATED_VOLUMES = {
    "photonPersistentDisk": "photonPersistentDisk: deprecated in v1.11, non-functional in v1.16+",
    "gitRepo": "gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
    "scaleIO": "scaleIO: deprecated in v1.16, non-functional in v1.22+",
    "flocker": "flocker: deprecated in v1.22, non-functional in v1.25+",
    "storageos": "storageOS: deprecated in v1.22, non-functional in v1.25+",
    "quobyte": "quobyte: deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "glusterfs: deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "cephfs: deprecated in v1.28, non-functional in v1.31+",
    "rbd": "rbd: deprecated in v1.28, non-functional in v1.31+",
}
_NO_SECCOMP = 'non-functional in v1.27+; use the "seccompProfile" field instead'
APP_ARMOR_FIELD = 'deprecated since v1.30; use the "appArmorProfile" field instead'
_MATCHES_NOTHING = "a null labelSelector results in matching no pod"


def pod_warnings(path: str, metadata: Object, spec: Object) -> list[str]:
    """`path` leads to the template ("spec.template") and is "" for a Pod."""
    told: list[str] = []
    meta_path, spec_path = (f"{path}.metadata", f"{path}.spec") if path else ("metadata", "spec")
    _placement(told, spec_path, spec)
    annotations = metadata.get("annotations") or {}
    for key, message in _DEPRECATED_ANNOTATIONS.items():
        if key in annotations:
            told.append(f"{meta_path}.annotations[{key}]: {message}")
    if "volumes" in spec:
        _volumes(told, f"{spec_path}.volumes", spec["volumes"] or [])
    _lists(told, spec_path, spec)
    for name in ("memory", "ephemeral-storage"):
        _fraction(told, f"{spec_path}.overhead", spec.get("overhead"), name)
    if annotations:
        _profiles(told, meta_path, spec, annotations, is_template=bool(path))
    _containers(told, spec_path, spec)
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0:
        problem = "must be >= 0; negative values are invalid and will be treated as 1"
        told.append(f"{spec_path}.terminationGracePeriodSeconds: {problem}")
    if "affinity" in spec:
        _affinity(told, f"{spec_path}.affinity", spec["affinity"] or {})
    return told


# ---------------------------------------------------------------- placement


def _placement(told: list[str], path: str, spec: Object) -> None:
    told += [
        f"{path}.nodeSelector[{key}]: {DEPRECATED_NODE_LABELS[key]}"
        for key in spec.get("nodeSelector") or ()
        if key in DEPRECATED_NODE_LABELS
    ]
    node = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    told += node_selector_warnings(f"{path}.affinity.nodeAffinity.{REQUIRED}", node.get(REQUIRED))
    for number, term in enumerate(node.get(PREFERRED) or ()):
        where = f"{path}.affinity.nodeAffinity.{PREFERRED}[{number}].preference"
        node_term(told, where, term.get("preference") or {}, check_values=True)
    for number, constraint in enumerate(spec.get("topologySpreadConstraints") or ()):
        where = f"{path}.topologySpreadConstraints[{number}]"
        key = constraint.get("topologyKey") or ""
        if key in DEPRECATED_NODE_LABELS:
            told.append(f"{where}.topologyKey: {key} is {DEPRECATED_NODE_LABELS[key]}")
        if constraint.get("labelSelector") is None:
            told.append(f"{where}.labelSelector: {_MATCHES_NOTHING}")


def node_selector_warnings(path: str, selector: Object | None) -> list[str]:
    told: list[str] = []
    for number, term in enumerate((selector or {}).get("nodeSelectorTerms") or ()):
        node_term(told, f"{path}.nodeSelectorTerms[{number}]", term, check_values=False)
    return told


def node_term(told: list[str], path: str, term: Object, *, check_values: bool) -> None:
    for number, expression in enumerate(term.get("matchExpressions") or ()):
        where, key = f"{path}.matchExpressions[{number}]", expression.get("key") or ""
        if key in DEPRECATED_NODE_LABELS:
            told.append(f"{where}.key: {key} is {DEPRECATED_NODE_LABELS[key]}")
        for index, value in enumerate((expression.get("values") or ()) if check_values else ()):
            told += [f"{where}.values[{index}]: {value} is invalid, {fault}" for fault in label_value(value)]


def _affinity(told: list[str], path: str, affinity: Object) -> None:
    for kind in ("podAffinity", "podAntiAffinity"):
        terms = affinity.get(kind) or {}
        for number, term in enumerate(terms.get(REQUIRED) or ()):
            if term.get("labelSelector") is None:
                told.append(f"{path}.{kind}.{REQUIRED}[{number}].labelSelector: {_MATCHES_NOTHING}")
        for number, weighted in enumerate(terms.get(PREFERRED) or ()):
            if (weighted.get("podAffinityTerm") or {}).get("labelSelector") is None:
                where = f"{path}.{kind}.{PREFERRED}[{number}].podAffinityTerm.labelSelector"
                told.append(f"{where}: {_MATCHES_NOTHING}")


# ---------------------------------------------------------------- volumes


def _volumes(told: list[str], path: str, volumes: list[Object]) -> None:
    for number, volume in enumerate(volumes):
        told += [
            f"{path}[{number}].{message}" for key, message in DEPRECATED_VOLUMES.items() if volume.get(key) is not None
        ]
        template = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
        if template is not None:
            where = f"{path}[{number}].ephemeral.volumeClaimTemplate.spec"
            told += claim_warnings(where, template.get("spec") or {})
    told += overlapping_paths(volumes)


# ---------------------------------------------------------------- lists with repetitions


def _lists(told: list[str], path: str, spec: Object) -> None:
    aliases, secrets = spec.get("hostAliases") or (), spec.get("imagePullSecrets") or ()
    addresses = [alias.get("ip") or "" for alias in aliases]
    told += [
        f"{path}.hostAliases[{number}].ip: duplicate ip {quote(addresses[number])}" for number in _repeated(addresses)
    ]
    for number, address in enumerate(addresses):
        told += checks.ip_warnings(f"{path}.hostAliases[{number}].ip", address)
    names = [secret.get("name") or "" for secret in secrets]
    told += [
        f"{path}.imagePullSecrets[{number}].name: duplicate name {quote(names[number])}" for number in _repeated(names)
    ]
    for number, name in enumerate(names):
        if not name:
            told.append(f'{path}.imagePullSecrets[{number}].name: invalid empty name ""')
    for number, server in enumerate((spec.get("dnsConfig") or {}).get("nameservers") or ()):
        told += checks.ip_warnings(f"{path}.dnsConfig.nameservers[{number}]", server)


def _repeated(values: list[str]) -> list[int]:
    return [number for number, value in enumerate(values) if value in values[:number]]


# ---------------------------------------------------------------- containers


def _fraction(told: list[str], path: str, amounts: Object | None, name: str) -> None:
    amount = (amounts or {}).get(name)
    if amount is not None and checks.amount(amount) % _UNIT:
        told.append(f"{path}[{name}]: fractional byte value {quote(amount)} is invalid, must be an integer")


def _profiles(told: list[str], path: str, spec: Object, annotations: dict[str, str], *, is_template: bool) -> None:
    """Profiles that are told by annotation only. AppArmor's are told about when a Pod is prepared."""
    context = spec.get("securityContext") or {}
    if context.get("seccompProfile") is None and SECCOMP_POD in annotations:
        told.append(f"{path}.annotations[{SECCOMP_POD}]: {_NO_SECCOMP}")
    for container, _ in each(spec, ""):
        own, name = container.get("securityContext") or {}, container.get("name") or ""
        if own.get("seccompProfile") is None and SECCOMP_CONTAINER + name in annotations:
            told.append(f"{path}.annotations[{SECCOMP_CONTAINER}{name}]: {_NO_SECCOMP}")
        has_field = own.get("appArmorProfile") is not None or context.get("appArmorProfile") is not None
        if is_template and not has_field and APP_ARMOR + name in annotations:
            told.append(f"{path}.annotations[{APP_ARMOR}{name}]: {APP_ARMOR_FIELD}")


def _containers(told: list[str], path: str, spec: Object) -> None:
    ports: dict[tuple[int, str], list[tuple[str, Object]]] = {}
    clashes: list[str] = []
    for container, at in each(spec, path):
        amounts = container.get("resources")
        if amounts:
            for name in ("memory", "ephemeral-storage"):
                _fraction(told, f"{at}.resources.limits", amounts.get("limits"), name)
                _fraction(told, f"{at}.resources.requests", amounts.get("requests"), name)
        if len(container.get("env") or ()) > 1:
            _env(told, f"{at}.env", container["env"])
        for number, port in enumerate(container.get("ports") or ()):
            _port(clashes, f"{at}.ports[{number}]", port, ports)
    told += clashes


def _env(told: list[str], path: str, variables: list[Object]) -> None:
    seen: set[str] = set()
    for number, variable in enumerate(variables):
        name, value = variable.get("name") or "", variable.get("value") or ""
        if name in seen:
            reference = f"$({name})"
            if variable.get("valueFrom") is not None or value == reference or reference not in value:
                problem = f"hides previous definition of {quote(name)}, which may be dropped when using apply"
                told.append(f"{path}[{number}]: {problem}")
        seen.add(name)


def _port(told: list[str], path: str, port: Object, known: dict[tuple[int, str], list[tuple[str, Object]]]) -> None:
    inside, protocol = port.get("containerPort") or 0, port.get("protocol") or ""
    outside, address = port.get("hostPort") or 0, port.get("hostIP") or ""
    if address and not outside:
        shown = f"Name:{port.get('name') or ''} HostPort:0 ContainerPort:{inside} Protocol:{protocol} HostIP:{address}"
        told.append(f"{path}: hostIP set without hostPort: {{{shown}}}")
    others = known.setdefault((inside, protocol), [])
    for other_path, other in others:
        other_outside, other_address = other.get("hostPort") or 0, other.get("hostIP") or ""
        if address == other_address and outside == other_outside:
            told.append(f"{path}: duplicate port definition with {other_path}")
        elif not outside or not other_outside:
            told.append(f"{path}: overlapping port definition with {other_path}")
        elif outside == other_outside and bool(address) != bool(other_address):
            told.append(f"{path}: dangerously ambiguous port definition with {other_path}")
    others.append((path, port))

"""The Pod Security Standards as functions: each check looks at one Pod and says why it forbids it, or nothing.

Source: "Pod Security Standards" in the Kubernetes documentation. A check belongs to a level and holds from a minor
version of the policy on; where the rule changed later there is one entry for each change. Wording is upstream's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from fastkube.registry.strategy import Object

LATEST = 36
"""The newest minor version of the policies known here; later ones are taken as this."""


class Finding(NamedTuple):
    """Why a Pod is not allowed: a short reason and which parts of the Pod it is about."""

    reason: str
    detail: str


Check = Callable[[dict[str, Any], dict[str, Any]], Finding | None]
"""(metadata, spec) → what is forbidden."""


def _plural(one: str, many: str, count: int) -> str:
    return one if count == 1 else many


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _containers(spec: Object) -> Iterator[Object]:
    """In the order in which upstream visits them."""
    for key in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(key) or ()


def _context(holder: Object) -> Object:
    return holder.get("securityContext") or {}


def _bad_containers(spec: Object, is_bad: Callable[[Object], Any]) -> list[str]:
    return [container["name"] for container in _containers(spec) if is_bad(container)]


def _these(names: list[str]) -> str:
    """`container "a"` or `containers "a", "b"`."""
    return f"{_plural('container', 'containers', len(names))} {_quoted(names)}"


def _setters(pod_is_bad: Any, containers: list[str]) -> str:
    """`pod and container "a"`: all who set something forbidden; "" if nobody did."""
    parts = ["pod"] if pod_is_bad else []
    if containers:
        parts.append(_these(containers))
    return " and ".join(parts)


def _is_windows(spec: Object) -> bool:
    return (spec.get("os") or {}).get("name") == "windows"


# ---------------------------------------------------------------- baseline

_APPARMOR_PREFIX = "container.apparmor.security.beta.kubernetes.io/"


def _app_armor_profile(metadata: Object, spec: Object) -> Finding | None:
    def is_bad(holder: Object) -> str:
        kind: str = (_context(holder).get("appArmorProfile") or {}).get("type") or ""
        return kind if kind not in ("", "RuntimeDefault", "Localhost") else ""

    values = {is_bad(holder) for holder in (spec, *_containers(spec))} - {""}
    setters = [who for who in (_setters(is_bad(spec), _bad_containers(spec, is_bad)),) if who]
    annotations = sorted(
        f'{key}="{value}"'
        for key, value in (metadata.get("annotations") or {}).items()
        if key.startswith(_APPARMOR_PREFIX)
        and value not in ("", "runtime/default")
        and not value.startswith("localhost/")
    )
    if annotations:
        setters.append(_plural("annotation", "annotations", len(annotations)))
    if not setters:
        return None
    told = sorted(values.union(annotations))
    reason = _plural("forbidden AppArmor profile", "forbidden AppArmor profiles", len(told))
    return Finding(reason, f"{' and '.join(setters)} must not set AppArmor profile type to {_quoted(told)}")


_BASELINE_CAPABILITIES = frozenset(
    (
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
        "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
    )
)  # fmt: skip


def _added(container: Object, allowed: frozenset[str]) -> set[str]:
    return set((_context(container).get("capabilities") or {}).get("add") or ()) - allowed


def _capabilities_baseline(metadata: Object, spec: Object) -> Finding | None:
    bad = _bad_containers(spec, lambda container: _added(container, _BASELINE_CAPABILITIES))
    if not bad:
        return None
    added = set().union(*(_added(container, _BASELINE_CAPABILITIES) for container in _containers(spec)))
    detail = f"{_these(bad)} must not include {_quoted(sorted(added))} in securityContext.capabilities.add"
    return Finding("non-default capabilities", detail)


def _host_namespaces(metadata: Object, spec: Object) -> Finding | None:
    used = [f"{key}=true" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    return Finding("host namespaces", ", ".join(used)) if used else None


def _host_path_volumes(metadata: Object, spec: Object) -> Finding | None:
    bad = [volume["name"] for volume in spec.get("volumes") or () if "hostPath" in volume]
    return Finding("hostPath volumes", f"{_plural('volume', 'volumes', len(bad))} {_quoted(bad)}") if bad else None


def _host_ports(metadata: Object, spec: Object) -> Finding | None:
    def ports(container: Object) -> list[int]:
        return [port["hostPort"] for port in container.get("ports") or () if port.get("hostPort")]

    bad = _bad_containers(spec, ports)
    if not bad:
        return None
    used = sorted({str(port) for container in _containers(spec) for port in ports(container)})
    words = f"{_plural('uses', 'use', len(bad))} {_plural('hostPort', 'hostPorts', len(used))}"
    return Finding("hostPort", f"{_these(bad)} {words} {', '.join(used)}")


def _handler_hosts(container: Object) -> set[str]:
    lifecycle = container.get("lifecycle") or {}
    handlers = [container.get(key) for key in ("livenessProbe", "readinessProbe", "startupProbe")]
    handlers += [lifecycle.get(key) for key in ("postStart", "preStop")]
    hosts = {
        (handler.get(key) or {}).get("host") for handler in handlers if handler for key in ("httpGet", "tcpSocket")
    }
    return {host for host in hosts if host}


def _handler_hosts_forbidden(metadata: Object, spec: Object) -> Finding | None:
    bad = sorted(set(_bad_containers(spec, _handler_hosts)))
    if not bad:
        return None
    hosts = sorted(set().union(*(_handler_hosts(container) for container in _containers(spec))))
    what = _plural("probe or lifecycle host", "probe or lifecycle hosts", len(hosts))
    return Finding(
        "probe or lifecycle host", f"{_these(bad)} {_plural('uses', 'use', len(bad))} {what} {_quoted(hosts)}"
    )


def _privileged(metadata: Object, spec: Object) -> Finding | None:
    bad = _bad_containers(spec, lambda container: _context(container).get("privileged"))
    return Finding("privileged", f"{_these(bad)} must not set securityContext.privileged=true") if bad else None


def _proc_mount(metadata: Object, spec: Object) -> Finding | None:
    def mount(container: Object) -> str:
        kind: str = _context(container).get("procMount") or "Default"
        return "" if kind == "Default" else kind

    bad = _bad_containers(spec, mount)
    if not bad:
        return None
    kinds = sorted({mount(container) for container in _containers(spec)} - {""})
    return Finding("procMount", f"{_these(bad)} must not set securityContext.procMount to {_quoted(kinds)}")


_SELINUX_TYPES = frozenset(("", "container_t", "container_init_t", "container_kvm_t"))
_SELINUX_TYPES_31 = _SELINUX_TYPES | {"container_engine_t"}


def _selinux(types: frozenset[str]) -> Check:
    def options(holder: Object) -> Object:
        return _context(holder).get("seLinuxOptions") or {}

    def is_bad(holder: Object) -> bool:
        given = options(holder)
        return (given.get("type") or "") not in types or bool(given.get("user") or given.get("role"))

    def check(metadata: Object, spec: Object) -> Finding | None:
        setters = _setters(is_bad(spec), _bad_containers(spec, is_bad))
        if not setters:
            return None
        given = [options(holder) for holder in (spec, *_containers(spec))]
        bad_types = sorted({each.get("type") or "" for each in given} - types)
        data = [f"{_plural('type', 'types', len(bad_types))} {_quoted(bad_types)}"] if bad_types else []
        data += [f"{key} may not be set" for key in ("user", "role") if any(each.get(key) for each in given)]
        detail = f"{setters} set forbidden securityContext.seLinuxOptions: {'; '.join(data)}"
        return Finding("seLinuxOptions", detail)

    return check


_SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"


def _seccomp_annotations(metadata: Object, spec: Object) -> Finding | None:
    """Before 1.19 seccomp was set by annotations."""
    annotations = metadata.get("annotations") or {}
    keys = [_SECCOMP_POD, *(_SECCOMP_CONTAINER + container["name"] for container in _containers(spec))]
    bad = sorted({
        f'{key}="{annotations[key]}"'
        for key in keys
        if key in annotations
        and annotations[key] not in ("runtime/default", "docker/default")
        and not annotations[key].startswith("localhost/")
    })  # fmt: skip
    if not bad:
        return None
    return Finding("seccompProfile", f"forbidden {_plural('annotation', 'annotations', len(bad))} {', '.join(bad)}")


def _seccomp_type(holder: Object) -> str | None:
    profile = _context(holder).get("seccompProfile")
    return None if profile is None else profile.get("type") or ""


def _bad_seccomp(holder: Object) -> bool:
    return _seccomp_type(holder) not in (None, "RuntimeDefault", "Localhost")


def _seccomp_baseline(metadata: Object, spec: Object) -> Finding | None:
    setters = _setters(_bad_seccomp(spec), _bad_containers(spec, _bad_seccomp))
    if not setters:
        return None
    holders = (spec, *_containers(spec))
    values = sorted({_seccomp_type(holder) or "" for holder in holders if _bad_seccomp(holder)})
    return Finding("seccompProfile", f"{setters} must not set securityContext.seccompProfile.type to {_quoted(values)}")


_SYSCTLS = frozenset(
    (
        "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range", "net.ipv4.tcp_syncookies",
    )
)  # fmt: skip
_SYSCTLS_27 = _SYSCTLS | {"net.ipv4.ip_local_reserved_ports"}
_SYSCTLS_29 = _SYSCTLS_27 | {
    "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
}  # fmt: skip
_SYSCTLS_32 = _SYSCTLS_29 | {"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"}


def _sysctls(allowed: frozenset[str]) -> Check:
    def check(metadata: Object, spec: Object) -> Finding | None:
        bad = [each["name"] for each in _context(spec).get("sysctls") or () if each.get("name") not in allowed]
        return Finding("forbidden sysctls", ", ".join(bad)) if bad else None

    return check


def _windows_host_process(metadata: Object, spec: Object) -> Finding | None:
    def is_bad(holder: Object) -> Any:
        return (_context(holder).get("windowsOptions") or {}).get("hostProcess")

    setters = _setters(is_bad(spec), _bad_containers(spec, is_bad))
    if not setters:
        return None
    return Finding("hostProcess", f"{setters} must not set securityContext.windowsOptions.hostProcess=true")


# ---------------------------------------------------------------- restricted


def _allow_privilege_escalation(metadata: Object, spec: Object) -> Finding | None:
    bad = _bad_containers(spec, lambda container: _context(container).get("allowPrivilegeEscalation") is not False)
    if not bad:
        return None
    detail = f"{_these(bad)} must set securityContext.allowPrivilegeEscalation=false"
    return Finding("allowPrivilegeEscalation != false", detail)


def _capabilities_restricted(metadata: Object, spec: Object) -> Finding | None:
    allowed = frozenset(("NET_BIND_SERVICE",))

    def keeps_some(container: Object) -> bool:
        return "ALL" not in ((_context(container).get("capabilities") or {}).get("drop") or ())

    keeping = _bad_containers(spec, keeps_some)
    adding = _bad_containers(spec, lambda container: _added(container, allowed))
    details = [f'{_these(keeping)} must set securityContext.capabilities.drop=["ALL"]'] if keeping else []
    if adding:
        added = sorted(set().union(*(_added(container, allowed) for container in _containers(spec))))
        details.append(f"{_these(adding)} must not include {_quoted(added)} in securityContext.capabilities.add")
    return Finding("unrestricted capabilities", "; ".join(details)) if details else None


_VOLUME_TYPES = frozenset(
    (
        "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected",
        "secret",
    )
)  # fmt: skip


def _restricted_volumes(metadata: Object, spec: Object) -> Finding | None:
    bad: list[str] = []
    kinds: set[str] = set()
    for volume in spec.get("volumes") or ():
        source = next((key for key, value in volume.items() if key != "name" and value is not None), "unknown")
        if source not in _VOLUME_TYPES:
            bad.append(volume["name"])
            kinds.add(source)
    if not bad:
        return None
    words = (
        f"{_plural('uses', 'use', len(bad))} {_plural('restricted volume type', 'restricted volume types', len(kinds))}"
    )
    detail = f"{_plural('volume', 'volumes', len(bad))} {_quoted(bad)} {words} {_quoted(sorted(kinds))}"
    return Finding("restricted volume types", detail)


def _run_as_non_root(metadata: Object, spec: Object) -> Finding | None:
    setting = "securityContext.runAsNonRoot"
    of_pod = _context(spec).get("runAsNonRoot")
    refusing = _bad_containers(spec, lambda container: _context(container).get("runAsNonRoot") is False)
    setters = _setters(of_pod is False, refusing)
    if setters:
        return Finding("runAsNonRoot != true", f"{setters} must not set {setting}=false")
    silent = [] if of_pod else _bad_containers(spec, lambda container: not _context(container).get("runAsNonRoot"))
    if not silent:
        return None
    return Finding("runAsNonRoot != true", f"pod or {_these(silent)} must set {setting}=true")


def _run_as_user(metadata: Object, spec: Object) -> Finding | None:
    def is_root(holder: Object) -> bool:
        return _context(holder).get("runAsUser") == 0

    setters = _setters(is_root(spec), _bad_containers(spec, is_root))
    return Finding("runAsUser=0", f"{setters} must not set runAsUser=0") if setters else None


def _seccomp_restricted(metadata: Object, spec: Object) -> Finding | None:
    found = _seccomp_baseline(metadata, spec)
    if found is not None:
        return found
    silent = [] if _seccomp_type(spec) else _bad_containers(spec, lambda container: not _seccomp_type(container))
    if not silent:
        return None
    wanted = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return Finding("seccompProfile", f"pod or {_these(silent)} {wanted}")


def _not_on_windows(check: Check) -> Check:
    """Since 1.25 what Windows cannot do is not asked of Windows Pods."""

    def exempting(metadata: Object, spec: Object) -> Finding | None:
        return None if _is_windows(spec) else check(metadata, spec)

    return exempting


def _in_host_users(check: Check) -> Check:
    """Since 1.35 what a user namespace makes harmless is not asked of Pods that have one."""

    def exempting(metadata: Object, spec: Object) -> Finding | None:
        return None if spec.get("hostUsers") is False else check(metadata, spec)

    return exempting


# ---------------------------------------------------------------- levels

_Versions = tuple[tuple[int, Check], ...]
"""(first minor version, check), rising."""

_BASELINE: dict[str, _Versions] = {
    "appArmorProfile": ((0, _app_armor_profile),),
    "capabilities_baseline": ((0, _capabilities_baseline),),
    "hostNamespaces": ((0, _host_namespaces),),
    "hostPathVolumes": ((0, _host_path_volumes),),
    "hostPorts": ((0, _host_ports),),
    "hostProbesAndHostLifecycle": ((34, _handler_hosts_forbidden),),
    "privileged": ((0, _privileged),),
    "procMount": ((0, _proc_mount), (35, _in_host_users(_proc_mount))),
    "seLinuxOptions": ((0, _selinux(_SELINUX_TYPES)), (31, _selinux(_SELINUX_TYPES_31))),
    "seccompProfile_baseline": ((0, _seccomp_annotations), (19, _seccomp_baseline)),
    "sysctls": (
        (0, _sysctls(_SYSCTLS)),
        (27, _sysctls(_SYSCTLS_27)),
        (29, _sysctls(_SYSCTLS_29)),
        (32, _sysctls(_SYSCTLS_32)),
    ),
    "windowsHostProcess": ((0, _windows_host_process),),
}

_RESTRICTED: dict[str, _Versions] = {
    "allowPrivilegeEscalation": ((8, _allow_privilege_escalation), (25, _not_on_windows(_allow_privilege_escalation))),
    "capabilities_restricted": ((22, _capabilities_restricted), (25, _not_on_windows(_capabilities_restricted))),
    "procMount_restricted": ((35, _proc_mount),),
    "restrictedVolumes": ((0, _restricted_volumes),),
    "runAsNonRoot": ((0, _run_as_non_root), (35, _in_host_users(_run_as_non_root))),
    "runAsUser": ((23, _run_as_user), (35, _in_host_users(_run_as_user))),
    "seccompProfile_restricted": ((19, _seccomp_restricted), (25, _not_on_windows(_seccomp_restricted))),
}

_OVERRIDES = {
    "capabilities_restricted": "capabilities_baseline",
    "procMount_restricted": "procMount",
    "restrictedVolumes": "hostPathVolumes",
    "seccompProfile_restricted": "seccompProfile_baseline",
}
"""A restricted check says all that the baseline check of the same matter would say, and more."""


@cache
def checks_of(level: str, minor: int) -> tuple[Check, ...]:
    """The checks of a level in a version of the policies, in the order in which they are reported."""
    if level == "privileged":
        return ()
    baseline = _as_of(_BASELINE, minor)
    if level == "baseline":
        return tuple(baseline.values())
    restricted = _as_of(_RESTRICTED, minor)
    overridden = {_OVERRIDES[name] for name in restricted if name in _OVERRIDES}
    kept = [check for name, check in baseline.items() if name not in overridden]
    return (*kept, *restricted.values())


def _as_of(table: dict[str, _Versions], minor: int) -> dict[str, Check]:
    """Each check as it is in this version, sorted by name; those that came later are left out."""
    current: dict[str, Check] = {}
    for name in sorted(table):
        for since, check in table[name]:
            if since <= minor:
                current[name] = check
    return current

"""Validation of security contexts of pods and containers, and of the older annotations that say the same."""

from __future__ import annotations

import re

from fastkube.api import field
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.checks import INT32_MAX, Errors, Object
from fastkube.registry.strategies.go_values import shown

SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"
APP_ARMOR = "container.apparmor.security.beta.kubernetes.io/"

_PROFILE_TYPES = ("Localhost", "RuntimeDefault", "Unconfined")
_PROC_MOUNTS = ("Default", "Unmasked")


def _id(errs: Errors, path: str, value: int | None) -> None:
    """A user or group."""
    if value is not None and not 0 <= value <= INT32_MAX:
        errs.append(field.invalid(path, value, field.between(0, INT32_MAX)))


def container(errs: Errors, path: str, context: Object, host_users: bool) -> None:
    """`host_users`: the container is not in a user namespace of its own."""
    _id(errs, f"{path}.runAsUser", context.get("runAsUser"))
    _id(errs, f"{path}.runAsGroup", context.get("runAsGroup"))
    mount = context.get("procMount")
    if mount is not None:
        checks.one_of(errs, f"{path}.procMount", mount, _PROC_MOUNTS)
        if host_users and mount == "Unmasked":
            problem = "`hostUsers` must be false to use `Unmasked`"
            errs.append(field.invalid(f"{path}.procMount", mount, problem))
    _seccomp(errs, f"{path}.seccompProfile", context.get("seccompProfile"))
    if context.get("allowPrivilegeEscalation") is False:
        _no_escalation(errs, path, context)
    _windows(errs, f"{path}.windowsOptions", context.get("windowsOptions"))
    app_armor(errs, f"{path}.appArmorProfile", context.get("appArmorProfile"))


def _no_escalation(errs: Errors, path: str, context: Object) -> None:

    if context.get("privileged"):
        problem = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
        errs.append(field.invalid(path, shown("SecurityContext", context), problem))
    for capability in (context.get("capabilities") or {}).get("add") or ():
        if capability == "CAP_SYS_ADMIN":
            problem = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            errs.append(field.invalid(path, shown("SecurityContext", context), problem))


def pod(errs: Errors, path: str, context: Object, spec: Object) -> None:
    _id(errs, f"{path}.fsGroup", context.get("fsGroup"))
    _id(errs, f"{path}.runAsUser", context.get("runAsUser"))
    _id(errs, f"{path}.runAsGroup", context.get("runAsGroup"))
    for number, group in enumerate(context.get("supplementalGroups") or ()):
        _id(errs, f"{path}.supplementalGroups[{number}]", group)
    share_processes(errs, path, spec)
    if context.get("sysctls"):
        _sysctls(errs, f"{path}.sysctls", context["sysctls"], spec)
    change = context.get("fsGroupChangePolicy")
    if change is not None:
        checks.one_of(errs, f"{path}.fsGroupChangePolicy", change, ("Always", "OnRootMismatch"))
    _seccomp(errs, f"{path}.seccompProfile", context.get("seccompProfile"))
    _windows(errs, f"{path}.windowsOptions", context.get("windowsOptions"))
    app_armor(errs, f"{path}.appArmorProfile", context.get("appArmorProfile"))
    groups, relabel = context.get("supplementalGroupsPolicy"), context.get("seLinuxChangePolicy")
    if groups is not None:
        checks.one_of(errs, f"{path}.supplementalGroupsPolicy", groups, ("Merge", "Strict"))
    if relabel is not None:
        checks.one_of(errs, f"{path}.seLinuxChangePolicy", relabel, ("Recursive",))


def share_processes(errs: Errors, path: str, spec: Object) -> None:
    """Upstream keeps the flags of the host's namespaces in the security context, so the fault is found there."""
    if spec.get("hostPID") and spec.get("shareProcessNamespace"):
        problem = "ShareProcessNamespace and HostPID cannot both be enabled"
        errs.append(field.invalid(f"{path}.shareProcessNamespace", True, problem))


# ---------------------------------------------------------------- profiles


def _seccomp(errs: Errors, path: str, profile: Object | None) -> None:
    if profile is None:
        return
    kind, where = profile.get("type") or "", profile.get("localhostProfile")
    if not kind:
        errs.append(field.required(f"{path}.type", "type is required when seccompProfile is set"))
    else:
        checks.one_of(errs, f"{path}.type", kind, _PROFILE_TYPES)
    if kind == "Localhost":
        if where is None:
            errs.append(field.required(f"{path}.localhostProfile", "must be set when seccomp type is Localhost"))
        else:
            checks.descending_path(errs, f"{path}.localhostProfile", where)
    elif where is not None:
        problem = "can only be set when seccomp type is Localhost"
        errs.append(field.invalid(f"{path}.localhostProfile", shown("SeccompProfile", profile), problem))


_APP_ARMOR_PATH_MAX = 4095


def app_armor(errs: Errors, path: str, profile: Object | None) -> None:
    if profile is None:
        return
    kind, where = profile.get("type") or "", profile.get("localhostProfile")
    if kind == "Localhost":
        _app_armor_path(errs, f"{path}.localhostProfile", where or "")
    elif kind in _PROFILE_TYPES:
        if where is not None:
            problem = "can only be set when AppArmor type is Localhost"
            errs.append(field.invalid(f"{path}.localhostProfile", where, problem))
    elif not kind:
        errs.append(field.required(f"{path}.type", "type is required when appArmorProfile is set"))
    else:
        errs.append(field.not_supported(f"{path}.type", kind, _PROFILE_TYPES))


def _app_armor_path(errs: Errors, path: str, where: str) -> None:
    if where.strip() != where:
        errs.append(field.invalid(path, where, "must not be padded with whitespace"))
    elif not where:
        errs.append(field.required(path, "must be set when AppArmor type is Localhost"))
    if len(where.encode()) > _APP_ARMOR_PATH_MAX:
        errs.append(field.too_long(path, _APP_ARMOR_PATH_MAX))


# ---------------------------------------------------------------- sysctls

_SYSCTL_MAX = 253
_SYSCTL_PATTERN = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
_is_sysctl = re.compile(_SYSCTL_PATTERN.strip("^$")).fullmatch
_IPC_SYSCTLS = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")


def _sysctls(errs: Errors, path: str, sysctls: list[Object], spec: Object) -> None:
    seen: set[str] = set()
    for number, sysctl in enumerate(sysctls):
        at = f"{path}[{number}].name"
        name = sysctl.get("name") or ""
        if not name:
            errs.append(field.required(at))
        elif len(name) > _SYSCTL_MAX or not _is_sysctl(name):
            problem = f"must have at most {_SYSCTL_MAX} characters and match regex {_SYSCTL_PATTERN}"
            errs.append(field.invalid(at, name, problem))
        elif name in seen:
            errs.append(field.duplicate(at, name))
        seen.add(name)
        dotted = _dotted(name)
        if spec.get("hostNetwork") and dotted.startswith("net."):
            errs.append(field.invalid(at, name, "may not be specified when 'hostNetwork' is true"))
        elif spec.get("hostIPC") and dotted.startswith(_IPC_SYSCTLS):
            errs.append(field.invalid(at, name, "may not be specified when 'hostIPC' is true"))


def _dotted(name: str) -> str:
    """A sysctl may be written with slashes; then its dots stand for slashes."""
    first = next((char for char in name if char in "./"), ".")
    return name.translate(str.maketrans("./", "/.")) if first == "/" else name


# ---------------------------------------------------------------- Windows

_SPEC_MAX_KIB = 64
_has_control = re.compile(r"[\x00-\x1f\x7f]").search
_is_netbios = re.compile(r'[^\\/:*?"<>|.][^\\/:*?"<>|]{0,14}').fullmatch
_DNS_PART = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_is_dns = re.compile(rf"{_DNS_PART}(?:\.{_DNS_PART})*").fullmatch
_has_bad_char = re.compile(r'["/\\:;|=,+*?<>@\[\]]').search
_is_dots = re.compile(r"[. ]+").fullmatch
_DOMAIN_MAX, _USER_MAX = 256, 104


def _windows(errs: Errors, path: str, options: Object | None) -> None:
    if options is None:
        return
    name, content = options.get("gmsaCredentialSpecName"), options.get("gmsaCredentialSpec")
    if name is not None:
        checks.subdomain(errs, f"{path}.gmsaCredentialSpecName", name)
    if content is not None:
        if not content:
            problem = "gmsaCredentialSpec cannot be an empty string"
            errs.append(field.invalid(f"{path}.gmsaCredentialSpec", content, problem))
        elif len(content.encode()) > _SPEC_MAX_KIB * 1024:
            problem = f"gmsaCredentialSpec size must be under {_SPEC_MAX_KIB} KiB"
            errs.append(field.invalid(f"{path}.gmsaCredentialSpec", content, problem))
    user = options.get("runAsUserName")
    if user is not None:
        for problem in _windows_user_faults(user):
            errs.append(field.invalid(f"{path}.runAsUserName", user, problem))


def _windows_user_faults(told: str) -> list[str]:
    if not told:
        return ["runAsUserName cannot be an empty string"]
    if _has_control(told):
        return ["runAsUserName cannot contain control characters"]
    if told.count("\\") > 1:
        return ["runAsUserName cannot contain more than one backslash"]
    domain, backslash, user = told.rpartition("\\")
    faults = []
    if len(domain) >= _DOMAIN_MAX:
        faults.append(f"runAsUserName's Domain length must be under {_DOMAIN_MAX} characters")
    if backslash and not _is_netbios(domain) and not _is_dns(domain):
        faults.append("runAsUserName's Domain doesn't match the NetBios nor the DNS format")
    if not user:
        faults.append("runAsUserName's User cannot be empty")
    elif len(user) > _USER_MAX:
        faults.append(f"runAsUserName's User length must not be longer than {_USER_MAX} characters")
    if _is_dots(user):
        faults.append("runAsUserName's User cannot contain only periods or spaces")
    if _has_bad_char(user):
        faults.append("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]")
    return faults


# ---------------------------------------------------------------- annotations

_SECCOMP_DEFAULTS = ("runtime/default", "docker/default")
_SECCOMP_LOCAL = "localhost/"


def seccomp_annotations(errs: Errors, path: str, annotations: dict[str, str]) -> None:
    if SECCOMP_POD in annotations:
        _seccomp_text(errs, f"{path}.{SECCOMP_POD}", annotations[SECCOMP_POD])
    for key, profile in annotations.items():
        if key.startswith(SECCOMP_CONTAINER):
            _seccomp_text(errs, f"{path}.{key}", profile)


def _seccomp_text(errs: Errors, path: str, profile: str) -> None:
    if profile in _SECCOMP_DEFAULTS or profile == "unconfined":
        return
    if profile.startswith(_SECCOMP_LOCAL):
        checks.descending_path(errs, path, profile[len(_SECCOMP_LOCAL) :])
    else:
        errs.append(field.invalid(path, profile, "must be a valid seccomp profile"))


def app_armor_annotations(errs: Errors, path: str, annotations: dict[str, str], names: set[str]) -> None:
    """`names` are those of the containers."""
    for key, profile in annotations.items():
        if not key.startswith(APP_ARMOR):
            continue
        container_name = key[len(APP_ARMOR) :]
        if container_name not in names:
            errs.append(field.invalid(f"{path}[{key}]", container_name, "container not found"))
        if profile not in ("", "runtime/default", "unconfined") and not profile.startswith(_SECCOMP_LOCAL):
            problem = f"invalid AppArmor profile name: {field.quote(profile)}"
            errs.append(field.invalid(f"{path}[{key}]", profile, problem))


def annotation_matches(errs: Errors, path: str, annotation: str, profile: Object, what: str) -> None:
    """A profile told by annotation and by field must be the same; `what` is seccomp or apparmor."""
    kind = profile.get("type") or ""
    defaults = _SECCOMP_DEFAULTS if what == "seccomp" else _SECCOMP_DEFAULTS[:1]
    if kind == "Localhost":
        if not annotation.startswith(_SECCOMP_LOCAL):
            errs.append(field.forbidden(f"{path}.type", f"{what} type in annotation and field must match"))
        elif annotation[len(_SECCOMP_LOCAL) :] != profile.get("localhostProfile"):
            problem = f"{what} profile in annotation and field must match"
            errs.append(field.forbidden(f"{path}.localhostProfile", problem))
    elif (kind == "Unconfined" and annotation != "unconfined") or (
        kind == "RuntimeDefault" and annotation not in defaults
    ):
        errs.append(field.forbidden(f"{path}.type", f"{what} type in annotation and field must match"))


def app_armor_profile(annotation: str) -> Object | None:
    """The field that an AppArmor annotation stands for."""
    if annotation == "unconfined":
        return {"type": "Unconfined"}
    if annotation == "runtime/default":
        return {"type": "RuntimeDefault"}
    if annotation.startswith(_SECCOMP_LOCAL) and annotation != _SECCOMP_LOCAL:
        return {"type": "Localhost", "localhostProfile": annotation[len(_SECCOMP_LOCAL) :]}
    return None

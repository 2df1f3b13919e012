"""Validation of the spec of Pods and pod templates, in upstream's order (ValidatePodSpec and its callers)."""

from __future__ import annotations

from fastkube.api import field, quantity
from fastkube.api.meta import validate_annotations, validate_labels
from fastkube.api.names import label_key
from fastkube.registry.strategies import (
    checks,
    pod_containers,
    pod_scheduling,
    pod_security,
    pod_volumes,
    resources,
)
from fastkube.registry.strategies.checks import INT32_MAX, Errors, Object
from fastkube.registry.strategies.go_values import shown
from fastkube.registry.strategies.pod_containers import Scope
from fastkube.registry.strategies.pod_defaults import aggregate

MIRROR = "kubernetes.io/config.mirror"
_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"

RESTART_POLICIES = ("Always", "OnFailure", "Never")
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
PREEMPTION_POLICIES = ("PreemptLowerPriority", "Never")
_NAMESERVERS_MAX, _SEARCHES_MAX, _SEARCH_CHARS_MAX = 3, 32, 2048
_HOSTNAME_MAX = 64


def pod(errs: Errors, obj: Object) -> None:
    """What creating a Pod and updating it have in common."""
    metadata, spec = obj["metadata"], obj["spec"]
    annotations = metadata.get("annotations")
    if annotations:
        pod_annotations(errs, "metadata.annotations", annotations, spec)
    pod_spec(errs, "spec", spec, metadata)
    if not spec.get("serviceAccountName") and "volumes" in spec:
        _tokens_without_account(errs, spec["volumes"])
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0:
        errs.append(field.invalid("spec.terminationGracePeriodSeconds", grace, field.at_least(0)))
    for key in ("containers", "initContainers"):
        for number, container in enumerate(spec.get(key) or ()):
            pod_containers.only_in_pod(errs, f"spec.{key}[{number}]", container)


def _tokens_without_account(errs: Errors, volumes: list[Object]) -> None:
    for number, volume in enumerate(volumes):
        for index, source in enumerate((volume.get("projected") or {}).get("sources") or ()):
            if source.get("serviceAccountToken") is not None:
                where = f"spec.volumes[{number}].projected.sources[{index}].serviceAccountToken"
                errs.append(field.forbidden(where, "must not be specified when serviceAccountName is not set"))


def new_pod(errs: Errors, obj: Object) -> None:
    pod(errs, obj)
    spec = obj["spec"]
    if spec.get("ephemeralContainers"):
        errs.append(field.forbidden("spec.ephemeralContainers", "cannot be set on create"))
    if spec.get("schedulingGates") and spec.get("nodeName"):
        problem = "cannot be set until all schedulingGates have been cleared"
        errs.append(field.forbidden("spec.nodeName", problem))
    annotations = obj["metadata"].get("annotations")
    if annotations:
        _profiles_match(errs, "spec", spec, annotations)


def template(errs: Errors, path: str, obj: Object) -> None:
    """A PodTemplateSpec."""
    metadata, spec = obj.get("metadata") or {}, obj.get("spec") or {}
    annotations = metadata.get("annotations")
    if labels := metadata.get("labels"):
        errs += validate_labels(labels, f"{path}.labels")
    if annotations:
        errs += validate_annotations(annotations, f"{path}.annotations")
        pod_annotations(errs, f"{path}.annotations", annotations, spec)
    pod_spec(errs, f"{path}.spec", spec, None)
    if annotations:
        _profiles_match(errs, f"{path}.spec", spec, annotations)
    if spec.get("ephemeralContainers"):
        problem = "ephemeral containers not allowed in pod template"
        errs.append(field.forbidden(f"{path}.spec.ephemeralContainers", problem))


# ---------------------------------------------------------------- annotations


def pod_annotations(errs: Errors, path: str, annotations: dict[str, str], spec: Object) -> None:
    if MIRROR in annotations and not spec.get("nodeName"):
        problem = "must set spec.nodeName if mirror pod annotation is set"
        errs.append(field.invalid(f"{path}[{MIRROR}]", annotations[MIRROR], problem))
    cost = annotations.get(_DELETION_COST)
    if cost is not None and not _is_int32(cost):
        errs.append(field.invalid(f"{path}[{_DELETION_COST}]", cost, "must be a 32bit integer"))
    pod_security.seccomp_annotations(errs, path, annotations)
    if any(key.startswith(pod_security.APP_ARMOR) for key in annotations):
        names = {container.get("name") or "" for container, _ in pod_containers.each(spec, "")}
        pod_security.app_armor_annotations(errs, path, annotations, names)


def _is_int32(text: str) -> bool:
    """Upstream wants the plain form: no plus, no leading zeros."""
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or text.startswith("+"):
        return False
    return -INT32_MAX - 1 <= int(text) <= INT32_MAX and (digits == "0" or digits[0] != "0")


def _profiles_match(errs: Errors, path: str, spec: Object, annotations: dict[str, str]) -> None:
    """Where a profile is told by annotation and by field, both must say the same."""
    context = spec.get("securityContext") or {}
    profile, annotation = context.get("seccompProfile"), annotations.get(pod_security.SECCOMP_POD)
    if profile is not None and annotation is not None:
        at = f"{path}.securityContext.seccompProfile"
        pod_security.annotation_matches(errs, at, annotation, profile, "seccomp")
    for container, at in pod_containers.each(spec, path):
        profile = (container.get("securityContext") or {}).get("seccompProfile")
        annotation = annotations.get(pod_security.SECCOMP_CONTAINER + (container.get("name") or ""))
        if profile is not None and annotation is not None:
            where = f"{at}.securityContext.seccompProfile"
            pod_security.annotation_matches(errs, where, annotation, profile, "seccomp")
    if (spec.get("os") or {}).get("name") == "windows":
        return
    for container, at in pod_containers.each(spec, path):
        own = (container.get("securityContext") or {}).get("appArmorProfile")
        profile = own if own is not None else context.get("appArmorProfile")
        annotation = annotations.get(pod_security.APP_ARMOR + (container.get("name") or ""))
        if profile is not None and annotation is not None:
            where = f"{at}.securityContext.appArmorProfile"
            pod_security.annotation_matches(errs, where, annotation, profile, "apparmor")


# ---------------------------------------------------------------- the spec


def pod_spec(errs: Errors, path: str, spec: Object, metadata: Object | None) -> None:
    """`metadata` is that of the Pod, None in a template."""
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is None:
        errs.append(field.required(f"{path}.terminationGracePeriodSeconds"))
    volumes: pod_volumes.Volumes = {}
    if "volumes" in spec:
        name = (metadata or {}).get("name") or ""
        volumes = pod_volumes.volumes(errs, f"{path}.volumes", spec["volumes"] or [], name)
    claims: frozenset[str] = frozenset()
    if "resourceClaims" in spec:
        claims = _resource_claims(errs, f"{path}.resourceClaims", spec["resourceClaims"] or [], metadata)
    restart_policy = spec.get("restartPolicy") or ""
    scope = Scope(volumes, claims, grace, restart_policy, spec.get("hostUsers") is not False)
    containers = spec.get("containers") or []
    pod_containers.regular(errs, f"{path}.containers", containers, scope)
    inits, ephemerals = spec.get("initContainers"), spec.get("ephemeralContainers")
    if inits or ephemerals:
        names = {container.get("name") or "" for container in containers}
        pod_containers.init(errs, f"{path}.initContainers", inits or [], names, scope)
        names |= {container.get("name") or "" for container in inits or ()}
        pod_containers.ephemeral(errs, f"{path}.ephemeralContainers", ephemerals or [], names, scope)
    if spec.get("resources") is not None:
        _pod_resources(errs, f"{path}.resources", spec)
    if spec.get("hostNetwork"):
        _host_network(errs, path, containers, strict=metadata is not None)
    if restart_policy not in RESTART_POLICIES:
        checks.one_of_required(errs, f"{path}.restartPolicy", restart_policy, RESTART_POLICIES)
    dns_policy = spec.get("dnsPolicy") or ""
    if dns_policy not in _DNS_POLICIES:
        checks.one_of_required(errs, f"{path}.dnsPolicy", dns_policy, _DNS_POLICIES)
    if spec.get("nodeSelector"):
        errs += validate_labels(spec["nodeSelector"], f"{path}.nodeSelector")
    if spec.get("securityContext"):
        pod_security.pod(errs, f"{path}.securityContext", spec["securityContext"], spec)
    elif spec.get("hostPID"):
        pod_security.share_processes(errs, f"{path}.securityContext", spec)
    _spec_rest(errs, path, spec, dns_policy)


def _spec_rest(errs: Errors, path: str, spec: Object, dns_policy: str) -> None:
    if spec.get("affinity"):
        pod_scheduling.affinity(errs, f"{path}.affinity", spec["affinity"])
    if "dnsConfig" in spec or dns_policy == "None":
        _dns_config(errs, f"{path}.dnsConfig", spec.get("dnsConfig"), dns_policy)
    for number, gate in enumerate(spec.get("readinessGates") or ()):
        where = f"{path}.readinessGates[{number}].conditionType"
        checks.faults(errs, where, gate.get("conditionType") or "", label_key)
    if "schedulingGates" in spec:
        _scheduling_gates(errs, f"{path}.schedulingGates", spec["schedulingGates"] or [])
    if "topologySpreadConstraints" in spec:
        where = f"{path}.topologySpreadConstraints"
        pod_scheduling.topology_spread(errs, where, spec["topologySpreadConstraints"] or [])
    _windows_host_process(errs, path, spec)
    if spec.get("hostUsers") is False:
        _user_namespace(errs, path, spec)
    if spec.get("hostnameOverride") is not None:
        _hostname_override(errs, f"{path}.hostnameOverride", spec)
    for key in ("serviceAccountName", "nodeName"):
        if spec.get(key):
            checks.subdomain(errs, f"{path}.{key}", spec[key])
    seconds = spec.get("activeDeadlineSeconds")
    if seconds is not None and not 1 <= seconds <= INT32_MAX:
        errs.append(field.invalid(f"{path}.activeDeadlineSeconds", seconds, field.between(1, INT32_MAX)))
    for key in ("hostname", "subdomain"):
        if spec.get(key):
            checks.label(errs, f"{path}.{key}", spec[key])
    if spec.get("tolerations"):
        pod_scheduling.tolerations(errs, f"{path}.tolerations", spec["tolerations"])
    for number, alias in enumerate(spec.get("hostAliases") or ()):
        checks.ip(errs, f"{path}.hostAliases[{number}].ip", alias.get("ip") or "")
        for index, hostname in enumerate(alias.get("hostnames") or ()):
            checks.subdomain(errs, f"{path}.hostAliases[{number}].hostnames[{index}]", hostname)
    if spec.get("priorityClassName"):
        checks.subdomain(errs, f"{path}.priorityClassName", spec["priorityClassName"])
    if spec.get("runtimeClassName") is not None:
        checks.subdomain(errs, f"{path}.runtimeClassName", spec["runtimeClassName"])
    preemption = spec.get("preemptionPolicy")
    if preemption is not None:
        checks.one_of_required(errs, f"{path}.preemptionPolicy", preemption, PREEMPTION_POLICIES)
    if spec.get("overhead"):
        resources.requirements(errs, f"{path}.overhead", {"limits": spec["overhead"]})
    if spec.get("os") is not None:
        _operating_system(errs, path, spec)
    if spec.get("schedulingGroup") is not None:
        _scheduling_group(errs, f"{path}.schedulingGroup", spec["schedulingGroup"])
    pod_containers.file_volumes(errs, path, spec)


def _resource_claims(errs: Errors, path: str, claims: list[Object], metadata: Object | None) -> frozenset[str]:
    """The names that containers may use."""
    seen: set[str] = set()
    for number, claim in enumerate(claims):
        at = f"{path}[{number}]"
        if MIRROR in ((metadata or {}).get("annotations") or {}):
            errs.append(field.forbidden("[]", "static pods do not support resource claims"))
            continue
        name = claim.get("name") or ""
        if not name:
            errs.append(field.required(f"{at}.name"))
        elif name in seen:
            errs.append(field.duplicate(f"{at}.name", name))
        else:
            checks.label(errs, f"{at}.name", name)
            seen.add(name)
        _claim_source(errs, at, claim)
    return frozenset(claim["name"] for claim in claims if claim.get("name"))


def _scheduling_group(errs: Errors, path: str, group: Object) -> None:
    name = group.get("podGroupName")
    if name is None:
        errs.append(field.invalid(f"{path}.podGroupName", None, "must specify one of: `podGroupName`"))
    else:
        checks.subdomain(errs, f"{path}.podGroupName", name)


def _claim_source(errs: Errors, path: str, claim: Object) -> None:
    keys = ("resourceClaimName", "resourceClaimTemplateName")
    given = [key for key in keys if claim.get(key) is not None]
    if len(given) == 2:
        problem = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
        errs.append(field.invalid(path, shown("PodResourceClaim", claim), problem))
    elif not given:
        problem = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
        errs.append(field.invalid(path, shown("PodResourceClaim", claim), problem))
    for key in given:
        checks.subdomain(errs, f"{path}.{key}", claim[key])


def _pod_resources(errs: Errors, path: str, spec: Object) -> None:
    """Resources of the pod as a whole: requests cover those of the containers, limits are not below theirs."""
    given = spec["resources"]
    if (spec.get("os") or {}).get("name") == "windows":
        errs.append(field.forbidden(path, "may not be set for a windows pod"))
        return
    if given.get("claims"):
        errs.append(field.forbidden(f"{path}.claims", "claims may not be set for Resources at pod-level"))
    resources.requirements(errs, path, given, check=resources.pod_name)
    requests, limits = given.get("requests") or {}, given.get("limits") or {}
    for name, asked in aggregate(spec, "requests").items():
        if name in requests and quantity.cmp(asked, requests[name]) > 0:
            problem = f"must be greater than or equal to aggregate container requests of {asked}"
            errs.append(field.invalid(f"{path}.requests[{name}]", requests[name], problem))
    for name, asked in aggregate(spec, "limits").items():
        if name.startswith(resources.HUGE_PAGES) and name in limits and quantity.cmp(asked, limits[name]) > 0:
            problem = f"must be greater than or equal to aggregate container limits of {asked}"
            errs.append(field.invalid(f"{path}.limits[{name}]", limits[name], problem))
    for number, container in enumerate(spec.get("containers") or ()):
        for name, limit in ((container.get("resources") or {}).get("limits") or {}).items():
            if name in limits and quantity.cmp(limit, limits[name]) > 0:
                where = f"{path}.containers[{number}][{name}].limits"
                problem = f"must be less than or equal to pod limits of {limits[name]}"
                errs.append(field.invalid(where, limit, problem))


def _host_network(errs: Errors, path: str, containers: list[Object], *, strict: bool) -> None:
    """Ports are those of the host. A template may leave the host port out: the Pod gets it by default."""
    for number, container in enumerate(containers):
        for index, port in enumerate(container.get("ports") or ()):
            outside = port.get("hostPort") or 0
            if (strict or outside) and outside != (port.get("containerPort") or 0):
                where = f"{path}.containers[{number}].ports[{index}].hostPort"
                problem = "must match `containerPort` when `hostNetwork` is true"
                errs.append(field.invalid(where, outside, problem))


def _dns_config(errs: Errors, path: str, config: Object | None, policy: str) -> None:
    servers = (config or {}).get("nameservers") or []
    if policy == "None":
        if config is None:
            errs.append(field.required(path, "must provide `dnsConfig` when `dnsPolicy` is None"))
            return
        if not servers:
            problem = "must provide at least one DNS nameserver when `dnsPolicy` is None"
            errs.append(field.required(f"{path}.nameservers", problem))
            return
    if config is None:
        return
    searches = config.get("searches") or []
    if len(servers) > _NAMESERVERS_MAX:
        problem = f"must not have more than {_NAMESERVERS_MAX} nameservers"
        errs.append(field.invalid(f"{path}.nameservers", servers, problem))
    for number, server in enumerate(servers):
        checks.ip(errs, f"{path}.nameservers[{number}]", server)
    if len(searches) > _SEARCHES_MAX:
        problem = f"must not have more than {_SEARCHES_MAX} search paths"
        errs.append(field.invalid(f"{path}.searches", searches, problem))
    if len(" ".join(searches)) > _SEARCH_CHARS_MAX:
        problem = f"must not have more than {_SEARCH_CHARS_MAX} characters (including spaces) in the search list"
        errs.append(field.invalid(f"{path}.searches", searches, problem))
    for number, search in enumerate(searches):
        if search != ".":
            checks.search_path(errs, f"{path}.searches[{number}]", search.removesuffix("."))
    for number, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            errs.append(field.required(f"{path}.options[{number}]", "must not be empty"))


def _scheduling_gates(errs: Errors, path: str, gates: list[Object]) -> None:
    seen: set[str] = set()
    for number, gate in enumerate(gates):
        name = gate.get("name") or ""
        checks.faults(errs, f"{path}[{number}]", name, label_key)
        if name in seen:
            errs.append(field.duplicate(f"{path}[{number}]", name))
        seen.add(name)


def _user_namespace(errs: Errors, path: str, spec: Object) -> None:
    """A pod with its own user namespace may not share other namespaces of the host, nor use raw devices."""
    problem = "when `hostUsers` is false"
    for key, name in (("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")):
        if spec.get(key):
            errs.append(field.forbidden(f"{path}.{name}", problem))
    for container, at in pod_containers.each(spec, path):
        if container.get("volumeDevices"):
            errs.append(field.forbidden(f"{at}.volumeDevices", problem))


def _hostname_override(errs: Errors, path: str, spec: Object) -> None:
    name = spec["hostnameOverride"]
    if spec.get("setHostnameAsFQDN"):
        errs.append(field.forbidden(path, "may not be specified when setHostnameAsFQDN is true"))
    if spec.get("hostNetwork"):
        errs.append(field.forbidden(path, "may not be specified when hostNetwork is true"))
    if len(name) > _HOSTNAME_MAX:
        errs.append(field.too_long(path, _HOSTNAME_MAX))
    checks.subdomain(errs, path, name)


# ---------------------------------------------------------------- operating systems

_FOREIGN_TO_WINDOWS_POD = (
    "appArmorProfile", "seLinuxOptions", "seccompProfile", "fsGroup", "fsGroupChangePolicy", "sysctls", "runAsUser",
    "runAsGroup", "supplementalGroups", "supplementalGroupsPolicy", "seLinuxChangePolicy",
)  # fmt: skip
_FOREIGN_TO_WINDOWS_SPEC = ("hostUsers", "hostPID", "hostIPC", "shareProcessNamespace")
_FOREIGN_TO_WINDOWS_CONTAINER = (
    "appArmorProfile", "seLinuxOptions", "seccompProfile", "capabilities", "readOnlyRootFilesystem", "privileged",
    "allowPrivilegeEscalation", "procMount", "runAsUser", "runAsGroup",
)  # fmt: skip


def _operating_system(errs: Errors, path: str, spec: Object) -> None:
    name = spec["os"].get("name") or ""
    if not name:
        errs.append(field.required(f"{path}.os.name"))
    elif name == "linux":
        _no_windows_options(errs, path, spec)
    elif name == "windows":
        _no_linux_options(errs, path, spec)
    else:
        errs.append(field.not_supported(f"{path}.os", name, ("linux", "windows")))


def _no_windows_options(errs: Errors, path: str, spec: Object) -> None:
    problem = "windows options cannot be set for a linux pod"
    if (spec.get("securityContext") or {}).get("windowsOptions") is not None:
        errs.append(field.forbidden(f"{path}.securityContext.windowsOptions", problem))
    for container, at in pod_containers.each(spec, path):
        if (container.get("securityContext") or {}).get("windowsOptions") is not None:
            errs.append(field.forbidden(f"{at}.securityContext.windowsOptions", problem))


def _no_linux_options(errs: Errors, path: str, spec: Object) -> None:
    problem = "cannot be set for a windows pod"
    context = spec.get("securityContext") or {}
    for key in _FOREIGN_TO_WINDOWS_POD:
        if context.get(key) is not None:
            errs.append(field.forbidden(f"{path}.securityContext.{key}", problem))
    for key in _FOREIGN_TO_WINDOWS_SPEC:
        if spec.get(key) is not None:
            errs.append(field.forbidden(f"{path}.{key}", problem))
    for container, at in pod_containers.each(spec, path):
        own = container.get("securityContext") or {}
        for key in _FOREIGN_TO_WINDOWS_CONTAINER:
            if own.get(key) is not None:
                errs.append(field.forbidden(f"{at}.securityContext.{key}", problem))


def _host_process(context: Object | None) -> bool | None:
    options = (context or {}).get("windowsOptions")
    return None if options is None else options.get("hostProcess")


def _windows_host_process(errs: Errors, path: str, spec: Object) -> None:
    """Windows containers that run on the host itself: all of a pod or none, and on the host's network."""
    of_pod = _host_process(spec.get("securityContext"))
    containers = on_host = 0
    for container, at in pod_containers.each(spec, path) if _mentions_windows(spec) else ():
        containers += 1
        own = _host_process(container.get("securityContext"))
        if None not in (of_pod, own) and of_pod != own:
            told = "true" if of_pod else "false"
            problem = f"pod hostProcess value must be identical if both are specified, was {told}"
            errs.append(field.invalid(f"{at}.securityContext.windowsOptions.hostProcess", own, problem))
        on_host += bool(of_pod if own is None else own)
    if not on_host:
        return
    if on_host != containers:
        problem = "If pod contains any hostProcess containers then all containers must be HostProcess containers"
        errs.append(field.invalid(path, "", problem))
    if not spec.get("hostNetwork"):
        problem = "hostNetwork must be true if pod contains any hostProcess containers"
        errs.append(field.invalid(f"{path}.hostNetwork", False, problem))


def _mentions_windows(spec: Object) -> bool:
    if "windowsOptions" in (spec.get("securityContext") or ()):
        return True
    return any(
        "windowsOptions" in (container.get("securityContext") or ())
        for key in ("containers", "initContainers", "ephemeralContainers")
        for container in spec.get(key) or ()
    )

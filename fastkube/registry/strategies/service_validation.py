"""Validation of Services. Upstream: ValidateService, ValidateServiceUpdate, ValidateServiceStatusUpdate."""

from __future__ import annotations

from typing import Any

from fastkube.api import field
from fastkube.api.meta import validate_labels
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.checks import Errors, Object
from fastkube.registry.strategies.go_values import shown

# ---------------------------------------------------------------- what a spec says

NONE = "None"
TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
PROTOCOLS = ("SCTP", "TCP", "UDP")
_FAMILIES = ("IPv4", "IPv6")
_FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
_TRAFFIC_POLICIES = ("Cluster", "Local")
_DISTRIBUTIONS = ("PreferClose", "PreferSameZone", "PreferSameNode")
_AFFINITY_MAX_S = 86400
_ONLY_BALANCED = "may only be used when `type` is 'LoadBalancer'"
_FIXED = "may not change once set"

_HINTS, _MODE = "service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"
_SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"


def is_external(spec: Object) -> bool:
    """Whether traffic from outside the cluster reaches the Service."""
    kind = spec.get("type")
    return kind in ("LoadBalancer", "NodePort") or (kind == "ClusterIP" and bool(spec.get("externalIPs")))


def is_headless(spec: Object) -> bool:
    return bool(spec.get("clusterIPs")) and spec["clusterIPs"][0] == NONE


def needs_address(spec: Object) -> bool:
    """Whether there is a clusterIP, be it None."""
    return spec.get("type") != "ExternalName"


def wants_node_ports(spec: Object) -> bool:
    kind = spec.get("type")
    return kind == "NodePort" or (kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False)


def wants_health_port(spec: Object) -> bool:
    """The port at which load balancers ask a node whether it has a local endpoint."""
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def service(errs: Errors, obj: Object, old: Object | None) -> None:
    spec, annotations = obj["spec"], obj["metadata"].get("annotations") or {}
    was = old["spec"] if old is not None else {}
    kind = spec.get("type") or ""
    if _HINTS in annotations and annotations.get(_MODE, annotations[_HINTS]) != annotations[_HINTS]:
        problem = f"must match annotations[{_HINTS}] when both are specified"
        errs.append(field.invalid(f"metadata.annotations[{_MODE}]", annotations[_MODE], problem))
    ports = spec.get("ports") or []
    if not ports and not is_headless(spec) and kind != "ExternalName":
        errs.append(field.required("spec.ports"))
    _of_type(errs, spec, kind)
    names: set[str] = set()
    for number, port in enumerate(ports):
        _port(errs, f"spec.ports[{number}]", port, len(ports) > 1, names)
    if spec.get("selector"):
        errs += validate_labels(spec["selector"], "spec.selector")
    _affinity(errs, spec)
    cluster_ips(errs, spec, was)
    for number, address in enumerate(spec.get("externalIPs") or ()):
        at = f"spec.externalIPs[{number}]"
        if checks.ip(errs, at, address, was.get("externalIPs") or ()):
            checks.endpoint_ip(errs, at, address)
    checks.one_of(errs, "spec.type", kind, TYPES)
    _port_numbers(errs, kind, ports)
    _source_ranges(errs, kind, spec, annotations, old)
    allocate = spec.get("allocateLoadBalancerNodePorts")
    if allocate is not None and kind != "LoadBalancer":
        errs.append(field.forbidden("spec.allocateLoadBalancerNodePorts", _ONLY_BALANCED))
    if allocate is None and kind == "LoadBalancer":
        errs.append(field.required("allocateLoadBalancerNodePorts"))
    _balancer_class(errs, spec, None)
    _traffic(errs, kind, spec)


def _of_type(errs: Errors, spec: Object, kind: str) -> None:
    if kind in ("LoadBalancer", "NodePort"):
        if is_headless(spec):
            problem = f"may not be set to 'None' for {kind} services"
            errs.append(field.invalid("spec.clusterIPs[0]", NONE, problem))
    elif kind == "ExternalName":
        for key in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if spec.get(key):
                errs.append(field.forbidden(f"spec.{key}", "may not be set for ExternalName services"))
        name = (spec.get("externalName") or "").removesuffix(".")
        if name:
            checks.subdomain(errs, "spec.externalName", name)
        else:
            errs.append(field.required("spec.externalName"))


# ---------------------------------------------------------------- ports


def _port(errs: Errors, path: str, port: Object, needs_name: bool, names: set[str]) -> None:
    name = port.get("name")
    if name:
        checks.label(errs, f"{path}.name", name)
        if name in names:
            errs.append(field.duplicate(f"{path}.name", name))
        names.add(name)
    elif needs_name:
        errs.append(field.required(f"{path}.name"))
    checks.port(errs, f"{path}.port", port.get("port") or 0)
    checks.one_of_required(errs, f"{path}.protocol", port.get("protocol") or "", PROTOCOLS)
    checks.port_or_name(errs, f"{path}.targetPort", port.get("targetPort") or 0)
    protocol = port.get("appProtocol")
    if protocol is not None:
        checks.qualified(errs, f"{path}.appProtocol", protocol)


def _port_numbers(errs: Errors, kind: str, ports: list[Object]) -> None:
    """Node ports where there may be none, and the same port twice."""
    if kind == "ClusterIP":
        for number, port in enumerate(ports):
            if port.get("nodePort"):
                problem = "may not be used when `type` is 'ClusterIP'"
                errs.append(field.forbidden(f"spec.ports[{number}].nodePort", problem))
    seen: set[tuple[Any, Any]] = set()
    for number, port in enumerate(ports):
        if not port.get("nodePort"):
            continue
        if (port.get("protocol"), port["nodePort"]) in seen:
            errs.append(field.duplicate(f"spec.ports[{number}].nodePort", port["nodePort"]))
        seen.add((port.get("protocol"), port["nodePort"]))
    seen = set()
    for number, port in enumerate(ports):
        key = (port.get("protocol"), port.get("port"))
        if key in seen:
            told = shown("ServicePort", {"protocol": key[0], "port": key[1], "targetPort": 0})
            errs.append(field.duplicate(f"spec.ports[{number}]", told))
        seen.add(key)


# ---------------------------------------------------------------- affinity and traffic


def _affinity(errs: Errors, spec: Object) -> None:
    affinity, config = spec.get("sessionAffinity") or "", spec.get("sessionAffinityConfig")
    checks.one_of_required(errs, "spec.sessionAffinity", affinity, ("ClientIP", NONE))
    path = "spec.sessionAffinityConfig"
    if affinity == NONE and config is not None:
        errs.append(field.forbidden(path, f"must not be set when session affinity is {NONE}"))
    if affinity != "ClientIP":
        return
    problem = "when session affinity type is ClientIP"
    client = (config or {}).get("clientIP")
    if config is None:
        errs.append(field.required(path, problem))
    elif client is None:
        errs.append(field.required(f"{path}.clientIP", problem))
    elif client.get("timeoutSeconds") is None:
        errs.append(field.required(f"{path}.clientIP.timeoutSeconds", problem))
    elif not 0 < client["timeoutSeconds"] <= _AFFINITY_MAX_S:
        problem = f"must be greater than 0 and less than {_AFFINITY_MAX_S}"
        errs.append(field.invalid(f"{path}.clientIP.timeoutSeconds", client["timeoutSeconds"], problem))


def _source_ranges(errs: Errors, kind: str, spec: Object, annotations: dict[str, str], old: Object | None) -> None:
    ranges = spec.get("loadBalancerSourceRanges")
    if ranges:
        path = "spec.LoadBalancerSourceRanges"
        if kind != "LoadBalancer":
            errs.append(field.forbidden(path, _ONLY_BALANCED))
        known = (old["spec"].get("loadBalancerSourceRanges") or ()) if old is not None else ()
        for number, text in enumerate(ranges):
            checks.cidr(errs, f"{path}[{number}]", text.strip(), [each.strip() for each in known])
    elif _SOURCE_RANGES in annotations:
        path = f"metadata.annotations[{_SOURCE_RANGES}]"
        if kind != "LoadBalancer":
            errs.append(field.forbidden(path, _ONLY_BALANCED))
        text = annotations[_SOURCE_RANGES]
        before = (old["metadata"].get("annotations") or {}).get(_SOURCE_RANGES) if old is not None else None
        if text != before and text.strip():
            for each in text.strip().split(","):
                checks.cidr(errs, path, each.strip())


def _balancer_class(errs: Errors, spec: Object, was: Object | None) -> None:
    path, name = "spec.loadBalancerClass", spec.get("loadBalancerClass")
    balanced = spec.get("type") == "LoadBalancer"
    if was is not None and balanced and was.get("type") == "LoadBalancer" and name != was.get("loadBalancerClass"):
        errs.append(field.invalid(path, name, _FIXED))
    if name is None:
        return
    if balanced:
        checks.qualified(errs, path, name)
    else:
        errs.append(field.forbidden(path, _ONLY_BALANCED))


def _traffic(errs: Errors, kind: str, spec: Object) -> None:
    policy, port = spec.get("externalTrafficPolicy") or "", spec.get("healthCheckNodePort") or 0
    path = "spec.externalTrafficPolicy"
    if is_external(spec):
        checks.one_of_required(errs, path, policy, _TRAFFIC_POLICIES)
    elif policy:
        errs.append(field.invalid(path, policy, "may only be set for externally-accessible services"))
    path = "spec.healthCheckNodePort"
    if not wants_health_port(spec):
        if port:
            problem = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
            errs.append(field.invalid(path, port, problem))
    elif not port:
        errs.append(field.required(path))
    else:
        checks.port(errs, path, port)
    internal = spec.get("internalTrafficPolicy")
    if internal is None:
        if needs_address(spec):
            errs.append(field.required("spec.internalTrafficPolicy"))
    else:
        checks.one_of(errs, "spec.internalTrafficPolicy", internal, _TRAFFIC_POLICIES)
    distribution = spec.get("trafficDistribution")
    if distribution is not None:
        checks.one_of(errs, "spec.trafficDistribution", distribution, _DISTRIBUTIONS)


# ---------------------------------------------------------------- addresses and families


def cluster_ips(errs: Errors, spec: Object, was: Object) -> None:
    """clusterIP, clusterIPs, ipFamilies and ipFamilyPolicy by themselves and together; of ExternalName there are none.

    Upstream: ValidateServiceClusterIPsRelatedFields.
    """
    if spec.get("type") == "ExternalName":
        return
    path, ips = "spec.clusterIPs", spec.get("clusterIPs") or []
    primary = spec.get("clusterIP")
    if primary and not ips:
        errs.append(field.required(path))
    elif primary and ips[0] != primary:
        errs.append(field.invalid(path, ips, "first value must match `clusterIP`"))
    elif not primary and ips:
        errs.append(field.invalid(path, ips, "must be empty when `clusterIP` is not specified"))
    families = spec.get("ipFamilies") or []
    for number, family in enumerate(families):
        checks.one_of(errs, f"spec.ipFamilies[{number}]", family, _FAMILIES)
        if family in families[:number]:
            errs.append(field.duplicate(f"spec.ipFamilies[{number}]", family))
    policy = spec.get("ipFamilyPolicy")
    if policy is not None:
        checks.one_of(errs, "spec.ipFamilyPolicy", policy, _FAMILY_POLICIES)
    if not _good_ips(errs, path, ips, was.get("clusterIPs") or []):
        return
    if len(ips) > 1 and not checks.is_dual_stack(map(checks.parse_ip, ips)):
        errs.append(field.invalid(path, ips, "may specify no more than one IP for each IP family"))
    if not is_headless(spec):
        for number, (address, family) in enumerate(zip(ips, families, strict=False)):
            parsed = checks.parse_ip(address)
            if parsed is not None and family in _FAMILIES and f"IPv{parsed.version}" != family:
                problem = f"expected an {family} value as indicated by `ipFamilies[{number}]`"
                errs.append(field.invalid(f"{path}[{number}]", address, problem))


def _good_ips(errs: Errors, path: str, ips: list[str], known: list[str]) -> bool:
    good = True
    for number, address in enumerate(ips):
        if number == 0 and address == NONE:
            if len(ips) > 1:
                good = False
                errs.append(field.invalid(path, ips, "'None' must be the first and only value"))
            continue
        good &= checks.ip(errs, f"{path}[{number}]", address, known)
    if len(ips) > 2:
        errs.append(field.invalid(path, ips, "may only hold up to 2 values"))
    return good


# ---------------------------------------------------------------- updates


def service_update(errs: Errors, new: Object, old: Object) -> None:
    now, was = new["spec"], old["spec"]
    if "ExternalName" not in (now.get("type"), was.get("type")):
        _changed_ips(errs, now, was)
        _changed_families(errs, now, was)
    _balancer_class(errs, now, was)
    service(errs, new, old)


def _changed_ips(errs: Errors, now: Object, was: Object) -> None:
    if is_headless(now) and is_headless(was):
        return
    path, ips, before = "spec.clusterIPs", now.get("clusterIPs") or [], was.get("clusterIPs") or []
    if len(ips) == len(before):
        for number, address in enumerate(before):
            if ips[number] != address:
                errs.append(field.invalid(f"{path}[{number}]", ips, _FIXED))
    elif not ips:
        errs.append(field.invalid(f"{path}[0]", None, "primary clusterIP can not be unset"))
    else:
        if before and ips[0] != before[0]:
            errs.append(field.invalid(f"{path}[0]", ips, _FIXED))
        if len(before) > len(ips) == 1:
            _released(errs, now, "clusterIP")


def _changed_families(errs: Errors, now: Object, was: Object) -> None:
    if is_headless(now) or is_headless(was):
        return
    path, families, before = "spec.ipFamilies", now.get("ipFamilies") or [], was.get("ipFamilies") or []
    ips = now.get("clusterIPs") or None
    if len(families) == len(before):
        errs += [
            field.invalid(f"{path}[0]", families, _FIXED)
            for number, family in enumerate(before)
            if families[number] != family
        ]
        return
    if len(before) > len(families) and not ips:
        errs.append(field.invalid(f"{path}[0]", families, "primary ipFamily can not be unset"))
    if before and families and families[0] != before[0]:
        errs.append(field.invalid(f"{path}[0]", ips, _FIXED))
    if len(before) > len(families) == 1:
        _released(errs, now, "ipFamily")


def _released(errs: Errors, now: Object, what: str) -> None:
    policy = now.get("ipFamilyPolicy")
    if policy != "SingleStack":
        problem = f"must be set to 'SingleStack' when releasing the secondary {what}"
        errs.append(field.invalid("spec.ipFamilyPolicy", policy, problem))


def service_status_update(errs: Errors, new: Object, old: Object) -> None:
    balancer = (new.get("status") or {}).get("loadBalancer") or {}
    before = (old.get("status") or {}).get("loadBalancer") or {}
    ingress = balancer.get("ingress") or []
    path = "status.loadBalancer"
    if ingress and new["spec"].get("type") != "LoadBalancer" and ingress != (before.get("ingress") or []):
        errs.append(field.forbidden(f"{path}.ingress", "may only be used when `spec.type` is 'LoadBalancer'"))
        return
    known = [each["ip"] for each in before.get("ingress") or () if each.get("ip")]
    for number, each in enumerate(ingress):
        _balancer_ingress(errs, f"{path}.ingress[{number}]", each, known)


def _balancer_ingress(errs: Errors, path: str, ingress: Object, known: list[str]) -> None:
    address, mode, host = ingress.get("ip"), ingress.get("ipMode"), ingress.get("hostname")
    if address:
        checks.ip(errs, f"{path}.ip", address, known)
        if mode is None:
            errs.append(field.required(f"{path}.ipMode", "must be specified when `ip` is set"))
    elif mode is not None:
        errs.append(field.forbidden(f"{path}.ipMode", "may not be specified when `ip` is not set"))
    if mode is not None:
        checks.one_of(errs, f"{path}.ipMode", mode, ("Proxy", "VIP"))
    if host:
        checks.subdomain(errs, f"{path}.hostname", host)
        if checks.parse_ip(host) is not None:
            errs.append(field.invalid(f"{path}.hostname", host, "must be a DNS name, not an IP address"))

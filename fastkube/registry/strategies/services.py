"""Services: defaults, and what an update drops because the new type has no use for it.

Addresses and ports are allotted by `registry.services`; validation is in service_validation.
"""

from __future__ import annotations

from fastkube.api.names import dns1123_label
from fastkube.errors import Cause
from fastkube.registry.strategies import service_validation
from fastkube.registry.strategies.checks import Errors, cidr_warnings, ip_warnings
from fastkube.registry.strategies.service_validation import (
    is_external,
    is_headless,
    needs_address,
    wants_health_port,
    wants_node_ports,
)
from fastkube.registry.strategy import Call, Object, Strategy

_CLIENT_IP_TIMEOUT_S = 10800
_HINTS, _MODE = "service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"


class ServiceStrategy(Strategy):
    metadata_checks = ("update",)
    has_generation = False
    allow_create_on_update = True

    def default(self, obj: Object) -> None:
        default_service(obj.setdefault("spec", {}))
        for ingress in ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ():
            if ingress.get("ip") and ingress.get("ipMode") is None and obj["spec"]["type"] == "LoadBalancer":
                ingress["ipMode"] = "VIP"

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        super().prepare_for_create(call, obj)
        _drop_internal_policy(obj)

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        super().prepare_for_update(call, new, old)
        _drop_useless(new, old)
        _drop_internal_policy(new)

    def validate_name(self, name: str, prefix: bool) -> list[str]:
        return dns1123_label(name, prefix)

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        service_validation.service(errs, obj, None)
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        service_validation.service_update(errs, new, old)
        return errs

    def validate_status_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        service_validation.service_status_update(errs, new, old)
        return errs

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        return service_warnings(obj)


def default_service(spec: Object) -> None:
    affinity = spec.get("sessionAffinity")
    if not affinity:
        affinity = spec["sessionAffinity"] = "None"
    if affinity == "None":
        spec.pop("sessionAffinityConfig", None)
    elif affinity == "ClientIP":
        client = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        if client.get("timeoutSeconds") is None:
            spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": _CLIENT_IP_TIMEOUT_S}}
    kind = spec.get("type")
    if not kind:
        kind = spec["type"] = "ClusterIP"
    for port in spec.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port") or 0
    if is_external(spec) and not spec.get("externalTrafficPolicy"):
        spec["externalTrafficPolicy"] = "Cluster"
    if spec.get("internalTrafficPolicy") is None and needs_address(spec):
        spec["internalTrafficPolicy"] = "Cluster"
    if kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is None:
        spec["allocateLoadBalancerNodePorts"] = True


# ---------------------------------------------------------------- changes of type


def _drop_internal_policy(obj: Object) -> None:
    """A Service of another name has no traffic to route: upstream never shows a policy of it."""
    if obj["spec"].get("type") == "ExternalName":
        _drop(obj["spec"], "internalTrafficPolicy")


def _drop_useless(new: Object, old: Object) -> None:
    """What the new type has no use for is dropped where it is as it was: it was filled in by the server, probably."""
    now, was = new["spec"], old["spec"]
    if was.get("type") != "ExternalName" and now.get("type") == "ExternalName":
        if _same(now, was, "clusterIPs") and _same(now, was, "clusterIP"):
            _drop(now, "clusterIP", "clusterIPs")
        for key in ("ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"):
            if _same(now, was, key):
                _drop(now, key)
    if wants_node_ports(was) and not wants_node_ports(now) and _ports_of(now) == _ports_of(was):
        for port in now.get("ports") or ():
            port.pop("nodePort", None)
    if wants_health_port(was) and not wants_health_port(now) and _same(now, was, "healthCheckNodePort"):
        _drop(now, "healthCheckNodePort")
    if was.get("type") == "LoadBalancer" and now.get("type") != "LoadBalancer":
        for key in ("allocateLoadBalancerNodePorts", "loadBalancerClass"):
            if was.get(key) is not None and _same(now, was, key):
                _drop(now, key)
    if is_external(was) and not is_external(now) and _same(now, was, "externalTrafficPolicy"):
        _drop(now, "externalTrafficPolicy")
    if now.get("type") != "LoadBalancer" and "status" in new:
        new["status"] = {**new["status"], "loadBalancer": {}}


def _same(now: Object, was: Object, key: str) -> bool:
    return bool(now.get(key) == was.get(key))


def _drop(spec: Object, *keys: str) -> None:
    for key in keys:
        spec.pop(key, None)


def _ports_of(spec: Object) -> set[int]:
    return {port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")}


# ---------------------------------------------------------------- warnings


def service_warnings(obj: Object) -> list[str]:
    told: list[str] = []
    spec, kind = obj["spec"], obj["spec"].get("type")
    if _HINTS in (obj["metadata"].get("annotations") or {}):
        told.append(f"annotation {_HINTS} is deprecated, please use {_MODE} instead")
    headless = kind == "ClusterIP" and is_headless(spec)
    if headless:
        ignored = [key for key in ("loadBalancerIP", "externalIPs") if spec.get(key)]
        ignored += ["SessionAffinity"] if spec.get("sessionAffinity") != "None" else []
        told += [f"spec.{key} is ignored for headless services" for key in ignored]
    else:
        told += _address_warnings("spec.clusterIPs", spec.get("clusterIPs"))
    told += _address_warnings("spec.externalIPs", spec.get("externalIPs"))
    if spec.get("externalIPs") and not headless and kind != "ExternalName":
        told.append("spec.externalIPs is deprecated and may no longer be implemented in some clusters")
    if spec.get("loadBalancerIP"):
        told += ip_warnings("spec.loadBalancerIP", spec["loadBalancerIP"])
    for number, text in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        told += cidr_warnings(f"spec.loadBalancerSourceRanges[{number}]", text)
    if kind == "ExternalName" and spec.get("externalIPs"):
        told.append('spec.externalIPs is ignored when spec.type is "ExternalName"')
    if kind != "ExternalName" and spec.get("externalName"):
        told.append('spec.externalName is ignored when spec.type is not "ExternalName"')
    if spec.get("trafficDistribution") == "PreferClose":
        told.append('spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"')
    return told


def _address_warnings(path: str, addresses: list[str] | None) -> list[str]:
    return [text for number, one in enumerate(addresses or ()) for text in ip_warnings(f"{path}[{number}]", one)]


STRATEGIES: dict[tuple[str, str], Strategy] = {("", "services"): ServiceStrategy()}

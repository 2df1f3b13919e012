"""Services: defaults, and what an update drops because the new type has no use for it.

Addresses and ports are allotted by `registry.services`; validation is in service_validation.
"""

from __future__ import annotations

from fastkube.registry.strategy import Call, Object, Strategy

CLIENT_IP_TIMEOUT_S = 10800


class ServiceStrategy(Strategy):
    has_generation = False

    def default(self, obj: Object) -> None:
        default_service(obj.setdefault("spec", {}))

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        super().prepare_for_update(call, new, old)
        _drop_useless(new, old)


def default_service(spec: Object) -> None:
    affinity = spec.get("sessionAffinity")
    if not affinity:
        affinity = spec["sessionAffinity"] = "None"
    if affinity == "None":
        spec.pop("sessionAffinityConfig", None)
    elif affinity == "ClientIP":
        client = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        if client.get("timeoutSeconds") is None:
            spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": CLIENT_IP_TIMEOUT_S}}
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
    if spec.get("internalTrafficPolicy") is None and kind in ("ClusterIP", "NodePort", "LoadBalancer"):
        spec["internalTrafficPolicy"] = "Cluster"
    if kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is None:
        spec["allocateLoadBalancerNodePorts"] = True


def is_external(spec: Object) -> bool:
    """Whether traffic from outside the cluster reaches the Service."""
    kind = spec.get("type")
    return kind in ("LoadBalancer", "NodePort") or (kind == "ClusterIP" and bool(spec.get("externalIPs")))


# ---------------------------------------------------------------- changes of type


def wants_node_ports(spec: Object) -> bool:
    kind = spec.get("type")
    return kind == "NodePort" or (kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False)


def wants_health_port(spec: Object) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _drop_useless(new: Object, old: Object) -> None:
    """What the new type has no use for is dropped where it is as it was: it was filled in by the server, probably."""
    now, was = new["spec"], old["spec"]
    if was.get("type") != "ExternalName" and now.get("type") == "ExternalName":
        if _same(now, was, "clusterIPs") and _same(now, was, "clusterIP"):
            _drop(now, "clusterIP", "clusterIPs")
        for key in ("ipFamilies", "ipFamilyPolicy"):
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


STRATEGIES: dict[tuple[str, str], Strategy] = {("", "services"): ServiceStrategy()}

"""Services get their addresses and ports, and keep them: the companion writes of every Service.

    create    clusterIP and clusterIPs agree → IP families → an address → node ports, health check port
    update    what the client left out stays as it was → the same → what is no longer used is freed
    delete    everything is freed

Source: "Service" and "IPv4/IPv6 dual-stack" of the Kubernetes documentation. The cluster is IPv4-only: other families
are refused, as kube-apiserver refuses them with an IPv4 --service-cluster-ip-range.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastkube import errors
from fastkube.api import field, meta
from fastkube.clock import rfc3339
from fastkube.errors import Cause
from fastkube.registry.allocators import ClusterIps, Exhausted, NodePorts, Taken
from fastkube.registry.strategy import Call, Object

if TYPE_CHECKING:
    from fastkube.store import Store

_WITH_ADDRESS = ("ClusterIP", "NodePort", "LoadBalancer")
_NONE = "None"


class ServiceAddresses:
    """The attendant of Services. `cidr` and `node_ports` are those of the server's flags. Raises ValueError."""

    def __init__(self, store: Store, cidr: str, node_ports: str = "30000-32767") -> None:
        first, last = _parse_ports(node_ports)
        self.ips = ClusterIps(store, cidr)
        self.ports = NodePorts(store, first, last)

    def close(self) -> None:
        self.ips.close()
        self.ports.close()

    def on_create(self, call: Call, obj: Object) -> None:
        spec = obj["spec"]
        if spec.get("clusterIP") and not spec.get("clusterIPs"):
            spec["clusterIPs"] = [spec["clusterIP"]]
        _check_ips(obj, None)
        _set_families(obj, spec)
        if _needs_address(spec) and not _is_headless(spec):
            self._allot_address(call, obj, spec)
        self._allot_ports(call, obj, spec, set())
        self._allot_health_port(call, obj, spec, 0)

    def on_update(self, call: Call, new: Object, old: Object) -> None:
        if call.subresource:
            return
        now, was = new["spec"], old["spec"]
        _keep_allotted(now, was)
        _sync_ips(now, was)
        _check_ips(new, old)
        _set_families(new, now)
        if _has_address(was) and not _needs_address(now):
            self.ips.release(call.companions, was["clusterIP"])
        elif _needs_address(now) and not _needs_address(was) and not _is_headless(now):
            self._allot_address(call, new, now)
        self._exchange_ports(call, new, now, was)

    def on_delete(self, call: Call, old: Object) -> None:
        spec = old["spec"]
        if _has_address(spec):
            self.ips.release(call.companions, spec["clusterIP"])
        for port in _node_ports(spec) | _health_ports(spec):
            self.ports.release(call.companions, port)

    # ---------------------------------------------------------------- addresses

    def _allot_address(self, call: Call, obj: Object, spec: Object) -> None:
        asked = spec.get("clusterIP") or ""

        def make(address: str) -> Object:
            return ip_address(address, call.namespace, obj["metadata"]["name"], rfc3339(call.now))

        try:
            address = self.ips.allot(call.companions, make, asked)
        except Taken as why:
            problem = f"failed to allocate IP {asked}: {why}"
            raise _invalid(obj, [field.invalid("spec.clusterIPs", spec["clusterIPs"], problem)]) from None
        except Exhausted:
            raise errors.internal("failed to allocate a serviceIP: range is full") from None
        if not asked:
            call.companions.finish.append(lambda: _forget(spec, "clusterIP", "clusterIPs"))
        spec["clusterIP"], spec["clusterIPs"] = address, [address]

    # ---------------------------------------------------------------- ports

    def _allot_ports(self, call: Call, obj: Object, spec: Object, kept: set[int]) -> None:
        """A node port for each port that has or wants one; one number serves all protocols of the same port."""
        wants = _wants_node_ports(spec)
        if not wants and not (spec.get("type") == "LoadBalancer" and _node_ports(spec)):
            return
        ports: list[Object] = spec.get("ports") or []
        by_port: dict[Any, int] = {}
        held = set(kept)
        for index, port in enumerate(ports):
            number = port.get("nodePort") or 0
            if not number and not wants:
                continue
            if not number:
                number = by_port.get(port.get("port"), 0) or _asked_later(ports[index:], port.get("port"))
            if not number or number not in held:
                path = f"spec.ports[{index}].nodePort"
                number = self._allot_port(call, obj, path, number)
                held.add(number)
            if not port.get("nodePort"):
                call.companions.finish.append(_forgetting(port, "nodePort"))
                port["nodePort"] = number
            by_port.setdefault(port.get("port"), number)

    def _allot_port(self, call: Call, obj: Object, path: str, number: int) -> int:
        try:
            return self.ports.allot(call.companions, f"{call.namespace}/{obj['metadata']['name']}", number)
        except Taken as why:
            raise _invalid(obj, [field.invalid(path, number, str(why))]) from None
        except Exhausted:
            raise errors.internal("failed to allocate a nodePort: range is full") from None

    def _allot_health_port(self, call: Call, obj: Object, spec: Object, kept: int) -> None:
        """The port at which load balancers ask a node whether it has a local endpoint."""
        if not _wants_health_port(spec):
            return
        asked = spec.get("healthCheckNodePort") or 0
        if asked and asked == kept:
            return
        number = self._allot_port(call, obj, "spec.healthCheckNodePort", asked)
        if not asked:
            call.companions.finish.append(_forgetting(spec, "healthCheckNodePort"))
        spec["healthCheckNodePort"] = number

    def _exchange_ports(self, call: Call, new: Object, now: Object, was: Object) -> None:
        before = _node_ports(was)
        self._allot_ports(call, new, now, before)
        health_before = _health_ports(was)
        self._allot_health_port(call, new, now, next(iter(health_before), 0))
        used = _node_ports(now) if _may_have_node_ports(now) else set()
        health_used = _health_ports(now) if _wants_health_port(now) else set()
        for port in (before | health_before) - used - health_used:
            self.ports.release(call.companions, port)


def ip_address(address: str, namespace: str, name: str, now: str) -> Object:
    """The IPAddress which says that a Service has this address."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": address,
            "uid": meta.new_uid(),
            "creationTimestamp": now,
            "labels": {
                "ipaddress.kubernetes.io/ip-family": "IPv4",
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": name}},
    }


# ---------------------------------------------------------------- what a spec says


def _needs_address(spec: Object) -> bool:
    return spec.get("type") in _WITH_ADDRESS


def _is_headless(spec: Object) -> bool:
    return spec.get("clusterIP") == _NONE


def _has_address(spec: Object) -> bool:
    return spec.get("clusterIP") not in (None, "", _NONE)


def _wants_node_ports(spec: Object) -> bool:
    if spec.get("type") == "NodePort":
        return True
    return spec.get("type") == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False


def _may_have_node_ports(spec: Object) -> bool:
    return spec.get("type") in ("NodePort", "LoadBalancer")


def _wants_health_port(spec: Object) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _node_ports(spec: Object) -> set[int]:
    return {port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")}


def _health_ports(spec: Object) -> set[int]:
    port = spec.get("healthCheckNodePort")
    return {port} if port else set()


def _asked_later(ports: list[Object], number: Any) -> int:
    """The node port that a further entry for the same port names."""
    return next((port["nodePort"] for port in ports if port.get("port") == number and port.get("nodePort")), 0)


def _forget(holder: Object, *keys: str) -> None:
    for key in keys:
        holder.pop(key, None)


def _forgetting(holder: Object, key: str) -> Callable[[], None]:
    """Takes back what was allotted, so that another attempt at the write is allotted anew."""
    return lambda: _forget(holder, key)


def _parse_ports(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    if not first.isdigit() or not last.isdigit() or not 0 < int(first) <= int(last) <= 65535:
        raise ValueError(f"service-node-port-range: {text!r} is no range of ports such as 30000-32767")
    return int(first), int(last)


# ---------------------------------------------------------------- updates


def _keep_allotted(now: Object, was: Object) -> None:
    """Fills in what the server had allotted and the client left out."""
    if _needs_address(now) and _needs_address(was):
        if not now.get("clusterIP") and was.get("clusterIP"):
            now["clusterIP"] = was["clusterIP"]
        if not now.get("clusterIPs") and now.get("clusterIP") == was.get("clusterIP") and was.get("clusterIPs"):
            now["clusterIPs"] = list(was["clusterIPs"])
    if _wants_node_ports(now) and _wants_node_ports(was):
        _keep_node_ports(now, was)
    if _wants_health_port(now) and _wants_health_port(was) and not now.get("healthCheckNodePort"):
        port = was.get("healthCheckNodePort")
        if port:
            now["healthCheckNodePort"] = port


def _keep_node_ports(now: Object, was: Object) -> None:
    """By the ports' names; a number that is named for another port already is not given twice."""
    used = _node_ports(was) & _node_ports(now)
    by_name = {port.get("name") or "": port.get("nodePort") or 0 for port in was.get("ports") or ()}
    for port in now.get("ports") or ():
        if port.get("nodePort"):
            continue
        number = by_name.get(port.get("name") or "", 0)
        if number and number not in used:
            port["nodePort"] = number
            used.add(number)


def _sync_ips(now: Object, was: Object) -> None:
    """An old client changes clusterIP alone; clusterIPs follows."""
    ips, before = now.get("clusterIPs") or [], was.get("clusterIPs") or []
    primary = now.get("clusterIP") or ""
    if primary == (was.get("clusterIP") or "") or ips != before:
        return
    if primary:
        now["clusterIPs"] = [primary]
    else:
        now.pop("clusterIPs", None)


# ---------------------------------------------------------------- families and checks


def _set_families(obj: Object, spec: Object) -> None:
    """ipFamilies and ipFamilyPolicy of an IPv4-only cluster."""
    if not _needs_address(spec):
        return
    families: list[str] = spec.get("ipFamilies") or []
    if _is_headless(spec) and not spec.get("selector"):
        policy = spec.setdefault("ipFamilyPolicy", "RequireDualStack")
        spec["ipFamilies"] = families or ["IPv4"]
        if policy != "SingleStack" and len(spec["ipFamilies"]) == 1:
            spec["ipFamilies"] = [spec["ipFamilies"][0], "IPv6" if spec["ipFamilies"][0] == "IPv4" else "IPv4"]
        return
    policy = spec.get("ipFamilyPolicy")
    if policy is None:
        dual = len(families) > 1 or len(spec.get("clusterIPs") or ()) > 1
        policy = spec["ipFamilyPolicy"] = "RequireDualStack" if dual else "SingleStack"
    causes: list[Cause] = []
    if policy == "RequireDualStack":
        problem = "this cluster is not configured for dual-stack services"
        causes.append(field.invalid("spec.ipFamilyPolicy", policy, problem))
    for index, family in enumerate(families):
        if family != "IPv4":
            problem = "not configured on this cluster"
            causes.append(field.invalid(f"spec.ipFamilies[{index}]", family, problem))
    if causes:
        raise _invalid(obj, causes)
    spec["ipFamilies"] = ["IPv4"]


def _check_ips(obj: Object, old: Object | None) -> None:
    """clusterIP and clusterIPs agree, are addresses, and do not change."""
    spec = obj["spec"]
    ips: list[str] = spec.get("clusterIPs") or []
    primary = spec.get("clusterIP") or ""
    if not _needs_address(spec):
        return
    causes: list[Cause] = []
    if primary and ips and ips[0] != primary:
        causes.append(field.invalid("spec.clusterIPs", ips, "first value must match `clusterIP`"))
    elif ips and not primary:
        problem = "may not be set when `clusterIP` is not specified"
        causes.append(field.forbidden("spec.clusterIPs", problem))
    for index, address in enumerate(ips):
        if address != _NONE and not _is_ip(address):
            problem = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            causes.append(field.invalid(f"spec.clusterIPs[{index}]", address, problem))
    if old is not None and not causes:
        before: list[str] = old["spec"].get("clusterIPs") or []
        if _needs_address(old["spec"]) and before and (not ips or ips[0] != before[0]):
            causes.append(field.invalid("spec.clusterIPs[0]", ips, "may not change once set"))
    if causes:
        raise _invalid(obj, causes)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _invalid(obj: Object, causes: list[Cause]) -> errors.ApiError:
    return errors.invalid("", "Service", obj["metadata"].get("name") or "", causes)

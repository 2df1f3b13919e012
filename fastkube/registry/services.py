"""Services get their addresses and ports, and keep them: the companion writes of every Service.

    create    clusterIP and clusterIPs agree → IP families → an address → node ports, health check port
    update    what the client left out stays as it was → the same → what is no longer used is freed
    delete    everything is freed

Source: "Service" and "IPv4/IPv6 dual-stack" of the Kubernetes documentation. The cluster is IPv4-only: other families
are refused, as kube-apiserver refuses them with an IPv4 --service-cluster-ip-range.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import msgpack

from fastkube import errors
from fastkube.api import field, meta
from fastkube.clock import rfc3339
from fastkube.errors import Cause
from fastkube.registry.allocators import ClusterIps, Exhausted, NodePorts, Taken
from fastkube.registry.strategies.checks import parse_ip
from fastkube.registry.strategies.service_validation import (
    NONE,
    cluster_ips,
    is_headless,
    needs_address,
    wants_health_port,
    wants_node_ports,
)
from fastkube.registry.strategy import Call, Object
from fastkube.store.store import MAX_WRITES

if TYPE_CHECKING:
    from fastkube.store import Store

_FAMILY = "IPv4"
_NODE_PORT_GUESSED = 32768  # what upstream counts from in a dry run

_SERVICES = b"/registry/services/"


class ServiceAddresses:
    """The attendant of Services. `cidr` and `node_ports` are those of the server's flags. Raises ValueError."""

    def __init__(self, store: Store, cidr: str, node_ports: str = "30000-32767") -> None:
        first, last = _parse_ports(node_ports)
        self._store = store
        self.ips = ClusterIps(store, cidr)
        self.ports = NodePorts(store, first, last)

    def close(self) -> None:
        self.ips.close()
        self.ports.close()

    def on_create(self, call: Call, obj: Object) -> None:
        spec = obj["spec"]
        if spec.get("clusterIP") and not spec.get("clusterIPs"):
            spec["clusterIPs"] = [spec["clusterIP"]]
        _settle_families(obj, spec, {})
        if needs_address(spec) and not is_headless(spec):
            self._allot_address(call, obj, spec)
        self._allot_ports(call, obj, spec, None)
        self._allot_health_port(call, obj, spec, 0)

    def on_update(self, call: Call, new: Object, old: Object) -> None:
        if call.subresource:
            return
        now, was = new["spec"], old["spec"]
        _keep_allotted(now, was)
        _sync_ips(now, was)
        _settle_families(new, now, was)
        if _has_address(was) and not needs_address(now):
            self.ips.release(call.companions, was["clusterIP"])
        elif needs_address(now) and not needs_address(was) and not is_headless(now):
            self._allot_address(call, new, now)
        self._exchange_ports(call, new, now, was)

    def on_delete(self, call: Call, old: Object) -> None:
        spec = old["spec"]
        if _has_address(spec):
            self.ips.release(call.companions, spec["clusterIP"])
        for port in _node_ports(spec) | _health_ports(spec):
            self.ports.release(call.companions, port)

    async def adopt(self) -> None:
        """Note the node ports of Services that a server of another kind has written: it keeps a record of its own."""
        writes = []
        for item in self._store.scan(_SERVICES, _SERVICES[:-1] + b"0"):
            spec = msgpack.unpackb(item.value)["spec"]
            owner = item.key[len(_SERVICES) :].decode()
            found = (self.ports.note(owner, port) for port in _node_ports(spec) | _health_ports(spec))
            writes += [write for write in found if write is not None]
        for first in range(0, len(writes), MAX_WRITES):
            await self._store.write(writes[first : first + MAX_WRITES])  # what another server was first with is there

    # ---------------------------------------------------------------- addresses

    def _allot_address(self, call: Call, obj: Object, spec: Object) -> None:
        asked = spec.get("clusterIP") or ""

        def make(address: str) -> Object:
            return ip_address(address, call.namespace, obj["metadata"].get("name") or "", rfc3339(call.now))

        try:
            address = self.ips.allot(call.companions, make, asked, call.dry_run)
        except Taken as why:
            problem = f"failed to allocate IP {asked}: {why}"
            raise _invalid(obj, [field.invalid("spec.clusterIPs", spec["clusterIPs"], problem)]) from None
        except Exhausted:
            raise errors.internal("failed to allocate a serviceIP: range is full") from None
        if not asked:
            call.companions.finish.append(lambda: _forget(spec, "clusterIP", "clusterIPs"))
        spec["clusterIP"], spec["clusterIPs"] = address, [address]

    # ---------------------------------------------------------------- ports

    def _allot_ports(self, call: Call, obj: Object, spec: Object, kept: set[int] | None) -> None:
        """A node port for each port that has or wants one; one number serves all protocols of the same port.

        `kept` are those that the Service had, None if it is new."""
        wants = wants_node_ports(spec)
        if not wants and not (spec.get("type") == "LoadBalancer" and _node_ports(spec)):
            return
        ports: list[Object] = spec.get("ports") or []
        by_port: dict[Any, int] = {}
        held = set(kept or ())
        for index, port in enumerate(ports):
            number = port.get("nodePort") or 0
            if not number and not wants:
                continue
            if not number:
                number = by_port.get(port.get("port"), 0) or _asked_later(ports[index:], port.get("port"))
            known = number in held if kept is not None else by_port.get(port.get("port")) == number
            if not number or not known:
                path = f"spec.ports[{index}].nodePort"
                number = self._allot_port(call, obj, path, number, held)
                held.add(number)
            if not port.get("nodePort"):
                call.companions.finish.append(_forgetting(port, "nodePort"))
                port["nodePort"] = number
            by_port.setdefault(port.get("port"), number)

    def _allot_port(self, call: Call, obj: Object, path: str, number: int, held: Collection[int] = ()) -> int:
        if call.dry_run and not number:  # upstream's guess: no port that a Service could have
            return max([_NODE_PORT_GUESSED, *_node_ports(obj["spec"]), *_health_ports(obj["spec"])]) + 1
        if number in held or (call.dry_run and not self.ports.is_free(number)):
            raise _invalid(obj, [field.invalid(path, number, "provided port is already allocated")])
        if call.dry_run:  # nor does it look at the range then
            return number
        try:
            return self.ports.allot(call.companions, f"{call.namespace}/{obj['metadata']['name']}", number)
        except Taken as why:
            raise _invalid(obj, [field.invalid(path, number, str(why))]) from None
        except Exhausted:
            raise errors.internal("failed to allocate a nodePort: range is full") from None

    def _allot_health_port(self, call: Call, obj: Object, spec: Object, kept: int) -> None:
        """The port at which load balancers ask a node whether it has a local endpoint."""
        if not wants_health_port(spec):
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
        health_used = _health_ports(now) if wants_health_port(now) else set()
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


def _has_address(spec: Object) -> bool:
    return spec.get("clusterIP") not in (None, "", NONE)


def _may_have_node_ports(spec: Object) -> bool:
    return spec.get("type") in ("NodePort", "LoadBalancer")


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
    if needs_address(now) and needs_address(was):
        if not now.get("clusterIP") and was.get("clusterIP"):
            now["clusterIP"] = was["clusterIP"]
        if not now.get("clusterIPs") and was.get("clusterIPs"):
            now["clusterIPs"] = list(was["clusterIPs"])
    if wants_node_ports(now) and wants_node_ports(was):
        _keep_node_ports(now, was)
    if wants_health_port(now) and wants_health_port(was) and not now.get("healthCheckNodePort"):
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


# ---------------------------------------------------------------- families


def _settle_families(obj: Object, spec: Object, was: Object) -> None:
    """ipFamilies and ipFamilyPolicy, by what is asked for and what an IPv4-only cluster has. Raises 422.

    Upstream: initIPFamilyFields.
    """
    if not needs_address(spec):
        return
    if spec.get("ipFamilyPolicy") is None:
        selectorless = spec.get("clusterIP") == NONE and not spec.get("selector")
        spec["ipFamilyPolicy"] = was.get("ipFamilyPolicy") or ("RequireDualStack" if selectorless else "SingleStack")
    errs: list[Cause] = []
    cluster_ips(errs, spec, was)
    _refuse(obj, errs)
    families = list(spec.get("ipFamilies") or ())
    if spec["ipFamilyPolicy"] == "SingleStack":
        _only_one_of_each(errs, spec, families)
    for number, address in enumerate(spec.get("clusterIPs") or ()):
        parsed = parse_ip(address)
        if parsed is None or number < len(families):
            continue
        family = f"IPv{parsed.version}"
        if family != _FAMILY:
            problem = f"{family} is not configured on this cluster"
            errs.append(field.invalid(f"spec.clusterIPs[{number}]", spec["clusterIPs"], problem))
        families.append(family)
    _refuse(obj, errs)
    if spec.get("clusterIP") == NONE and not spec.get("selector"):
        spec["ipFamilies"] = families or [_FAMILY]
        if spec["ipFamilyPolicy"] != "SingleStack" and len(spec["ipFamilies"]) == 1:
            spec["ipFamilies"].append("IPv6" if spec["ipFamilies"][0] == "IPv4" else "IPv4")
        return
    if spec["ipFamilyPolicy"] == "RequireDualStack":
        problem = "this cluster is not configured for dual-stack services"
        errs.append(field.invalid("spec.ipFamilyPolicy", "RequireDualStack", problem))
    for number, family in enumerate(families):
        if family != _FAMILY:
            errs.append(field.invalid(f"spec.ipFamilies[{number}]", family, "not configured on this cluster"))
    _refuse(obj, errs)
    spec["ipFamilies"] = families or [_FAMILY]


def _only_one_of_each(errs: list[Cause], spec: Object, families: list[str]) -> None:
    for given, what in ((spec.get("clusterIPs") or (), "cluster IPs"), (families, "IP families")):
        if len(given) == 2:
            problem = f"must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
            errs.append(field.invalid("spec.ipFamilyPolicy", "SingleStack", problem))


def _refuse(obj: Object, causes: list[Cause]) -> None:
    if causes:
        raise _invalid(obj, causes)


def _invalid(obj: Object, causes: list[Cause]) -> errors.ApiError:
    return errors.invalid("", "Service", obj["metadata"].get("name") or "", causes)

"""Endpoints and EndpointSlices: where a Service leads to."""

from __future__ import annotations

from typing import Any

from fastkube.api import field
from fastkube.api.meta import validate_labels
from fastkube.api.names import dns1123_label, dns1123_subdomain, label_value
from fastkube.errors import Cause
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.checks import Errors, equal
from fastkube.registry.strategies.service_validation import PROTOCOLS
from fastkube.registry.strategy import Call, Object, Strategy

_HOSTNAME = "kubernetes.io/hostname"


def _default_ports(ports: list[Object] | None) -> None:
    for port in ports or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"


# ---------------------------------------------------------------- Endpoints


class EndpointsStrategy(Strategy):
    has_generation = False
    has_status = False
    allow_create_on_update = True

    def default(self, obj: Object) -> None:
        for subset in obj.get("subsets") or ():
            _default_ports(subset.get("ports"))

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        for number, subset in enumerate(obj.get("subsets") or ()):
            _subset(errs, f"subsets[{number}]", subset)
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        return [] if equal(new.get("subsets"), old.get("subsets")) else self.validate(call, new)

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        if (obj["metadata"].get("labels") or {}).get("endpoints.kubernetes.io/managed-by") == "endpoint-controller":
            return []
        return [
            text
            for number, subset in enumerate(obj.get("subsets") or ())
            for key in ("addresses", "notReadyAddresses")
            for index, address in enumerate(subset.get(key) or ())
            for text in checks.ip_warnings(f"subsets[{number}].{key}[{index}].ip", address.get("ip") or "")
        ]


def _subset(errs: Errors, path: str, subset: Object) -> None:
    if not subset.get("addresses") and not subset.get("notReadyAddresses"):
        errs.append(field.required(path, "must specify `addresses` or `notReadyAddresses`"))
    for key in ("addresses", "notReadyAddresses"):
        for number, address in enumerate(subset.get(key) or ()):
            _address(errs, f"{path}.{key}[{number}]", address)
    ports = subset.get("ports") or []
    for number, port in enumerate(ports):
        _port(errs, f"{path}.ports[{number}]", port, needs_name=len(ports) > 1)


def _address(errs: Errors, path: str, address: Object) -> None:
    text = address.get("ip") or ""
    checks.ip(errs, f"{path}.ip", text)
    if address.get("hostname"):
        checks.label(errs, f"{path}.hostname", address["hostname"])
    if address.get("nodeName") is not None:
        checks.faults(errs, f"{path}.nodeName", address["nodeName"], dns1123_subdomain)
    checks.endpoint_ip(errs, f"{path}.ip", text)


def _port(errs: Errors, path: str, port: Object, *, needs_name: bool) -> None:
    name = port.get("name")
    if name:
        checks.label(errs, f"{path}.name", name)
    elif needs_name:
        errs.append(field.required(f"{path}.name"))
    checks.port(errs, f"{path}.port", port.get("port") or 0)
    checks.one_of_required(errs, f"{path}.protocol", port.get("protocol") or "", PROTOCOLS)
    if port.get("appProtocol") is not None:
        checks.qualified(errs, f"{path}.appProtocol", port["appProtocol"])


# ---------------------------------------------------------------- EndpointSlice

_ENDPOINTS_MAX, _ADDRESSES_MAX, _PORTS_MAX, _TOPOLOGY_MAX, _HINTS_MAX = 1000, 100, 20000, 16, 8


class EndpointSliceStrategy(Strategy):
    metadata_checks = ("whole",)
    has_status = False

    def default(self, obj: Object) -> None:
        for port in obj.get("ports") or ():
            if port.get("name") is None:
                port["name"] = ""
        _default_ports(obj.get("ports"))

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        _drop_topology(obj, frozenset())

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        if new.get("endpoints") != old.get("endpoints"):
            named = ((each.get("deprecatedTopology") or {}).get(_HOSTNAME) for each in old.get("endpoints") or ())
            _drop_topology(new, frozenset(filter(None, named)))

    def spec_changed(self, new: Object, old: Object) -> bool:
        """Labels count: they say of which Service the slice is."""
        if (new["metadata"].get("labels") or {}) != (old["metadata"].get("labels") or {}):
            return True
        return any(not equal(new.get(key), old.get(key)) for key in ("addressType", "endpoints", "ports"))

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        return _slice(obj, None)

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs = _slice(new, old)
        checks.immutable(errs, "addressType", new.get("addressType") or "", old.get("addressType") or "")
        return errs

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        kind = obj.get("addressType")
        if kind == "FQDN":
            return ["spec.addressType: FQDN endpoints are deprecated"]
        return [
            text
            for number, endpoint in enumerate(obj.get("endpoints") or ())
            for index, address in enumerate(endpoint.get("addresses") or ())
            for text in checks.ip_warnings(f"endpoints[{number}].addresses[{index}]", address)
        ]


def _drop_topology(obj: Object, known: frozenset[str]) -> None:
    """deprecatedTopology cannot be written by v1; the name of a node that stood there becomes nodeName."""
    for endpoint in obj.get("endpoints") or ():
        name = (endpoint.pop("deprecatedTopology", None) or {}).get(_HOSTNAME)
        if name in known and endpoint.get("nodeName") is None and not dns1123_subdomain(name):
            endpoint["nodeName"] = name


def _slice(obj: Object, old: Object | None) -> Errors:
    errs: Errors = []
    kind = obj.get("addressType") or ""
    checks.one_of_required(errs, "addressType", kind, ("FQDN", "IPv4", "IPv6"))
    ports = obj.get("ports") or []
    if len(ports) > _PORTS_MAX:
        errs.append(field.too_many("ports", len(ports), _PORTS_MAX))
    else:
        names: set[str] = set()
        for number, port in enumerate(ports):
            _slice_port(errs, f"ports[{number}]", port, names)
    endpoints = obj.get("endpoints") or []
    if len(endpoints) > _ENDPOINTS_MAX:
        errs.append(field.too_many("endpoints", len(endpoints), _ENDPOINTS_MAX))
        return errs
    known = {address for each in (old or {}).get("endpoints") or () for address in each.get("addresses") or ()}
    for number, endpoint in enumerate(endpoints):
        _endpoint(errs, f"endpoints[{number}]", endpoint, kind, known)
    return errs


def _endpoint(errs: Errors, path: str, endpoint: Object, kind: str, known: set[str]) -> None:
    addresses = endpoint.get("addresses") or []
    if not addresses:
        errs.append(field.required(f"{path}.addresses", "must contain at least 1 address"))
    elif len(addresses) > _ADDRESSES_MAX:
        errs.append(field.too_many(f"{path}.addresses", len(addresses), _ADDRESSES_MAX))
    for number, address in enumerate(addresses):
        at = f"{path}.addresses[{number}]"
        if kind == "FQDN":
            _domain(errs, at, address)
        elif kind in ("IPv4", "IPv6") and checks.ip(errs, at, address, known):
            parsed = checks.parse_ip(address)
            if parsed is not None and f"IPv{parsed.version}" != kind:
                errs.append(field.invalid(f"{path}.addresses", address, f"must be an {kind} address"))
            checks.endpoint_ip(errs, at, address)
    if endpoint.get("nodeName") is not None:
        checks.faults(errs, f"{path}.nodeName", endpoint["nodeName"], dns1123_subdomain)
    topology = endpoint.get("deprecatedTopology") or {}
    if len(topology) > _TOPOLOGY_MAX:
        errs.append(field.too_many(f"{path}.deprecatedTopology", len(topology), _TOPOLOGY_MAX))
    errs += validate_labels(topology, f"{path}.deprecatedTopology")
    if endpoint.get("hostname") is not None:
        checks.label(errs, f"{path}.hostname", endpoint["hostname"])
    hints = endpoint.get("hints") or {}
    _hints(errs, f"{path}.hints.forZones", hints.get("forZones") or [], label_value)
    _hints(errs, f"{path}.hints.forNodes", hints.get("forNodes") or [], dns1123_subdomain)


def _hints(errs: Errors, path: str, hints: list[Object], check: Any) -> None:
    if len(hints) > _HINTS_MAX:
        errs.append(field.too_many(path, len(hints), _HINTS_MAX))
        return
    names = [hint.get("name") or "" for hint in hints]
    for number, name in enumerate(names):
        if name in names[:number]:
            errs.append(field.duplicate(f"{path}[{number}].name", name))
        checks.faults(errs, f"{path}[{number}].name", name, check)


def _domain(errs: Errors, path: str, name: str) -> None:
    """A domain name of at least two labels, with or without the final dot."""
    if not name:
        errs.append(field.required(path))
        return
    name = name.removesuffix(".")
    labels = name.split(".")
    if found := dns1123_subdomain(name):
        errs.append(field.invalid(path, name, ",".join(found)))
    elif len(labels) < 2:
        problem = "should be a domain with at least two segments separated by dots"
        errs.append(field.invalid(path, name, problem))
    else:
        bad = next((label for label in labels if dns1123_label(label)), None)
        if bad is not None:
            errs.append(field.invalid(path, bad, ",".join(dns1123_label(bad))))


def _slice_port(errs: Errors, path: str, port: Object, names: set[str]) -> None:
    name = port.get("name") or ""
    if name:
        checks.label(errs, f"{path}.name", name)
    if name in names:
        errs.append(field.duplicate(f"{path}.name", name))
    names.add(name)
    checks.one_of(errs, f"{path}.protocol", port.get("protocol") or "", PROTOCOLS)
    if port.get("appProtocol") is not None:
        checks.qualified(errs, f"{path}.appProtocol", port["appProtocol"])


STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("", "endpoints"): EndpointsStrategy(),
    ("discovery.k8s.io", "endpointslices"): EndpointSliceStrategy(),
}

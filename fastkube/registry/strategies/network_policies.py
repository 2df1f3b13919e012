"""NetworkPolicies."""

from __future__ import annotations

from collections.abc import Iterator

from fastkube.api import field
from fastkube.api.selectors import validate_label_selector
from fastkube.errors import Cause
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.checks import Errors
from fastkube.registry.strategy import Call, Object, Strategy

_DIRECTIONS = (("ingress", "from"), ("egress", "to"))
_PROTOCOLS = ("TCP", "UDP", "SCTP")
_TYPES = ("Ingress", "Egress")


class NetworkPolicyStrategy(Strategy):
    metadata_checks = ("update",)
    has_status = False

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        if not spec.get("policyTypes"):
            spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
        for direction, _ in _DIRECTIONS:
            for rule in spec.get(direction) or ():
                for port in rule.get("ports") or ():
                    if port.get("protocol") is None:
                        port["protocol"] = "TCP"

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        return _spec(obj["spec"], frozenset())

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        return _spec(new["spec"], frozenset(text for _, text in _cidrs(old["spec"])))

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        return [text for path, cidr in _cidrs(obj["spec"]) for text in checks.cidr_warnings(path, cidr)]


def _cidrs(spec: Object) -> Iterator[tuple[str, str]]:
    """Each CIDR with its path."""
    for direction, peers in _DIRECTIONS:
        for number, rule in enumerate(spec.get(direction) or ()):
            for index, peer in enumerate(rule.get(peers) or ()):
                block = peer.get("ipBlock") or {}
                path = f"spec.{direction}[{number}].{peers}[{index}].ipBlock"
                if block.get("cidr"):
                    yield f"{path}.cidr", block["cidr"]
                for position, text in enumerate(block.get("except") or ()):
                    yield f"{path}.except[{position}]", text


def _spec(spec: Object, known: frozenset[str]) -> Errors:
    errs: Errors = validate_label_selector(spec.get("podSelector"), "spec.podSelector")
    for direction, peers in _DIRECTIONS:
        for number, rule in enumerate(spec.get(direction) or ()):
            path = f"spec.{direction}[{number}]"
            for index, port in enumerate(rule.get("ports") or ()):
                _port(errs, f"{path}.ports[{index}]", port)
            for index, peer in enumerate(rule.get(peers) or ()):
                _peer(errs, f"{path}.{peers}[{index}]", peer, known)
    types = spec.get("policyTypes") or []
    if len(types) > len(_TYPES):
        errs.append(field.invalid("spec.policyTypes", types, "may not specify more than two policyTypes"))
        return errs
    for number, kind in enumerate(types):
        checks.one_of(errs, f"spec.policyTypes[{number}]", kind, _TYPES)
    return errs


def _port(errs: Errors, path: str, port: Object) -> None:
    protocol, number, end = port.get("protocol"), port.get("port"), port.get("endPort")
    if protocol is not None:
        checks.one_of(errs, f"{path}.protocol", protocol, _PROTOCOLS)
    at = f"{path}.endPort"
    if isinstance(number, int):
        checks.port(errs, f"{path}.port", number)
        if end is not None:
            if end < number:
                errs.append(field.invalid(at, number, "must be greater than or equal to `port`"))
            checks.port(errs, at, end)
        return
    if end is not None:
        why = "non-numeric" if number is not None else "not specified"
        errs.append(field.invalid(at, end, f"may not be specified when `port` is {why}"))
    if number is not None:
        checks.port_or_name(errs, f"{path}.port", number)


def _peer(errs: Errors, path: str, peer: Object, known: frozenset[str]) -> None:
    given = 0
    for key in ("podSelector", "namespaceSelector"):
        if peer.get(key) is not None:
            given += 1
            errs += validate_label_selector(peer[key], f"{path}.{key}")
    block = peer.get("ipBlock")
    if block is not None:
        given += 1
        _block(errs, f"{path}.ipBlock", block, known)
    if not given:
        errs.append(field.required(path, "must specify a peer"))
    elif given > 1 and block is not None:
        errs.append(field.forbidden(path, "may not specify both ipBlock and another peer"))


def _block(errs: Errors, path: str, block: Object, known: frozenset[str]) -> None:
    cidr = block.get("cidr")
    if not cidr:
        errs.append(field.required(f"{path}.cidr"))
        return
    checks.cidr(errs, f"{path}.cidr", cidr, known)
    network = checks.parse_cidr(cidr)
    if network is None:
        return
    for number, text in enumerate(block.get("except") or ()):
        at = f"{path}.except[{number}]"
        checks.cidr(errs, at, text, known)
        part = checks.parse_cidr(text)
        if part is None:
            continue
        if part.network_address not in network or network.prefixlen >= part.prefixlen:
            errs.append(field.invalid(at, text, "must be a strict subset of `cidr`"))


STRATEGIES: dict[tuple[str, str], Strategy] = {("networking.k8s.io", "networkpolicies"): NetworkPolicyStrategy()}

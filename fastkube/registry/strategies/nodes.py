"""Nodes: a kubelet registers its node with the status it has."""

from __future__ import annotations

from fastkube.api import field
from fastkube.errors import Cause
from fastkube.registry.strategies import checks, pod_scheduling, resources
from fastkube.registry.strategies.checks import Errors
from fastkube.registry.strategies.go_values import shown
from fastkube.registry.strategies.pod_defaults import default_amounts
from fastkube.registry.strategy import Call, Object, Strategy


class NodeStrategy(Strategy):
    has_generation = False

    def default(self, obj: Object) -> None:
        status, spec = obj.setdefault("status", {}), obj.setdefault("spec", {})
        for key in ("capacity", "allocatable"):
            default_amounts(status.get(key))
        if not status.get("allocatable") and status.get("capacity"):
            status["allocatable"] = dict(status["capacity"])
        _same_cidrs(spec)

    def reset_status(self, obj: Object) -> None:
        """A new node keeps the status that it comes with, but for the configuration by the API, which is gone."""
        obj["spec"].pop("configSource", None)
        obj["status"].pop("config", None)

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        super().prepare_for_update(call, new, old)
        if "configSource" not in old["spec"]:
            new["spec"].pop("configSource", None)

    def prepare_for_status_update(self, call: Call, new: Object, old: Object) -> None:
        super().prepare_for_status_update(call, new, old)
        if "config" not in (old.get("status") or {}):
            new["status"].pop("config", None)

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        if obj["spec"].get("taints"):
            pod_scheduling.taints(errs, "metadata.taints", obj["spec"]["taints"])
        _resources(errs, obj)
        _cidrs(errs, obj["spec"].get("podCIDRs") or [])
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        return self.validate(call, new) + self.validate_status_update(call, new, old)

    def validate_status_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        _resources(errs, new)
        addresses = (new.get("status") or {}).get("addresses") or []
        for number, address in enumerate(addresses):
            if address in addresses[:number]:
                errs.append(field.duplicate(f"status.addresses[{number}]", shown("NodeAddress", address)))
        now, was = new["spec"], old.get("spec") or {}
        _fixed(errs, now, was)
        if now.get("taints"):
            pod_scheduling.taints(errs, "metadata.taints", now["taints"])
        if (now.get("externalID") or "") != (was.get("externalID") or ""):
            errs.append(field.forbidden("spec.externalID", "may not be updated"))
        return errs

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        spec = obj["spec"]
        told = []
        if spec.get("configSource") is not None:
            told.append("spec.configSource: the feature is removed")
        if spec.get("externalID"):
            told.append("spec.externalID: this field is deprecated, and is unused by Kubernetes")
        for number, text in enumerate(spec.get("podCIDRs") or ()):
            told += checks.cidr_warnings(f"spec.podCIDRs[{number}]", text)
        return told


def _same_cidrs(spec: Object) -> None:
    """podCIDR is the first of podCIDRs; where they differ the singular, which is older, counts."""
    one, many = spec.get("podCIDR"), spec.get("podCIDRs") or []
    if one and (not many or many[0] != one):
        spec["podCIDRs"] = [one]
    elif many:
        spec["podCIDR"] = many[0]


def _resources(errs: Errors, node: Object) -> None:
    for key in ("capacity", "allocatable"):
        for resource, amount in ((node.get("status") or {}).get(key) or {}).items():
            resources.value(errs, f"status.{key}.{resource}", resource, amount)


def _cidrs(errs: Errors, cidrs: list[str]) -> None:
    path = "spec.podCIDRs"
    for number, text in enumerate(cidrs):
        checks.cidr(errs, f"{path}[{number}]", text)
    if len(cidrs) < 2:
        return
    networks = [checks.parse_cidr(text) for text in cidrs]
    bad = next((text for text, network in zip(cidrs, networks, strict=True) if network is None), None)
    if bad is not None:
        told = f"invalid CIDR[{cidrs.index(bad)}]: <nil> (invalid CIDR address: {bad})"
        problem = f"invalid PodCIDRs. failed to check with dual stack with error:{told}"
        errs.append(field.internal(path, problem))
    families = {network.version for network in networks if network is not None}
    if bad is not None or len(families) < 2 or len(cidrs) > 2:
        errs.append(field.invalid(path, cidrs, "may specify no more than one CIDR for each IP family"))


def _fixed(errs: Errors, now: Object, was: Object) -> None:
    """What may be set once."""
    cidrs, before = now.get("podCIDRs") or [], was.get("podCIDRs") or []
    if before:
        problem = 'node updates may not change podCIDR except from "" to valid'
        changed = 1 if len(cidrs) != len(before) else sum(map(str.__ne__, cidrs, before))
        errs += [field.forbidden("spec.podCIDRs", problem)] * changed
    if was.get("providerID") and now.get("providerID") != was["providerID"]:
        problem = 'node updates may not change providerID except from "" to valid'
        errs.append(field.forbidden("spec.providerID", problem))


STRATEGIES: dict[tuple[str, str], Strategy] = {("", "nodes"): NodeStrategy()}

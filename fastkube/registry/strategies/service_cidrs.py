"""ServiceCIDRs and IPAddresses: what Services get their addresses from, and which are taken."""

from __future__ import annotations

from fastkube.api import field
from fastkube.api.names import path_segment
from fastkube.errors import Cause
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.checks import Errors
from fastkube.registry.strategies.go_values import shown
from fastkube.registry.strategy import ALL_METADATA, Call, Object, Strategy


class ServiceCIDRStrategy(Strategy):
    kept_on_status = ALL_METADATA
    has_generation = False

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        path, cidrs = "spec.cidrs", (obj.get("spec") or {}).get("cidrs") or []
        if not cidrs:
            errs.append(field.required(path, "at least one CIDR required"))
        elif len(cidrs) > 2:
            told = field.struct({"CIDRs": cidrs})
            errs.append(field.invalid(path, told, "may only hold up to 2 values"))
        else:
            for number, text in enumerate(cidrs):
                checks.canonical_cidr(errs, f"{path}[{number}]", text)
            if len(cidrs) == 2 and _same_family(cidrs):
                problem = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
                errs.append(field.invalid(path, cidrs, problem))
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        """A second family may be added; nothing else changes."""
        errs: Errors = []
        path = "spec.cidrs"
        now, was = ((obj.get("spec") or {}).get("cidrs") or [] for obj in (new, old))
        if len(now) == len(was):
            for number, text in enumerate(was):
                checks.immutable(errs, f"{path}[{number}]", now[number], text)
        elif (len(was), len(now)) == (1, 2):
            checks.immutable(errs, f"{path}[0]", now[0], was[0])
            errs += self.validate(call, new)
        else:
            errs.append(field.invalid(path, now or None, field.IMMUTABLE))
        return errs


def _same_family(cidrs: list[str]) -> bool:
    first, second = (checks.parse_cidr(text) for text in cidrs)
    return first is not None and second is not None and first.version == second.version


class IPAddressStrategy(Strategy):
    has_generation = False
    has_status = False

    def validate_name(self, name: str, prefix: bool) -> list[str]:
        errs: Errors = []
        checks.canonical_ip(errs, "", name)
        return [cause.message.partition(": ")[2].partition(": ")[2] for cause in errs]

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        reference = (obj.get("spec") or {}).get("parentRef")
        if reference is None:
            return [field.required("spec.parentRef")]
        path = "spec.parentRef"
        if reference.get("group"):
            checks.subdomain(errs, f"{path}.group", reference["group"])
        for key in ("resource", "name", "namespace"):
            if reference.get(key):
                checks.faults(errs, f"{path}.{key}", reference[key], path_segment)
            elif key != "namespace":
                errs.append(field.required(f"{path}.{key}"))
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        now, was = ((obj.get("spec") or {}).get("parentRef") for obj in (new, old))
        if now is None:
            errs.append(field.required("spec.parentRef"))
        checks.immutable(errs, "spec.parentRef", now, was, shown("ParentReference", now))
        return errs


STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("networking.k8s.io", "servicecidrs"): ServiceCIDRStrategy(),
    ("networking.k8s.io", "ipaddresses"): IPAddressStrategy(),
}

"""Workloads and PodGroups (scheduling.k8s.io/v1alpha2), served with the feature gate GenericWorkload.

What hangs on further gates (topology, shared claims, disruption of whole groups, priorities of groups) is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastkube.api import field
from fastkube.api.names import path_segment
from fastkube.errors import Cause
from fastkube.registry.strategies import checks
from fastkube.registry.strategies.checks import Errors
from fastkube.registry.strategy import ALL_METADATA, Call, Object, Strategy

TEMPLATES_MAX = 8
_SWITCHED_OFF = ("schedulingConstraints", "resourceClaims", "disruptionMode", "priorityClassName", "priority")
_POLICIES = ("basic", "gang")


class WorkloadStrategy(Strategy):
    has_generation = False
    has_status = False

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        for template in obj["spec"].get("podGroupTemplates") or ():
            _drop_switched_off(template)
            template["schedulingConstraints"] = None  # which Go writes even so

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        self.prepare_for_create(call, new)

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        controller = obj["spec"].get("controllerRef")
        if controller is not None:
            _controller(errs, "spec.controllerRef", controller)
        templates, path = obj["spec"].get("podGroupTemplates") or [], "spec.podGroupTemplates"
        if not templates:
            errs.append(field.required(path))
        elif len(templates) > TEMPLATES_MAX:
            errs.append(field.too_many(path, len(templates), TEMPLATES_MAX))
        else:
            _templates(errs, path, templates)
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        return _unchanged(new, old, "controllerRef", "podGroupTemplates")


class PodGroupStrategy(Strategy):
    kept_on_status = ALL_METADATA
    has_generation = False

    def default(self, obj: Object) -> None:
        obj.setdefault("spec", {})["disruptionMode"] = "Pod"  # another mode would be dropped, and this is the default

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        super().prepare_for_create(call, obj)
        _drop_group_fields(obj["spec"])

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        super().prepare_for_update(call, new, old)
        _drop_group_fields(new["spec"])

    def prepare_for_status_update(self, call: Call, new: Object, old: Object) -> None:
        super().prepare_for_status_update(call, new, old)
        new.setdefault("status", {}).pop("resourceClaimStatuses", None)

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        reference = obj["spec"].get("podGroupTemplateRef")
        if reference is not None:
            _reference(errs, "spec.podGroupTemplateRef", reference)
        _policy(errs, "spec.schedulingPolicy", obj["spec"].get("schedulingPolicy") or {})
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        return _unchanged(new, old, "podGroupTemplateRef", "schedulingPolicy")

    def validate_status_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        checks.conditions(errs, "status.conditions", (new.get("status") or {}).get("conditions"))
        return errs


def _drop_switched_off(part: Object) -> None:
    for key in _SWITCHED_OFF:
        part.pop(key, None)


def _drop_group_fields(spec: Object) -> None:
    mode = spec.get("disruptionMode")
    _drop_switched_off(spec)
    if mode is not None:
        spec["disruptionMode"] = mode


def _unchanged(new: Object, old: Object, *keys: str) -> list[Cause]:
    """Upstream does not show these values."""
    pairs = ((key, new["spec"].get(key), old["spec"].get(key)) for key in keys)
    return [field.invalid(f"spec.{key}", None, field.IMMUTABLE) for key, now, before in pairs if now != before]


def _controller(errs: Errors, path: str, reference: Object) -> None:
    if reference.get("apiGroup"):
        checks.subdomain(errs, f"{path}.apiGroup", reference["apiGroup"])
    for key in ("kind", "name"):
        if not reference.get(key):
            errs.append(field.required(f"{path}.{key}"))
        else:
            checks.faults(errs, f"{path}.{key}", reference[key], path_segment)


def _templates(errs: Errors, path: str, templates: list[Object]) -> None:
    names = [each.get("name") or "" for each in templates]
    for number, name in enumerate(names):
        if name in names[:number]:
            errs.append(field.duplicate(f"{path}[{number}]", field.struct(templates[number])))
    for number, template in enumerate(templates):
        at = f"{path}[{number}]"
        if not names[number]:
            errs.append(field.required(f"{at}.name"))
        else:
            checks.label(errs, f"{at}.name", names[number])
        _policy(errs, f"{at}.schedulingPolicy", template.get("schedulingPolicy") or {})


def _policy(errs: Errors, path: str, policy: Object) -> None:
    """Exactly one of the policies."""
    given = _one_of(errs, path, policy, _POLICIES)
    if "gang" in given:
        least = policy["gang"].get("minCount") or 0
        if not least:
            errs.append(field.required(f"{path}.gang.minCount"))
        elif least < 1:
            errs.append(field.invalid(f"{path}.gang.minCount", least, field.at_least(1)))


def _reference(errs: Errors, path: str, reference: Object) -> None:
    if not _one_of(errs, path, reference, ("workload",)):
        return
    told, at = reference["workload"], f"{path}.workload"
    for key, check in (("workloadName", checks.subdomain), ("podGroupTemplateName", checks.label)):
        if not told.get(key):
            errs.append(field.required(f"{at}.{key}"))
        else:
            check(errs, f"{at}.{key}", told[key])


def _one_of(errs: Errors, path: str, union: Object, members: Sequence[str]) -> list[str]:
    """The members of a union that are set."""
    given = [key for key in members if union.get(key) is not None]
    named = ", ".join(f"`{key}`" for key in members)
    if not given:
        errs.append(field.invalid(path, "", f"must specify one of: {named}"))
    elif len(given) > 1:
        errs.append(field.invalid(path, f"{{{', '.join(given)}}}", f"must specify exactly one of: {named}"))
    return given


STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("scheduling.k8s.io", "podgroups"): PodGroupStrategy(),
    ("scheduling.k8s.io", "workloads"): WorkloadStrategy(),
}

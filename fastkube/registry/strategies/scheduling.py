"""PriorityClasses and RuntimeClasses."""

from __future__ import annotations

from fastkube.api import field
from fastkube.api.meta import validate_labels
from fastkube.errors import Cause
from fastkube.registry.strategies import checks, pod_scheduling, resources
from fastkube.registry.strategies.checks import Errors
from fastkube.registry.strategies.go_values import shown
from fastkube.registry.strategies.pod_defaults import default_amounts
from fastkube.registry.strategies.pod_warnings import DEPRECATED_NODE_LABELS
from fastkube.registry.strategy import Call, Object, Strategy

_SYSTEM = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}
_SYSTEM_PREFIX = "system-"
_USER_MAX = 1_000_000_000


class PriorityClassStrategy(Strategy):
    metadata_checks = ("update",)
    has_status = False

    def default(self, obj: Object) -> None:
        if obj.get("preemptionPolicy") is None:
            obj["preemptionPolicy"] = "PreemptLowerPriority"

    def spec_changed(self, new: Object, old: Object) -> bool:
        return False

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        name, value = obj["metadata"].get("name") or "", obj.get("value") or 0
        if name.startswith(_SYSTEM_PREFIX):
            _system(errs, name, value, bool(obj.get("globalDefault")))
        elif value > _USER_MAX:
            problem = f"maximum allowed value of a user defined priority is {_USER_MAX}"
            errs.append(field.forbidden("value", problem))
        checks.one_of_required(errs, "preemptionPolicy", obj["preemptionPolicy"], ("PreemptLowerPriority", "Never"))
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs: Errors = []
        if (new.get("value") or 0) != (old.get("value") or 0):
            errs.append(field.forbidden("value", "may not be changed in an update."))
        checks.fields_immutable(errs, "", new, old, "preemptionPolicy")
        return errs


def _system(errs: Errors, name: str, value: int, is_default: bool) -> None:
    """Names that are the system's own stand for two classes only, with their values."""
    if name not in _SYSTEM:
        why = f"{name} is not a known system priority class"
    elif value != _SYSTEM[name]:
        why = f"value of {name} PriorityClass must be {_SYSTEM[name]}"
    elif is_default:
        why = f"globalDefault of {name} PriorityClass must be false"
    else:
        return
    reserved = f"priority class names with '{_SYSTEM_PREFIX}' prefix are reserved for system use only"
    errs.append(field.forbidden("metadata.name", f"{reserved}. error: {why}"))


class RuntimeClassStrategy(Strategy):
    allow_create_on_update = True
    kube_finalizers = False
    has_generation = False
    has_status = False
    allow_unconditional_update = False

    def default(self, obj: Object) -> None:
        default_amounts((obj.get("overhead") or {}).get("podFixed"))

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        if handler := obj.get("handler"):
            checks.label(errs, "handler", handler)
        else:
            errs.append(field.required("handler"))
        fixed = (obj.get("overhead") or {}).get("podFixed")
        if fixed:
            resources.requirements(errs, "overhead", {"limits": fixed})
        scheduling = obj.get("scheduling") or {}
        errs += validate_labels(scheduling.get("nodeSelector") or {}, "scheduling.nodeSelector")
        _tolerations(errs, "scheduling.tolerations", scheduling.get("tolerations") or [])
        return errs

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        errs = self.validate(call, new)
        checks.immutable(errs, "handler", new.get("handler") or "", old.get("handler") or "")
        return errs

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        return [
            f"scheduling.nodeSelector: {DEPRECATED_NODE_LABELS[key]}"
            for key in (obj.get("scheduling") or {}).get("nodeSelector") or ()
            if key in DEPRECATED_NODE_LABELS
        ]


def _tolerations(errs: Errors, path: str, tolerations: list[Object]) -> None:
    pod_scheduling.tolerations(errs, path, tolerations)
    for number, toleration in enumerate(tolerations):
        if toleration in tolerations[:number]:
            errs.append(field.duplicate(f"{path}[{number}]", shown("Toleration", toleration)))


STRATEGIES: dict[tuple[str, str], Strategy] = {
    ("scheduling.k8s.io", "priorityclasses"): PriorityClassStrategy(),
    ("node.k8s.io", "runtimeclasses"): RuntimeClassStrategy(),
}

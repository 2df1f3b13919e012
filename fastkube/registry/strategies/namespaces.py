"""Namespaces: their own name is a label, and finalizers of their own in spec hold them until they are empty."""

from __future__ import annotations

from fastkube.api import field
from fastkube.api.names import dns1123_label
from fastkube.errors import Cause
from fastkube.registry.strategies.checks import Errors, qualified
from fastkube.registry.strategy import Call, Object, Strategy

NAME_LABEL = "kubernetes.io/metadata.name"
_FINALIZER = "kubernetes"
_STANDARD_FINALIZERS = (_FINALIZER, "foregroundDeletion", "orphan")


class NamespaceStrategy(Strategy):
    has_generation = False

    def default(self, obj: Object) -> None:
        _label_with_name(obj)
        if not (obj.get("status") or {}).get("phase"):
            obj["status"] = {**(obj.get("status") or {}), "phase": "Active"}

    def canonicalize(self, obj: Object) -> None:
        _label_with_name(obj)  # with a name that the server made up, which the defaults did not see

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        obj["status"] = {"phase": "Active"}
        finalizers = obj.setdefault("spec", {}).setdefault("finalizers", [])
        if _FINALIZER not in finalizers:
            finalizers.append(_FINALIZER)

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        super().prepare_for_update(call, new, old)
        if (old.get("spec") or {}).get("finalizers"):
            new.setdefault("spec", {})["finalizers"] = old["spec"]["finalizers"]
        elif "spec" in new:
            new["spec"].pop("finalizers", None)

    def removable(self, obj: Object) -> bool:
        return not (obj.get("spec") or {}).get("finalizers")

    def validate_name(self, name: str, prefix: bool) -> list[str]:
        return dns1123_label(name, prefix)

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        for number, name in enumerate((obj.get("spec") or {}).get("finalizers") or ()):
            _finalizer(errs, f"spec.finalizers[{number}]" if call.subresource else "spec.finalizers", name)
        return errs

    def validate_status_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        phase = new["status"].get("phase") or ""
        if new["metadata"].get("deletionTimestamp"):
            wanted, when = "Terminating", "not empty"
        else:
            wanted, when = "Active", "empty"
        if phase == wanted:
            return []
        return [field.invalid("status.Phase", phase, f"may only be '{wanted}' if `deletionTimestamp` is {when}")]


def _label_with_name(obj: Object) -> None:
    metadata = obj["metadata"]
    name = metadata.get("name")
    if name:
        metadata.setdefault("labels", {})[NAME_LABEL] = name


def _finalizer(errs: Errors, path: str, name: str) -> None:
    qualified(errs, path, name)
    if "/" not in name and name not in _STANDARD_FINALIZERS:
        problem = "name is neither a standard finalizer name nor is it fully qualified"
        errs.append(field.invalid(path, name, problem))


STRATEGIES: dict[tuple[str, str], Strategy] = {("", "namespaces"): NamespaceStrategy()}

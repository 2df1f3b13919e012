"""Two subresources by which a running Pod's spec changes: ephemeralcontainers and resize.

Both take a whole Pod and change one part of it; everything else, metadata included, stays as it was.
"""

from __future__ import annotations

from fastkube.api import field
from fastkube.errors import Cause
from fastkube.registry.strategy import Call, Object, Strategy
from fastkube.registry.updating import Rules

_RESIZABLE = frozenset(("cpu", "memory"))


# ---------------------------------------------------------------- ephemeral containers


def ephemeral_containers_rules(strategy: Strategy) -> Rules:
    def validate(call: Call, new: Object, old: Object) -> list[Cause]:
        return _only_added(new, old) + strategy.validate(call, new)

    return Rules(_keep_all_but_ephemeral, validate)


def _keep_all_but_ephemeral(call: Call, new: Object, old: Object) -> None:
    given = (new.get("spec") or {}).get("ephemeralContainers")
    new["spec"] = dict(old["spec"])
    if given:
        new["spec"]["ephemeralContainers"] = given
    else:
        new["spec"].pop("ephemeralContainers", None)
    _keep_rest(new, old)


def _keep_rest(new: Object, old: Object) -> None:
    """Metadata and status are those of the old Pod."""
    new["metadata"] = {**old["metadata"]}
    if "status" in old:
        new["status"] = old["status"]
    else:
        new.pop("status", None)


def _only_added(new: Object, old: Object) -> list[Cause]:
    """Ephemeral containers are never changed and never removed."""
    path = "spec.ephemeralContainers"
    now = {container.get("name"): container for container in new["spec"].get("ephemeralContainers") or ()}
    causes: list[Cause] = []
    for container in old["spec"].get("ephemeralContainers") or ():
        name = container.get("name") or ""
        subject = f"existing ephemeral containers {field.quote(name)}"
        if name not in now:
            causes.append(field.forbidden(path, f"{subject} may not be removed\n"))
        elif now[name] != container:
            causes.append(field.forbidden(path, f"{subject} may not be changed\n"))
    return causes


# ---------------------------------------------------------------- resize


def resize_rules(strategy: Strategy) -> Rules:
    def validate(call: Call, new: Object, old: Object) -> list[Cause]:
        return _resize_faults(new, old) + strategy.validate(call, new)

    return Rules(_keep_all_but_resources, validate)


def _keep_all_but_resources(call: Call, new: Object, old: Object) -> None:
    """Takes over the resources of each container that has the same name as before, and nothing else."""
    spec = dict(old["spec"])
    for key in ("containers", "initContainers"):
        if key not in spec:
            continue
        given = {container.get("name"): container for container in (new.get("spec") or {}).get(key) or ()}
        spec[key] = [_resized(container, given.get(container["name"])) for container in spec[key]]
    new["spec"] = spec
    _keep_rest(new, old)


def _resized(container: Object, given: Object | None) -> Object:
    if given is None:
        return container
    changed = dict(container)
    for key in ("resources", "resizePolicy"):
        if key in given:
            changed[key] = given[key]
    return changed


def _resize_faults(new: Object, old: Object) -> list[Cause]:
    """Only cpu and memory of running Pods change, and the quality of service class never does."""
    causes: list[Cause] = []
    if old["spec"].get("os", {}).get("name") == "windows":
        causes.append(field.forbidden("", "windows pods cannot be resized"))
    phase = (old.get("status") or {}).get("phase")
    if phase in ("Succeeded", "Failed"):
        causes.append(field.forbidden("", "pods in a terminal phase cannot be resized"))
    for key in ("containers", "initContainers"):
        pairs = zip(new["spec"].get(key) or (), old["spec"].get(key) or (), strict=True)
        for index, (now, was) in enumerate(pairs):
            causes += _resource_faults(f"spec.{key}[{index}].resources", now, was)
    return causes


def _resource_faults(path: str, now: Object, was: Object) -> list[Cause]:
    causes: list[Cause] = []
    for part in ("limits", "requests"):
        new_amounts = (now.get("resources") or {}).get(part) or {}
        old_amounts = (was.get("resources") or {}).get(part) or {}
        for name in {**old_amounts, **new_amounts}:
            if name not in _RESIZABLE and new_amounts.get(name) != old_amounts.get(name):
                causes.append(field.forbidden(f"{path}.{part}", "only cpu and memory resources are mutable"))
            elif name in _RESIZABLE and name in old_amounts and name not in new_amounts:
                causes.append(field.forbidden(f"{path}.{part}", f"resource {part} cannot be removed"))
    return causes

"""Validation of what the subresource resize changes of a running Pod."""

from __future__ import annotations

from fastkube.api import field
from fastkube.registry.strategies import pod_validation
from fastkube.registry.strategies.checks import Errors, Object, equal
from fastkube.registry.strategies.pod_validation import MIRROR

_ONLY_CPU_AND_MEMORY = "only cpu and memory resources are mutable"


def resize(errs: Errors, new: Object, old: Object, old_qos: str, new_qos: str) -> None:
    """Only cpu and memory of containers change, and never so far that the Pod's quality of service does."""
    pod_validation.pod(errs, new)
    if MIRROR in (old["metadata"].get("annotations") or {}):
        errs[:] = [field.forbidden("[]", "static pods cannot be resized")]
        return
    now, was = new["spec"], old["spec"]
    if (was.get("os") or {}).get("name") == "windows":
        errs[:] = [field.forbidden("[]", "windows pods cannot be resized")]
        return
    if old_qos != new_qos:
        problem = "Pod QOS Class may not change as a result of resizing"
        shown = (new.get("status") or {}).get("qosClass") or ""
        errs.append(field.invalid("spec", shown, problem))
    if not _node_resizes(old):
        errs.append(field.forbidden("spec", "Pod running on node without support for resize"))
    pod_level = any((spec.get("resources") or {}).get(part) for spec in (now, was) for part in ("requests", "limits"))
    if pod_level:
        _resized_pod(errs, now.get("resources"), was.get("resources"))
    if (old.get("status") or {}).get("nodeAllocatableResourceClaimStatuses"):
        errs.append(field.forbidden("spec", "pods with node allocatable resource claims cannot be resized"))
    if _same_order(errs, now, was):
        _resized_containers(errs, now, was, pod_level)


def _resized_pod(errs: Errors, now: Object | None, was: Object | None) -> None:
    """Resources of the pod as a whole."""
    if now is None:
        errs.append(field.forbidden("spec.resources", "pod-level resources cannot be removed"))
        return
    for part in ("requests", "limits") if was is not None else ():
        if ((was or {}).get(part) or {}).keys() - (now.get(part) or {}).keys():
            problem = f"pod-level resource {part} cannot be removed"
            errs.append(field.forbidden(f"spec.resources.{part}", problem))
    if not equal(_with_old_amounts({"resources": now}, {"resources": was})["resources"], was or {}):
        errs.append(field.forbidden("spec", "only cpu and memory resources are mutable at pod-level"))


def _node_resizes(pod: Object) -> bool:
    """A node that can resize tells the resources of running containers."""
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        if (status.get("state") or {}).get("running") is not None:
            return status.get("resources") is not None
    return True


def _same_order(errs: Errors, now: Object, was: Object) -> bool:
    before = len(errs)
    for key in ("containers", "initContainers"):
        new, old = now.get(key) or [], was.get(key) or []
        if len(new) != len(old):
            errs.append(field.forbidden(f"spec.{key}", f"{key} may not be added or removed on resize"))
            continue
        for number, (container, previous) in enumerate(zip(new, old, strict=True)):
            if container.get("name") != previous.get("name"):
                problem = f"{key} may not be renamed or reordered on resize"
                errs.append(field.forbidden(f"spec.{key}[{number}].name", problem))
    return len(errs) == before


def _resized_containers(errs: Errors, now: Object, was: Object, pod_level: bool) -> None:
    start = len(errs)
    pairs = {
        key: list(zip(now.get(key) or [], was.get(key) or [], strict=True)) for key in ("initContainers", "containers")
    }
    for key, listed in pairs.items():
        for number, (container, previous) in enumerate(listed):
            _nothing_removed(errs, f"spec.{key}[{number}].resources", container, previous)
    for container, previous in pairs["containers"]:
        if not equal(_with_old_amounts(container, previous), previous):
            errs.append(field.forbidden("spec", _ONLY_CPU_AND_MEMORY))
    for number, (container, previous) in enumerate(pairs["initContainers"]):
        _resized_init(errs, f"spec.initContainers[{number}]", container, previous)
    rest = {key for key in now.keys() | was.keys() if key not in pairs and not (pod_level and key == "resources")}
    if len(errs) == start and any(not equal(now.get(key), was.get(key)) for key in rest):
        errs.append(field.forbidden("spec", _ONLY_CPU_AND_MEMORY))


def _resized_init(errs: Errors, path: str, container: Object, previous: Object) -> None:
    if not equal(_with_old_amounts(container, previous), previous):
        problem = "only cpu and memory resources for init or sidecar containers are mutable"
        errs.append(field.forbidden(path, problem))
    if container.get("restartPolicy") == "Always" or equal(container, previous):
        return
    for policy in container.get("resizePolicy") or ():
        if policy.get("restartPolicy") == "RestartContainer":
            problem = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized"
            errs.append(field.forbidden(path, problem))


def _nothing_removed(errs: Errors, path: str, container: Object, previous: Object) -> None:
    for part in ("requests", "limits"):
        now, was = ((each.get("resources") or {}).get(part) or {} for each in (container, previous))
        if was.keys() - now.keys():
            errs.append(field.forbidden(f"{path}.{part}", f"resource {part} cannot be removed"))


def _with_old_amounts(container: Object, previous: Object) -> Object:
    """The container with the cpu and memory that it had before."""
    resources = dict(container.get("resources") or {})
    for part in ("requests", "limits"):
        amounts = {
            name: amount for name, amount in (resources.get(part) or {}).items() if name not in ("cpu", "memory")
        }
        before = (previous.get("resources") or {}).get(part) or {}
        amounts |= {name: before[name] for name in ("cpu", "memory") if name in before}
        resources[part] = amounts
    return {**container, "resources": resources}

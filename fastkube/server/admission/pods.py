"""Plugins that fill in and check single fields of Pods: Priority, DefaultTolerationSeconds, RuntimeClass and others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastkube.api import field, quantity
from fastkube.api.names import path_segment
from fastkube.errors import ApiError
from fastkube.server.admission.plugin import CREATE, UPDATE, Identity, Plugin, forbid

if TYPE_CHECKING:
    from fastkube.registry.strategy import Call, Object
    from fastkube.server.admission.lookup import Lookups

POD: Identity = ("", "pods", "")
_PRIORITY_CLASS: Identity = ("scheduling.k8s.io", "priorityclasses", "")
_SYSTEM_CLASSES = frozenset(("system-cluster-critical", "system-node-critical"))

# ---------------------------------------------------------------- Priority


class Priority(Plugin):
    """spec.priority is that of the Pod's class, or of the default class; there is at most one default class."""

    name = "Priority"
    mutates = validates = True
    by_shape = True

    def __init__(self, lookups: Lookups) -> None:
        self._classes = lookups.priority_classes

    def handles(self, target: Identity, operation: str) -> bool:
        if target == POD:
            return operation in (CREATE, UPDATE)
        return target == _PRIORITY_CLASS

    def mutate(self, call: Call, obj: Object, old: Object | None) -> None:
        if call.rtype.resource != "pods":
            return
        spec = obj["spec"]
        if old is not None:
            for key in ("priority", "preemptionPolicy"):
                if key not in spec and key in old["spec"]:
                    spec[key] = old["spec"][key]
            return
        self._set_priority(call, obj, spec)

    def _set_priority(self, call: Call, obj: Object, spec: Object) -> None:
        name = spec.get("priorityClassName")
        if name:
            found = self._classes.get("", name)
            if found is None:
                raise forbid(call, obj, f"no PriorityClass with name {name} was found")
        else:
            found = self._default_class()
            if found is not None:
                spec["priorityClassName"] = found["metadata"]["name"]
        priority = (found.get("value") or 0) if found is not None else 0
        policy = (found.get("preemptionPolicy") or "") if found is not None else "PreemptLowerPriority"
        given = spec.get("priority")
        if given is not None and given != priority:
            why = f"the integer value of priority ({given}) must not be provided in pod spec"
            computed = f"priority admission controller computed {priority} from the given PriorityClass name"
            raise forbid(call, obj, f"{why}; {computed}")
        spec["priority"] = priority
        if not policy:
            return
        given = spec.get("preemptionPolicy")
        if given is not None and given != policy:
            why = f"the string value of PreemptionPolicy ({given}) must not be provided in pod spec"
            computed = f"priority admission controller computed {policy} from the given PriorityClass name"
            raise forbid(call, obj, f"{why}; {computed}")
        spec["preemptionPolicy"] = policy

    def _default_class(self) -> Object | None:
        """The lowest of the default classes: there may be several for a moment, when servers race."""
        classes = (kept.obj for kept in self._classes.of("").values())
        defaults = [each for each in classes if each.get("globalDefault")]
        return min(defaults, key=lambda each: each.get("value") or 0) if defaults else None

    def validate(self, call: Call, obj: Object | None, old: Object | None) -> None:
        if call.rtype.resource == "pods":
            return
        if obj is None:
            if call.name in _SYSTEM_CLASSES:
                raise forbid(call, None, "this is a system priority class and cannot be deleted")
            return
        if not obj.get("globalDefault"):
            return
        default = self._default_class()
        if default is None:
            return
        name = default["metadata"]["name"]
        if old is None or name != obj["metadata"]["name"]:
            raise forbid(call, obj, f"PriorityClass {name} is already marked as default. Only one default can exist")


# ---------------------------------------------------------------- DefaultTolerationSeconds

_NOT_READY = "node.kubernetes.io/not-ready"
_UNREACHABLE = "node.kubernetes.io/unreachable"


class DefaultTolerationSeconds(Plugin):
    """Pods stay on a node that has failed for some minutes, unless they say something else."""

    name = "DefaultTolerationSeconds"
    mutates = True
    by_shape = True

    def __init__(self, not_ready_s: int, unreachable_s: int) -> None:
        self._tolerated_s = {_NOT_READY: not_ready_s, _UNREACHABLE: unreachable_s}

    def handles(self, target: Identity, operation: str) -> bool:
        return target == POD and operation in (CREATE, UPDATE)

    def mutate(self, call: Call, obj: Object, old: Object | None) -> None:
        spec = obj["spec"]
        tolerations: list[Object] = spec.get("tolerations") or []
        tolerated = {
            toleration.get("key") or ""
            for toleration in tolerations
            if toleration.get("effect") in (None, "", "NoExecute")
        }
        if "" in tolerated:
            return
        missing = [
            {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}
            for key, seconds in self._tolerated_s.items()
            if key not in tolerated
        ]
        if missing:
            spec["tolerations"] = tolerations + missing


# ---------------------------------------------------------------- TaintNodesByCondition


class TaintNodesByCondition(Plugin):
    """A new node takes no Pods before it is known to be ready."""

    name = "TaintNodesByCondition"
    mutates = True
    by_shape = True

    def handles(self, target: Identity, operation: str) -> bool:
        return target == ("", "nodes", "") and operation == CREATE

    def mutate(self, call: Call, obj: Object, old: Object | None) -> None:
        taints: list[Object] = obj.setdefault("spec", {}).setdefault("taints", [])
        if not any(taint.get("key") == _NOT_READY and taint.get("effect") == "NoSchedule" for taint in taints):
            taints.append({"key": _NOT_READY, "effect": "NoSchedule"})


# ---------------------------------------------------------------- RuntimeClass


class RuntimeClass(Plugin):
    """A Pod of a runtime class gets the class's overhead, node selector and tolerations."""

    name = "RuntimeClass"
    mutates = validates = True
    by_shape = True

    def __init__(self, lookups: Lookups) -> None:
        self._classes = lookups.runtime_classes

    def handles(self, target: Identity, operation: str) -> bool:
        return target == POD and operation == CREATE

    def _class_of(self, call: Call, obj: Object) -> Object | None:
        name = obj["spec"].get("runtimeClassName")
        if name is None:
            return None
        found = self._classes.get("", name)
        if found is None and (faults := path_segment(name)):
            raise ApiError(500, "", f"invalid resource name {field.quote(name)}: [{' '.join(faults)}]")
        if found is None:
            raise forbid(call, obj, f'pod rejected: RuntimeClass "{name}" not found')
        return found

    def mutate(self, call: Call, obj: Object, old: Object | None) -> None:
        found = self._class_of(call, obj)
        if found is None:
            return
        spec = obj["spec"]
        overhead = (found.get("overhead") or {}).get("podFixed")
        if overhead:
            given = spec.get("overhead")
            if given is not None and not _same_amounts(given, overhead):
                why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
                raise forbid(call, obj, why)
            spec["overhead"] = dict(overhead)
        _restrict_nodes(call, obj, spec, found.get("scheduling") or {})

    def validate(self, call: Call, obj: Object, old: Object | None) -> None:
        overhead = obj["spec"].get("overhead")
        if not overhead:
            return
        found = self._class_of(call, obj)
        defined = (found.get("overhead") or {}).get("podFixed") if found is not None else None
        if found is None or not defined:
            raise forbid(
                call, obj, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
            )
        if not _same_amounts(overhead, defined):
            raise forbid(call, obj, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")


def _same_amounts(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(quantity.cmp(one[key], other[key]) == 0 for key in one)


def _restrict_nodes(call: Call, obj: Object, spec: Object, scheduling: Object) -> None:
    selector = scheduling.get("nodeSelector") or {}
    own = spec.get("nodeSelector") or {}
    for key, value in selector.items():
        if own.get(key, value) != value:
            why = f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}]"
            raise forbid(call, obj, f"{why} = {own[key]}")
    if selector:
        spec["nodeSelector"] = {**own, **selector}
    tolerations: list[Object] = spec.get("tolerations") or []
    added = [toleration for toleration in scheduling.get("tolerations") or () if toleration not in tolerations]
    if added:
        spec["tolerations"] = tolerations + added


# ---------------------------------------------------------------- PodTopologyLabels


class PodTopologyLabels(Plugin):
    """A Pod that is bound gets the zone and the region of its node as labels."""

    name = "PodTopologyLabels"
    mutates = True
    by_shape = True

    def __init__(self, lookups: Lookups) -> None:
        self._topology = lookups.topology

    def handles(self, target: Identity, operation: str) -> bool:
        return target in (("", "pods", "binding"), ("", "bindings", "")) and operation == CREATE

    def mutate(self, call: Call, obj: Object, old: Object | None) -> None:
        target = obj.get("target") or {}
        if target.get("kind") not in (None, "", "Node"):
            return
        told = self._topology.get(target.get("name") or "")
        if told:
            metadata = obj["metadata"]
            metadata["labels"] = {**(metadata.get("labels") or {}), **dict(zip(told[::2], told[1::2], strict=True))}

    def bearing(self, node: str) -> tuple[str, ...]:
        return self._topology.get(node)

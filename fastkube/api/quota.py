"""What one object counts for in resource quotas: an evaluator for each kind that counts more than itself.

Source: "Resource Quotas" in the Kubernetes documentation and upstream's quota evaluators. Amounts are maps of resource
names to quantities. Every namespaced object counts one for `count/<resource>.<group>`; some also under a plain name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fastkube.api import quantity
from fastkube.api.amounts import Amounts, add, pod_limits, pod_requests
from fastkube.clock import parse_rfc3339
from fastkube.errors import qualified

Object = dict[str, Any]

_PLAIN_NAMES = frozenset(("configmaps", "replicationcontrollers", "resourcequotas", "secrets"))
_CLASS_SUFFIX = ".storageclass.storage.k8s.io/"
_BETA_CLASS = "volume.beta.kubernetes.io/storage-class"
_COMPUTE = ("cpu", "memory", "ephemeral-storage")
_MUST_STATE = frozenset(("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"))


class Evaluator:
    """Objects of one resource. This one, for all without an evaluator of their own, counts objects."""

    counts_updates = False

    def __init__(self, group: str, resource: str) -> None:
        self.count_name = f"count/{qualified(group, resource)}"
        self.names = {self.count_name}
        if not group and resource in _PLAIN_NAMES:
            self.names.add(resource)

    def concerns(self, name: str) -> bool:
        """Whether this kind of object uses the resource."""
        return name in self.names

    def usage(self, obj: Object, now: float) -> Amounts:
        return dict.fromkeys(self.names, "1")

    def unstated(self, obj: Object, names: Iterable[str]) -> str:
        """What the object must say because these resources are limited and does not; "" if all is well."""
        return ""

    def in_scope(self, obj: Object, scope: str, operator: str, values: list[str]) -> bool:
        """Whether the object is one of those to which a scoped quota applies."""
        return False


class PodEvaluator(Evaluator):
    """Pods count as long as they may run; what they ask for is counted in all."""

    def __init__(self) -> None:
        super().__init__("", "pods")
        self.names |= {"pods", *_COMPUTE}
        self.names |= {f"{kind}.{name}" for kind in ("requests", "limits") for name in _COMPUTE}

    def concerns(self, name: str) -> bool:
        return name in self.names or name.startswith(("hugepages-", "requests."))

    def usage(self, obj: Object, now: float) -> Amounts:
        used = {self.count_name: "1"}
        if not _may_run(obj, now):
            return used
        spec = obj["spec"]
        return {**used, "pods": "1", **_compute(pod_requests(spec), pod_limits(spec))}

    def unstated(self, obj: Object, names: Iterable[str]) -> str:
        wanted = _MUST_STATE.intersection(names)
        if not wanted or obj["spec"].get("resources"):
            return ""
        missing: dict[str, set[str]] = {}
        for container in (*(obj["spec"].get("containers") or ()), *(obj["spec"].get("initContainers") or ())):
            resources = container.get("resources") or {}
            stated = _compute(resources.get("requests") or {}, resources.get("limits") or {})
            for name in wanted - stated.keys():
                missing.setdefault(name, set()).add(container["name"])
        told = [f"{name} for: {','.join(sorted(missing[name]))}" for name in sorted(missing)]
        return f"must specify {'; '.join(told)}" if told else ""

    def in_scope(self, obj: Object, scope: str, operator: str, values: list[str]) -> bool:
        spec = obj["spec"]
        if scope in ("Terminating", "NotTerminating"):
            limited = (spec.get("activeDeadlineSeconds") or -1) >= 0
            return limited == (scope == "Terminating")
        if scope in ("BestEffort", "NotBestEffort"):
            return _is_best_effort(spec) == (scope == "BestEffort")
        if scope == "PriorityClass":
            name = spec.get("priorityClassName") or ""
            return _selected(name, operator, values)
        if scope == "CrossNamespacePodAffinity":
            return _crosses_namespaces(spec)
        return False


class ServiceEvaluator(Evaluator):
    """Services count by type; those with node ports by their ports."""

    counts_updates = True

    def __init__(self) -> None:
        super().__init__("", "services")
        self.names |= {"services", "services.nodeports", "services.loadbalancers"}

    def usage(self, obj: Object, now: float) -> Amounts:
        spec = obj.get("spec") or {}
        ports = spec.get("ports") or ()
        kind = spec.get("type")
        nodeports = len(ports) if kind in ("NodePort", "LoadBalancer") else 0
        if kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is False:
            nodeports = sum(1 for port in ports if port.get("nodePort"))
        balancers = 1 if kind == "LoadBalancer" else 0
        return {
            self.count_name: "1",
            "services": "1",
            "services.nodeports": str(nodeports),
            "services.loadbalancers": str(balancers),
        }


class ClaimEvaluator(Evaluator):
    """Claims count what they ask for, in all and for their storage class."""

    counts_updates = True

    def __init__(self) -> None:
        super().__init__("", "persistentvolumeclaims")
        self.names |= {"persistentvolumeclaims", "requests.storage"}

    def concerns(self, name: str) -> bool:
        return name in self.names or _CLASS_SUFFIX in name

    def usage(self, obj: Object, now: float) -> Amounts:
        spec = obj.get("spec") or {}
        used = {self.count_name: "1", "persistentvolumeclaims": "1"}
        annotations = obj["metadata"].get("annotations") or {}
        of_class = annotations.get(_BETA_CLASS) or spec.get("storageClassName") or ""
        size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
        allocated = ((obj.get("status") or {}).get("allocatedResources") or {}).get("storage")
        if size is not None and allocated is not None and quantity.cmp(allocated, size) > 0:
            size = allocated
        if of_class:
            used[f"{of_class}{_CLASS_SUFFIX}persistentvolumeclaims"] = "1"
        if size is not None:
            used["requests.storage"] = size
            if of_class:
                used[f"{of_class}{_CLASS_SUFFIX}requests.storage"] = size
        return used

    def in_scope(self, obj: Object, scope: str, operator: str, values: list[str]) -> bool:
        if scope != "VolumeAttributesClass":
            return False
        return _selected((obj.get("spec") or {}).get("volumeAttributesClassName") or "", operator, values)


_SPECIAL: dict[tuple[str, str], Callable[[], Evaluator]] = {
    ("", "pods"): PodEvaluator,
    ("", "services"): ServiceEvaluator,
    ("", "persistentvolumeclaims"): ClaimEvaluator,
}


def evaluator_of(group: str, resource: str) -> Evaluator:
    special = _SPECIAL.get((group, resource))
    return special() if special is not None else Evaluator(group, resource)


def counted(name: str) -> tuple[str, str] | None:
    """(group, resource) of whose objects a name in a quota is the number; None for amounts of something else."""
    if name in _PLAIN_NAMES:
        return "", name
    counts, _, qualified_name = name.partition("count/")
    if counts or not qualified_name:
        return None
    resource, _, group = qualified_name.partition(".")
    return group, resource


def hard(quota: Object) -> Amounts:
    """The limits that are in force: those which the status repeats."""
    found: Amounts = (quota.get("status") or {}).get("hard") or {}
    return found


def matches(quota: Object, obj: Object, evaluator: Evaluator) -> bool:
    """Whether the object is in all scopes of the quota."""
    spec = quota.get("spec") or {}
    if not all(evaluator.in_scope(obj, scope, "Exists", []) for scope in spec.get("scopes") or ()):
        return False
    expressions = (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    return all(
        evaluator.in_scope(obj, each["scopeName"], each["operator"], each.get("values") or []) for each in expressions
    )


# ---------------------------------------------------------------- pods


def _may_run(pod: Object, now: float) -> bool:
    """Whether the Pod has not ended: a terminal phase, or a deletion whose time is over."""
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return False
    metadata = pod["metadata"]
    if "deletionTimestamp" in metadata and metadata.get("deletionGracePeriodSeconds") is not None:
        return now <= parse_rfc3339(metadata["deletionTimestamp"])
    return True


def _compute(requests: Amounts, limits: Amounts) -> Amounts:
    """Requests and limits under the names that quotas have for them."""
    used: Amounts = {}
    for name, amount in requests.items():
        if name in _COMPUTE or name.startswith("hugepages-"):
            used[name] = amount
        if name in _COMPUTE or name.startswith("hugepages-") or "/" in name:
            used[f"requests.{name}"] = amount
    used.update({f"limits.{name}": limits[name] for name in _COMPUTE if name in limits})
    return used


def _is_best_effort(spec: Object) -> bool:
    holders = [spec, *(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    for holder in holders:
        resources = holder.get("resources") or {}
        for amounts in (resources.get("requests") or {}, resources.get("limits") or {}):
            if any(name in amounts and quantity.milli(amounts[name]) > 0 for name in ("cpu", "memory")):
                return False
    return True


def _selected(name: str, operator: str, values: list[str]) -> bool:
    if operator == "DoesNotExist":
        return not name
    if not name:
        return operator == "NotIn"
    if operator == "Exists":
        return True
    return (name in values) == (operator == "In")


def _crosses_namespaces(spec: Object) -> bool:
    affinity = spec.get("affinity") or {}
    for kind in ("podAffinity", "podAntiAffinity"):
        part = affinity.get(kind) or {}
        preferred = part.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        terms: list[Any] = [weighted.get("podAffinityTerm") or {} for weighted in preferred]
        terms += part.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        if any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms):
            return True
    return False


def rest(used: Amounts, before: Amounts) -> Amounts:
    """What `used` has more (or less) than `before`; equal amounts are left out."""
    difference = add(used, {name: quantity.sub("0", amount) for name, amount in before.items()})
    return {name: amount for name, amount in difference.items() if quantity.milli(amount)}

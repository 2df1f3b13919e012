"""LimitRanger: default requests and limits for containers, and bounds on what Pods and claims may ask for.

Source: the LimitRange API (core/v1). Defaults are set when a Pod is created and noted in an annotation; bounds hold for
new Pods, for the resize subresource and for persistent volume claims.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from fastkube.api import quantity
from fastkube.api.amounts import pod_limits, pod_requests
from fastkube.server.admission.plugin import CREATE, UPDATE, Identity, Plugin, forbid
from fastkube.server.admission.pods import POD

if TYPE_CHECKING:
    from fastkube.api.quantity import Quantity
    from fastkube.registry.strategy import Call, Object
    from fastkube.server.admission.lookup import Lookups

_RESIZE: Identity = ("", "pods", "resize")
_CLAIM: Identity = ("", "persistentvolumeclaims", "")
_ANNOTATION = "kubernetes.io/limit-ranger"

Amounts = dict[str, str]


class LimitRanger(Plugin):
    name = "LimitRanger"
    mutates = validates = True
    by_shape = True

    def __init__(self, lookups: Lookups) -> None:
        self._ranges = lookups.limit_ranges

    def handles(self, target: Identity, operation: str) -> bool:
        if target == POD:
            return operation == CREATE
        if target == _RESIZE:
            return operation == UPDATE
        return target == _CLAIM and operation in (CREATE, UPDATE)

    def _ranges_of(self, call: Call, old: Object | None, kinds: tuple[str, ...]) -> Iterable[list[Object]]:
        """The items of each of the namespace's limit ranges for these kinds of things."""
        if old is not None and "deletionTimestamp" in old["metadata"]:
            return
        for kept in self._ranges.of(call.namespace).values():
            limits = (kept.obj.get("spec") or {}).get("limits") or ()
            yield [item for item in limits if item.get("type") in kinds]

    def mutate(self, call: Call, obj: Object, old: Object | None) -> None:
        if call.rtype.resource != "pods" or not self._ranges.of(call.namespace):
            return
        requests: Amounts = {}
        limits: Amounts = {}
        for items in self._ranges_of(call, old, ("Container",)):
            for item in items:
                requests = {**(item.get("defaultRequest") or {}), **requests}
                limits = {**(item.get("default") or {}), **limits}
        if not requests and not limits:
            return
        spec = obj["spec"]
        notes: list[str] = []
        for what, key in (("container", "containers"), ("init container", "initContainers")):
            for container in spec.get(key) or ():
                notes += _set_defaults(container, requests, limits, what)
        if notes:
            if spec.get("resources"):  # upstream defaults once more, as it reads what it has stored
                from fastkube.registry.strategies.pod_defaults import default_pod_resources

                default_pod_resources(spec)
            metadata = obj["metadata"]
            note = "LimitRanger plugin set: " + "; ".join(notes)
            metadata["annotations"] = {**(metadata.get("annotations") or {}), _ANNOTATION: note}

    def validate(self, call: Call, obj: Object, old: Object | None) -> None:
        if not self._ranges.of(call.namespace):
            return
        is_pod = call.rtype.resource == "pods"
        find, kinds = (_pod_faults, ("Container", "Pod")) if is_pod else (_claim_faults, ("PersistentVolumeClaim",))
        for items in self._ranges_of(call, old, kinds):  # upstream tells of the first that is not kept, each fault once
            faults = list(dict.fromkeys(find(obj, items)))
            if faults:
                raise forbid(call, obj, faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]")


def _set_defaults(container: Object, requests: Amounts, limits: Amounts, what: str) -> list[str]:
    """Fills in what the container does not say; notes on what was set."""
    resources = container.get("resources") or {}
    notes: list[str] = []
    for key, word, defaults in (("limits", "limit", limits), ("requests", "request", requests)):
        given = resources.get(key) or {}
        missing = {name: amount for name, amount in defaults.items() if name not in given}
        if missing:
            resources = {**resources, key: {**given, **missing}}
            notes.insert(0, f"{', '.join(sorted(missing))} {word} for {what} {container['name']}")
    if notes:
        container["resources"] = resources
    return notes


# ---------------------------------------------------------------- bounds

Check = Callable[[str, str, str, Amounts, Amounts], str]
"""(type, resource, bound, requests, limits) → what is wrong, or ""."""


def _pod_faults(pod: Object, items: Iterable[Object]) -> list[str]:
    spec = pod["spec"]
    faults: list[str] = []
    for item in items:
        if item["type"] == "Pod":
            faults += _faults(item, pod_requests(spec), pod_limits(spec))
            continue
        for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
            resources = container.get("resources") or {}
            faults += _faults(item, resources.get("requests") or {}, resources.get("limits") or {})
    return faults


def _faults(item: Object, requests: Amounts, limits: Amounts) -> list[str]:
    checks: tuple[tuple[str, Check], ...] = (("min", _below), ("max", _above), ("maxLimitRequestRatio", _ratio))
    found = (
        check(item["type"], name, bound, requests, limits)
        for key, check in checks
        for name, bound in sorted((item.get(key) or {}).items())
    )
    return [fault for fault in found if fault]


def _claim_faults(claim: Object, items: Iterable[Object]) -> list[str]:
    requests: Amounts = (claim["spec"].get("resources") or {}).get("requests") or {}
    faults: list[str] = []
    for item in items:
        kind = item["type"]
        for name, bound in sorted((item.get("min") or {}).items()):
            faults.append(_below(kind, name, bound, requests, {}))
        for name, bound in sorted((item.get("max") or {}).items()):
            faults.append(_above_request(kind, name, bound, requests))
    return [fault for fault in faults if fault]


def _below(kind: str, name: str, bound: str, requests: Amounts, limits: Amounts) -> str:
    said = f"minimum {name} usage per {kind} is {bound}"
    if name not in requests:
        return f"{said}.  No request is specified"
    if quantity.cmp(requests[name], bound) < 0:
        return f"{said}, but request is {quantity.canonical(requests[name])}"
    if name in limits and quantity.cmp(limits[name], bound) < 0:
        return f"{said}, but limit is {quantity.canonical(limits[name])}"
    return ""


def _above(kind: str, name: str, bound: str, requests: Amounts, limits: Amounts) -> str:
    said = f"maximum {name} usage per {kind} is {bound}"
    if name not in limits:
        return f"{said}.  No limit is specified"
    if quantity.cmp(limits[name], bound) > 0:
        return f"{said}, but limit is {quantity.canonical(limits[name])}"
    if name in requests and quantity.cmp(requests[name], bound) > 0:
        return f"{said}, but request is {quantity.canonical(requests[name])}"
    return ""


def _above_request(kind: str, name: str, bound: str, requests: Amounts) -> str:
    said = f"maximum {name} usage per {kind} is {bound}"
    if name not in requests:
        return f"{said}.  No request is specified"
    if quantity.cmp(requests[name], bound) > 0:
        return f"{said}, but request is {quantity.canonical(requests[name])}"
    return ""


def _ratio(kind: str, name: str, bound: str, requests: Amounts, limits: Amounts) -> str:
    said = f"{name} max limit to request ratio per {kind} is {bound}"
    request = quantity.parse(requests[name]) if name in requests else None
    limit = quantity.parse(limits[name]) if name in limits else None
    if request is None or _is_zero(request):
        return f"{said}, but no request is specified or request is 0"
    if limit is None or _is_zero(limit):
        return f"{said}, but no limit is specified or limit is 0"
    if limit.milli * 1000 > quantity.milli(bound) * request.milli:
        return f"{said}, but provided ratio is {limit.milli / request.milli:f}"
    return ""


def _is_zero(amount: Quantity) -> bool:
    return amount.milli == 0

"""Sums of resource amounts: what a Pod asks for in all, and arithmetic on maps of quantities.

Source: "Pod resources" in the Kubernetes documentation. Init containers run one after the other, so only the largest
counts; a sidecar (an init container with restartPolicy Always) goes on beside all that follow it; what the Pod itself
states as a whole overrides the sum; the runtime's overhead comes on top.
"""

from __future__ import annotations

from typing import Any

from fastkube.api import quantity

Object = dict[str, Any]
Amounts = dict[str, str]


def add(one: Amounts, other: Amounts) -> Amounts:
    total = dict(one)
    for name, amount in other.items():
        total[name] = quantity.add(total[name], amount) if name in total else amount
    return total


def subtract(one: Amounts, other: Amounts) -> Amounts:
    """`one` less `other`; a resource that only `other` has becomes negative."""
    rest = dict(one)
    for name, amount in other.items():
        rest[name] = quantity.sub(rest.get(name, "0"), amount)
    return rest


def larger(one: Amounts, other: Amounts) -> Amounts:
    """The larger amount of each resource."""
    result = dict(one)
    for name, amount in other.items():
        if name not in result or quantity.cmp(amount, result[name]) > 0:
            result[name] = amount
    return result


def pod_requests(spec: Object) -> Amounts:
    return _pod_amounts(spec, "requests")


def pod_limits(spec: Object) -> Amounts:
    return _pod_amounts(spec, "limits")


def _pod_amounts(spec: Object, key: str) -> Amounts:
    total: Amounts = {}
    for container in spec.get("containers") or ():
        total = add(total, _of(container, key))
    initial: Amounts = {}
    sidecars: Amounts = {}
    for container in spec.get("initContainers") or ():
        amounts = _of(container, key)
        if container.get("restartPolicy") == "Always":
            total = add(total, amounts)
            sidecars = add(sidecars, amounts)
            initial = larger(initial, sidecars)
        else:
            initial = larger(initial, add(sidecars, amounts))
    total = larger(total, initial)
    total.update(_of(spec, key))
    overhead = spec.get("overhead") or {}
    if key == "limits":  # overhead raises a limit but makes none
        overhead = {name: amount for name, amount in overhead.items() if name in total}
    return add(total, overhead)


def _of(holder: Object, key: str) -> Amounts:
    found: Amounts = (holder.get("resources") or {}).get(key) or {}
    return found

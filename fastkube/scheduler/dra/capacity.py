"""Consumable capacity: what a request takes of a device, and whether that much is left.

A request names amounts of some of the device's capacities. Each amount is rounded up to what the capacity's policy
permits (a range with steps, or a list of values); of a capacity that is not named the policy's default is taken, and
without one all of it. A device that several claims may share keeps what each of them took.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastkube.api.quantity import Format, Quantity, parse

Object = dict[str, Any]
Amounts = dict[str, int]
"""Capacity name → nanos."""

_UNIT = 10**9


def consumed(requested: Mapping[str, Any], capacities: Mapping[str, Object]) -> dict[str, Quantity] | None:
    """What a request takes of each capacity of a device; None for a request that the device cannot satisfy even when
    nobody else has anything of it."""
    if any(name not in capacities for name in requested):
        return None
    taken = {}
    for name, capacity in capacities.items():
        policy = capacity.get("requestPolicy") or {}
        amount = _rounded(requested.get(name), capacity, policy)
        if _violates(amount, policy):
            return None
        taken[name] = amount
    return taken


def is_left(taken: Mapping[str, Quantity], capacities: Mapping[str, Object], used: Mapping[str, int]) -> bool:
    """Whether a device has so much besides what is used of it."""
    return all(
        amount.nanos + used.get(name, 0) <= _quantity(capacities[name].get("value")).nanos
        for name, amount in taken.items()
    )


def amounts_of(told: Mapping[str, Any]) -> Amounts:
    """consumedCapacity of an allocation's result."""
    return {name: _quantity(value).nanos for name, value in told.items()}


def _quantity(told: Any) -> Quantity:
    return parse(str(told or "0"))


def _rounded(requested: Any, capacity: Object, policy: Object) -> Quantity:
    if requested is None:
        return _quantity(policy["default"] if policy.get("default") is not None else capacity.get("value"))
    amount, span = _quantity(requested), policy.get("validRange") or {}
    if span.get("min") is not None:
        return _in_steps(amount, span)
    values = map(_quantity, policy.get("validValues") or ())
    return next((value for value in values if amount.nanos <= value.nanos), amount)


def _in_steps(amount: Quantity, span: Object) -> Quantity:
    """The least of a range that is enough."""
    least = _quantity(span["min"])
    if amount.nanos < least.nanos:
        return least
    if span.get("step") is None:
        return amount
    step = _quantity(span["step"]).value
    steps = -(-(amount.value - least.value) // step)
    return Quantity((least.value + step * steps) * _UNIT, Format.BINARY_SI)


def _violates(amount: Quantity, policy: Object) -> bool:
    default, span, values = policy.get("default"), policy.get("validRange"), policy.get("validValues")
    if default is not None and amount.nanos == _quantity(default).nanos:
        return False
    if span is not None:
        if span.get("max") is not None and amount.nanos > _quantity(span["max"]).nanos:
            return True
        step, least = span.get("step"), _quantity(span.get("min")).value
        return step is not None and (amount.value - least) % _quantity(step).value != 0
    return bool(values) and amount.nanos not in {_quantity(value).nanos for value in values or ()}

"""Leases."""

from __future__ import annotations

from fastkube.api import field
from fastkube.errors import Cause
from fastkube.registry.strategies.checks import Errors
from fastkube.registry.strategy import Call, Object, Strategy

_SWITCHED_OFF = ("strategy", "preferredHolder")
"""Fields of coordinated leader election, which is off by default in 1.36."""


class LeaseStrategy(Strategy):
    metadata_checks = ("update",)
    kube_finalizers = False
    has_generation = False
    has_status = False
    allow_create_on_update = True
    allow_unconditional_update = False

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        _drop_switched_off(obj, {})

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        _drop_switched_off(new, old.get("spec") or {})

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        errs: Errors = []
        spec = obj.get("spec") or {}
        duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
        if duration is not None and duration <= 0:
            errs.append(field.invalid("spec.leaseDurationSeconds", duration, "must be greater than 0"))
        if transitions is not None and transitions < 0:
            errs.append(field.invalid("spec.leaseTransitions", transitions, field.at_least(0)))
        return errs


def _drop_switched_off(obj: Object, before: Object) -> None:
    spec = obj.get("spec") or {}
    for key in _SWITCHED_OFF:
        if key not in before:
            spec.pop(key, None)


STRATEGIES: dict[tuple[str, str], Strategy] = {("coordination.k8s.io", "leases"): LeaseStrategy()}

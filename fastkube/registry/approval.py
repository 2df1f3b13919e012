"""The approval subresource of certificate signing requests: only the conditions change, and Approved and Denied stay.

The status subresource of the same kind is the other way round: there these two conditions may not change.
"""

from __future__ import annotations

from fastkube.api import field
from fastkube.errors import Cause
from fastkube.registry.strategy import Call, Object, Strategy
from fastkube.registry.updating import Rules

_DECISIONS = ("Approved", "Denied")
_PERMANENT = ("Approved", "Denied", "Failed")


def approval_rules(strategy: Strategy) -> Rules:
    def validate(call: Call, new: Object, old: Object) -> list[Cause]:
        return strategy.validate_status_update(call, new, old) or _validate(new, old)

    return Rules(_prepare, validate, raises_generation=False)


def _conditions(obj: Object) -> list[Object]:
    return (obj.get("status") or {}).get("conditions") or []


def _prepare(call: Call, new: Object, old: Object) -> None:
    """Everything but the conditions is as it was; new conditions get their times."""
    conditions = _conditions(new)
    new["spec"] = old["spec"]
    new["status"] = {key: value for key, value in (old.get("status") or {}).items() if key != "conditions"}
    if conditions:
        new["status"]["conditions"] = conditions


def _validate(new: Object, old: Object) -> list[Cause]:
    given = {condition.get("type") for condition in _conditions(new)}
    causes = [
        field.forbidden("status.conditions", f'updates may not remove a condition of type "{name}"')
        for name in _PERMANENT
        if name not in given and any(condition.get("type") == name for condition in _conditions(old))
    ]
    if all(name in given for name in _DECISIONS):
        problem = "Approved and Denied conditions are mutually exclusive"
        causes.append(field.invalid("status.conditions", "Denied", problem))
    return causes

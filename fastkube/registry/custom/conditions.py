"""The conditions of a definition, and what they mean."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]


def condition(crd: Object, kind: str) -> Object | None:
    """A definition's condition of this type."""
    found = ((crd.get("status") or {}).get("conditions")) or ()
    return next((each for each in found if each.get("type") == kind), None)


def is_true(crd: Object, kind: str) -> bool:
    found = condition(crd, kind)
    return found is not None and found.get("status") == "True"


def is_served(crd: Object) -> bool:
    """Whether requests for its objects are answered."""
    return is_true(crd, "Established") and any(each.get("served") for each in crd["spec"]["versions"])

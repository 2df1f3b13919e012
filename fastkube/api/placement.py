"""Whether a Pod goes with a node: tolerations against taints, node selectors and required node affinity."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastkube.api.selectors import Requirement

Object = dict[str, Any]

_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!", "Gt": "gt", "Lt": "lt"}


def tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")


def untolerated(taints: Iterable[Object], tolerations: Iterable[Object], effects: tuple[str, ...]) -> Object | None:
    """The first taint with one of the effects that nothing tolerates."""
    tolerations = list(tolerations)
    for taint in taints:
        if taint["effect"] in effects and not any(tolerates(known, taint) for known in tolerations):
            return taint
    return None


def node_matches(node: Object, spec: Object) -> bool:
    """Whether a Pod spec's nodeSelector and required node affinity let it onto the node."""
    labels = node["metadata"].get("labels") or {}
    if not (spec.get("nodeSelector") or {}).items() <= labels.items():
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or matches_node_selector(node, required)


def matches_node_selector(node: Object, selector: Object) -> bool:
    """Whether one of the selector's terms holds; a term without any requirement holds for no node."""
    return any(_term_matches(node, term) for term in selector.get("nodeSelectorTerms") or ())


def _term_matches(node: Object, term: Object) -> bool:
    labels = node["metadata"].get("labels") or {}
    fields = {"metadata.name": node["metadata"]["name"]}
    expressions, field_expressions = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not field_expressions:
        return False
    return all(_holds(expression, labels) for expression in expressions) and all(
        _holds(expression, fields) for expression in field_expressions
    )


def _holds(expression: Object, given: dict[str, str]) -> bool:
    operator = _OPERATORS.get(expression["operator"])
    if operator is None:
        return False
    return Requirement(expression["key"], operator, tuple(expression.get("values") or ())).matches(given)

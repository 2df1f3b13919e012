"""Node selectors as bit masks: which nodes a Pod may, or would rather, run on.

A mask is an int with a bit for each node's slot. A selector is turned into and, or and not of the masks that the
NodeIndex keeps for each label, so that it costs the same for ten nodes and for fifty thousand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

Object = dict[str, Any]

_is_integer = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII).fullmatch


class NodeMasks(Protocol):
    """What selectors need to know of the nodes."""

    @property
    def all(self) -> int:
        """The nodes there are."""

    def having(self, key: str) -> int:
        """Nodes with the label."""

    def with_value(self, key: str, value: str) -> int: ...

    def values(self, key: str) -> Mapping[str, int]:
        """Value → nodes with it."""

    def named(self, name: str) -> int: ...


class Requirement(NamedTuple):
    """One expression of a node selector term; `field` says that it is about metadata.name, not a label."""

    key: str
    operator: str
    values: tuple[str, ...]
    field: bool = False

    def mask(self, nodes: NodeMasks) -> int:
        if self.field:
            return self._field_mask(nodes)
        if self.operator == "In":
            return _any(nodes.with_value(self.key, value) for value in self.values)
        if self.operator == "NotIn":
            return nodes.all & ~_any(nodes.with_value(self.key, value) for value in self.values)
        if self.operator == "Exists":
            return nodes.having(self.key)
        if self.operator == "DoesNotExist":
            return nodes.all & ~nodes.having(self.key)
        if self.operator in ("Gt", "Lt"):
            return self._comparison_mask(nodes)
        return 0

    def _field_mask(self, nodes: NodeMasks) -> int:
        named = _any(nodes.named(value) for value in self.values)
        if self.key != "metadata.name":
            return 0
        return named if self.operator == "In" else nodes.all & ~named if self.operator == "NotIn" else 0

    def _comparison_mask(self, nodes: NodeMasks) -> int:
        if len(self.values) != 1 or not _is_integer(self.values[0]):
            return 0
        limit = int(self.values[0])
        greater = self.operator == "Gt"
        return _any(
            mask
            for value, mask in nodes.values(self.key).items()
            if _is_integer(value) and (int(value) > limit if greater else int(value) < limit)
        )


def _any(masks: Iterable[int]) -> int:
    total = 0
    for mask in masks:
        total |= mask
    return total


class Term(NamedTuple):
    """All of its requirements; without any it matches no node."""

    requirements: tuple[Requirement, ...]

    def mask(self, nodes: NodeMasks) -> int:
        if not self.requirements:
            return 0
        found = nodes.all
        for requirement in self.requirements:
            found &= requirement.mask(nodes)
        return found

    def names(self) -> frozenset[str] | None:
        """The node names that the term allows, if it says so by name."""
        found: frozenset[str] | None = None
        for requirement in self.requirements:
            if requirement.field and requirement.key == "metadata.name" and requirement.operator == "In":
                values = frozenset(requirement.values)
                found = values if found is None else found & values
        return found


def parse_term(term: Object) -> Term:
    """A v1.NodeSelectorTerm."""
    labels = [_requirement(each, field=False) for each in term.get("matchExpressions") or ()]
    fields = [_requirement(each, field=True) for each in term.get("matchFields") or ()]
    return Term((*labels, *fields))


def _requirement(expression: Object, *, field: bool) -> Requirement:
    values = tuple(expression.get("values") or ())
    return Requirement(expression.get("key", ""), expression.get("operator", ""), values, field)


class RequiredNodes(NamedTuple):
    """nodeSelector and required node affinity: the nodes that a Pod may run on. `terms` None: no affinity."""

    labels: tuple[tuple[str, str], ...] = ()
    terms: tuple[Term, ...] | None = None

    def __bool__(self) -> bool:
        return bool(self.labels) or self.terms is not None

    def mask(self, nodes: NodeMasks) -> int:
        found = nodes.all
        for key, value in self.labels:
            found &= nodes.with_value(key, value)
        if self.terms is not None:
            found &= _any(term.mask(nodes) for term in self.terms)
        return found

    def names(self) -> frozenset[str] | None:
        """The only nodes there are to look at, when every term names nodes."""
        if not self.terms:
            return None
        found: frozenset[str] = frozenset()
        for term in self.terms:
            names = term.names()
            if names is None:
                return None
            found |= names
        return found


def parse_selector(selector: Object | None) -> tuple[Term, ...] | None:
    """A v1.NodeSelector; None when there is none."""
    if selector is None:
        return None
    return tuple(parse_term(term) for term in selector.get("nodeSelectorTerms") or ())


def selected_nodes(selector: Object | None, nodes: NodeMasks) -> int:
    """The nodes that a v1.NodeSelector names; all where there is none."""
    terms = parse_selector(selector)
    if terms is None:
        return nodes.all
    mask = 0
    for term in terms:
        mask |= term.mask(nodes)
    return mask


def required_nodes(spec: Object) -> RequiredNodes:
    """Of a Pod's spec."""
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    labels = tuple((spec.get("nodeSelector") or {}).items())
    return RequiredNodes(labels, parse_selector(affinity.get("requiredDuringSchedulingIgnoredDuringExecution")))


def preferred_nodes(affinity: Object | None) -> tuple[tuple[int, Term], ...]:
    """(weight, term) of a v1.NodeAffinity; a weight of 0 and a term without requirements say nothing."""
    told = (affinity or {}).get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    terms = ((int(each.get("weight", 0)), parse_term(each.get("preference") or {})) for each in told)
    return tuple((weight, term) for weight, term in terms if weight and term.requirements)

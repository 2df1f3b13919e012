"""The tallies of all plans, kept together: which Pods are counted where, for affinity, spreading and host ports.

Two kinds of counting, both changed only when a Pod comes to a node or leaves it:
  * by selector: the Pods that match (a term of a Pod that is to be placed, or a spread constraint). Whether a Pod
    matches depends on its LabelClass only, so each class keeps the list of the tallies that it is counted in.
  * by what Pods carry: an anti-affinity term that keeps others away, a preference, a host port. A PodSpec's Bundle
    lists these, with weights. Placing a Pod means asking which carried terms select it.

A new tally starts from the classes' own counts, without looking at single Pods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from fastkube import _columns, _sched
from fastkube.api.resources import ANY_IP, HostPort
from fastkube.api.selectors import EQUALS, IN, LabelSelector
from fastkube.scheduler.nodes import NodeInfo
from fastkube.scheduler.pods import LabelClass, PodSpec, PodTerm

_K = TypeVar("_K")
_T = TypeVar("_T")

KEEP_AWAY, NEED, LIKE = "anti-affinity", "affinity", "preference"
"""The kinds of carried terms: required anti-affinity, required affinity, and preferred of either sign."""

NODE = ""
"""The name of the identity topology: each node is a domain of its own. No label key is empty."""


class Matcher(NamedTuple):
    """Which Pods a tally counts. `key` is equal for equal matchers."""

    key: tuple[object, ...]
    covers: Callable[[str, Mapping[str, str]], bool]
    """Whether a namespace (name, labels) is meant."""
    selects: Callable[[Mapping[str, str]], bool]
    namespaces: frozenset[str] | None
    """The only namespaces that can be meant, or None where their labels decide."""
    label: tuple[str, str] | None
    """A label that all of them have, if there is such a one: only who has it needs to be looked at."""
    terminating: bool = True
    """Whether Pods that are being deleted count."""


def match_terms(terms: tuple[PodTerm, ...]) -> Matcher:
    """Pods that match every one of the terms."""
    by_name = all(term.namespace_selector is None for term in terms)
    return Matcher(
        key=("terms", *(term.key for term in terms)),
        covers=lambda namespace, labels: all(term.covers(namespace, labels) for term in terms),
        selects=lambda labels: all(term.selector.matches(labels) for term in terms),
        namespaces=frozenset.intersection(*(term.namespaces for term in terms)) if by_name else None,
        label=next((label for term in terms if (label := _pinned_label(term.selector))), None),
    )


def match_spread(namespace: str, selector: LabelSelector, nothing: bool) -> Matcher:
    """Pods of a namespace that a spread constraint counts: those on their way out do not."""
    return Matcher(
        key=("spread", namespace, None if nothing else str(selector)),
        covers=lambda name, _: name == namespace,
        selects=selector.matches,
        namespaces=frozenset((namespace,)),
        label=None if nothing else _pinned_label(selector),
        terminating=False,
    )


class Selected:
    """A tally by selector, and how many plans use it."""

    __slots__ = ("key", "matcher", "tally", "users")

    def __init__(self, key: tuple[object, ...], matcher: Matcher, tally: _sched.Tally) -> None:
        self.key = key
        self.matcher = matcher
        self.tally = tally
        self.users = 0


class _Domains:
    """The domains of a label key: their numbers, given out again when their last node is gone."""

    def __init__(self, key: str, topology: _sched.Topology) -> None:
        self.key = key
        self.topology = topology
        self._numbers: dict[str, int] = {}
        self._nodes: dict[str, int] = {}
        self._free: list[int] = []

    def put(self, info: NodeInfo) -> None:
        value = info.labels.get(self.key)
        if value is None:
            self.topology.put(info.slot, -1)
            return
        if value not in self._numbers:
            self._numbers[value] = self._free.pop() if self._free else len(self._numbers)
        self._nodes[value] = self._nodes.get(value, 0) + 1
        self.topology.put(info.slot, self._numbers[value])

    def remove(self, info: NodeInfo) -> None:
        self.topology.put(info.slot, -1)
        value = info.labels.get(self.key)
        if value is None:
            return
        self._nodes[value] -= 1
        if not self._nodes[value]:
            del self._nodes[value]
            self._free.append(self._numbers.pop(value))


class Carried(NamedTuple):
    """A term that some Pods carry, and its tally. `kind` is KEEP_AWAY, NEED or LIKE."""

    kind: str
    term: PodTerm
    tally: _sched.Tally


class Tallies:
    """All tallies and topologies of one cache."""

    def __init__(self, nodes: _sched.Nodes) -> None:
        self.nodes = nodes
        self.terms_generation = 0
        """Rises when a term is carried for the first time: plans must ask again which terms select their Pods."""
        self.namespace_generation = 0
        """Rises when a namespace's labels change."""
        self.placement_generation = 0
        """Rises when a node comes, goes or changes its labels."""
        self.identity = _sched.Topology(nodes, identity=True)
        self._topologies: dict[str, _Domains] = {}
        self._infos: dict[str, NodeInfo] = {}
        self._active: dict[str, dict[LabelClass, None]] = {}
        self._active_by_label: dict[tuple[str, str], dict[LabelClass, None]] = {}
        self._selected: dict[tuple[object, ...], Selected] = {}
        self._selected_by_label: dict[tuple[str, str] | None, dict[tuple[object, ...], Selected]] = {}
        self._carried: dict[tuple[str, str], Carried] = {}
        self._by_label: dict[tuple[str, str], list[Carried]] = {}
        self._by_any_label: list[Carried] = []
        self._ports: dict[HostPort, _sched.Tally] = {}
        self._namespaces: dict[str, Mapping[str, str]] = {}

    # -- nodes and namespaces ------------------------------------------------------------------------------------------

    def topology(self, key: str) -> _sched.Topology:
        """The topology of a label key, or NODE."""
        if key == NODE:
            return self.identity
        found = self._topologies.get(key)
        if found is None:
            found = self._topologies[key] = _Domains(key, _sched.Topology(self.nodes))
            for info in self._infos.values():
                found.put(info)
        return found.topology

    def node_added(self, info: NodeInfo) -> None:
        """The node has its slot and labels; its Pods are not counted yet."""
        self._infos[info.name] = info
        self.placement_generation += 1
        for domains in self._topologies.values():
            domains.put(info)

    def node_removed(self, info: NodeInfo) -> None:
        """The node's Pods are not counted any more, and its labels are still those it was added with."""
        del self._infos[info.name]
        self.placement_generation += 1
        for domains in self._topologies.values():
            domains.remove(info)

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        """A namespace's labels, None when it is gone. Terms that choose namespaces by labels are decided anew."""
        if self._namespaces.get(name) == labels:
            return
        if labels is None:
            del self._namespaces[name]
        else:
            self._namespaces[name] = dict(labels)
        self.namespace_generation += 1
        for selected in list(self._selected.values()):
            if selected.matcher.namespaces is None:
                self._drop(selected)

    def namespace_labels(self, name: str) -> Mapping[str, str]:
        return self._namespaces.get(name, {})

    # -- counting by selector ------------------------------------------------------------------------------------------

    def activate(self, labels: LabelClass) -> None:
        """The first Pod of a class is assigned: find the tallies that its Pods are counted in."""
        self._active.setdefault(labels.namespace, {})[labels] = None
        for pair in labels.labels.items():
            self._active_by_label.setdefault(pair, {})[labels] = None
        labels.tallies = [
            selected.tally
            for pair in (None, *labels.labels.items())
            for selected in self._selected_by_label.get(pair, {}).values()
            if self._matches(selected.matcher, labels)
        ]

    def deactivate(self, labels: LabelClass) -> None:
        """The last Pod of a class is gone."""
        _take_out(self._active, labels.namespace, labels)
        for pair in labels.labels.items():
            _take_out(self._active_by_label, pair, labels)
        labels.tallies = []

    def _matches(self, matcher: Matcher, labels: LabelClass) -> bool:
        return (
            (matcher.terminating or not labels.terminating)
            and matcher.covers(labels.namespace, self.namespace_labels(labels.namespace))
            and matcher.selects(labels.labels)
        )

    def selected(self, matcher: Matcher, topology_key: str, eligible: int | None = None) -> Selected:
        """The tally of Pods that match, by topology, on the nodes of a mask. To be given back with `release`."""
        # which domains exist is found when a tally is made: a restricted one ends when nodes or their labels change
        placed = None if eligible is None else self.placement_generation
        key = (matcher.key, topology_key, eligible, placed)
        found = self._selected.get(key)
        if found is None:
            mask = None if eligible is None else _columns.expand(eligible, self.nodes.capacity)
            found = Selected(key, matcher, _sched.Tally(self.topology(topology_key), mask))
            self._selected[key] = found
            self._selected_by_label.setdefault(matcher.label, {})[key] = found
            for labels in self._candidates(matcher):
                if self._matches(matcher, labels):
                    labels.tallies.append(found.tally)
                    for slot, count in labels.slots.items():
                        found.tally.add(slot, count)
        found.users += 1
        return found

    def release(self, selected: Selected) -> None:
        """A plan does not need a tally any more."""
        selected.users -= 1
        if selected.users == 0 and self._selected.get(selected.key) is selected:
            self._drop(selected)

    def _drop(self, gone: Selected) -> None:
        del self._selected[gone.key]
        _take_out(self._selected_by_label, gone.matcher.label, gone.key)
        for labels in self._candidates(gone.matcher):
            if gone.tally in labels.tallies:
                labels.tallies.remove(gone.tally)

    def _candidates(self, matcher: Matcher) -> Iterable[LabelClass]:
        if matcher.label is not None:
            return list(self._active_by_label.get(matcher.label, ()))
        if matcher.namespaces is None:
            return [labels for classes in self._active.values() for labels in classes]
        return [labels for name in matcher.namespaces for labels in self._active.get(name, ())]

    # -- counting by what Pods carry -----------------------------------------------------------------------------------

    def bundle(self, spec: PodSpec) -> _sched.Bundle:
        """Everything that the Pods of a spec are counted for wherever they run."""
        parts = [(self._carry(KEEP_AWAY, term), 1) for term in spec.anti_affinity]
        parts += [(self._carry(NEED, term), 1) for term in spec.affinity]
        parts += [(self._carry(LIKE, term), weight) for weight, term in spec.preferred_affinity]
        parts += [(self._carry(LIKE, term), -weight) for weight, term in spec.preferred_anti_affinity]
        for port in dict.fromkeys(spec.ports):
            parts.append((self._port(port), 1))
            if port.ip != ANY_IP:
                parts.append((self._port(port._replace(ip="*")), 1))
        return _sched.Bundle(parts)

    def _carry(self, kind: str, term: PodTerm) -> _sched.Tally:
        found = self._carried.get((kind, term.key))
        if found is None:
            found = Carried(kind, term, _sched.Tally(self.topology(term.topology_key)))
            self._carried[kind, term.key] = found
            label = _pinned_label(term.selector)
            (self._by_any_label if label is None else self._by_label.setdefault(label, [])).append(found)
            self.terms_generation += 1
        return found.tally

    def carried_for(self, labels: LabelClass) -> list[Carried]:
        """The carried terms that select the Pods of a class."""
        namespace_labels = self.namespace_labels(labels.namespace)
        candidates = [found for pair in labels.labels.items() for found in self._by_label.get(pair, ())]
        return [
            found
            for found in (*candidates, *self._by_any_label)
            if found.term.matches(labels.namespace, namespace_labels, labels.labels)
        ]

    def _port(self, port: HostPort) -> _sched.Tally:
        """Of one address; the address "*" counts the Pods that have the port at any address but all of them."""
        found = self._ports.get(port)
        if found is None:
            found = self._ports[port] = _sched.Tally(self.identity)
        return found

    def port_conflicts(self, ports: Iterable[HostPort]) -> list[_sched.Tally]:
        """The tallies that must be 0 on a node for these ports to be free there."""
        found: dict[HostPort, None] = {}
        for port in ports:
            found[port] = None
            found[port._replace(ip="*" if port.ip == ANY_IP else ANY_IP)] = None
        return [self._port(port) for port in found]


def _take_out(groups: dict[_K, dict[_T, Any]], group: _K, member: _T) -> None:
    """Take a member out of its group, and an empty group away."""
    members = groups[group]
    del members[member]
    if not members:
        del groups[group]


def _pinned_label(selector: LabelSelector) -> tuple[str, str] | None:
    """A label that every matching Pod must have: terms are found by it without trying all of them."""
    for requirement in selector.requirements:
        if requirement.operator in (EQUALS, IN) and len(requirement.values) == 1:
            return requirement.key, requirement.values[0]
    return None

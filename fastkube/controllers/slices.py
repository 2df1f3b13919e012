"""The slices of one Service and address family: changed as little as possible to hold the endpoints that are wanted.

For each set of ports (Pods may resolve a named port differently):
  1. endpoints that are gone leave their slice, changed ones are changed in place
  2. new ones fill slices that are written anyway, then one slice with room for all the rest, then new slices
  3. a slice that becomes empty goes, but where `keep_one` for one, so that "none" can be told from "not yet looked at"
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fastkube.api.meta import owner_reference
from fastkube.controllers.actions import GONE, Action, Create, Delete, Update
from fastkube.controllers.common import Object, Objects
from fastkube.errors import ApiError

SLICES = "discovery.k8s.io/v1/endpointslices"

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"

Endpoints = dict[str, Object]
"""{identity: endpoint}"""


class Group(NamedTuple):
    """The endpoints that are reached on the same ports."""

    ports: Objects
    endpoints: Endpoints


class Target(NamedTuple):
    """What slices are made for, and what all of them are to have."""

    owner: Object
    family: str
    labels: dict[str, str]
    annotations: dict[str, str]
    endpoints_max: int
    keep_one: bool
    failed: Callable[[str, ApiError], Sequence[Action]]
    """What to tell when a slice could not be written: of "Create" or "Update", and why."""


class Plan:
    """What to do with the slices of a target that are there."""

    def __init__(self, target: Target, groups: dict[str, Group], slices: Objects) -> None:
        self._target = target
        self._groups = groups
        self._slices = slices
        self._create: list[tuple[Objects, Objects]] = []
        self._update: Objects = []
        self._delete: Objects = []

    def actions(self) -> list[Action]:
        groups = self._groups
        by_ports: dict[str, Objects] = {}
        for found in self._slices:
            by_ports.setdefault(port_key(found.get("ports") or []), []).append(found)
        for key in by_ports.keys() - groups.keys():
            self._delete += by_ports[key]
        for key, (ports, endpoints) in groups.items():
            self._fit(by_ports.get(key, []), ports, endpoints)
        if self._target.keep_one:
            self._keep_one()
        return self._written()

    def _fit(self, slices: Objects, ports: Objects, wanted: dict[str, Object]) -> None:
        """Steps 1 to 3 for one set of ports."""
        wanted = dict(wanted)
        dirty: Objects = []
        clean: Objects = []
        for found in slices:
            kept, changed = self._purge(found, wanted)
            if not kept:
                self._delete.append(found)
            elif changed or not self._has_labels(found):
                dirty.append({**found, "endpoints": kept})
            else:
                clean.append(found)
        new = list(wanted.values())
        limit = self._target.endpoints_max
        for found in sorted(dirty, key=lambda found: -len(found["endpoints"])):
            room = max(0, limit - len(found["endpoints"]))
            self._update.append({**found, "endpoints": [*found["endpoints"], *new[:room]]})
            new = new[room:]
        if new:
            new = self._fill_clean(clean, new)
        while new:
            self._create.append((ports, new[:limit]))
            new = new[limit:]

    def _purge(self, found: Object, wanted: dict[str, Object]) -> tuple[Objects, bool]:
        """The endpoints of a slice that stay, taken out of `wanted`, and whether anything changes."""
        kept: Objects = []
        changed = False
        present = found.get("endpoints") or []
        for endpoint in present:
            desired = wanted.pop(identity(endpoint), None)
            if desired is not None:
                kept.append(desired)
                changed = changed or desired != endpoint
        return kept, changed or len(kept) != len(present)

    def _fill_clean(self, clean: Objects, new: Objects) -> Objects:
        """The fullest slice that has room for all takes them: one write, and no half-empty slices."""
        limit = self._target.endpoints_max
        fitting = [found for found in clean if len(found["endpoints"]) + len(new) % limit <= limit]
        if not fitting or not len(new) % limit:
            return new
        best = max(fitting, key=lambda found: len(found["endpoints"]))
        rest = len(new) % limit
        self._update.append({**best, "endpoints": [*best["endpoints"], *new[-rest:]]})
        return new[:-rest]

    def _keep_one(self) -> None:
        """A Service without endpoints has one empty slice."""
        left = len(self._slices) - len(self._delete)
        if left or self._create:
            return
        if self._delete:
            last = self._delete.pop()
            if last.get("endpoints") or last.get("ports") or not self._has_labels(last):
                self._update.append({**last, "endpoints": [], "ports": []})
        else:
            self._create.append(([], []))

    def _has_labels(self, found: Object) -> bool:
        return (found["metadata"].get("labels") or {}) == self._target.labels

    def _written(self) -> list[Action]:
        actions: list[Action] = []
        while self._create and self._delete:
            # a slice that would go is used again: one write instead of two
            ports, endpoints = self._create.pop()
            self._update.append({**self._delete.pop(), "ports": ports, "endpoints": endpoints})
        for ports, endpoints in self._create:
            actions.append(Create(SLICES, self._made(ports, endpoints), otherwise=self._failed("Create")))
        for found in self._update:
            metadata = {**found["metadata"], "labels": self._target.labels}
            metadata["annotations"] = {**(metadata.get("annotations") or {}), **self._target.annotations}
            actions.append(Update(SLICES, {**found, "metadata": metadata}, otherwise=self._failed("Update")))
        actions += [Delete(SLICES, found, ignore=GONE) for found in self._delete]
        return actions

    def _failed(self, what: str) -> Any:
        return lambda error: self._target.failed(what, error)

    def _made(self, ports: Objects, endpoints: Objects) -> Object:
        metadata = self._target.owner["metadata"]
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "generateName": f"{metadata['name']}-",
                "namespace": metadata["namespace"],
                "labels": self._target.labels,
                "annotations": self._target.annotations,
                "ownerReferences": [owner_reference(self._target.owner)],
            },
            "addressType": self._target.family,
            "endpoints": endpoints,
            "ports": ports,
        }


def identity(endpoint: Object) -> str:
    """What makes two endpoints the same one, though their conditions may differ."""
    ref = endpoint.get("targetRef") or {}
    return f"{ref.get('uid')}/{','.join(endpoint['addresses'])}/{endpoint.get('hostname', '')}"


def port_key(ports: Objects) -> str:
    """Equal for equal sets of ports, in whatever order and with or without defaults."""
    told = [(p.get("name") or "", p.get("port"), p.get("protocol") or "TCP", p.get("appProtocol") or "") for p in ports]
    return json.dumps(sorted(told, key=str))

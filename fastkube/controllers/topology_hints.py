"""Topology-aware hints: endpoints are shared out among zones in proportion to the CPU of their nodes.

Each endpoint is for its own zone first. Zones that have more than they may give to those that have too few: a zone may
be overloaded by a fifth at most. Where that cannot be done there are no hints at all, and an event says why.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from fastkube.api import quantity
from fastkube.controllers.common import Object, Objects, condition_is

ZONE = "topology.kubernetes.io/zone"
OVERLOAD = 0.2
_INSUFFICIENT = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"
_CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")


class Impossible(Exception):
    """There are no hints, and why."""


class Share(NamedTuple):
    """How many endpoints a zone is to have."""

    least: int
    most: int
    desired: float


def zone_ratios(nodes: Iterable[Object]) -> dict[str, float]:
    """The share of each zone in the CPU of all ready nodes; raises Impossible."""
    cpu: Counter[str] = Counter()
    for node in nodes:
        labels = node["metadata"].get("labels") or {}
        if any(label in labels for label in _CONTROL_PLANE) or not condition_is(node, "Ready"):
            continue
        zone = labels.get(ZONE)
        amount = ((node.get("status") or {}).get("allocatable") or {}).get("cpu")
        if not zone or amount is None or not quantity.milli(amount):
            raise Impossible(
                "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"
            )
        cpu[zone] += quantity.milli(amount)
    if not cpu:
        raise Impossible(_INSUFFICIENT)
    total = sum(cpu.values())
    return {zone: amount / total for zone, amount in cpu.items()}


def shares(ratios: dict[str, float], endpoints: int) -> dict[str, Share]:
    """Raises Impossible."""
    if len(ratios) < 2:
        raise Impossible("Nodes only ready in one zone")
    if len(ratios) > endpoints:
        raise Impossible(f"Insufficient number of endpoints ({endpoints} endpoints, {len(ratios)} zones)")
    least = {zone: math.ceil(ratio * endpoints * (1 / (1 + OVERLOAD))) for zone, ratio in ratios.items()}
    spare = endpoints - sum(least.values())
    if spare < 0:
        told = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold"
        raise Impossible(f"{told} ({endpoints} endpoints, {len(ratios)} zones)")
    return {zone: Share(least[zone], least[zone] + spare, ratio * endpoints) for zone, ratio in ratios.items()}


def spread(endpoints: Objects, ratios: dict[str, float]) -> list[str]:
    """The zone that each of the endpoints is for, in their order; raises Impossible."""
    wanted = shares(ratios, len(endpoints))
    zones = [str(endpoint.get("zone") or "") for endpoint in endpoints]
    if not all(zones):
        raise Impossible("One or more endpoints do not have a zone specified")
    has = Counter(zones)
    giving = {zone: has[zone] - share.desired for zone, share in wanted.items() if has[zone] > share.desired}
    giving |= {zone: float(count) for zone, count in has.items() if zone not in wanted}
    taking = {
        zone: max(1, math.floor(share.desired - has[zone])) for zone, share in wanted.items() if has[zone] < share.least
    }
    for zone, count in sorted(taking.items()):
        for _ in range(count):
            giver = max(sorted(giving), key=lambda each: giving[each], default="")
            if not giver or (giver in wanted and has[giver] - 1 < wanted[giver].least):
                break
            place = len(zones) - 1 - zones[::-1].index(giver)
            zones[place] = zone
            has[giver] -= 1
            has[zone] += 1
            giving[giver] -= 1
    return zones

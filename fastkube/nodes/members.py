"""What the fleet remembers of each of its nodes and Pods: as little as will do, since there may be many."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from fastkube.client import Resource
from fastkube.nodes.admission import Demand, admission_facts
from fastkube.nodes.lifecycle import Subject
from fastkube.nodes.made import FAILED, KWOK_NODE, SIMULATED
from fastkube.nodes.script import Script

Object = dict[str, Any]

PODS = Resource("", "v1", "pods")
HOSTS = 253
"""Addresses of a /24 that Pods can have."""


@dataclass(slots=True)
class FleetNode:
    name: str
    address: str
    pod_network: int  # the first address of the node's /24 of Pod IPs
    about: Object  # what admission looks at
    taken: int = 0  # a bit for each host part that a Pod of the node has
    last: int = 1
    lease_revision: str = ""
    status_due: float = 0.0
    failed: bool = False

    def take(self) -> int:
        """A host part that no Pod has, the longest unused first; 1 when there is none left."""
        for step in range(HOSTS):
            host = 2 + (self.last - 1 + step) % HOSTS
            if not self.taken >> host & 1:
                self.taken |= 1 << host
                self.last = host
                return host
        return 1

    def reserve(self, taken: str | None) -> int | None:
        """Remember the address that a Pod had before this process started; None for none, and one of another node."""
        host = int(ipaddress.ip_address(taken)) - self.pod_network if taken else 0
        if not 2 <= host < 2 + HOSTS or self.taken >> host & 1:
            return None
        self.taken |= 1 << host
        return host

    def give_back(self, host: int) -> None:
        self.taken &= ~(1 << host)


class FleetPod(Subject):
    """A Pod of a node of the fleet. `ip` stays reserved until the Pod is gone.

    `demand` is what it takes of the node, from its admission to its end; `awaited` its object until it is admitted.
    """

    __slots__ = ("awaited", "demand", "ip", "node", "script", "told")

    def __init__(self, uid: str, node: str) -> None:
        super().__init__(PODS, uid)
        self.node = node
        self.demand: Demand | None = None
        self.awaited: Object | None = None
        self.ip: int | None = None
        self.script: Script | None = None
        self.told: Object | None = None

    def failed(self) -> None:
        self.told = None


def slim_node(obj: Object) -> Object:
    """What is kept of a node: its names, whether it is the fleet's and has failed, and where it is."""
    metadata, told = obj["metadata"], obj.get("status") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    endpoint = (told.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}
    addresses = (each["address"] for each in told.get("addresses") or () if each["type"] == "InternalIP")
    return {
        "metadata": {
            **{key: metadata[key] for key in ("name", "uid", "resourceVersion")},
            "simulated": labels.get(SIMULATED) == "true" or annotations.get(KWOK_NODE) == "fake",
            "failed": FAILED in annotations,
        },
        "cidr": (obj.get("spec") or {}).get("podCIDR") or "",
        "address": next(addresses, ""),
        "port": endpoint.get("Port") or 0,
        "about": admission_facts(obj),
    }

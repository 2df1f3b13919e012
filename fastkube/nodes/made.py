"""The nodes that the fleet makes: all alike (`--nodes`), or after Node manifests of a file (`--node-template`).

A manifest is laid over what a made node is: its labels, annotations and capacity are added, its taints taken.
Annotations of it say how many there are: with `fastkube.io/count: "10"` the nodes NAME-0 to NAME-9, and
`fastkube.io/zones: a,b` puts them in these zones in turn.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any, NamedTuple

from fastkube.nodes import status
from fastkube.nodes.options import FleetOptions

Object = dict[str, Any]

SIMULATED = "fastkube.io/simulated"
KWOK_NODE = "kwok.x-k8s.io/node"
FAILED = "fastkube.io/failed"
"""Annotation of a node that has failed: nothing is heard of it, and nothing happens on it, until it is taken off."""
COUNT, ZONES = "fastkube.io/count", "fastkube.io/zones"
ZONE, REGION = "topology.kubernetes.io/zone", "topology.kubernetes.io/region"
_NODE_INFO = {
    "machineID": "",
    "systemUUID": "",
    "bootID": "",
    "kernelVersion": "6.1.0-simulated",
    "osImage": "fastkube simulated node",
    "containerRuntimeVersion": "fastkube://0.1.0",
    "kubeletVersion": "v1.36.2",
    "kubeProxyVersion": "",
    "operatingSystem": "linux",
    "architecture": "amd64",
}


class Made(NamedTuple):
    """A node to be: `place` counts over all, `zone` may be "", `template` is what is laid over it."""

    place: int
    name: str
    zone: str
    template: Object


def made_nodes(options: FleetOptions) -> Iterator[Made]:
    """Raises OSError and ValueError for files that cannot be used."""
    for number in range(options.nodes):
        zone = f"zone-{number % options.node_zones}" if options.node_zones else ""
        yield Made(number, f"{options.node_name_prefix}{number}", zone, {})
    place = options.nodes
    if not options.node_template:
        return
    from fastkube.api.documents import read_files

    for template in read_files(options.node_template):
        for made in _made_after(template):
            yield made._replace(place=place)
            place += 1


def _made_after(template: Object) -> Iterator[Made]:
    metadata = template.get("metadata") or {}
    name = metadata.get("name")
    if template["kind"] != "Node" or not name:
        raise ValueError(f"node-template: a Node with a name is expected, not {template['kind']} {name or ''}".rstrip())
    annotations = dict(metadata.get("annotations") or {})
    count, zones = annotations.pop(COUNT, None), annotations.pop(ZONES, "").split(",")
    if count is not None and not str(count).isdigit():
        raise ValueError(f"node-template: Node {name}: {COUNT} is {count!r}, not a number")
    laid = {**template, "metadata": {**metadata, "annotations": annotations}}
    for number in range(1 if count is None else int(count)):
        yield Made(0, name if count is None else f"{name}-{number}", zones[number % len(zones)].strip(), laid)


def node_object(made: Made, options: FleetOptions, now: str, kubelet_port: int, *, ready: bool) -> Object:
    """The Node as it is registered. `ready`: with the conditions of a healthy one."""
    labels = {
        SIMULATED: "true",
        "kubernetes.io/hostname": made.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "node.kubernetes.io/instance-type": "simulated",
    }
    if made.zone:
        labels |= {ZONE: made.zone, REGION: "region-0"}
    given, spec, told = (made.template.get(part) or {} for part in ("metadata", "spec", "status"))
    capacity = {
        "cpu": options.node_cpu,
        "memory": options.node_memory,
        "ephemeral-storage": "1Ti",
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
        "pods": str(options.node_pods),
        **(told.get("capacity") or told.get("allocatable") or {}),
    }
    pod_cidr = str(ipaddress.ip_network((subnet(options, made.place), 24)))
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": made.name,
            "labels": {**labels, **(given.get("labels") or {})},
            "annotations": {KWOK_NODE: "fake", **(given.get("annotations") or {})},
        },
        "spec": {"podCIDR": pod_cidr, "podCIDRs": [pod_cidr], **spec},
        "status": {
            "addresses": addresses(made.name, node_address(made.place)),
            "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet_port}},
            "features": {"supplementalGroupsPolicy": True},
            **told,
            "capacity": capacity,
            "allocatable": {**capacity, **(told.get("allocatable") or {})},
            "conditions": status.node_conditions(now) if ready else [],
            "nodeInfo": {**_NODE_INFO, **(told.get("nodeInfo") or {})},
        },
    }


def subnet(options: FleetOptions, place: int) -> int:
    """The first address of a node's Pods."""
    network = ipaddress.ip_network(options.pod_cidr)
    return int(network.network_address) + (place % (network.num_addresses // 256)) * 256


def addresses(name: str, address: str) -> list[Object]:
    """Every simulated kubelet is on this machine, and told apart by its name."""
    kinds = {"InternalIP": address, "Hostname": name, "InternalDNS": f"{name}.localhost"}
    return [{"type": kind, "address": told} for kind, told in kinds.items()]


def node_address(place: int) -> str:
    """Addresses from 172.16.0.1 up, one a node; nothing listens there."""
    return str(ipaddress.IPv4Address(int(ipaddress.IPv4Address("172.16.0.1")) + place))

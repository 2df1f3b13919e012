"""Options of the simulated fleet. Where kwok has a flag for the same thing, the name is kwok's."""

from __future__ import annotations

from dataclasses import dataclass

from fastkube.config import option


@dataclass(frozen=True)
class FleetOptions:
    """What `fastkube nodes` (and `up`) runs."""

    nodes: int = option(0, "Simulated nodes to have; nodes of earlier starts and nodes made by others are kept.")
    node_name_prefix: str = option("node-", "Names of made nodes are this and a number from 0.")
    node_cpu: str = option("32", "CPU capacity of a made node.")
    node_memory: str = option("256Gi", "Memory capacity of a made node.")
    node_pods: int = option(110, "How many Pods a made node takes.")
    node_zones: int = option(3, "Zones over which made nodes are spread (topology.kubernetes.io/zone); 0 for none.")
    node_template: tuple[str, ...] = option((), "Files of Node manifests which further nodes are made after.")
    node_lease_duration_seconds: int = option(40, "Seconds for which a node's Lease is valid; renewed at a quarter.")
    pod_cidr: str = option("10.128.0.0/9", "Range of Pod IPs, a /24 of it for each node.", flag="cluster-cidr")
    stages: tuple[str, ...] = option((), "YAML files of Stages which replace the built-in life of Pods.")
    resource_metrics: bool = option(True, "Answer metrics.k8s.io (kubectl top) for an API server of this machine.")

    def __post_init__(self) -> None:
        if self.nodes < 0:
            raise ValueError(f"nodes: {self.nodes} is less than 0")

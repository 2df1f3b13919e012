"""Node IPAM: every node has a range of Pod addresses out of each cluster CIDR."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from fastkube.controllers.actions import GONE, Action, Fail, Patch, Tell
from fastkube.controllers.caches import Caches
from fastkube.controllers.common import Object, is_terminating
from fastkube.controllers.options import ControllerManagerOptions
from fastkube.controllers.runner import Context, Controller, Watch

NODES = "v1/nodes"
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Pool(NamedTuple):
    """A cluster CIDR, and the size of what nodes get out of it."""

    network: Network
    prefix: int

    def ranges(self, start: int) -> Iterator[str]:
        """All ranges once, from the `start`th on."""
        size = 1 << (self.network.max_prefixlen - self.prefix)
        count = 1 << (self.prefix - self.network.prefixlen)
        base = int(self.network.network_address)
        for number in range(count):
            address = base + (start + number) % count * size
            kind = ipaddress.IPv4Address if self.network.version == 4 else ipaddress.IPv6Address
            yield f"{kind(address)}/{self.prefix}"


def pools_of(options: ControllerManagerOptions) -> list[Pool]:
    """The cluster CIDRs; raises ValueError, naming the flag, for what is none."""
    pools = []
    for text in filter(None, options.cluster_cidr.split(",")):
        try:
            network = ipaddress.ip_network(text.strip(), strict=False)
        except ValueError:
            raise ValueError(f"cluster-cidr: {text!r} is not a CIDR") from None
        prefix = _prefix(options, network.version)
        if not network.prefixlen <= prefix <= network.max_prefixlen:
            raise ValueError(f"node-cidr-mask-size: /{prefix} does not fit into the cluster CIDR {text}")
        pools.append(Pool(network, prefix))
    if not pools or len(pools) > 2 or (len(pools) == 2 and pools[0].network.version == pools[1].network.version):
        raise ValueError("cluster-cidr: must be one CIDR, or one of each address family, to allocate from")
    return pools


def _prefix(options: ControllerManagerOptions, version: int) -> int:
    if version == 4:
        return options.node_cidr_mask_size_ipv4 or options.node_cidr_mask_size
    return options.node_cidr_mask_size_ipv6


class View(NamedTuple):
    node: Object
    free: list[str]
    """A range out of each pool; fewer where one is used up."""
    pools: int


def view(context: Context, key: str) -> View | None:
    node = context.caches.by_key(NODES, key)
    if node is None or is_terminating(node) or node["spec"].get("podCIDR") or not context.options.allocate_node_cidrs:
        return None
    pools = pools_of(context.options)
    found = (_free(context, pool) for pool in pools)
    return View(node, [cidr for cidr in found if cidr], len(pools))


def _free(context: Context, pool: Pool) -> str:
    """The first range which no node has, begun at as many as are given out; "" if there is none."""
    caches = context.caches
    reserved = [ipaddress.ip_network(text, strict=False) for text in _reserved(context.options)]
    given = caches.count(NODES) - len(caches.index(NODES, "pod-cidr", ""))
    for cidr in pool.ranges(given):
        if caches.index(NODES, "pod-cidr", cidr):
            continue
        network = ipaddress.ip_network(cidr)
        if not any(network.version == other.version and network.overlaps(other) for other in reserved):
            return cidr
    return ""


def _reserved(options: ControllerManagerOptions) -> Iterable[str]:
    return filter(None, options.service_cluster_ip_range.split(","))


def reconcile(view: View) -> Sequence[Action]:
    node = view.node
    if len(view.free) < view.pools:
        name = node["metadata"]["name"]
        told = Tell(node, "Normal", "CIDRNotAvailable", f"Node {name} status is now: CIDRNotAvailable")
        return [told, Fail("no remaining CIDRs left to allocate in the accepted range")]
    metadata = {"resourceVersion": node["metadata"]["resourceVersion"]}
    body = {"metadata": metadata, "spec": {"podCIDR": view.free[0], "podCIDRs": view.free}}
    return [Patch(NODES, node, body=body, kind="strategic", ignore=GONE)]


def _waiting(caches: Caches, node: Object) -> Iterable[str]:
    """The node itself; and when one has gone, those for which nothing was left."""
    name = node["metadata"]["name"]
    if not node["spec"].get("podCIDR"):
        return (name,)
    if caches.by_key(NODES, name) is not None:
        return ()
    return [found["metadata"]["name"] for found in caches.index(NODES, "pod-cidr", "")]


CONTROLLER = Controller(
    name="node-ipam-controller",
    component="cidrAllocator",
    watches=(Watch(NODES, _waiting, ("pod-cidr",)),),
    view=view,
    reconcile=reconcile,
)

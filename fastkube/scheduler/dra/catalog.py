"""The devices of a cluster out of its ResourceSlices, and which of them claims have.

A pool is one driver's set of slices; only the slices of its newest generation count, and only once all of them are
there. Devices are on one node, on all nodes, or on those that a selector names.

`version_for(node)` rises with every change of what a node's devices are or who has them, so that what was found out for
equal claims on a node holds until it does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from fastkube.api import quantity
from fastkube.scheduler.dra import selectors
from fastkube.scheduler.nodeaffinity import NodeMasks, Term, parse_selector

Object = dict[str, Any]

SLICES = "resource.k8s.io/v1/resourceslices"
CLAIMS = "resource.k8s.io/v1/resourceclaims"
CLASSES = "resource.k8s.io/v1/deviceclasses"

DeviceId = tuple[str, str, str]
"""(driver, pool, device)."""
PoolId = tuple[str, str]


class Device:
    """One device of a pool. `node_terms` of a device that a node selector places."""

    __slots__ = ("counters", "id", "node", "node_terms", "selector", "taints", "told", "variable")

    def __init__(self, pool: PoolId, told: Object, node: str, selector: Object | None) -> None:
        self.id: DeviceId = (*pool, told["name"])
        self.told = told
        self.node = node
        """The only node that can use it, "" for others."""
        self.selector = selector
        self.node_terms: tuple[Term, ...] | None = parse_selector(selector)
        self.variable = selectors.variable(pool[0], told)
        self.taints: tuple[Object, ...] = tuple(told.get("taints") or ())
        self.counters = tuple(
            ((each.get("counterSet", ""), name), quantity.parse(str(value.get("value", "0"))).nanos)
            for each in told.get("consumesCounters") or ()
            for name, value in (each.get("counters") or {}).items()
        )

    def attribute(self, name: str) -> Any:
        """A value that can be compared, None without the attribute; names without a domain are the driver's own."""
        attributes = self.told.get("attributes") or {}
        told = attributes.get(name)
        if told is None:
            domain, _, rest = name.rpartition("/")
            told = attributes.get(rest) if domain == self.id[0] else None
        return None if told is None else next(iter(told.items()), None)


class Pool:
    """The slices of one pool, and what follows from them."""

    def __init__(self, id: PoolId) -> None:
        self.id = id
        self.slices: dict[str, Object] = {}
        self.version = 0
        self.complete = False
        self.invalid = False
        self.local: dict[str, list[Device]] = {}
        """By node."""
        self.shared: list[Device] = []
        """On all nodes, or where a selector says."""
        self.by_name: dict[str, Device] = {}
        self.counters: dict[tuple[str, str], int] = {}

    def refresh(self) -> None:
        """After slices came, changed or went."""
        newest = max((_generation(each) for each in self.slices.values()), default=0)
        current = [self.slices[name] for name in sorted(self.slices) if _generation(self.slices[name]) == newest]
        self.complete = bool(current) and len(current) == current[0]["spec"]["pool"].get("resourceSliceCount")
        self.local, self.shared, self.by_name, self.counters, self.invalid = {}, [], {}, {}, False
        for each in current:
            for told in each["spec"].get("sharedCounters") or ():
                for name, value in (told.get("counters") or {}).items():
                    self.counters[told["name"], name] = quantity.parse(str(value.get("value", "0"))).nanos
            for device in self._devices(each["spec"]):
                self.invalid = self.invalid or device.id[2] in self.by_name
                self.by_name[device.id[2]] = device
                if device.node:
                    self.local.setdefault(device.node, []).append(device)
                else:
                    self.shared.append(device)

    def _devices(self, spec: Object) -> Iterator[Device]:
        for told in spec.get("devices") or ():
            where = told if spec.get("perDeviceNodeSelection") else spec
            selector = where.get("nodeSelector")
            if where.get("nodeName") or where.get("allNodes") or selector is not None:
                yield Device(self.id, told, where.get("nodeName") or "", selector)


def _generation(piece: Object) -> int:
    return int(piece["spec"]["pool"].get("generation") or 0)


class Usage(NamedTuple):
    """What an allocation takes: devices that are the claim's alone."""

    devices: tuple[DeviceId, ...]


def usage_of(allocation: Object | None) -> Usage:
    """Admin access takes nothing."""
    results = ((allocation or {}).get("devices") or {}).get("results") or ()
    return Usage(tuple((each["driver"], each["pool"], each["device"]) for each in results
                       if not each.get("adminAccess")))  # fmt: skip


class Catalog:
    """Kept up to date by the informers' handlers; `assume` is for allocations that are not written yet."""

    def __init__(self, lister: Callable[[str], Any]) -> None:
        self._claims = lister(CLAIMS)
        self._classes = lister(CLASSES)
        self._pools: dict[PoolId, Pool] = {}
        self._on_node: dict[str, set[PoolId]] = {}
        self._shared: set[PoolId] = set()
        self._used: dict[str, Usage] = {}
        self._assumed: dict[str, Object] = {}
        self._in_use: Counter[DeviceId] = Counter()
        self._clock = 0
        self.class_version = 0
        lister(SLICES).add_handler(self._slice, lambda old, new: self._slice_changed(old, new), self._slice_gone)
        self._claims.add_handler(self._claim, lambda _, claim: self._claim(claim), self._claim_gone)
        self._classes.add_handler(self._class_changed, lambda *_: self._class_changed(), self._class_changed)

    # -- reading -------------------------------------------------------------------------------------------------------

    def claim(self, namespace: str, name: str) -> Object | None:
        """With the allocation that has been decided but may not be written yet."""
        known: Object | None = self._claims.get(namespace, name)
        if known is None:
            return None
        allocation = self._assumed.get(known["metadata"]["uid"])
        if allocation is None:
            return known
        return {**known, "status": {**(known.get("status") or {}), "allocation": allocation}}

    def is_assumed(self, uid: str) -> bool:
        return uid in self._assumed

    def device_class(self, name: str) -> Object | None:
        found: Object | None = self._classes.get("", name)
        return found

    def in_use(self, device: DeviceId) -> bool:
        return self._in_use[device] > 0

    def pools_for(self, node: str) -> list[Pool]:
        """Pools with devices that the node may use: its own first, in a fixed order."""
        own = self._on_node.get(node, set())
        return [self._pools[each] for each in (*sorted(own), *sorted(self._shared - own))]

    def version_for(self, node: str) -> int:
        own = (self._pools[each].version for each in self._on_node.get(node, ()))
        shared = (self._pools[each].version for each in self._shared)
        return max((*own, *shared), default=0)

    def has_devices(self, node: str) -> bool:
        return bool(self._shared) or node in self._on_node

    def devices(self, pool: Pool, node: str, slot: int, nodes: NodeMasks) -> list[Device]:
        """The devices of a pool that a node may use."""
        shared = [each for each in pool.shared if each.node_terms is None or _selected(each.node_terms, slot, nodes)]
        return [*pool.local.get(node, ()), *shared]

    def counters_left(self, pool: Pool) -> dict[tuple[str, str], int]:
        """Of a pool whose devices share counters."""
        left = dict(pool.counters)
        for name, device in pool.by_name.items():
            if device.counters and self._in_use[(*pool.id, name)]:
                for key, amount in device.counters:
                    left[key] = left.get(key, 0) - amount
        return left

    # -- assuming ------------------------------------------------------------------------------------------------------

    def assume(self, uid: str, allocation: Object) -> None:
        self._assumed[uid] = allocation
        self._set_usage(uid, usage_of(allocation))

    def forget(self, uid: str, known: Object | None) -> None:
        """The allocation will not be written: what is known of the claim holds again."""
        if self._assumed.pop(uid, None) is not None:
            self._set_usage(uid, usage_of(((known or {}).get("status") or {}).get("allocation")))

    # -- following the server ------------------------------------------------------------------------------------------

    def _claim(self, claim: Object) -> None:
        uid = claim["metadata"]["uid"]
        allocation = (claim.get("status") or {}).get("allocation")
        if allocation is None and uid in self._assumed:
            return
        self._assumed.pop(uid, None)
        self._set_usage(uid, usage_of(allocation))

    def _claim_gone(self, claim: Object) -> None:
        uid = claim["metadata"]["uid"]
        self._assumed.pop(uid, None)
        self._set_usage(uid, Usage(()))

    def _set_usage(self, uid: str, usage: Usage) -> None:
        before = self._used.pop(uid, Usage(()))
        if usage.devices:
            self._used[uid] = usage
        if before == usage:
            return
        for device in before.devices:
            self._in_use[device] -= 1
            if not self._in_use[device]:
                del self._in_use[device]
        self._in_use.update(usage.devices)
        self._touch(device[:2] for device in (*before.devices, *usage.devices))

    def _touch(self, pools: Iterable[PoolId]) -> None:
        self._clock += 1
        for each in pools:
            if each in self._pools:
                self._pools[each].version = self._clock

    def _class_changed(self, *_: Object) -> None:
        self.class_version += 1

    def _slice_changed(self, old: Object, new: Object) -> None:
        if _pool_of(old) != _pool_of(new):
            self._slice_gone(old)
        self._slice(new)

    def _slice(self, piece: Object) -> None:
        pool = self._pools.setdefault(_pool_of(piece), Pool(_pool_of(piece)))
        pool.slices[piece["metadata"]["name"]] = piece
        self._refresh(pool)

    def _slice_gone(self, piece: Object) -> None:
        pool = self._pools.get(_pool_of(piece))
        if pool is not None and pool.slices.pop(piece["metadata"]["name"], None) is not None:
            self._refresh(pool)

    def _refresh(self, pool: Pool) -> None:
        before = set(pool.local)
        pool.refresh()
        self._touch((pool.id,))
        for node in before - pool.local.keys():
            self._on_node[node].discard(pool.id)
            if not self._on_node[node]:
                del self._on_node[node]
        for node in pool.local:
            self._on_node.setdefault(node, set()).add(pool.id)
        if pool.shared:
            self._shared.add(pool.id)
        else:
            self._shared.discard(pool.id)
        if not pool.slices:
            del self._pools[pool.id]


def _pool_of(piece: Object) -> PoolId:
    spec = piece["spec"]
    return spec["driver"], spec["pool"]["name"]


def _selected(terms: tuple[Term, ...], slot: int, nodes: NodeMasks) -> bool:
    return any(term.mask(nodes) >> slot & 1 for term in terms)

"""The devices of a cluster out of its ResourceSlices, and which of them claims have.

A pool is one driver's set of slices; only the slices of its newest generation count, and only once all of them are
there. Devices are on one node, on all nodes, or on those that a selector names.

`version_for(node)` rises with every change of what a node's devices are or who has them, so that what was found out for
equal claims on a node holds until it does.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from fastkube.api import quantity
from fastkube.api.quantity import Quantity
from fastkube.clock import Clock
from fastkube.scheduler.dra import selectors
from fastkube.scheduler.dra.capacity import Amounts, amounts_of, consumed
from fastkube.scheduler.nodeaffinity import NodeMasks, Term, parse_selector
from fastkube.scheduler.pods import PodInfo

Object = dict[str, Any]

SLICES = "resource.k8s.io/v1/resourceslices"
CLAIMS = "resource.k8s.io/v1/resourceclaims"
CLASSES = "resource.k8s.io/v1/deviceclasses"

EXTENDED_ANNOTATION = "resource.kubernetes.io/extended-resource-claim"

DeviceId = tuple[str, str, str]
"""(driver, pool, device)."""
PoolId = tuple[str, str]


class Device:
    """One device of a pool. `node_terms` of a device that a node selector places."""

    __slots__ = (
        "capacity",
        "counters",
        "id",
        "is_shared",
        "node",
        "node_terms",
        "place",
        "selector",
        "taints",
        "told",
        "variable",
    )

    def __init__(self, pool: PoolId, told: Object, node: str, selector: Object | None, place: int) -> None:
        self.id: DeviceId = (*pool, told["name"])
        self.told = told
        self.place = place
        """Among the devices of its pool."""
        self.capacity: Mapping[str, Object] = told.get("capacity") or {}
        self.is_shared = bool(told.get("allowMultipleAllocations"))
        """Several claims may have it, as long as its capacity is enough for them."""
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

    def consumed(self, requested: Mapping[str, Any]) -> dict[str, Quantity] | None:
        """What a request takes of its capacity; None where that cannot be."""
        return consumed(requested, self.capacity)

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
        self.binds_late = False
        """Some of its devices become ready only after binding has begun."""
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
            self._count(each["spec"])
        for each in current:
            for device in self._devices(each["spec"]):
                self.invalid = self.invalid or device.id[2] in self.by_name or not self._has_counters(device)
                self.by_name[device.id[2]] = device
                if device.node:
                    self.local.setdefault(device.node, []).append(device)
                else:
                    self.shared.append(device)
        self.binds_late = any(each.told.get("bindingConditions") for each in self.by_name.values())

    def _count(self, spec: Object) -> None:
        """The counters of a slice; no two sets may have the same name."""
        for told in spec.get("sharedCounters") or ():
            self.invalid = self.invalid or any(name == told["name"] for name, _ in self.counters)
            for name, value in (told.get("counters") or {}).items():
                self.counters[told["name"], name] = quantity.parse(str(value.get("value", "0"))).nanos

    def _has_counters(self, device: Device) -> bool:
        return all(key in self.counters for key, _ in device.counters)

    def _devices(self, spec: Object) -> Iterator[Device]:
        for told in spec.get("devices") or ():
            where = told if spec.get("perDeviceNodeSelection") else spec
            selector = where.get("nodeSelector")
            if where.get("nodeName") or where.get("allNodes") or selector is not None:
                yield Device(self.id, told, where.get("nodeName") or "", selector, len(self.by_name))

    def devices_for(self, node: str, slot: int, nodes: NodeMasks) -> list[Device]:
        """Those that a node may use, in the order of slices and devices."""
        own = self.local.get(node, [])
        shared = [each for each in self.shared if each.node_terms is None or _selected(each.node_terms, slot, nodes)]
        return sorted((*own, *shared), key=lambda device: device.place) if own and shared else own or shared


def _generation(piece: Object) -> int:
    return int(piece["spec"]["pool"].get("generation") or 0)


class Usage(NamedTuple):
    """What an allocation takes: devices that are the claim's alone, and capacity of others."""

    devices: tuple[DeviceId, ...] = ()
    shares: tuple[tuple[DeviceId, Amounts], ...] = ()

    def pools(self) -> Iterator[PoolId]:
        for device in (*self.devices, *(device for device, _ in self.shares)):
            yield device[:2]


def usage_of(allocation: Object | None) -> Usage:
    """Admin access takes nothing."""
    devices: list[DeviceId] = []
    shares: list[tuple[DeviceId, Amounts]] = []
    for each in ((allocation or {}).get("devices") or {}).get("results") or ():
        device = (each["driver"], each["pool"], each["device"])
        if each.get("adminAccess"):
            continue
        if each.get("shareID"):
            shares.append((device, amounts_of(each.get("consumedCapacity") or {})))
        else:
            devices.append(device)
    return Usage(tuple(devices), tuple(shares))


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
        self.pending: dict[str, PodInfo] = {}
        """Of these the allocation is not written yet; the Pods for which it is to be, by the claims' uids."""
        self._waiting: list[asyncio.Future[None]] = []
        self._extended: dict[str, tuple[str, str]] = {}
        """Pod uid → (namespace, name) of the claim that was written for its extended resources."""
        self._in_use: Counter[DeviceId] = Counter()
        self._shares: Counter[DeviceId] = Counter()
        self._capacity_used: dict[DeviceId, Counter[str]] = {}
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

    def extended_claim(self, pod_uid: str) -> Object | None:
        """The claim that was written for a Pod's extended resources in an earlier attempt."""
        found = self._extended.get(pod_uid)
        return None if found is None else self.claim(*found)

    def device_class(self, name: str) -> Object | None:
        found: Object | None = self._classes.get("", name)
        return found

    def in_use(self, device: DeviceId) -> bool:
        """Whether a claim has a device for itself."""
        return self._in_use[device] > 0

    def is_shared(self, device: DeviceId) -> bool:
        """Whether any claim has a part of a device."""
        return self._shares[device] > 0

    def capacity_used(self, device: DeviceId) -> Mapping[str, int]:
        """Nanos of each capacity that claims have of a device."""
        return self._capacity_used.get(device, {})

    def available(self, node: str, slot: int, nodes: NodeMasks) -> list[tuple[Pool, list[Device]]]:
        """The pools with devices that a node may use, in the order in which they are tried."""
        pools = [self._pools[each] for each in sorted(self._on_node.get(node, set()) | self._shared)]
        found = [(pool, pool.devices_for(node, slot, nodes)) for pool in pools]
        return sorted(found, key=lambda each: each[0].binds_late)

    def version_for(self, node: str) -> int:
        own = (self._pools[each].version for each in self._on_node.get(node, ()))
        shared = (self._pools[each].version for each in self._shared)
        return max((*own, *shared), default=0)

    def has_devices(self, node: str) -> bool:
        return bool(self._shared) or node in self._on_node

    def counters_left(self, pool: Pool) -> dict[tuple[str, str], int]:
        """Of a pool whose devices share counters."""
        left = dict(pool.counters)
        for name, device in pool.by_name.items():
            if device.counters and (self.in_use((*pool.id, name)) or self.is_shared((*pool.id, name))):
                for key, amount in device.counters:
                    left[key] = left.get(key, 0) - amount
        return left

    # -- assuming ------------------------------------------------------------------------------------------------------

    def assume(self, uid: str, allocation: Object, pod: PodInfo) -> None:
        """The allocation is to be written for a Pod."""
        self._assumed[uid] = allocation
        self.pending[uid] = pod
        self._set_usage(uid, usage_of(allocation))

    def written(self, claim: Object) -> None:
        """The claim as the server has it now: its allocation may be used by others, whether the watch has it or not."""
        uid = claim["metadata"]["uid"]
        self.pending.pop(uid, None)
        if uid in self._assumed:
            self._assumed[uid] = claim["status"]["allocation"]

    def forget(self, uid: str, known: Object | None) -> None:
        """The allocation will not be written: what is known of the claim holds again."""
        self.pending.pop(uid, None)
        if self._assumed.pop(uid, None) is not None:
            self._set_usage(uid, usage_of(((known or {}).get("status") or {}).get("allocation")))

    # -- following the server ------------------------------------------------------------------------------------------

    def _claim(self, claim: Object) -> None:
        uid = claim["metadata"]["uid"]
        for owner in _extended_for(claim):
            self._extended[owner] = claim["metadata"]["namespace"], claim["metadata"]["name"]
        allocation = (claim.get("status") or {}).get("allocation")
        self._tell_changed()
        if allocation is None and uid in self._assumed:
            return
        self._assumed.pop(uid, None)
        self.pending.pop(uid, None)
        self._set_usage(uid, usage_of(allocation))

    def _claim_gone(self, claim: Object) -> None:
        uid = claim["metadata"]["uid"]
        for owner in _extended_for(claim):
            self._extended.pop(owner, None)
        self._tell_changed()
        self._assumed.pop(uid, None)
        self.pending.pop(uid, None)
        self._set_usage(uid, Usage())

    async def changed(self, clock: Clock, seconds: float) -> None:
        """Until any claim changes, at most so long."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        timeout = asyncio.ensure_future(clock.sleep(seconds))
        try:
            await asyncio.wait((future, timeout), return_when=asyncio.FIRST_COMPLETED)
        finally:
            timeout.cancel()
            future.cancel()

    def _tell_changed(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _set_usage(self, uid: str, usage: Usage) -> None:
        before = self._used.pop(uid, Usage())
        if usage != Usage():
            self._used[uid] = usage
        if before == usage:
            return
        self._add(before, -1)
        self._add(usage, 1)
        self._touch((*before.pools(), *usage.pools()))

    def _add(self, usage: Usage, sign: int) -> None:
        for device in usage.devices:
            self._in_use[device] += sign
            if not self._in_use[device]:
                del self._in_use[device]
        for device, amounts in usage.shares:
            self._shares[device] += sign
            used = self._capacity_used.setdefault(device, Counter())
            for name, amount in amounts.items():
                used[name] += sign * amount
            if not self._shares[device]:
                del self._shares[device], self._capacity_used[device]

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


def _extended_for(claim: Object) -> list[str]:
    """The uid of the Pod whose extended resources a claim is for."""
    metadata = claim["metadata"]
    if (metadata.get("annotations") or {}).get(EXTENDED_ANNOTATION) != "true":
        return []
    return [each["uid"] for each in metadata.get("ownerReferences") or () if each.get("controller")]


def _pool_of(piece: Object) -> PoolId:
    spec = piece["spec"]
    return spec["driver"], spec["pool"]["name"]


def _selected(terms: tuple[Term, ...], slot: int, nodes: NodeMasks) -> bool:
    return any(term.mask(nodes) >> slot & 1 for term in terms)

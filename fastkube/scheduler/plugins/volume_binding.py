"""VolumeBinding: a Pod's claims must be usable on its node; those that wait for it are bound before it is.

Bound claims restrict the nodes by their volumes' affinity. Claims whose class waits for a consumer need a node where a
suitable volume exists or may be made; reserving such a node assumes the choice, pre-binding writes it down and waits
until the volume controllers have done their part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from fastkube.api import quantity
from fastkube.errors import ApiError
from fastkube.scheduler import migration
from fastkube.scheduler.events import (
    CSI_DRIVER,
    CSI_NODE,
    CSI_STORAGE_CAPACITY,
    NODE,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    STORAGE_CLASS,
    Action,
    ClusterEvent,
    Interest,
)
from fastkube.scheduler.framework import BindingFailed, Cycle, Handle, Plugin, PluginError, Reason, Refusal, Rejected
from fastkube.scheduler.nodeaffinity import selected_nodes
from fastkube.scheduler.nodes import NodeInfo, bits
from fastkube.scheduler.pods import PodInfo
from fastkube.scheduler.volumes import (
    CLAIMS,
    CSI_NODES,
    SELECTED_NODE,
    VOLUMES,
    Claims,
    VolumeStore,
    annotations_of,
    capacity_of,
    claim_names,
    class_of,
    is_fully_bound,
    request_of,
)

Object = dict[str, Any]

BIND_TIMEOUT_S = 600.0


class Choice(NamedTuple):
    """What is to be written for a Pod on its node."""

    volumes: list[Object]
    claims: list[Object]


class _State:
    """Of one cycle: the claims, and once reserved what was chosen."""

    def __init__(self, claims: Claims) -> None:
        self.claims = claims
        self.choice = Choice([], [])


class VolumeBinding(Plugin):
    name = "VolumeBinding"
    about = "volumes"
    notes_pre_bind = True
    interests = (
        Interest(STORAGE_CLASS, Action.ADD | Action.UPDATE),
        Interest(PERSISTENT_VOLUME_CLAIM, Action.ADD | Action.UPDATE),
        Interest(PERSISTENT_VOLUME, Action.ADD | Action.UPDATE),
        Interest(NODE, Action.ADD | Action.UPDATE_NODE_LABEL),
        Interest(CSI_NODE, Action.ADD | Action.UPDATE),
        Interest(CSI_DRIVER, Action.UPDATE),
        Interest(CSI_STORAGE_CAPACITY, Action.ADD | Action.UPDATE),
    )

    ELSEWHERE = Reason(name, "node(s) didn't match PersistentVolume's node affinity", resolvable=False)
    NONE_TO_BIND = Reason(name, "node(s) didn't find available persistent volumes to bind", resolvable=False)
    FULL = Reason(name, "node(s) did not have enough free storage", resolvable=False)
    MISSING = Reason(
        name, "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)", resolvable=False
    )

    def __init__(self, args: Mapping[str, Any], handle: Handle, weight: int = 1) -> None:
        super().__init__(args, handle, weight)
        timeout = args.get("bindTimeoutSeconds")
        self._timeout_s = BIND_TIMEOUT_S if timeout is None else float(timeout)
        self._shape = [(int(point["utilization"]), int(point["score"]) * 10) for point in args.get("shape") or ()]
        self._store = VolumeStore(handle.lister)
        self._csi_nodes = handle.lister(CSI_NODES)
        self._waiting: set[asyncio.Event] = set()
        for resource in (CLAIMS, VOLUMES):
            handle.lister(resource).add_handler(None, self._claims_changed, self._claims_changed)

    def pre_filter(self, cycle: Cycle) -> None:
        if not any(True for _ in claim_names(cycle.pod)):
            return
        claims = self._store.claims_of(cycle.pod)
        if claims.immediate:
            raise Rejected("pod has unbound immediate PersistentVolumeClaims")
        cycle.state[self.name] = _State(claims)

    def refusals(self, cycle: Cycle) -> Iterable[Refusal]:
        state: _State | None = cycle.state.get(self.name)
        if state is None:
            return
        index = self.handle.cache.index
        for claim in state.claims.bound:
            volume = self._store.volume(claim["spec"]["volumeName"])
            if volume is None:
                yield Refusal(index.all, self.MISSING)
            else:
                yield Refusal(index.all & ~self._nodes_of(volume), self.ELSEWHERE)
        if state.claims.delayed:
            suitable, roomy = self._for_delayed(state.claims.delayed)
            yield Refusal(index.all & ~suitable, self.NONE_TO_BIND)
            yield Refusal(suitable & ~roomy, self.FULL)

    def _nodes_of(self, volume: Object) -> int:
        """The nodes that can use a claim's volume: by its driver's labels where a CSI driver stands in for it."""
        index = self.handle.cache.index
        nodes, plugin = self._store.nodes_of(volume, index), migration.plugin_of(volume)
        migrated = self._migrated(plugin) if plugin else 0
        if not migrated:
            return nodes
        try:
            required = migration.required_nodes(volume)
        except ValueError as error:
            raise PluginError(self.name, f"could not translate pv: {error}") from error
        return nodes & ~migrated | selected_nodes(required, index) & migrated

    def _migrated(self, plugin: str) -> int:
        """The nodes on which a CSI driver stands in for an in-tree plugin."""
        told = (each["metadata"] for each in self._csi_nodes.list() if plugin in migration.plugins_migrated(each))
        infos = (self.handle.cache.infos.get(metadata["name"]) for metadata in told)
        return sum(1 << info.slot for info in infos if info is not None and info.slot >= 0)

    # -- claims that wait for a node -----------------------------------------------------------------------------------

    def _for_delayed(self, claims: tuple[Object, ...]) -> tuple[int, int]:
        """(nodes where every claim can be bound or have its volume made, those of them with room for it)."""
        index = self.handle.cache.index
        suitable = roomy = index.all
        searched = []
        for claim in claims:
            node = annotations_of(claim).get(SELECTED_NODE)
            if node is None:
                searched.append(claim)
                continue
            allowed, room = self._store.provisionable(claim, index)
            suitable &= index.named(node) & allowed
            roomy &= room
        for lacking, mask in self._lacking(searched).items():
            allowed, room = index.all, index.all
            for each in lacking:
                may, has = self._store.provisionable(each.obj, index)
                allowed, room = allowed & may, room & has
            suitable &= ~(mask & ~allowed)
            roomy &= ~(mask & allowed & ~room)
        return suitable, suitable & roomy

    def _lacking(self, claims: list[Object]) -> dict[tuple[_Claim, ...], int]:
        """Claims without a volume → the nodes on which it is those."""
        index = self.handle.cache.index
        found: dict[tuple[_Claim, ...], int] = {}
        options = self._options(claims)
        if len(options) == 1:
            claim, volumes = options[0]
            near = 0
            for _, mask in volumes:
                near |= mask
            return {(): index.all & near, (_Claim(claim),): index.all & ~near}
        for slot in bits(index.all) if options else ():
            _, left = _assign(options, slot)
            key = tuple(map(_Claim, left))
            found[key] = found.get(key, 0) | 1 << slot
        return found

    def _options(self, claims: list[Object]) -> list[tuple[Object, list[tuple[Object, int]]]]:
        """Each claim, the smallest first, with the volumes that suit it and the nodes that those can be used on."""
        index = self.handle.cache.index
        return [
            (claim, [(volume, self._store.nodes_of(volume, index)) for volume in self._store.candidates(claim)])
            for claim in sorted(claims, key=request_of)
        ]

    # -- scores --------------------------------------------------------------------------------------------------------

    def score(self, cycle: Cycle, nodes: Sequence[NodeInfo]) -> Sequence[int] | None:
        """How well the volumes that would be used or made suit what is asked of them, where a shape says so."""
        state: _State | None = cycle.state.get(self.name)
        if not self._shape or state is None or not state.claims.delayed:
            return None
        options = self._options([each for each in state.claims.delayed if SELECTED_NODE not in annotations_of(each)])
        return [self._score_of(options, node.slot) for node in nodes]

    def _score_of(self, options: list[tuple[Object, list[tuple[Object, int]]]], slot: int) -> int:
        chosen, left = _assign(options, slot)
        classes: dict[str, tuple[int, int]] = {}
        if chosen:
            for volume, claim in chosen:
                asked, have = classes.get(class_of(volume), (0, 0))
                classes[class_of(volume)] = asked + request_of(claim), have + capacity_of(volume)
        else:
            for claim in left:
                have = self._store.capacity_near(claim, slot, self.handle.cache.index)
                if have:
                    classes[class_of(claim)] = classes.get(class_of(claim), (0, 0))[0] + request_of(claim), have
        if not classes:
            return 0
        total = sum(
            curve(self._shape, 100 if asked > have else asked * 100 // have) for asked, have in classes.values()
        )
        return (2 * total + len(classes)) // (2 * len(classes))

    # -- binding -------------------------------------------------------------------------------------------------------

    def reserve(self, cycle: Cycle, node: NodeInfo) -> None:
        state: _State | None = cycle.state.get(self.name)
        if state is None:
            return
        if not state.claims.delayed:
            del cycle.state[self.name]  # nothing is left to be done before binding
            return
        selected = [claim for claim in state.claims.delayed if SELECTED_NODE in annotations_of(claim)]
        searched = [claim for claim in state.claims.delayed if SELECTED_NODE not in annotations_of(claim)]
        chosen, left = _assign(self._options(searched), node.slot)
        state.choice = Choice(
            [self._store.assume_volume(volume, claim) for volume, claim in chosen],
            [self._store.assume_claim(claim, node.name) for claim in (*selected, *left)],
        )

    def unreserve(self, cycle: Cycle, node: NodeInfo) -> None:
        state: _State | None = cycle.state.get(self.name)
        if state is not None:
            for volume in state.choice.volumes:
                self._store.forget_volume(volume)
            for claim in state.choice.claims:
                self._store.forget_claim(claim)

    async def pre_bind(self, cycle: Cycle, node: NodeInfo) -> None:
        try:
            await self._bind_volumes(cycle, node)
        except (BindingFailed, ApiError):
            self.handle.metrics.volume_errors.add("bind")
            raise

    async def _bind_volumes(self, cycle: Cycle, node: NodeInfo) -> None:
        state: _State = cycle.state[self.name]
        client = self.handle.client
        written = Choice(
            [await client.update(VOLUMES, volume) for volume in state.choice.volumes],
            [await client.update(CLAIMS, claim) for claim in state.choice.claims],
        )
        changed = asyncio.Event()
        self._waiting.add(changed)
        timeout = asyncio.ensure_future(self.handle.clock.sleep(self._timeout_s))
        try:
            while not self._all_bound(cycle.pod, node, written):
                waiting = asyncio.ensure_future(changed.wait())
                await asyncio.wait((waiting, timeout), return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                if timeout.done():
                    raise BindingFailed("context deadline exceeded")
                changed.clear()
        except BindingFailed as failed:
            raise BindingFailed(f"binding volumes: {failed}") from failed
        finally:
            timeout.cancel()
            self._waiting.discard(changed)

    def _claims_changed(self, *_: Object) -> None:
        for changed in self._waiting:
            changed.set()

    def _all_bound(self, pod: PodInfo, node: NodeInfo, written: Choice) -> bool:
        """Raises BindingFailed when the volume controllers have given up, and the Pod must be placed anew."""
        for volume in written.volumes:
            name = volume["metadata"]["name"]
            known = self._store.volume(name)
            if known is None:
                raise BindingFailed(f'failed to check binding: could not find v1.PersistentVolume "{name}"')
            if _revision(known) >= _revision(volume) and not (known["spec"].get("claimRef") or {}).get("uid"):
                raise BindingFailed(f'ClaimRef got reset for pv "{name}"')
        for claim in written.claims:
            known = self._known_claim(pod, claim["metadata"]["name"])
            if _revision(known) >= _revision(claim) and not is_fully_bound(known):
                self._check_selected(known, node)
        claims = [self._known_claim(pod, name) for name, _ in claim_names(pod)]
        for claim in claims:
            if is_fully_bound(claim):
                self._check_usable(claim, node)
        return all(is_fully_bound(claim) for claim in claims)

    def _known_claim(self, pod: PodInfo, name: str) -> Object:
        claim = self._store.known_claim(pod.namespace, name)
        if claim is None:
            raise BindingFailed(f'could not find v1.PersistentVolumeClaim "{pod.namespace}/{name}"')
        return claim

    @staticmethod
    def _check_selected(claim: Object, node: NodeInfo) -> None:
        """A provisioner that cannot make the volume here takes the mark away again."""
        name, selected = claim["metadata"]["name"], annotations_of(claim).get(SELECTED_NODE)
        if selected is None:
            raise BindingFailed(f'selectedNode annotation reset for PVC "{name}"')
        if selected != node.name:
            told = f'selectedNode annotation value "{selected}" not set to scheduled node "{node.name}"'
            raise BindingFailed(told)

    def _check_usable(self, claim: Object, node: NodeInfo) -> None:
        name = claim["spec"]["volumeName"]
        volume = self._store.volume(name)
        if volume is not None and node.slot >= 0 and not self._nodes_of(volume) >> node.slot & 1:
            raise BindingFailed(f'pv "{name}" node affinity doesn\'t match node "{node.name}"')

    # -- who wakes -----------------------------------------------------------------------------------------------------

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        if event.resource == PERSISTENT_VOLUME_CLAIM:
            metadata = event.new["metadata"]
            return metadata.get("namespace") == pod.namespace and any(
                name == metadata["name"] for name, _ in claim_names(pod)
            )
        if event.resource == STORAGE_CLASS and event.old is not None:
            return bool(event.old.get("allowedTopologies") != event.new.get("allowedTopologies"))
        if event.resource == CSI_DRIVER and event.old is not None:
            before, after = event.old.get("spec") or {}, event.new.get("spec") or {}
            return bool(before.get("storageCapacity")) and not after.get("storageCapacity")
        if event.resource == CSI_NODE and event.old is not None:
            return migration.plugins_migrated(event.old) != migration.plugins_migrated(event.new)
        if event.resource == CSI_STORAGE_CAPACITY and event.old is not None:
            return _limit(event.new) > _limit(event.old)
        return True


def _limit(capacity: Object) -> int:
    """Bytes that a volume may have; -1 where nothing is said."""
    told = capacity.get("maximumVolumeSize") or capacity.get("capacity")
    return -1 if told is None else quantity.value(str(told))


def curve(shape: Sequence[tuple[int, int]], utilization: int) -> int:
    """The piecewise linear function through the points of a shape; divisions round towards zero."""
    if utilization <= shape[0][0]:
        return shape[0][1]
    for (x, y), (next_x, next_y) in pairwise(shape):
        if utilization <= next_x:
            return y + int((next_y - y) * (utilization - x) / (next_x - x))
    return shape[-1][1]


def _revision(obj: Object) -> int:
    return int(obj["metadata"].get("resourceVersion") or 0)


class _Claim:
    """A claim as a key: claims are told apart by identity."""

    __slots__ = ("obj",)

    def __init__(self, obj: Object) -> None:
        self.obj = obj

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Claim) and other.obj is self.obj

    def __hash__(self) -> int:
        return id(self.obj)


def _assign(
    options: list[tuple[Object, list[tuple[Object, int]]]], slot: int
) -> tuple[list[tuple[Object, Object]], list[Object]]:
    """On one node: (volume, claim) pairs, and the claims that no volume is left for."""
    chosen: list[tuple[Object, Object]] = []
    left = []
    for claim, volumes in options:
        taken = {id(volume) for volume, _ in chosen}
        for volume, mask in volumes:
            if mask >> slot & 1 and id(volume) not in taken:
                chosen.append((volume, claim))
                break
        else:
            left.append(claim)
    return chosen, left

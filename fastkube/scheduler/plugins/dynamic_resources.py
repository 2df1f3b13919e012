"""DynamicResources: a Pod's ResourceClaims are allocated devices on its node, and reserved for it.

Claims without an allocation need a node where devices for all of them are free (fastkube.scheduler.dra); those with one
need a node where it can be used. Reserving a node assumes the allocation, pre-binding writes it, and waits for devices
that become ready only then. A claim that is allocated where the Pod cannot run, or whose devices do not become ready,
and that nobody uses, is deallocated.

Extended resources that device classes stand for become one more claim, which is written when the Pod is bound.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from fastkube.scheduler.config_fields import duration_s
from fastkube.scheduler.dra.allocator import AllocationError, Allocator, Claim, MissingClass, NodeError, parse_claim
from fastkube.scheduler.dra.catalog import CLAIMS, Catalog
from fastkube.scheduler.dra.extended import Variant, claim_for
from fastkube.scheduler.dra.readiness import NeverReady, Patience, awaited, is_late, is_ready
from fastkube.scheduler.dra.results import to_status
from fastkube.scheduler.dra.writing import ClaimWriter
from fastkube.scheduler.events import (
    DEVICE_CLASS,
    NODE,
    RESOURCE_CLAIM,
    RESOURCE_SLICE,
    UNSCHEDULED_POD,
    Action,
    ClusterEvent,
    Interest,
)
from fastkube.scheduler.framework import (
    MAX_SCORE,
    Cycle,
    Handle,
    Nomination,
    Plugin,
    PluginError,
    Reason,
    Refusal,
    Rejected,
)
from fastkube.scheduler.nodeaffinity import selected_nodes
from fastkube.scheduler.nodes import NodeInfo, bits
from fastkube.scheduler.pods import PodInfo
from fastkube.scheduler.search import FitError, NodeSearch

Object = dict[str, Any]

RESERVED_MAX = 256
ALTERNATIVES_MAX = 8
"""In a request of the API; the first one of so many counts most in scores."""
FILTER_TIMEOUT = "10s"
"""How long the search for devices on one node may take by default; "0" is for ever."""
BINDING_TIMEOUT = "10m"
"""How long a device may take to become ready by default."""
_SIGNATURES_MAX = 256


class _Unusable(Exception):
    """A claim that the Pod names cannot be used now."""


class _State:
    """Of one cycle."""

    def __init__(self, claims: list[Object], pending: tuple[Claim, ...]) -> None:
        self.claims = claims
        self.pending = pending
        self.allocations: dict[str, Object] = {}
        """By uid, once reserved."""
        self.reserved_for: list[Object] = []
        """Claims that name the Pod as their user."""
        self.elsewhere: list[Object] = []
        """Allocated claims that keep the Pod from some node."""
        self.preference: dict[str, int] = {}
        """Node → how much the devices there are what the claims would rather have."""
        self.extended: tuple[str, ...] = ()
        """Extended resources that device classes stand for, or might."""
        self.stale: Object | None = None
        """The claim for them of an earlier attempt."""
        self.variants: dict[frozenset[str], tuple[Variant, Claim]] = {}
        """Resources that a node leaves to its devices → the claim for these."""
        self.variant: Variant | None = None
        """That of the reserved node."""


class _Known(NamedTuple):
    """Whether a node can satisfy claims of one signature, as of a version of its devices."""

    version: int
    refused: Reason | None
    preference: int
    """How much the devices are what the claims would rather have."""


class DynamicResources(Plugin):
    name = "DynamicResources"
    about = "claims"
    notes_pre_bind = True
    interests = (
        Interest(NODE, Action.ADD | Action.UPDATE_NODE_LABEL | Action.UPDATE_NODE_ALLOCATABLE),
        Interest(RESOURCE_CLAIM, Action.ADD | Action.UPDATE | Action.DELETE),
        Interest(UNSCHEDULED_POD, Action.UPDATE_POD_GENERATED_CLAIM),
        Interest(DEVICE_CLASS, Action.ADD | Action.UPDATE),
        Interest(RESOURCE_SLICE, Action.ADD | Action.UPDATE),
    )

    ELSEWHERE = Reason(name, "resourceclaim not available on the node", resolvable=False)
    NOT_ALLOCATED = Reason(name, "cannot allocate all claims", resolvable=False)
    STALE = Reason(name, "cannot schedule extended resource claim", resolvable=False)
    NO_RESOURCE = Reason(name, "cannot fit resource", resolvable=False)

    def __init__(self, args: Mapping[str, Any], handle: Handle, weight: int = 1) -> None:
        super().__init__(args, handle, weight)
        self._catalog = Catalog(handle.lister)
        self._classes = handle.extended_classes
        self._writer = ClaimWriter(handle.client, handle.clock, handle.metrics)
        self._filter_timeout_s = duration_s(args.get("filterTimeout") or FILTER_TIMEOUT)
        self._binding_timeout_s = duration_s(args.get("bindingTimeout") or BINDING_TIMEOUT)
        self._patience = Patience(self._catalog, handle, self._binding_timeout_s)
        self._signatures: dict[bytes, dict[str, _Known]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # -- which claims --------------------------------------------------------------------------------------------------

    def pre_enqueue(self, pod: PodInfo) -> str | None:
        if not pod.claims:
            return None
        try:
            for _ in self._claims(pod):
                pass
        except _Unusable as unusable:
            return str(unusable)
        return None

    def _claims(self, pod: PodInfo) -> Iterator[Object]:
        """Raises _Unusable."""
        for name, generated in _claim_names(pod):
            claim = self._catalog.claim(pod.namespace, name)
            if claim is None:
                raise _Unusable(f'could not find ResourceClaim "{pod.namespace}/{name}"')
            metadata = claim["metadata"]
            if metadata.get("deletionTimestamp"):
                raise _Unusable(f'resourceclaim "{name}" is being deleted')
            owners = metadata.get("ownerReferences") or ()
            if generated and not any(each.get("controller") and each.get("uid") == pod.uid for each in owners):
                raise _Unusable(f"ResourceClaim {pod.namespace}/{name} was not created for Pod {pod.key} "
                                "(Pod is not owner)")  # fmt: skip
            yield claim

    def pre_filter(self, cycle: Cycle) -> None:
        pod = cycle.pod
        extended = pod.spec.devices if self._classes.any_of(pod.spec.devices) else ()
        if not pod.claims and not extended:
            return
        try:
            claims = list(self._claims(pod))
            pending = tuple(filter(None, [self._pending(pod, claim) for claim in claims]))
        except (_Unusable, MissingClass) as unusable:
            raise Rejected(str(unusable)) from None
        except AllocationError as error:
            raise PluginError(self.name, str(error)) from error
        if claims or extended:
            state = cycle.state[self.name] = _State(claims, pending)
            state.extended = extended
            state.stale = self._catalog.extended_claim(pod.uid) if extended else None

    def _pending(self, pod: PodInfo, claim: Object) -> Claim | None:
        """What must be allocated for a claim, None for one that is allocated; raises _Unusable."""
        status = claim.get("status") or {}
        if status.get("allocation") is None:
            return parse_claim(claim, self._catalog.device_class)
        metadata = claim["metadata"]
        by = self._catalog.pending.get(metadata["uid"])
        if by is not None and (by.group is None or by.group != pod.group):
            told = f"resource claim {metadata['namespace']}/{metadata['name']} is in the process of being allocated"
            raise _Unusable(told)
        if not _is_reserved(status, pod) and len(status.get("reservedFor") or ()) >= RESERVED_MAX:
            raise _Unusable("resourceclaim in use")
        return None

    # -- which nodes ---------------------------------------------------------------------------------------------------

    def refusals(self, cycle: Cycle) -> Iterable[Refusal]:
        state: _State | None = cycle.state.get(self.name)
        if state is None:
            return
        index = self.handle.cache.index
        candidates = index.all if cycle.only is None else cycle.only
        if state.stale is not None:
            yield Refusal(index.all, self.STALE)
            return
        state.elsewhere = []
        for claim in state.claims:
            usable = self._usable(claim)
            if candidates & ~usable:
                state.elsewhere.append(claim)
                yield Refusal(index.all & ~usable, self.ELSEWHERE)
                candidates &= usable
        if not state.extended:
            yield from self._unsatisfying(state, state.pending, candidates)
            return
        without, groups = self._by_devices(state, candidates)
        yield Refusal(without, self.NO_RESOURCE)
        for resources, mask in groups.items():
            claims = state.pending
            if resources:
                claims = (*claims, self._variant(cycle.pod, state, resources)[1])
            yield from self._unsatisfying(state, claims, mask)

    def _usable(self, claim: Object) -> int:
        """The nodes where an allocation can be used: all, as long as there is none."""
        index = self.handle.cache.index
        try:
            if not is_ready(claim) and is_late(claim, self._binding_timeout_s, self.handle.clock.time()):
                return 0
        except NeverReady:
            return 0
        return selected_nodes((claim.get("status") or {}).get("allocation", {}).get("nodeSelector"), index)

    def _by_devices(self, state: _State, candidates: int) -> tuple[int, dict[frozenset[str], int]]:
        """(nodes that lack a resource, the others by the extended resources that they leave to their devices)."""
        without, groups = 0, dict[frozenset[str], int]()
        mapped = frozenset(name for name in state.extended if self._classes.get(name) is not None)
        for slot in bits(candidates):
            info = self.handle.cache.slots[slot]
            assert info is not None
            if any(name not in mapped and name not in info.allocatable for name in state.extended):
                without |= 1 << slot
            else:
                left = frozenset(name for name in mapped if not info.allocatable.get(name))
                groups[left] = groups.get(left, 0) | 1 << slot
        return without, groups

    def _variant(self, pod: PodInfo, state: _State, resources: frozenset[str]) -> tuple[Variant, Claim]:
        found = state.variants.get(resources)
        if found is None:
            variant = claim_for(pod, resources, self._classes)
            found = state.variants[resources] = variant, parse_claim(variant.obj, self._catalog.device_class)
        return found

    def _unsatisfying(self, state: _State, claims: tuple[Claim, ...], candidates: int) -> Iterator[Refusal]:
        """The nodes of a mask that lack devices for the claims."""
        if not claims or not candidates:
            return
        known = self._known_for(claims)
        lacking: dict[Reason, int] = {}
        try:
            for slot in bits(candidates):
                info = self.handle.cache.slots[slot]
                assert info is not None
                version = self._catalog.version_for(info.name)
                found = known.get(info.name)
                if found is None or found.version != version:
                    found = known[info.name] = self._examine(claims, info, version)
                if found.refused is not None:
                    lacking[found.refused] = lacking.get(found.refused, 0) | 1 << slot
                state.preference[info.name] = found.preference
        except AllocationError as error:
            raise PluginError(self.name, str(error)) from error
        for reason, mask in lacking.items():
            yield Refusal(mask, reason)

    def _examine(self, claims: tuple[Claim, ...], info: NodeInfo, version: int) -> _Known:
        try:
            allocations = self._allocate(claims, info)
        except NodeError as error:
            return _Known(version, Reason(self.name, str(error), resolvable=False), 0)
        if allocations is None:
            return _Known(version, self.NOT_ALLOCATED, 0)
        return _Known(version, None, sum(_preference(each.obj, allocations[each.uid]) for each in claims))

    def _known_for(self, claims: tuple[Claim, ...]) -> dict[str, _Known]:
        """What is known of nodes for claims that ask for the same."""
        told = [claim.obj["spec"] for claim in claims]
        generations = [self._catalog.class_version, self.handle.cache.static_generation]
        key = orjson.dumps([generations, told], option=orjson.OPT_SORT_KEYS)
        if key not in self._signatures and len(self._signatures) >= _SIGNATURES_MAX:
            del self._signatures[next(iter(self._signatures))]
        return self._signatures.setdefault(key, {})

    def _allocate(self, claims: tuple[Claim, ...], info: NodeInfo) -> dict[str, Object] | None:
        """Claim uid → its allocation on a node; None when there is none for all of them.

        Raises AllocationError and NodeError.
        """
        now, index = self.handle.clock.monotonic, self.handle.cache.index
        end = now() + self._filter_timeout_s if self._filter_timeout_s > 0 else math.inf
        found = Allocator(self._catalog, claims, info.name, info.slot, index, lambda: now() > end).allocate()
        if found is None:
            return None
        return {claim.uid: to_status(claim, chosen, info.name)
                for claim, chosen in zip(claims, found, strict=True)}  # fmt: skip

    def score(self, cycle: Cycle, nodes: Sequence[NodeInfo]) -> Sequence[int] | None:
        """Nodes where earlier alternatives of the requests are to be had are better."""
        state: _State | None = cycle.state.get(self.name)
        if state is None or not any(map(_has_alternatives, state.claims)):
            return None
        told = ((claim, (claim.get("status") or {}).get("allocation")) for claim in state.claims)
        decided = sum(_preference(claim, allocation) for claim, allocation in told if allocation is not None)
        found = [decided + state.preference.get(node.name, 0) for node in nodes]
        most = max(found)
        return [MAX_SCORE * each // most if most else 0 for each in found]

    # -- making room ---------------------------------------------------------------------------------------------------

    def post_filter(self, cycle: Cycle, error: FitError, search: NodeSearch) -> Nomination:
        """An allocation that nobody uses, and that is in the way, is taken back."""
        state: _State | None = cycle.state.get(self.name)
        if self.name in error.unasked:  # as upstream: what pre-filtering would have noted is not there
            return Nomination(None, "not found", failed=True)
        if state is None:
            return Nomination(None, "no new claims to deallocate")
        if self.handle.client is None:
            return Nomination(None, "still not schedulable")
        for claim in state.elsewhere:
            users = (claim.get("status") or {}).get("reservedFor") or ()
            if not any(each.get("uid") != cycle.pod.uid for each in users):
                self._later(self._writer.deallocate(claim), f"deallocate for {cycle.pod.key}")
                return Nomination(None, "deallocation of ResourceClaim completed")
        if state.stale is not None:
            self._later(self._writer.delete(state.stale), f"delete claim of {cycle.pod.key}")
            return Nomination(None, "deletion of ResourceClaim completed")
        return Nomination(None, "still not schedulable")

    def _later(self, work: Any, name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- binding -------------------------------------------------------------------------------------------------------

    def reserve(self, cycle: Cycle, node: NodeInfo) -> None:
        state: _State | None = cycle.state.get(self.name)
        if state is None:
            return
        claims = state.pending
        left = next(iter(self._by_devices(state, 1 << node.slot)[1]), None) if state.extended else None
        if left:
            state.variant, claim = self._variant(cycle.pod, state, left)
            claims = (*claims, claim)
        try:
            found = self._allocate(claims, node) if claims else {}
        except (AllocationError, NodeError) as error:
            raise Rejected(str(error)) from error
        if found is None:
            raise Rejected(self.NOT_ALLOCATED.text)
        state.allocations = found
        for uid, allocation in found.items():
            self._catalog.assume(uid, allocation, cycle.pod)

    def unreserve(self, cycle: Cycle, node: NodeInfo) -> None:
        state: _State | None = cycle.state.get(self.name)
        if state is None:
            return
        for claim in state.claims:
            metadata = claim["metadata"]
            if metadata["uid"] in state.allocations and not any(claim is each for each in state.reserved_for):
                known = self.handle.lister(CLAIMS).get(metadata["namespace"], metadata["name"])
                self._catalog.forget(metadata["uid"], known)
            elif _is_reserved(claim.get("status") or {}, cycle.pod):
                state.reserved_for.append(claim)
        if state.variant is not None:
            self._catalog.forget(state.variant.obj["metadata"]["uid"], None)
        if state.reserved_for:
            self._later(self._writer.give_up(cycle.pod, state.reserved_for), f"give up claims of {cycle.pod.key}")
        if state.stale is not None:
            self._later(self._writer.delete(state.stale), f"delete claim of {cycle.pod.key}")

    async def pre_bind(self, cycle: Cycle, node: NodeInfo) -> None:
        state: _State = cycle.state[self.name]
        pod = cycle.pod
        waited: list[Object] = []
        for claim in state.claims:
            allocation, now = state.allocations.get(claim["metadata"]["uid"]), claim
            if allocation is not None or not _is_reserved(claim.get("status") or {}, pod):
                known = self.handle.lister(CLAIMS).get(claim["metadata"]["namespace"], claim["metadata"]["name"])
                now = await self._writer.reserve(pod, known or claim, allocation)
                self._catalog.written(now)
                state.reserved_for.append(claim)
            waited.append(now)
        if state.variant is not None:
            waited.append(await self._bind_extended(pod, state, state.variant))
        if any(any(awaited(claim)) for claim in waited):
            await self._patience.wait(pod, node, waited)

    async def _bind_extended(self, pod: PodInfo, state: _State, variant: Variant) -> Object:
        """Write the claim for the Pod's extended resources; from then on it is deleted when binding fails."""
        uid = variant.obj["metadata"]["uid"]
        allocation = state.allocations[uid]
        claim = state.stale = await self._writer.create_extended(pod, variant)
        self._catalog.assume(claim["metadata"]["uid"], allocation, pod)
        self._catalog.forget(uid, None)
        claim = state.stale = await self._writer.reserve(pod, claim, allocation)
        self._catalog.written(claim)
        await self._writer.tell_pod(pod, claim, variant)
        return claim

    # -- who wakes -----------------------------------------------------------------------------------------------------

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        if event.resource == UNSCHEDULED_POD:
            return bool(event.new.uid == pod.uid)
        if event.resource != RESOURCE_CLAIM:
            return True
        before, after = ((each or {}).get("status") or {} for each in (event.old, event.new))
        try:
            mine = any(claim["metadata"]["uid"] == (event.new or event.old)["metadata"]["uid"]
                       for claim in self._claims(pod))  # fmt: skip
        except _Unusable:
            return False
        if before.get("allocation") is not None and after.get("allocation") is None:
            return True  # its devices are free
        return mine and (event.old is None or before != after)


def _has_alternatives(claim: Object) -> bool:
    return any(each.get("firstAvailable") for each in (claim["spec"].get("devices") or {}).get("requests") or ())


def _preference(claim: Object, allocation: Object) -> int:
    """More for each request whose alternative comes earlier."""
    taken = {each["request"] for each in (allocation.get("devices") or {}).get("results") or ()}
    return sum(
        ALTERNATIVES_MAX - place
        for request in (claim["spec"].get("devices") or {}).get("requests") or ()
        for place, each in enumerate(request.get("firstAvailable") or ())
        if f"{request['name']}/{each['name']}" in taken
    )


def _is_reserved(status: Object, pod: PodInfo) -> bool:
    return any(each.get("uid") == pod.uid for each in status.get("reservedFor") or ())


def _claim_names(pod: PodInfo) -> Iterator[tuple[str, bool]]:
    """(name, whether it was made for the Pod); raises _Unusable for one that is to be made but is not yet."""
    statuses = (pod.pod.get("status") or {}).get("resourceClaimStatuses") or ()
    generated = {each.get("name"): each.get("resourceClaimName") for each in statuses}
    for told in pod.claims:
        if told.get("resourceClaimName"):
            yield told["resourceClaimName"], False
        elif told["name"] not in generated:
            raise _Unusable(f'pod "{pod.key}": ResourceClaim not created yet')
        elif generated[told["name"]]:  # none is needed otherwise
            yield generated[told["name"]], True

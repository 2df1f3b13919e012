"""DynamicResources: a Pod's ResourceClaims are allocated devices on its node, and reserved for it.

Claims without an allocation need a node where devices for all of them are free (fastkube.scheduler.dra); those with one
need a node where it can be used. Reserving a node assumes the allocation, pre-binding writes it. A claim that is
allocated where the Pod cannot run, and that nobody uses, is deallocated.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from fastkube.errors import ApiError
from fastkube.scheduler.config_fields import duration_s
from fastkube.scheduler.dra.allocator import AllocationError, Allocator, Claim, MissingClass, parse_claim, to_status
from fastkube.scheduler.dra.catalog import CLAIMS, Catalog
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
from fastkube.scheduler.nodeaffinity import parse_selector
from fastkube.scheduler.nodes import NodeInfo, bits
from fastkube.scheduler.pods import PodInfo
from fastkube.scheduler.search import FitError, NodeSearch

log = logging.getLogger(__name__)

Object = dict[str, Any]

FINALIZER = "resource.kubernetes.io/delete-protection"
RESERVED_MAX = 256
ALTERNATIVES_MAX = 8
"""In a request of the API; the first one of so many counts most in scores."""
FILTER_TIMEOUT = "10s"
"""How long the search for devices on one node may take by default; "0" is for ever."""
WRITES_MAX = 5
"""Tries against others who write the same claim."""
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
        self.written: list[Object] = []
        self.elsewhere: list[Object] = []
        """Allocated claims that keep the Pod from some node."""


class _Known(NamedTuple):
    """Whether a node can satisfy claims of one signature, as of a version of its devices."""

    version: int
    fits: bool
    preference: int
    """How much the devices are what the claims would rather have."""


class DynamicResources(Plugin):
    name = "DynamicResources"
    about = "claims"
    notes_pre_bind = True
    interests = (
        Interest(NODE, Action.ADD | Action.UPDATE_NODE_LABEL | Action.UPDATE_NODE_TAINT),
        Interest(RESOURCE_CLAIM, Action.ADD | Action.UPDATE | Action.DELETE),
        Interest(UNSCHEDULED_POD, Action.UPDATE_POD_GENERATED_CLAIM),
        Interest(DEVICE_CLASS, Action.ADD | Action.UPDATE),
        Interest(RESOURCE_SLICE, Action.ADD | Action.UPDATE),
    )

    ELSEWHERE = Reason(name, "resourceclaim not available on the node")
    NOT_ALLOCATED = Reason(name, "cannot allocate all claims")

    def __init__(self, args: Mapping[str, Any], handle: Handle, weight: int = 1) -> None:
        super().__init__(args, handle, weight)
        self._catalog = Catalog(handle.lister)
        self._filter_timeout_s = duration_s(args.get("filterTimeout") or FILTER_TIMEOUT)
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
                raise _Unusable(f'resourceclaim.resource.k8s.io "{name}" not found')
            metadata = claim["metadata"]
            if metadata.get("deletionTimestamp"):
                raise _Unusable(f'resourceclaim "{name}" is being deleted')
            owners = metadata.get("ownerReferences") or ()
            if generated and not any(each.get("controller") and each.get("uid") == pod.uid for each in owners):
                raise _Unusable(f"ResourceClaim {pod.namespace}/{name} was not created for pod {pod.key} "
                                "(pod is not owner)")  # fmt: skip
            yield claim

    def pre_filter(self, cycle: Cycle) -> None:
        if not cycle.pod.claims:
            return
        try:
            claims = list(self._claims(cycle.pod))
            pending = []
            for claim in claims:
                status = claim.get("status") or {}
                if status.get("allocation") is None:
                    pending.append(parse_claim(claim, self._catalog.device_class))
                elif not _is_reserved(status, cycle.pod) and len(status.get("reservedFor") or ()) >= RESERVED_MAX:
                    raise _Unusable("resourceclaim in use")
        except (_Unusable, MissingClass) as unusable:
            raise Rejected(str(unusable)) from None
        except AllocationError as error:
            raise PluginError(self.name, str(error)) from error
        if claims:
            cycle.state[self.name] = _State(claims, tuple(pending))

    # -- which nodes ---------------------------------------------------------------------------------------------------

    def refusals(self, cycle: Cycle) -> Iterable[Refusal]:
        state: _State | None = cycle.state.get(self.name)
        if state is None:
            return
        index = self.handle.cache.index
        candidates = index.all if cycle.only is None else cycle.only
        state.elsewhere = []
        for claim in state.claims:
            terms = parse_selector((claim.get("status") or {}).get("allocation", {}).get("nodeSelector"))
            if terms is not None:
                usable = 0
                for term in terms:
                    usable |= term.mask(index)
                if candidates & ~usable:
                    state.elsewhere.append(claim)
                yield Refusal(index.all & ~usable, self.ELSEWHERE)
                candidates &= usable
        if state.pending:
            yield Refusal(candidates & ~self._satisfying(state.pending, candidates), self.NOT_ALLOCATED)

    def _satisfying(self, claims: tuple[Claim, ...], candidates: int) -> int:
        """The nodes of a mask with devices for all the claims."""
        known = self._known_for(claims)
        mask = 0
        try:
            for slot in bits(candidates):
                info = self.handle.cache.slots[slot]
                assert info is not None
                version = self._catalog.version_for(info.name)
                found = known.get(info.name)
                if found is None or found.version != version:
                    allocations = self._allocate(claims, info)
                    preference = (
                        sum(_preference(each.obj, allocations[each.uid]) for each in claims) if allocations else 0
                    )
                    found = known[info.name] = _Known(version, allocations is not None, preference)
                if found.fits:
                    mask |= 1 << slot
        except AllocationError as error:
            raise PluginError(self.name, str(error)) from error
        return mask

    def _known_for(self, claims: tuple[Claim, ...]) -> dict[str, _Known]:
        """What is known of nodes for claims that ask for the same."""
        told = [claim.obj["spec"] for claim in claims]
        generations = [self._catalog.class_version, self.handle.cache.static_generation]
        key = orjson.dumps([generations, told], option=orjson.OPT_SORT_KEYS)
        if key not in self._signatures and len(self._signatures) >= _SIGNATURES_MAX:
            del self._signatures[next(iter(self._signatures))]
        return self._signatures.setdefault(key, {})

    def _allocate(self, claims: tuple[Claim, ...], info: NodeInfo) -> dict[str, Object] | None:
        """Claim uid → its allocation on a node; None when there is none for all of them. Raises AllocationError."""
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
        known = self._known_for(state.pending)
        told = ((claim, (claim.get("status") or {}).get("allocation")) for claim in state.claims)
        decided = sum(_preference(claim, allocation) for claim, allocation in told if allocation is not None)
        found = [decided + (known[node.name].preference if state.pending else 0) for node in nodes]
        most = max(found)
        return [MAX_SCORE * each // most if most else 0 for each in found]

    # -- making room ---------------------------------------------------------------------------------------------------

    def post_filter(self, cycle: Cycle, error: FitError, search: NodeSearch) -> Nomination:
        """An allocation that nobody uses, and that is in the way, is taken back."""
        state: _State | None = cycle.state.get(self.name)
        if state is None or self.handle.client is None:
            return Nomination(None, "")
        for claim in state.elsewhere:
            users = (claim.get("status") or {}).get("reservedFor") or ()
            if not any(each.get("uid") != cycle.pod.uid for each in users):
                self._later(self._deallocate(claim), f"deallocate for {cycle.pod.key}")
                return Nomination(None, "deallocation of ResourceClaim completed")
        return Nomination(None, "still not schedulable")

    async def _deallocate(self, claim: Object) -> None:
        status = {key: value for key, value in claim["status"].items() if key not in ("allocation", "reservedFor")}
        try:
            await self.handle.client.update(CLAIMS, {**claim, "status": status}, subresource="status")
        except ApiError as error:
            log.warning("claim %s could not be deallocated: %s", claim["metadata"]["name"], error.message)

    def _later(self, work: Any, name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- binding -------------------------------------------------------------------------------------------------------

    def reserve(self, cycle: Cycle, node: NodeInfo) -> None:
        state: _State | None = cycle.state.get(self.name)
        if state is None:
            return
        try:
            found = self._allocate(state.pending, node) if state.pending else {}
        except AllocationError as error:
            raise Rejected(str(error)) from error
        if found is None:
            raise Rejected(self.NOT_ALLOCATED.text)
        state.allocations = found
        for uid, allocation in found.items():
            self._catalog.assume(uid, allocation)

    def unreserve(self, cycle: Cycle, node: NodeInfo) -> None:
        state: _State | None = cycle.state.get(self.name)
        if state is None:
            return
        for claim in state.claims:
            metadata = claim["metadata"]
            if metadata["uid"] in state.allocations and not any(claim is each for each in state.written):
                known = self.handle.lister(CLAIMS).get(metadata["namespace"], metadata["name"])
                self._catalog.forget(metadata["uid"], known)
        if state.written:
            self._later(self._give_up(cycle.pod, state.written), f"give up claims of {cycle.pod.key}")

    async def _give_up(self, pod: PodInfo, claims: list[Object]) -> None:
        """The Pod will not run there: the claims are not its own any more."""
        for claim in claims:
            metadata = claim["metadata"]
            body = {
                "metadata": {"uid": metadata["uid"]},
                "status": {"reservedFor": [{"$patch": "delete", "uid": pod.uid}]},
            }
            try:
                await self.handle.client.patch(
                    CLAIMS, metadata["name"], body, metadata["namespace"], kind="strategic", subresource="status"
                )
            except ApiError as error:
                log.warning("claim %s is still reserved for pod %s: %s", metadata["name"], pod.key, error.message)

    async def pre_bind(self, cycle: Cycle, node: NodeInfo) -> None:
        state: _State = cycle.state[self.name]
        for claim in state.claims:
            allocation = state.allocations.get(claim["metadata"]["uid"])
            if allocation is not None or not _is_reserved(claim.get("status") or {}, cycle.pod):
                await self._bind_claim(cycle.pod, claim, allocation)
                state.written.append(claim)

    async def _bind_claim(self, pod: PodInfo, claim: Object, allocation: Object | None) -> None:
        """Write the allocation and who uses it; whoever else writes meanwhile is waited for."""
        metadata, client = claim["metadata"], self.handle.client
        for attempt in range(WRITES_MAX):
            now = await client.get(CLAIMS, metadata["name"], metadata["namespace"])
            if now["metadata"]["uid"] != metadata["uid"] or now["metadata"].get("deletionTimestamp"):
                raise Rejected(f"claim {metadata['namespace']}/{metadata['name']} got deleted in the meantime")
            status = dict(now.get("status") or {})
            try:
                if allocation is not None:
                    if status.get("allocation") is not None:
                        raise Rejected(f"claim {metadata['name']} got allocated elsewhere in the meantime")
                    finalizers = now["metadata"].get("finalizers") or []
                    if FINALIZER not in finalizers:
                        protected = {**now["metadata"], "finalizers": [*finalizers, FINALIZER]}
                        now = await client.update(CLAIMS, {**now, "metadata": protected})
                    status["allocation"] = allocation
                elif status.get("allocation") is None:
                    raise Rejected(f"claim {metadata['name']} got deallocated in the meantime")
                users = [each for each in status.get("reservedFor") or () if each.get("uid") != pod.uid]
                status["reservedFor"] = [*users, {"resource": "pods", "name": pod.name, "uid": pod.uid}]
                await client.update(CLAIMS, {**now, "status": status}, subresource="status")
                return
            except ApiError as error:
                if error.code != 409 or attempt == WRITES_MAX - 1:
                    raise

    # -- who wakes -----------------------------------------------------------------------------------------------------

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        if event.resource == UNSCHEDULED_POD:
            return bool(event.new.uid == pod.uid)
        if event.resource != RESOURCE_CLAIM:
            return True
        claim = event.new or event.old
        metadata = claim["metadata"]
        mine = metadata.get("namespace") == pod.namespace and any(
            name == metadata["name"] for name, _ in _claim_names(pod, strict=False)
        )
        before, after = (((each or {}).get("status") or {}).get("allocation") for each in (event.old, event.new))
        if event.old is not None and before is not None and after is None:
            return True  # its devices are free
        return mine and (event.old is None or before != after or event.new is None)


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


def _claim_names(pod: PodInfo, *, strict: bool = True) -> Iterator[tuple[str, bool]]:
    """(name, whether it was made for the Pod); raises _Unusable for one that is to be made but is not yet."""
    statuses = (pod.pod.get("status") or {}).get("resourceClaimStatuses") or ()
    generated = {each.get("name"): each.get("resourceClaimName") for each in statuses}
    for told in pod.claims:
        if told.get("resourceClaimName"):
            yield told["resourceClaimName"], False
        elif told["name"] not in generated:
            if strict:
                raise _Unusable(f'pod "{pod.key}": ResourceClaim not created yet')
        elif generated[told["name"]]:  # none is needed otherwise
            yield generated[told["name"]], True

"""Finding devices for claims on one node: depth first, the first combination that satisfies everything.

The order is upstream's: claims, then their requests, then devices, pools of the node before those of many. A request
with alternatives (`firstAvailable`) takes the first that leaves a solution for all that follows. Constraints are
checked as devices are added. Counters that devices of a pool share are taken and given back with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from fastkube.scheduler.dra.catalog import Catalog, Device, DeviceId, Pool
from fastkube.scheduler.dra.selectors import SelectorError, matches
from fastkube.scheduler.nodeaffinity import NodeMasks

Object = dict[str, Any]

RESULTS_MAX = 32
"""Devices in one allocation."""
EXACT, ALL = "ExactCount", "All"


class AllocationError(Exception):
    """Something is wrong with a claim or a class, whatever the node."""


class NotYetError(Exception):
    """The node's pools are being updated, and the claim asks for all devices."""


class Request(NamedTuple):
    """A request, or one of the alternatives of one; `name` is `request` or `request/alternative`."""

    name: str
    device_class: Object
    selectors: tuple[str, ...]
    """Those of the class first."""
    mode: str
    number: int
    admin: bool
    tolerations: tuple[Object, ...]


class Constraint(NamedTuple):
    """Devices of these requests (of all, when there are none) have the same value of an attribute, or all different."""

    requests: frozenset[str]
    attribute: str
    distinct: bool

    def covers(self, request: str) -> bool:
        return not self.requests or request in self.requests or request.partition("/")[0] in self.requests


class Claim(NamedTuple):
    """What must be allocated: for each request its alternatives, in order of preference."""

    obj: Object
    requests: tuple[tuple[Request, ...], ...]
    constraints: tuple[Constraint, ...]

    @property
    def uid(self) -> str:
        return str(self.obj["metadata"]["uid"])

    @property
    def key(self) -> str:
        metadata = self.obj["metadata"]
        return f"{metadata['namespace']}/{metadata['name']}"


class MissingClass(AllocationError):
    """A request names a class that does not exist."""


def parse_claim(obj: Object, find_class: Callable[[str], Object | None]) -> Claim:
    """Raises MissingClass and AllocationError."""
    devices = obj["spec"].get("devices") or {}
    requests: list[tuple[Request, ...]] = []
    for told in devices.get("requests") or ():
        if told.get("exactly") is not None:
            requests.append((_request(told["name"], told["exactly"], find_class),))
        else:
            alternatives = told.get("firstAvailable") or ()
            requests.append(tuple(_request(f"{told['name']}/{each['name']}", each, find_class)
                                  for each in alternatives))  # fmt: skip
    constraints = tuple(
        Constraint(
            frozenset(told.get("requests") or ()),
            told.get("matchAttribute") or told.get("distinctAttribute") or "",
            "distinctAttribute" in told,
        )
        for told in devices.get("constraints") or ()
    )
    return Claim(obj, tuple(requests), constraints)


def _request(name: str, told: Object, find_class: Callable[[str], Object | None]) -> Request:
    if told.get("capacity"):
        raise AllocationError(f"request {name}: consumable capacity is not supported")
    class_name = told.get("deviceClassName", "")
    found = find_class(class_name)
    if found is None:
        raise MissingClass(f"request {name}: device class {class_name} does not exist")
    selectors = (*(found["spec"].get("selectors") or ()), *(told.get("selectors") or ()))
    return Request(
        name,
        found,
        tuple(each["cel"]["expression"] for each in selectors if each.get("cel")),
        told.get("allocationMode") or EXACT,
        int(told.get("count") or 1),
        bool(told.get("adminAccess")),
        tuple(told.get("tolerations") or ()),
    )


class Chosen(NamedTuple):
    """A device for a request."""

    request: Request
    device: Device


class Allocator:
    """One attempt on one node; `allocate` gives the devices of each claim, or None."""

    def __init__(
        self,
        catalog: Catalog,
        claims: Sequence[Claim],
        node: str,
        slot: int,
        nodes: NodeMasks,
        expired: Callable[[], bool] = lambda: False,
    ) -> None:
        """`expired` is asked now and then whether to give up."""
        self._catalog = catalog
        self._node = node
        self._expired = expired
        self._claims = claims
        self._pools = catalog.pools_for(node)
        self._available = [(pool, catalog.devices(pool, node, slot, nodes)) for pool in self._pools]
        self._steps = [(place, number) for place, claim in enumerate(claims) for number in range(len(claim.requests))]
        self._chosen: list[list[Chosen]] = [[] for _ in claims]
        self._taken: set[DeviceId] = set()
        self._left: dict[tuple[str, str], dict[tuple[str, str], int]] = {}
        self._matching: dict[tuple[int, str], list[tuple[Pool, Device]]] = {}

    def allocate(self) -> list[list[Chosen]] | None:
        """Raises AllocationError."""
        return self._chosen if self._solve(0) else None

    def _solve(self, step: int) -> bool:
        if step == len(self._steps):
            return True
        place, number = self._steps[step]
        for request in self._claims[place].requests[number]:
            if request.mode == ALL:
                if self._take_all(step, place, request):
                    return True
            elif self._take(step, place, request, self._candidates(place, request), 0, request.number):
                return True
        return False

    def _take(
        self, step: int, place: int, request: Request, candidates: list[tuple[Pool, Device]], start: int, count: int
    ) -> bool:
        """`count` more devices for a request, from a place of its candidates on, and then the rest."""
        if not count:
            return self._solve(step + 1)
        for at in range(start, len(candidates) - count + 1):
            if self._expired():
                raise AllocationError(f"node {self._node}: timed out trying to allocate devices")
            pool, device = candidates[at]
            if not self._add(place, request, pool, device):
                continue
            if self._take(step, place, request, candidates, at + 1, count - 1):
                return True
            self._give_back(place, pool)
        return False

    def _take_all(self, step: int, place: int, request: Request) -> bool:
        """Every device that matches, or none: one that somebody else has spoils it."""
        for pool, devices in self._available:
            if devices and (pool.invalid or not pool.complete):
                return False
        candidates = self._candidates(place, request)
        added: list[Pool] = []
        for pool, device in candidates:
            if not self._add(place, request, pool, device):
                break
            added.append(pool)
        else:
            if added and self._solve(step + 1):
                return True
        for pool in reversed(added):
            self._give_back(place, pool)
        return False

    def _candidates(self, place: int, request: Request) -> list[tuple[Pool, Device]]:
        """The devices that the selectors select, taints aside."""
        found = self._matching.get((place, request.name))
        if found is None:
            found = self._matching[place, request.name] = list(self._find(place, request))
        return found

    def _find(self, place: int, request: Request) -> Iterator[tuple[Pool, Device]]:
        for pool, devices in self._available:
            if pool.invalid or not pool.complete:
                continue
            for device in devices:
                if device.told.get("bindingConditions"):
                    continue  # such devices become ready only after binding has begun, which is not supported
                if self._selects(place, request, device):
                    yield pool, device

    def _selects(self, place: int, request: Request, device: Device) -> bool:
        for number, expression in enumerate(request.selectors):
            try:
                if not matches(expression, device.variable):
                    return False
            except SelectorError as error:
                raise AllocationError(f"claim {self._claims[place].key}: selector #{number}: {error}") from error
        return True

    def _add(self, place: int, request: Request, pool: Pool, device: Device) -> bool:
        """Take a device if nothing speaks against it."""
        claim, chosen = self._claims[place], self._chosen[place]
        if not request.admin and (device.id in self._taken or self._catalog.in_use(device.id)):
            return False
        if any(other.device is device for other in chosen) or len(chosen) == RESULTS_MAX:
            return False
        if any(_repels(taint, request.tolerations) for taint in device.taints):
            return False
        if not all(_satisfies(each, request, device, chosen) for each in claim.constraints):
            return False
        if not request.admin:
            if not self._consume(pool, device):
                return False
            self._taken.add(device.id)
        chosen.append(Chosen(request, device))
        return True

    def _consume(self, pool: Pool, device: Device) -> bool:
        if not device.counters:
            return True
        left = self._left.get(pool.id)
        if left is None:
            left = self._left[pool.id] = self._catalog.counters_left(pool)
        if any(left.get(key, 0) < amount for key, amount in device.counters):
            return False
        for key, amount in device.counters:
            left[key] -= amount
        return True

    def _give_back(self, place: int, pool: Pool) -> None:
        request, device = self._chosen[place].pop()
        if not request.admin:
            self._taken.discard(device.id)
            for key, amount in device.counters:
                self._left[pool.id][key] += amount


def _repels(taint: Object, tolerations: Sequence[Object]) -> bool:
    if taint.get("effect") not in ("NoSchedule", "NoExecute"):
        return False
    return not any(_tolerates(each, taint) for each in tolerations)


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    if toleration.get("operator") == "Exists":
        return True
    return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")


def _satisfies(constraint: Constraint, request: Request, device: Device, chosen: Sequence[Chosen]) -> bool:
    if not constraint.covers(request.name):
        return True
    value = device.attribute(constraint.attribute)
    if value is None:
        return False
    others = (each.device.attribute(constraint.attribute) for each in chosen if constraint.covers(each.request.name))
    if constraint.distinct:
        return value not in set(others)
    return all(other == value for other in others)


def to_status(claim: Claim, chosen: Sequence[Chosen], node: str) -> Object:
    """The status.allocation of a claim."""
    results = []
    for request, device in chosen:
        result: Object = {"request": request.name, "driver": device.id[0], "pool": device.id[1], "device": device.id[2]}
        if request.admin:
            result["adminAccess"] = True
        if request.tolerations:
            result["tolerations"] = list(request.tolerations)
        results.append(result)
    allocation: Object = {"devices": {"results": results}}
    config = list(_config(claim, chosen))
    if config:
        allocation["devices"]["config"] = config
    selector = _node_selector(chosen, node)
    if selector is not None:
        allocation["nodeSelector"] = selector
    return allocation


def _config(claim: Claim, chosen: Sequence[Chosen]) -> Iterator[Object]:
    used = {request.name: request for request, _ in chosen}
    for name, request in used.items():
        for told in request.device_class["spec"].get("config") or ():
            yield {"source": "FromClass", "requests": [name], **told}
    for told in (claim.obj["spec"].get("devices") or {}).get("config") or ():
        wanted = told.get("requests") or ()
        if not wanted or any(name in wanted or name.partition("/")[0] in wanted for name in used):
            yield {"source": "FromClaim", **told}


def _node_selector(chosen: Sequence[Chosen], node: str) -> Object | None:
    """Where the devices can be used; None for everywhere."""
    if any(device.node for _, device in chosen):
        field = {"key": "metadata.name", "operator": "In", "values": [node]}
        return {"nodeSelectorTerms": [{"matchFields": [field]}]}
    labels: list[Object] = []
    fields: list[Object] = []
    for _, device in chosen:
        for term in ((device.selector or {}).get("nodeSelectorTerms") or ())[:1]:
            labels += [each for each in term.get("matchExpressions") or () if each not in labels]
            fields += [each for each in term.get("matchFields") or () if each not in fields]
    if not labels and not fields:
        return None
    term = {**({"matchExpressions": labels} if labels else {}), **({"matchFields": fields} if fields else {})}
    return {"nodeSelectorTerms": [term]}

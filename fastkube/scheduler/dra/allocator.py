"""Finding devices for claims on one node: depth first, the first combination that satisfies everything.

The order is upstream's: claims, then their requests, then devices by the names of their pools and slices; pools whose
devices are ready only after binding has begun come last. A request with alternatives (`firstAvailable`) takes the first
that leaves a solution for all that follows. Constraints are checked as devices are added. Counters that devices of a
pool share, and capacity of devices that claims share, are taken and given back with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from fastkube.api.quantity import Quantity
from fastkube.scheduler.dra import capacity
from fastkube.scheduler.dra.catalog import Catalog, Device, DeviceId, Pool
from fastkube.scheduler.dra.selectors import SelectorError, matches
from fastkube.scheduler.nodeaffinity import NodeMasks

Object = dict[str, Any]

RESULTS_MAX = 32
"""Devices in one allocation."""
EXACT, ALL = "ExactCount", "All"


class AllocationError(Exception):
    """Something is wrong with a claim or a class, whatever the node."""


class NodeError(Exception):
    """Something is wrong with the devices of the node."""


class Request(NamedTuple):
    """A request, or one of the alternatives of one; `name` is `request` or `request/alternative`."""

    name: str
    device_class: Object
    selectors: tuple[str, ...]
    mode: str
    number: int
    admin: bool
    tolerations: tuple[Object, ...]
    capacity: Mapping[str, Any]
    """Amounts of the devices' capacities, by name."""

    @property
    def own_name(self) -> str:
        """An alternative's own."""
        return self.name.rpartition("/")[2]

    @property
    def class_selectors(self) -> tuple[str, ...]:
        return _expressions(self.device_class["spec"])


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
    class_name = told.get("deviceClassName", "")
    found = find_class(class_name)
    if found is None:
        raise MissingClass(f"request {name}: device class {class_name} does not exist")
    return Request(
        name,
        found,
        _expressions(told),
        told.get("allocationMode") or EXACT,
        int(told.get("count") or 1),
        bool(told.get("adminAccess")),
        tuple(told.get("tolerations") or ()),
        (told.get("capacity") or {}).get("requests") or {},
    )


def _expressions(told: Object) -> tuple[str, ...]:
    return tuple(each["cel"]["expression"] for each in told.get("selectors") or () if each.get("cel"))


class Chosen(NamedTuple):
    """A device for a request; `taken` of the capacity of one that claims share."""

    request: Request
    device: Device
    taken: Mapping[str, Quantity] | None = None


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
        self._available = catalog.available(node, slot, nodes)
        self._steps = [(place, number) for place, claim in enumerate(claims) for number in range(len(claim.requests))]
        self._chosen: list[list[Chosen]] = [[] for _ in claims]
        self._taken: dict[DeviceId, set[int]] = {}
        """By which claims, as places in `claims`."""
        self._shared: dict[DeviceId, Counter[str]] = {}
        self._left: dict[tuple[str, str], dict[tuple[str, str], int]] = {}
        self._matching: dict[tuple[int, str], list[tuple[Pool, Device]]] = {}

    def allocate(self) -> list[list[Chosen]] | None:
        """Raises AllocationError and NodeError."""
        for place, claim in enumerate(self._claims):
            least = sum(min(self._number(place, each) for each in alternatives) for alternatives in claim.requests)
            if least > RESULTS_MAX:
                told = f"number of requested devices {least} exceeds the claim limit of {RESULTS_MAX}"
                raise AllocationError(f"claim {claim.key}: {told}")
        if self._solve(0):
            return self._chosen
        if any(pool.invalid for pool, _ in self._available):
            raise NodeError("invalid resource pools were encountered")
        return None

    def _number(self, place: int, request: Request) -> int:
        """How many devices a request needs."""
        if request.mode != ALL:
            return request.number
        for pool, devices in self._available:
            if devices and (pool.invalid or not pool.complete):
                state = "being updated" if not pool.complete else "invalid"
                told = f"asks for all devices, but resource pool {'/'.join(pool.id)} is currently {state}"
                raise AllocationError(f"claim {self._claims[place].key}, request {request.own_name}: {told}")
        return len(self._candidates(place, request))

    def _solve(self, step: int) -> bool:
        if step == len(self._steps):
            return True
        place, number = self._steps[step]
        for request in self._claims[place].requests[number]:
            candidates = self._candidates(place, request)
            if request.mode == ALL:
                if self._take_all(step, place, request, candidates):
                    return True
            elif self._take(step, place, request, candidates, 0, request.number):
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

    def _take_all(self, step: int, place: int, request: Request, candidates: list[tuple[Pool, Device]]) -> bool:
        """Every device that matches, or none: one that somebody else has spoils it."""
        added: list[Pool] = []
        for pool, device in candidates:
            if not self._add(place, request, pool, device, must=True):
                break
            added.append(pool)
        else:
            if added and self._solve(step + 1):
                return True
        for pool in reversed(added):
            self._give_back(place, pool)
        return False

    def _candidates(self, place: int, request: Request) -> list[tuple[Pool, Device]]:
        """The devices that the selectors select and whose capacity can be enough, taints aside."""
        found = self._matching.get((place, request.name))
        if found is None:
            found = self._matching[place, request.name] = [
                (pool, device)
                for pool, devices in self._available
                if pool.complete and not pool.invalid
                for device in devices
                if self._selects(place, request, device)
            ]
        return found

    def _selects(self, place: int, request: Request, device: Device) -> bool:
        class_name = request.device_class["metadata"]["name"]
        of_class = ((f"class {class_name}", number, each) for number, each in enumerate(request.class_selectors))
        own = ((f"claim {self._claims[place].key}", number, each) for number, each in enumerate(request.selectors))
        for whose, number, expression in (*of_class, *own):
            try:
                if not matches(expression, device.variable):
                    return False
            except SelectorError as error:
                raise AllocationError(f"{whose}: selector #{number}: {error}") from error
        taken = device.consumed(request.capacity)
        return taken is not None and capacity.is_left(taken, device.capacity, {})

    def _add(self, place: int, request: Request, pool: Pool, device: Device, *, must: bool = False) -> bool:
        """Take a device if nothing speaks against it. `must`: nothing is gained without just this one."""
        claim, chosen = self._claims[place], self._chosen[place]
        takers = self._taken.get(device.id, ())
        if place in takers if request.admin else takers or self._catalog.in_use(device.id):
            return False
        if len(chosen) == RESULTS_MAX or any(_repels(taint, request.tolerations) for taint in device.taints):
            return False
        if not all(_satisfies(each, request, device, chosen) for each in claim.constraints):
            if must:
                told = f"cannot add device {'/'.join(device.id)} because a claim constraint would not be satisfied"
                raise AllocationError(f"claim {claim.key}, request {request.own_name}: {told}")
            return False
        taken = self._share(device, request) if device.is_shared else None
        if device.is_shared and taken is None:
            return False
        if not self._consume(pool, device):
            self._unshare(device, taken)
            return False
        if taken is None:
            self._taken.setdefault(device.id, set()).add(place)
        chosen.append(Chosen(request, device, taken))
        return True

    def _share(self, device: Device, request: Request) -> Mapping[str, Quantity] | None:
        """Take capacity of a device; None when there is too little left."""
        taken = device.consumed(request.capacity)
        own = self._shared.setdefault(device.id, Counter())
        used = Counter(self._catalog.capacity_used(device.id))
        used.update(own)
        if taken is None or not capacity.is_left(taken, device.capacity, used):
            return None
        own.update({name: amount.nanos for name, amount in taken.items()})
        own[_SHARES] += 1
        return taken

    def _unshare(self, device: Device, taken: Mapping[str, Quantity] | None) -> None:
        if taken is not None:
            own = self._shared[device.id]
            own.subtract({name: amount.nanos for name, amount in taken.items()})
            own[_SHARES] -= 1

    def _consume(self, pool: Pool, device: Device) -> bool:
        """Take counters; a device that is shared takes them once."""
        if not self._counts(device):
            return True
        left = self._left.get(pool.id)
        if left is None:
            left = self._left[pool.id] = self._catalog.counters_left(pool)
        if any(left.get(key, 0) < amount for key, amount in device.counters):
            return False
        for key, amount in device.counters:
            left[key] -= amount
        return True

    def _counts(self, device: Device) -> bool:
        """Whether taking a device takes counters: not when somebody shares it already."""
        if not device.counters or not device.is_shared:
            return bool(device.counters)
        return self._shared[device.id][_SHARES] == 1 and not self._catalog.is_shared(device.id)

    def _give_back(self, place: int, pool: Pool) -> None:
        _, device, taken = self._chosen[place].pop()
        if self._counts(device):
            for key, amount in device.counters:
                self._left[pool.id][key] += amount
        if taken is None:
            self._taken[device.id].discard(place)
        else:
            self._unshare(device, taken)


_SHARES = ""
"""No capacity has this name: how often a device is shared."""


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
    return (toleration.get("value") or "") == (taint.get("value") or "")


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

"""The scheduler's arithmetic: feasibility, resource scores and choice over node columns. No objects, no I/O, no clock.

One source, two builds: compiled, and interpreted under FASTKUBE_PURE=1 (fastkube/_pure.py). Both decide alike.

The rules this module obeys:
  1. A node is a small integer, its slot. Slots are given out by the caller; `order` lists those in use, in the order in
     which they are searched.
  2. Whatever changes what a node can take bumps the node's version, from a clock that never goes back. A Screen keeps
     a verdict and a score for each node together with the version they were computed at, so that Pods which ask for the
     same share the work: after one Pod is placed, one node is computed again.
  3. A Tally is the number of Pods (or the sum of their weights) in each domain of a topology. It is changed by one
     addition for each Pod that comes or goes, and never by scanning Pods.
  4. All scores are integers from 0 to 100 before their weights, as upstream has them. Integer divisions have operands
     that are not negative, so that C and Python round alike; floats follow upstream's order of operations.
  5. Equal scores are decided by a generator which the caller seeds.

Theory of operation. For Pods of one signature the caller builds a Plan out of
    a Screen    nodes refused for good (names, taints, affinity: `refuse`), resources that must fit, resource scores;
    rules       Forbid, Require and Spread, which look at tallies;
    scorers     of fastkube._scores, normalized over the feasible nodes.
`search` walks the nodes from where the last search ended until it has found as many feasible ones as wanted
(percentageOfNodesToScore), `pick` scores them and chooses one; `Nodes.assign` then takes the Pod's part of the node.

A verdict is an unsigned 32-bit number: 0 means feasible. The low byte is a code that the caller gave to a reason;
FIT there means that resources do not fit, and then bit 8+k says that the k-th requested column does not, and bit 31
that the request is more than the node has at all (no preemption can help).
"""

from __future__ import annotations

from array import array
from math import sqrt

import cython

from fastkube._columns import CODES_MAX, grown, mark, widened, zeros

COMPILED: bool = cython.compiled

MAX_SCORE = 100

PODS = 0
CPU = 1
MEMORY = 2
EPHEMERAL_STORAGE = 3
NONZERO_CPU = 4
NONZERO_MEMORY = 5
FIRST_SCALAR = 6
"""Resource columns. The non-zero ones count Pods without requests at upstream's defaults, for scores; they have no
allocatable of their own. Scalar and extended resources follow."""

FIT = 255
REQUEST_COLUMNS_MAX = 22
NODES_MAX = 1 << 24
RECENT = 1024  # changes that are remembered, for Screens which had refused every node before them; a power of two
SPARE_MAX = 8  # sets of columns that are kept for Screens to come

LEAST_ALLOCATED = 0
MOST_ALLOCATED = 1
REQUESTED_TO_CAPACITY_RATIO = 2
BALANCED = 3


@cython.cclass
class Request:
    """What a Pod takes of a node: amounts in columns. Column PODS is always there, with 1."""

    columns: cython.int[::1]
    amounts: cython.longlong[::1]
    size = cython.declare(cython.Py_ssize_t, visibility="readonly")
    fit_size = cython.declare(cython.Py_ssize_t, visibility="readonly")

    def __init__(self, amounts: dict[int, int]) -> None:
        """`amounts`: column → amount. The columns that must fit come first, in their order; the non-zero ones last."""
        fit = sorted(c for c, amount in amounts.items() if amount > 0 and c not in (PODS, NONZERO_CPU, NONZERO_MEMORY))
        rest = [column for column in (NONZERO_CPU, NONZERO_MEMORY) if amounts.get(column, 0) > 0]
        if min(amounts.values(), default=0) < 0 or min(amounts, default=0) < 0:
            raise ValueError("a request cannot be negative")
        if len(fit) + 1 > REQUEST_COLUMNS_MAX:
            raise ValueError(f"a Pod cannot request more than {REQUEST_COLUMNS_MAX - 1} resources")
        columns = [PODS, *fit, *rest]
        self.columns = array("i", columns)
        self.amounts = array("q", [1] + [amounts[column] for column in columns[1:]])
        self.size = len(columns)
        self.fit_size = len(fit) + 1

    def fit_columns(self) -> list[int]:
        """The columns that must fit; bit 8+k of a verdict is about the k-th."""
        return [self.columns[k] for k in range(self.fit_size)]


@cython.cclass
class Topology:
    """Which domain each node is in by one label key; -1 where a node lacks the label.

    An identity topology has a domain for each node: its slot.
    """

    domain: cython.int[::1]
    domains = cython.declare(object, visibility="readonly")
    size = cython.declare(cython.Py_ssize_t, visibility="readonly")
    identity = cython.declare(cython.bint, visibility="readonly")

    def __init__(self, nodes: Nodes, identity: bool = False) -> None:
        self.identity = identity
        self.size = nodes.capacity if identity else 0
        self._hold(array("i", range(nodes.capacity)) if identity else array("i", [-1]) * nodes.capacity)
        nodes.topologies.append(self)

    def _hold(self, domains: array) -> None:
        """`domain` is the view that this module reads `domains` through."""
        self.domains = domains
        self.domain = domains

    def put(self, node: cython.Py_ssize_t, domain: cython.int) -> None:
        """Say which domain a node is in, -1 for none. Tallies must not hold Pods of the node meanwhile."""
        if not 0 <= node < len(self.domain) or domain < -1:
            raise ValueError(f"no node {node} or domain {domain}")
        self.domain[node] = domain
        if domain >= self.size:
            self.size = domain + 1

    def grow(self, capacity: int) -> None:
        old = len(self.domain)
        self._hold(grown(self.domains, "i", capacity, -1))
        if self.identity:
            for node in range(old, capacity):
                self.domain[node] = node
            self.size = capacity


@cython.cclass
class Tally:
    """The sum over the Pods of each domain of a topology: how many match a selector, or carry a term (times weight).

    With `eligible` (a byte for each node) only Pods on those nodes count, and only domains with such a node exist when
    the lowest count is asked for; so topology spread constraints have it.
    """

    topology = cython.declare(Topology, visibility="readonly")
    sums = cython.declare(object, visibility="readonly")
    cython.declare(counts=cython.longlong[::1], eligible=cython.uchar[::1], present=cython.int[::1])
    cython.declare(restricted=cython.bint, size=cython.Py_ssize_t, domains=cython.Py_ssize_t)
    total = cython.declare(cython.longlong, visibility="readonly")
    cython.declare(_lowest=cython.longlong, _lowest_known=cython.bint)

    def __init__(self, topology: Topology, eligible: array | None = None) -> None:
        node: cython.Py_ssize_t
        self.topology = topology
        self.size = max(topology.size, 1)
        self.sums = zeros("q", self.size)
        self.counts = self.sums
        self.restricted = eligible is not None
        self.eligible = zeros("B", 0) if eligible is None else eligible
        self.present = zeros("i", self.size if self.restricted else 0)
        self.domains = 0
        self.total = 0
        self._lowest = 0
        self._lowest_known = False
        if self.restricted:
            for node in range(min(len(self.eligible), len(topology.domain))):
                if self.eligible[node] and topology.domain[node] >= 0:
                    self._stretch(topology.domain[node])
                    if not self.present[topology.domain[node]]:
                        self.domains += 1
                    self.present[topology.domain[node]] += 1

    @cython.cfunc
    def _stretch(self, domain: cython.Py_ssize_t) -> cython.void:
        if domain >= self.size:
            self.size = max(domain + 1, 2 * self.size)
            self.sums = grown(self.sums, "q", self.size, 0)
            self.counts = self.sums
            if self.restricted:
                self.present = grown(self.present, "i", self.size, 0)

    @cython.ccall
    def add(self, node: cython.Py_ssize_t, delta: cython.longlong) -> object:
        """One Pod came to the node (or went, with a negative `delta`)."""
        domain: cython.Py_ssize_t = self.topology.domain[node]
        before: cython.longlong
        if domain < 0:
            return None
        if self.restricted and (node >= len(self.eligible) or not self.eligible[node]):
            return None
        self._stretch(domain)
        before = self.counts[domain]
        self.counts[domain] = before + delta
        self.total += delta
        if self._lowest_known:
            if before + delta < self._lowest:
                self._lowest = before + delta
            elif before == self._lowest and delta > 0:
                self._lowest_known = False
        return None

    @cython.cfunc
    def at(self, domain: cython.Py_ssize_t) -> cython.longlong:
        """The count of a domain."""
        return self.counts[domain] if domain < self.size else 0

    @cython.ccall
    def lowest(self) -> cython.longlong:
        """The lowest count of the domains that exist; the greatest int32 when there are none, as upstream has it."""
        domain: cython.Py_ssize_t
        if not self._lowest_known:
            self._lowest = 2147483647
            for domain in range(self.size):
                if (not self.restricted or self.present[domain]) and self.counts[domain] < self._lowest:
                    self._lowest = self.counts[domain]
            self._lowest_known = True
        return self._lowest


@cython.cclass
class Bundle:
    """Tallies that a Pod is counted in wherever it runs, each with the weight it counts for."""

    tallies: list
    weights: cython.longlong[::1]
    size = cython.declare(cython.Py_ssize_t, visibility="readonly")

    def __init__(self, parts: list[tuple[Tally, int]]) -> None:
        self.tallies = [tally for tally, _ in parts]
        self.weights = array("q", [weight for _, weight in parts])
        self.size = len(parts)

    @cython.cfunc
    def add(self, node: cython.Py_ssize_t, sign: cython.longlong) -> cython.void:
        k: cython.Py_ssize_t
        tally: Tally
        for k in range(self.size):
            tally = self.tallies[k]
            tally.add(node, sign * self.weights[k])


@cython.cclass
class Nodes:
    """The columns: allocatable and requested by resource, a version, and the order of search."""

    capacity = cython.declare(cython.Py_ssize_t, visibility="readonly")
    width = cython.declare(cython.Py_ssize_t, visibility="readonly")
    live = cython.declare(cython.Py_ssize_t, visibility="readonly")
    clock = cython.declare(cython.longlong, visibility="readonly")
    topologies = cython.declare(list, visibility="readonly")
    cython.declare(allocatable=cython.longlong[::1], requested=cython.longlong[::1], version=cython.longlong[::1])
    versions = cython.declare(object, visibility="readonly")
    places = cython.declare(object, visibility="readonly")
    candidates = cython.declare(object, visibility="readonly")
    scored = cython.declare(object, visibility="readonly")
    verdicts = cython.declare(object, visibility="readonly")
    cython.declare(order=cython.int[::1], recent=cython.int[::1], feasible=cython.int[::1])
    cython.declare(total=cython.longlong[::1], scratch=cython.longlong[::1])
    cython.declare(blame=cython.uchar[::1], told=cython.uint[::1])
    cython.declare(nominated=dict, spare=list, blank=bytes, random=cython.ulonglong)

    def __init__(self, seed: int = 0, capacity: int = 64, width: int = FIRST_SCALAR) -> None:
        self.capacity = capacity
        self.width = width
        self.clock = 1
        self.topologies = []
        self.allocatable = zeros("q", capacity * width)
        self.requested = zeros("q", capacity * width)
        self.versions = zeros("q", capacity)
        self.version = self.versions
        self.recent = zeros("i", RECENT)
        self.set_order([])
        self.nominated = {}
        self.random = (seed ^ 0x5DEECE66D) & 0xFFFFFFFFFFFF
        self._make_scratch()

    def take_columns(self) -> tuple[array, array, array, array]:
        """For a Screen: refused, verdict, score, seen. Those of a former one save the touching of fresh memory."""
        if not self.spare:
            size = self.capacity
            return zeros("B", size), zeros("I", size), zeros("i", size), zeros("q", size)
        columns: tuple = self.spare.pop()
        for column in (columns[0], columns[3]):  # verdict and score count only where `seen` says so
            view = memoryview(column).cast("B")
            view[:] = self.blank[: len(view)]
        return columns

    def keep_columns(self, columns: tuple[array, array, array, array]) -> None:
        if len(columns[0]) == self.capacity and len(self.spare) < SPARE_MAX:
            self.spare.append(columns)

    def _make_scratch(self) -> None:
        self.spare = []
        self.blank = bytes(8 * self.capacity)
        self.candidates = zeros("i", self.capacity)
        self.feasible = self.candidates
        self.total = zeros("q", self.capacity)
        self.scored = zeros("q", self.capacity)
        self.scratch = self.scored
        self.blame = zeros("B", self.capacity)
        self.verdicts = zeros("I", self.capacity)
        self.told = self.verdicts

    def grow(self, capacity: int, width: int) -> None:
        """Make room for more slots and resource columns; what is there keeps its place."""
        if capacity < self.capacity or width < self.width or capacity > NODES_MAX:
            raise ValueError(f"no room for {capacity} nodes and {width} resources")
        self.allocatable = widened(self.allocatable, self.capacity, self.width, capacity, width)
        self.requested = widened(self.requested, self.capacity, self.width, capacity, width)
        if capacity > self.capacity:
            self.versions = grown(self.versions, "q", capacity, 0)
            self.version = self.versions
            for topology in self.topologies:
                topology.grow(capacity)
            self.capacity = capacity
            self._make_scratch()
        self.width = width

    @cython.cfunc
    def touch(self, node: cython.Py_ssize_t) -> cython.void:
        self.clock += 1
        self.version[node] = self.clock
        self.recent[self.clock & (RECENT - 1)] = node

    @cython.cfunc
    @cython.exceptval(check=True)
    def check_slot(self, node: cython.Py_ssize_t) -> cython.void:
        if not 0 <= node < self.capacity:
            raise ValueError(f"no node {node}")

    def set_order(self, order: list[int]) -> None:
        """The slots in use, in the order of search."""
        for node in order:
            self.check_slot(node)
        self.places = array("i", order)
        self.order = self.places
        self.live = len(order)
        self.clock += RECENT  # nothing that was known of all nodes holds any more

    def set_allocatable(self, node: cython.Py_ssize_t, amounts: dict[int, int]) -> None:
        """Column → amount; columns that are not named become 0."""
        column: cython.Py_ssize_t
        self.check_slot(node)
        if amounts and not 0 <= max(amounts) < self.width:
            raise ValueError(f"no resource column {max(amounts)}")
        for column in range(self.width):
            self.allocatable[column * self.capacity + node] = amounts.get(column, 0)
        self.touch(node)

    def requested_of(self, node: cython.Py_ssize_t, column: cython.Py_ssize_t) -> int:
        self.check_slot(node)
        return self.requested[column * self.capacity + node] if 0 <= column < self.width else 0

    def restore_version(self, node: cython.Py_ssize_t, version: cython.longlong) -> None:
        """After a trial that was taken back: what was known of the node at `version` holds again."""
        self.check_slot(node)
        self.version[node] = version

    def nominate(self, node: cython.Py_ssize_t, parts: list[tuple[int, Request]]) -> None:
        """The nominated Pods of a node: (priority, Request) of each. Screens of lower priority leave them room."""
        self.check_slot(node)
        if parts:
            self.nominated[node] = parts
        else:
            self.nominated.pop(node, None)
        self.touch(node)

    @cython.ccall
    def assign(
        self, node: cython.Py_ssize_t, request: Request, tallies: list, carried: Bundle, sign: cython.longlong
    ) -> object:
        """Take a Pod's part of a node (sign 1) or give it back (-1), in the columns and in its tallies."""
        tally: Tally
        self.check_slot(node)
        if request.columns[request.fit_size - 1] >= self.width:
            raise ValueError(f"no resource column {request.columns[request.fit_size - 1]}")
        self.take(node, request, sign)
        for tally in tallies:
            tally.add(node, sign)
        carried.add(node, sign)
        self.touch(node)
        return None

    @cython.cfunc
    def take(self, node: cython.Py_ssize_t, request: Request, sign: cython.longlong) -> cython.void:
        k: cython.Py_ssize_t
        for k in range(request.size):
            self.requested[request.columns[k] * self.capacity + node] += sign * request.amounts[k]

    @cython.cfunc
    def draw(self, count: cython.ulonglong) -> cython.ulonglong:
        """A number below `count`."""
        self.random = (self.random * 0x5DEECE66D + 0xB) & 0xFFFFFFFFFFFF
        return (self.random >> 17) % count

    def random_below(self, count: int) -> int:
        """From the seeded generator that also breaks ties."""
        if not 0 < count < (1 << 31):
            raise ValueError(f"cannot draw a number below {count}")
        return self.draw(count)


@cython.cclass
class ResourceScore:
    """One resource strategy: LeastAllocated, MostAllocated, RequestedToCapacityRatio or the balance of resources."""

    cython.declare(kind=cython.int, size=cython.Py_ssize_t, used=cython.int[::1], capacity=cython.int[::1])
    cython.declare(amounts=cython.longlong[::1], weights=cython.longlong[::1])
    cython.declare(xs=cython.longlong[::1], ys=cython.longlong[::1])
    name = cython.declare(str, visibility="readonly")
    weight = cython.declare(cython.longlong, visibility="readonly")

    def __init__(
        self, name: str, kind: int, weight: int, resources: list[tuple[int, int, int, int]], shape: list | None = None
    ) -> None:
        """`resources`: (column counted as used, column of the capacity, the Pod's amount, the resource's weight).

        `shape`: points (utilization, score 0 to 100) of RequestedToCapacityRatio, by rising utilization.
        """
        if kind not in (LEAST_ALLOCATED, MOST_ALLOCATED, REQUESTED_TO_CAPACITY_RATIO, BALANCED):
            raise ValueError(f"no resource strategy {kind}")
        if kind == REQUESTED_TO_CAPACITY_RATIO and not shape:
            raise ValueError("RequestedToCapacityRatio needs a shape")
        if any(min(resource) < 0 for resource in resources):
            raise ValueError("columns, amounts and weights cannot be negative")
        self.name = name
        self.kind = kind
        self.weight = weight
        self.size = len(resources)
        self.used = array("i", [resource[0] for resource in resources])
        self.capacity = array("i", [resource[1] for resource in resources])
        self.amounts = array("q", [resource[2] for resource in resources])
        self.weights = array("q", [resource[3] for resource in resources])
        self.xs = array("q", [x for x, _ in shape or ()])
        self.ys = array("q", [y for _, y in shape or ()])

    @cython.ccall
    def value(self, nodes: Nodes, node: cython.Py_ssize_t) -> cython.longlong:
        """The score of a node, 0 to 100, before the weight."""
        k: cython.Py_ssize_t
        cython.declare(have=cython.longlong, want=cython.longlong, score=cython.longlong)
        total: cython.longlong = 0
        weights: cython.longlong = 0
        if self.kind == BALANCED:
            # half of the range says whether the Pod makes the node more balanced or less
            return 50 + (50 + self.balance(nodes, node, 1) - self.balance(nodes, node, 0)) // 2
        for k in range(self.size):
            have = nodes.allocatable[self.capacity[k] * nodes.capacity + node]
            if have == 0:
                continue
            want = nodes.requested[self.used[k] * nodes.capacity + node] + self.amounts[k]
            if self.kind == LEAST_ALLOCATED:
                score = 0 if want > have else (have - want) * 100 // have
            elif self.kind == MOST_ALLOCATED:
                score = (have if want > have else want) * 100 // have
            else:
                score = self.curve(100 if want > have else want * 100 // have)
                if score == 0:
                    continue
            total += score * self.weights[k]
            weights += self.weights[k]
        if weights == 0:
            return 0
        if self.kind == REQUESTED_TO_CAPACITY_RATIO:
            return (2 * total + weights) // (2 * weights)
        return total // weights

    @cython.cfunc
    def curve(self, utilization: cython.longlong) -> cython.longlong:
        """The piecewise linear function through the points of the shape."""
        k: cython.Py_ssize_t
        run: cython.longlong
        rise: cython.longlong
        last: cython.Py_ssize_t = len(self.xs) - 1
        for k in range(len(self.xs)):
            if utilization <= self.xs[k]:
                if k == 0:
                    return self.ys[0]
                run = self.xs[k] - self.xs[k - 1]
                rise = (self.ys[k] - self.ys[k - 1]) * (utilization - self.xs[k - 1])
                # Go's division rounds towards zero
                return self.ys[k - 1] + (rise // run if rise >= 0 else -(-rise // run))
        return self.ys[last]

    @cython.cfunc
    def balance(self, nodes: Nodes, node: cython.Py_ssize_t, with_pod: cython.longlong) -> cython.longlong:
        """100 times one minus the standard deviation of the resources' fractions in use."""
        k: cython.Py_ssize_t
        have: cython.longlong
        fraction: cython.double
        cython.declare(first=cython.double, second=cython.double, total=cython.double, squares=cython.double)
        cython.declare(mean=cython.double, deviation=cython.double)
        count: cython.longlong = 0
        first = second = total = squares = deviation = 0.0
        for k in range(self.size):
            have = nodes.allocatable[self.capacity[k] * nodes.capacity + node]
            if have == 0:
                continue
            fraction = self.fraction(nodes, node, k, have, with_pod)
            total += fraction
            first, second = second, fraction
            count += 1
        if count == 2:
            deviation = (first - second) / 2
            if deviation < 0:
                deviation = -deviation
        elif count > 2:
            mean = total / count
            for k in range(self.size):
                have = nodes.allocatable[self.capacity[k] * nodes.capacity + node]
                if have == 0:
                    continue
                fraction = self.fraction(nodes, node, k, have, with_pod)
                squares = squares + (fraction - mean) * (fraction - mean)
            deviation = sqrt(squares / count)
        return cython.cast(cython.longlong, (1.0 - deviation) * 100.0)

    @cython.cfunc
    def fraction(
        self, nodes: Nodes, node: cython.Py_ssize_t, k: cython.Py_ssize_t, have: cython.longlong, more: cython.longlong
    ) -> cython.double:
        used: cython.double = nodes.requested[self.used[k] * nodes.capacity + node] + more * self.amounts[k]
        part: cython.double = used / cython.cast(cython.double, have)
        return 1.0 if part > 1.0 else part


@cython.cclass
class Screen:
    """Verdict and resource score of each node for Pods with equal needs, computed again only where a node changed.

    `counts`, when `counted`: verdict → number of nodes at clock `at`. It is made when every node was refused, and kept
    up with what changes, so that one more Pod that fits nowhere costs no look at all nodes.
    """

    cython.declare(nodes=Nodes, request=Request, fits=cython.bint, priority=cython.longlong, scores=list, columns=tuple)
    cython.declare(
        refused=cython.uchar[::1], verdict=cython.uint[::1], score=cython.int[::1], seen=cython.longlong[::1]
    )
    cython.declare(capacity=cython.Py_ssize_t, counted=cython.bint, at=cython.longlong, counts=dict)

    def __init__(
        self, nodes: Nodes, request: Request, priority: int, scores: list[ResourceScore], check_fit: bool
    ) -> None:
        """`check_fit` False: the plugin NodeResourcesFit does not filter."""
        self.nodes = nodes
        self.request = request
        self.fits = check_fit
        self.priority = priority
        self.scores = list(scores)
        self.capacity = nodes.capacity
        self.columns = nodes.take_columns()
        self.refused, self.verdict, self.score, self.seen = self.columns
        self.counted = False
        self.at = 0
        self.counts = {}

    def refuse(self, mask: int, code: int) -> None:
        """Refuse the nodes whose bit is set in `mask`, unless an earlier call did. Before the first search only."""
        mark(self.refused, mask, code)

    def give_back(self) -> None:
        """The screen is not used any more: another one may have its memory."""
        self.nodes.keep_columns(self.columns)
        self.capacity = -1

    @cython.cfunc
    def refuses_all(self) -> cython.bint:
        """Whether it is known without a look at all nodes that every one is refused."""
        nodes: Nodes = self.nodes
        cython.declare(change=cython.longlong, node=cython.Py_ssize_t)
        if not self.counted:
            return False
        if nodes.clock - self.at >= RECENT:
            self.counted = False
            return False
        for change in range(self.at + 1, nodes.clock + 1):
            node = nodes.recent[change & (RECENT - 1)]
            if self.seen[node] != nodes.version[node]:
                self.refresh(node)
        self.at = nodes.clock
        return self.counts.get(0, 0) == 0

    @cython.cfunc
    def refresh(self, node: cython.Py_ssize_t) -> cython.void:
        nodes: Nodes = self.nodes
        resource: ResourceScore
        total: cython.longlong = 0
        verdict: cython.uint = self.refused[node]
        if verdict == 0 and self.fits:
            verdict = self.fit(node)
        if verdict == 0:
            for resource in self.scores:
                total += resource.weight * resource.value(nodes, node)
        if self.counted and verdict != self.verdict[node]:
            self.counts[self.verdict[node]] -= 1
            self.counts[verdict] = self.counts.get(verdict, 0) + 1
        self.verdict[node] = verdict
        self.score[node] = total
        self.seen[node] = nodes.version[node]

    @cython.cfunc
    def fit(self, node: cython.Py_ssize_t) -> cython.uint:
        """0, or FIT with a bit for each column that lacks room, nominated Pods of at least this priority included."""
        nodes: Nodes = self.nodes
        request: Request = self.request
        cython.declare(k=cython.Py_ssize_t, at=cython.Py_ssize_t, amount=cython.longlong, column=cython.int)
        lacking: cython.uint = 0
        nominated: object = nodes.nominated.get(node) if nodes.nominated else None
        for k in range(request.fit_size):
            column = request.columns[k]
            amount = request.amounts[k]
            at = column * nodes.capacity + node
            if nominated is not None:
                amount += self.room_for(nominated, column)
            if amount > nodes.allocatable[at] - nodes.requested[at]:
                lacking |= cython.cast(cython.uint, 1) << (8 + k)
                if k > 0 and request.amounts[k] > nodes.allocatable[at]:
                    lacking |= cython.cast(cython.uint, 1) << 31
        return lacking | 255 if lacking else 0

    @cython.cfunc
    def room_for(self, nominated: object, column: cython.int) -> cython.longlong:
        total: cython.longlong = 0
        k: cython.Py_ssize_t
        other: Request
        for priority, other in nominated:
            if priority >= self.priority:
                for k in range(other.fit_size):
                    if other.columns[k] == column:
                        total += other.amounts[k]
        return total

    @cython.cfunc
    @cython.exceptval(check=True)
    def check_capacity(self) -> cython.void:
        if self.capacity != self.nodes.capacity:
            raise ValueError("the columns have grown or were given back: the screen must be made again")


@cython.cclass
class Rule:
    """A condition on tallies. `keep` drops the candidates that fail and notes their code in `nodes.blame`."""

    code = cython.declare(cython.uchar, visibility="readonly")

    @cython.cfunc
    def keep(self, nodes: Nodes, first: cython.Py_ssize_t, last: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Look at nodes.feasible[first:last], move those that pass to its front, and say where they end."""
        node: cython.int
        code: cython.uchar
        k: cython.Py_ssize_t
        end: cython.Py_ssize_t = first
        self.prepare()
        for k in range(first, last):
            node = nodes.feasible[k]
            code = self.judge(node)
            if code:
                nodes.blame[node] = code
            else:
                nodes.feasible[end] = node
                end += 1
        return end

    @cython.cfunc
    def prepare(self) -> cython.void:
        """Before a run over candidates, between which no tally changes."""

    @cython.cfunc
    def judge(self, node: cython.Py_ssize_t) -> cython.uchar:
        return 0


def _checked_code(code: int) -> int:
    if not 0 < code <= CODES_MAX:
        raise ValueError(f"a code is from 1 to {CODES_MAX}, not {code}")
    return code


@cython.final
@cython.cclass
class Forbid(Rule):
    """No Pod of any of the tallies may be in the node's domain: anti-affinity, both ways, and host ports."""

    tallies: list

    def __init__(self, tallies: list[Tally], code: int) -> None:
        self.tallies = list(tallies)
        self.code = _checked_code(code)

    @cython.cfunc
    def judge(self, node: cython.Py_ssize_t) -> cython.uchar:
        cython.declare(tally=Tally, domain=cython.Py_ssize_t)
        for tally in self.tallies:
            domain = tally.topology.domain[node]
            if domain >= 0 and tally.at(domain) > 0:
                return self.code
        return 0


@cython.final
@cython.cclass
class Require(Rule):
    """Each tally must count a Pod in the node's domain: required Pod affinity.

    The first Pod of a group that asks for its own kind may go anywhere where the labels are: `alone_if_empty`.
    """

    cython.declare(tallies=list, alone_if_empty=cython.bint, nowhere=cython.bint)

    def __init__(self, tallies: list[Tally], code: int, alone_if_empty: bool) -> None:
        self.tallies = list(tallies)
        self.code = _checked_code(code)
        self.alone_if_empty = alone_if_empty
        self.nowhere = False

    @cython.cfunc
    def prepare(self) -> cython.void:
        tally: Tally
        total: cython.longlong = 0
        for tally in self.tallies:
            total += tally.total
        self.nowhere = total == 0

    @cython.cfunc
    def judge(self, node: cython.Py_ssize_t) -> cython.uchar:
        cython.declare(tally=Tally, domain=cython.Py_ssize_t)
        found: cython.bint = True
        for tally in self.tallies:
            domain = tally.topology.domain[node]
            if domain < 0:
                return self.code
            if tally.at(domain) <= 0:
                found = False
        if found or (self.nowhere and self.alone_if_empty):
            return 0
        return self.code


@cython.final
@cython.cclass
class Spread(Rule):
    """A hard topology spread constraint: the node's domain may exceed the lowest by at most `max_skew`."""

    cython.declare(tally=Tally, missing_code=cython.uchar)
    cython.declare(max_skew=cython.longlong, own=cython.longlong, min_domains=cython.longlong, lowest=cython.longlong)

    def __init__(self, tally: Tally, max_skew: int, own: bool, min_domains: int, code: int, missing_code: int) -> None:
        """`own`: the Pod matches its own selector. `missing_code` is for nodes without the label."""
        self.tally = tally
        self.max_skew = max_skew
        self.own = 1 if own else 0
        self.min_domains = min_domains
        self.code = _checked_code(code)
        self.missing_code = _checked_code(missing_code)
        self.lowest = 0

    @cython.cfunc
    def prepare(self) -> cython.void:
        self.lowest = 0 if self.tally.domains < self.min_domains else self.tally.lowest()

    @cython.cfunc
    def judge(self, node: cython.Py_ssize_t) -> cython.uchar:
        domain: cython.Py_ssize_t = self.tally.topology.domain[node]
        if domain < 0:
            return self.missing_code
        if self.tally.at(domain) + self.own - self.lowest > self.max_skew:
            return self.code
        return 0


@cython.cclass
class Plan:
    """How to decide for Pods of one signature. Results stand in the nodes' scratch columns until the next search."""

    nodes = cython.declare(Nodes, visibility="readonly")
    screen = cython.declare(Screen, visibility="readonly")
    cython.declare(ports=list, rules=list)
    scorers = cython.declare(list, visibility="readonly")
    has_rules = cython.declare(cython.bint, visibility="readonly")
    found = cython.declare(cython.Py_ssize_t, visibility="readonly")
    visited = cython.declare(cython.Py_ssize_t, visibility="readonly")

    def __init__(self, nodes: Nodes, screen: Screen, ports: list[Rule], rules: list[Rule], scorers: list) -> None:
        """`ports` come before the resources when a verdict is explained, `rules` after, as upstream's plugins do."""
        self.nodes = nodes
        self.screen = screen
        self.ports = list(ports)
        self.rules = list(rules)
        self.scorers = list(scorers)
        self.has_rules = bool(ports or rules)
        self.found = 0
        self.visited = 0

    @cython.ccall
    def search(self, start: cython.Py_ssize_t, want: cython.Py_ssize_t, extra: object = None) -> cython.Py_ssize_t:
        """Find feasible nodes, at most `want`, from place `start` of the order on; says how many.

        `extra`: an array('B') by slot, nodes with a code there are refused (volumes, devices, other plugins).
        """
        nodes: Nodes = self.nodes
        screen: Screen = self.screen
        found: cython.Py_ssize_t = 0
        visited: cython.Py_ssize_t = 0
        live: cython.Py_ssize_t = nodes.live
        cython.declare(last=cython.Py_ssize_t, at=cython.Py_ssize_t, node=cython.int, rule=Rule)
        more: cython.uchar[::1] = nodes.blame if extra is None else extra
        screen.check_capacity()
        if len(more) < nodes.capacity:
            raise ValueError("`extra` must have a byte for each slot")
        at = start % live if live > 0 and start >= 0 else 0
        if screen.refuses_all():
            visited = live
        while visited < live and found < want:
            last = found
            while visited < live and last < want:
                node = nodes.order[at]
                at += 1
                if at == live:
                    at = 0
                visited += 1
                if screen.seen[node] != nodes.version[node]:
                    screen.refresh(node)
                if screen.verdict[node] == 0 and (extra is None or more[node] == 0):
                    nodes.feasible[last] = node
                    last += 1
            for rule in self.ports:
                last = rule.keep(nodes, found, last)
            for rule in self.rules:
                last = rule.keep(nodes, found, last)
            found = last
        self.found = found
        self.visited = visited
        return found

    @cython.ccall
    def pick(self, bonus: object = None) -> cython.Py_ssize_t:
        """Score what `search` found and pick the best, one of the best at random; -1 when nothing was found.

        `bonus`: an array('q') of scores, weights applied, that others give to feasible[:found].
        """
        nodes: Nodes = self.nodes
        found: cython.Py_ssize_t = self.found
        k: cython.Py_ssize_t
        best: cython.longlong = 0
        ties: cython.ulonglong = 0
        chosen: cython.ulonglong
        weight: cython.longlong
        if found == 0:
            return -1
        if found == 1:
            return nodes.feasible[0]
        for k in range(found):
            nodes.total[k] = self.screen.score[nodes.feasible[k]]
        for scorer in self.scorers:
            scorer.fill(nodes.candidates, found, nodes.scored)
            weight = scorer.weight
            for k in range(found):
                nodes.total[k] += weight * nodes.scratch[k]
        if bonus is not None:
            self.add_bonus(bonus)
        for k in range(found):
            if ties == 0 or nodes.total[k] > best:
                best = nodes.total[k]
                ties = 1
            elif nodes.total[k] == best:
                ties += 1
        chosen = nodes.draw(ties) if ties > 1 else 0
        for k in range(found):
            if nodes.total[k] == best:
                if chosen == 0:
                    return nodes.feasible[k]
                chosen -= 1
        return -1

    @cython.cfunc
    @cython.exceptval(check=True)
    def add_bonus(self, bonus: object) -> cython.void:
        k: cython.Py_ssize_t
        view: cython.longlong[::1] = bonus
        if len(view) < self.found:
            raise ValueError("`bonus` must have a score for each feasible node")
        for k in range(self.found):
            self.nodes.total[k] += view[k]

    def feasible(self) -> list[int]:
        """The slots that the last search found, in the order in which it found them."""
        return [self.nodes.feasible[k] for k in range(self.found)]

    def scores(self) -> dict[str, list[int]]:
        """Each scorer's normalized scores, unweighted, of the nodes in feasible()."""
        nodes: Nodes = self.nodes
        resource: ResourceScore
        told: dict = {}
        for resource in self.screen.scores:
            told[resource.name] = [resource.value(nodes, nodes.feasible[k]) for k in range(self.found)]
        for scorer in self.scorers:
            scorer.fill(nodes.candidates, self.found, nodes.scored)
            told[scorer.name] = [nodes.scratch[k] for k in range(self.found)]
        return told

    @cython.ccall
    def verdict(self, node: cython.Py_ssize_t, extra: cython.uchar = 0) -> cython.uint:
        """Why a node is refused, by the first plugin that refuses it; 0 when it is feasible."""
        rule: Rule
        code: cython.uchar
        screen: Screen = self.screen
        self.nodes.check_slot(node)
        screen.check_capacity()
        if screen.seen[node] != self.nodes.version[node]:
            screen.refresh(node)
        if screen.refused[node]:
            return screen.refused[node]
        for rule in self.ports:
            rule.prepare()
            code = rule.judge(node)
            if code:
                return code
        if screen.verdict[node]:
            return screen.verdict[node]
        if extra:
            return extra
        for rule in self.rules:
            rule.prepare()
            code = rule.judge(node)
            if code:
                return code
        return 0

    def crowding(self, node: cython.Py_ssize_t, requests: list[Request]) -> tuple[int, list[int]]:
        """Which of some Pods on a node must leave it for this one to fit, those at the end of the list first.

        Says (0, places in `requests`), or (verdict, []) when it would not fit without any of them. Nothing is changed.
        Only for plans without rules, which the Pods that are taken away would matter to.
        """
        screen: Screen = self.screen
        nodes: Nodes = self.nodes
        cython.declare(request=Request, verdict=cython.uint, k=cython.Py_ssize_t)
        nodes.check_slot(node)
        screen.check_capacity()
        if self.has_rules:
            raise ValueError("the plan has rules")
        if screen.refused[node]:
            return screen.refused[node], []
        for request in requests:
            nodes.take(node, request, -1)
        verdict = screen.fit(node) if screen.fits else 0
        away: list[int] = []
        for k in range(len(requests)):
            request = requests[k]
            nodes.take(node, request, 1)
            if verdict == 0 and screen.fits and screen.fit(node):
                nodes.take(node, request, -1)
                away.append(k)
        for k in away:
            request = requests[k]
            nodes.take(node, request, 1)
        return verdict, away

    def verdicts(self, extra: array | None = None) -> dict[int, int]:
        """Verdict → number of nodes, over all nodes; each node's stands in nodes.verdicts until the next call."""
        told: dict = {}
        cython.declare(k=cython.Py_ssize_t, node=cython.int, value=cython.uint)
        run: cython.longlong = 0
        last: cython.uint = 0
        nodes: Nodes = self.nodes
        screen: Screen = self.screen
        screen_decides: cython.bint = not self.has_rules and extra is None
        more: cython.uchar[::1] = nodes.blame if extra is None else extra
        screen.check_capacity()
        if len(more) < nodes.capacity:
            raise ValueError("`extra` must have a byte for each slot")
        if screen_decides and screen.refuses_all():
            nodes.told[:] = screen.verdict
            return {verdict: count for verdict, count in screen.counts.items() if count}
        for k in range(nodes.live):
            node = nodes.order[k]
            if not screen_decides:
                value = self.verdict(node, 0 if extra is None else more[node])
            else:
                if screen.seen[node] != nodes.version[node]:
                    screen.refresh(node)
                value = screen.verdict[node]
            nodes.told[node] = value
            if value != last and run:
                told[last] = told.get(last, 0) + run
                run = 0
            last = value
            run += 1
        if run:
            told[last] = told.get(last, 0) + run
        if screen_decides and 0 not in told:
            screen.counted = True
            screen.at = nodes.clock
            screen.counts = dict(told)
        return told

    def keep(self, slots: list[int]) -> None:
        """Go on with some of the feasible nodes only."""
        k: cython.Py_ssize_t
        if len(slots) > self.found:
            raise ValueError("a node that was not found cannot be kept")
        for k in range(len(slots)):
            self.nodes.check_slot(slots[k])
            self.nodes.feasible[k] = slots[k]
        self.found = len(slots)

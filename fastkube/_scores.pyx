"""The score plugins that look beyond a node's own resources: fixed values, Pod affinity, topology spread.

The second half of the scheduler's core (fastkube/_sched.pyx holds the first, and the rules for both). A scorer is made
for Pods of one signature. `fill` writes a score from 0 to 100 for each candidate, normalized over the candidates as
upstream's plugin does it; the caller multiplies by `weight`.
"""

from __future__ import annotations

from array import array
from math import log

import cython

from fastkube._columns import lowest, zeros

COMPILED: bool = cython.compiled

PLAIN = 0
"""A Fixed scorer's values are scores already."""
NORMALIZED = 1
"""The greatest value becomes 100."""
REVERSED = 2
"""The greatest value becomes 0, and 0 becomes 100."""

_INT64_MAX = (1 << 63) - 1


@cython.final
@cython.cclass
class Constant:
    """The same for all nodes: it decides nothing, and is told to those who ask for scores."""

    name = cython.declare(str, visibility="readonly")
    weight = cython.declare(cython.longlong, visibility="readonly")
    score: cython.longlong

    def __init__(self, name: str, weight: int, score: int) -> None:
        self.name = name
        self.weight = weight
        self.score = score

    def fill(self, nodes: cython.int[::1], count: cython.Py_ssize_t, out: cython.longlong[::1]) -> None:
        """Scores of nodes[:count] into out[:count]."""
        k: cython.Py_ssize_t
        for k in range(count):
            out[k] = self.score


@cython.final
@cython.cclass
class Fixed:
    """Values that depend on the nodes' labels, taints and images only."""

    name = cython.declare(str, visibility="readonly")
    weight = cython.declare(cython.longlong, visibility="readonly")
    values: cython.longlong[::1]
    mode: cython.int

    def __init__(self, name: str, weight: int, values: array, mode: int) -> None:
        """`values`: an array('q') by slot, none negative; `mode`: PLAIN, NORMALIZED or REVERSED."""
        if lowest(values) < 0 or mode not in (PLAIN, NORMALIZED, REVERSED):
            raise ValueError("values cannot be negative")
        self.name = name
        self.weight = weight
        self.values = values
        self.mode = mode

    def fill(self, nodes: cython.int[::1], count: cython.Py_ssize_t, out: cython.longlong[::1]) -> None:
        """Scores of nodes[:count] into out[:count]."""
        k: cython.Py_ssize_t
        value: cython.longlong
        most: cython.longlong = 0
        if len(self.values) < len(nodes):
            raise ValueError("the columns have grown: the values must be made again")
        for k in range(count):
            value = self.values[nodes[k]]
            out[k] = value
            if value > most:
                most = value
        if self.mode == PLAIN:
            return
        for k in range(count):
            value = out[k] * 100 // most if most else 0
            out[k] = 100 - value if self.mode == REVERSED else value


@cython.final
@cython.cclass
class Affinity:
    """Preferred Pod affinity and anti-affinity, both ways: weighted tallies, stretched from 0 to 100."""

    name = cython.declare(str, visibility="readonly")
    weight = cython.declare(cython.longlong, visibility="readonly")
    parts: list

    def __init__(self, name: str, weight: int, parts: list) -> None:
        """`parts`: (Tally, factor) pairs; a factor below 0 is an aversion."""
        self.name = name
        self.weight = weight
        self.parts = list(parts)

    def fill(self, nodes: cython.int[::1], count: cython.Py_ssize_t, out: cython.longlong[::1]) -> None:
        """Scores of nodes[:count] into out[:count]."""
        k: cython.Py_ssize_t
        low: cython.longlong
        high: cython.longlong
        span: cython.double
        if count == 0:
            return
        for k in range(count):
            out[k] = 0
        for tally, factor in self.parts:
            self.add(tally.topology.domains, tally.sums, factor, nodes, count, out)
        low = high = out[0]
        for k in range(count):
            if out[k] < low:
                low = out[k]
            if out[k] > high:
                high = out[k]
        span = high - low
        for k in range(count):
            if high > low:
                out[k] = cython.cast(cython.longlong, 100.0 * ((out[k] - low) / span))
            else:
                out[k] = 0

    @cython.cfunc
    @cython.exceptval(check=True)
    def add(
        self,
        domains: cython.int[::1],
        sums: cython.longlong[::1],
        factor: cython.longlong,
        nodes: cython.int[::1],
        count: cython.Py_ssize_t,
        out: cython.longlong[::1],
    ) -> cython.void:
        k: cython.Py_ssize_t
        domain: cython.Py_ssize_t
        size: cython.Py_ssize_t = len(sums)
        for k in range(count):
            domain = domains[nodes[k]]
            if 0 <= domain < size:
                out[k] += factor * sums[domain]


@cython.final
@cython.cclass
class SpreadScore:
    """Soft topology spread constraints: domains with fewer matching Pods score higher.

    A constraint by host name counts the Pods of the node itself: its tally has the identity topology, and a topology of
    the label tells which nodes have it.
    """

    name = cython.declare(str, visibility="readonly")
    weight = cython.declare(cython.longlong, visibility="readonly")
    parts: list
    require_all: cython.bint
    marks: cython.longlong[::1]
    epoch: cython.longlong
    sums: cython.double[::1]

    def __init__(self, name: str, weight: int, parts: list, require_all: bool) -> None:
        """`parts`: (Tally, Topology of the label for a constraint by host name or None, max skew).

        `require_all`: nodes that lack any of the labels score 0.
        """
        self.name = name
        self.weight = weight
        self.parts = [(tally, tally.topology if hosts is None else hosts, hosts, skew) for tally, hosts, skew in parts]
        self.require_all = require_all
        self.marks = zeros("q", 1)
        self.epoch = 0
        self.sums = zeros("d", 1)

    def fill(self, nodes: cython.int[::1], count: cython.Py_ssize_t, out: cython.longlong[::1]) -> None:
        """Scores of nodes[:count] into out[:count]."""
        k: cython.Py_ssize_t
        scored: cython.longlong = 0
        size: cython.longlong
        if len(self.sums) < count:
            self.sums = zeros("d", len(nodes))
        for k in range(count):
            out[k] = 0
            self.sums[k] = 0.0
        if self.require_all:
            for _, labels, _, _ in self.parts:
                self.ignore(labels.domains, nodes, count, out)
        for k in range(count):
            if out[k] == 0:
                scored += 1
        for tally, labels, hosts, skew in self.parts:
            if hosts is not None:
                size = scored
            else:
                size = self.count_domains(labels.domains, labels.size, nodes, count, out)
            self.weigh(labels.domains, tally.topology.domains, tally.sums, skew - 1, log(size + 2), nodes, count, out)
        self.normalize(count, out)

    @cython.cfunc
    @cython.exceptval(check=True)
    def ignore(
        self, labels: cython.int[::1], nodes: cython.int[::1], count: cython.Py_ssize_t, out: cython.longlong[::1]
    ) -> cython.void:
        k: cython.Py_ssize_t
        for k in range(count):
            if labels[nodes[k]] < 0:
                out[k] = -1

    @cython.cfunc
    @cython.exceptval(check=True)
    def count_domains(
        self,
        labels: cython.int[::1],
        size: cython.Py_ssize_t,
        nodes: cython.int[::1],
        count: cython.Py_ssize_t,
        out: cython.longlong[::1],
    ) -> cython.longlong:
        """How many domains the candidates are in; lacking the label is a domain of its own."""
        k: cython.Py_ssize_t
        domain: cython.Py_ssize_t
        found: cython.longlong = 0
        lacking: cython.longlong = 0
        if len(self.marks) < size:
            self.marks = zeros("q", size)
        self.epoch += 1
        for k in range(count):
            if out[k] < 0:
                continue
            domain = labels[nodes[k]]
            if domain < 0:
                lacking = 1
            elif self.marks[domain] != self.epoch:
                self.marks[domain] = self.epoch
                found += 1
        return found + lacking

    @cython.cfunc
    @cython.exceptval(check=True)
    def weigh(
        self,
        labels: cython.int[::1],
        domains: cython.int[::1],
        sums: cython.longlong[::1],
        leeway: cython.double,
        weight: cython.double,
        nodes: cython.int[::1],
        count: cython.Py_ssize_t,
        out: cython.longlong[::1],
    ) -> cython.void:
        k: cython.Py_ssize_t
        node: cython.Py_ssize_t
        domain: cython.Py_ssize_t
        matching: cython.double
        for k in range(count):
            node = nodes[k]
            if out[k] < 0 or labels[node] < 0:
                continue
            domain = domains[node]
            matching = sums[domain] if domain < len(sums) else 0
            self.sums[k] += matching * weight + leeway

    @cython.cfunc
    @cython.exceptval(check=True)
    def normalize(self, count: cython.Py_ssize_t, out: cython.longlong[::1]) -> cython.void:
        k: cython.Py_ssize_t
        score: cython.longlong
        part: cython.double
        least: cython.longlong = _INT64_MAX
        most: cython.longlong = 0
        for k in range(count):
            if out[k] < 0:
                continue
            score = cython.cast(cython.longlong, self.sums[k])
            part = self.sums[k] - score
            if part >= 0.5:
                score += 1
            out[k] = score
            least = min(least, score)
            most = max(most, score)
        for k in range(count):
            if out[k] < 0:
                out[k] = 0
            elif most == 0:
                out[k] = 100
            else:
                out[k] = 100 * (most + least - out[k]) // most


RANK_SIZE = 5


@cython.final
@cython.cclass
class Ranking:
    """Which node preemption chooses: ranks of nodes, each known at a version of the node, and the least of them.

    A rank is RANK_SIZE numbers, compared one after the other; a node without candidates has none.
    """

    ranks: cython.longlong[::1]
    seen: cython.longlong[::1]
    ranked: cython.uchar[::1]
    capacity: cython.Py_ssize_t
    best = cython.declare(cython.Py_ssize_t, visibility="readonly")
    found = cython.declare(cython.Py_ssize_t, visibility="readonly")
    at: cython.Py_ssize_t
    start: cython.Py_ssize_t

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.ranks = zeros("q", capacity * RANK_SIZE)
        self.seen = zeros("q", capacity)
        self.ranked = zeros("B", capacity)
        self.begin(0)

    def begin(self, start: int) -> None:
        """A new round from a place of the order on."""
        self.best = -1
        self.found = 0
        self.at = 0
        self.start = start

    def put(self, slot: int, version: int, rank: tuple | None) -> None:
        """What was found out about a node, None for nothing that helps."""
        if not 0 <= slot < self.capacity:
            raise ValueError(f"no node {slot}")
        if rank is not None and len(rank) != RANK_SIZE:
            raise ValueError(f"a rank has {RANK_SIZE} numbers")
        self.seen[slot] = version
        self.ranked[slot] = rank is not None
        if rank is not None:
            self.write(slot * RANK_SIZE, rank)

    @cython.cfunc
    @cython.exceptval(check=True)
    def write(self, at: cython.Py_ssize_t, rank: tuple) -> cython.void:
        place: cython.Py_ssize_t
        for place in range(len(rank)):
            self.ranks[at + place] = rank[place]

    def advance(
        self, order: cython.int[::1], versions: cython.longlong[::1], hopeful: cython.uchar[::1], want: int
    ) -> int:
        """Go on until a node must be looked at (its slot is the answer), or the round is over (-1).

        Only nodes with a byte in `hopeful` are looked at; the round ends when `want` of them have a rank, and the first
        number of the best one is 0: as long as every choice would violate a budget, the search goes on.
        """
        slot: cython.Py_ssize_t
        count: cython.Py_ssize_t = len(order)
        limit: cython.Py_ssize_t = want
        place: cython.Py_ssize_t
        while self.at < count and (self.found < limit or self.best < 0 or self.ranks[self.best * RANK_SIZE] > 0):
            place = self.start + self.at
            if place >= count:
                place -= count
            slot = order[place]
            if hopeful[slot]:
                if self.seen[slot] != versions[slot]:
                    return slot
                if self.ranked[slot]:
                    self.found += 1
                    if self.best < 0 or self.less(slot, self.best):
                        self.best = slot
            self.at += 1
        return -1

    @cython.cfunc
    def less(self, one: cython.Py_ssize_t, other: cython.Py_ssize_t) -> cython.bint:
        size: cython.Py_ssize_t = RANK_SIZE
        mine: cython.longlong
        theirs: cython.longlong
        k: cython.Py_ssize_t
        for k in range(size):
            mine = self.ranks[one * size + k]
            theirs = self.ranks[other * size + k]
            if mine != theirs:
                return mine < theirs
        return False

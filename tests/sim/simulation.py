"""One seed's life of a cluster under load and faults, and everything that must hold in it.

Election Safety          one leader a term
Log Matching             what is committed at an index is one entry, everywhere and for ever
State Machine Safety     servers that applied the same index have the same revision, and in the end the same data
Linearizability          of the operations as clients saw them (linearizable.py), and of revisions in real time
Watches                  whoever watches, also from one server to the next, sees every revision once and in order
"""

from __future__ import annotations

import asyncio
import tempfile
import zlib
from pathlib import Path
from typing import Any

from linearizable import Operation, explain
from simloop import SimLoop, World
from simserver import SimNet, SimServer

from fastkube._raft import LEADER
from fastkube._raftconf import ADD_LEARNER, ADD_VOTER, REMOVE
from fastkube._raftlog import Entry
from fastkube.store import (
    ANY,
    TO_THE_END,
    Compacted,
    KeyMissing,
    RevisionMismatch,
    StoreError,
    StoreUnavailable,
    Write,
)
from fastkube.store.check import check
from fastkube.store.members import NOBODY, Member

KEYS = tuple(b"key-%d" % number for number in range(4))


class Violation(AssertionError):
    """Something that must hold did not."""


class Checker:
    """Sees everything; the first thing that cannot be is a Violation."""

    def __init__(self) -> None:
        self.net: SimNet
        self.leaders: dict[int, int] = {}
        self.committed: dict[int, tuple[int, int]] = {}
        self.revisions: dict[int, int] = {}
        self.events: dict[int, int] = {}
        self.values: dict[bytes, int] = {}
        self.newest_revision = 0
        self.history: list[Operation] = []
        self.answered: list[tuple[float, int]] = []

    def saw_committed(self, server: int, entries: list[Entry]) -> None:
        for entry in entries:
            told = (entry.term, zlib.crc32(entry.data))
            known = self.committed.setdefault(entry.index, told)
            if known != told:
                raise Violation(f"server {server} commits another entry {entry.index}: {told}, not {known}")

    def look(self) -> None:
        for server in self.net.servers.values():
            replica = server.replica
            if replica is None:
                continue
            raft = replica._raft
            if raft.role == LEADER and self.leaders.setdefault(raft.term, server.id) != server.id:
                raise Violation(f"{server.id} and {self.leaders[raft.term]} lead term {raft.term}")
            store = server.store
            if store is not None and not store._closed:
                known = self.revisions.setdefault(store.applied, store.revision)
                if known != store.revision:
                    raise Violation(f"at index {store.applied} {server.id} is at {store.revision}, others at {known}")

    def saw_event(self, revision: int, told: Any) -> None:
        digest = zlib.crc32(repr(told).encode())
        known = self.events.setdefault(revision, digest)
        if known != digest:
            raise Violation(f"two watchers see different changes at revision {revision}: {told}")
        if told[1] in KEYS and self.values.setdefault(told[2], revision) != revision:
            raise Violation(f"{told} was written twice, at revisions {self.values[told[2]]} and {revision}")

    def saw_write(self, invoked: float, returned: float, revision: int) -> None:
        self.answered.append((invoked, revision))
        for ended, earlier in self.returned[-200:]:
            if ended < invoked and earlier >= revision:
                raise Violation(f"a write got revision {revision} after one had got {earlier}")
        self.returned.append((returned, revision))

    returned: list[tuple[float, int]]

    def started(self, server: SimServer) -> None:
        pass

    def crashed(self, server: SimServer) -> None:
        pass


class Client:
    """Does one thing after the other, each at some server; what it saw goes into the history."""

    def __init__(self, life: Simulation, number: int) -> None:
        self.life = life
        self.number = number
        self.count = 0
        self.known: dict[bytes, tuple[bytes | None, int]] = {}

    def go(self) -> None:
        life = self.life
        if life.over:
            return
        server = life.random.choice(list(life.net.servers.values()))
        if server.store is None:
            life.world.later(0.05, self.go)
            return
        self.count += 1
        key = life.random.choice(KEYS)
        kind = life.random.choice(("read", "read", "put", "swap"))
        value = b"%d.%d" % (self.number, self.count)
        argument: Any = value if kind == "put" else None
        if kind == "swap":
            expected, revision = self.known.get(key, (None, 0))
            if not revision:
                kind, argument = "put", value
            else:
                argument = (expected, value)
        invoked = life.world.now
        loop = server.loop
        ended = False
        life.pending[self.number] = Operation(key, kind, argument, None, invoked, None)

        def end(operation: Operation | None) -> None:
            nonlocal ended
            if not ended:
                ended = True
                del life.pending[self.number]
                if operation is not None:
                    life.checker.history.append(operation)
                life.world.later(life.random.expovariate(1 / 0.02), self.go)

        def lost() -> None:
            """The server is gone, or takes too long: the client goes elsewhere."""
            if not ended and (loop.dead or life.world.now - invoked > 9):
                end(life.pending[self.number])
            elif not ended:
                life.world.later(0.2, lost)

        loop.call(self._do(server, key, kind, argument, invoked, end))
        life.world.later(0.2, lost)

    async def _do(self, server: SimServer, key: bytes, kind: str, argument: Any, invoked: float, end: Any) -> None:
        store, world = server.store, self.life.world
        if store is None:
            end(None)
            return
        try:
            if kind == "read":
                barrier = store.read_barrier()
                if barrier is not None:
                    await barrier
                item = store.get(key)
                self.known[key] = (item.value, item.mod_revision) if item else (None, 0)
                end(Operation(key, kind, None, item.value if item else None, invoked, world.now))
                return
            result: object = None
            if kind == "put":
                revision = (await store.write([Write(key, argument, ANY)]))[0]
                if isinstance(revision, StoreError):
                    raise revision
                self.life.checker.saw_write(invoked, world.now, revision)
                self.known[key] = (argument, revision)
            else:
                try:
                    revision = await store.update(key, argument[1], self.known[key][1])
                    self.life.checker.saw_write(invoked, world.now, revision)
                    self.known[key] = (argument[1], revision)
                except RevisionMismatch as other:
                    result = (other.item.value if other.item else None,)
            end(Operation(key, kind, argument, result, invoked, world.now))
        except (StoreUnavailable, KeyMissing):
            end(None if kind == "read" else Operation(key, kind, argument, None, invoked, None))


class Observer:
    """A watcher that goes from server to server, on from the revision it has seen."""

    def __init__(self, life: Simulation) -> None:
        self.life = life
        self.revision = 1
        self.seen = 0
        self._loop: SimLoop | None = None
        self._turn = 0

    def go(self) -> None:
        life = self.life
        servers = [one for one in life.net.servers.values() if one.store is not None]
        self._turn += 1
        if servers:
            server = life.random.choice(servers)
            server.loop.call(self._watch(server, self._turn))
        if not life.settled:
            life.world.later(life.random.uniform(0.3, 2.0), self.go)

    async def _watch(self, server: SimServer, turn: int) -> None:
        store = server.store
        if store is None or self.life.settled or store.revision < self.revision:
            return
        try:
            async for events in store.watch(b"", TO_THE_END, self.revision + 1):
                if turn != self._turn:
                    return  # it has moved on to another server
                for event in events:
                    if event.revision <= self.revision:
                        raise Violation(f"revision {event.revision} comes again, behind {self.revision}")
                    if event.revision != self.revision + 1:
                        raise Violation(f"revision {event.revision} follows {self.revision} in a watch")
                    self.life.checker.saw_event(event.revision, (event.type, event.key, event.value))
                    self.revision = event.revision
                    self.seen += 1
        except Compacted:
            self.revision = store.revision


class Simulation:
    """`run` is everything."""

    def __init__(self, seed: int, path: Path, duration_s: float = 12.0) -> None:
        self.seed = seed
        self.world = World(seed)
        self.random = self.world.random
        self.checker = Checker()
        self.checker.returned = []
        self.net = SimNet(self.world, path, self.random.choice((3, 3, 3, 5)), self.checker)
        self.checker.net = self.net
        self.duration_s = duration_s
        self.over = self.settled = False
        self._events = 0
        self.pending: dict[int, Operation] = {}
        self.observers = [Observer(self) for _ in range(2)]

    def run(self) -> None:
        world, net = self.world, self.net
        for server in net.servers.values():
            server.start()
        for number in range(self.random.randint(2, 5)):
            world.later(0.5, Client(self, number).go)
        for observer in self.observers:
            world.later(1.0, observer.go)
        if self.random.random() < 0.8:
            net.loss = self.random.choice((0, 0, 0.01, 0.05))
            net.double = self.random.choice((0, 0.02))
            net.delay_s = self.random.choice((0.0005, 0.002, 0.01))
        world.later(2.0, self._fault)
        self._run_until(world.now + self.duration_s)
        self._settle()

    def _run_until(self, end: float, until: Any = None) -> None:
        """Looks at everything after every few events of the world."""

        def look() -> bool:
            self._events += 1
            if self._events % 8:
                return until() if until is not None else False
            self.checker.look()
            for loop in self.world.loops:
                for context in loop.errors:
                    raise context.get("exception") or Violation(str(context))
            return until() if until is not None else False

        self.world.run_until(end, look)

    # ---------------------------------------------------------------- faults

    def _fault(self) -> None:
        if self.over:
            return
        faults = (
            self._crash,
            self._crash,
            self._cut,
            self._cut_one_way,
            self._crash_all,
            self._change,
            self._full,
            self._compact,
        )
        self.random.choice(faults)()
        self.world.later(self.random.uniform(0.2, 2.0), self._fault)

    def _pick(self) -> SimServer:
        return self.random.choice(list(self.net.servers.values()))

    def _crash(self) -> None:
        server = self._pick()
        if server.loop.dead:
            return
        server.crash(power=self.random.random() < 0.6)
        self.world.later(self.random.uniform(0.05, 2.0), server.start)

    def _crash_all(self) -> None:
        """The power fails everywhere."""
        for server in self.net.servers.values():
            if not server.loop.dead:
                server.crash(power=True)
                self.world.later(self.random.uniform(0.05, 0.5), server.start)

    def _cut(self) -> None:
        """Some are cut off from the others."""
        some = {one for one in self.net.servers if self.random.random() < 0.4}
        ways = {(one, two) for one in some for two in self.net.servers if two not in some}
        self._cut_ways(ways | {(two, one) for one, two in ways})

    def _cut_one_way(self) -> None:
        one, two = self._pick().id, self._pick().id
        self._cut_ways({(one, two)})

    def _cut_ways(self, ways: set[tuple[int, int]]) -> None:
        self.net.cut |= ways
        self.world.later(self.random.uniform(0.3, 3.0), lambda: self.net.cut.difference_update(ways))

    def _full(self) -> None:
        """A disk is full for a while: that of the log, or of the data, or both."""
        server = self._pick()
        server.folder.full = self.random.random() < 0.7
        server.data_full = not server.folder.full or self.random.random() < 0.5
        server.fills_late = server.data_full and self.random.random() < 0.5
        server.data_full &= not server.fills_late
        self.world.later(self.random.uniform(0.2, 3.0), server.empty_disks)

    def _compact(self) -> None:
        """History goes, which servers that are behind, and watchers, may still have needed."""
        server = self._pick()
        store = server.store
        if store is not None and store.revision > 20:
            server.loop.call(self._quietly(store.compact(store.revision - self.random.randint(0, 20))))

    def _change(self) -> None:
        """A member joins as a learner and becomes a voter, or one goes, or another is to lead."""
        server = self._pick()
        if server.store is None:
            return
        chance = self.random.random()
        if chance < 0.4:
            server.loop.call(self._quietly(server.replica.transfer(self._pick().id)))
        elif chance < 0.75 and len(self.net.servers) < 6:
            server.loop.call(self._quietly(self._join(server)))
        elif len(self.net.membership.conf.voters) > 3:
            member = self.net.membership.find(self._pick().id)
            if member is not None:
                server.loop.call(self._quietly(server.replica.change_member(REMOVE, member)))

    async def _quietly(self, work: Any) -> None:
        try:
            await work
        except (StoreError, TimeoutError):
            return

    async def _join(self, server: SimServer) -> None:
        number = max(self.net.servers) + 1
        member = Member(number, f"s{number}", (f"https://s{number}:1",))
        await server.replica.change_member(ADD_LEARNER, member)
        if number not in self.net.servers:
            joined = self.net.servers[number] = SimServer(self.net, number, None)
            joined.start()
        for _ in range(20):
            await asyncio.sleep(0.3)
            try:
                await server.replica.change_member(ADD_VOTER, member)
                return
            except StoreError:
                continue

    # ---------------------------------------------------------------- the end

    def _settle(self) -> None:
        """Nothing fails any more: everybody agrees, and clients are answered."""
        world, net = self.world, self.net
        self.over = True
        self._run_until(world.now + 2.0)
        net.cut.clear()
        net.loss = net.double = 0.0
        for server in net.servers.values():
            server.empty_disks()
        self._run_until(world.now + 3.0)
        newest = max((one for one in net.servers.values() if one.store is not None), key=_applied)
        members = {one.id for one in newest.replica.membership.members} & net.servers.keys()
        servers = [net.servers[one] for one in sorted(members)]
        done = []

        async def last(server: SimServer) -> None:
            assert server.store is not None
            done.append((await server.store.write([Write(b"last", b"%d" % server.id, ANY)]))[0])

        for server in servers:
            if server.store is None:
                raise Violation(f"server {server.id} did not start")
            server.loop.call(last(server))
        self._run_until(world.now + 9.0, lambda: len(done) == len(servers))
        if len(done) != len(servers):
            raise Violation(f"only {len(done)} of {len(servers)} servers take a write when all is well")
        self._run_until(world.now + 1.0)
        self.settled = True
        self._compare(servers)
        told = explain([*self.checker.history, *self.pending.values()])
        if told:
            raise Violation(told)
        self._close(servers)

    def _compare(self, servers: list[SimServer]) -> None:
        states = {}
        for server in servers:
            assert server.store is not None
            found = server.store.range(b"\x00", TO_THE_END)
            states[server.id] = (server.store.applied, found.revision, found.items)
        first = states[servers[0].id]
        for number, state in states.items():
            if state != first:
                raise Violation(f"{number} is at {state[:2]}, {servers[0].id} at {first[:2]}: {state[2]} {first[2]}")

    def _close(self, servers: list[SimServer]) -> None:
        closing = [server.loop.call(server.store.close()) for server in servers if server.store is not None]
        self._run_until(self.world.now + 5.0, lambda: all(task.done() for task in closing))
        for task in closing:
            task.result()
        for server in servers:
            report = check(server.path)
            if not report.ok:
                raise Violation(f"server {server.id}: {report.problems[:3]}")


def _applied(server: SimServer) -> int:
    assert server.store is not None
    return server.store.applied


def simulate(seed: int, duration_s: float = 12.0) -> Simulation:
    """Raises Violation, or whatever went wrong in a server."""
    folder = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="fastkube-sim-", dir=folder) as path:
        life = Simulation(seed, Path(path), duration_s)
        try:
            life.run()
        finally:
            for server in life.net.servers.values():
                if not server.loop.dead and server.store is not None and not server.store._closed:
                    server.engine.close()
        return life


assert NOBODY.conf.voters == ()

"""Random life of a cluster, checked against a model that is too simple to be wrong: one list of what was committed.

Messages are lost, doubled and reordered, ways cut, members crash with what they had not written, change and hand over
leadership. Members' clocks differ by no more than a tick in ten (rule R6's assumption). The model is told each thing
that is seen from outside, and raises AssertionError at the first that cannot be.
"""

from __future__ import annotations

import random
import zlib

from raftnet import Disk, Net, Node

from fastkube._raft import LEADER, ProposalDropped
from fastkube._raftconf import AUTO, IMPLICIT, ConfChange, ConfChangeRefused, Config
from fastkube._raftlog import ConfState, Entry, Message


class Model:
    """What was applied anywhere, and who led when."""

    def __init__(self) -> None:
        self.committed: dict[int, Entry] = {}
        self.leaders: dict[int, int] = {}
        self.reads: dict[bytes, int] = {}

    def saw_leader(self, node: Node) -> None:
        raft = node.raft
        if raft.role == LEADER:
            known = self.leaders.setdefault(raft.term, node.id)
            assert known == node.id, f"Election Safety: {known} and {node.id} lead term {raft.term}"

    def saw_applied(self, node: Node, entry: Entry) -> None:
        known = self.committed.setdefault(entry.index, entry)
        assert known == entry, f"State Machine Safety: {node.id} applies {entry}, another one {known}"

    def saw_log(self, node: Node) -> None:
        """Leader Completeness: an elected leader has all that was committed before it."""
        raft = node.raft
        if raft.role != LEADER or self.leaders.get(raft.term) == node.id:
            return
        for index, entry in self.committed.items():
            if index > raft.log.compacted:
                assert raft.log.term(index) == entry.term, f"Leader Completeness: {node.id} lacks {entry}"

    def reads_from(self, context: bytes) -> None:
        self.reads[context] = max(self.committed, default=0)

    def saw_read(self, context: bytes, index: int) -> None:
        assert index >= self.reads[context], f"a read at {index} does not see {self.reads[context]}"


class RandomNet:
    """`run` lets so much happen; `settle` heals all and expects a cluster that works."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.net = Net(range(1, self.random.choice((1, 2, 3, 3, 3, 4, 5)) + 1), seed=seed, max_inflight_messages=4)
        self.model = Model()
        self.flying: list[Message] = []
        self.lag: dict[int, int] = {}
        self.counter = 0
        self.digest = 0
        for node in self.net.nodes.values():
            node.on_apply = self.model.saw_applied

    def run(self, steps: int) -> None:
        choices = (self.tick, self.carry, self.carry, self.carry, self.work, self.work, self.work, self.propose)
        rare = (self.crash, self.cut, self.heal, self.heal, self.read, self.change, self.transfer, self.compact)
        for _ in range(steps):
            chosen = self.random.choice(rare if self.random.random() < 0.06 else choices)
            chosen()
            self.look()

    def look(self) -> None:
        for node in self.net.nodes.values():
            self.model.saw_log(node)
            self.model.saw_leader(node)
            for state in node.reads:
                self.model.saw_read(state.context, state.index)
            node.reads.clear()
            self.flying += node.outbox
            node.outbox.clear()
        told = tuple((node.raft.term, node.raft.role, node.raft.log.committed) for node in self.net.nodes.values())
        self.digest = zlib.crc32(repr((told, len(self.flying))).encode(), self.digest)

    def pick(self) -> Node:
        return self.random.choice(list(self.net.nodes.values()))

    # What may happen.

    def tick(self) -> None:
        """Time passes for all; some lag a tick behind, and never more than one."""
        if self.random.random() < 0.5:
            return
        for node in self.net.nodes.values():
            lag = self.lag.get(node.id, 0)
            self.lag[node.id] = int(lag == 0 and self.random.random() < 0.05)
            for _ in range(1 + lag - self.lag[node.id]):
                node.raft.tick()

    def carry(self) -> None:
        for _ in range(min(len(self.flying), 4)):
            place = self.random.randrange(len(self.flying)) if self.random.random() < 0.3 else 0
            chance = self.random.random()
            message = self.flying[place] if chance < 0.03 else self.flying.pop(place)
            node = self.net.nodes.get(message.to)
            if chance < 0.95 and node is not None and (message.sender, message.to) not in self.net.cut:
                node.raft.step(self.net.with_state(message))
                self.report(message, True)
            else:
                self.report(message, False)

    def report(self, message: Message, arrived: bool) -> None:
        """D7: whoever sends a snapshot learns whether it arrived."""
        if message.snapshot is not None:
            self.net.nodes[message.sender].raft.report_snapshot(message.to, arrived)

    def work(self) -> None:
        node = self.pick()
        chance = self.random.random()
        if chance < 0.5 and node.raft.has_ready():
            node.take()
        elif chance < 0.8 and node.writing:
            node.write()
        elif node.applying:
            node.apply()

    def propose(self) -> None:
        leader = self.net.leader()
        if leader is None:
            return
        self.counter += 1
        try:
            leader.raft.propose([b"%d" % (self.counter * 10 + each) for each in range(self.random.randint(1, 3))])
        except ProposalDropped:
            return

    def read(self) -> None:
        self.counter += 1
        context = b"read-%d" % self.counter
        self.model.reads_from(context)
        self.pick().raft.read_index(context)

    def crash(self) -> None:
        self.pick().start()

    def cut(self) -> None:
        first, second = self.pick().id, self.pick().id
        if self.random.random() < 0.5:
            self.net.isolate(first)
        else:
            self.net.cut.add((first, second))

    def heal(self) -> None:
        self.net.heal()

    def transfer(self) -> None:
        self.pick().raft.transfer(self.pick().id)

    def compact(self) -> None:
        node = self.pick()
        if node.disk.applied > node.disk.compacted[0] and not node.writing and node.raft.log.snapshot is None:
            node.compact(self.random.randint(node.disk.compacted[0] + 1, node.disk.applied))

    def change(self) -> None:
        leader = self.net.leader()
        if leader is None:
            return
        operations = []
        for _ in range(self.random.choice((1, 1, 1, 2, 3))):
            member = self.random.randint(1, 6)
            operations.append((self.random.choice("vvlr"), member))
        operations = list({member: (operation, member) for operation, member in operations}.values())
        try:
            new: Config = leader.raft.config.changed(ConfChange(tuple(operations), IMPLICIT))
            if len(new.voters) < 2:
                return
            for member in new.members() - self.net.nodes.keys():
                self.net.nodes[member] = Node(member, Disk(ConfState(())), member, max_inflight_messages=4)
                self.net.nodes[member].on_apply = self.model.saw_applied
            leader.raft.propose_change(ConfChange(tuple(operations), self.random.choice((AUTO, IMPLICIT))))
        except (ProposalDropped, ConfChangeRefused):
            return

    # And in the end.

    def settle(self) -> None:
        """With all ways open a leader is found, and what it then proposes arrives everywhere."""
        self.net.heal()
        self.look()
        for message in self.flying:
            self.report(message, False)
        for _ in range(6):
            self.net.tick(20)
            self.look()
            leader = self.net.leader()
            if leader is not None and leader.raft.transferee == 0 and not leader.raft.config.is_joint():
                try:
                    leader.raft.propose([b"last"])
                except ProposalDropped:
                    continue
                break
        self.net.tick(3)
        leader = self.net.leader()
        assert leader is not None, "no leader although nothing is in the way"
        assert leader.disk.state and leader.disk.state[-1][1] == b"last", "nothing gets committed"
        for member in leader.raft.config.members():
            node = self.net.nodes[member]
            assert node.disk.state == leader.disk.state, f"{member} and {leader.id} differ"

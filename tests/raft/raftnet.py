"""Members, a network and disks for tests of the state machine: each step of a driver is a call of its own.

A Node is a driver in small. `take` fetches a ready, `write` makes the oldest ready durable, `apply` applies the oldest
batch; so that a test decides in which order things happen. What a crash loses is what was not written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from fastkube import _raft, _raftconf, _raftlog
from fastkube._raft import Raft, Ready
from fastkube._raftlog import ConfState, Entry, HardState, Message, Snapshot


class Disk:
    """What a member has made durable."""

    def __init__(self, conf: ConfState) -> None:
        self.conf = conf
        founded = int(bool(conf.voters))  # from a snapshot at 1/1 (D8); one that joins has nothing
        self.compacted = (founded, founded)
        self.hard = HardState(founded, 0, founded)
        self.entries: list[Entry] = []
        self.state: list[tuple[int, bytes]] = []
        """The state machine: (index, data) of every normal entry that was applied."""
        self.applied = founded


class Node:
    def __init__(self, id: int, disk: Disk, seed: int = 1, **options: Any) -> None:
        self.id = id
        self.disk = disk
        self.options = {"seed": seed, **options}
        self.raft: Raft
        self.writing: deque[Ready] = deque()
        self.applying: deque[list[Entry]] = deque()
        self.outbox: list[Message] = []
        self.reads: list[Any] = []
        self.on_apply: Callable[[Node, Entry], None] = lambda node, entry: None
        self.start()

    def start(self) -> None:
        disk = self.disk
        self.raft = Raft(
            self.id,
            conf=disk.conf,
            hard_state=disk.hard,
            entries=disk.entries,
            compacted=disk.compacted[0],
            compacted_term=disk.compacted[1],
            applied=disk.applied,
            **self.options,
        )
        self.writing.clear()
        self.applying.clear()
        self.outbox.clear()
        self.reads.clear()

    def take(self) -> Ready:
        ready = self.raft.ready()
        self.outbox += ready.messages
        self.reads += ready.read_states
        self.writing.append(ready)
        if ready.committed:
            self.applying.append(ready.committed)
        return ready

    def write(self) -> Ready:
        """Rule D2. A snapshot's state is installed when what came before it is applied (D4)."""
        ready = self.writing.popleft()
        disk = self.disk
        if ready.snapshot is not None:
            while self.applying:
                self.apply()
            self._install(ready.snapshot)
        if ready.entries:
            keep = ready.entries[0].index - disk.compacted[0] - 1
            disk.entries[keep:] = ready.entries
        if ready.hard_state is not None:
            disk.hard = ready.hard_state
        self.outbox += ready.responses
        self.raft.advance(ready.number)
        return ready

    def _install(self, snapshot: Snapshot) -> None:
        disk = self.disk
        disk.compacted = (snapshot.index, snapshot.term)
        disk.entries = []
        disk.conf = snapshot.conf
        disk.applied = snapshot.index
        words = snapshot.data.split(b"\n") if snapshot.data else []
        disk.state = [(int(word.partition(b"=")[0]), word.partition(b"=")[2]) for word in words]

    def snapshot_data(self) -> bytes:
        return b"\n".join(b"%d=%s" % pair for pair in self.disk.state)

    def apply(self) -> list[Entry]:
        batch = self.applying.popleft()
        for entry in batch:
            if entry.kind == _raftlog.CONF_CHANGE:
                self.disk.conf = self.raft.apply_change(_raftconf.decode_change(entry.data))
            elif entry.data:
                self.disk.state.append((entry.index, entry.data))
            self.on_apply(self, entry)
        self.disk.applied = batch[-1].index
        self.raft.applied_to(batch[-1].index)
        return batch

    def compact(self, index: int) -> None:
        term = self.raft.log.term(index)
        self.raft.compact(index)
        del self.disk.entries[: index - self.disk.compacted[0]]
        self.disk.compacted = (index, term)

    def run(self) -> None:
        """Everything that there is to do, in the simplest order."""
        while self.raft.has_ready() or self.writing or self.applying:
            if self.raft.has_ready():
                self.take()
            while self.writing:
                self.write()
            while self.applying:
                self.apply()


class Net:
    """Nodes and the messages between them."""

    def __init__(self, ids: Iterable[int] = (), *, learners: Iterable[int] = (), seed: int = 1, **options: Any) -> None:
        self.nodes: dict[int, Node] = {}
        self.cut: set[tuple[int, int]] = set()
        """(from, to) of ways that lose everything."""
        voters, learners = tuple(ids), tuple(learners)
        conf = ConfState(voters, (), learners)
        for member in (*voters, *learners):
            self.nodes[member] = Node(member, Disk(conf), seed + member, **options)

    def isolate(self, member: int) -> None:
        for other in self.nodes:
            self.cut |= {(member, other), (other, member)}

    def heal(self) -> None:
        self.cut.clear()

    def deliver(self) -> int:
        """Every message that is on its way; how many arrived."""
        arrived = 0
        for node in list(self.nodes.values()):
            sent, node.outbox = node.outbox, []
            for message in sent:
                to = self.nodes.get(message.to)
                if to is None or (message.sender, message.to) in self.cut:
                    continue
                to.raft.step(self.with_state(message))
                arrived += 1
        return arrived

    def with_state(self, message: Message) -> Message:
        """D7: a snapshot gets its state when it is sent, and may be newer than asked for."""
        if message.snapshot is None or message.snapshot.data:
            return message
        sender = self.nodes[message.sender]
        applied = sender.disk.applied
        term = sender.raft.log.term(applied)
        snapshot = Snapshot(applied, term, sender.disk.conf, sender.snapshot_data())
        return message._replace(snapshot=snapshot)

    def settle(self) -> None:
        """Until there is nothing to do and nothing under way."""
        while True:
            for node in self.nodes.values():
                node.run()
            if not self.deliver() and not any(node.raft.has_ready() for node in self.nodes.values()):
                return

    def tick(self, count: int = 1) -> None:
        """Time passes for all, and is acted upon."""
        for _ in range(count):
            for node in self.nodes.values():
                node.raft.tick()
            self.settle()

    def elect(self, member: int) -> Raft:
        """Have `member` campaign, and win: nobody may be in a lease."""
        raft = self.nodes[member].raft
        raft.campaign()
        self.settle()
        assert raft.role == _raft.LEADER, f"{member} was not elected"
        return raft

    def leader(self) -> Node | None:
        leading = [node for node in self.nodes.values() if node.raft.role == _raft.LEADER]
        return max(leading, key=lambda node: node.raft.term, default=None)


# ---------------------------------------------------------------- words for transcripts


def told_entry(entry: Entry) -> str:
    kind = "" if entry.kind == _raftlog.NORMAL else "change "
    text = entry.data.decode().replace("\n", "|").rstrip("|")
    return f"{entry.term}/{entry.index} {kind}{text!r}" if text else f"{entry.term}/{entry.index} empty"


def told_message(message: Message) -> str:
    words = [f"{message.sender}->{message.to} {_raftlog.MESSAGE_NAMES[message.kind]} term={message.term}"]
    if message.log_term or message.index:
        words.append(f"at={message.log_term}/{message.index}")
    if message.kind in (_raftlog.APPEND, _raftlog.HEARTBEAT):
        words.append(f"commit={message.commit}")
    if message.round:
        words.append(f"round={message.round}")
    if message.reject:
        words.append(f"rejected hint={message.hint}" if message.kind == _raftlog.APPEND_RESPONSE else "rejected")
    if message.context:
        words.append(message.context.decode())
    if message.snapshot is not None:
        words.append(f"snapshot={message.snapshot.term}/{message.snapshot.index}")
    if message.entries:
        words.append("[" + ", ".join(map(told_entry, message.entries)) + "]")
    return " ".join(words)


def told_ready(ready: Ready) -> list[str]:
    lines = []
    if ready.soft is not None:
        lines.append(f"{_raft.ROLE_NAMES[ready.soft.role]}, leader {ready.soft.lead}")
    if ready.hard_state is not None:
        sync = "" if ready.must_sync else " (needs no sync)"
        lines.append("keep term={} vote={} commit={}".format(*ready.hard_state) + sync)
    if ready.snapshot is not None:
        lines.append(f"snapshot {ready.snapshot.term}/{ready.snapshot.index}")
    if ready.entries:
        lines.append("append " + ", ".join(map(told_entry, ready.entries)))
    if ready.committed:
        lines.append("apply " + ", ".join(map(told_entry, ready.committed)))
    lines += ["send " + told_message(message) for message in ready.messages]
    lines += ["then send " + told_message(message) for message in ready.responses]
    lines += [f"read {state.context.decode()} is current at {state.index}" for state in ready.read_states]
    return lines


def told_status(node: Node) -> list[str]:
    raft = node.raft
    log = raft.log
    lines = [
        f"{_raft.ROLE_NAMES[raft.role]} term={raft.term} vote={raft.vote} leader={raft.lead} "
        f"applied={log.applied} commit={log.committed} stable={log.stable} last={log.last_index()} {raft.config}"
    ]
    if raft.role == _raft.LEADER:
        lines += [f"{member}: {raft.progress[member]}" for member in sorted(raft.progress)]
    return lines

"""Transcripts: what is asked of some members, and everything that they then do, to be read and reviewed as text.

A file of testdata/ is a list of

    # why
    command arguments
    ----
    what came of it

One fresh network serves a file. `pytest tests/raft --rewrite` writes the outcomes anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from raftnet import Disk, Net, Node, told_entry, told_message, told_ready, told_status

from fastkube._raft import ProposalDropped
from fastkube._raftconf import AUTO, EXPLICIT, IMPLICIT, ConfChange, ConfChangeRefused
from fastkube._raftlog import ConfState

FOLDER = Path(__file__).parent / "testdata"
TRANSITIONS = {"auto": AUTO, "implicit": IMPLICIT, "explicit": EXPLICIT}


class Transcript:
    """The commands. Each returns its lines."""

    def __init__(self) -> None:
        self.net = Net()

    def run(self, line: str) -> str:
        command, *words = line.split()
        method = getattr(self, "do_" + command.replace("-", "_"))
        try:
            lines = method(*words)
        except (ProposalDropped, ConfChangeRefused) as refusal:
            lines = [f"{type(refusal).__name__}: {refusal}"]
        return "\n".join(lines or ["ok"])

    def _node(self, word: str) -> Node:
        return self.net.nodes[int(word)]

    def do_members(self, *words: str) -> list[str]:
        """members 1 2 3 [learner=4] [option=NUMBER]"""
        options = {name: value for name, _, value in (word.partition("=") for word in words) if value}
        learners = (int(options.pop("learner")),) if "learner" in options else ()
        voters = [int(word) for word in words if "=" not in word]
        self.net = Net(voters, learners=learners, **{name: int(value) for name, value in options.items()})
        return []

    def do_join(self, word: str) -> list[str]:
        """join 4: an empty member, which knows of nobody yet."""
        self.net.nodes[int(word)] = Node(int(word), Disk(ConfState(())), 1 + int(word))
        return []

    def do_campaign(self, word: str) -> list[str]:
        self._node(word).raft.campaign()
        return []

    def do_tick(self, word: str, count: str = "1") -> list[str]:
        for _ in range(int(count)):
            self._node(word).raft.tick()
        return []

    def do_tick_until_timeout(self, word: str) -> list[str]:
        raft = self._node(word).raft
        for _ in range(raft.election_timeout):
            raft.tick()
        return []

    def do_propose(self, word: str, *datas: str) -> list[str]:
        return [f"first index {self._node(word).raft.propose([data.encode() for data in datas])}"]

    def do_change(self, word: str, *words: str) -> list[str]:
        """change 1 v2 r3 [auto|implicit|explicit]"""
        transition = AUTO
        if words and words[-1] in TRANSITIONS:
            transition = TRANSITIONS[words[-1]]
            words = words[:-1]
        operations = tuple((each[0], int(each[1:])) for each in words)
        return [f"index {self._node(word).raft.propose_change(ConfChange(operations, transition))}"]

    def do_transfer(self, word: str, target: str) -> list[str]:
        return [] if self._node(word).raft.transfer(int(target)) else ["there is no leader"]

    def do_read(self, word: str, context: str) -> list[str]:
        return [] if self._node(word).raft.read_index(context.encode()) else ["there is no leader"]

    def do_unreachable(self, word: str, member: str) -> list[str]:
        self._node(word).raft.report_unreachable(int(member))
        return []

    def do_snapshot_sent(self, word: str, member: str, how: str) -> list[str]:
        self._node(word).raft.report_snapshot(int(member), how == "installed")
        return []

    def do_compact(self, word: str, index: str) -> list[str]:
        self._node(word).compact(int(index))
        return []

    def do_crash(self, word: str) -> list[str]:
        """And start again with what was durable."""
        self._node(word).start()
        return []

    def do_cut(self, *ways: str) -> list[str]:
        """cut 1->2 ...: that way loses everything."""
        for way in ways:
            sender, _, to = way.partition("->")
            self.net.cut.add((int(sender), int(to)))
        return []

    def do_isolate(self, word: str) -> list[str]:
        self.net.isolate(int(word))
        return []

    def do_heal(self) -> list[str]:
        self.net.heal()
        return []

    def do_ready(self, word: str) -> list[str]:
        node = self._node(word)
        return told_ready(node.take()) if node.raft.has_ready() else ["nothing"]

    def do_write(self, word: str) -> list[str]:
        return [f"ready {self._node(word).write().number} is durable"]

    def do_apply(self, word: str) -> list[str]:
        return ["applied " + ", ".join(map(told_entry, self._node(word).apply()))]

    def do_deliver(self, *words: str) -> list[str]:
        """deliver [from]: what is under way."""
        senders = [self._node(word) for word in words] or list(self.net.nodes.values())
        lines = []
        for node in senders:
            sent, node.outbox = node.outbox, []
            for message in sent:
                lost = (message.sender, message.to) in self.net.cut or message.to not in self.net.nodes
                lines.append(told_message(message) + (" LOST" if lost else ""))
                if not lost:
                    self.net.nodes[message.to].raft.step(self.net.with_state(message))
        return lines

    def do_settle(self) -> list[str]:
        """Everything that follows, told."""
        lines: list[str] = []
        while True:
            before = len(lines)
            for node in self.net.nodes.values():
                while node.raft.has_ready() or node.writing or node.applying:
                    if node.raft.has_ready():
                        lines += [f"{node.id}: {line}" for line in told_ready(node.take())]
                    while node.writing:
                        node.write()
                    while node.applying:
                        node.apply()
            lines += [line for line in self.do_deliver() if line.endswith(" LOST")]
            if len(lines) == before and not any(node.raft.has_ready() for node in self.net.nodes.values()):
                return lines

    def do_quietly(self, command: str, *words: str) -> list[str]:
        self.run(" ".join((command, *words)))
        return []

    def do_status(self, *words: str) -> list[str]:
        nodes = [self._node(word) for word in words] or list(self.net.nodes.values())
        return [f"{node.id}: {line}" for node in nodes for line in told_status(node)]

    def do_log(self, word: str) -> list[str]:
        log = self._node(word).raft.log
        entries = log.slice(log.first_index(), log.last_index() + 1, 1 << 60)
        return [f"compacted {log.term(log.compacted)}/{log.compacted}"] * bool(log.compacted) + [
            told_entry(entry) for entry in entries
        ]


def replay(text: str) -> str:
    """The same transcript with the outcomes as they are now."""
    transcript = Transcript()
    out = []
    for block in text.split("\n\n"):
        head = block.partition("\n----")[0].strip("\n")
        lines = head.split("\n")
        if lines[-1].startswith("#"):
            out.append(head)
            continue
        out.append(f"{head}\n----\n{transcript.run(lines[-1])}")
    return "\n\n".join(out) + "\n"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_transcript(path: Path, request: pytest.FixtureRequest) -> None:
    written = path.read_text()
    now = replay(written)
    if request.config.getoption("--rewrite"):
        path.write_text(now)
    else:
        assert now == written

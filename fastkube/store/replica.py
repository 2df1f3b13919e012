"""The seam where consensus stands, between what clients propose and what the store applies.

    Store._submit → Replica.propose → (consensus) → committed(proposals, in log order) → committer → command.apply

The contract of a Replica:
 1. It hands over every command exactly once, in the order of the log, with its index, to `committed`.
 2. A proposal of this server comes back as the same object, so that its waiting future is found; commands of other
    servers come with no future. What it will never hand over, it fails: the future gets a StoreUnavailable.
 3. It does not look into commands, and the store does not know how many servers agreed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from fastkube.store.command import Command


class Waiter(Protocol):
    """Who is told what became of a write, in the turn of the loop in which it is known: a future, or what answers.

    None of its methods raises; it is told once, and not at all once it is `done`.
    """

    def done(self) -> bool: ...

    def set_result(self, result: Any, /) -> None: ...

    def set_exception(self, failure: Exception, /) -> None: ...


class Proposal:
    """Commands on their way: one, or with `many` several independent ones of one caller.

    `future` (or another Waiter), if someone here waits, gets the result; of many: the list of results. `size` is that
    of the values, `index` the place in the log.
    """

    __slots__ = ("commands", "future", "index", "many", "size")

    def __init__(self, commands: tuple[Command, ...], future: Waiter | None, size: int = 0, many: bool = False) -> None:
        self.commands = commands
        self.many = many
        self.future = future
        self.size = size
        self.index = 0


Committed = Callable[[list[Proposal]], None]


class Replica(Protocol):
    """Runs on the event loop; neither method blocks."""

    def propose(self, proposals: list[Proposal]) -> None:
        """Have these agreed on, in this order."""

    def applied(self, index: int) -> None:
        """The store has applied everything up to this index, and reads see it."""

    def barrier(self) -> Awaitable[None] | None:
        """What a read waits for, to see everything that was acknowledged by any server; None: nothing."""

    def close(self) -> None:
        """Fail what is not agreed on yet, and stop."""


class SingleReplica:
    """One server is its own majority: what is proposed is committed at once."""

    def __init__(self, applied: int, committed: Committed) -> None:
        self._index = applied
        self._committed = committed

    def propose(self, proposals: list[Proposal]) -> None:
        for proposal in proposals:
            self._index += 1
            proposal.index = self._index
        self._committed(proposals)

    def applied(self, index: int) -> None:
        """Nobody waits for it."""

    def barrier(self) -> None:
        """What is acknowledged was acknowledged here."""
        return

    def close(self) -> None:
        """Nothing is ever waiting here."""

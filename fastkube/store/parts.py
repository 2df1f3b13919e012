"""What a replica is made of, and what it is to the store: the seams that a simulation, or another transport, fills."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fastkube._raftlog import Message
from fastkube.store.checkpoint import Checkpoints
from fastkube.store.disk import Appender
from fastkube.store.errors import StoreUnavailable
from fastkube.store.log import RaftLog
from fastkube.store.members import Membership
from fastkube.store.replica import Proposal
from fastkube.store.work import Work

# Frames between members.
MESSAGES = 1
FORWARD = 2
CALL = 3
ANSWER = 4

REQUEST_TIMEOUT_S = 7.0
"""etcd's: five seconds and two election timeouts."""


class Timing(NamedTuple):
    """etcd's two settings. An election takes from one to two timeouts."""

    heartbeat_s: float = 0.06
    election_s: float = 0.6

    @property
    def election_ticks(self) -> int:
        return max(2, round(self.election_s / self.heartbeat_s))


class Host(Protocol):
    """The store, as its replica sees it."""

    applied: int

    def on_committed(self, proposals: list[Proposal]) -> None: ...

    def on_dropped(self, proposals: list[Proposal], error: StoreUnavailable) -> None:
        """They will never be handed over."""

    def on_lead(self, leads: bool) -> None: ...

    async def begin_install(self) -> None:
        """Nothing is applied from here to `end_install` or `abort_install`."""

    def make_room(self, size: int) -> None:
        """For a copy of `size` bytes beside the data that are there. Raises OSError and lmdb.Error."""

    def load(self, path: Path, index: int, term: int) -> None:
        """In any thread: all data become a snapshot's, in one transaction. Raises lmdb.Error, CorruptStore."""

    def end_install(self, index: int) -> bytes:
        """See it; the membership in it."""

    def abort_install(self) -> None:
        """Go on with what is there: the member ends, or has failed."""


class Transport(Protocol):
    """To other members. Nothing blocks; what cannot be sent is lost."""

    def send(self, to: int, kind: int, body: Any) -> None: ...

    def know(self, membership: Membership) -> None:
        """Who there is to talk to."""

    async def send_snapshot(self, to: int, path: Path, message: Message) -> bool:
        """True when the other side has all of it."""

    def close(self) -> None: ...


Copy = Callable[[Path], Awaitable[tuple[Path, int, bytes]]]
"""Makes a copy of the running store in a folder: (file, applied index, membership)."""


class MemberStatus(NamedTuple):
    id: int
    name: str
    role: str
    leader: int
    term: int
    commit: int
    applied: int
    membership: Membership
    health: str


class Parts(NamedTuple):
    """What a replica is made of; the simulation has its own."""

    log: RaftLog
    checkpoints: Checkpoints
    transport: Transport
    appender: Appender
    checkpoint_work: Work
    copy: Copy
    folder: Path


def wake(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


def fail_all(futures: list[asyncio.Future[Any]], error: StoreUnavailable) -> None:
    """Each gets an exception of its own: one carries the traceback of its raiser."""
    for future in futures:
        if not future.done():
            future.set_exception(type(error)(*error.args))

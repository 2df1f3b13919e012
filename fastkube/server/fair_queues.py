"""Priority levels: seats, borrowing, and the queues in which requests of different flows wait fairly.

Source: "API Priority and Fairness" of the Kubernetes documentation and its design (KEP-1040, KEP-3668).
Theory of operation:
  1. The seats of the server are divided among the levels in proportion to their shares: `nominal`.
  2. A level may always use its nominal seats. Beyond those it borrows, up to `most`, what other levels may lend: their
     seats above `kept` which they do not use or wait for themselves.
  3. A request that gets no seat is refused (limitResponse Reject) or queued. Its flow is dealt a hand of queues
     (shuffle sharding) and it joins the shortest of them: a flow which floods its own hand leaves others a free queue.
  4. Free seats go to the queue that has been served least: each has a virtual time that moves on by how long its
     requests ran.
  5. Whoever waits longer than the time for waiting, or finds its queue full, is refused with 429.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from typing import NamedTuple

_MEAN_WEIGHT = 0.05
_FIRST_ESTIMATE_S = 0.005
_CHARGE_MIN_S = 0.0005
"""What a request is counted for at least: also those that take no time have their turns."""


class TooManyRequests(Exception):
    """There is no seat for the request, nor a place to wait in."""


class Shape(NamedTuple):
    """What a PriorityLevelConfiguration says. `queues` 0 refuses rather than queues; `borrowing` None is no limit."""

    shares: int
    lendable_percent: int = 0
    borrowing_percent: int | None = None
    queues: int = 0
    hand_size: int = 1
    queue_length: int = 0


class Queue:
    """What waits at a level, in its order: whose turn each future is."""

    __slots__ = ("executing", "virtual_s", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[asyncio.Future[None], object] = {}
        self.executing = 0
        self.virtual_s = 0.0


class Ticket:
    """The seat of a request that had waited for it."""

    __slots__ = ("_estimate_s", "_level", "_queue", "started")

    def __init__(self, level: Level, queue: Queue, started: float, estimate_s: float) -> None:
        self._level, self._queue, self.started, self._estimate_s = level, queue, started, estimate_s

    @property
    def index(self) -> int:
        """Which of the level's queues it had waited in."""
        return self._level.queues.index(self._queue)

    def release(self) -> None:
        ran_s = max(asyncio.get_running_loop().time() - self.started, _CHARGE_MIN_S)
        self._queue.executing -= 1
        self._queue.virtual_s += ran_s - self._estimate_s
        self._level.estimate_s += _MEAN_WEIGHT * (ran_s - self._level.estimate_s)
        self._level.release()


class Level:
    """One priority level with its seats; made and shaped by `Levels`."""

    def __init__(self, name: str, pool: Levels) -> None:
        self.name = name
        self.nominal = 0
        self.kept = 0
        self.most = 0
        self.executing = 0
        self.waiting = 0
        self.dispatched = 0
        self.rejected = 0
        self.timed_out = 0
        self.cancelled = 0
        self.estimate_s = _FIRST_ESTIMATE_S
        self._pool = pool
        self._shape = Shape(0)
        self.queues: list[Queue] = []
        self._virtual_s = 0.0

    def shape(self, shape: Shape, seats: int, shares: int) -> None:
        """Takes over a configuration. Queues beyond the new number stay until they are empty, but get nothing new."""
        self._shape = shape
        self.nominal = math.ceil(seats * shape.shares / shares) if shares else 0
        self.kept = self.nominal - round(self.nominal * shape.lendable_percent / 100)
        self.most = seats
        if shape.borrowing_percent is not None:
            self.most = min(seats, self.nominal + round(self.nominal * shape.borrowing_percent / 100))
        self.queues += [Queue() for _ in range(shape.queues - len(self.queues))]

    @property
    def refused(self) -> int:
        return self.rejected + self.timed_out

    # ---------------------------------------------------------------- seats

    def try_take(self) -> bool:
        """A seat at once, if there is one and nobody waits for it."""
        if self.waiting or not (self.executing < self.nominal or self._may_borrow()):
            return False
        self.executing += 1
        self.dispatched += 1
        return True

    def _may_borrow(self) -> bool:
        return self.executing < self.most and self._pool.spare(self) > 0

    def release(self) -> None:
        self.executing -= 1
        if self._pool.waiting:
            self._pool.dispatch(self)

    # ---------------------------------------------------------------- waiting

    async def take(self, flow: int, timeout_s: float, who: object = None) -> Ticket:
        """A seat for `who` as soon as it is this flow's turn; raises TooManyRequests."""
        queue = self._deal(flow)
        if queue is None or len(queue.waiting) >= self._shape.queue_length:
            self.rejected += 1
            raise TooManyRequests
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        if not queue.waiting:
            queue.virtual_s = max(queue.virtual_s, self._virtual_s)
        queue.waiting[turn] = who
        self._count(1)
        try:
            async with asyncio.timeout(timeout_s):
                await turn
        except BaseException as ended:
            if turn.done() and not turn.cancelled():
                queue.executing -= 1
                self.release()  # the seat came and the request went
            elif turn in queue.waiting:
                del queue.waiting[turn]
                self._count(-1)
            if isinstance(ended, TimeoutError):
                self.timed_out += 1
                raise TooManyRequests from None
            self.cancelled += 1
            raise
        return Ticket(self, queue, loop.time(), self.estimate_s)

    def _deal(self, flow: int) -> Queue | None:
        """The shortest queue of the flow's hand; the same flow always has the same hand."""
        number = self._shape.queues
        best: Queue | None = None
        hand: list[int] = []
        for dealt in range(min(self._shape.hand_size, number)):
            flow, card = divmod(flow, number - dealt)
            for taken in sorted(hand):  # the card counts among those that are left
                card += card >= taken
            hand.append(card)
            queue = self.queues[card]
            if best is None or len(queue.waiting) < len(best.waiting):
                best = queue
        return best

    def _count(self, change: int) -> None:
        self.waiting += change
        self._pool.waiting += change

    def dispatch(self) -> None:
        """Gives the seats that are free to those who wait, the least served queue first."""
        while self.waiting and (self.executing < self.nominal or self._may_borrow()):
            queue = min((one for one in self.queues if one.waiting), key=lambda one: one.virtual_s)
            turn = next(iter(queue.waiting))
            del queue.waiting[turn]
            self._count(-1)
            if turn.done():  # cancelled: its request has ended
                continue
            self._virtual_s = queue.virtual_s
            queue.virtual_s += self.estimate_s
            self.executing += 1
            self.dispatched += 1
            queue.executing += 1
            turn.set_result(None)


class Levels:
    """All priority levels that share the seats of the server."""

    def __init__(self, seats: int) -> None:
        self.seats = seats
        self.waiting = 0
        self._levels: dict[str, Level] = {}

    def configure(self, shapes: dict[str, Shape]) -> None:
        """Makes, reshapes and forgets levels; requests of forgotten ones are served to their end."""
        shares = sum(shape.shares for shape in shapes.values())
        self._levels = {name: self._levels.get(name) or Level(name, self) for name in shapes}
        for name, shape in shapes.items():
            self._levels[name].shape(shape, self.seats, shares)

    def get(self, name: str) -> Level | None:
        return self._levels.get(name)

    def all(self) -> Iterable[Level]:
        return self._levels.values()

    @property
    def executing(self) -> int:
        return sum(level.executing for level in self._levels.values())

    def spare(self, borrower: Level) -> int:
        """How many seats the other levels can lend now, beyond those that are lent already."""
        lendable = lent = 0
        for level in self._levels.values():
            lent += max(0, level.executing - level.nominal)
            if level is not borrower:
                lendable += max(0, level.nominal - max(level.executing + level.waiting, level.kept))
        return lendable - lent

    def dispatch(self, first: Level) -> None:
        """A seat has become free: for its own level, or for one that borrows."""
        first.dispatch()
        if self.waiting:
            for level in self._levels.values():
                level.dispatch()

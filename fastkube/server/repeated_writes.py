"""Writes of batches that repeat: what a write means and whether its sender may is the same for the next one with the
same path but for the name, and a body that is like one before is all that is left of it, as for lone requests
(repeated_creates.py, repeated_changes.py). Those of one batch are one write of the store.

    target, format ─▶ WritePlan ─ name, body ─▶ key, value, condition ─ store, with all others ─▶ results

The first goes the whole way through the stages and leaves a plan. Whatever is not exactly as it was goes the whole way:
what nothing foretells, what warns, what another writer overtakes, what the store refuses.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack

from fastkube.registry import binding
from fastkube.registry.changes import is_label
from fastkube.registry.creations import Draft
from fastkube.server.media import MSGPACK
from fastkube.server.plans import Rules, keep
from fastkube.server.repeated_changes import OPTIONS, split
from fastkube.store import ABSENT, StoreError, Write

if TYPE_CHECKING:
    from fastkube.registry.changes import Change
    from fastkube.registry.plans import Key
    from fastkube.registry.registry import Registry
    from fastkube.registry.strategy import Call
    from fastkube.server.app import ApiServer
    from fastkube.server.forms import View
    from fastkube.server.metrics import Series
    from fastkube.server.repeated_changes import Target
    from fastkube.server.request import Request

_LESSONS = 3
"""One like others is remembered, the next leaves a plan, and one more shows that it is right (registry/plans.py)."""
_SENDERS_MAX = 256

Result = tuple[int, bytes, list[str]]

_Sender = tuple[str, tuple[str, ...], str, str]
_Plans = dict[tuple["Target", str], "WritePlan | None"]
"""None for writes of which nothing can be told before."""


class WritePlan(Rules):
    """All that is known of a write before its name and body."""

    __slots__ = ("call", "encode", "expires", "make", "media", "series")

    call: Call
    """That of the request which left the plan; only its time and name are changed."""
    media: str
    """The body's format."""
    make: Maker
    encode: Callable[[bytes, int], bytes]
    """Makes the answer of what is stored."""
    series: Series
    expires: bool
    """Whether such objects vanish by themselves."""


class Unknown(NamedTuple):
    """A write that is like others of which too few have been seen."""

    unknown: Key


class Made(NamedTuple):
    """What a write comes to. `expected` is the store's; `is_nothing`: the object stays as it is at that revision."""

    code: int
    key: bytes
    value: bytes
    expected: int
    is_nothing: bool = False


Maker = Callable[["Registry", WritePlan, bytes], Made | Unknown | None]
"""What a body with such a plan comes to; None for one that is like no other."""

Verdict = int
TAKEN, GOES, WAITS = range(3)
"""It is done, or will be with the others; it has to go the whole way; it is to come again in the next round."""


class WritePlans:
    """The plans of one server, by who sends the batches."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._of: dict[_Sender, _Plans] = {}
        self._turns = asyncio.Lock()

    def begin(self, request: Request) -> RepeatedWrites:
        """For the writes of one batch."""
        return RepeatedWrites(self._server, self._plans_of(request), self._turns)

    def learn(self, request: Request, call: Call, view: View) -> None:
        """Makes a plan of a write of a batch that succeeded, if it can be repeated."""
        if self._server.auditor is not None:
            return
        target, name = split(request.method, request.head.path)
        key, plans = (target, request.headers["Content-Type"]), self._plans_of(request)
        known = plans.get(key)
        if known is None or not known.stand(self._server):
            keep(plans, key, self._plan_of(request, call, view, name))

    def _plans_of(self, request: Request) -> _Plans:
        user = request.user
        sender = user.name, user.groups, user.uid, request.headers.get("User-Agent", "")
        if len(self._of) >= _SENDERS_MAX and sender not in self._of:
            self._of.clear()
        return self._of.setdefault(sender, {})

    def _plan_of(self, request: Request, call: Call, view: View, name: str) -> WritePlan | None:
        """None for a write of which more depends than the name in its path and its body."""
        server, info = self._server, request.info
        make = _MAKERS.get((info.verb, call.subresource))
        if make is None or info.parts != 1 + bool(info.name) + bool(call.subresource) or name != info.name:
            return None
        if request.query.keys() - OPTIONS or request.warnings or view.asks:
            return None
        if view.form.media is not MSGPACK:  # no write of a batch: its client has gone
            return None
        if not server.registry.foretells(call) or not server.authorizer.allows_all(request.user, info):
            return None
        plan = WritePlan()
        plan.call, plan.make, plan.media = call, make, request.headers["Content-Type"]
        plan.encode = _success(view) if make is _bind else view.encoder or view.one
        plan.series = server.metrics.series(info)
        plan.expires = call.subresource != "binding" and server.registry.strategy(call.rtype).expires
        plan.note(server)
        return plan


class RepeatedWrites:
    """Those of one batch, in rounds: `take` each, `write` them all, and let the others go their way; what was waiting
    for something to be learned from these comes again."""

    def __init__(self, server: ApiServer, plans: _Plans, turns: asyncio.Lock) -> None:
        self._server = server
        self._plans = plans
        self._turns = turns
        self._started = server.now()
        self._time = server.clock.time()
        self._valid: set[WritePlan] = set()
        self._taken: list[tuple[int, bool, WritePlan, Made]] = []
        self._lessons: dict[Any, int] = {}
        """How many have gone the whole way in this round of those that leave the same plan."""
        self._over: set[Any] = set()
        """Of which enough went in an earlier round."""

    def take(self, at: int, write: Any, results: list[Result | None]) -> Verdict:
        """What becomes of the write at this place of the batch."""
        method, target, media, body, brief = write
        collection, name = split(method, target)
        key = (collection, media)
        plan = self._plans.get(key)
        if plan is None and key in self._plans:
            return GOES
        if plan is None or not self._holds(plan):
            return self._teaches(key, 1)
        if name and not is_label(name):
            return GOES
        call = plan.call
        call.now, call.name, call.warnings = self._time, name, []
        made = plan.make(self._server.registry, plan, body)
        if not isinstance(made, Made):
            return GOES if made is None else self._teaches(made.unknown, _LESSONS)
        if call.warnings:
            return GOES
        if made.is_nothing:
            results[at] = self._result(brief, plan, made, made.expected)
        else:
            self._taken.append((at, brief, plan, made))
        return TAKEN

    def _teaches(self, unknown: Any, lessons: int) -> Verdict:
        """Of those that would leave the same plan a few go the whole way, and the others wait for it."""
        gone = self._lessons.get(unknown, 0)
        if unknown in self._over:
            return GOES
        if gone == lessons:
            return WAITS
        self._lessons[unknown] = gone + 1
        return GOES

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A turn of the loop in which no other large batch has its own."""
        async with self._turns:
            self._valid.clear()  # what plans rest on may have changed
            yield
            await asyncio.sleep(0)

    def end_round(self) -> None:
        """Whatever those that went have taught is known."""
        self._over.update(self._lessons)
        self._lessons.clear()

    async def write(self, results: list[Result | None]) -> list[int]:
        """Puts the results in their places; returns those of the writes that have to go the whole way."""
        taken, self._taken, writes = self._taken, [], []
        if not taken:
            return []
        try:
            for _, _, plan, (_, key, value, expected, _) in taken:
                lease = await self._server.registry.lease(True) if plan.expires else 0
                writes.append(Write(key, value, expected, lease))
            outcomes = await self._server.store.write(writes)
        except StoreError:
            return [at for at, *_ in taken]
        overtaken = []
        for (at, brief, plan, made), outcome in zip(taken, outcomes, strict=True):
            if isinstance(outcome, int):
                results[at] = self._result(brief, plan, made, outcome)
            else:
                overtaken.append(at)
        return overtaken

    def _result(self, brief: bool, plan: WritePlan, made: Made, revision: int) -> Result:
        plan.series.count(made.code, self._server.now() - self._started)
        return made.code, b"" if brief else plan.encode(made.value, revision), []

    def _holds(self, plan: WritePlan) -> bool:
        """Whether all that a plan rests on is as it was, which in one turn of the loop nothing changes."""
        if plan in self._valid:
            return True
        if not plan.stand(self._server):
            return False
        self._valid.add(plan)
        return True


def _success(view: View) -> Callable[[bytes, int], bytes]:
    """An action answers the same whatever it is done to."""
    answer = view.one(msgpack.packb(binding.SUCCESS), 0)
    return lambda _, __: answer


# ---------------------------------------------------------------- what writes come to


def _create(registry: Registry, plan: WritePlan, body: bytes) -> Made | Unknown | None:
    new = registry.recast(plan.call, plan.media, body)
    if isinstance(new, Draft):
        return Unknown(new.key)
    return None if new is None else Made(201, new.key, new.value, ABSENT)


def _change(registry: Registry, plan: WritePlan, body: bytes) -> Made | Unknown | None:
    change = registry.change(plan.call, plan.media, body)
    return None if change is None else _changed(registry, plan.call, change, 200)


def _patch(registry: Registry, plan: WritePlan, body: bytes) -> Made | Unknown | None:
    """An apply may make a new object."""
    call = plan.call
    change = registry.change(call, plan.media, body)
    if change is None:
        return None
    made = _changed(registry, call, change, 200)
    if made is not None or not change.is_of_nothing:
        return made
    new = _create(registry, plan, body)
    return new if isinstance(new, Unknown) or (new and new.key == call.rtype.key(call.namespace, call.name)) else None


def _bind(registry: Registry, plan: WritePlan, body: bytes) -> Made | Unknown | None:
    change = binding.change_of(registry, plan.call, plan.media, body)
    return None if change is None else _changed(registry, plan.call, change, 201)


def _changed(registry: Registry, call: Call, change: Change, code: int) -> Made | Unknown | None:
    key = call.rtype.key(call.namespace, call.name)
    item = registry.store.get(key)
    if item is None:
        change.is_of_nothing = True
        return None
    value = change.foretell(item)
    if value is None:
        return None if change.unknown is None else Unknown(change.unknown)
    return None if registry.store.is_stale(key) else Made(code, key, value, item.mod_revision, value == item.value)


_MAKERS: dict[tuple[str, str], Maker] = {
    ("create", ""): _create,
    ("create", "binding"): _bind,
    ("update", ""): _change,
    ("update", "status"): _change,
    ("patch", ""): _patch,
    ("patch", "status"): _patch,
}
"""By verb and subresource."""

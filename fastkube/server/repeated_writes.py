"""Writes of batches that repeat: what a write means and whether its sender may is the same for the next one with the
same path but for the name, and a body that is like one before is all that is left of it, as for lone requests
(repeated_creates.py, repeated_changes.py). Those of one batch are one write of the store.

    target, format ─▶ WritePlan ─ name, body ─▶ key, value, condition ─ store, with all others ─▶ results

The first goes the whole way through the stages and leaves a plan. Whatever is not exactly as it was goes the whole way:
what nothing foretells, what warns, what another writer overtakes, what the store refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack

from fastkube.registry import binding
from fastkube.registry.changes import is_label
from fastkube.server.media import MSGPACK
from fastkube.server.repeated_changes import OPTIONS, split
from fastkube.store import ABSENT, StoreError, Write

if TYPE_CHECKING:
    from fastkube.registry.changes import Change
    from fastkube.registry.registry import Registry
    from fastkube.registry.strategy import Call, UserInfo
    from fastkube.server.app import ApiServer
    from fastkube.server.forms import View
    from fastkube.server.metrics import Series
    from fastkube.server.repeated_changes import Target
    from fastkube.server.request import Request

_PLANS_MAX = 1024
_SENDERS_MAX = 256

Result = tuple[int, bytes, list[str]]

_Sender = tuple[str, tuple[str, ...], str, str]
_Plans = dict[tuple["Target", str], "WritePlan"]


class WritePlan:
    """All that is known of a write before its name and body."""

    __slots__ = ("call", "catalog", "encode", "make", "media", "remotes", "rules", "series", "ttl_s")

    call: Call
    """That of the request which left the plan; only its time and name are changed."""
    media: str
    """The body's format."""
    make: Maker
    encode: Callable[[bytes, int], bytes]
    """Makes the answer of what is stored."""
    series: Series
    ttl_s: int
    """How long such objects live; 0: until they are deleted."""
    rules: int
    """What the plan rests on: the generation of the rules of authorization, and so on."""
    catalog: int
    remotes: object


class Made(NamedTuple):
    """What a write comes to. `expected` is the store's; `is_nothing`: the object stays as it is at that revision."""

    code: int
    key: bytes
    value: bytes
    expected: int
    is_nothing: bool = False


Maker = Callable[["Registry", WritePlan, bytes], Made | None]
"""What a body with such a plan comes to; None where that is not known."""


class WritePlans:
    """The plans of one server, by who sends the batches."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._of: dict[_Sender, _Plans] = {}

    def begin(self, request: Request) -> RepeatedWrites:
        """For the writes of one batch."""
        return RepeatedWrites(self._server, self._of.get(_sender(request), {}))

    def learn(self, request: Request, call: Call, view: View) -> None:
        """Makes a plan of a write of a batch that succeeded, if it can be repeated."""
        server = self._server
        if server.auditor is not None:
            return
        target, name = split(request.method, request.head.path)
        sender, key = _sender(request), (target, request.headers["Content-Type"])
        plans = self._of.get(sender)
        if plans is not None and key in plans and holds(server, plans[key]):
            return
        plan = self._plan_of(request, call, view, name)
        if plan is None:
            return
        if plans is None or len(plans) >= _PLANS_MAX:
            if len(self._of) >= _SENDERS_MAX:
                self._of.clear()
            plans = self._of[sender] = {}
        plans[key] = plan

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
        plan.ttl_s = 0 if call.subresource == "binding" else server.registry.strategy(call.rtype).ttl_s
        plan.rules, plan.catalog = server.authorizer.generation, server.catalog.generation
        plan.remotes = server.aggregator.remotes
        return plan


class RepeatedWrites:
    """Those of one batch: `take` each, then `write` them all."""

    def __init__(self, server: ApiServer, plans: _Plans) -> None:
        self._server = server
        self._plans = plans
        self._started = server.now()
        self._time = server.clock.time()
        self._valid: set[WritePlan] = set()
        self._taken: list[tuple[int, bool, WritePlan, Made]] = []

    def take(self, at: int, write: Any, results: list[Result | None]) -> bool:
        """Whether the write at this place of the batch is done already, or will be with the others."""
        method, target, media, body, brief = write
        key, name = split(method, target)
        plan = self._plans.get((key, media))
        if plan is None or not self._holds(plan) or (name and not is_label(name)):
            return False
        call = plan.call
        call.now, call.name, call.warnings = self._time, name, []
        made = plan.make(self._server.registry, plan, body)
        if made is None or call.warnings:
            return False
        if made.is_nothing:
            results[at] = self._result(brief, plan, made, made.expected)
        else:
            self._taken.append((at, brief, plan, made))
        return True

    async def write(self, results: list[Result | None]) -> list[int]:
        """Puts the results in their places; returns those of the writes that have to go the whole way."""
        if not self._taken:
            return []
        taken, writes = self._taken, []
        try:
            for _, _, plan, (_, key, value, expected, _) in taken:
                lease = await self._server.registry.lease(plan.ttl_s) if plan.ttl_s else 0
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
        if not holds(self._server, plan):
            return False
        self._valid.add(plan)
        return True


def holds(server: ApiServer, plan: WritePlan) -> bool:
    """Whether all that a plan rests on is as it was."""
    return (
        plan.rules == server.authorizer.generation
        and plan.catalog == server.catalog.generation
        and plan.remotes is server.aggregator.remotes
    )


def _sender(request: Request) -> _Sender:
    user: UserInfo = request.user
    return user.name, user.groups, user.uid, request.headers.get("User-Agent", "")


def _success(view: View) -> Callable[[bytes, int], bytes]:
    """An action answers the same whatever it is done to."""
    answer = view.one(msgpack.packb(binding.SUCCESS), 0)
    return lambda _, __: answer


# ---------------------------------------------------------------- what writes come to


def _create(registry: Registry, plan: WritePlan, body: bytes) -> Made | None:
    new = registry.recast(plan.call, plan.media, body)
    return None if new is None else Made(201, new.key, new.value, ABSENT)


def _change(registry: Registry, plan: WritePlan, body: bytes) -> Made | None:
    call = plan.call
    change = registry.change(call, plan.media, body)
    return None if change is None else _changed(registry, call, change, 200)


def _patch(registry: Registry, plan: WritePlan, body: bytes) -> Made | None:
    """An apply may make a new object."""
    call = plan.call
    change = registry.change(call, plan.media, body)
    if change is None:
        return None
    made = _changed(registry, call, change, 200)
    if made is not None or not change.is_of_nothing:
        return made
    new = registry.recast(call, plan.media, body)
    key = call.rtype.key(call.namespace, call.name)
    return None if new is None or new.key != key else Made(201, key, new.value, ABSENT)


def _bind(registry: Registry, plan: WritePlan, body: bytes) -> Made | None:
    call = plan.call
    change = binding.change_of(registry, call, plan.media, body)
    return None if change is None else _changed(registry, call, change, 201)


def _changed(registry: Registry, call: Call, change: Change, code: int) -> Made | None:
    key = call.rtype.key(call.namespace, call.name)
    item = registry.store.get(key)
    if item is None:
        change.is_of_nothing = True
        return None
    value = change.foretell(item)
    if value is None or registry.store.is_stale(key):
        return None
    return Made(code, key, value, item.mod_revision, value == item.value)


_MAKERS: dict[tuple[str, str], Maker] = {
    ("create", ""): _create,
    ("create", "binding"): _bind,
    ("update", ""): _change,
    ("update", "status"): _change,
    ("patch", ""): _patch,
    ("patch", "status"): _patch,
}
"""By verb and subresource."""

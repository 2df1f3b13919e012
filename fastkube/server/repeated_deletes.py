"""Deletes that repeat: what a DELETE means, who asks and whether they may is the same for the next one with the same
header, query and body to the same collection; what is left is the end of an object that nothing holds
(registry/endings.py).

    header, path but for the name, body ─▶ Plan ─ name ─▶ Ending ─ store ─▶ answer

As for creates (repeated_creates.py), whatever is not exactly as it was goes the whole way: an object that is not there,
one that something holds, or that is changed meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from fastkube.api import codec
from fastkube.registry import endings
from fastkube.registry.answers import Stored
from fastkube.registry.changes import is_label
from fastkube.server.answer import status_line
from fastkube.server.repeated_creates import CreatePlan, Writing, plan_of, write

if TYPE_CHECKING:
    from aiohttp.http import RawRequestMessage

    from fastkube.registry.deletion import DeleteOptions
    from fastkube.registry.endings import Ending
    from fastkube.registry.strategy import Call
    from fastkube.server.app import ApiServer
    from fastkube.server.connection import Connection
    from fastkube.server.forms import View
    from fastkube.server.request import Request

_OPTIONS = frozenset(("gracePeriodSeconds", "propagationPolicy", "orphanDependents"))
_CREATED, _OK = status_line(201), status_line(200)


class DeletePlan(CreatePlan):
    """`options` are those of the header and `body`."""

    __slots__ = ("body", "options")

    body: bytes
    options: DeleteOptions


def delete_plan_of(request: Request, call: Call, view: View, body: bytes, options: DeleteOptions) -> DeletePlan | None:
    """What the plan's own are of; None for a request of which more depends than header, path and body."""
    whole = (call.rtype.group, call.rtype.resource) in endings.ANSWERED_WHOLE
    if call.subresource or call.dry_run or request.info.parts != 2 or view.form.pretty:
        return None
    plan = plan_of(request, call, view, DeletePlan(), _OPTIONS)
    if plan is None or (plan.encode is not None and not whole):  # a Status is told in JSON
        return None
    plan.head = _OK + plan.head.removeprefix(_CREATED)
    plan.body, plan.options = body, options
    return plan


class _Ended:
    """What a delete is answered with, before its revision is known."""

    __slots__ = ("_ending", "_name", "_plan", "value")

    def __init__(self, plan: DeletePlan, name: str, ending: Ending) -> None:
        self._plan = plan
        self._name = name
        self._ending = ending
        self.value = ending.value

    def json(self, revision: int) -> bytes:
        told = self._ending.result(self._plan.call.rtype, self._name, revision)
        return codec.value_to_json(*told) if isinstance(told, Stored) else orjson.dumps(told)


class _Deleting(Writing):
    """A delete under way."""

    __slots__ = ()

    def _revision(self, result: Any) -> int:
        return endings.revision_of(result)


def begin(
    server: ApiServer, plan: DeletePlan, connection: Connection, head: RawRequestMessage, name: str
) -> bytes | None:
    """b"" when the delete is under way; None when it has to go the long way."""
    if connection.whole_body() != plan.body or not is_label(name):
        return None
    call = plan.call
    call.now, call.name = server.clock.time(), name
    found = server.registry.foretell_end(call, plan.options)
    if found is None:
        return None
    item, ending = found
    ended = _Ended(plan, name, ending)
    deleting = _Deleting(server, plan, plan.head, ended, connection, head)
    return write(deleting, lambda writing: writing.follow(ending.write(server.store, item)))

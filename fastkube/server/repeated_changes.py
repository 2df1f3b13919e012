"""Changes that repeat: what a PATCH or PUT means, who asks and whether they may is the same for the next one with the
same header to the same collection, and a body that asks for a change like one before is all that is left of it
(registry/changes.py; an apply to a name that there is not makes a new object, registry/creations.py).

    header, path but for the name ─▶ Plan ─ name, body ─▶ value ─ store ─▶ answer

As for creates (repeated_creates.py), whatever is not exactly as it was goes the whole way: a change that nothing
foretells, one that writes nothing, or is overtaken by another writer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastkube.registry.changes import is_label
from fastkube.registry.creations import Draft, Foretold
from fastkube.server.answer import status_line
from fastkube.server.repeated_creates import CreatePlan, Writing, plan_of, write

if TYPE_CHECKING:
    from aiohttp.http import RawRequestMessage

    from fastkube.registry.strategy import Call
    from fastkube.server.app import ApiServer
    from fastkube.server.connection import Connection
    from fastkube.server.forms import View
    from fastkube.server.request import Request

METHODS = frozenset(("PATCH", "PUT"))
OPTIONS = frozenset(("fieldManager", "fieldValidation", "force"))
_STATUS = "/status"
_BINDING = "/binding"
_CREATED, _OK = status_line(201), status_line(200)

Target = tuple[str, str, str]
"""Method, path of the collection, and what follows the name."""


class ChangePlan(CreatePlan):
    """`head` is that of an answer with 200, `created` that of one with 201."""

    __slots__ = ("created",)

    created: bytes


def split(method: str, target: str) -> tuple[Target, str]:
    """What requests to the objects of a collection have in common, and the name in this one ("": the collection)."""
    path, mark, query = target.partition("?")
    rest = mark + query
    if method == "POST":
        if not path.endswith(_BINDING):
            return (method, path, rest), ""
        path, rest = path.removesuffix(_BINDING), _BINDING + rest
    elif path.endswith(_STATUS):
        path, rest = path.removesuffix(_STATUS), _STATUS + rest
    collection, _, name = path.rpartition("/")
    return (method, collection, rest), name


def change_plan_of(request: Request, call: Call, view: View) -> ChangePlan | None:
    """What the plan's own are of; None for a request of which more depends than header, path and body."""
    if call.subresource not in ("", "status") or request.info.parts != (3 if call.subresource else 2):
        return None
    plan = plan_of(request, call, view, ChangePlan(), OPTIONS)
    if plan is not None:
        plan.created = plan.head
        plan.head = _OK + plan.head.removeprefix(_CREATED)
    return plan


def begin(
    server: ApiServer, plan: ChangePlan, connection: Connection, head: RawRequestMessage, name: str
) -> bytes | None:
    """b"" when the change is under way; None when it has to go the long way."""
    body = connection.whole_body()
    if body is None or not is_label(name):
        return None
    registry, call, store = server.registry, plan.call, server.store
    call.now, call.name = server.clock.time(), name
    call.warnings = []
    key = call.rtype.key(call.namespace, name)
    item = store.get(key)
    if item is None:
        new = registry.recast(call, plan.sent, body) if plan.info.verb == "patch" else None
        if new is None or isinstance(new, Draft) or new.key != key:
            return None
        return write(Writing(server, plan, plan.created, new, connection, head), store.create_for, key, new.value)
    change = registry.change(call, plan.sent, body)
    if change is None:
        return None
    value = change.foretell(item)
    if value is None or value == item.value or call.warnings or store.is_stale(key):
        return None
    made = Foretold(key, name.encode(), value, [])
    writing = Writing(server, plan, plan.head, made, connection, head)
    return write(writing, store.update_for, key, value, item.mod_revision)

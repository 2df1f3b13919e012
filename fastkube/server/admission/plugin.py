"""What an admission plugin is.

Rules:
  1. `mutate` may change the new object; `validate` may only look and refuse. Both see the storage version.
  2. A create has no `old`, a delete no `obj` (and its `mutate` no `old` either); a connect has neither.
  3. A method answers None, or an awaitable when it has to wait for something; most never wait, and cost no task.
  4. A refusal is an ApiError: mostly `forbid`, which names the object as upstream does.
  5. The chain asks `handles` once for each kind and operation and remembers; a plugin whose answer changes, because it
     is configured through the API, calls `on_change`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from fastkube import errors

if TYPE_CHECKING:
    from fastkube.errors import ApiError
    from fastkube.registry.strategy import Call, Object

CREATE, UPDATE, DELETE, CONNECT = "CREATE", "UPDATE", "DELETE", "CONNECT"

Identity = tuple[str, str, str]
"""Group, resource and subresource."""


def operation_of(call: Call, obj: Object | None, old: Object | None) -> str:
    """What a call does to which objects."""
    if call.verb == "connect":
        return CONNECT
    return DELETE if obj is None else CREATE if old is None else UPDATE


class Plugin:
    """Base of all plugins: handles nothing, changes nothing, refuses nothing."""

    name = ""
    """As in --enable-admission-plugins."""

    mutates = False
    validates = False

    by_shape = False
    """Whether what it does to a new object depends on nothing but the object without its name, the object's namespace,
    and the objects whose changes `Lookups.changes` counts."""

    on_change: Callable[[], None]
    """Set by the chain on plugins that are configured through the API."""

    def handles(self, target: Identity, operation: str) -> bool:
        return False

    def by_more(self, namespace: str) -> bool:
        """Where `by_shape` is set: whether for objects of this namespace it depends on more."""
        return False

    def bearing(self, node: str) -> tuple[str, ...]:
        """Where `by_shape` is set: what else it depends on when a Pod is bound to this node."""
        return ()

    def mutate(self, call: Call, obj: Any, old: Object | None) -> Awaitable[None] | None:
        """`obj` is an Object, or None for a delete; a plugin that handles no deletes says Object."""
        return None

    def validate(self, call: Call, obj: Any, old: Object | None) -> Awaitable[None] | None:
        return None


def forbid(call: Call, obj: Object | None, why: str) -> ApiError:
    """403 for the object of the request; one without a name yet is known by its generateName."""
    name = call.name
    if not name and obj is not None:
        metadata = obj.get("metadata") or {}
        name = metadata.get("name") or metadata.get("generateName") or "Unknown"
    return errors.forbidden(call.rtype.group, call.rtype.resource, name, why)

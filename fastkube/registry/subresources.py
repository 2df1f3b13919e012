"""POST to subresources: what acts on an object rather than shows it (binding, eviction, token).

Each action takes a body of its own kind and answers a Status or that kind again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgpack

from fastkube import errors
from fastkube.registry import binding, decoding, eviction, tokens
from fastkube.registry.answers import Stored
from fastkube.registry.strategy import Call, Object

if TYPE_CHECKING:
    from fastkube.registry.registry import Registry

Action = Callable[["Registry", Call, Object], Awaitable[Object]]

ACTIONS: dict[tuple[str, str, str], Action] = {
    ("", "pods", "binding"): binding.bind,
    ("", "pods", "eviction"): eviction.evict,
    ("", "serviceaccounts", "token"): tokens.issue,
}
"""By group, resource and subresource."""


async def create(registry: Registry, call: Call, obj: Object) -> Stored:
    """Does what the subresource is for; the answer has no revision. Raises 405 where POST is not taken."""
    rtype = call.rtype
    action = ACTIONS.get((rtype.group, rtype.resource, call.subresource))
    info = rtype.subresources.get(call.subresource)
    if action is None or info is None:
        raise errors.method_not_allowed()
    body = decoding.read(call, obj, info.group, info.version, info.kind)
    body.setdefault("metadata", {})
    return Stored(msgpack.packb(await action(registry, call, body)), 0)

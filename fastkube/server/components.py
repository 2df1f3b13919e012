"""ComponentStatus: the old way of asking how the control plane does. Only the store is known here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgpack

from fastkube import errors
from fastkube.registry.answers import Page, Stored

if TYPE_CHECKING:
    from fastkube.api.catalog import ResourceType
    from fastkube.store import Store

_STORE = "etcd-0"


def is_component_status(rtype: ResourceType) -> bool:
    return rtype.kind == "ComponentStatus" and not rtype.group


def component_status(store: Store, name: str) -> Stored:
    """Raises 404 for a component that is none of ours."""
    if name != _STORE:
        raise errors.not_found("", "componentstatus", name)
    status = store.status()
    healthy = status.health == "serving"
    condition = {"type": "Healthy", "status": "True" if healthy else "False", "message": status.reason or "ok"}
    obj = {
        "apiVersion": "v1",
        "kind": "ComponentStatus",
        "metadata": {"name": _STORE},
        "conditions": [condition],
    }
    return Stored(msgpack.packb(obj), 0)


def component_statuses(store: Store) -> Page:
    return Page([component_status(store, _STORE)], store.revision)

"""Admin access to devices, which are in use by others: only in namespaces that are marked for it.

Upstream: AuthorizedForAdmin, AuthorizedForAdminStatus. It needs the namespace, which a strategy never reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgpack

from fastkube import errors
from fastkube.api import field
from fastkube.registry.strategy import Call, Object

if TYPE_CHECKING:
    from fastkube.store import Store

LABEL = "resource.kubernetes.io/admin-access"
_NAMESPACES = b"/registry/namespaces/"


class AdminAccess:
    """The attendant of ResourceClaims and of their templates."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def on_create(self, call: Call, obj: Object) -> None:
        spec = obj.get("spec") or {}
        if obj["kind"] == "ResourceClaimTemplate":
            spec = spec.get("spec") or {}
        requests = (spec.get("devices") or {}).get("requests") or []
        self._check(call, obj, "spec.devices.requests", [request.get("exactly") for request in requests])

    def on_update(self, call: Call, new: Object, old: Object) -> None:
        if call.subresource == "status" and not any(map(_asks, _results(old))):
            self._check(call, new, "status.allocation.devices.results", _results(new))

    def on_delete(self, call: Call, old: Object) -> None:
        """Nothing is asked of who deletes a claim."""

    def _check(self, call: Call, obj: Object, path: str, asked: list[Object | None]) -> None:
        number = next((number for number, each in enumerate(asked) if _asks(each)), None)
        if number is None:
            return
        item = self._store.get(_NAMESPACES + call.namespace.encode())
        labels = (msgpack.unpackb(item.value)["metadata"].get("labels") or {}) if item is not None else {}
        if labels.get(LABEL) != "true":
            problem = f"admin access to devices requires the `{LABEL}: true` label on the containing namespace"
            cause = field.forbidden(f"{path}[{number}].adminAccess", problem)
            raise errors.invalid(call.rtype.group, call.rtype.kind, obj["metadata"].get("name") or "", [cause])


def _asks(told: Object | None) -> bool:
    return bool((told or {}).get("adminAccess"))


def _results(claim: Object) -> list[Object | None]:
    found: list[Object | None] = (((claim.get("status") or {}).get("allocation") or {}).get("devices") or {}).get(
        "results"
    ) or []
    return found

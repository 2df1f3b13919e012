"""Renewals: updates of Leases that change nothing but spec.renewTime, which is what nodes do all day.

What such an update makes of the stored object is known without the way of all others: the new time, and that of the
writer's entry in managedFields. `renewed` says whether an update is one, by the same rules; everything else about it
(rights, admission, the condition of the write) is the caller's to see to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack

from fastkube.api import scalars
from fastkube.store import Write

if TYPE_CHECKING:
    from fastkube.registry.strategy import Call
    from fastkube.store import Item

Object = dict[str, Any]

GROUP, RESOURCE = "coordination.k8s.io", "leases"

_API_VERSION = f"{GROUP}/v1"
_BODY = frozenset(("apiVersion", "kind", "metadata", "spec"))
_NAME_MAX = 253
_SERVERS_OWN = frozenset(("name", "namespace", "uid", "creationTimestamp", "managedFields"))
"""Metadata that a client may leave out: it stays."""


def is_name(text: str) -> bool:
    """Whether a key can be made of it; whether there is such an object is another question."""
    return text.isascii() and len(text) <= _NAME_MAX


def renewed(call: Call, item: Item, body: bytes, stamp: str) -> Write | None:
    """The write that the update of `call.name` to `body` (msgpack) comes to; None if it is no plain renewal. `stamp` is
    the present time as metav1.Time."""
    try:
        new = msgpack.unpackb(body)
        metadata, spec = new["metadata"], new["spec"]
        if new.keys() != _BODY or new["apiVersion"] != _API_VERSION or new["kind"] != "Lease":
            return None
        old = msgpack.unpackb(item.value)
        was, entries = old["metadata"], old["metadata"]["managedFields"]
        if metadata["name"] != call.name or metadata.pop("resourceVersion") != str(item.mod_revision):
            return None
        if not _is_renewal(spec, old["spec"]) or not _is_same(metadata, was) or not _is_owner(call, entries):
            return None
    except (ValueError, KeyError, TypeError, AttributeError, msgpack.UnpackException):
        return None  # whoever reads it in full says what is wrong
    old["spec"]["renewTime"] = spec["renewTime"]
    entries[0]["time"] = stamp
    return Write(item.key, msgpack.packb(old), item.mod_revision)


def _is_renewal(spec: Object, was: Object) -> bool:
    """Whether the time alone is another one, and written as it is stored."""
    time = spec["renewTime"]
    if time == was["renewTime"] or scalars.micro_time(time) != time:
        return False
    return {**spec, "renewTime": time} == {**was, "renewTime": time}


def _is_same(metadata: Object, was: Object) -> bool:
    return metadata.items() <= was.items() and was.keys() - metadata.keys() <= _SERVERS_OWN


def _is_owner(call: Call, entries: list[Object]) -> bool:
    """Whether the writer is the only one who manages the object, its time included."""
    entry = entries[0]
    return (
        len(entries) == 1
        and entry["manager"] == (call.field_manager or "unknown")
        and entry["operation"] == "Update"
        and entry["apiVersion"] == _API_VERSION
        and "subresource" not in entry
        and "f:renewTime" in entry["fieldsV1"]["f:spec"]
    )

"""Facets: the ways in which one stored object is read and written, as itself or through a subresource.

A facet says of what kind its bodies are, how they are made from the object and put back into it, and which rules an
update through it obeys. GET, PUT and PATCH of every subresource that shows part of the object are these:

    (none)               the object              status stays
    status               the object              spec stays
    scale                autoscaling/v1 Scale    only the replicas change
    ephemeralcontainers  the Pod                 only ephemeral containers are added
    resize               the Pod                 only container resources change
    finalize             the Namespace           spec.finalizers change
    approval             the CSR                 the conditions Approved and Denied change
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgpack

from fastkube import errors
from fastkube.api import field
from fastkube.errors import ApiError
from fastkube.registry import approval, decoding, pod_updates, scale, updating
from fastkube.registry.answers import Stored
from fastkube.registry.strategy import Call, Object, Strategy
from fastkube.registry.updating import Build, Draft, Rules

if TYPE_CHECKING:
    from fastkube.registry.registry import Registry
    from fastkube.store import Item


@dataclass(frozen=True, slots=True)
class Facet:
    """`show` and `take` are None where the body is the object itself.

    `take(call, old, body, applied)` makes the new object of the old one, which it may change.
    """

    group: str
    version: str
    kind: str
    rules: Rules
    show: Callable[[Call, Object], Object] | None = None
    take: Callable[[Call, Object, Object, bool], Object] | None = None

    def body(self, call: Call, obj: Object, revision: int) -> Object:
        """What a GET in the version of the request answers; it may share parts with `obj`."""
        shown = self.show(call, obj) if self.show is not None else decoding.from_storage(call, obj)
        shown["metadata"]["resourceVersion"] = str(revision)
        return shown

    def accept(self, call: Call, item: Item, body: Object, claimed: str, *, applied: bool = False) -> Draft:
        """The draft which a decoded body asks for. `applied`: the body's managedFields say who owns what."""
        if self.take is None:
            return Draft(decoding.to_storage(call, body), claimed, applied)
        made = self.take(call, msgpack.unpackb(item.value), body, applied)
        return Draft(made, claimed or str(item.mod_revision), True)

    def answer(self, call: Call, stored: Stored) -> Stored:
        """The encoded answer for an object that was read or written."""
        if self.show is None:
            return stored
        return Stored(msgpack.packb(self.show(call, msgpack.unpackb(stored.value))), stored.revision)


_RULES: dict[str, Callable[[Strategy], Rules]] = {
    "": updating.main_rules,
    "status": updating.status_rules,
    "ephemeralcontainers": pod_updates.ephemeral_containers_rules,
    "resize": pod_updates.resize_rules,
    "finalize": updating.finalize_rules,
    "approval": approval.approval_rules,
}


def facet_of(registry: Registry, call: Call) -> Facet:
    """The facet of the call's subresource; 405 where a subresource shows nothing of the object."""
    rtype, name = call.rtype, call.subresource
    strategy = registry.strategy(rtype)
    if name == "scale" and name in rtype.subresources:
        info = rtype.subresources[name]
        return Facet(info.group, info.version, info.kind, updating.main_rules(strategy), scale.show, scale.take)
    make = _RULES.get(name)
    if make is None or (name and name not in rtype.subresources):
        raise errors.method_not_allowed()
    return Facet(rtype.group, call.version, rtype.kind, make(strategy))


def replacement(call: Call, facet: Facet, body: Object) -> Build:
    """A build for PUT: what `body` asks for, whatever there was. A uid in it must be that of the old object."""
    claimed = body["metadata"].pop("resourceVersion", "")
    template = msgpack.packb(body)  # each attempt starts from what the client sent, not from what the last made of it
    unused: list[Object] = [body]

    def build(old: Object, item: Item) -> Draft:
        fresh = unused.pop() if unused else msgpack.unpackb(template)
        uid = fresh["metadata"].get("uid")
        if facet.take is None and uid and uid != old["metadata"]["uid"]:
            raise _other_uid(call, item.key, uid, old["metadata"]["uid"])
        return facet.accept(call, item, fresh, claimed)

    return build


def check_unborn(call: Call, metadata: Object) -> None:
    """Of a PUT that makes an object: with a uid it is about one that was there before, which is a conflict; it may
    claim any version, which only a dry run shows."""
    if uid := metadata.get("uid"):
        raise _other_uid(call, call.rtype.key(call.namespace, call.name), uid, "")
    claimed = metadata.get("resourceVersion") or "0"
    if not (claimed.isascii() and claimed.isdigit()):
        raise ApiError(500, "", f"strconv.ParseUint: parsing {field.quote(claimed)}: invalid syntax")
    if not call.dry_run:
        metadata.pop("resourceVersion", None)


def _other_uid(call: Call, key: bytes, wanted: str, found: str) -> ApiError:
    from fastkube.registry.upstream_form import storage_key

    place = storage_key(call.rtype, key)
    if not call.dry_run:  # a dry run is decided above the storage, which adds its prefix
        place = "/registry" + place
    problem = (
        f"StorageError: invalid object, Code: 4, Key: {place}, ResourceVersion: 0, AdditionalErrorMsg: "
        f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"
    )
    return errors.conflict(call.rtype.group, call.rtype.resource, call.name, problem)

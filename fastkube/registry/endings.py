"""Ends of objects that nothing holds and nobody but the registry is asked about, which most are: they are made in the
encoded object. deletion.py has the rules, and all other ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from fastkube._codec import extract
from fastkube._shapes import End, Shapeless
from fastkube.clock import parse_rfc3339, rfc3339
from fastkube.registry.answers import Stored

if TYPE_CHECKING:
    import asyncio

    from fastkube.api.catalog import ResourceType
    from fastkube.registry.deletion import DeleteOptions
    from fastkube.registry.registry import Registry
    from fastkube.registry.strategy import Call, Object
    from fastkube.store import Item, Store
    from fastkube.store.records import Deleted

ORPHANING = frozenset((("", "replicationcontrollers"), ("batch", "jobs")))
"""Kinds whose dependents stay when no policy is given: what their v1 API always did."""

ANSWERED_WHOLE = frozenset(
    (
        ("", "persistentvolumeclaims"),
        ("", "persistentvolumes"),
        ("", "pods"),
        ("", "podtemplates"),
        ("", "resourcequotas"),
        ("", "serviceaccounts"),
        ("", "services"),
        ("resource.k8s.io", "deviceclasses"),
        ("resource.k8s.io", "resourceclaims"),
        ("resource.k8s.io", "resourceclaimtemplates"),
        ("resource.k8s.io", "resourceslices"),
        ("storage.k8s.io", "csidrivers"),
        ("storage.k8s.io", "csinodes"),
        ("storage.k8s.io", "storageclasses"),
        ("storage.k8s.io", "volumeattachments"),
        ("storage.k8s.io", "volumeattributesclasses"),
    )
)
"""Kinds whose deletion is answered with the object; the others answer a Status."""


class Left(NamedTuple):
    """How long a graceful object lives on."""

    until: float
    grace_s: int


def life_left(
    now: float, options: DeleteOptions, deleted_at: str | None, pending_s: int, period_s: Callable[[int | None], int]
) -> Left | bool | None:
    """False: it may go at once; None: nothing changes by this delete."""
    requested = options.grace_period_s
    if requested is not None and requested < 0:
        requested = 1
    if deleted_at is None:
        period = period_s(requested)
        return Left(now + period, period)
    if pending_s == 0:
        return False
    if requested is None or requested >= pending_s:
        return None
    return Left(parse_rfc3339(deleted_at) - pending_s + requested, requested)


def result_of(rtype: ResourceType, name: str, uid: str, value: bytes, revision: int) -> Stored | Object:
    if (rtype.group, rtype.resource) in ANSWERED_WHOLE:
        return Stored(value, revision)
    details = {"name": name, "group": rtype.group, "kind": rtype.resource, "uid": uid}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {name: text for name, text in details.items() if text},
    }


class Ending(NamedTuple):
    """What a delete makes of an object: `value` is its last version (it is `gone`) or that which is on its way out."""

    uid: str
    value: bytes
    gone: bool

    def write(self, store: Store, item: Item) -> asyncio.Future[int] | asyncio.Future[Deleted]:
        """Over that version; gives the revision. Raises RevisionMismatch and KeyMissing."""
        if not self.gone:
            return store.update(item.key, self.value, item.mod_revision)
        if self.value is item.value:
            return store.delete(item.key, item.mod_revision)
        return store.retire(item.key, self.value, item.mod_revision)

    def result(self, rtype: ResourceType, name: str, revision: int) -> Stored | Object:
        """What the delete is answered with."""
        return result_of(rtype, name, self.uid, self.value, revision) if self.gone else Stored(self.value, revision)


def revision_of(written: int | Deleted) -> int:
    """That of the last thing that a write of an ending has done."""
    return written if isinstance(written, int) else written.delete_revision


def foretell(registry: Registry, call: Call, options: DeleteOptions, item: Item) -> Ending | None:
    """The end of an object that nothing holds and nobody else is asked about; None if it takes a closer look."""
    rtype = call.rtype
    identity = (rtype.group, rtype.resource)
    if (
        call.dry_run
        or options.orphan_dependents is not None
        or options.propagation in ("Orphan", "Foreground")
        or (options.propagation is None and identity in ORPHANING)
        or not registry.ends_alone(call)
    ):
        return None
    try:
        end = End(item.value)
    except Shapeless:
        return None
    if (
        end.is_held
        or options.uid not in (None, end.uid)
        or options.resource_version not in (None, str(item.mod_revision))
    ):
        return None
    return _ending(registry, call, options, item, end)


def _ending(registry: Registry, call: Call, options: DeleteOptions, item: Item, end: End) -> Ending | None:
    strategy = registry.strategy(call.rtype)
    if not strategy.graceful:
        return Ending(end.uid, item.value, True)

    def period_s(requested: int | None) -> int:
        if requested == 0:
            return 0
        obj: Object = {"spec": {}, "status": {}}
        for part, name in strategy.grace_depends_on:
            obj[part][name] = extract(item.value, (part.encode(), name.encode()))
        return strategy.grace_period_s(obj, requested)

    call.now = now = call.now or registry.clock.time()
    left = life_left(now, options, end.deleted_at, end.grace_s, period_s)
    if left is None:
        return None
    if not isinstance(left, Left):
        return Ending(end.uid, item.value, True)
    stamp = registry.timestamp(call) if left.until == now else rfc3339(left.until)
    value = end.terminating(stamp.encode(), left.grace_s)
    return Ending(end.uid, value, not left.grace_s)

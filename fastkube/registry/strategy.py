"""What a kind may do differently from the generic registry, in the one fixed order in which the registry asks.

    create:  default → mutating admission → prepare_for_create → validate → validating admission → store
    update:  default → mutating admission → prepare_for_update → validate_update → validating admission → store

Objects are dicts in the storage version. A strategy never touches the store and never awaits: whatever needs other
objects (allotting a cluster IP, quota) is admission or a `Companions` hook of the registry itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastkube.api import schema
from fastkube.api.names import dns1123_subdomain
from fastkube.errors import Cause

if TYPE_CHECKING:
    from fastkube.api.catalog import ResourceType
    from fastkube.store import Compare, Delete, Put

Object = dict[str, Any]


@dataclass(slots=True)
class UserInfo:
    """Who asks: the result of authentication."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: dict[str, list[str]] = field(default_factory=dict)


@dataclass(slots=True)
class Companions:
    """Writes which must happen in the same transaction as the object's own, or not at all.

    An IPAddress goes with its Service, a quota's usage with the object it counts. When a compare fails the registry
    drops the companions, asks for new ones and tries again. `finish` is called once for each attempt, committed or not.
    """

    compares: list[Compare] = field(default_factory=list)
    ops: list[Put | Delete] = field(default_factory=list)
    finish: list[Callable[[], None]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.ops or self.compares)

    def clear(self) -> None:
        """Let go of whatever is held (locks, reservations) and forget the writes."""
        finish = self.finish
        self.compares, self.ops, self.finish = [], [], []
        for release in finish:
            release()


@dataclass(slots=True)
class Call:
    """One request to the registry, already authenticated and authorized.

    `verb` is the Kubernetes request verb: create, get, list, watch, update, patch, delete, deletecollection.
    `version` is the API version of the request, which the answer is given in. `now` is the wall time in seconds.
    `faults` is what decoding found already that strict field validation refuses (duplicate fields). `annotations` are
    what the audit log is told besides; None where the request is not audited. `revision` is that of the object which
    is changed or deleted, `delete_options` are those of a deletion as the client sent them. `has_empties`: the body has
    an empty list where null is stored. `sent` is the format and body of an action, as they came.
    """

    rtype: ResourceType
    version: str
    verb: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    user: UserInfo = field(default_factory=lambda: UserInfo("system:anonymous", ("system:unauthenticated",)))
    dry_run: bool = False
    field_manager: str = "unknown"
    field_validation: str = "Warn"
    force: bool = False  # a server-side apply takes conflicting fields over
    query: dict[str, str] = field(default_factory=dict)
    now: float = 0.0
    warnings: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    companions: Companions = field(default_factory=Companions)
    annotations: dict[str, str] | None = None
    revision: int = 0
    delete_options: Object | None = None
    has_empties: bool = False
    sent: tuple[str, bytes] | None = None


ALL_METADATA = ("annotations", "deletionTimestamp", "finalizers", "generation", "labels", "ownerReferences")
"""What `Strategy.kept_on_status` is for kinds whose status is all that /status changes."""


def keep(new: Object, old: Object, keys: Iterable[str]) -> None:
    """Takes these fields over from the old object, absent ones too."""
    for key in keys:
        if key in old:
            new[key] = old[key]
        else:
            new.pop(key, None)


class Strategy:
    """The behaviour of a kind without peculiarities; kinds that differ subclass it (fastkube/registry/strategies)."""

    has_generation = True
    """metadata.generation starts at 1 and rises with every change of spec (or whatever `spec_changed` says)."""

    metadata_checks: tuple[str, ...] = ("update", "whole")
    """How the kind's validation of a change looks at the metadata, after that of all kinds did: what changed, and all
    of it as if it were new. It shows in how often upstream tells a fault."""

    kube_finalizers = True
    """A finalizer without a domain has to be a standard one."""

    has_status = True
    """On create status is reset by `reset_status`; on update of the main resource it is kept from the old object."""

    metadata_last = False
    """Faults of a new object's metadata are told only where there are no others."""

    kept_on_status: tuple[str, ...] = ()
    """The metadata that a write of /status cannot change."""

    allow_create_on_update = False
    """PUT (and apply) to a name that does not exist creates it."""

    allow_unconditional_update = True
    """PUT without a resourceVersion is taken as an update of whatever is there."""

    graceful = False
    """Deletion is in two steps (Pods): a grace period first, removal when whoever runs the object says so."""

    grace_depends_on: tuple[tuple[str, str], ...] = ()
    """What of spec and status `grace_period_s` looks at, where another than 0 is asked for."""

    expires = False
    """Objects vanish by themselves (Events), after the time that the registry gives them."""

    def default(self, obj: Object) -> None:
        """Fill in the defaults of absent fields, in place."""

    def prepare_for_create(self, call: Call, obj: Object) -> None:
        """Drop what a client may not set; must leave the object in its initial state."""
        if self.has_status:
            self.reset_status(obj)

    def reset_status(self, obj: Object) -> None:
        """What status is on a new object: for built-in kinds what upstream writes for an empty one, which may have
        fields (`replicas: 0`); for those without status and for custom kinds there is none."""
        status = schema.empty_field(obj["apiVersion"], obj["kind"], "status")
        if status is None:
            obj.pop("status", None)
        else:
            obj["status"] = status

    def casts(self, obj: Object) -> bool:
        """Whether nothing but metadata.name itself depends on the name of this new object (moulds.py)."""
        return False

    def prepare_for_update(self, call: Call, new: Object, old: Object) -> None:
        """Keep what a client may not change on the main resource (status, by default)."""
        if self.has_status:
            if "status" in old:
                new["status"] = old["status"]
            else:
                new.pop("status", None)

    def prepare_for_status_update(self, call: Call, new: Object, old: Object) -> None:
        """On /status only status (and metadata that upstream takes there) changes: spec is kept from the old object."""
        keep(new, old, set(new).union(old).difference(("status", "metadata", "apiVersion", "kind")))
        keep(new["metadata"], old["metadata"], self.kept_on_status)

    def spec_changed(self, new: Object, old: Object) -> bool:
        """Whether metadata.generation rises."""
        return bool(new.get("spec") != old.get("spec"))

    def grace_period_s(self, obj: Object, requested_s: int | None) -> int:
        """Asked where `graceful` is set: how many seconds the object may still run; 0 (also for 0): it goes at once."""
        return requested_s or 0

    def removable(self, obj: Object) -> bool:
        """Whether a terminating object without finalizers may go (a Namespace has finalizers of its own in spec)."""
        return True

    def validate_name(self, name: str, prefix: bool) -> list[str]:
        """Complaints about metadata.name (`prefix`: it is a generateName); a DNS-1123 subdomain by default."""
        return dns1123_subdomain(name, prefix)

    def validate(self, call: Call, obj: Object) -> list[Cause]:
        """Complaints about a new object beyond what its schema says; metadata is checked by the registry."""
        return []

    def validate_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        """Complaints about a changed object; by default those of a new one."""
        return self.validate(call, new)

    def validate_status_update(self, call: Call, new: Object, old: Object) -> list[Cause]:
        return []

    def canonicalize(self, obj: Object) -> None:
        """Called when a new object was found valid: what validation was not to see is set here."""

    def warnings(self, call: Call, obj: Object, old: Object | None) -> list[str]:
        """Texts for Warning headers."""
        return []

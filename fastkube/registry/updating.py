"""What an update is: a draft made from the old object, the rules it obeys, and what no update may touch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from fastkube import errors
from fastkube.api import field, meta
from fastkube.errors import ApiError, Cause
from fastkube.registry.strategy import Call, Object, Strategy

if TYPE_CHECKING:
    from fastkube.store import Item


class Rules(NamedTuple):
    """`prepare(call, new, old)` takes back what may not change; `validate` complains about what must not have."""

    prepare: Callable[[Call, Object, Object], None]
    validate: Callable[[Call, Object, Object], list[Cause]]
    raises_generation: bool = True


class Draft(NamedTuple):
    """A new object to be written over an old one, and the resourceVersion it claims to be made from ("": any).

    `managed`: its managedFields say already who owns what.
    """

    obj: Object
    resource_version: str
    managed: bool = False


Build = Callable[[Object, "Item"], Draft]
"""Makes a draft from the old object, which it must not change, and the item that holds it."""


def main_rules(strategy: Strategy) -> Rules:
    return Rules(strategy.prepare_for_update, strategy.validate_update)


def status_rules(strategy: Strategy) -> Rules:
    return Rules(strategy.prepare_for_status_update, strategy.validate_status_update, raises_generation=False)


def finalize_rules(strategy: Strategy) -> Rules:
    """/finalize of a Namespace: an ordinary update which may empty spec.finalizers."""
    return Rules(keep_status, strategy.validate_update, raises_generation=False)


def keep_status(call: Call, new: Object, old: Object) -> None:
    if "status" in old:
        new["status"] = old["status"]
    else:
        new.pop("status", None)


def check_version(call: Call, strategy: Strategy, claimed: str, item: Item) -> None:
    """Optimistic concurrency: the draft must be made from the version that it replaces."""
    group, resource = call.rtype.group, call.rtype.resource
    if claimed and not (claimed.isascii() and claimed.isdigit()):
        raise ApiError(500, "", f"strconv.ParseUint: parsing {field.quote(claimed)}: invalid syntax")
    version = int(claimed or 0)
    if version == item.mod_revision or (not version and strategy.allow_unconditional_update):
        return
    if version:
        raise errors.conflict(group, resource, call.name, errors.MODIFIED)
    cause = field.invalid("metadata.resourceVersion", 0, "must be specified for an update")
    raise errors.invalid(group, resource, call.name, [cause])


def check_name(call: Call, metadata: Object) -> None:
    """The object of a PUT or patch must be the one of the path."""
    name, namespace = metadata.get("name"), metadata.get("namespace")
    if call.rtype.namespaced:
        if namespace and namespace != call.namespace:
            problem = "the namespace of the provided object does not match the namespace sent on the request"
            raise errors.bad_request(problem)
        metadata["namespace"] = call.namespace
    elif "namespace" in metadata:
        del metadata["namespace"]
    if not name:
        problem = f"the name of the object ({call.name} based on URL) was undeterminable: name must be provided"
        raise errors.bad_request(problem)
    if name != call.name:
        problem = f"the name of the object ({name}) does not match the name on the URL ({call.name})"
        raise errors.bad_request(problem)


def keep_system_fields(new: Object, old: Object) -> None:
    """What no update can change is taken over; what one must not change is left for validation to refuse."""
    if "generation" in old:
        new["generation"] = old["generation"]
    else:
        new.pop("generation", None)
    new.pop("selfLink", None)
    if not new.get("uid"):
        new["uid"] = old["uid"]
    new["creationTimestamp"] = old["creationTimestamp"]
    if "deletionTimestamp" in old:
        new["deletionTimestamp"] = old["deletionTimestamp"]
    if "deletionGracePeriodSeconds" in old:
        new.setdefault("deletionGracePeriodSeconds", old["deletionGracePeriodSeconds"])


def _unchanged(now: Object, was: Object) -> bool:
    """Whether nothing but who manages which fields differs: what was stored had no fault, and is not being deleted."""
    if now.keys() ^ was.keys() - _MANAGED or "deletionTimestamp" in was:
        return False
    return all(value == was.get(key) for key, value in now.items() if key != "managedFields")


_MANAGED = frozenset(("managedFields",))


def metadata_faults(call: Call, strategy: Strategy, new: Object, old: Object) -> list[Cause]:
    """Faults of changed metadata: told once for all kinds, and again by each check of the kind's own validation."""
    rtype, metadata = call.rtype, new["metadata"]
    if _unchanged(metadata, old["metadata"]):
        return meta.validate_managed_fields(metadata.get("managedFields") or [])
    kube = strategy.kube_finalizers and not rtype.custom
    faults = meta.validate_object_meta(new, rtype.namespaced, meta.path_segment, kube_finalizers=False)
    faults += meta.validate_object_meta_update(new, old, kube_finalizers=False)
    if not faults and not (kube and meta.validate_kube_finalizers(metadata.get("finalizers") or [])):
        return []
    for check in ("update",) if call.subresource == "status" else strategy.metadata_checks:
        if check == "update":
            faults += meta.validate_object_meta_update(new, old, kube_finalizers=kube)
        else:
            faults += meta.validate_object_meta(new, rtype.namespaced, strategy.validate_name, kube_finalizers=kube)
    return faults

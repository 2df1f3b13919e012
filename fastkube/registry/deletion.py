"""Deletion: preconditions, grace periods, finalizers and propagation policies, and what the answer is.

The life of an object that is asked to go (upstream's registry store and `rest.BeforeDelete`):

    live ── no finalizers, no grace period ──────────────────────────────► removed
      │                                                                      ▲
      └─► terminating (deletionTimestamp, deletionGracePeriodSeconds) ───────┘
            finalizers left: an update which empties them removes it
            grace period left: a delete with a shorter one, at last with 0, removes it

Rules:
  1. A propagation policy is a finalizer: "orphan" or "foregroundDeletion", and neither for background. The garbage
     collector acts on it and takes it away.
  2. A second delete may only shorten the grace period and exchange those two finalizers.
  3. A grace period of 0 writes the terminating state and removes it, in one write, so that watchers see both.
  4. Terminating counts as a change of the object: its generation rises, once.

Most objects are held by nothing, and nobody but the registry is asked about their end: then it is made in the encoded
object (endings.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgpack

from fastkube import errors
from fastkube.api import field, schema
from fastkube.clock import parse_rfc3339, rfc3339
from fastkube.errors import ApiError, Cause
from fastkube.registry import endings, listing
from fastkube.registry.answers import Outcome, Page, Stored
from fastkube.registry.custom import establishing
from fastkube.registry.strategy import Call, Object, Strategy
from fastkube.store import KeyMissing, RevisionMismatch

if TYPE_CHECKING:
    from fastkube.api.catalog import ResourceType
    from fastkube.registry.listing import ListOptions
    from fastkube.registry.registry import Registry
    from fastkube.store import Item

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
_POLICIES = ("Foreground", "Background", "Orphan")

_META, _META_SCHEME = "meta.k8s.io/v1", "pkg/apis/meta/internalversion/scheme/register.go:27"
"""What DeleteOptions are without an apiVersion, and where upstream keeps their type, as its messages name the place."""

_ATTEMPTS_MAX = 100
_COLLECTION_WORKERS = 128
"""Objects of a collection that are deleted at the same time, so that they share commits."""

_ORPHANED_PODS = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set "
    "propagationPolicy=Orphan to suppress this warning"
)

_NOT_COLLECTED = frozenset((("", "events"), ("events.k8s.io", "events")))
"""Kinds for which propagation policies mean nothing."""


@dataclass(slots=True)
class DeleteOptions:
    """metav1.DeleteOptions, from the body and the query of a DELETE."""

    grace_period_s: int | None = None
    uid: str | None = None
    resource_version: str | None = None
    propagation: str | None = None
    orphan_dependents: bool | None = None

    @classmethod
    def parse(cls, query: Mapping[str, str], dry_run: list[str]) -> DeleteOptions:
        """Those of a query, which counts where there is no body. Raises 400 and 422."""
        options = cls(propagation=query.get("propagationPolicy"))
        if "gracePeriodSeconds" in query:
            options.grace_period_s = listing.parse_int64(query["gracePeriodSeconds"])
        if "orphanDependents" in query:
            options.orphan_dependents = query["orphanDependents"].lower() not in ("false", "0")
        options._check(dry_run)
        return options

    @classmethod
    def read(cls, body: Object) -> tuple[DeleteOptions, bool]:
        """Those of a body, and whether it is a dry run. Raises 400 and 422."""
        kind, version = body.get("kind") or "DeleteOptions", body.get("apiVersion")
        if kind != "DeleteOptions":
            problem = f'no kind "{kind}" is registered for version "{version or _META}" in scheme "{_META_SCHEME}"'
            raise errors.bad_request(problem)
        try:
            schema.walk(schema.struct("meta.v1.DeleteOptions"), body)
        except ValueError as problem:
            raise errors.bad_request(str(problem)) from None
        preconditions = body.get("preconditions") or {}
        options = cls(
            body.get("gracePeriodSeconds"),
            preconditions.get("uid"),
            preconditions.get("resourceVersion"),
            body.get("propagationPolicy"),
            body.get("orphanDependents"),
        )
        dry_run = body.get("dryRun") or []
        options._check(dry_run)
        return options, bool(dry_run)

    def _check(self, dry_run: list[str]) -> None:
        causes = self._contradictions()
        if any(value != "All" for value in dry_run):
            causes.append(field.not_supported("dryRun", dry_run, ("All",)))
        if causes:
            raise errors.invalid("meta.k8s.io", "DeleteOptions", "", causes)

    def to_object(self) -> Object:
        """In wire form, without apiVersion and kind."""
        preconditions = {"uid": self.uid, "resourceVersion": self.resource_version}
        told = {
            "gracePeriodSeconds": self.grace_period_s,
            "preconditions": {key: value for key, value in preconditions.items() if value is not None} or None,
            "orphanDependents": self.orphan_dependents,
            "propagationPolicy": self.propagation,
        }
        return {key: value for key, value in told.items() if value is not None}

    def _contradictions(self) -> list[Cause]:
        causes: list[Cause] = []
        if self.propagation is not None and self.orphan_dependents is not None:
            shown = field.quote(self.propagation)
            problem = "orphanDependents and deletionPropagation cannot be both set"
            causes.append(Cause("FieldValueInvalid", f"Invalid value: {shown}: {problem}", "propagationPolicy"))
        if self.propagation is not None and self.propagation not in _POLICIES:
            causes.append(field.not_supported("propagationPolicy", self.propagation, (*_POLICIES, "nil")))
        return causes


# ---------------------------------------------------------------- one object


async def delete(registry: Registry, call: Call, options: DeleteOptions) -> Outcome:
    """Removes the object or begins its termination; raises 404, 409 for preconditions, and admission's refusals."""
    options = replace(options)
    call.delete_options = options.to_object()
    _warn_of_orphans(call, options)
    await registry.admission.mutate(call, None, None)
    first = IN_TWO_STEPS.get((call.rtype.group, call.rtype.resource))
    if first is not None:
        outcome = await _begin_end(registry, call, options, first)
        if outcome is not None:
            return outcome
    return await _delete(registry, call, options)


def _warn_of_orphans(call: Call, options: DeleteOptions) -> None:
    """Few expect that the Pods of a Job stay."""
    silent = options.propagation is None and options.orphan_dependents is None
    is_job = (call.rtype.group, call.rtype.resource) == ("batch", "jobs")
    if silent and is_job and _ORPHANED_PODS not in call.warnings:
        call.warnings.append(_ORPHANED_PODS)


async def _delete(registry: Registry, call: Call, options: DeleteOptions) -> Outcome:
    rtype = call.rtype
    strategy = registry.strategy(rtype)
    key = rtype.key(call.namespace, call.name)
    for _ in range(_ATTEMPTS_MAX):
        item = registry.store.get(key)
        if item is None:
            raise errors.not_found(rtype.group, rtype.resource, call.name)
        try:
            return await _try_delete(registry, call, strategy, item, options)
        except (RevisionMismatch, KeyMissing):
            continue
        finally:
            call.companions.clear()
    raise errors.conflict(rtype.group, rtype.resource, call.name, errors.MODIFIED)


async def _try_delete(
    registry: Registry, call: Call, strategy: Strategy, item: Item, options: DeleteOptions
) -> Outcome:
    """One attempt on `item`; raises RevisionMismatch when it changed meanwhile."""
    rtype = call.rtype
    ending = endings.foretell(registry, call, options, item)
    if ending is not None:
        revision = endings.revision_of(await ending.write(registry.store, item))
        return Outcome(ending.result(rtype, call.name, revision))
    old: Object = msgpack.unpackb(item.value)
    _check_preconditions(rtype, old, item, options)
    call.revision = item.mod_revision
    await registry.admission.validate(call, None, old)
    new: Object = {**old, "metadata": dict(old["metadata"])}
    graceful = strategy.graceful and _shorten_life(call, registry, strategy, new, options)
    if graceful is None:  # a deletion is pending, and this one does not hasten it
        return Outcome(endings.result_of(rtype, call.name, old["metadata"]["uid"], item.value, item.mod_revision))
    _set_policy(rtype, new["metadata"], options)
    held = bool(new["metadata"].get("finalizers"))
    if held and not graceful:
        _mark_terminating(call, registry, new["metadata"])
    removed_now = not held and not (graceful and new["metadata"]["deletionGracePeriodSeconds"] > 0)
    value, revision = item.value, item.mod_revision
    changed = (graceful or held) and new != old
    if changed:
        value = msgpack.packb(new)
    if not removed_now:
        if changed and not call.dry_run:
            revision = await registry.store.update(item.key, value, item.mod_revision)
        code = 202 if options.orphan_dependents is False else 200
        return Outcome(Stored(value, revision), code)
    if not call.dry_run:
        revision = await registry.remove(call, item.key, item, new, value if changed else None)
    return Outcome(endings.result_of(rtype, call.name, new["metadata"]["uid"], value, revision))


def _check_preconditions(rtype: ResourceType, obj: Object, item: Item, options: DeleteOptions) -> None:
    name, uid = obj["metadata"]["name"], obj["metadata"]["uid"]
    if options.uid is not None and options.uid != uid:
        problem = (
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({uid}). "
            "The object might have been deleted and then recreated"
        )
        raise errors.conflict(rtype.storage_group, rtype.kind, name, problem)
    version = str(item.mod_revision)
    if options.resource_version is not None and options.resource_version != version:
        problem = (
            f"the ResourceVersion in the precondition ({options.resource_version}) does not match the ResourceVersion "
            f"in record ({version}). The object might have been modified"
        )
        raise errors.conflict(rtype.storage_group, rtype.kind, name, problem)


def _shorten_life(
    call: Call, registry: Registry, strategy: Strategy, obj: Object, options: DeleteOptions
) -> bool | None:
    """Gives a graceful object its deletion time. False: it may go at once; None: nothing changes by this delete."""
    metadata = obj["metadata"]
    deleted_at, pending = metadata.get("deletionTimestamp"), metadata.get("deletionGracePeriodSeconds") or 0
    left = endings.life_left(
        call.now or registry.clock.time(), options, deleted_at, pending, partial(strategy.grace_period_s, obj)
    )
    if not isinstance(left, endings.Left):
        return left
    metadata["deletionTimestamp"], metadata["deletionGracePeriodSeconds"] = rfc3339(left.until), left.grace_s
    if deleted_at is None:
        _raise_generation(metadata)
    return True


def _mark_terminating(call: Call, registry: Registry, metadata: Object) -> None:
    """What finalizers hold back is terminating from now on, with no grace period of its own."""
    now = call.now or registry.clock.time()
    if "deletionTimestamp" not in metadata:
        _raise_generation(metadata)
        metadata["deletionTimestamp"] = rfc3339(now)
    elif parse_rfc3339(metadata["deletionTimestamp"]) > now:
        metadata["deletionTimestamp"] = rfc3339(now)
    metadata["deletionGracePeriodSeconds"] = 0


def _raise_generation(metadata: Object) -> None:
    if metadata.get("generation"):
        metadata["generation"] += 1


def _set_policy(rtype: ResourceType, metadata: Object, options: DeleteOptions) -> None:
    """Exchanges the finalizers that stand for a propagation policy, if the policy asks for others."""
    identity = (rtype.group, rtype.resource)
    if identity in _NOT_COLLECTED:
        return
    finalizers: list[str] = metadata.get("finalizers") or []
    wanted = _policy_finalizer(identity, finalizers, options)
    kept = [name for name in finalizers if name not in (ORPHAN, FOREGROUND)]
    if wanted:
        kept.append(wanted)
    if set(kept) == set(finalizers):
        return
    if kept:
        metadata["finalizers"] = kept
    else:
        metadata.pop("finalizers", None)


def _policy_finalizer(identity: tuple[str, str], finalizers: list[str], options: DeleteOptions) -> str:
    if options.orphan_dependents is not None:
        return ORPHAN if options.orphan_dependents else ""
    if options.propagation is not None:
        return {"Orphan": ORPHAN, "Foreground": FOREGROUND}.get(options.propagation, "")
    for name in finalizers:
        if name in (ORPHAN, FOREGROUND):
            return name
    return ORPHAN if identity in endings.ORPHANING else ""


def is_finished(strategy: Strategy, new: Object, old: Object) -> bool:
    """Whether an update leaves a terminating object that nothing holds any more."""
    was = old["metadata"]
    if "deletionTimestamp" not in was or new["metadata"].get("finalizers"):
        return False
    return not was.get("deletionGracePeriodSeconds") and strategy.removable(new)


# ---------------------------------------------------------------- deletions in two steps


class _FirstStep(NamedTuple):
    """Of a kind whose first delete removes nothing: a process of its own follows, and in its end another delete."""

    begin: Callable[[Registry, Call, Object, DeleteOptions], Object]
    """The object as the first delete leaves it."""
    held: Callable[[Object], bool]
    """Whether an object that is on its way out has to stay."""


async def _begin_end(registry: Registry, call: Call, options: DeleteOptions, step: _FirstStep) -> Outcome | None:
    """The first delete, or one that has to wait; None once an ordinary delete may follow."""
    rtype = call.rtype
    key = rtype.key("", call.name)
    for _ in range(_ATTEMPTS_MAX):
        item = registry.store.get(key)
        if item is None:
            raise errors.not_found(rtype.group, rtype.resource, call.name)
        old: Object = msgpack.unpackb(item.value)
        _check_at_once(call, old, item, options)
        if "deletionTimestamp" in old["metadata"]:
            return Outcome(Stored(item.value, item.mod_revision)) if step.held(old) else None
        call.revision = item.mod_revision
        await registry.admission.validate(call, None, old)
        value = msgpack.packb(step.begin(registry, call, old, options))
        if call.dry_run:
            return Outcome(Stored(value, item.mod_revision))
        try:
            return Outcome(Stored(value, await registry.store.update(key, value, item.mod_revision)))
        except RevisionMismatch:
            continue
    raise errors.conflict(rtype.group, rtype.resource, call.name, errors.MODIFIED)


def _check_at_once(call: Call, obj: Object, item: Item, options: DeleteOptions) -> None:
    """The preconditions of deletions in two steps, which upstream words in another way."""
    uid, version = obj["metadata"]["uid"], str(item.mod_revision)
    pairs = (("UID", options.uid, uid), ("ResourceVersion", options.resource_version, version))
    for what, wanted, found in pairs:
        if wanted is not None and wanted != found:
            problem = f"Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
            raise errors.conflict(call.rtype.group, call.rtype.resource, call.name, problem)


def _end_namespace(registry: Registry, call: Call, old: Object, options: DeleteOptions) -> Object:
    """Terminating: the namespace controller removes its contents, and then empties spec.finalizers by /finalize."""
    new: Object = {**old, "metadata": {**old["metadata"], "deletionTimestamp": registry.timestamp(call)}}
    new["status"] = {**(old.get("status") or {}), "phase": "Terminating"}
    _set_policy(call.rtype, new["metadata"], options)
    return new


def _end_definition(registry: Registry, call: Call, old: Object, _options: DeleteOptions) -> Object:
    return establishing.begin_end(old, registry.timestamp(call))


IN_TWO_STEPS: dict[tuple[str, str], _FirstStep] = {
    ("", "namespaces"): _FirstStep(_end_namespace, lambda old: bool((old.get("spec") or {}).get("finalizers"))),
    ("apiextensions.k8s.io", "customresourcedefinitions"): _FirstStep(_end_definition, lambda _: False),
}


# ---------------------------------------------------------------- collections


async def delete_collection(registry: Registry, call: Call, selection: ListOptions, options: DeleteOptions) -> Page:
    """Deletes what a list with `selection` shows and returns that list; an object that is gone already is no error."""
    _warn_of_orphans(call, options)
    page = listing.list_page(registry.store, call, selection)
    items = [Stored(*one) for one in page.items]
    waiting = iter(items)

    async def work() -> None:
        for value, _ in waiting:
            metadata = msgpack.unpackb(value)["metadata"]
            one = replace(
                call,
                verb="deletecollection",
                namespace=metadata.get("namespace", ""),
                name=metadata["name"],
                companions=type(call.companions)(),
            )
            try:
                await delete(registry, one, options)
            except ApiError as error:
                if error.code != 404:
                    raise

    workers = min(_COLLECTION_WORKERS, len(items))
    await asyncio.gather(*(work() for _ in range(workers)))
    return page._replace(items=items)

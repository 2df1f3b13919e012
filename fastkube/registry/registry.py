"""The generic registry: every verb on every resource, in one fixed order, over the store.

    create:  decode → default → mutating admission → name → prepare → validate → validating admission → write
    update:  read → build the new object → default → mutating admission → version → prepare → validate
             → validating admission → (nothing changed: no write) → write, and again from "read" if another was faster

Rules:
  1. What differs between kinds is in their `Strategy`; what needs other objects is admission or a companion hook. The
     verbs here know no kind.
  2. A write is conditional on the revision it was computed from; whether it happens is decided by the store alone.
  3. A dry run does everything but the write.
  4. An update which changes nothing writes nothing, and the resourceVersion stays.
  5. The last finalizer's removal from a terminating object removes the object.
Answers are encoded objects (`Stored`): what is written is also what is answered, encoded once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Protocol

import msgpack

from fastkube import errors
from fastkube._casts import Cast
from fastkube.api import conversion, meta
from fastkube.clock import Clock, rfc3339
from fastkube.errors import ApiError
from fastkube.registry import (
    binding,
    decoding,
    deletion,
    endings,
    facets,
    listing,
    ownership,
    patching,
    subresources,
    updating,
)
from fastkube.registry.answers import Outcome, Page, Stored
from fastkube.registry.changes import Change, Changes
from fastkube.registry.creations import Creations, Draft, Foretold
from fastkube.registry.custom import converting
from fastkube.registry.deletion import DeleteOptions
from fastkube.registry.leases import Leases
from fastkube.registry.listing import ListOptions
from fastkube.registry.moulds import Lesson, Moulds, rename
from fastkube.registry.plans import Plans
from fastkube.registry.strategies import STRATEGIES
from fastkube.registry.strategy import Call, Object, Strategy
from fastkube.registry.updating import Build, Rules
from fastkube.store import Compare, Delete, KeyExists, KeyMissing, Put, RevisionMismatch

if TYPE_CHECKING:
    from fastkube.api.catalog import Catalog, ResourceType
    from fastkube.registry.endings import Ending
    from fastkube.registry.tokens import TokenSigner
    from fastkube.store import Item, Store

_CREATE_ATTEMPTS_MAX = 8
"""How often a generated name that is taken is made up anew, or companions that were overtaken are."""

_UPDATE_ATTEMPTS_MAX = 100
"""How often an update without a resourceVersion is computed again because another writer was faster."""

_REVISION_DIGITS = 19
"""Numbers of fewer digits are revisions that a store can have."""
_OBJECT_MAX_BYTES = 3 * 1024 * 1024
"""Larger objects are refused, as a request body of that size is."""

EVENT_TTL_S = 3600
"""How long Events live unless another time is asked for; 0 is for ever."""

POD = ("", "pods")

pack: Callable[[Any], bytes] = msgpack.packb
unpack: Callable[[bytes], Any] = msgpack.unpackb


class Admission(Protocol):
    """The chain of admission plugins (fastkube/server/admission). A create has no `old`, a delete no `obj`."""

    async def mutate(self, call: Call, obj: Object | None, old: Object | None) -> None: ...

    async def validate(self, call: Call, obj: Object | None, old: Object | None) -> None: ...

    def constancy(self, call: Call, operation: str = "CREATE") -> int | None:
        """A number that stays the same while any new object of the same shape would be treated the same; None where
        that depends on more. `operation` is CREATE or UPDATE."""

    def bearing(self, call: Call, node: str) -> tuple[str, ...]:
        """What else it depends on where a Pod is bound to this node."""

    def ignores(self, call: Call, operation: str) -> bool:
        """Whether no plugin looks at such a request."""


class Attendant(Protocol):
    """Keeps other stored things in step with a kind's objects, in the same transaction (`call.companions`).

    Each method may change the new object. They run before `prepare_for_*`, once for every attempt at the write.
    """

    def on_create(self, call: Call, obj: Object) -> None: ...

    def on_update(self, call: Call, new: Object, old: Object) -> None: ...

    def on_delete(self, call: Call, old: Object) -> None: ...


Review = Callable[[Call, Object], Awaitable[Object]]


class Registry:
    """Verbs over one store and one catalog.

    `reviews` answer kinds which are never stored (TokenReview, SubjectAccessReview), by (group, resource).
    `attendants` are asked by (group, resource) too. `token_signer` makes the tokens of service accounts.
    """

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        *,
        clock: Clock,
        admission: Admission,
        strategies: Mapping[tuple[str, str], Strategy] = STRATEGIES,
        attendants: Mapping[tuple[str, str], Attendant] | None = None,
        event_ttl_s: int = EVENT_TTL_S,
    ) -> None:
        self.store = store
        self.catalog = catalog
        self.clock = clock
        self.admission = admission
        self.reviews: dict[tuple[str, str], Review] = {("", "bindings"): partial(binding.bind_listed, self)}
        self.token_signer: TokenSigner | None = None
        self._strategies = strategies
        self._attendants = attendants or {}
        self._leases = Leases(store, clock)
        self._event_ttl_s = event_ttl_s
        self._second, self._second_text = -1, ""
        casting = {"pods": self._strategies[POD]} if POD in self._strategies else {}
        self.moulds = Moulds(casting, admission.constancy)
        plans = Plans()
        self.changes = Changes(plans, admission.constancy)
        self.creations = Creations(plans, admission.constancy)

    def strategy(self, rtype: ResourceType) -> Strategy:
        known = self._strategies.get((rtype.group, rtype.resource))
        if known is not None:
            return known
        custom: Strategy | None = rtype.extra.get("strategy")  # of a custom kind
        return custom or _generic(rtype)

    # ---------------------------------------------------------------- reading

    def get(self, call: Call) -> Stored:
        """The object, or what a subresource shows of it.

        Raises 404 when there is no such object, 504 when the resourceVersion asked for is not reached yet.
        """
        rtype = call.rtype
        key = rtype.key(call.namespace, call.name)
        item = listing.read_item(self.store, key, call.query.get("resourceVersion", ""))
        if item is None:
            raise errors.not_found(rtype.group, rtype.resource, call.name)
        stored = Stored(item.value, item.mod_revision)
        return facets.facet_of(self, call).answer(call, stored) if call.subresource else stored

    def list(self, call: Call, options: ListOptions) -> Page:
        return listing.list_page(self.store, call, options)

    # ---------------------------------------------------------------- create

    async def create(self, call: Call, obj: Object) -> Stored:
        """Writes a new object; raises 409 AlreadyExists, 422 Invalid, and whatever admission refuses with."""
        if call.subresource:
            return await subresources.create(self, call, obj)
        if not call.rtype.persisted:
            return await self._answer_review(call, obj)
        if call.rtype.by_webhook:
            template = pack(obj)
            return await converting.completed(
                call.rtype, lambda: self.create_decoded(call, decoding.decode(call, unpack(template)))
            )
        return await self.create_decoded(call, decoding.decode(call, obj))

    async def _answer_review(self, call: Call, obj: Object) -> Stored:
        review = self.reviews.get((call.rtype.group, call.rtype.resource))
        if review is None:
            raise errors.method_not_supported(call.rtype.storage_group, call.rtype.resource, call.verb)
        asked = decoding.decode(call, obj)
        if call.rtype.group:
            if not call.rtype.namespaced:
                asked["metadata"].pop("namespace", None)
            ownership.set_created(call, self.strategy(call.rtype), asked)
        return Stored(pack(await review(call, asked)), 0)

    async def create_decoded(self, call: Call, obj: Object, *, managed: bool = False) -> Stored:
        """`create` of an object that is decoded already. `managed`: it says who owns its fields (an apply made it)."""
        strategy = self.strategy(call.rtype)
        call.now = call.now or self.clock.time()
        metadata = obj["metadata"]
        claimed_version = metadata.pop("resourceVersion", "")
        self._fill_system_fields(call, metadata)
        if not call.name:
            call.name = metadata.get("name") or ""
        strategy.default(obj)
        if "ownerReferences" in metadata:
            call.warnings += meta.drop_equal_owners(metadata)
        if not managed:
            ownership.set_created(call, strategy, obj)
        decoding.nullify(call, obj)
        await self.admission.mutate(call, obj, None)
        base = metadata.get("generateName") if not metadata.get("name") else None
        for _ in range(_CREATE_ATTEMPTS_MAX):
            if base:
                metadata["name"] = meta.generate_name(base)
            try:
                stored = await self._try_create(call, strategy, obj, claimed_version)
            except KeyExists as taken:
                if base:
                    continue
                if metadata.get("generateName"):
                    raise _no_unique_name(call, metadata["name"]) from None
                raise _already_exists(call, metadata["name"], taken.item) from None
            finally:
                call.companions.clear()
            if stored is not None:
                return stored
        if base:
            raise _no_unique_name(call, metadata["name"])
        raise errors.conflict(call.rtype.group, call.rtype.resource, metadata["name"], errors.MODIFIED)

    async def create_cast(self, call: Call, cast: Cast | Foretold) -> int:
        """`create` of an object that is made already; its revision. Raises 409 AlreadyExists."""
        strategy = self.strategy(call.rtype)
        lease = await self.lease(strategy.expires)
        for _ in range(_CREATE_ATTEMPTS_MAX):
            try:
                return await self.store.create(cast.key, cast.value, lease)
            except KeyExists as taken:
                if not (isinstance(cast, Cast) and rename(cast)):
                    raise _already_exists(call, cast.name.decode(), taken.item) from None
        raise _no_unique_name(call, cast.name.decode())

    def cast(self, call: Call, media: str, body: bytes) -> Cast | Lesson | Foretold | Draft | None:
        """The object of a body that is like others, or what may be learned of it: see `Moulds` and `Creations`."""
        if (call.rtype.group, call.rtype.resource) == POD:
            return self.moulds.cast(call, media, body, self.timestamp(call))
        return self._begun(call, media, body)

    def _begun(self, call: Call, media: str, body: bytes) -> Foretold | Draft | None:
        if (call.rtype.group, call.rtype.resource) in self._attendants:
            return None
        begun = self.creations.begin(call, media, body, self.timestamp(call))
        if isinstance(begun, Foretold):
            call.warnings += begun.warnings
        return begun

    def recast(self, call: Call, media: str, body: bytes) -> Cast | Foretold | Draft | None:
        """`cast` for a call that was cast before, and only if there is nothing to warn about."""
        if (call.rtype.group, call.rtype.resource) == POD:
            return self.moulds.recast(call, media, body, self.timestamp(call))
        found = self.creations.begin(call, media, body, self.timestamp(call))
        return None if isinstance(found, Foretold) and found.warnings else found

    def _fill_system_fields(self, call: Call, metadata: Object) -> None:
        """What only the server may say about a new object."""
        for key in ("selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"):
            if key in metadata:
                del metadata[key]
        if call.namespace and call.rtype.namespaced:
            namespace = metadata.get("namespace")
            if namespace and namespace != call.namespace:
                problem = "the namespace of the provided object does not match the namespace sent on the request"
                raise errors.bad_request(problem)
            metadata["namespace"] = call.namespace
        elif "namespace" in metadata:
            del metadata["namespace"]
        metadata["uid"] = meta.new_uid()
        metadata["creationTimestamp"] = self.timestamp(call)

    async def _try_create(self, call: Call, strategy: Strategy, obj: Object, claimed_version: str) -> Stored | None:
        """One attempt with a settled name; None when a companion of the object was overtaken."""
        rtype = call.rtype
        attendant = self._attendants.get((rtype.group, rtype.resource))
        if attendant is not None:
            attendant.on_create(call, obj)
        strategy.prepare_for_create(call, obj)
        metadata = obj["metadata"]
        if strategy.has_generation:
            metadata["generation"] = 1
        causes = meta.validate_object_meta(
            obj, rtype.namespaced, strategy.validate_name, kube_finalizers=strategy.kube_finalizers and not rtype.custom
        )
        own = strategy.validate(call, obj)
        causes = own if own and strategy.metadata_last else causes + own
        name = metadata.get("name") or ""
        if causes:
            raise errors.invalid(rtype.storage_group, rtype.kind, name, causes)
        call.warnings += strategy.warnings(call, obj, None)
        strategy.canonicalize(obj)
        await self.admission.validate(call, obj, None)
        if claimed_version and _is_revision(claimed_version) and not call.dry_run:
            raise ApiError(500, "", "resourceVersion should not be set on objects to be created")
        value = pack(obj)
        if len(value) > _OBJECT_MAX_BYTES:
            raise _too_big(len(value))
        key = rtype.key(call.namespace, name)
        if call.dry_run:
            taken = self.store.get(key)
            if taken is not None:
                raise KeyExists(taken)
            shown = len(claimed_version) < _REVISION_DIGITS and _is_revision(claimed_version)
            return Stored(value, int(claimed_version) if shown else 0)
        if call.companions:
            return await self._put_accompanied(call, key, value, None)
        lease = await self.lease(strategy.expires)
        return Stored(value, await self.store.create(key, value, lease))

    async def _put_accompanied(self, call: Call, key: bytes, value: bytes, over: Item | None) -> Stored | None:
        """Writes the object and its companions, or nothing: None when any of them changed meanwhile."""
        companions = call.companions
        unchanged = Compare(key, "mod", "=", over.mod_revision if over is not None else 0)
        result = await self.store.txn([unchanged, *companions.compares], [Put(key, value), *companions.ops])
        if result.succeeded:
            return Stored(value, result.revision)
        if over is None:
            taken = self.store.get(key)
            if taken is not None:
                raise KeyExists(taken)
        return None

    # ---------------------------------------------------------------- update

    def change(self, call: Call, media: str, body: bytes) -> Change | None:
        """See `Changes.begin`; None for a kind whose objects are kept in step with others."""
        call.now = call.now or self.clock.time()
        if (call.rtype.group, call.rtype.resource) in self._attendants:
            return None
        return self.changes.begin(call, media, body, self.timestamp(call))

    def foretells(self, call: Call) -> bool:
        """Whether changes of this kind may be foretold."""
        return self.changes.knows(call.rtype) and (call.rtype.group, call.rtype.resource) not in self._attendants

    async def make(self, call: Call, change: Change) -> Stored | None:
        """What a change that is like others has made of the object; None if it has to go the long way."""
        key = call.rtype.key(call.namespace, call.name)
        for _ in range(_UPDATE_ATTEMPTS_MAX):
            item = self.store.get(key)
            if item is None:
                change.is_of_nothing = True
                return None
            value = change.foretell(item)
            if value is None or self.store.is_stale(key):
                return None
            if value == item.value:
                return Stored(value, item.mod_revision)
            strategy = self.strategy(call.rtype)
            lease = await self.lease(strategy.expires)
            try:
                return Stored(value, await self.store.update(key, value, item.mod_revision, lease))
            except RevisionMismatch:
                continue
        return None

    async def update(self, call: Call, obj: Object, change: Change | None = None) -> tuple[Stored, bool]:
        """Replaces an object, or writes a subresource of it; True when it was created, where the kind allows that.

        `change`: what may be learned from it."""
        if call.rtype.by_webhook:
            template = pack(obj)
            return await converting.completed(call.rtype, lambda: self._update(call, unpack(template), None))
        return await self._update(call, obj, change)

    async def _update(self, call: Call, obj: Object, change: Change | None) -> tuple[Stored, bool]:
        facet = facets.facet_of(self, call)
        body = decoding.read(call, obj, facet.group, facet.version, facet.kind)
        updating.check_name(call, body.setdefault("metadata", {}))
        if not call.subresource and self._creates_missing(call):
            facets.check_unborn(call, body["metadata"])
            return await self.create_decoded(call, decoding.to_storage(call, body)), True
        stored = await self.modify(call, facets.replacement(call, facet, body), facet.rules, change)
        return facet.answer(call, stored), False

    def _creates_missing(self, call: Call) -> bool:
        """Whether a PUT to this name makes a new object."""
        if not self.strategy(call.rtype).allow_create_on_update:
            return False
        return self.store.get(call.rtype.key(call.namespace, call.name)) is None

    async def patch(self, call: Call, content_type: str, body: bytes) -> tuple[Stored, bool]:
        """Applies a patch to the latest state, again and again until no other writer is in between."""
        if call.rtype.by_webhook:
            return await converting.completed(call.rtype, lambda: patching.patch(self, call, content_type, body))
        change = self.change(call, content_type, body)
        made = await self.make(call, change) if change is not None else None
        if made is not None:
            return made, False
        if content_type == patching.APPLY and change is not None and change.is_of_nothing:
            return await self._apply_first(call, body)
        return await patching.patch(self, call, content_type, body, change)

    async def _apply_first(self, call: Call, body: bytes) -> tuple[Stored, bool]:
        """An apply to a name that there was not."""
        first = self._begun(call, patching.APPLY, body)
        if isinstance(first, Foretold):
            try:
                return Stored(first.value, await self.create_cast(call, first)), True
            except ApiError:  # somebody was faster
                return await patching.patch(self, call, patching.APPLY, body)
        stored, is_new = await patching.patch(self, call, patching.APPLY, body)
        if first is not None and is_new:
            first.learn(stored.value, self.timestamp(call))
        return stored, is_new

    async def modify(self, call: Call, build: Build, rules: Rules, change: Change | None = None) -> Stored:
        """The one way to change an object: `build` is given the old object (which it must not change) and its item.
        `change` is told of what comes of it.

        Raises 404, 409 Conflict when the draft was made from another version, 422, and admission's refusals.
        """
        rtype = call.rtype
        key = rtype.key(call.namespace, call.name)
        call.now = call.now or self.clock.time()
        for _ in range(_UPDATE_ATTEMPTS_MAX):
            item = self.store.get(key)
            if item is None:
                raise errors.not_found(rtype.group, rtype.resource, call.name)
            learning = change is not None and change.foretell(item) is None
            try:
                stored = await self._try_update(call, key, item, build, rules, change if learning else None)
            except RevisionMismatch:
                continue
            finally:
                call.companions.clear()
            if stored is not None:
                return stored
        raise errors.conflict(rtype.group, rtype.resource, call.name, errors.MODIFIED)

    async def _try_update(
        self, call: Call, key: bytes, item: Item, build: Build, rules: Rules, change: Change | None
    ) -> Stored | None:
        """One attempt over `item`; None when a companion of the object was overtaken."""
        rtype = call.rtype
        strategy = self.strategy(rtype)
        old = unpack(item.value)
        if rtype.stale:
            old = conversion.convert(rtype, old, rtype.storage_api_version)
        new, claimed_version, managed = build(old, item)
        strategy.default(new)
        if "ownerReferences" in new["metadata"]:
            call.warnings += meta.drop_equal_owners(new["metadata"])
        call.revision = item.mod_revision
        if not managed:
            ownership.set_updated(call, strategy, new, old)
        decoding.nullify(call, new)
        await self.admission.mutate(call, new, old)
        updating.check_version(call, strategy, claimed_version, item)
        attendant = self._attendants.get((rtype.group, rtype.resource))
        if attendant is not None:
            attendant.on_update(call, new, old)
        updating.keep_system_fields(new["metadata"], old["metadata"])
        rules.prepare(call, new, old)
        if rules.raises_generation and strategy.has_generation and strategy.spec_changed(new, old):
            new["metadata"]["generation"] = (old["metadata"].get("generation") or 0) + 1
        causes = updating.metadata_faults(call, strategy, new, old) + rules.validate(call, new, old)
        if causes:
            raise errors.invalid(rtype.storage_group, rtype.kind, call.name, causes)
        call.warnings += strategy.warnings(call, new, old)
        await self.admission.validate(call, new, old)
        if deletion.is_finished(strategy, new, old):
            await self._remove_finished(call, key, item, old)
            return Stored(pack(new), item.mod_revision)
        ownership.settle(new, old)
        if new == old and not (rtype.stale or self.store.is_stale(key)):  # clients migrate by writing it again
            if change is not None:
                change.learn(item.value)
            return Stored(item.value, item.mod_revision)
        value = pack(new)
        if len(value) > _OBJECT_MAX_BYTES:
            raise _too_big(len(value))
        if call.dry_run:
            return Stored(value, item.mod_revision)
        if call.companions:
            return await self._put_accompanied(call, key, value, item)
        lease = await self.lease(strategy.expires)
        stored = Stored(value, await self.store.update(key, value, item.mod_revision, lease))
        if change is not None:
            change.learn(value)
        return stored

    async def _remove_finished(self, call: Call, key: bytes, item: Item, old: Object) -> None:
        """Removes an object whose last finalizer goes; raises RevisionMismatch when it changed meanwhile."""
        if call.dry_run:
            return
        call.companions.clear()
        await self.remove(call, key, item, old)

    async def remove(self, call: Call, key: bytes, item: Item, old: Object, last: bytes | None = None) -> int:
        """Deletes the object (and what accompanies it) if it is still `item`; the revision of the deletion. `last`: a
        version that watchers see before, of a kind that nothing accompanies.

        Raises RevisionMismatch when it is not.
        """
        attendant = self._attendants.get((call.rtype.group, call.rtype.resource))
        if attendant is not None:
            attendant.on_delete(call, old)
        try:
            if not call.companions:
                return await self._remove_alone(key, item, last)
            unchanged = Compare(key, "mod", "=", item.mod_revision)
            ops = [Delete(key), *call.companions.ops]
            result = await self.store.txn([unchanged, *call.companions.compares], ops)
        finally:
            call.companions.clear()
        if not result.succeeded:
            raise RevisionMismatch(key, self.store.get(key))
        return result.revision

    async def _remove_alone(self, key: bytes, item: Item, last: bytes | None) -> int:
        try:
            if last is not None:
                return (await self.store.retire(key, last, item.mod_revision)).delete_revision
            return (await self.store.delete(key, item.mod_revision)).delete_revision
        except KeyMissing:
            raise RevisionMismatch(key, None) from None

    def ends_alone(self, call: Call) -> bool:
        """Whether one delete is all it takes, nobody else is asked and nothing else changes."""
        kind = (call.rtype.group, call.rtype.resource)
        return (
            kind not in self._attendants
            and kind not in deletion.IN_TWO_STEPS
            and self.admission.ignores(call, "DELETE")
        )

    # ---------------------------------------------------------------- delete

    def foretell_end(self, call: Call, options: DeleteOptions) -> tuple[Item, Ending] | None:
        """The object that a delete is about and its end, if no closer look is needed."""
        item = self.store.get(call.rtype.key(call.namespace, call.name))
        ending = endings.foretell(self, call, options, item) if item is not None else None
        return (item, ending) if item is not None and ending is not None else None

    async def delete(self, call: Call, options: DeleteOptions) -> Outcome:
        return await deletion.delete(self, call, options)

    async def delete_collection(self, call: Call, selection: ListOptions, options: DeleteOptions) -> Page:
        return await deletion.delete_collection(self, call, selection, options)

    # ---------------------------------------------------------------- helpers

    async def lease(self, expires: bool) -> int:
        """On which an object lives that vanishes by itself; 0 for one that lives until it is deleted."""
        return await self._leases.get(self._event_ttl_s) if expires and self._event_ttl_s else 0

    def timestamp(self, call: Call) -> str:
        """The time of the call as metav1.Time; formatted once a second."""
        second = int(call.now or self.clock.time())
        if second != self._second:
            self._second, self._second_text = second, rfc3339(second)
        return self._second_text


@cache
def _generic(rtype: ResourceType) -> Strategy:
    """For a kind that has no strategy of its own: it has a status if that has a subresource, and no generation."""
    strategy = Strategy()
    strategy.has_status = "status" in rtype.subresources
    strategy.has_generation = False
    return strategy


def _already_exists(call: Call, name: str, taken: Item) -> ApiError:
    error = errors.already_exists(call.rtype.group, call.rtype.resource, name)
    if b"\xb1deletionTimestamp" in taken.value and "deletionTimestamp" in unpack(taken.value)["metadata"]:
        error.message = f"object is being deleted: {error.message}"
    return error


def _no_unique_name(call: Call, name: str) -> ApiError:
    error = errors.already_exists(call.rtype.group, call.rtype.resource, name)
    error.message += ", the server was not able to generate a unique name for the object"
    error.details = {**(error.details or {}), "retryAfterSeconds": 1}
    return error


def _is_revision(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) != 0


def _too_big(size: int) -> ApiError:
    return ApiError(500, "", f"etcdserver: request is too large ({size} bytes; at most {_OBJECT_MAX_BYTES})")

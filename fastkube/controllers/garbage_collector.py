"""The garbage collector: objects whose owners are gone go too, in the way their owners were deleted.

Keys are `resource|namespace/name`: one object, looked at together with its owners and its dependents.
  * Background: the owner is gone; an object none of whose owners is left is deleted, one with some left loses the
    references to those that are gone.
  * Foreground: the owner has a deletion timestamp and the finalizer foregroundDeletion. Its dependents are deleted, and
    when none is left that blocks it (blockOwnerDeletion) its finalizer is removed.
  * Orphan: the owner has the finalizer orphan. Its dependents lose their references, then it loses the finalizer.

What makes this safe though caches lag behind: an owner counts as gone only when its deletion was seen, or the server
says so when asked; a deletion is conditional on the uid and the very revision that was looked at. An owner is looked
for in the dependent's namespace only: a reference across namespaces is one to an owner that does not exist. A reference
from a cluster-scoped object to a namespaced kind cannot be resolved, and such an object is left alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, NamedTuple

from fastkube.client import object_key
from fastkube.client.discovery import Discovery, discover
from fastkube.client.resource import object_path
from fastkube.controllers.actions import GONE, Action, Ask, Delete, Fail, Patch, Tell, Together
from fastkube.controllers.common import Object, is_terminating
from fastkube.controllers.pod_topics import METADATA
from fastkube.controllers.runner import Context, Controller, Engine, Runner
from fastkube.errors import ApiError

log = logging.getLogger(__name__)

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
IGNORED = frozenset({("", "events"), ("events.k8s.io", "events")})
REDISCOVERY_S = 30.0
CUSTOM_RESOURCES = "apiextensions.k8s.io/v1/customresourcedefinitions"
GONE_MAX = 65536
_KEPT = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "ownerReferences",
    "finalizers",
    "deletionTimestamp",
    "creationTimestamp",
)


class State(Enum):
    """What is known of an owner."""

    SOLID = "there"
    WAITING = "waits for its dependents"
    ABSENT = "gone"
    UNKNOWN = "not known: the server has to be asked"
    UNRESOLVABLE = "namespaced, while the dependent is not"
    UNMAPPED = "of a kind that is not served"


class Owner(NamedTuple):
    ref: Object
    state: State
    path: str = ""
    elsewhere: bool = False
    """An object of that uid is in another namespace."""


class Dependent(NamedTuple):
    resource: str
    obj: Object


class View(NamedTuple):
    resource: str
    obj: Object
    owners: list[Owner]
    dependents: list[Dependent]
    live: dict[str, Any] = {}  # noqa: RUF012 - never changed, only replaced


# ---------------------------------------------------------------- the decision


def _finalizers(obj: Object) -> list[str]:
    return obj["metadata"].get("finalizers") or []


def waits_for_dependents(obj: Object) -> bool:
    return is_terminating(obj) and FOREGROUND in _finalizers(obj)


def waits_for_orphaning(obj: Object) -> bool:
    return is_terminating(obj) and ORPHAN in _finalizers(obj)


def reconcile(view: View) -> Sequence[Action]:
    obj = view.obj
    if waits_for_orphaning(obj):
        return _orphan_dependents(view)
    if waits_for_dependents(obj):
        if any(_blocks(dependent.obj, obj) for dependent in view.dependents):
            return ()  # each of them is looked at on its own, and its end brings this one back
        return [_without_finalizer(view, FOREGROUND)]
    if is_terminating(obj) or not view.owners:
        return ()
    return _judge(view)


def _judge(view: View) -> Sequence[Action]:
    """What becomes of an object that is not being deleted, by the state of its owners."""
    asks: list[Action] = [
        Ask(owner.path, metadata_only=True, uid=owner.ref["uid"])
        for owner in view.owners
        if owner.state is State.UNKNOWN and owner.path not in view.live
    ]
    if asks:
        return asks
    owners = [_resolved(view, owner) for owner in view.owners]
    states = {owner.state for owner in owners}
    if State.UNMAPPED in states:
        ref = next(owner.ref for owner in owners if owner.state is State.UNMAPPED)
        return [Fail(f"no resource is served for owner kind {ref['kind']} in {ref['apiVersion']}")]
    if State.UNRESOLVABLE in states:
        return ()
    told = [_tell_elsewhere(view, owner) for owner in owners if owner.elsewhere]
    if State.SOLID in states:
        kept = [owner.ref for owner in owners if owner.state is State.SOLID]
        return [*told, _with_references(view, kept)] if len(kept) < len(owners) else told
    if State.WAITING in states and view.dependents:
        actions: list[Action] = list(told)
        if any(waits_for_dependents(dependent.obj) for dependent in view.dependents):
            # a circle of objects which wait for each other: this one no longer blocks its owners
            actions.append(_with_references(view, [{**owner.ref, "blockOwnerDeletion": False} for owner in owners]))
            return actions
        return [*actions, _delete(view, "Foreground")]
    return [*told, _delete(view, _policy(view.obj))]


def _resolved(view: View, owner: Owner) -> Owner:
    """The owner after the server has answered."""
    if owner.state is not State.UNKNOWN:
        return owner
    found = view.live[owner.path]
    if found is None or found["metadata"]["uid"] != owner.ref["uid"]:
        return owner._replace(state=State.ABSENT)
    return owner._replace(state=State.WAITING if waits_for_dependents(found) else State.SOLID, elsewhere=False)


def _policy(obj: Object) -> Any:
    if ORPHAN in _finalizers(obj):
        return "Orphan"
    return "Foreground" if FOREGROUND in _finalizers(obj) else "Background"


def _delete(view: View, policy: Any) -> Delete:
    revision = view.obj["metadata"]["resourceVersion"]
    return Delete(view.resource, view.obj, propagation=policy, resource_version=revision, ignore=GONE)


def _with_references(view: View, references: list[Object]) -> Patch:
    return _references_patch(view.resource, view.obj, references)


def _references_patch(resource: str, obj: Object, references: list[Object]) -> Patch:
    metadata = {"resourceVersion": obj["metadata"]["resourceVersion"], "ownerReferences": references or None}
    return Patch(resource, obj, body={"metadata": metadata}, ignore=GONE)


def _without_finalizer(view: View, finalizer: str) -> Patch:
    left = [name for name in _finalizers(view.obj) if name != finalizer]
    metadata = {"resourceVersion": view.obj["metadata"]["resourceVersion"], "finalizers": left or None}
    return Patch(view.resource, view.obj, body={"metadata": metadata}, ignore=GONE)


def _orphan_dependents(view: View) -> Sequence[Action]:
    uid = view.obj["metadata"]["uid"]
    patches = []
    for resource, obj in view.dependents:
        kept = [ref for ref in obj["metadata"]["ownerReferences"] if ref["uid"] != uid]
        patches.append(_references_patch(resource, obj, kept))
    return [Together(patches), _without_finalizer(view, ORPHAN)] if patches else [_without_finalizer(view, ORPHAN)]


def _blocks(dependent: Object, owner: Object) -> bool:
    uid = owner["metadata"]["uid"]
    return any(
        ref["uid"] == uid and ref.get("blockOwnerDeletion")
        for ref in dependent["metadata"].get("ownerReferences") or ()
    )


def _tell_elsewhere(view: View, owner: Owner) -> Tell:
    ref = owner.ref
    told = f"[{ref['apiVersion']}/{ref['kind']}, namespace: , name: {ref['name']}, uid: {ref['uid']}]"
    message = f'ownerRef {told} does not exist in namespace "{view.obj["metadata"].get("namespace", "")}"'
    return Tell(view.obj, "Warning", "OwnerRefInvalidNamespace", message)


# ---------------------------------------------------------------- the world of the collector


class _Map:
    """Which monitored resource an owner reference means, as far as is known."""

    def __init__(self, discovery: Discovery) -> None:
        self.update(discovery)

    def update(self, discovery: Discovery) -> None:
        preferred = {
            (found.resource.group, found.resource.plural): str(found.resource)
            for found in discovery.preferred("delete", "list", "watch")
            if (found.resource.group, found.resource.plural) not in IGNORED
        }
        self.monitored = frozenset(preferred.values())
        self._by_kind: dict[tuple[str, str], tuple[str, bool]] = {}
        for found in discovery.resources:
            resource = preferred.get((found.resource.group, found.resource.plural))
            if resource is not None:
                self._by_kind.setdefault((found.resource.api_version, found.kind), (resource, found.namespaced))

    def find(self, ref: Object) -> tuple[str, bool] | None:
        """(monitored resource, whether it is namespaced)."""
        return self._by_kind.get((ref["apiVersion"], ref["kind"]))


class _Memory:
    """Uids of objects that are gone for good; the oldest is forgotten, so it is never wrong, only incomplete."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, None] = OrderedDict()

    def add(self, known: str) -> None:
        self._known[known] = None
        if len(self._known) > GONE_MAX:
            self._known.popitem(last=False)

    def __contains__(self, known: object) -> bool:
        return known in self._known


class _Runner(Runner):
    """A runner whose watches come and go with what the server serves."""

    mapping: _Map
    gone: _Memory

    def follow(self, resource: str) -> None:
        informer = self._caches.need(resource, ("owner",), metadata_only)
        informer.add_handler(
            lambda obj: self._changed(resource, None, obj),
            lambda old, new: self._changed(resource, old, new),
            lambda obj: self._removed(resource, obj),
            about=(METADATA,),
        )

    def _changed(self, resource: str, old: Object | None, new: Object) -> None:
        if old is not None and _facts(old) == _facts(new):
            return
        metadata = new["metadata"]
        if waits_for_dependents(new) or waits_for_orphaning(new):
            self._look_at(resource, new)
            self._look_at_all(self.dependents(metadata["uid"]))
        refs = metadata.get("ownerReferences") or ()
        if refs and any(self.owner(new, ref).state is not State.SOLID for ref in refs):
            self._look_at(resource, new)
        if old is not None and (old["metadata"].get("ownerReferences") or ()) != refs:
            self._look_at_waiting_owners(old)

    def _removed(self, resource: str, obj: Object) -> None:
        uid = obj["metadata"]["uid"]
        self.gone.add(uid)
        self._look_at_all(self.dependents(uid))
        self._look_at_waiting_owners(obj)

    def _look_at(self, resource: str, obj: Object) -> None:
        self.queue.add(f"{resource}|{object_key(obj)}")

    def _look_at_all(self, dependents: Iterable[Dependent]) -> None:
        for resource, obj in dependents:
            self._look_at(resource, obj)

    def _look_at_waiting_owners(self, obj: Object) -> None:
        for ref in obj["metadata"].get("ownerReferences") or ():
            if self.owner(obj, ref).state is State.WAITING:
                found = self.mapping.find(ref)
                if found is not None:
                    namespace = obj["metadata"].get("namespace", "") if found[1] else ""
                    self.queue.add(
                        f"{found[0]}|{namespace}/{ref['name']}" if namespace else f"{found[0]}|{ref['name']}"
                    )

    def dependents(self, uid: str) -> list[Dependent]:
        return [
            Dependent(resource, obj)
            for resource in self.mapping.monitored
            if self._caches.has(resource)
            for obj in self._caches.index(resource, "owner", uid)
        ]

    def owner(self, obj: Object, ref: Object) -> Owner:
        """What the caches know of an owner."""
        found = self.mapping.find(ref)
        if found is None:
            return Owner(ref, State.UNMAPPED)
        resource, namespaced = found
        namespace = obj["metadata"].get("namespace", "")
        if namespaced and not namespace:
            return Owner(ref, State.UNRESOLVABLE)
        if ref["uid"] in self.gone:
            return Owner(ref, State.ABSENT)
        known = self._caches.get(resource, namespace if namespaced else "", ref["name"])
        if known is not None and known["metadata"]["uid"] == ref["uid"]:
            return Owner(ref, State.WAITING if waits_for_dependents(known) else State.SOLID)
        path = object_path(resource, namespace if namespaced else "", ref["name"])
        return Owner(ref, State.UNKNOWN, path)

    def _is_elsewhere(self, obj: Object, owner: Owner) -> bool:
        """Whether the owner that cannot be found is an object of another namespace."""
        found = self.mapping.find(owner.ref)
        if found is None or not found[1] or owner.state is not State.UNKNOWN:
            return False
        return any(other["metadata"]["uid"] == owner.ref["uid"] for other in self._caches.list(found[0]))

    async def answer(self, asks: Sequence[Action]) -> dict[str, Any]:
        """Of many dependents of one owner that is gone only the first asks."""
        questions = [ask for ask in asks if isinstance(ask, Ask)]
        known = {ask.path: None for ask in questions if ask.uid in self.gone}
        answers = await super().answer([ask for ask in questions if ask.path not in known])
        for ask in questions:
            found = answers.get(ask.path)
            if found is None or found["metadata"]["uid"] != ask.uid:
                self.gone.add(ask.uid)
        return {**known, **answers}

    def look(self, context: Context, key: str) -> View | None:
        resource, _, name = key.partition("|")
        obj = context.caches.by_key(resource, name) if context.caches.has(resource) else None
        if obj is None:
            return None
        owners = [self.owner(obj, ref) for ref in obj["metadata"].get("ownerReferences") or ()]
        owners = [owner._replace(elsewhere=self._is_elsewhere(obj, owner)) for owner in owners]
        matters = is_terminating(obj) or any(owner.state in (State.WAITING, State.UNKNOWN) for owner in owners)
        return View(resource, obj, owners, self.dependents(obj["metadata"]["uid"]) if matters else [])


def metadata_only(obj: Object, _kept: Object | None = None) -> Object:
    """What is kept of resources that only the collector reads."""
    metadata = {key: obj["metadata"][key] for key in _KEPT if key in obj["metadata"]}
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": metadata}


def _facts(obj: Object) -> tuple[Any, ...]:
    metadata = obj["metadata"]
    return metadata.get("ownerReferences"), metadata.get("finalizers"), is_terminating(obj)


class GarbageCollector(Engine):
    """Follows every resource that can be deleted, as discovery tells them, also those that come later."""

    name = "garbage-collector-controller"

    def prepare(self) -> None:
        self._runner = _Runner(
            Controller(
                name=self.name,
                watches=(),
                view=lambda context, key: self._runner.look(context, key),
                reconcile=reconcile,
                workers="concurrent_gc_syncs",
            ),
            self._client,
            self._caches,
            self._clock,
            self._recorder,
            self._options,
            self._facts,
        )
        self._runner.mapping = _Map(self._facts.discovery)
        self._runner.gone = _Memory()
        self._rediscover = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        if not self._options.enable_garbage_collector:
            return
        for resource in sorted(self._runner.mapping.monitored):
            self._runner.follow(resource)
        if CUSTOM_RESOURCES in self._runner.mapping.monitored:
            self._caches.need(CUSTOM_RESOURCES).add_handler(self._note, lambda old, new: self._note(new), self._note)

    def _note(self, _definition: Object) -> None:
        self._rediscover.set()

    def start(self) -> None:
        if self._options.enable_garbage_collector:
            self._runner.start()
            self._task = asyncio.get_running_loop().create_task(self._keep_up(), name="garbage collector discovery")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._runner.stop()

    async def _keep_up(self) -> None:
        """Follow what is served anew, and forget what is no longer served."""
        while True:
            await self._wait()
            try:
                discovery = await discover(self._client)
            except ApiError as error:
                log.warning("garbage collector: discovery: %s", error.message)
                continue
            before = self._runner.mapping.monitored
            self._runner.mapping.update(discovery)
            after = self._runner.mapping.monitored
            if discovery.failed:
                self._runner.mapping.monitored = after = after | before  # what could not be asked is not gone
            for resource in sorted(after - before):
                self._runner.follow(resource)
            for resource in before - after:
                await self._caches.forget(resource)

    async def _wait(self) -> None:
        """A while; less when custom resources have changed, which are served shortly after."""
        pause = asyncio.ensure_future(self._clock.sleep(REDISCOVERY_S))
        hint = asyncio.ensure_future(self._rediscover.wait())
        await asyncio.wait((pause, hint), return_when=asyncio.FIRST_COMPLETED)
        for task in (pause, hint):
            task.cancel()
        if self._rediscover.is_set():
            self._rediscover.clear()
            await asyncio.sleep(1.0)

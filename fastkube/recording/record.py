"""A recording: the state of a cluster when it began, and from there every change with its time.

Each resource is followed by an informer, so a watch that breaks goes on where it was; one whose position is lost lists
again, and what changed meanwhile is one change. A recording that is gone on with (`known`) is treated alike.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from functools import partial
from typing import Any

import orjson

from fastkube.api.documents import Writer
from fastkube.api.patch import merge_patch
from fastkube.client import Client, Informer, Resource
from fastkube.client.discovery import ApiResource, discover
from fastkube.clock import Clock
from fastkube.recording.objects import Change, Key, cleaned, diff, key_of, left_out, split, without_nulls
from fastkube.recording.save import chosen

log = logging.getLogger(__name__)
Object = dict[str, Any]

FLUSH_S = 1.0
_DEFINITIONS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")


class Recorder:
    """`await run()` until cancelled; `ready` when the first state is written. Keeps each object once, as bytes."""

    def __init__(
        self,
        client: Client,
        writer: Writer,
        clock: Clock,
        *,
        only: Collection[str] = (),
        secrets: bool = False,
        known: Iterable[Object] | None = None,
    ) -> None:
        """`known`: what the file has that is gone on with. Raises ValueError."""
        self._client, self._writer, self._clock = client, writer, clock
        self._only = only
        self._secrets = secrets or any(name.partition(".")[0] == "secrets" for name in only)
        self._known: dict[Key, bytes] = {}
        self._resources: dict[Resource, ApiResource] = {}
        self._informers: dict[Resource, Informer] = {}
        self._works: dict[Resource, asyncio.Task[None]] = {}
        self._fresh: dict[str, Object] = {}
        self._first: dict[Key, Object] | None = {}
        self._group = asyncio.TaskGroup()
        self._looking: asyncio.Task[None] | None = None
        self._began = clock.monotonic()
        self._resumed = None if known is None else split(known)
        self.changes = 0
        self.ready = asyncio.Event()

    @property
    def objects(self) -> int:
        """How many there are now."""
        return len(self._known)

    def _take_known(self, state: list[Object], changes: list[Change]) -> None:
        """Play what the file has in memory, and go on from its time."""
        kinds = {(each.resource.group, each.resource.plural): kind for kind, each in self._by_kind().items()}
        objects = {key_of(obj): obj for obj in state}
        for change in changes:
            group, kind = kinds.get((change.resource.group, change.resource.plural), (change.resource.group, ""))
            key = Key(group, kind, change.namespace, change.name)
            if change.method == "create":
                objects[key_of(change.template)] = change.template
            elif change.method == "patch" and key in objects:
                merge_patch(objects[key], change.template)
            elif change.method == "delete":
                objects.pop(key, None)
        self._known = {key: orjson.dumps(obj) for key, obj in objects.items()}
        if changes:
            self._began -= changes[-1].at_s

    def _by_kind(self) -> dict[tuple[str, str], ApiResource]:
        return {(each.resource.group, each.kind): each for each in self._resources.values()}

    async def run(self) -> None:
        """Raises ApiError when the server cannot be asked what it serves."""
        async with self._group:
            await self._discover()
            if self._resumed is not None:
                self._take_known(*self._resumed)
            for informer in list(self._informers.values()):
                await informer.synced.wait()
            self._write_first()
            self.ready.set()
            while True:
                await self._clock.sleep(FLUSH_S)
                self._writer.flush()

    async def _discover(self) -> None:
        """Follow what is served and not followed yet."""
        found = chosen(await discover(self._client), self._only, "watch")
        for each in found:
            if each.resource in self._informers:
                continue
            self._resources[each.resource] = each
            informer = Informer(self._client, each.resource, transform=partial(self._keep, each))
            informer.add_handler(
                partial(self._changed, each), partial(self._changed_from, each), partial(self._deleted, each)
            )
            self._informers[each.resource] = informer
            self._works[each.resource] = self._group.create_task(informer.run())

    # -- what the informers tell -------------------------------------------------------------------------------------

    def _keep(self, resource: ApiResource, obj: Object, _kept: Object | None) -> Object:
        """The informer's transform: it keeps the names; the whole is used up by the handler at once."""
        metadata = obj["metadata"]
        self._fresh[metadata["uid"]] = obj
        kept = {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion") if key in metadata}
        return {"metadata": kept}

    def _changed_from(self, resource: ApiResource, _: Object, slim: Object) -> None:
        self._changed(resource, slim)

    def _changed(self, resource: ApiResource, slim: Object) -> None:
        obj = self._fresh.pop(slim["metadata"]["uid"], None)
        if obj is None:
            return
        obj = {"apiVersion": resource.resource.api_version, "kind": resource.kind, **obj}
        if resource.resource == _DEFINITIONS and self.ready.is_set():
            self._look_for_kinds()
        if left_out(obj, secrets=self._secrets):
            return
        obj = cleaned(obj)
        if resource.kind != "ControllerRevision":  # whose data never changes, and is compared byte by byte
            obj = without_nulls(obj)
        key = key_of(obj)
        if self._first is not None:
            self._first[key] = obj
            return
        self._tell(resource, key, obj)

    def _tell(self, resource: ApiResource, key: Key, obj: Object) -> None:
        known = self._known.get(key)
        old = orjson.loads(known) if known is not None else None
        if old is not None and old["metadata"].get("uid") != obj["metadata"].get("uid"):
            self._write(resource, key, "delete", {})  # deleted and made again while nobody looked
            old = None
        if old is None:
            self._write(resource, key, "create", obj)
        elif patch := diff(old, obj):
            self._write(resource, key, "patch", patch)
        self._known[key] = orjson.dumps(obj)

    def _deleted(self, resource: ApiResource, slim: Object) -> None:
        self._fresh.pop(slim["metadata"]["uid"], None)
        metadata = slim["metadata"]
        key = Key(resource.resource.group, resource.kind, metadata.get("namespace") or "", metadata["name"])
        if self._first is not None:
            self._first.pop(key, None)
        elif self._known.pop(key, None) is not None:
            self._write(resource, key, "delete", {})
        if resource.resource == _DEFINITIONS:
            self._forget(metadata["name"])

    def _forget(self, name: str) -> None:
        """A kind is no longer served."""
        for resource in [each for each in self._informers if f"{each.plural}.{each.group}" == name]:
            del self._informers[resource], self._resources[resource]
            self._works.pop(resource).cancel()

    def _look_for_kinds(self) -> None:
        """A definition has changed: a new kind may be served."""
        if self._looking is None or self._looking.done():
            self._looking = self._group.create_task(self._discover())

    # -- the file ----------------------------------------------------------------------------------------------------

    def _write(self, resource: ApiResource, key: Key, method: str, template: Object) -> None:
        at_s = self._clock.monotonic() - self._began
        change = Change(at_s, resource.resource, key.namespace, key.name, method, template)
        self._writer.write(change.to_object())
        self.changes += 1

    def _write_first(self) -> None:
        """The state at the beginning; of a recording that is gone on with, what differs from its end."""
        found, self._first = self._first or {}, None
        by_kind = self._by_kind()
        ordered = {kind: number for number, kind in enumerate(by_kind)}
        for key in sorted(found, key=lambda key: ordered[key.group, key.kind]):
            if self._resumed is not None:
                self._tell(by_kind[key.group, key.kind], key, found[key])
            else:
                self._writer.write(found[key])
                self._known[key] = orjson.dumps(found[key])
        for key in [key for key in self._known if key not in found and (key.group, key.kind) in by_kind]:
            del self._known[key]
            self._write(by_kind[key.group, key.kind], key, "delete", {})
        self._writer.flush()

"""Objects of files made in a cluster: a snapshot of another one, or manifests.

Everything is created in the order of `objects.rank`, concurrently within a rank. What fails because something else is
not there yet (a namespace, a kind, a ServiceAccount that a controller makes) is tried again while that helps. Objects
that the cluster has already are patched to what the file says. What the file calls by uid is called by the new one.
Where controllers run, those of Jobs that have not ended begin them again; all else they find as it was.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fastkube.client import Client
from fastkube.client.discovery import ApiResource, Discovery, discover
from fastkube.clock import Clock, RealClock
from fastkube.errors import ApiError
from fastkube.recording.objects import for_create, held_job, key_of, rank, renamed

log = logging.getLogger(__name__)
Object = dict[str, Any]

CONCURRENCY = 64
RETRY_S = 0.25
PATIENCE_S = 15.0
"""How long to go on trying after the last object that could be made."""
_MAY_PASS = frozenset(("NotFound", "Forbidden", "InternalError", "ServiceUnavailable", "Timeout", "Conflict"))


class Failure(NamedTuple):
    """An object that could not be made, or not wholly."""

    what: str
    message: str


@dataclass
class Report:
    """What became of the objects of a file."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    failures: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_text(self) -> str:
        lines = [f"{self.created} created, {self.updated} updated, {self.unchanged} unchanged"]
        lines += self.notes
        lines += [f"failed: {each.what}: {each.message}" for each in self.failures]
        return "\n".join(lines)


class NoKind(ApiError):
    """What a file has and the server does not serve (yet)."""

    def __init__(self, api_version: str, kind: str) -> None:
        super().__init__(404, "NotFound", f'no matches for kind "{kind}" in version "{api_version}"')


def told(obj: Object) -> str:
    """`Pod default/web-0`."""
    key = key_of(obj)
    return f"{key.kind} {key.namespace}/{key.name}" if key.namespace else f"{key.kind} {key.name}"


async def each_of(objects: Iterable[Any], work: Callable[[Any], Awaitable[None]]) -> None:
    """`work` on each, CONCURRENCY at a time."""
    shared = iter(objects)

    async def worker() -> None:
        for obj in shared:
            await work(obj)

    await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))


class Loader:
    """`await load(objects)`, for one file or several in turn. `uids` are the new ones by those of the files."""

    def __init__(
        self, client: Client, clock: Clock | None = None, *, node_labels: Mapping[str, str] | None = None
    ) -> None:
        """`node_labels` are added to every Node."""
        self._client = client
        self._clock = clock or RealClock()
        self._node_labels = dict(node_labels or {})
        self.uids: dict[str, str] = {}
        self.report = Report()
        self._discovery = Discovery([], {})
        self._expected: set[str] = set()
        self._waiting: list[tuple[Object, ApiError]] = []
        self._ownerless: list[Object] = []
        self._held: list[Object] = []

    async def load(self, objects: Iterable[Object]) -> Report:
        """Raises ApiError when the server cannot be asked at all; all else is in the report."""
        self._discovery = await discover(self._client)
        ordered = sorted(objects, key=lambda obj: rank(obj["kind"]))
        self._expected = {uid for obj in ordered if (uid := obj["metadata"].get("uid"))}
        for _, group in itertools.groupby(ordered, key=lambda obj: rank(obj["kind"])):
            await self._make(list(group))
        await self._try_again()
        await each_of(self._ownerless, self._give_owners)
        await each_of(self._held, self._release)
        self._ownerless, self._held = [], []
        return self.report

    async def _make(self, objects: list[Object]) -> None:
        await each_of(objects, self._try)
        if any(obj["kind"] == "CustomResourceDefinition" for obj in objects):
            await each_of((obj for obj in objects if obj["kind"] == "CustomResourceDefinition"), self._established)
            self._discovery = await discover(self._client)

    async def _try_again(self) -> None:
        deadline = self._clock.monotonic() + PATIENCE_S
        while self._waiting and self._clock.monotonic() < deadline:
            await asyncio.sleep(RETRY_S)
            waiting, self._waiting = self._waiting, []
            if any(isinstance(error, NoKind) for _, error in waiting):
                self._discovery = await discover(self._client)
            for _, group in itertools.groupby((obj for obj, _ in waiting), key=lambda obj: rank(obj["kind"])):
                await self._make(list(group))
            if len(self._waiting) < len(waiting):
                deadline = self._clock.monotonic() + PATIENCE_S
        self.report.failures += (Failure(told(obj), error.message) for obj, error in self._waiting)
        self._waiting = []

    async def _try(self, obj: Object) -> None:
        try:
            await self._put(obj)
        except ApiError as error:
            if error.reason in _MAY_PASS:
                self._waiting.append((obj, error))
            else:
                self.report.failures.append(Failure(told(obj), error.message))

    # -- one object --------------------------------------------------------------------------------------------------

    def resource_of(self, obj: Object) -> ApiResource:
        """Raises NoKind."""
        found = self._discovery.by_kind(obj["apiVersion"], obj["kind"])
        if found is None:
            raise NoKind(obj["apiVersion"], obj["kind"])
        return found

    async def _put(self, obj: Object) -> None:
        resource = self.resource_of(obj)
        namespace = (obj["metadata"].get("namespace") or "default") if resource.namespaced else ""
        held = obj["kind"] == "Job" and "uid" in obj["metadata"]
        if held:
            self._held.append(obj)
        body, status = for_create(self._with_owners(renamed(held_job(obj) if held else obj, self.uids), obj))
        if obj["kind"] == "Node" and self._node_labels:
            body["metadata"]["labels"] = {**(body["metadata"].get("labels") or {}), **self._node_labels}
        later = (body.get("spec") or {}).get("ephemeralContainers") if obj["kind"] == "Pod" else None
        if later:
            body["spec"] = {name: value for name, value in body["spec"].items() if name != "ephemeralContainers"}
        made = await self._create(resource, namespace, body)
        if uid := obj["metadata"].get("uid"):
            self.uids[uid] = made["metadata"]["uid"]
        name = made["metadata"]["name"]
        if later:
            await self._client.patch(
                resource.resource,
                name,
                {"spec": {"ephemeralContainers": later}},
                namespace,
                kind="strategic",
                subresource="ephemeralcontainers",
            )
        # a suspended Job loses its Pods unless it has ended, and so says its status; one that goes on gets it later
        if status and (not held or _ended(status)):
            await self._put_status(resource, namespace, name, status)

    def _with_owners(self, body: Object, obj: Object) -> Object:
        """The owners that are there; those that come later are given later. An owner that is in no file is left out:
        the garbage collector would take the object for an orphan of it."""
        references = body["metadata"].get("ownerReferences")
        if not references or "uid" not in obj["metadata"]:
            return body
        new = set(self.uids.values())
        there = [each for each in references if each["uid"] in new]
        if any(each["uid"] in self._expected for each in references):
            self._ownerless.append(obj)
        if missing := [each for each in references if each["uid"] not in new | self._expected]:
            names = ", ".join(f"{each['kind']} {each['name']}" for each in missing)
            self.report.notes.append(f"{told(obj)}: its owner is not in the file: {names}")
        return {**body, "metadata": {**body["metadata"], "ownerReferences": there}}

    async def _create(self, resource: ApiResource, namespace: str, body: Object) -> Object:
        try:
            made = await self._client.create(resource.resource, body, namespace)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return await self._update(resource, namespace, body)
            smaller = _without_addresses(body, error)
            if smaller is None:
                raise
            if await self._is_there(resource, namespace, body):  # the address is taken by the object itself
                return await self._update(resource, namespace, body)
            self.report.notes.append(f"{told(body)} gets another address: {error.message}")
            return await self._create(resource, namespace, smaller)
        self.report.created += 1
        return made

    async def _is_there(self, resource: ApiResource, namespace: str, body: Object) -> bool:
        try:
            await self._client.get(resource.resource, body["metadata"]["name"], namespace)
        except ApiError as error:
            if error.code == 404:
                return False
            raise
        return True

    async def _update(self, resource: ApiResource, namespace: str, body: Object) -> Object:
        """Patch what is there to what the file says; fields that the file does not name stay."""
        name = body["metadata"]["name"]
        there = await self._client.get(resource.resource, name, namespace)
        metadata = {key: value for key, value in body["metadata"].items() if value and key != "ownerReferences"}
        changed = await self._client.patch(resource.resource, name, {**body, "metadata": metadata}, namespace)
        if changed["metadata"]["resourceVersion"] == there["metadata"]["resourceVersion"]:
            self.report.unchanged += 1
        else:
            self.report.updated += 1
        return changed

    async def _put_status(self, resource: ApiResource, namespace: str, name: str, status: Object) -> None:
        body = {"status": renamed(status, self.uids)}
        try:
            await self._client.patch(resource.resource, name, body, namespace, subresource="status", brief=True)
        except ApiError as error:
            if error.code not in (404, 405):  # a kind without the subresource has its status already
                self.report.failures.append(Failure(f"{resource.kind} {name}: status", error.message))

    # -- afterwards --------------------------------------------------------------------------------------------------

    async def _give_owners(self, obj: Object) -> None:
        references = renamed(obj["metadata"]["ownerReferences"], self.uids)
        await self._finish(obj, {"metadata": {"ownerReferences": references}})

    async def _release(self, job: Object) -> None:
        """The Pods of a Job are there: it may go on."""
        if (status := job.get("status")) and not _ended(status):
            namespace = job["metadata"].get("namespace") or "default"
            await self._put_status(self.resource_of(job), namespace, job["metadata"]["name"], status)
        if not job["spec"].get("suspend"):
            await self._finish(job, {"spec": {"suspend": False}})

    async def _finish(self, obj: Object, patch: Object) -> None:
        if obj["metadata"]["uid"] not in self.uids:  # it could not be made, which has been told
            return
        resource, name = self.resource_of(obj), obj["metadata"]["name"]
        try:
            await self._client.patch(resource.resource, name, patch, obj["metadata"].get("namespace") or "", brief=True)
        except ApiError as error:
            self.report.failures.append(Failure(told(obj), error.message))

    async def _established(self, definition: Object) -> None:
        """Until a new kind is served; one that never is, is told by what fails for want of it."""
        deadline = self._clock.monotonic() + PATIENCE_S
        while self._clock.monotonic() < deadline:
            try:
                found = await self._client.get(
                    "apiextensions.k8s.io/v1/customresourcedefinitions", definition["metadata"]["name"]
                )
            except ApiError:
                return
            conditions = (found.get("status") or {}).get("conditions") or ()
            if any(each["type"] == "Established" and each["status"] == "True" for each in conditions):
                return
            await asyncio.sleep(RETRY_S / 5)


def _ended(status: Object) -> bool:
    """Whether a Job has completed or failed."""
    conditions = status.get("conditions") or ()
    return any(each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in conditions)


def _without_addresses(body: Object, error: ApiError) -> Object | None:
    """A Service whose addresses or ports another cluster had, and this one cannot give; None for all else."""
    if body["kind"] != "Service" or error.reason != "Invalid":
        return None
    spec = dict(body["spec"])
    if "clusterIP" in error.message and spec.get("clusterIP") not in (None, "", "None"):
        for name in ("clusterIP", "clusterIPs"):
            spec.pop(name, None)
        return {**body, "spec": spec}
    if "odePort" in error.message and any("nodePort" in port for port in spec.get("ports") or ()):
        spec["ports"] = [{name: value for name, value in port.items() if name != "nodePort"} for port in spec["ports"]]
        spec.pop("healthCheckNodePort", None)
        return {**body, "spec": spec}
    return None

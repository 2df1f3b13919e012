"""The client: Kubernetes' verbs over one pool of connections, errors as ApiError.

What is repeated, and what is not:
  * 429, or 5xx, with a Retry-After header: the server did not do it and says when to ask again; repeated for any verb.
  * A connection that could not be made: nothing was sent; repeated for any verb.
  * A connection lost after sending: repeated for GET only. Other verbs may have taken effect: the caller, who knows
    what a second time would mean, gets `Unreachable` (503).
Waits between repetitions are in real time: a clock driven by hand governs the cluster, not the network.
The bodies of requests are msgpack (or protobuf, as asked) where the server takes it; one that answers 415 or 406 gets
JSON from then on.
With `batch` writes that are made while others are under way share a request, where the server takes batches (batch.py).
"""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Literal
from urllib.parse import urlencode

from fastkube import __version__
from fastkube.client import codec as codecs
from fastkube.client import kubeconfig
from fastkube.client.batch import BATCH_PATH, Batcher, Write
from fastkube.client.creation import Creation
from fastkube.client.kubeconfig import Connection, TokenSource
from fastkube.client.resource import Resource, collection_path, creation_path, object_path
from fastkube.client.transport import POOL_SIZE, HttpTransport, Response, Transport, TransportError
from fastkube.client.watch import Watch
from fastkube.clock import Clock, RealClock
from fastkube.errors import ApiError

Object = dict[str, Any]
Codec = Literal["json", "msgpack", "protobuf"]
Propagation = Literal["", "Background", "Foreground", "Orphan"]

REQUEST_TIMEOUT_S = 30.0
RETRIES_MAX = 10
"""How often a request is repeated because the server said Retry-After; client-go's number."""
RETRY_AFTER_MAX_S = 30.0
RECONNECTS_MAX = 3
PAGE_SIZE = 500

PATCH_TYPES = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


class Unreachable(ApiError):
    """The server could not be reached, or went away before it answered. `sent`: it may have done what was asked."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(503, "ServiceUnavailable", message)
        self.sent = sent


class Client:
    """A client of one API server. All methods raise ApiError; objects are plain dicts as on the wire."""

    def __init__(
        self,
        server: str | Connection,
        *,
        token: str = "",
        ca: bytes = b"",
        cert: bytes = b"",
        key: bytes = b"",
        insecure: bool = False,
        codec: Codec = "msgpack",
        user_agent: str = "",
        pool_size: int = POOL_SIZE,
        timeout_s: float = REQUEST_TIMEOUT_S,
        clock: Clock | None = None,
        transport: Transport | None = None,
        batch: bool = False,
    ) -> None:
        """`server`: a URL, `unix:///path` or a Connection; ca, cert and key are PEM. Tokens age by `clock`.

        `batch` joins concurrent writes into requests of many, where the server takes them.
        """
        if isinstance(server, str):
            server = Connection(server, token=token, ca=ca, cert=cert, key=key, insecure=insecure)
        self.connection = server
        self.user_agent = user_agent or f"fastkube/{__version__}"
        self._transport = transport or HttpTransport(server.endpoint(), pool_size=pool_size)
        self._tokens = TokenSource(server, clock or RealClock())
        self._base = server.base_path
        self._timeout_s = timeout_s
        self._accept: Codec = codec
        self._send: Codec = codec
        self._batcher = Batcher(self._send_one, self._send_batch) if batch and codec == "msgpack" else None
        self._fixed = f" HTTP/1.1\r\nHost: {self._transport.authority}\r\nUser-Agent: {self.user_agent}\r\n"

    @classmethod
    def from_kubeconfig(cls, path: str, context: str | None = None, **options: Any) -> Client:
        """`context`: the current one unless named; the other options are those of Client."""
        return cls(kubeconfig.load(path, context), **options)

    @classmethod
    def in_cluster(cls, **options: Any) -> Client:
        """As the service account of the Pod this runs in."""
        return cls(kubeconfig.in_cluster(), **options)

    def impersonating(self, user: str) -> Client:
        """The same client acting as another user, if this one may; ends with this one."""
        other = copy.copy(self)
        other._batcher = None
        other._fixed = f"{self._fixed}Impersonate-User: {user}\r\n"
        return other

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @property
    def busy(self) -> bool:
        """Whether a request is under way (watches do not count)."""
        return self._transport.busy or (self._batcher is not None and self._batcher.busy)

    async def close(self) -> None:
        """Ends every request and watch."""
        await self._transport.close()

    # -- verbs -------------------------------------------------------------------------------------------------------

    async def get(
        self,
        resource: str | Resource,
        name: str,
        namespace: str = "",
        *,
        subresource: str = "",
        resource_version: str = "",
    ) -> Object:
        query = {"resourceVersion": resource_version}
        return await self._object("GET", object_path(resource, namespace, name, subresource), query)

    async def list(
        self,
        resource: str | Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_token: str = "",
        resource_version: str = "",
        resource_version_match: str = "",
    ) -> Object:
        """One page (all there is, without `limit`): the List object."""
        query = {
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "limit": str(limit) if limit else "",
            "continue": continue_token,
            "resourceVersion": resource_version,
            "resourceVersionMatch": resource_version_match,
        }
        return await self._object("GET", collection_path(resource, namespace), query)

    async def pages(
        self,
        resource: str | Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = PAGE_SIZE,
        resource_version: str = "",
        resource_version_match: str = "",
    ) -> AsyncIterator[Object]:
        """Each page of a list in turn; an expired continue token is ApiError 410, and the caller starts anew."""
        token = ""
        while True:
            page = await self.list(
                resource,
                namespace,
                label_selector=label_selector,
                field_selector=field_selector,
                limit=limit,
                continue_token=token,
                resource_version="" if token else resource_version,
                resource_version_match="" if token else resource_version_match,
            )
            yield page
            token = page.get("metadata", {}).get("continue", "")
            if not token:
                return

    async def create(
        self,
        resource: str | Resource,
        obj: Object,
        namespace: str = "",
        *,
        name: str = "",
        subresource: str = "",
        dry_run: bool = False,
        field_manager: str = "",
        brief: bool = False,
        shared: bool = False,
    ) -> Object:
        """POST; with `subresource` (binding, eviction, token) `name` is that of the object it belongs to.

        `brief`, of every write: the answer is not needed; where the server takes batches it is {} then. `shared`: the
        answer belongs to other readers in the process too, must not be changed, and comes without managedFields.
        """
        path = creation_path(resource, namespace, name, subresource)
        return await self._object("POST", path, _writing(dry_run, field_manager), obj, brief=brief, shared=shared)

    def create_nowait(
        self,
        resource: str | Resource,
        obj: Object,
        namespace: str = "",
        *,
        name: str = "",
        subresource: str = "",
        answered: Callable[[ApiError | None], None],
    ) -> None:
        """A brief `create` for who makes very many: `answered` is called with what it would raise, or None."""
        path = creation_path(resource, namespace, name, subresource)
        creation = Creation(partial(self._object, "POST", path, {}, obj, brief=True), answered)
        if self._batcher is None or self._send != "msgpack":
            creation.go_alone()
        else:
            body, media = codecs.encode(obj, self._send)
            creation.join(self._batcher, Write("POST", self._target(path, {}), media, body, True))

    async def update(
        self,
        resource: str | Resource,
        obj: Object,
        namespace: str = "",
        *,
        name: str = "",
        subresource: str = "",
        dry_run: bool = False,
        field_manager: str = "",
        brief: bool = False,
        shared: bool = False,
    ) -> Object:
        """PUT; namespace and name are those of the object unless given."""
        metadata = obj["metadata"]
        path = object_path(resource, namespace or metadata.get("namespace", ""), name or metadata["name"], subresource)
        return await self._object("PUT", path, _writing(dry_run, field_manager), obj, brief=brief, shared=shared)

    async def patch(
        self,
        resource: str | Resource,
        name: str,
        body: Any,
        namespace: str = "",
        *,
        kind: Literal["json", "merge", "strategic", "apply"] = "merge",
        subresource: str = "",
        dry_run: bool = False,
        field_manager: str = "",
        force: bool = False,
        brief: bool = False,
        shared: bool = False,
    ) -> Object:
        """PATCH; `kind` apply is server-side apply and needs a field manager."""
        query = _writing(dry_run, field_manager)
        if force:
            query["force"] = "true"
        path = object_path(resource, namespace, name, subresource)
        media = PATCH_TYPES[kind]
        return await self._object("PATCH", path, query, body, content_type=media, brief=brief, shared=shared)

    async def delete(
        self,
        resource: str | Resource,
        name: str,
        namespace: str = "",
        *,
        grace_period_s: int | None = None,
        propagation: Propagation = "",
        uid: str = "",
        resource_version: str = "",
        dry_run: bool = False,
        brief: bool = False,
    ) -> Object:
        """DELETE; answers a Status, or the object while something still holds it. A `uid` that differs is a 409."""
        options = _delete_options(grace_period_s, propagation, uid, resource_version)
        path = object_path(resource, namespace, name)
        return await self._object("DELETE", path, _writing(dry_run, ""), options, brief=brief)

    async def delete_collection(
        self,
        resource: str | Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        grace_period_s: int | None = None,
        propagation: Propagation = "",
    ) -> Object:
        query = {"labelSelector": label_selector, "fieldSelector": field_selector}
        options = _delete_options(grace_period_s, propagation, "", "")
        return await self._object("DELETE", collection_path(resource, namespace), query, options)

    def watch(
        self,
        resource: str | Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
        bookmarks: bool = True,
        send_initial_events: bool = False,
        timeout_s: int = 0,
        shared: bool = False,
    ) -> Watch:
        """Events from `resource_version` on (or from now): `async for type, obj in client.watch(...)`.

        With `send_initial_events` the present objects come first as ADDED, then a BOOKMARK with the annotation
        k8s.io/initial-events-end. An ERROR event is raised as ApiError; 410 means that the position is lost.
        With `shared` the objects belong to other readers in the process too, and must not be changed.
        """
        query = {
            "watch": "true",
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true" if bookmarks else "",
            "timeoutSeconds": str(timeout_s) if timeout_s else "",
        }
        if send_initial_events:
            query["sendInitialEvents"] = "true"
            query["resourceVersionMatch"] = "NotOlderThan"
        target = self._target(collection_path(resource, namespace), query)
        return Watch(self._transport, lambda: self._watch_head(target), timeout_s=self._timeout_s, shared=shared)

    async def raw(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        query: dict[str, str] | None = None,
        content_type: str = "",
        accept: str = codecs.JSON,
    ) -> Response:
        """Any path, any bytes; the answer as it came, errors too (only an unreachable server raises)."""
        return await self._exchange(method, self._target(path, query or {}), body, content_type, accept)

    async def get_path(self, path: str, query: dict[str, str] | None = None, *, accept: str = "") -> Object:
        """GET of any path, decoded; raises ApiError. `accept` asks for another form, such as metadata only."""
        return await self._object("GET", path, query or {}, accept=accept)

    # -- the way of a request ----------------------------------------------------------------------------------------

    async def _object(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        obj: Any = None,
        *,
        content_type: str = "",
        accept: str = "",
        brief: bool = False,
        shared: bool = False,
    ) -> Object:
        target = self._target(path, query)
        while True:
            sent, accepted = self._send, self._accept
            if obj is None:
                body, media = b"", ""
            elif content_type:
                body, media = codecs.encode(obj, "json")[0], content_type
            else:
                body, media = codecs.encode(obj, sent)
            if self._batcher is not None and method != "GET":
                response = await self._batcher.write(Write(method, target, media, body, brief))
            else:
                response = await self._exchange(method, target, body, media, accept or codecs.ACCEPT[accepted])
            if response.status < 400:
                answer: Object = codecs.decode(response.body, response.headers.get("content-type", ""), shared=shared)
                return answer
            if response.status == 415 and sent != "json" and media == codecs.MEDIA[sent]:
                self._send = "json"
            elif response.status == 406 and accepted != "json":
                self._accept = "json"
            else:
                raise codecs.error_from(response.status, response.headers, response.body)

    async def _exchange(self, method: str, target: str, body: bytes, content_type: str, accept: str) -> Response:
        head = self._head(method, target, accept)
        if content_type or body:
            head += f"\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}"
        elif method != "GET":
            head += "\r\nContent-Length: 0"
        retries = reconnects = 0
        while True:
            try:
                response = await self._transport.request(head, body, self._timeout_s)
            except TransportError as error:
                reconnects += 1
                if reconnects > RECONNECTS_MAX or (error.sent and method != "GET"):
                    raise Unreachable(f"{method} {target}: {error}", sent=error.sent) from error
                await asyncio.sleep(0.05 * 2**reconnects * random.uniform(0.5, 1.5))
                continue
            after = response.headers.get("retry-after", "")
            if not after.isdigit() or retries >= RETRIES_MAX or not (response.status == 429 or response.status >= 500):
                return response
            retries += 1
            await asyncio.sleep(min(float(after), RETRY_AFTER_MAX_S) * random.uniform(1.0, 1.2))

    async def _send_one(self, write: Write) -> Response:
        accept = codecs.ACCEPT[self._accept]
        return await self._exchange(write.method, write.target, write.body, write.media, accept)

    async def _send_batch(self, body: bytes) -> Response:
        return await self._exchange("POST", self._base + BATCH_PATH, body, codecs.MSGPACK, codecs.MSGPACK)

    def _target(self, path: str, query: dict[str, str]) -> str:
        given = {key: value for key, value in query.items() if value}
        if "\r" in path or "\n" in path or " " in path:
            raise ValueError(f"not a path: {path!r}")
        return f"{self._base}{path}?{urlencode(given)}" if given else self._base + path

    def _head(self, method: str, target: str, accept: str) -> str:
        head = f"{method} {target}{self._fixed}Accept: {accept}"
        token = self._tokens.token()
        return f"{head}\r\nAuthorization: Bearer {token}" if token else head

    def _watch_head(self, target: str) -> str:
        return self._head("GET", target, codecs.ACCEPT_WATCH[self._accept])


def _writing(dry_run: bool, field_manager: str) -> dict[str, str]:
    return {"dryRun": "All" if dry_run else "", "fieldManager": field_manager}


def _delete_options(grace_period_s: int | None, propagation: str, uid: str, resource_version: str) -> Object | None:
    options: Object = {}
    if grace_period_s is not None:
        options["gracePeriodSeconds"] = grace_period_s
    if propagation:
        options["propagationPolicy"] = propagation
    conditions = {"uid": uid, "resourceVersion": resource_version}
    preconditions = {key: value for key, value in conditions.items() if value}
    if preconditions:
        options["preconditions"] = preconditions
    if not options:
        return None
    return {"apiVersion": "v1", "kind": "DeleteOptions", **options}

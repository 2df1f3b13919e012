"""API servers that answer for groups of their own: APIServices with a Service, asked through this one.

    /apis/GROUP/VERSION...   the request, as the user that this server has authenticated, to whoever stands behind the
                             Service; 503 while the APIService is not available
    discovery, OpenAPI       this server's documents with what the others say of themselves (`remote_documents`)
    status.conditions        Available, checked when anything it depends on changes and every `_CHECK_S`

The user goes in X-Remote-* headers, which the other server believes because of the client certificate (of the front
proxy's authority) that they come with. Nothing of this runs while no APIService has a Service.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import random
import ssl
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import msgpack
import orjson

from fastkube.client.transport import tls_context
from fastkube.clock import rfc3339
from fastkube.errors import ApiError
from fastkube.registry.deletion import DeleteOptions
from fastkube.registry.strategy import Call, UserInfo
from fastkube.server.calls import ServiceUnavailable
from fastkube.server.proxy import Backend, proxy
from fastkube.server.remote_documents import Documents, RemoteFailure, ask

if TYPE_CHECKING:
    from pathlib import Path

    from fastkube.api.catalog import ResourceType
    from fastkube.server.answer import Answer, Streamed
    from fastkube.server.app import ApiServer
    from fastkube.server.request import Request
    from fastkube.store import Event, Store, Subscription

log = logging.getLogger(__name__)

Object = dict[str, Any]

GROUP, RESOURCE = "apiregistration.k8s.io", "apiservices"
_MANAGED = "kube-aggregator.kubernetes.io/automanaged"
_CHECK_S = 30.0
_SETTLE_S = 0.05
_MERGE = "application/merge-patch+json"
_SELF = UserInfo("system:kube-aggregator", ("system:masters",))
_HIDDEN = ("x-remote-user", "x-remote-group", "x-remote-uid")
_HIDDEN_PREFIX = "x-remote-extra-"


class Condition(NamedTuple):
    """Whether an APIService is available, and why in upstream's words."""

    available: bool
    reason: str
    message: str


class Unresolved(Exception):
    """Nobody stands behind a Service."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Remote:
    """An APIService with a Service, as it is now. `condition` None has not been checked yet."""

    def __init__(self, obj: Object) -> None:
        spec = obj["spec"]
        self.name: str = obj["metadata"]["name"]
        self.group: str = spec["group"]
        self.version: str = spec["version"]
        self.priority: int = spec.get("groupPriorityMinimum") or 0
        self.namespace: str = spec["service"]["namespace"]
        self.service: str = spec["service"]["name"]
        self.port: int = spec["service"]["port"]
        self.spec = spec
        self.condition: Condition | None = None
        self.documents = Documents(self.group, self.version)
        self._tls: ssl.SSLContext | None = None

    def tls(self, client: tuple[Path, Path] | None) -> ssl.SSLContext:
        """Raises ValueError for a caBundle that is none."""
        if self._tls is None:
            bundle = base64.b64decode(self.spec.get("caBundle") or "").decode("ascii", "replace")
            try:
                context = tls_context(bundle, verified=not self.spec.get("insecureSkipTLSVerify"))
            except ssl.SSLError as problem:
                raise ValueError(f"the caBundle cannot be used: {problem}") from None
            if client is not None:
                context.load_cert_chain(*client)
            self._tls = context
        return self._tls


class Aggregator:
    """`remotes` are those by (group, version); `client` is the certificate and key of the front proxy."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._store: Store = server.store
        self.remotes: dict[tuple[str, str], Remote] = {}
        self.client: tuple[Path, Path] | None = None
        self._subscriptions: list[Subscription] = []
        self._dependencies: list[Subscription] = []
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._generation = -1
        self._following: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._subscriptions = [self._subscribe(GROUP, RESOURCE, self._on_services)]
        self._load()

    async def stop(self) -> None:
        for subscription in (*self._subscriptions, *self._dependencies):
            subscription.cancel()
        for task in (self._task, self._following):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def _subscribe(self, group: str, resource: str, callback: Any) -> Subscription:
        rtype = self._server.catalog.get(group, resource)
        assert rtype is not None
        prefix = rtype.key_prefix
        return self._store.subscribe(prefix, prefix[:-1] + b"0", callback)

    def _on_services(self, events: list[Event], revision: int) -> None:
        if events:
            self._load()

    def _on_dependency(self, events: list[Event], revision: int) -> None:
        if events:
            self._changed.set()

    def _load(self) -> None:
        """Takes over what the APIServices say; one whose spec has not changed keeps what is known of it."""
        prefix = self._rtype.key_prefix
        found: dict[tuple[str, str], Remote] = {}
        for item in self._store.scan(prefix, prefix[:-1] + b"0"):
            obj: Object = msgpack.unpackb(item.value)
            if obj["spec"].get("service") is not None:
                remote = Remote(obj)
                known = self.remotes.get((remote.group, remote.version))
                same = known is not None and known.name == remote.name and known.spec == remote.spec
                found[remote.group, remote.version] = known if same and known is not None else remote
        if found.keys() == self.remotes.keys() and all(found[key] is self.remotes[key] for key in found):
            return  # only a status was written
        self.remotes = found
        self._changed.set()
        self._publish()
        if found and self._task is None:
            self._dependencies = [
                self._subscribe("", "services", self._on_dependency),
                self._subscribe("discovery.k8s.io", "endpointslices", self._on_dependency),
            ]
            self._task = asyncio.get_running_loop().create_task(self._keep_checking())

    def _publish(self) -> None:
        """Discovery and OpenAPI show what is known now."""
        documents = [remote.documents for remote in self._by_priority()]
        self._server.discovery.use_remotes(documents)
        self._server.openapi.use_remotes([remote.documents for remote in self._by_priority() if _is_up(remote)])

    def _by_priority(self) -> list[Remote]:
        return sorted(self.remotes.values(), key=lambda remote: (-remote.priority, remote.group, remote.name))

    # ---------------------------------------------------------------- requests

    def remote_of(self, path: str) -> Remote | None:
        """Who answers for a path below /apis/GROUP/VERSION, or for the OpenAPI document of that; None: this server."""
        parts = path.removeprefix("/openapi/v3").split("/", 4)
        if len(parts) < 4 or parts[1] != "apis":
            return None
        return self.remotes.get((parts[2], parts[3]))

    async def forward(self, request: Request, remote: Remote) -> Answer | Streamed:
        """Hands the request on; raises ServiceUnavailable when there is nobody who takes it."""
        if not _is_up(remote):
            raise ServiceUnavailable("service unavailable")
        try:
            backend = self._backend(remote)
        except (Unresolved, ValueError, OSError) as problem:
            raise ServiceUnavailable(f"error trying to reach service: {problem}") from None
        target = request.head.path
        headers = [*identity_headers(request.user), *_forwarded(request)]
        return await proxy(
            self._server,
            request,
            backend,
            target,
            headers,
            unreachable=_unreachable,
            hidden=_is_hidden,
            redirects=not self._server.options.aggregator_reject_forwarding_redirect,
        )

    def _backend(self, remote: Remote) -> Backend:
        host, port = self._resolve(remote)
        return Backend(host, port, remote.tls(self.client), f"{remote.service}.{remote.namespace}.svc")

    # ---------------------------------------------------------------- who stands behind a Service

    def _resolve(self, remote: Remote) -> tuple[str, int]:
        """A host and port that the Service leads to. Raises Unresolved in upstream's words."""
        where = f'service/{remote.service} in "{remote.namespace}"'
        service = self._stored("", "services", remote.namespace, remote.service)
        if service is None:
            raise Unresolved("ServiceNotFound", f"{where} is not present")
        spec = service["spec"]
        if spec.get("type") == "ExternalName":
            return spec["externalName"], remote.port
        port = next((one for one in spec.get("ports") or () if one["port"] == remote.port), None)
        if port is None:
            raise Unresolved("ServicePortError", f"{where} is not listening on port {remote.port}")
        slices = self._slices(remote.namespace, remote.service)
        if not slices:
            raise Unresolved("EndpointsNotFound", f"cannot find endpointslices for {where}")
        name = port.get("name") or ""
        found = [
            (address, each["port"])
            for one in slices
            for each in one.get("ports") or ()
            if (each.get("name") or "") == name and each.get("port")
            for endpoint in one.get("endpoints") or ()
            if (endpoint.get("conditions") or {}).get("ready", True) is not False
            for address in endpoint["addresses"]
        ]
        if not found:
            told = f'endpointslices for {where} have no addresses with port name "{name}"'
            raise Unresolved("MissingEndpoints", told)
        return random.choice(found)

    def _stored(self, group: str, resource: str, namespace: str, name: str) -> Object | None:
        rtype = self._server.catalog.get(group, resource)
        item = self._store.get(rtype.key(namespace, name)) if rtype is not None else None
        return msgpack.unpackb(item.value) if item is not None else None

    def _slices(self, namespace: str, service: str) -> list[Object]:
        rtype = self._server.catalog.get("discovery.k8s.io", "endpointslices")
        assert rtype is not None
        start = rtype.key(namespace, "")
        found = (msgpack.unpackb(item.value) for item in self._store.scan(start, start[:-1] + b"0"))
        label = "kubernetes.io/service-name"
        return [one for one in found if (one["metadata"].get("labels") or {}).get(label) == service]

    # ---------------------------------------------------------------- availability

    async def _keep_checking(self) -> None:
        while True:
            self._changed.clear()
            await asyncio.gather(*(self._check(remote) for remote in list(self.remotes.values())))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_S):
                    await self._changed.wait()
                    await asyncio.sleep(_SETTLE_S)  # a Service and its slices come one after the other

    async def _check(self, remote: Remote) -> None:
        condition = await self._examine(remote)
        was_up = _is_up(remote)
        news = condition.available and await self._refresh(remote)
        changed = remote.condition != condition
        remote.condition = condition
        remote.documents.fresh = condition.available
        if self.remotes.get((remote.group, remote.version)) is not remote:
            return
        if news or was_up != condition.available:
            self._publish()
        if changed:
            try:
                await self._write(remote, condition)
            except ApiError as problem:
                remote.condition = None
                if problem.code != 404:
                    log.warning("the status of APIService %s could not be written: %s", remote.name, problem.message)

    async def _examine(self, remote: Remote) -> Condition:
        try:
            backend = self._backend(remote)
        except Unresolved as problem:
            return Condition(False, problem.reason, str(problem))
        except (ValueError, OSError) as problem:
            return Condition(False, "ServiceAccessError", str(problem))
        path = f"/apis/{remote.group}/{remote.version}"
        url = f"https://{backend.address}{path}"
        try:
            code, _ = await ask(backend, path, identity_headers(_SELF))
        except RemoteFailure as problem:
            told = f'failing or missing response from {url}: Get "{url}": {problem}'
            return Condition(False, "FailedDiscoveryCheck", told)
        if not 200 <= code < 300:
            told = f"failing or missing response from {url}: bad status from {url}: {code}"
            return Condition(False, "FailedDiscoveryCheck", told)
        return Condition(True, "Passed", "all checks passed")

    async def _refresh(self, remote: Remote) -> bool:
        """Asks the server for its documents; True when they have changed."""
        try:
            return await remote.documents.refresh(self._backend(remote), identity_headers(_SELF))
        except (RemoteFailure, Unresolved, ValueError, OSError):
            return False

    # ---------------------------------------------------------------- the server's own custom groups

    def follow_catalog(self) -> None:
        """Called every now and then: group versions of custom kinds have APIServices as long as they are served."""
        if self._generation != self._server.catalog.generation:
            self._generation = self._server.catalog.generation
            self._following = asyncio.get_running_loop().create_task(self._register_customs())

    async def _register_customs(self) -> None:
        rtype = self._rtype
        served = {
            f"{version}.{kind.group}": (kind.group, version)
            for kind in self._server.catalog.all()
            if kind.custom
            for version in kind.versions
        }
        prefix = rtype.key_prefix
        known: dict[str, bool] = {}
        for item in self._store.scan(prefix, prefix[:-1] + b"0"):
            metadata = msgpack.unpackb(item.value)["metadata"]
            known[metadata["name"]] = (metadata.get("labels") or {}).get(_MANAGED) == "true"
        for name in served.keys() - known.keys():
            with contextlib.suppress(ApiError):  # somebody else was faster
                await self._server.registry.create(self._call("create", name), _custom_service(name, *served[name]))
        for name in [name for name, managed in known.items() if managed and name not in served]:
            with contextlib.suppress(ApiError):
                await self._server.registry.delete(self._call("delete", name), DeleteOptions())

    @property
    def _rtype(self) -> ResourceType:
        rtype = self._server.catalog.get(GROUP, RESOURCE)
        assert rtype is not None
        return rtype

    def _call(self, verb: str, name: str, subresource: str = "") -> Call:
        call = Call(self._rtype, self._rtype.versions[0], verb, "", name, subresource, _SELF)
        call.field_manager = "kube-apiserver"
        return call

    # ---------------------------------------------------------------- status

    async def _write(self, remote: Remote, condition: Condition) -> None:
        obj = self._stored(GROUP, RESOURCE, "", remote.name)
        told = {"type": "Available", "status": str(condition.available)}
        told |= {"reason": condition.reason, "message": condition.message}
        others: list[Object] = []
        for known in ((obj or {}).get("status") or {}).get("conditions") or ():
            if known.get("type") != "Available":
                others.append(known)
            elif known.get("status") == told["status"]:
                told["lastTransitionTime"] = known.get("lastTransitionTime")
        told.setdefault("lastTransitionTime", rfc3339(self._server.clock.time()))
        call = self._call("patch", remote.name, "status")
        body = orjson.dumps({"status": {"conditions": [told, *others]}})
        await self._server.registry.patch(call, _MERGE, body)


def _custom_service(name: str, group: str, version: str) -> Object:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "APIService",
        "metadata": {"name": name, "labels": {_MANAGED: "true"}},
        "spec": {"group": group, "version": version, "groupPriorityMinimum": 1000, "versionPriority": 100},
    }


def _is_up(remote: Remote) -> bool:
    return remote.condition is not None and remote.condition.available


def _unreachable(problem: str) -> Exception:
    return ServiceUnavailable(f"error trying to reach service: {problem}")


def _is_hidden(name: str) -> bool:
    """Headers that say who asks are this server's to write."""
    return name in _HIDDEN or name.startswith(_HIDDEN_PREFIX)


def identity_headers(user: UserInfo) -> list[tuple[str, str]]:
    """Who asks, as the other server is told it."""
    headers = [("X-Remote-User", user.name)]
    if user.uid:
        headers.append(("X-Remote-Uid", user.uid))
    headers += [("X-Remote-Group", group) for group in user.groups]
    headers += [
        (f"X-Remote-Extra-{quote(key, safe='')}", value) for key, values in user.extra.items() for value in values
    ]
    return headers


def _forwarded(request: Request) -> Iterable[tuple[str, str]]:
    transport = request.connection.transport
    peer = transport.get_extra_info("peername") if transport is not None else None
    if isinstance(peer, tuple):
        yield "X-Forwarded-For", str(peer[0])
    yield "X-Forwarded-Uri", request.head.path.partition("?")[0]

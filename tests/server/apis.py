"""A whole API server on free ports for a test, and a small HTTP client for it."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgpack
from yarl import URL

from fastkube.api import meta
from fastkube.api.catalog import Catalog
from fastkube.api.generated import table
from fastkube.clock import RealClock, rfc3339
from fastkube.registry.registry import Registry
from fastkube.registry.strategies import STRATEGIES
from fastkube.registry.strategy import Strategy, UserInfo
from fastkube.server.app import ApiServer
from fastkube.server.authz import Authorizer
from fastkube.server.escalation import EscalationGuard
from fastkube.server.options import ServerOptions
from fastkube.store import Store

ADMIN, ALICE, BOB = "admintoken", "alicetoken", "bobtoken"
TOKENS = 'admintoken,admin,admin,"system:masters"\nalicetoken,alice,alice,"dev"\nbobtoken,bob,bob,"ops,dev"\n'
COMPONENT = {"component-token": UserInfo("system:kube-scheduler")}


class _Plain(Strategy):
    has_generation = has_status = False


class _Admission:
    def __init__(self, guard):
        self.guard = guard

    async def mutate(self, call, obj, old):
        pass

    async def validate(self, call, obj, old):
        operation = {"create": "CREATE", "update": "UPDATE", "patch": "UPDATE"}.get(call.verb, "DELETE")
        if obj is not None and self.guard.handles((call.rtype.group, call.rtype.resource, call.subresource), operation):
            self.guard.validate(call, obj, old)


@dataclass
class Response:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Api:
    """One running server. Requests go over plain HTTP on a kept connection unless a test says otherwise."""

    server: ApiServer
    store: Store
    session: aiohttp.ClientSession
    url: str
    directory: Path

    async def request(
        self, method: str, path: str, body: Any = None, *, token: str = ADMIN, headers: dict[str, str] | None = None
    ) -> Response:
        sent = {"Accept": "application/json", "User-Agent": "tests/1", "Accept-Encoding": "identity"}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        sent |= headers or {}
        url = self.url + path
        async with self.session.request(
            method, URL(url, encoded=True), data=data, headers=sent, allow_redirects=False
        ) as response:
            return Response(response.status, response.headers, await response.read())

    async def get(self, path: str, **more: Any) -> Any:
        response = await self.request("GET", path, **more)
        assert response.status == 200, response.body
        return response.json

    async def create(self, path: str, body: Any, **more: Any) -> Any:
        response = await self.request("POST", path, body, **more)
        assert response.status == 201, response.body
        return response.json

    async def merge(self, path: str, body: Any, **more: Any) -> Any:
        headers = {"Content-Type": "application/merge-patch+json"}
        response = await self.request("PATCH", path, body, headers=headers, **more)
        assert response.status == 200, response.body
        return response.json

    async def delete(self, path: str, **more: Any) -> Any:
        response = await self.request("DELETE", path, **more)
        assert response.status == 200, response.body
        return response.json

    @asynccontextmanager
    async def watch(self, path: str, **headers: str) -> AsyncIterator[Watch]:
        sent = {"Authorization": f"Bearer {ADMIN}", "Accept": "application/json", **headers}
        async with self.session.get(URL(self.url + path, encoded=True), headers=sent) as response:
            assert response.status == 200, await response.text()
            yield Watch(response)

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host, int(port)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.address)

    async def raw(self, data: bytes) -> bytes:
        """What the server answers to these bytes on a connection of their own, until it closes or is silent."""
        reader, writer = await self.connect()
        writer.write(data)
        answer = b""
        try:
            while piece := await asyncio.wait_for(reader.read(65536), 1.0):
                answer += piece
        except TimeoutError:
            pass
        writer.close()
        return answer


class Watch:
    """The events of an open watch."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self, timeout: float = 5.0) -> Any:
        line = await asyncio.wait_for(self.response.content.readline(), timeout)
        return json.loads(line) if line else None

    async def take(self, count: int) -> list[Any]:
        return [await self.next() for _ in range(count)]

    async def names(self, count: int) -> list[tuple[str, str]]:
        return [(event["type"], event["object"]["metadata"]["name"]) for event in await self.take(count)]

    async def rest(self, timeout: float = 5.0) -> list[Any]:
        """All events until the server ends the watch."""
        events = []
        while (event := await self.next(timeout)) is not None:
            events.append(event)
        return events


async def bootstrap(store: Store, catalog: Catalog) -> None:
    for path, content in table("bootstrap").items():
        *group, version, resource = path.split("/")
        rtype = catalog.lookup(group[0] if group else "", version, resource)
        if rtype is None or rtype.group == "apiregistration.k8s.io":
            continue
        for item in content["items"]:
            obj = {"apiVersion": rtype.api_version(version), "kind": rtype.kind, **copy.deepcopy(item)}
            metadata = obj["metadata"]
            metadata |= {"uid": meta.new_uid(), "creationTimestamp": rfc3339(1.7e9)}
            await store.create(rtype.key(metadata.get("namespace", ""), metadata["name"]), msgpack.packb(obj))


@asynccontextmanager
async def running(directory: Path, **options: Any) -> AsyncIterator[Api]:
    tokens = directory / "tokens.csv"
    tokens.write_text(TOKENS)
    chosen = {"secure_port": None, "http_port": 0, "cert_dir": str(directory / "pki"), "token_auth_file": str(tokens)}
    settings = ServerOptions(**{**chosen, **options})
    clock, catalog = RealClock(), Catalog.builtin()
    store = await Store.open(directory / "store", sync=False)
    await bootstrap(store, catalog)
    authorizer = Authorizer(settings.authorization_mode, store, catalog)
    strategies = dict(STRATEGIES)
    for group, resource in (
        ("", "configmaps"),
        ("", "secrets"),
        ("", "serviceaccounts"),
        ("rbac.authorization.k8s.io", "roles"),
        ("rbac.authorization.k8s.io", "rolebindings"),
    ):
        strategies.setdefault((group, resource), _Plain())
    admission = _Admission(EscalationGuard(authorizer))
    registry = Registry(store, catalog, clock=clock, admission=admission, strategies=strategies)
    server = ApiServer(registry, catalog, store, settings, clock, authorizer=authorizer, component_tokens=COMPONENT)
    await server.start()
    try:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            yield Api(server, store, session, server.listeners.http_url, directory)
    finally:
        await server.stop()
        await store.close()

"""A whole API server on free ports for a test, and a small HTTP client for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from etcds import Etcd, open_store
from yarl import URL

from fastkube.api.catalog import Catalog
from fastkube.clock import RealClock
from fastkube.registry.attendants import builtin_attendants
from fastkube.registry.bootstrap import bootstrap
from fastkube.registry.custom.keeper import Keeper
from fastkube.registry.registry import Registry
from fastkube.registry.services import ServiceAddresses
from fastkube.registry.strategy import UserInfo
from fastkube.server.admission.chain import Chain
from fastkube.server.admission.hook_client import HookClient
from fastkube.server.admission.lookup import Lookups
from fastkube.server.app import ApiServer
from fastkube.server.authz_config import authorizer_of
from fastkube.server.options import ServerOptions
from fastkube.store import Store

ADMIN, ALICE, BOB = "admintoken", "alicetoken", "bobtoken"
TOKENS = 'admintoken,admin,admin,"system:masters"\nalicetoken,alice,alice,"dev"\nbobtoken,bob,bob,"ops,dev"\n'
COMPONENT = {"component-token": UserInfo("system:kube-scheduler")}


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
        answer = await reader.read(65536)
        try:
            while piece := await asyncio.wait_for(reader.read(65536), 1.0):
                answer += piece
        except TimeoutError:
            pass
        writer.close()
        return answer


async def until(condition: Callable[[], object], timeout: float = 30.0) -> None:
    """Wait for something that makes no sound; fails when it does not come about."""
    deadline = asyncio.get_running_loop().time() + timeout
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not come about in time"
        await asyncio.sleep(0.005)


class Watch:
    """The events of an open watch."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self, timeout: float = 30.0) -> Any:
        line = await asyncio.wait_for(self.response.content.readline(), timeout)
        return json.loads(line) if line else None

    async def take(self, count: int) -> list[Any]:
        return [await self.next() for _ in range(count)]

    async def names(self, count: int) -> list[tuple[str, str]]:
        return [(event["type"], event["object"]["metadata"]["name"]) for event in await self.take(count)]

    async def rest(self, timeout: float = 30.0) -> list[Any]:
        """All events until the server ends the watch."""
        events = []
        while (event := await self.next(timeout)) is not None:
            events.append(event)
        return events


def settings_in(directory: Path, **options: Any) -> ServerOptions:
    directory.mkdir(exist_ok=True)
    tokens = directory / "tokens.csv"
    tokens.write_text(TOKENS)
    chosen = {
        "secure_port": None,
        "http_port": 0,
        "cert_dir": str(directory / "pki"),
        "token_auth_file": str(tokens),
        "disable_admission_plugins": ("ServiceAccount",),  # no controller makes default accounts here
    }
    return ServerOptions(**{**chosen, **options})


@asynccontextmanager
async def running(directory: Path, *, etcd: Etcd | None = None, prefix: str = "", **options: Any) -> AsyncIterator[Api]:
    """A server on the real parts; a directory that was used before is gone on with, and a prefix in `etcd` as well."""
    settings = settings_in(directory, **options)
    clock, catalog = RealClock(), Catalog.builtin()
    async with AsyncExitStack() as stack:
        store = await open_store(directory, etcd, prefix)
        stack.push_async_callback(store.close)
        authorizer = authorizer_of(settings, store, catalog, clock)
        lookups = Lookups(store, catalog)
        chain = Chain.build(
            lookups,
            clock,
            authorizer,
            enable=settings.enable_admission_plugins,
            disable=settings.disable_admission_plugins,
            only=settings.admission_control,
            config_file=settings.admission_control_config_file,
            tolerated_s=(
                settings.default_not_ready_toleration_seconds,
                settings.default_unreachable_toleration_seconds,
            ),
        )
        stack.callback(chain.close)
        addresses = ServiceAddresses(store, settings.service_cluster_ip_range)
        stack.callback(addresses.close)
        attendants = builtin_attendants(store, addresses)
        registry = Registry(
            store, catalog, clock=clock, admission=chain, attendants=attendants, event_ttl_s=int(settings.event_ttl_s)
        )
        keeper = Keeper(store, catalog, clock, HookClient(lookups).post)
        stack.push_async_callback(keeper.close)
        await bootstrap(registry, settings.service_cluster_ip_range)
        if etcd is not None:
            await addresses.adopt()
        server = ApiServer(registry, catalog, store, settings, clock, authorizer=authorizer, component_tokens=COMPONENT)
        await server.start()
        stack.push_async_callback(server.stop)
        session = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
        yield Api(server, store, session, server.listeners.http_url, directory)

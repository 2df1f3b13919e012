"""A registry over a real store with its admission chain, and short words for calls on it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
from etcds import Etcd, open_store

from fastkube.api.catalog import Catalog
from fastkube.clock import ManualClock
from fastkube.errors import ApiError
from fastkube.registry.answers import Stored
from fastkube.registry.attendants import builtin_attendants
from fastkube.registry.bootstrap import bootstrap
from fastkube.registry.deletion import DeleteOptions
from fastkube.registry.listing import ListOptions
from fastkube.registry.registry import Registry
from fastkube.registry.services import ServiceAddresses
from fastkube.registry.strategy import Call, UserInfo
from fastkube.server.admission.chain import Chain
from fastkube.server.admission.lookup import Lookups
from fastkube.server.authz import Authorizer
from fastkube.store import Store

ADMIN = UserInfo("admin", ("system:masters",))
CIDR = "10.96.0.0/16"
NOW = 1_800_000_000.0

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"


def config_map(name: str = "a", data: dict[str, str] | None = None, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, **metadata},
        "data": {"k": "v"} if data is None else data,
    }


def pod(name: str = "p", resources: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    container: dict[str, Any] = {"name": "c", "image": "img:1"}
    if resources:
        container["resources"] = resources
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container], **spec},
    }


def service(name: str = "s", **spec: Any) -> dict[str, Any]:
    ports = [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    whole = {"type": "ClusterIP", "sessionAffinity": "None", "selector": {"app": "a"}, "ports": ports, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": whole}


class Cluster:
    """`resource` is `pods`, `deployments.apps`, or with a subresource `pods/status`. Objects come back decoded."""

    def __init__(self, store: Store, registry: Registry, clock: ManualClock, addresses: ServiceAddresses) -> None:
        self.store, self.registry, self.clock, self.addresses = store, registry, clock, addresses
        self.warnings: list[str] = []

    def call(self, verb: str, resource: str, name: str = "", namespace: str = "default", **more: Any) -> Call:
        whole, _, subresource = resource.partition("/")
        plain, _, group = whole.partition(".")
        rtype = self.registry.catalog.get(group, plain)
        assert rtype is not None, resource
        version = more.pop("version", rtype.versions[0])
        scope = namespace if rtype.namespaced else ""
        more.setdefault("user", ADMIN)
        made = Call(rtype, version, verb, scope, name, subresource, **more)
        self.warnings = made.warnings
        return made

    @staticmethod
    def decoded(stored: Any) -> dict[str, Any]:
        obj: dict[str, Any] = msgpack.unpackb(stored.value)
        if stored.revision:
            obj["metadata"]["resourceVersion"] = str(stored.revision)
        return obj

    async def create(self, resource: str, obj: dict[str, Any], name: str = "", **more: Any) -> dict[str, Any]:
        return self.decoded(await self.registry.create(self.call("create", resource, name, **more), _copy(obj)))

    def get(self, resource: str, name: str, **more: Any) -> dict[str, Any]:
        return self.decoded(self.registry.get(self.call("get", resource, name, **more)))

    def names(self, resource: str, query: dict[str, str] | None = None, **more: Any) -> list[str]:
        return [obj["metadata"]["name"] for obj in self.list(resource, query, **more)[0]]

    def list(self, resource: str, query: dict[str, str] | None = None, **more: Any) -> Any:
        call = self.call("list", resource, **more)
        page = self.registry.list(call, ListOptions.parse(query or {}, call.rtype.selectable))
        return [self.decoded(Stored(*item)) for item in page.items], page

    async def update(self, resource: str, obj: dict[str, Any], **more: Any) -> dict[str, Any]:
        call = self.call("update", resource, obj["metadata"]["name"], **more)
        return self.decoded((await self.registry.update(call, _copy(obj)))[0])

    async def patch(self, resource: str, name: str, patch: Any, kind: str = MERGE, **more: Any) -> dict[str, Any]:
        call = self.call("patch", resource, name, **more)
        return self.decoded((await self.registry.patch(call, kind, json.dumps(patch).encode()))[0])

    async def delete(self, resource: str, name: str, body: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        call = self.call("delete", resource, name, **more)
        result, _ = await self.registry.delete(call, DeleteOptions.read(body or {})[0])
        return result if isinstance(result, dict) else self.decoded(result)

    def exists(self, resource: str, name: str, **more: Any) -> bool:
        try:
            self.get(resource, name, **more)
        except ApiError as error:
            assert error.code == 404
            return False
        return True


def _copy(obj: dict[str, Any]) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(obj))
    return copied


@asynccontextmanager
async def running(
    directory: Path,
    *,
    enable: tuple[str, ...] = (),
    disable: tuple[str, ...] = ("ServiceAccount",),
    etcd: Etcd | None = None,
) -> AsyncIterator[Cluster]:
    clock, catalog = ManualClock(NOW), Catalog.builtin()
    store = await open_store(directory, etcd)
    chain = Chain.build(
        Lookups(store, catalog), clock, Authorizer(("RBAC",), store, catalog), enable=enable, disable=disable
    )
    addresses = ServiceAddresses(store, CIDR)
    attendants = builtin_attendants(store, addresses)
    registry = Registry(store, catalog, clock=clock, admission=chain, attendants=attendants)
    await bootstrap(registry, CIDR)
    try:
        yield Cluster(store, registry, clock, addresses)
    finally:
        addresses.close()
        chain.close()
        await store.close()


@asynccontextmanager
async def refused(code: int, reason: str = "", message: str = "") -> AsyncIterator[Any]:
    """The block must be refused with this code, reason, and a message that holds the text."""
    with pytest.raises(ApiError) as caught:
        yield caught
    error = caught.value
    assert (error.code, message in error.message) == (code, True), error.message
    if reason:
        assert error.reason == reason

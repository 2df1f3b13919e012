"""APIServices: availability, requests passed on with the user's identity, discovery and OpenAPI, what is broken."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
from aiohttp import web
from apis import ALICE, Api, running, until
from peers import certificate, serving

SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
GROUP, VERSION = "agg.example.com", "v1"
ROOT = f"/apis/{GROUP}/{VERSION}"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class Extension:
    """An aggregated API server with one kind, which records what it is asked."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.healthy = True

    async def root(self, request: web.Request) -> web.Response:
        if not self.healthy:
            return web.Response(status=500)
        thing = {
            "name": "things",
            "singularName": "thing",
            "namespaced": True,
            "kind": "Thing",
            "verbs": ["get", "list"],
        }
        status = {**thing, "name": "things/status", "singularName": ""}
        return web.json_response(
            {"kind": "APIResourceList", "groupVersion": f"{GROUP}/v1", "resources": [thing, status]}
        )

    async def things(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if "watch" in request.query:
            response = web.StreamResponse()
            await response.prepare(request)
            for number in range(3):
                await response.write(json.dumps({"type": "ADDED", "object": {"n": number}}).encode() + b"\n")
                await asyncio.sleep(0.01)
            return response
        body = await request.text()
        return web.json_response({"kind": "ThingList", "items": [], "sent": body}, headers={"X-Own": "yes"})

    async def index(self, request: web.Request) -> web.Response:
        url = f"/openapi/v3{ROOT}?hash=ABC"
        return web.json_response({"paths": {ROOT[1:]: {"serverRelativeURL": url}}})

    async def document(self, request: web.Request) -> web.Response:
        return web.json_response({"openapi": "3.0.0", "theirs": True})

    async def v2(self, request: web.Request) -> web.Response:
        paths = {f"{ROOT}/things": {"get": {}}, "/apis/other/v1": {}}
        return web.json_response({"swagger": "2.0", "paths": paths, "definitions": {"com.example.Thing": {}}})

    async def echo(self, request: web.Request) -> web.WebSocketResponse:
        self.requests.append(request)
        response = web.WebSocketResponse()
        await response.prepare(request)
        async for message in response:
            await response.send_str(message.data.upper())
        return response


def api_service(**spec: Any) -> dict[str, Any]:
    service = {"namespace": "default", "name": "ext", "port": 443}
    told = {"group": GROUP, "version": VERSION, "groupPriorityMinimum": 100, "versionPriority": 10, "service": service}
    return {"metadata": {"name": f"{VERSION}.{GROUP}"}, "spec": {**told, "insecureSkipTLSVerify": True, **spec}}


async def condition(api: Api, reason: str) -> dict[str, Any]:
    """The condition Available, as soon as it has this reason."""
    for _ in range(250):
        found = (await api.get(f"{SERVICES}/{VERSION}.{GROUP}")).get("status", {}).get("conditions") or [{}]
        if found[0].get("reason") == reason:
            return found[0]
        await asyncio.sleep(0.02)
    raise AssertionError(f"{reason} did not come, but {found}")


async def service(api: Api, port: int) -> None:
    """A Service without selector whose slice leads to this port of the machine."""
    ports = [{"name": "https", "port": 443}]
    await api.create("/api/v1/namespaces/default/services", {"metadata": {"name": "ext"}, "spec": {"ports": ports}})
    labels = {"kubernetes.io/service-name": "ext"}
    slice_ = {
        "metadata": {"name": "ext", "labels": labels}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"]}], "ports": [{"name": "https", "port": port}],
    }  # fmt: skip
    item = "/registry/discovery.k8s.io/endpointslices/default/ext"
    whole = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", **slice_}
    whole["metadata"] |= {"namespace": "default", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    await api.store.create(item.encode(), msgpack.packb(whole))  # over the API loopback addresses are refused


@asynccontextmanager
async def extended(tmp_path: Path, **options: Any) -> AsyncIterator[tuple[Api, Extension]]:
    context, _ = certificate(tmp_path / "ext")
    extension = Extension()
    handlers = {
        ROOT: extension.root, f"{ROOT}/namespaces/default/things": extension.things, f"{ROOT}/things": extension.things,
        f"{ROOT}/echo": extension.echo, "/openapi/v3": extension.index, f"/openapi/v3{ROOT}": extension.document,
        "/openapi/v2": extension.v2,
    }  # fmt: skip
    async with serving(handlers, context) as url, running(tmp_path / "api", **options) as api:
        await service(api, int(url.rpartition(":")[2]))
        await api.create(SERVICES, api_service())
        await condition(api, "Passed")
        yield api, extension


async def test_requests_are_passed_on_as_their_user(tmp_path: Path):
    async with extended(tmp_path) as (api, extension):
        path = f"{ROOT}/namespaces/default/things"
        headers = {
            "X-Remote-User": "root",
            "X-Remote-Group": "system:masters",
            "X-Remote-Extra-A": "b",
            "X-Other": "kept",
        }
        answer = await api.request("POST", f"{path}?q=a%2Fb", {"a": 1}, headers=headers)
        assert answer.status == 200 and answer.headers["X-Own"] == "yes" and answer.headers["Audit-Id"]
        assert json.loads(answer.json["sent"]) == {"a": 1}
        asked = extension.requests[-1]
        assert asked.path_qs == f"{path}?q=a%2Fb" and asked.method == "POST"
        assert asked.headers.getall("X-Remote-User") == ["admin"]
        assert asked.headers.getall("X-Remote-Group") == ["system:masters", "system:authenticated"]
        assert asked.headers["X-Remote-Uid"] == "admin" and "X-Remote-Extra-A" not in asked.headers
        assert "Authorization" not in asked.headers and asked.headers["X-Other"] == "kept"
        assert asked.headers["Host"] == "ext.default.svc" and asked.headers["X-Forwarded-For"] == "127.0.0.1"
        refused = await api.request("GET", path, token=ALICE)
        assert refused.status == 403 and len(extension.requests) == 1


async def test_watches_are_streams(tmp_path: Path):
    async with extended(tmp_path) as (api, _), api.watch(f"{ROOT}/things?watch=1") as watch:
        assert [event["object"]["n"] for event in await watch.rest()] == [0, 1, 2]


async def test_upgraded_connections_are_tunnels(tmp_path: Path):
    async with extended(tmp_path) as (api, _):
        headers = {"Authorization": "Bearer admintoken"}
        async with api.session.ws_connect(f"{api.url}{ROOT}/echo", headers=headers) as socket:
            await socket.send_str("hello")
            assert (await socket.receive(timeout=5)).data == "HELLO"


async def test_discovery_shows_what_they_serve(tmp_path: Path):
    async with extended(tmp_path) as (api, extension):
        groups = (await api.get("/apis"))["groups"]
        assert [group["preferredVersion"] for group in groups if group["name"] == GROUP] == [
            {"groupVersion": f"{GROUP}/v1", "version": "v1"}
        ]
        assert (await api.get(f"/apis/{GROUP}"))["name"] == GROUP
        assert (await api.get(ROOT))["resources"][0]["kind"] == "Thing"
        (entry,) = await aggregated(api)
        assert entry["freshness"] == "Current"
        (thing,) = entry["resources"]
        assert thing["responseKind"] == {"group": GROUP, "version": VERSION, "kind": "Thing"}
        assert [one["subresource"] for one in thing["subresources"]] == ["status"]
        extension.healthy = False
        await api.merge(f"{SERVICES}/{VERSION}.{GROUP}", {"spec": {"versionPriority": 11}})
        failed = await condition(api, "FailedDiscoveryCheck")
        assert failed["status"] == "False" and failed["message"].endswith(f"{ROOT}: 500")
        (entry,) = await aggregated(api)
        assert entry["freshness"] == "Stale"
        assert any(group["name"] == "apps" for group in (await api.get("/apis"))["groups"])
        down = await api.request("GET", f"{ROOT}/things")
        assert (down.status, down.body) == (503, b"service unavailable\n")


async def aggregated(api: Api) -> list[dict[str, Any]]:
    items = (await api.get("/apis", headers={"Accept": AGGREGATED}))["items"]
    (mine,) = [item for item in items if item["metadata"]["name"] == GROUP]
    versions: list[dict[str, Any]] = mine["versions"]
    return versions


async def test_openapi_has_their_documents(tmp_path: Path):
    async with extended(tmp_path) as (api, _):
        index = (await api.get("/openapi/v3"))["paths"]
        url = index[ROOT[1:]]["serverRelativeURL"]
        assert url == f"/openapi/v3{ROOT}?hash=ABC" and "apis/apps/v1" in index
        assert (await api.get(url))["theirs"]
        merged = await api.get("/openapi/v2")
        assert f"{ROOT}/things" in merged["paths"] and "/apis/other/v1" not in merged["paths"]
        assert "com.example.Thing" in merged["definitions"]


async def test_what_is_missing_is_told(tmp_path: Path):
    async with running(tmp_path / "api") as api:
        await api.create(SERVICES, api_service())
        missing = await condition(api, "ServiceNotFound")
        assert missing["message"] == 'service/ext in "default" is not present'
        assert (await api.request("GET", ROOT)).body == b"service unavailable\n"
        ports = [{"name": "https", "port": 8443}]
        body = {"metadata": {"name": "ext"}, "spec": {"ports": ports}}
        await api.create("/api/v1/namespaces/default/services", body)
        wrong = await condition(api, "ServicePortError")
        assert wrong["message"] == 'service/ext in "default" is not listening on port 443'
        await api.merge(
            "/api/v1/namespaces/default/services/ext", {"spec": {"ports": [{"name": "https", "port": 443}]}}
        )
        nowhere = await condition(api, "EndpointsNotFound")
        assert nowhere["message"] == 'cannot find endpointslices for service/ext in "default"'
        await api.delete(f"{SERVICES}/{VERSION}.{GROUP}")
        gone = await api.request("GET", ROOT)
        assert (gone.status, gone.body) == (404, b"404 page not found\n")


def encoded_file(path: str) -> str:
    return base64.b64encode(Path(path).read_bytes()).decode()


async def test_an_external_name_leads_anywhere_and_certificates_count(tmp_path: Path):
    context, ca_file = certificate(tmp_path / "ext")
    extension, bundle = Extension(), encoded_file(ca_file)
    async with serving({ROOT: extension.root}, context) as url, running(tmp_path / "api") as api:
        port = int(url.rpartition(":")[2])
        spec = {"type": "ExternalName", "externalName": "localhost"}
        await api.create("/api/v1/namespaces/default/services", {"metadata": {"name": "ext"}, "spec": spec})
        remote = {"namespace": "default", "name": "ext", "port": port}
        await api.create(SERVICES, api_service(service=remote))
        await condition(api, "Passed")
        strict = {"spec": {"insecureSkipTLSVerify": False, "caBundle": bundle}}
        await api.merge(f"{SERVICES}/{VERSION}.{GROUP}", strict)
        failed = await condition(api, "FailedDiscoveryCheck")  # the certificate is not that of ext.default.svc
        assert "failed to verify certificate" in failed["message"]


async def test_the_other_server_knows_this_one_by_its_certificate(tmp_path: Path):
    context, _ = certificate(tmp_path / "ext")
    seen: list[Any] = []

    async def root(request: web.Request) -> web.Response:
        assert request.transport is not None
        seen.append(request.transport.get_extra_info("peercert"))
        return web.json_response({"resources": []})

    async with running(tmp_path / "api", secure_port=0) as api:
        config = await api.get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication")
        data = config["data"]
        assert json.loads(data["requestheader-allowed-names"]) == ["front-proxy-client"]
        assert json.loads(data["requestheader-username-headers"]) == ["X-Remote-User"]
        assert data["client-ca-file"].count("BEGIN CERTIFICATE") == 1
        context.load_verify_locations(cadata=data["requestheader-client-ca-file"])
        context.verify_mode = ssl.CERT_REQUIRED
        async with serving({ROOT: root}, context) as url:
            await service(api, int(url.rpartition(":")[2]))
            await api.create(SERVICES, api_service())
            await condition(api, "Passed")
    assert (("commonName", "front-proxy-client"),) in seen[0]["subject"]


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (
            {"groupPriorityMinimum": 0},
            "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
        ),
        ({"versionPriority": 1001}, "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000"),
        ({"service": {"name": "s"}}, "spec.service.namespace: Required value"),
        ({"service": {"namespace": "n", "name": "s", "port": 70000}}, "spec.service.port: Invalid value: 70000"),
        ({"caBundle": "eA=="}, "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle"),
        ({"service": None}, "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have"),
        ({"version": "1"}, "metadata.name: Invalid value"),
    ],
)
async def test_apiservices_that_cannot_be(api: Api, spec: dict[str, Any], problem: str):
    refused = await api.request("POST", SERVICES, api_service(**spec))
    assert refused.status == 422 and problem in refused.json["message"]


async def test_a_local_apiservice_is_always_available(api: Api):
    body = api_service(service=None, insecureSkipTLSVerify=False)
    made = await api.create(SERVICES, body)
    assert made["status"]["conditions"][0]["reason"] == "Local"
    await until(lambda: not api.server.aggregator.remotes)

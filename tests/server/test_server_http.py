"""HTTP itself: methods, limits, broken input, compression, headers."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json

import pytest
from apis import Api, running

from fastkube.server import connection as connections
from fastkube.server.calls import BODY_MAX_BYTES
from fastkube.server.stages import PIPELINE

MAPS = "/api/v1/namespaces/default/configmaps"


def config_map(name: str, size: int = 1) -> dict:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "x" * size}}


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_the_pipeline_is_in_upstreams_order() -> None:
    names = [stage.__name__ for stage in PIPELINE]
    expected = "identify parse_path authenticate audit impersonate limit authorize dispatch"
    assert names == expected.split()


@pytest.mark.parametrize(
    ("method", "path", "code", "reason"),
    [
        ("GET", "/api/v1/namespaces/default/nope", 404, "NotFound"),
        ("GET", "/api/v2", 404, "NotFound"),
        ("GET", "/api/v1//pods", 404, "NotFound"),
        ("GET", "/apis/apps/v9/deployments", 404, "NotFound"),
        ("GET", f"{MAPS}/a/status", 404, "NotFound"),
        ("GET", "/api/v1/namespaces/default/nodes", 404, "NotFound"),
        ("GET", "/api/v1/configmaps/a", 404, "NotFound"),
        ("POST", "/api", 405, "MethodNotAllowed"),
        ("POST", "/version", 405, "MethodNotAllowed"),
        ("PUT", MAPS, 405, "MethodNotAllowed"),
        ("POST", "/api/v1/configmaps", 405, "MethodNotAllowed"),
        ("DELETE", "/api/v1/configmaps", 405, "MethodNotAllowed"),
        ("OPTIONS", MAPS, 405, "MethodNotAllowed"),
        ("TRACE", f"{MAPS}/a", 405, "MethodNotAllowed"),
        ("FOO", f"{MAPS}/a", 405, "MethodNotAllowed"),
        ("GET", "/api/v1/namespaces/default/serviceaccounts/a/token", 405, "MethodNotAllowed"),
    ],
)
async def test_paths_and_methods_that_there_are_not(api: Api, method: str, path: str, code: int, reason: str) -> None:
    response = await api.request(method, path)
    assert response.status == code
    assert response.json["reason"] == reason
    assert response.json["code"] == code


@pytest.mark.parametrize("path", ["/nope", "//api", "/apis/none.example.org", "/apis/none.example.org/v1/things"])
async def test_paths_outside_of_the_api_are_plain_text(api: Api, path: str) -> None:
    response = await api.request("GET", path)
    assert (response.status, response.body) == (404, b"404 page not found\n")
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"


async def test_head_is_for_paths_that_are_no_resources(api: Api) -> None:
    response = await api.request("HEAD", "/healthz")
    assert (response.status, response.body, response.headers["Content-Length"]) == (200, b"", "2")
    assert (await api.request("HEAD", MAPS)).status == 405


async def test_headers_of_an_answer(api: Api) -> None:
    response = await api.request("GET", MAPS)
    assert response.headers["Cache-Control"] == "no-cache, private"
    assert len(response.headers["Audit-Id"]) == 36
    assert response.headers["X-Kubernetes-Pf-Flowschema-Uid"]
    assert response.headers["X-Kubernetes-Pf-Prioritylevel-Uid"]
    assert response.headers["Date"].endswith("GMT")
    given = await api.request("GET", MAPS, headers={"Audit-ID": "mine"})
    assert given.headers["Audit-Id"] == "mine"
    other = await api.request("GET", MAPS)
    assert other.headers["Audit-Id"] != response.headers["Audit-Id"]


async def test_warnings_are_headers(api: Api) -> None:
    response = await api.request("POST", MAPS, {**config_map("w"), "odd\n": 1, "more": 2})
    assert response.status == 201
    assert response.headers.getall("Warning") == ['299 - "unknown field \\"odd\\""', '299 - "unknown field \\"more\\""']
    endpoints = await api.request("GET", "/api/v1/endpoints")
    assert "v1 Endpoints is deprecated" in endpoints.headers["Warning"]


async def test_large_answers_are_compressed_when_asked(api: Api) -> None:
    await api.create(MAPS, config_map("big", 300_000))
    await api.create(MAPS, config_map("small"))
    big = await api.request("GET", f"{MAPS}/big", headers={"Accept-Encoding": "deflate, gzip;q=0.5"})
    assert (big.headers["Content-Encoding"], big.headers["Vary"]) == ("gzip", "Accept-Encoding")
    assert json.loads(gzip.decompress(big.body))["data"]["k"] == "x" * 300_000
    small = await api.request("GET", f"{MAPS}/small", headers={"Accept-Encoding": "gzip"})
    plain = await api.request("GET", f"{MAPS}/big", headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in small.headers
    assert "Content-Encoding" not in plain.headers


@pytest.mark.parametrize("accept", ["identity", "gzip"])
async def test_long_lists_are_streamed(api: Api, accept: str) -> None:
    await asyncio.gather(*(api.create(MAPS, config_map(f"m{index:02}", 200_000)) for index in range(20)))
    response = await api.request("GET", MAPS, headers={"Accept-Encoding": accept})
    assert response.headers["Transfer-Encoding"] == "chunked"
    body = gzip.decompress(response.body) if accept == "gzip" else response.body
    listed = json.loads(body)
    assert listed["kind"] == "ConfigMapList"
    assert [item["metadata"]["name"] for item in listed["items"]] == [f"m{index:02}" for index in range(20)]
    assert all(len(item["data"]["k"]) == 200_000 for item in listed["items"])
    old = await api.raw(f"GET {MAPS} HTTP/1.0\r\nAuthorization: Bearer admintoken\r\n\r\n".encode())
    head, _, body = old.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert len(json.loads(body)["items"]) == 20


async def test_bodies_over_the_limit_are_refused(api: Api) -> None:
    whole = await api.request("POST", MAPS, config_map("huge", BODY_MAX_BYTES))
    assert (whole.status, whole.json["reason"]) == (413, "RequestEntityTooLarge")
    assert whole.json["message"] == "Request entity too large: limit is 3145728"
    reader, writer = await api.connect()
    writer.write(
        f"POST {MAPS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admintoken\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with contextlib.suppress(ConnectionError):
        for _ in range(64):
            writer.write(piece)
            await writer.drain()
    assert status_of(await reader.read(1000)) == 413
    writer.close()


async def test_a_chunked_body_is_as_good_as_any(api: Api) -> None:
    body = json.dumps(config_map("chunked")).encode()
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:10], body[10:]))
    answer = await api.raw(
        f"POST {MAPS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admintoken\r\nConnection: close\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        + pieces
        + b"0\r\n\r\n"
    )
    assert status_of(answer) == 201


async def test_expect_continue(api: Api) -> None:
    body = json.dumps(config_map("patient")).encode()
    reader, writer = await api.connect()
    writer.write(
        f"POST {MAPS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admintoken\r\nContent-Type: application/json\r\n"
        f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    )
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert status_of(await asyncio.wait_for(reader.read(1000), 30)) == 201
    writer.close()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400),  # TLS on the plain port
        (b"GET\r\n\r\n", 400),
        (b"GET /api HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /api HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", 400),
        (b"GET /" + b"a" * 400_000 + b" HTTP/1.1\r\n\r\n", 400),
        (b"GET /api HTTP/1.1\r\nX: " + b"a" * 400_000 + b"\r\n\r\n", 400),
        (b"GET /api HTTP/1.1\r\n" + b"A: b\r\n" * 1000 + b"\r\n", 400),
        (b"GET /api HTTP/1.1\r\nHost: x\r\nName : value\r\n\r\n", 400),
        (b"GET /api HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET /api HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /api HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400),
    ],
)
async def test_what_is_no_http_is_refused_without_details(api: Api, sent: bytes, code: int) -> None:
    answer = await api.raw(sent)
    assert status_of(answer) == code
    assert b"Traceback" not in answer
    assert b"Connection: close" in answer
    assert (await api.request("GET", "/healthz")).status == 200


async def test_errors_inside_show_no_stack_trace(api: Api) -> None:
    await api.store.create(b"/registry/configmaps/default/broken", b"\xc1 no msgpack")
    response = await api.request("GET", f"{MAPS}/broken")
    assert (response.status, response.json["reason"]) == (500, "InternalError")
    assert b"Traceback" not in response.body
    assert b".py" not in response.body


async def test_connections_are_kept(api: Api) -> None:
    reader, writer = await api.connect()
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    for _ in range(3):
        writer.write(request)
        await asyncio.wait_for(reader.readuntil(b"ok"), 30)
    writer.write(request * 5)  # pipelined
    for _ in range(5):
        await asyncio.wait_for(reader.readuntil(b"ok"), 30)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    last = await asyncio.wait_for(reader.read(), 30)
    assert b"Connection: close" in last
    assert last.endswith(b"ok")
    writer.close()


async def test_silent_connections_are_closed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADER_TIMEOUT_S", 0.2)
    reader, writer = await api.connect()
    writer.write(b"GET /healthz HTTP/1.1\r\nHost:")
    assert await asyncio.wait_for(reader.read(), 30) == b""
    writer.close()


async def test_a_body_that_does_not_come_is_a_timeout(tmp_path) -> None:
    async with running(tmp_path, request_timeout_s=0.2) as api:
        answer = await api.raw(
            f"POST {MAPS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admintoken\r\n"
            "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{".encode()
        )
        assert status_of(answer) == 504
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["reason"] == "Timeout"


async def test_connections_over_the_limit_are_closed(tmp_path) -> None:
    async with running(tmp_path, max_connections=2) as api:
        held = [await api.connect() for _ in range(2)]
        await asyncio.sleep(0.05)
        reader, writer = await api.connect()
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 30) == b""
        for _, other in (*held, (reader, writer)):
            other.close()


async def test_pretty_printing(api: Api) -> None:
    path = "/api/v1/namespaces/default"
    assert b"\n" not in (await api.request("GET", path)).body
    assert b'{\n  "' in (await api.request("GET", f"{path}?pretty=true")).body
    curl = {"User-Agent": "curl/8"}
    assert b'{\n  "' in (await api.request("GET", path, headers=curl)).body
    assert b"\n" not in (await api.request("GET", f"{path}?pretty=false", headers=curl)).body


@pytest.mark.parametrize(
    ("accept", "media", "start"),
    [
        ("application/yaml", "application/yaml", b"apiVersion: v1"),
        ("application/msgpack", "application/msgpack", b"\x85"),
        ("text/html, */*;q=0.1", "application/json", b"{"),
        ("application/json;q=0.1, application/yaml", "application/yaml", b"apiVersion"),
        ("application/json;as=Odd;v=v1;g=meta.k8s.io, application/json", "application/json", b'{"apiVersion"'),
    ],
)
async def test_formats(api: Api, accept: str, media: str, start: bytes) -> None:
    response = await api.request("GET", "/api/v1/namespaces/default", headers={"Accept": accept})
    assert (response.status, response.headers["Content-Type"]) == (200, media)
    assert response.body.startswith(start)


async def test_a_format_that_there_is_not(api: Api) -> None:
    response = await api.request("GET", MAPS, headers={"Accept": "text/html"})
    assert (response.status, response.json["reason"]) == (406, "NotAcceptable")
    sent = await api.request("POST", MAPS, b"<a/>", headers={"Content-Type": "text/xml"})
    assert (sent.status, sent.json["reason"]) == (415, "UnsupportedMediaType")


async def test_options_are_checked(api: Api) -> None:
    for query, cause in (
        ("fieldValidation=Odd", "fieldValidation"),
        ("dryRun=Yes", "dryRun"),
        (f"fieldManager={'m' * 129}", "fieldManager"),
    ):
        response = await api.request("POST", f"{MAPS}?{query}", config_map("never"))
        assert response.status == 422
        assert [one["field"] for one in response.json["details"]["causes"]] == [cause]
    response = await api.request("GET", f"{MAPS}?timeout=odd")
    assert (response.status, response.json["message"]) == (
        400,
        'invalid timeout specified in the request URL - time: invalid duration "odd"',
    )


async def test_dry_run_writes_nothing(api: Api) -> None:
    created = await api.create(f"{MAPS}?dryRun=All", config_map("dry"))
    assert "resourceVersion" not in created["metadata"]
    assert (await api.request("GET", f"{MAPS}/dry")).status == 404


async def test_unix_socket(tmp_path) -> None:
    path = tmp_path / "api.sock"
    async with running(tmp_path, unix_socket=str(path)):
        assert path.stat().st_mode & 0o777 == 0o600
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 30)).endswith(b"ok")
        writer.close()
    assert not path.exists()

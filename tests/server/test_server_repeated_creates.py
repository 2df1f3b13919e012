"""Creates that repeat on a connection: each is judged and answered as if it had been the first."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from apis import ADMIN, ALICE, Api, running

PODS = "/api/v1/namespaces/default/pods"
GROUP = "rbac.authorization.k8s.io"
ROLES = f"/apis/{GROUP}/v1/namespaces/default"


def pod(name: str, **metadata: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "c", "image": "i:1"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": spec}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path, disable_admission_plugins=()) as started:
        await started.create("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
        yield started


async def codes(api: Api, *names: str, **more: Any) -> list[int]:
    return [(await api.request("POST", PODS, pod(name), **more)).status for name in names]


async def test_objects_and_heads_are_as_ever(api: Api) -> None:
    answers = [await api.request("POST", PODS, pod(f"pod-{number}")) for number in range(8)]
    assert [answer.status for answer in answers] == [201] * 8
    made = [answer.json for answer in answers]
    assert [await api.get(f"{PODS}/pod-{number}") for number in range(8)] == made
    assert len({obj["metadata"]["uid"] for obj in made}) == 8
    assert len({obj["spec"]["volumes"][0]["name"] for obj in made}) == 8
    versions = [int(obj["metadata"]["resourceVersion"]) for obj in made]
    assert versions == list(range(versions[0], versions[0] + 8))
    ids = {answer.headers["Audit-Id"] for answer in answers}
    assert len(ids) == 8
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}", one) for one in ids)
    assert len({tuple(sorted(set(answer.headers) - {"Audit-Id"})) for answer in answers}) == 1


async def test_a_watch_sees_them(api: Api) -> None:
    async with api.watch(f"{PODS}?watch=1&resourceVersion=0") as watch:
        made = [await api.create(PODS, pod(f"pod-{number}")) for number in range(6)]
        assert [event["object"] for event in await watch.take(6)] == made


async def test_names_that_are_taken_or_made_up(api: Api) -> None:
    assert await codes(api, *(f"pod-{number}" for number in range(5))) == [201] * 5
    again = await api.request("POST", PODS, pod("pod-3"))
    assert (again.status, again.json["reason"]) == (409, "AlreadyExists")
    assert again.json["message"] == 'pods "pod-3" already exists'
    assert await codes(api, "pod-7") == [201]
    made = [await api.create(PODS, pod("", generateName="web-")) for _ in range(6)]
    assert len({obj["metadata"]["name"] for obj in made}) == 6


async def test_namespaces_are_kept_apart(api: Api) -> None:
    await api.create("/api/v1/namespaces", {"metadata": {"name": "other"}})
    for namespace in ("default", "other"):
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        made = [await api.create(path, {"metadata": {"name": f"map-{number}"}}) for number in range(6)]
        assert [obj["metadata"]["namespace"] for obj in made] == [namespace] * 6


@pytest.mark.parametrize("query", ["?fieldManager=me", "?fieldValidation=Strict", "?pretty=true", "?dryRun=All"])
async def test_options_count(api: Api, query: str) -> None:
    answers = [await api.request("POST", PODS + query, pod(f"pod-{number}")) for number in range(6)]
    assert [answer.status for answer in answers] == [201] * 6
    if query == "?fieldManager=me":
        assert {answer.json["metadata"]["managedFields"][0]["manager"] for answer in answers} == {"me"}
    if query == "?pretty=true":
        assert all(answer.body.startswith(b"{\n") for answer in answers)
    stored = 0 if query == "?dryRun=All" else 6
    assert len((await api.get(PODS))["items"]) == stored


async def test_warnings_are_told_each_time(api: Api) -> None:
    for number in range(6):
        answer = await api.request("POST", PODS, {**pod(f"pod-{number}"), "nonsense": 1})
        assert answer.headers["Warning"] == '299 - "unknown field \\"nonsense\\""'


async def test_msgpack_in_and_out(api: Api) -> None:
    headers = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
    for number in range(6):
        body = msgpack.packb(pod(f"pod-{number}"))
        answer = await api.request("POST", PODS, body, headers=headers)
        assert msgpack.unpackb(answer.body) == await api.get(f"{PODS}/pod-{number}")


async def test_whoever_loses_a_right_is_refused_at_once(api: Api) -> None:
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]}
    await api.create(f"{ROLES}/roles", {"metadata": {"name": "r"}, "rules": [rule]})
    binding = {
        "metadata": {"name": "b"},
        "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "alice", "apiGroup": GROUP}],
    }
    await api.create(f"{ROLES}/rolebindings", binding)
    assert await codes(api, *(f"pod-{number}" for number in range(5)), token=ALICE) == [201] * 5
    await api.delete(f"{ROLES}/rolebindings/b")
    assert await codes(api, "pod-5", "pod-6", token=ALICE) == [403, 403]
    assert await codes(api, "pod-7", token=ADMIN) == [201]


async def test_a_namespace_that_goes_takes_no_more(api: Api) -> None:
    await api.create("/api/v1/namespaces", {"metadata": {"name": "other"}})
    await api.create("/api/v1/namespaces/other/serviceaccounts", {"metadata": {"name": "default"}})
    path = "/api/v1/namespaces/other/pods"
    for number in range(5):
        await api.create(path, pod(f"pod-{number}"))
    await api.delete("/api/v1/namespaces/other")
    late = await api.request("POST", path, pod("late"))
    assert (late.status, late.json["details"]["causes"][0]["reason"]) == (403, "NamespaceTerminating")


async def test_bodies_that_come_in_pieces_and_requests_that_come_together(api: Api) -> None:
    assert await codes(api, *(f"pod-{number}" for number in range(4))) == [201] * 4

    def request(name: str) -> bytes:
        body = json.dumps(pod(name)).encode()
        head = f"POST {PODS} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {ADMIN}\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    reader, writer = await api.connect()
    for number in range(4, 8):
        writer.write(request(f"pod-{number}"))
        assert (await reader.readuntil(b"\r\n")).split()[1] == b"201"
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"Content-Length: (\d+)", head)[1])  # type: ignore[index]
        assert json.loads(await reader.readexactly(length))["metadata"]["name"] == f"pod-{number}"
    whole = request("pod-8")
    writer.write(whole[:-20])
    await asyncio.sleep(0.05)
    writer.write(whole[-20:] + request("pod-9") + request("pod-9") + request("pod-a"))
    writer.write(b"GET /version HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    rest = await reader.read(-1)
    assert re.findall(rb"HTTP/1.1 (\d+)", rest) == [b"201", b"201", b"409", b"201", b"200"]
    writer.close()


async def test_a_known_head_says_nothing_of_its_body(api: Api) -> None:
    reader, writer = await api.connect()

    async def send(data: bytes) -> tuple[int, dict[str, Any]]:
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"Content-Length: (\d+)", head)[1])  # type: ignore[index]
        return int(head.split()[1]), json.loads(await reader.readexactly(length))

    def request(body: bytes) -> bytes:
        head = f"POST {PODS} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {ADMIN}\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def named(name: str) -> bytes:
        return json.dumps(pod(name)).encode()

    for number in range(8):
        assert (await send(request(named(f"pod-{number}"))))[0] == 201
        if number > 4:
            code, found = await send(
                f"GET {PODS}/pod-{number} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {ADMIN}\r\n\r\n".encode()
            )
            assert (code, found["metadata"]["name"]) == (200, f"pod-{number}")
    code, refused = await send(request(named("pod-3")))
    assert (code, refused["message"]) == (409, 'pods "pod-3" already exists')
    broken = named("pod-8").replace(b'"spec"', b"'spec'")
    code, refused = await send(request(broken))
    assert (code, refused["reason"]) == (400, "BadRequest")
    code, refused = await send(request(named("pod-8").replace(b'"containers"', b'"containerz"')))
    assert (code, refused["reason"]) == (422, "Invalid")
    writer.write(request(named("pod-9"))[:-1])
    await asyncio.sleep(0.02)
    writer.write(request(named("pod-9"))[-1:])
    assert (await reader.readuntil(b"\r\n")).split()[1] == b"201"
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(re.search(rb"Content-Length: (\d+)", head)[1]))  # type: ignore[index]
    assert (await send(request(named("pod-a"))))[0] == 201
    assert (await send(request(named("pod-b")) + request(named("pod-c"))))[0] == 201
    assert (await send(b""))[1]["metadata"]["name"] == "pod-c"
    writer.close()


async def test_they_are_counted(api: Api) -> None:
    assert await codes(api, *(f"pod-{number}" for number in range(7))) == [201] * 7
    metrics = (await api.request("GET", "/metrics")).body.decode()
    found = re.findall(r"apiserver_request_total\{(.*)\} (\d+)", metrics)
    assert [int(n) for labels, n in found if 'resource="pods"' in labels and 'verb="POST"' in labels] == [7]
    inflight = re.findall(r'apiserver_current_inflight_requests\{.*"mutating"\} (\d+)', metrics)
    assert inflight == ["0"]

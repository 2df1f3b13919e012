"""Many writes in one request: each with its own result, its own rights and its own admission."""

from __future__ import annotations

import asyncio
from typing import Any

import msgpack
import pytest
from apis import ADMIN, ALICE, Api

from fastkube.client import Client
from fastkube.errors import ApiError

BATCH = "/fastkube/v1/batch"
MAPS = "/api/v1/namespaces/default/configmaps"
MSGPACK = "application/msgpack"


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def write(method: str, target: str, obj: Any = None, media: str = MSGPACK, brief: bool = False) -> list[Any]:
    return [method, target, media, b"" if obj is None else msgpack.packb(obj), brief]


async def send(api: Api, writes: Any, token: str = ADMIN, **headers: str) -> Any:
    sent = {"Content-Type": MSGPACK, **headers}
    return await api.request("POST", BATCH, msgpack.packb(writes), token=token, headers=sent)


async def results(api: Api, writes: Any, token: str = ADMIN) -> list[tuple[int, Any, list[str]]]:
    response = await send(api, writes, token)
    assert response.status == 200, response.body
    return [
        (code, msgpack.unpackb(body) if body else None, told) for code, body, told in msgpack.unpackb(response.body)
    ]


async def test_each_write_has_its_own_result(api: Api) -> None:
    await api.create(MAPS, config_map("there", k="old"))
    patch = ["PATCH", f"{MAPS}/there", "application/merge-patch+json", b'{"data":{"k":"new"}}', False]
    found = await results(
        api,
        [
            write("POST", MAPS, config_map("a")),
            write("POST", MAPS, config_map("there")),
            write("POST", MAPS, {**config_map("b"), "odd": 1}),
            write("POST", MAPS, config_map("B!")),
            patch,
            write("DELETE", f"{MAPS}/nope"),
            write("POST", f"{MAPS}?dryRun=All", config_map("dry"), brief=True),
        ],
    )
    assert [code for code, _, _ in found] == [201, 409, 201, 422, 200, 404, 201]
    assert found[0][1]["metadata"]["resourceVersion"]
    assert found[1][1]["reason"] == "AlreadyExists"
    assert found[2][2] == ['unknown field "odd"']
    assert found[3][1]["details"]["causes"][0]["field"] == "metadata.name"
    assert found[4][1]["data"] == {"k": "new"}
    assert found[6][1] is None
    names = {item["metadata"]["name"] for item in (await api.get(MAPS))["items"]}
    assert {"a", "b", "there"} <= names
    assert "dry" not in names


async def test_writes_are_those_of_the_user(api: Api) -> None:
    found = await results(api, [write("POST", MAPS, config_map("a")), write("DELETE", f"{MAPS}/x")], ALICE)
    assert [(code, told["reason"]) for code, told, _ in found] == [(403, "Forbidden")] * 2
    assert (await send(api, [], token="")).status == 403
    assert (await send(api, [], token="wrong")).status == 401
    impersonated = await send(api, [write("POST", MAPS, config_map("a"))], **{"Impersonate-User": "alice"})
    assert msgpack.unpackb(impersonated.body)[0][0] == 403


@pytest.mark.parametrize(
    ("target", "code"),
    [("/healthz", 405), (f"{MAPS}/a/status", 404), ("/api/v1/namespaces/default/pods/a/exec", 405), (BATCH, 405)],
)
async def test_only_resources_are_written(api: Api, target: str, code: int) -> None:
    assert [found[0] for found in await results(api, [write("POST", target, {})])] == [code]


@pytest.mark.parametrize(
    "writes", [{}, [1], [["POST", MAPS, MSGPACK, "text", False]], [write("GET", MAPS)], [write("POST", MAPS)] * 1025]
)
async def test_what_is_no_batch(api: Api, writes: Any) -> None:
    response = await send(api, writes)
    assert (response.status, response.json["reason"]) == (400, "BadRequest")


async def test_methods_and_formats_of_the_batch_itself(api: Api) -> None:
    assert (await api.request("GET", BATCH)).status == 405
    assert (await api.request("POST", BATCH, b"[]")).status == 415
    assert (await api.request("POST", BATCH, b"\xc1", headers={"Content-Type": MSGPACK})).status == 400


async def test_the_client_joins_what_is_written_at_once(api: Api) -> None:
    async with Client(api.url, token=ADMIN, batch=True) as client:
        outcomes = await asyncio.gather(
            *(client.create("v1/configmaps", config_map(f"m{n % 90}"), "default") for n in range(100)),
            return_exceptions=True,
        )
        made = [one["metadata"]["name"] for one in outcomes if isinstance(one, dict)]
        refused = [one for one in outcomes if isinstance(one, ApiError)]
        assert sorted(made) == sorted({f"m{n}" for n in range(90)})
        assert [one.reason for one in refused] == ["AlreadyExists"] * 10
        assert await client.delete("v1/configmaps", "m1", "default", brief=True) is not None
        metrics = (await api.request("GET", "/metrics")).body.decode()
        assert 'resource="configmaps"' in metrics
        assert not client.busy


async def test_the_client_does_without_where_there_is_no_batch(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastkube.client.client.BATCH_PATH", "/nope")
    async with Client(api.url, token=ADMIN, batch=True) as client:
        for _ in range(2):
            names = [f"alone-{n}" for n in range(20)]
            await asyncio.gather(*(client.create("v1/configmaps", config_map(name), "default") for name in names))
            await asyncio.gather(*(client.delete("v1/configmaps", name, "default") for name in names))

"""Changes that repeat on a connection: each is judged and answered as if it had been the first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from apis import ADMIN, ALICE, Api, running

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
GROUP = "rbac.authorization.k8s.io"
ROLES = f"/apis/{GROUP}/v1/namespaces/default"
MERGE = {"Content-Type": "application/merge-patch+json"}
APPLY = {"Content-Type": "application/apply-patch+yaml"}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path) as started:
        for number in range(10):
            await started.create(MAPS, {"metadata": {"name": f"map-{number}"}, "data": {"key": "value"}})
        yield started


async def patch(api: Api, number: int, value: str, query: str = "", **more: Any) -> Any:
    headers = {**MERGE, **more.pop("headers", {})}
    return await api.request("PATCH", f"{MAPS}/map-{number}{query}", {"data": {"key": value}}, headers=headers, **more)


async def changed(api: Api, *numbers: int, **more: Any) -> list[int]:
    return [(await patch(api, number, f"new-{number}", **more)).status for number in numbers]


async def test_objects_and_heads_are_as_ever(api: Api) -> None:
    answers = [await patch(api, number, f"new-{number}") for number in range(10)]
    assert [answer.status for answer in answers] == [200] * 10
    made = [answer.json for answer in answers]
    assert [obj["data"]["key"] for obj in made] == [f"new-{number}" for number in range(10)]
    assert [await api.get(f"{MAPS}/map-{number}") for number in range(10)] == made
    versions = [int(obj["metadata"]["resourceVersion"]) for obj in made]
    assert versions == list(range(versions[0], versions[0] + 10))
    assert len({answer.headers["Audit-Id"] for answer in answers}) == 10
    assert len({tuple(sorted(set(answer.headers) - {"Audit-Id"})) for answer in answers}) == 1


async def test_a_watch_sees_them(api: Api) -> None:
    async with api.watch(f"{MAPS}?watch=1&resourceVersion=0") as watch:
        await watch.take(10)
        made = [(await patch(api, number, f"new-{number}")).json for number in range(10)]
        assert [event["object"] for event in await watch.take(10)] == made


async def test_who_is_not_there_is_not_found(api: Api) -> None:
    assert await changed(api, *range(8)) == [200] * 8
    missing = await patch(api, 77, "new-7")
    assert (missing.status, missing.json["message"]) == (404, 'configmaps "map-77" not found')
    odd = await api.request("PATCH", f"{MAPS}/Map%2d1", {"data": {"key": "new-1"}}, headers=MERGE)
    assert odd.status == 404


async def test_bad_bodies_are_refused(api: Api) -> None:
    assert await changed(api, *range(8)) == [200] * 8
    answer = await api.request("PATCH", f"{MAPS}/map-1", {"data": {"key": 7}}, headers=MERGE)
    assert answer.status == 422
    immutable = await api.request("PATCH", f"{MAPS}/map-1", {"metadata": {"uid": "other"}}, headers=MERGE)
    assert immutable.status == 422


@pytest.mark.parametrize("query", ["?fieldManager=me", "?fieldValidation=Strict", "?pretty=true", "?dryRun=All"])
async def test_options_count(api: Api, query: str) -> None:
    assert await changed(api, *range(6)) == [200] * 6
    answers = [await patch(api, number, f"old-{number}", query) for number in range(6)]
    assert [answer.json["data"]["key"] for answer in answers] == [f"old-{number}" for number in range(6)]
    kept = [(await api.get(f"{MAPS}/map-{number}"))["data"]["key"][:3] for number in range(6)]
    assert kept == ["new" if "dryRun" in query else "old"] * 6
    managers = {entry["manager"] for entry in answers[-1].json["metadata"]["managedFields"]}
    assert ("me" in managers) == ("Manager" in query)


async def test_a_version_is_a_condition(api: Api) -> None:
    for number in range(8):
        obj = await api.get(f"{MAPS}/map-{number}")
        put = await api.request("PUT", f"{MAPS}/map-{number}", {**_bare(obj), "data": {"key": f"put-{number}"}})
        assert (put.status, put.json["data"]["key"]) == (200, f"put-{number}")
        again = await api.request("PUT", f"{MAPS}/map-{number}", {**_bare(obj), "data": {"key": f"gut-{number}"}})
        assert (again.status, again.json["reason"]) == (409, "Conflict")


def _bare(obj: dict[str, Any]) -> dict[str, Any]:
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**obj, "metadata": metadata}


async def test_rights_that_are_taken_away(api: Api) -> None:
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"]}
    await api.create(f"{ROLES}/roles", {"metadata": {"name": "changer"}, "rules": [rule]})
    subject = {"kind": "User", "name": "alice", "apiGroup": GROUP}
    binding = {"roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "changer"}, "subjects": [subject]}
    await api.create(f"{ROLES}/rolebindings", {"metadata": {"name": "changer"}, **binding})
    assert await changed(api, *range(8), token=ALICE) == [200] * 8
    deleted = await api.request("DELETE", f"{ROLES}/rolebindings/changer")
    assert deleted.status == 200
    assert await changed(api, 8, token=ALICE) == [403]
    assert await changed(api, 8, token=ADMIN) == [200]


async def test_applies_make_and_change(api: Api) -> None:
    def config(number: int, replicas: int) -> dict[str, Any]:
        template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}
        spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "a"}}, "template": template}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": f"d-{number}"}, "spec": spec}

    async def apply(number: int, replicas: int) -> tuple[int, dict[str, Any]]:
        path = f"{DEPLOYMENTS}/d-{number}?fieldManager=me&force=true"
        answer = await api.request("PATCH", path, config(number, replicas), headers=APPLY)
        return answer.status, answer.json

    made = [await apply(number, 1) for number in range(8)]
    assert [code for code, _ in made] == [201] * 8
    assert len({obj["metadata"]["uid"] for _, obj in made}) == 8
    assert [await api.get(f"{DEPLOYMENTS}/d-{number}") for number in range(8)] == [obj for _, obj in made]
    scaled = [await apply(number, 2) for number in range(8)]
    assert [code for code, _ in scaled] == [200] * 8
    assert [obj["metadata"]["generation"] for _, obj in scaled] == [2] * 8
    again = [await apply(number, 2) for number in range(8)]
    assert [obj["metadata"]["resourceVersion"] for _, obj in again] == [
        obj["metadata"]["resourceVersion"] for _, obj in scaled
    ]


async def test_statuses_and_objects_are_told_apart(api: Api) -> None:
    for number in range(8):
        spec = {"containers": [{"name": "c", "image": "i:1"}]}
        await api.create(PODS, {"metadata": {"name": f"pod-{number}"}, "spec": spec})
        body = {"status": {"phase": "Running", "message": f"message {number}"}, "metadata": {"annotations": {"a": "b"}}}
        status = await api.request("PATCH", f"{PODS}/pod-{number}/status", body, headers=MERGE)
        assert status.json["status"]["message"] == f"message {number}"
        body = {"status": {"phase": "Failed", "message": f"massage {number}"}, "metadata": {"annotations": {"a": "c"}}}
        whole = await api.request("PATCH", f"{PODS}/pod-{number}", body, headers=MERGE)
        assert whole.json["status"] == status.json["status"]
        assert whole.json["metadata"]["annotations"] == {"a": "c"}


async def test_many_at_once_lose_nothing(api: Api) -> None:
    assert await changed(api, *range(8)) == [200] * 8

    async def add(number: int) -> int:
        body = {"metadata": {"annotations": {"same": f"{number:02}", f"key-{number:02}": "x"}}}
        return (await api.request("PATCH", f"{MAPS}/map-0", body, headers=MERGE)).status

    assert await asyncio.gather(*map(add, range(20))) == [200] * 20
    assert len((await api.get(f"{MAPS}/map-0"))["metadata"]["annotations"]) == 21


async def test_requests_are_counted(api: Api) -> None:
    before = await _count(api)
    assert await changed(api, *range(8)) == [200] * 8
    assert await _count(api) == before + 8


async def _count(api: Api) -> int:
    text = (await api.request("GET", "/metrics")).body.decode()
    lines = [line for line in text.splitlines() if line.startswith("apiserver_request_total{")]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines if '"configmaps"' in line and '"PATCH"' in line)

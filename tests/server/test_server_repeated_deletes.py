"""Deletes that repeat on a connection: each is judged and answered as if it had been the first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from apis import ADMIN, ALICE, Api, running

PODS = "/api/v1/namespaces/default/pods"
MAPS = "/api/v1/namespaces/default/configmaps"
GROUP = "rbac.authorization.k8s.io"
ROLES = f"/apis/{GROUP}/v1/namespaces/default"
NOW = "?gracePeriodSeconds=0"
MSGPACK = {"Accept": "application/msgpack"}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path) as started:
        for number in range(12):
            spec = {"containers": [{"name": "c", "image": "i:1"}]}
            await started.create(PODS, {"metadata": {"name": f"pod-{number}"}, "spec": spec})
            await started.create(MAPS, {"metadata": {"name": f"map-{number}"}, "data": {"key": "value"}})
        yield started


async def codes(api: Api, *names: str, query: str = NOW, **more: Any) -> list[int]:
    return [(await api.request("DELETE", f"{PODS}/{name}{query}", **more)).status for name in names]


def bare(obj: dict[str, Any]) -> dict[str, Any]:
    """But for what tells it apart."""
    own = {"name", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "managedFields"}
    spec = {**obj["spec"], "volumes": None, "containers": None}
    return {**obj, "metadata": {key: value for key, value in obj["metadata"].items() if key not in own}, "spec": spec}


async def test_answers_are_as_ever(api: Api) -> None:
    before = [await api.get(f"{PODS}/pod-{number}") for number in range(8)]
    answers = [await api.request("DELETE", f"{PODS}/pod-{number}{NOW}") for number in range(8)]
    assert [answer.status for answer in answers] == [200] * 8
    ended = [answer.json for answer in answers]
    assert [obj["metadata"]["uid"] for obj in ended] == [obj["metadata"]["uid"] for obj in before]
    assert all(bare(obj) == bare(ended[0]) for obj in ended)
    metadata = ended[-1]["metadata"]
    assert (metadata["deletionGracePeriodSeconds"], metadata["generation"]) == (0, 2)
    assert metadata["deletionTimestamp"].endswith("Z")
    versions = [int(obj["metadata"]["resourceVersion"]) for obj in ended]
    assert versions == list(range(versions[0], versions[0] + 16, 2))
    assert len({answer.headers["Audit-Id"] for answer in answers}) == 8
    assert len({tuple(sorted(set(answer.headers) - {"Audit-Id"})) for answer in answers}) == 1
    assert [(await api.request("GET", f"{PODS}/pod-{number}")).status for number in range(8)] == [404] * 8


async def test_a_watch_sees_both_steps(api: Api) -> None:
    async with api.watch(f"{PODS}?watch=1&resourceVersion=0") as watch:
        await watch.take(12)
        ended = [await api.delete(f"{PODS}/pod-{number}{NOW}") for number in range(6)]
        events = await watch.take(12)
    assert [event["type"] for event in events] == ["MODIFIED", "DELETED"] * 6
    assert [event["object"] for event in events[1::2]] == ended
    for modified, deleted in zip(events[::2], events[1::2], strict=True):
        versions = [int(event["object"]["metadata"].pop("resourceVersion")) for event in (modified, deleted)]
        assert versions[1] == versions[0] + 1
        assert modified["object"] == deleted["object"]


async def test_who_is_not_there_is_not_found(api: Api) -> None:
    assert await codes(api, *(f"pod-{number}" for number in range(4))) == [200] * 4
    missing = await api.request("DELETE", f"{PODS}/pod-1{NOW}")
    assert (missing.status, missing.json["message"]) == (404, 'pods "pod-1" not found')
    assert await codes(api, "Pod%2d1") == [404]


async def test_what_something_holds_stays(api: Api) -> None:
    assert await codes(api, *(f"pod-{number}" for number in range(4))) == [200] * 4
    await api.merge(f"{PODS}/pod-5", {"metadata": {"finalizers": ["e.com/f"]}})
    held = await api.delete(f"{PODS}/pod-5{NOW}")
    assert held["metadata"]["deletionGracePeriodSeconds"] == 0
    assert (await api.get(f"{PODS}/pod-5"))["metadata"] == held["metadata"]
    await api.merge(f"{PODS}/pod-5", {"metadata": {"finalizers": None}})
    assert (await api.request("GET", f"{PODS}/pod-5")).status == 404


async def test_a_pod_on_a_node_has_its_time(api: Api) -> None:
    for number in range(8):
        body = {"metadata": {"name": f"pod-{number}"}, "target": {"name": "n1"}}
        await api.create(f"{PODS}/pod-{number}/binding", body)
    going = [await api.delete(f"{PODS}/pod-{number}") for number in range(8)]
    assert [obj["metadata"]["deletionGracePeriodSeconds"] for obj in going] == [30] * 8
    assert [await api.get(f"{PODS}/pod-{number}") for number in range(8)] == going
    assert [await api.delete(f"{PODS}/pod-{number}") for number in range(8)] == going
    gone = [await api.delete(f"{PODS}/pod-{number}{NOW}") for number in range(8)]
    assert [obj["metadata"]["deletionGracePeriodSeconds"] for obj in gone] == [0] * 8
    assert [(await api.request("GET", f"{PODS}/pod-{number}")).status for number in range(8)] == [404] * 8


async def test_bodies_count(api: Api) -> None:
    now: dict[str, Any] = {"gracePeriodSeconds": 0}
    assert await codes(api, *(f"pod-{number}" for number in range(4)), query="", body=now) == [200] * 4
    other = {**now, "preconditions": {"uid": "other"}}
    assert await codes(api, "pod-4", query="", body=other) == [409]
    assert await codes(api, "pod-4", query="", body={**now, "dryRun": ["All"]}) == [200]
    assert await codes(api, "pod-4", query="", body={"gracePeriodSeconds": "0"}) == [400]
    assert await codes(api, "pod-4", "pod-5", query="?dryRun=All") == [200, 200]
    assert await codes(api, "pod-4", "pod-4", query="", body=now) == [200, 404]


async def test_a_status_is_told_of_other_kinds(api: Api) -> None:
    there = [await api.get(f"{MAPS}/map-{number}") for number in range(8)]
    told = [await api.delete(f"{MAPS}/map-{number}") for number in range(8)]
    assert [status["details"] for status in told] == [
        {"name": obj["metadata"]["name"], "kind": "configmaps", "uid": obj["metadata"]["uid"]} for obj in there
    ]
    assert {status["status"] for status in told} == {"Success"}
    last = [await api.request("DELETE", f"{MAPS}/map-{number}", headers=MSGPACK) for number in range(8, 12)]
    assert [msgpack.unpackb(answer.body)["details"]["name"] for answer in last] == [f"map-{n}" for n in range(8, 12)]


async def test_msgpack_out(api: Api) -> None:
    answers = [await api.request("DELETE", f"{PODS}/pod-{n}{NOW}", headers=MSGPACK) for n in range(6)]
    metadata = [msgpack.unpackb(answer.body)["metadata"] for answer in answers]
    assert [each["name"] for each in metadata] == [f"pod-{number}" for number in range(6)]
    versions = [int(each["resourceVersion"]) for each in metadata]
    assert versions == list(range(versions[0], versions[0] + 12, 2))


async def test_rights_that_are_taken_away(api: Api) -> None:
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["delete"]}
    await api.create(f"{ROLES}/roles", {"metadata": {"name": "deleter"}, "rules": [rule]})
    subject = {"kind": "User", "name": "alice", "apiGroup": GROUP}
    binding = {"roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "deleter"}, "subjects": [subject]}
    await api.create(f"{ROLES}/rolebindings", {"metadata": {"name": "deleter"}, **binding})
    assert await codes(api, *(f"pod-{number}" for number in range(5)), token=ALICE) == [200] * 5
    await api.delete(f"{ROLES}/rolebindings/deleter")
    assert await codes(api, "pod-5", token=ALICE) == [403]
    assert await codes(api, "pod-5", token=ADMIN) == [200]


async def test_namespaces_take_two_steps_each_time(api: Api) -> None:
    for number in range(5):
        await api.create("/api/v1/namespaces", {"metadata": {"name": f"ns-{number}"}})
    going = [await api.delete(f"/api/v1/namespaces/ns-{number}") for number in range(5)]
    assert [obj["status"]["phase"] for obj in going] == ["Terminating"] * 5


async def test_many_at_once_end_each_once(api: Api) -> None:
    assert await codes(api, "pod-0", "pod-1", "pod-2") == [200] * 3
    names = [f"pod-{number}" for number in range(3, 12) for _ in range(3)]
    found = await asyncio.gather(*(codes(api, name) for name in names))
    assert sorted(found) == [[200]] * 9 + [[404]] * 18


async def test_they_are_counted(api: Api) -> None:
    assert await codes(api, *(f"pod-{number}" for number in range(6))) == [200] * 6
    text = (await api.request("GET", "/metrics")).body.decode()
    (line,) = [
        line
        for line in text.splitlines()
        if line.startswith("apiserver_request_total") and 'resource="pods"' in line and 'verb="DELETE"' in line
    ]
    assert float(line.rpartition(" ")[2]) == 6

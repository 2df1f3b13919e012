"""Servers on one etcd: they keep nothing themselves, see each other's writes, and outlive etcd's absence."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from apis import Api, running, until
from etcds import Etcd, fresh_prefix, open_store

from fastkube.api import protobuf
from fastkube.store import StoreUnavailable

MAPS = "/api/v1/namespaces/default/configmaps"


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


@asynccontextmanager
async def two(directory: Path, etcd: Etcd, prefix: str) -> AsyncIterator[tuple[Api, Api]]:
    async with (
        running(directory / "a", etcd=etcd, prefix=prefix) as a,
        running(directory / "b", etcd=etcd, prefix=prefix) as b,
    ):
        yield a, b


def kept(etcd: Etcd, key: str) -> Any:
    """The record that etcd has under a key."""
    (found,) = json.loads(etcd.ctl("get", key, "-w", "json"))["kvs"]
    return {**found, "value": base64.b64decode(found["value"])}


# ---------------------------------------------------------------- several servers


async def test_what_one_server_has_answered_the_other_shows(tmp_path: Path, etcd: Etcd) -> None:
    async with two(tmp_path, etcd, fresh_prefix()) as (a, b):
        for number in range(20):
            writer, reader = (a, b) if number % 2 else (b, a)
            made = await writer.create(MAPS, config_map(f"m{number}"))
            assert await reader.get(f"{MAPS}/m{number}") == made
            assert len((await reader.get(MAPS))["items"]) == number + 1


async def test_conditions_are_decided_by_etcd(tmp_path: Path, etcd: Etcd) -> None:
    async with two(tmp_path, etcd, fresh_prefix()) as (a, b):
        first = await a.create(MAPS, config_map("m"))
        answer = await b.request("POST", MAPS, config_map("m"))
        assert (answer.status, answer.json["reason"]) == (409, "AlreadyExists")
        await b.merge(f"{MAPS}/m", {"data": {"k": "b"}})
        answer = await a.request("PUT", f"{MAPS}/m", {**first, "data": {"k": "a"}})
        assert (answer.status, answer.json["reason"]) == (409, "Conflict")
        patches = [api.merge(f"{MAPS}/m", {"data": {f"k{n}": "v"}}) for n in range(10) for api in (a, b)]
        await asyncio.gather(*patches)  # each reads, changes and tries again
        assert len((await a.get(f"{MAPS}/m"))["data"]) == 11


async def test_a_watch_goes_on_at_another_server(tmp_path: Path, etcd: Etcd) -> None:
    prefix = fresh_prefix()
    async with two(tmp_path, etcd, prefix) as (a, b):
        revision = (await a.get(MAPS))["metadata"]["resourceVersion"]
        async with a.watch(f"{MAPS}?watch=1&resourceVersion={revision}") as watch:
            for number in range(6):
                await (a, b)[number % 2].create(MAPS, config_map(f"m{number}"))
            seen = await watch.take(3)
        last = seen[-1]["object"]["metadata"]["resourceVersion"]
        async with b.watch(f"{MAPS}?watch=1&resourceVersion={last}") as watch:
            seen += await watch.take(3)
        assert [each["object"]["metadata"]["name"] for each in seen] == [f"m{number}" for number in range(6)]
        async with (  # a server that is started later has the history as well
            running(tmp_path / "c", etcd=etcd, prefix=prefix) as c,
            c.watch(f"{MAPS}?watch=1&resourceVersion={revision}") as watch,
        ):
            assert await watch.take(6) == seen


async def test_pages_of_a_list_go_on_at_another_server(tmp_path: Path, etcd: Etcd) -> None:
    async with two(tmp_path, etcd, fresh_prefix()) as (a, b):
        for number in range(4):
            await a.create(MAPS, config_map(f"m{number}"))
        page = await a.get(f"{MAPS}?limit=3")
        await a.delete(f"{MAPS}/m3")
        rest = await b.get(f"{MAPS}?limit=3&continue={page['metadata']['continue']}")
        assert [each["metadata"]["name"] for each in rest["items"]] == ["m3"]
        assert rest["metadata"]["resourceVersion"] == page["metadata"]["resourceVersion"]


async def test_a_revision_that_is_given_up_is_expired_everywhere(tmp_path: Path, etcd: Etcd) -> None:
    async with two(tmp_path, etcd, fresh_prefix()) as (a, b):
        old = (await a.get(MAPS))["metadata"]["resourceVersion"]
        for name in ("m", "n"):
            await a.create(MAPS, config_map(name))
        compactions = [api.store.compact(api.store.revision) for api in (a, b)]
        await asyncio.gather(*compactions)
        for api in (a, b):
            answer = await api.request("GET", f"{MAPS}?resourceVersion={old}&resourceVersionMatch=Exact")
            assert (answer.status, answer.json["reason"]) == (410, "Expired")
            async with api.watch(f"{MAPS}?watch=1&resourceVersion={old}") as watch:
                event = await watch.next()
                assert (event["type"], event["object"]["code"]) == ("ERROR", 410)


# ---------------------------------------------------------------- etcd goes away


async def test_etcd_is_killed_and_comes_back(tmp_path: Path) -> None:
    """While it is gone servers refuse what needs it, and another does not start."""
    own = Etcd(tmp_path)
    own.start()
    try:
        async with two(tmp_path, own, "/registry") as (a, b):
            await a.create(MAPS, config_map("before", k="v"))
            async with b.watch(f"{MAPS}?watch=1") as watch:
                assert await watch.names(1) == [("ADDED", "before")]
                own.kill()
                await until(lambda: b.store.status().health != "serving")
                *answers, started = await asyncio.gather(
                    a.request("POST", MAPS, config_map("lost")),
                    b.request("GET", f"{MAPS}/before"),
                    open_store(tmp_path / "c", own),
                    return_exceptions=True,
                )
                assert isinstance(started, StoreUnavailable)
                assert str(started).startswith("connection to etcd at 127.0.0.1")
                assert [answer.status for answer in answers] == [503, 503], answers
                assert all(answer.json["reason"] == "ServiceUnavailable" for answer in answers)
                assert (await b.request("GET", "/readyz/etcd")).status == 500
                assert (await b.get(f"{MAPS}/before?resourceVersion=0"))["data"] == {"k": "v"}  # any version will do
                own.start()
                await until(lambda: all(api.store.status().health == "serving" for api in (a, b)), 20.0)
                await a.create(MAPS, config_map("after"))
                assert await watch.names(1) == [("ADDED", "after")]
            assert [each["metadata"]["name"] for each in (await b.get(MAPS))["items"]] == ["after", "before"]
    finally:
        own.stop()


# ---------------------------------------------------------------- what lies in etcd


async def test_objects_lie_in_etcd_as_kube_apiserver_keeps_them(tmp_path: Path, etcd: Etcd) -> None:
    prefix = fresh_prefix()
    async with running(tmp_path, etcd=etcd, prefix=prefix) as api:
        made = await api.create(MAPS, config_map("m", k="v"))
        record = kept(etcd, f"{prefix}/configmaps/default/m")
        assert str(record["mod_revision"]) == made["metadata"].pop("resourceVersion")
        assert json.loads(record["value"]) == made
        for name in ("namespaces/default", "clusterroles/admin", "apiregistration.k8s.io/apiservices/v1."):
            assert kept(etcd, f"{prefix}/{name}"), name


def deployment(api_version: str = "apps/v1") -> dict[str, Any]:
    labels = {"app": "d"}
    return {
        "apiVersion": api_version,
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "default", "uid": "1", "creationTimestamp": "2024-01-02T03:04:05Z"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
        "status": {"observedGeneration": 1},
    }


@pytest.mark.parametrize("form", ["json", "protobuf"])
async def test_what_kube_apiserver_has_written_is_served(tmp_path: Path, etcd: Etcd, form: str) -> None:
    prefix = fresh_prefix()
    value = protobuf.encode(deployment()) if form == "protobuf" else json.dumps(deployment()).encode()
    etcd.ctl("put", f"{prefix}/deployments/default/d", text=value)
    path = "/apis/apps/v1/namespaces/default/deployments"
    async with running(tmp_path, etcd=etcd, prefix=prefix) as api:
        found = await api.get(f"{path}/d")
        assert (found["spec"]["replicas"], found["metadata"]["creationTimestamp"]) == (2, "2024-01-02T03:04:05Z")
        async with api.watch(f"{path}?watch=1&resourceVersion={found['metadata']['resourceVersion']}") as watch:
            scaled = await api.merge(f"{path}/d", {"spec": {"replicas": 3}})
            assert (await watch.next())["object"] == scaled
            etcd.ctl("del", f"{prefix}/deployments/default/d")
            event = await watch.next()
            assert (event["type"], event["object"]["spec"]["replicas"]) == ("DELETED", 3)


async def test_node_ports_that_kube_apiserver_gave_out_are_taken(tmp_path: Path, etcd: Etcd) -> None:
    prefix = fresh_prefix()
    port = {"name": "p", "port": 80, "protocol": "TCP", "targetPort": 80, "nodePort": 30080}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s", "namespace": "default", "uid": "1", "creationTimestamp": "2024-01-02T03:04:05Z"},
        "spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ports": [port]},
        "status": {"loadBalancer": {}},
    }
    etcd.ctl("put", f"{prefix}/services/specs/default/s", text=json.dumps(service).encode())
    path = "/api/v1/namespaces/default/services"
    other = {"metadata": {"name": "other"}, "spec": {"type": "NodePort", "ports": [port]}}
    async with running(tmp_path, etcd=etcd, prefix=prefix) as api:
        answer = await api.request("POST", path, other)
        assert (answer.status, "provided port is already allocated" in answer.json["message"]) == (422, True)
        await api.delete(f"{path}/s")
        await api.create(path, other)


async def test_an_old_storage_version_is_converted(tmp_path: Path, etcd: Etcd) -> None:
    prefix = fresh_prefix()
    scaler = {
        "apiVersion": "autoscaling/v1",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h", "namespace": "default", "uid": "1", "creationTimestamp": "2024-01-02T03:04:05Z"},
        "spec": {
            "maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
            "targetCPUUtilizationPercentage": 50,
        },
    }
    etcd.ctl("put", f"{prefix}/horizontalpodautoscalers/default/h", text=json.dumps(scaler).encode())
    async with running(tmp_path, etcd=etcd, prefix=prefix) as api:
        found = await api.get("/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers/h")
        assert found["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 50


async def test_what_cannot_be_read_is_left_out(tmp_path: Path, etcd: Etcd) -> None:
    prefix = fresh_prefix()
    etcd.ctl("put", f"{prefix}/configmaps/default/bad", text=b"k8s\x00\xff\xff")
    etcd.ctl("put", f"{prefix}/masterleases/10.0.0.1", text=b"{}")
    async with running(tmp_path, etcd=etcd, prefix=prefix) as api:
        etcd.ctl("put", f"{prefix}/configmaps/default/worse", text=b"[1]")
        assert (await api.get(MAPS))["items"] == []
        answer = await api.request("POST", MAPS, config_map("bad"))
        assert (answer.status, "cannot be read" in answer.json["message"]) == (503, True)


async def test_events_expire_by_leases_of_etcd(tmp_path: Path, etcd: Etcd) -> None:
    prefix = fresh_prefix()
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
        "reason": "Tested",
        "type": "Normal",
    }
    path = "/api/v1/namespaces/default/events"
    async with running(tmp_path, etcd=etcd, prefix=prefix) as api:
        made = await api.create(path, event)
        lease = kept(etcd, f"{prefix}/events/default/e")["lease"]
        told = json.loads(etcd.ctl("lease", "timetolive", f"{lease:x}", "-w", "json"))
        assert 3600 <= told["granted-ttl"] < 3720
        async with api.watch(f"{path}?watch=1&resourceVersion={made['metadata']['resourceVersion']}") as watch:
            etcd.ctl("lease", "revoke", f"{lease:x}")
            assert await watch.names(1) == [("DELETED", "e")]
        assert (await api.get(path))["items"] == []

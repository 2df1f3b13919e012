"""Several scheduler processes beside one API server: no Pod is bound twice, and one that takes over goes on well."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from livecluster import create, until
from schedobjects import node, pod

from fastkube.client import Client
from fastkube.scheduler import config as configs
from fastkube.testing import Cluster

Object = dict[str, Any]
Process = asyncio.subprocess.Process

LEASE = ("--leader-elect-lease-duration", "2s", "--leader-elect-renew-deadline", "1500ms",
         "--leader-elect-retry-period", "200ms", "--leader-elect-resource-name", "shared")  # fmt: skip
ALONE = ("--leader-elect=false",)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    plugins = ("ServiceAccount", "TaintNodesByCondition")
    with Cluster(nodes=0, scheduler=False, controllers=False, disable_admission_plugins=plugins) as started:
        yield started


@contextlib.asynccontextmanager
async def schedulers(cluster: Cluster, *each: tuple[str, ...]) -> AsyncIterator[list[Process]]:
    """`fastkube scheduler` once for each tuple of options."""
    words = ("-m", "fastkube", "scheduler", "--kubeconfig", str(cluster.kubeconfig))
    processes = [await asyncio.create_subprocess_exec(sys.executable, *words, *options) for options in each]
    try:
        yield processes
    finally:
        for process in processes:
            if process.returncode is None:
                process.terminate()
            await process.wait()


class Bindings:
    """Watches Pods, and fails as soon as one gets another node or a node has too many of them."""

    def __init__(self, client: Client, room: int) -> None:
        self.nodes: dict[str, str] = {}
        self._client = client
        self._room = room
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Bindings:
        listed = await self._client.list("v1/pods", "default")
        self._task = asyncio.create_task(self._follow(listed["metadata"]["resourceVersion"]))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        if not self._task.done():
            self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _follow(self, revision: str) -> None:
        watch = self._client.watch("v1/pods", "default", resource_version=revision, timeout_s=120)
        while batch := await watch.batch():
            for _, obj in batch:
                name, on = obj["metadata"].get("name", ""), (obj.get("spec") or {}).get("nodeName")
                if on:
                    assert self.nodes.setdefault(name, on) == on
            assert max(Counter(self.nodes.values()).values(), default=0) <= self._room

    async def count(self, number: int) -> bool:
        assert self._task is not None
        if self._task.done():
            self._task.result()
        return len(self.nodes) == number


async def clear(client: Client) -> None:
    for resource in ("v1/pods", "v1/events"):
        await client.delete_collection(resource, "default", grace_period_s=0)
    for each in (await client.list("v1/nodes"))["items"]:
        await client.delete("v1/nodes", each["metadata"]["name"])


async def leader(client: Client) -> str:
    """Who holds the lease, "" while nobody does."""
    leases = (await client.list("coordination.k8s.io/v1/leases", "kube-system"))["items"]
    holders = [each["spec"].get("holderIdentity") for each in leases if each["metadata"]["name"] == "shared"]
    return (holders[0] or "") if holders else ""


async def test_when_the_leader_is_killed_another_goes_on(cluster: Cluster) -> None:
    """In the middle of binding; nothing is bound twice, and the room of what the first one bound is known."""
    async with cluster.client() as client, schedulers(cluster, LEASE, LEASE) as processes:
        first = await until(lambda: leader(client))
        await create(client, *(node(f"n{each}", allocatable={"cpu": "4", "pods": "5"}) for each in range(8)))
        async with Bindings(client, room=5) as bindings:
            await create(client, *(pod(f"a{each}", requests={"cpu": "100m"}) for each in range(20)))
            (await _holder(client, processes)).kill()
            await create(client, *(pod(f"b{each}", requests={"cpu": "100m"}) for each in range(20)))
            await until(lambda: bindings.count(40), timeout_s=60)
            assert await leader(client) != first
        await clear(client)


async def _holder(client: Client, processes: list[Process]) -> Process:
    """The leader of two: the lease is not renewed while it is stopped."""

    async def renewed() -> str:
        lease = await client.get("coordination.k8s.io/v1/leases", "shared", "kube-system")
        return str(lease["spec"]["renewTime"])

    processes[0].send_signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(0.1)  # what was under way
        before = await renewed()
        await asyncio.sleep(0.7)
        return processes[0 if await renewed() == before else 1]
    finally:
        processes[0].send_signal(signal.SIGCONT)


async def test_two_with_the_same_name_by_mistake(cluster: Cluster) -> None:
    """The API server takes the first binding of a Pod; whoever comes second learns it and goes on."""
    async with cluster.client() as client, schedulers(cluster, ALONE, ALONE):
        await create(client, *(node(f"n{each}") for each in range(10)))
        async with Bindings(client, room=110) as bindings:
            await create(client, *(pod(f"p{each}", requests={"cpu": "100m"}) for each in range(200)))
            await until(lambda: bindings.count(200), timeout_s=60)
            events = (await client.list("v1/events", "default"))["items"]
            scheduled = Counter(each["involvedObject"]["name"] for each in events if each["reason"] == "Scheduled")
            assert max(scheduled.values()) == 1
            # both know now how full the nodes are: none of them places what does not fit
            await create(client, *(pod(f"q{each}", requests={"cpu": "3"}) for each in range(30)))
            await until(lambda: _refused(client), timeout_s=60)
        await clear(client)


async def _refused(client: Client) -> bool:
    pods = [each for each in (await client.list("v1/pods", "default"))["items"] if each["metadata"]["name"][0] == "q"]
    conditions = [
        condition.get("reason") for each in pods for condition in (each.get("status") or {}).get("conditions") or ()
    ]
    return all(each["spec"].get("nodeName") for each in pods) or conditions.count("Unschedulable") > 0


async def test_two_names_share_the_nodes(cluster: Cluster, tmp_path: Path) -> None:
    """Each leaves the other's Pods alone, and counts them."""
    config = tmp_path / "other.yaml"
    profiles = [{"schedulerName": "other"}]
    told = {"apiVersion": configs.API_VERSION, "kind": configs.KIND, "profiles": profiles}
    config.write_text(json.dumps(told))
    async with (
        cluster.client() as client,
        schedulers(cluster, ALONE, (*ALONE, "--scheduler-config", str(config))),
        Bindings(client, room=2) as bindings,
    ):
        await create(client, node("n1", allocatable={"cpu": "2"}), pod("a", requests={"cpu": "1"}))
        await until(lambda: bindings.count(1))
        await create(client, pod("b", requests={"cpu": "1"}, schedulerName="other"))
        await until(lambda: bindings.count(2))
        await create(client, pod("c", requests={"cpu": "1"}), pod("d", requests={"cpu": "1"}, schedulerName="other"))
        await until(lambda: _waiting(client, 2))
        await clear(client)


async def _waiting(client: Client, number: int) -> bool:
    pods = (await client.list("v1/pods", "default"))["items"]
    waiting = [
        condition
        for each in pods
        for condition in (each.get("status") or {}).get("conditions") or ()
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable"
    ]
    return len(waiting) == number

"""Controllers that are killed (-9), that take over from each other, that are told late what happens, or that work
against each other: whatever comes in between, never are more Pods wanted or made than allowed, each index of a Job
succeeds once, and in the end all is as wanted.

Two managers without a Lease are each right by what they have seen: as with upstream's, whose expectations are their
own, each may make what is missing before it sees what the other made. So twice as many are allowed then, but a
StatefulSet still has one Pod of an ordinal at most, and an index counts once.

A watch of its own sees every state of every Pod, and checks the invariants at each of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fastkube.client import Client
from fastkube.testing import Cluster

Object = dict[str, Any]

REPLICAS, SURGE, COMPLETIONS, ORDINALS = 20, 4, 24, 4
START_TIMEOUT_S = 60
MAPS = "v1/configmaps"
LEASES = "coordination.k8s.io/v1/leases"


def template(app: str, image: str = "v1", **spec: Any) -> Object:
    return {"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": image}], **spec}}


def workloads() -> list[Object]:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": SURGE, "maxUnavailable": 0}}
    deployment = {
        "replicas": REPLICAS,
        "strategy": rolling,
        "selector": {"matchLabels": {"app": "web"}},
        "template": template("web"),
    }
    job = {
        "completions": COMPLETIONS,
        "parallelism": 6,
        "completionMode": "Indexed",
        "template": template("job", restartPolicy="Never"),
    }
    ordered = {
        "replicas": ORDINALS,
        "serviceName": "db",
        "selector": {"matchLabels": {"app": "db"}},
        "template": template("db"),
    }
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": deployment},
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": job},
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": ordered},
    ]


class Witness:
    """Sees every change of every Pod and ReplicaSet, and notes what must not be; `rivals` managers work at once."""

    def __init__(self, client: Client, rivals: int) -> None:
        self._rivals = rivals
        self.faults: list[str] = []
        self.succeeded: Counter[str] = Counter()
        self._client = client
        self._pods: dict[str, Object] = {}
        self._counted: set[str] = set()
        self._wanted: dict[str, int] = {}
        self._most_wanted: dict[str, int] = {}
        self._most_alive: dict[str, int] = {}

    async def follow(self) -> None:
        await asyncio.gather(
            self._follow("v1/pods", self._see_pod), self._follow("apps/v1/replicasets", self._see_replicaset)
        )

    async def _follow(self, resource: str, see: Callable[[str, Object], None]) -> None:
        async with self._client.watch(resource, "default", send_initial_events=True) as watch:
            async for kind, obj in watch:
                if kind in ("ADDED", "MODIFIED", "DELETED"):
                    see(kind, obj)

    def _see_pod(self, kind: str, pod: Object) -> None:
        uid, app = pod["metadata"]["uid"], pod["metadata"].get("labels", {}).get("app")
        if kind == "DELETED":
            self._pods.pop(uid, None)
        else:
            self._pods[uid] = pod
        if app == "web":
            owner = pod["metadata"]["ownerReferences"][0]["uid"]
            alive = sum(
                found["metadata"]["ownerReferences"][0]["uid"] == owner and "deletionTimestamp" not in found["metadata"]
                for found in self._pods.values()
            )
            self._most_alive[owner] = max(alive, self._most_alive.get(owner, 0))
        elif app == "db" and kind == "ADDED":
            self._check_order(pod)
        elif app == "job" and pod.get("status", {}).get("phase") == "Succeeded" and uid not in self._counted:
            self._counted.add(uid)
            self.succeeded[pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]] += 1

    def _see_replicaset(self, kind: str, found: Object) -> None:
        """All ReplicaSets of the Deployment together may ask for so many Pods and not one more."""
        uid = found["metadata"]["uid"]
        self._wanted[uid] = 0 if kind == "DELETED" else found["spec"]["replicas"]
        self._most_wanted[uid] = max(self._wanted[uid], self._most_wanted.get(uid, 0))
        if sum(self._wanted.values()) > self._rivals * (REPLICAS + SURGE):
            self.faults.append(f"{sum(self._wanted.values())} Pods of the Deployment are wanted at once")

    def check(self) -> None:
        """What was seen as a whole."""
        for uid, alive in self._most_alive.items():
            if alive > self._rivals * self._most_wanted[uid]:
                self.faults.append(f"a ReplicaSet of {self._most_wanted[uid]} had {alive} Pods")
        assert self.faults == []
        assert self.succeeded.keys() == {str(index) for index in range(COMPLETIONS)}
        assert max(self.succeeded.values()) <= self._rivals

    def _check_order(self, pod: Object) -> None:
        """A StatefulSet makes a Pod only when those before it are ready."""
        name = pod["metadata"]["name"]
        ordinals = [found for found in self._pods.values() if found["metadata"]["labels"].get("app") == "db"]
        names = Counter(found["metadata"]["name"] for found in ordinals)
        if names[name] > 1:
            self.faults.append(f"two Pods are {name}")
        before = {f"db-{number}" for number in range(int(name.removeprefix("db-")))}
        ready = {found["metadata"]["name"] for found in ordinals if _is_ready(found)}
        if not before <= ready:
            self.faults.append(f"{name} was made before {sorted(before - ready)} were ready")


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(found["type"] == "Ready" and found["status"] == "True" for found in conditions)


class Managers:
    """Processes of `fastkube controller-manager` against one server; each may be killed and started again."""

    def __init__(self, kubeconfig: Path, *flags: str) -> None:
        self._words = [sys.executable, "-m", "fastkube", "controller-manager", "--kubeconfig", str(kubeconfig), *flags]
        self._running: list[asyncio.subprocess.Process] = []

    async def start(self) -> None:
        process = await asyncio.create_subprocess_exec(*self._words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._running.append(process)
        assert process.stdout is not None
        await asyncio.wait_for(process.stdout.readline(), START_TIMEOUT_S)

    async def kill(self) -> None:
        process = self._running.pop(random.randrange(len(self._running)))
        with contextlib.suppress(ProcessLookupError):  # who loses its Lease ends by itself
            process.send_signal(signal.SIGKILL)
        await process.wait()

    async def end(self) -> None:
        while self._running:
            await self.kill()


@contextlib.asynccontextmanager
async def observed(cluster: Cluster, managers: Managers, rivals: int = 1) -> AsyncIterator[tuple[Client, Witness]]:
    """The workloads are there and a witness follows; in the end everything must have become as wanted."""
    async with cluster.client() as client:
        witness = Witness(client, rivals)
        following = asyncio.ensure_future(witness.follow())
        try:
            items = {"apiVersion": "v1", "kind": "List", "items": workloads()}
            await asyncio.to_thread(cluster.kubectl, "apply", "-f", "-", input=json.dumps(items))
            yield client, witness
            await settled(client)
        finally:
            await managers.end()
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        witness.check()


async def settled(client: Client, timeout_s: float = 120.0) -> None:
    until = time.monotonic() + timeout_s
    while True:
        deployment = await client.get("apps/v1/deployments", "web", "default")
        job = await client.get("batch/v1/jobs", "job", "default")
        ordered = await client.get("apps/v1/statefulsets", "db", "default")
        web = deployment.get("status", {})
        done = (
            web.get("observedGeneration") == deployment["metadata"]["generation"]
            and (web.get("updatedReplicas"), web.get("readyReplicas"), web.get("replicas")) == (REPLICAS,) * 3
            and job.get("status", {}).get("succeeded") == COMPLETIONS
            and job["status"]["completedIndexes"] == f"0-{COMPLETIONS - 1}"
            and ordered.get("status", {}).get("readyReplicas") == ORDINALS
        )
        if done:
            return
        assert time.monotonic() < until, (web, job.get("status"), ordered.get("status"))
        await asyncio.sleep(0.3)


async def new_image(client: Client, image: str) -> None:
    containers = [{"name": "c", "image": image}]
    body = {"spec": {"template": {"spec": {"containers": containers}}}}
    await client.patch("apps/v1/deployments", "web", body, "default", kind="strategic")


async def killed_again_and_again(cluster: Cluster, kills: int) -> None:
    managers = Managers(cluster.kubeconfig, "--leader-elect=false")
    async with observed(cluster, managers) as (client, _):
        for number in range(kills):
            await managers.start()
            await new_image(client, f"v{number}")
            await asyncio.sleep(random.uniform(0.1, 1.5))
            await managers.kill()
        await managers.start()


async def two_that_take_over(cluster: Cluster, kills: int) -> None:
    lease = (
        "--leader-elect-lease-duration=2s",
        "--leader-elect-renew-deadline=1500ms",
        "--leader-elect-retry-period=200ms",
    )
    managers = Managers(cluster.kubeconfig, *lease)
    async with observed(cluster, managers) as (client, _):
        await managers.start()
        for number in range(kills):
            await managers.start()
            await new_image(client, f"w{number}")
            await asyncio.sleep(random.uniform(0.1, 2.5))
            await managers.kill()


async def two_that_fight(cluster: Cluster, images: int, kills: int) -> None:
    """Both work all the time; now and then one is killed and another takes its place."""
    managers = Managers(cluster.kubeconfig, "--leader-elect=false")
    async with observed(cluster, managers, rivals=2) as (client, _):
        await asyncio.gather(managers.start(), managers.start())
        for number in range(images):
            await new_image(client, f"y{number}")
            await asyncio.sleep(random.uniform(0.2, 2.0))
            if number < kills:
                await managers.kill()
                await managers.start()


FLOOD, KEPT = 10_000, 200


async def flood(cluster: Cluster) -> None:
    """An owner of thousands of objects goes while Pods are wanted, and the manager is killed over it: the Pods come,
    all that was owned goes, and what has another owner stays."""
    managers = Managers(cluster.kubeconfig, "--leader-elect=false")
    async with observed(cluster, managers) as (client, _):
        owners = [await client.create(MAPS, {"metadata": {"name": name}}, "default") for name in ("goes", "stays")]
        refs = [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": each["metadata"]["name"], "uid": each["metadata"]["uid"]}
            for each in owners
        ]
        many = [_owned(f"f{number}", refs[:1]) for number in range(FLOOD)]
        many += [_owned(f"k{number}", refs) for number in range(KEPT)]
        for start in range(0, len(many), 500):
            await asyncio.gather(*(client.create(MAPS, obj, "default") for obj in many[start : start + 500]))
        await managers.start()
        await client.delete(MAPS, "goes", "default", propagation="Background")
        await new_image(client, "flood")
        for _ in range(3):
            await asyncio.sleep(random.uniform(0.5, 2.0))
            await managers.kill()
            await managers.start()
        until = time.monotonic() + 300
        while (left := await _flooded(client)) != {f"k{number}" for number in range(KEPT)}:
            assert time.monotonic() < until, len(left)
            await asyncio.sleep(0.5)


def _owned(name: str, refs: list[Object]) -> Object:
    return {"metadata": {"name": name, "labels": {"flood": "yes"}, "ownerReferences": refs}}


async def _flooded(client: Client) -> set[str]:
    listed = await client.list(MAPS, "default", label_selector="flood=yes")
    return {found["metadata"]["name"] for found in listed["items"]}


class LateNews:
    """A proxy to the API server which hands on whatever a watch tells only after a while: informers are behind."""

    def __init__(self, port: int, delay_s: float) -> None:
        self._port, self._delay_s = port, delay_s
        self._server: asyncio.Server

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, downstream = await asyncio.open_connection("127.0.0.1", self._port)
        late = asyncio.Event()
        ways = (self._ask(reader, downstream, late), self._tell(upstream, writer, late))
        await asyncio.gather(*ways, return_exceptions=True)
        for end in (writer, downstream):
            end.close()

    async def _ask(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, late: asyncio.Event) -> None:
        while data := await source.read(65536):
            if b"watch=true" in data or b"watch=1" in data:
                late.set()
            sink.write(data)
        sink.write_eof()

    async def _tell(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, late: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        while data := await source.read(65536):
            if late.is_set():
                loop.call_later(self._delay_s, sink.write, data)
            else:
                sink.write(data)
        sink.close()


async def told_late(cluster: Cluster, port: int, folder: Path, delay_s: float, images: int) -> None:
    """One manager whose informers are `delay_s` behind, while the Deployment changes again and again."""
    proxy = LateNews(port, delay_s)
    server = await proxy.start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "late",
        "clusters": [{"name": "late", "cluster": {"server": server}}],
        "users": [{"name": "late", "user": {"token": "secret"}}],
        "contexts": [{"name": "late", "context": {"cluster": "late", "user": "late"}}],
    }
    kubeconfig = folder / "late"
    kubeconfig.write_text(json.dumps(config))
    managers = Managers(kubeconfig, "--leader-elect=false")
    async with observed(cluster, managers) as (client, _):
        await managers.start()
        for number in range(images):
            await new_image(client, f"x{number}")
            await asyncio.sleep(random.uniform(0.2, 2 * delay_s))
    await proxy.stop()


@pytest.fixture
def port() -> int:
    """Where the API server serves plain HTTP."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
        return found


@pytest.fixture
def cluster(tmp_path: Path, port: int) -> Iterator[Cluster]:
    """All but controllers."""
    tokens = tmp_path / "tokens.csv"
    tokens.write_text('secret,admin,admin,"system:masters"\n')
    with Cluster(nodes=3, controllers=False, http_port=port, token_auth_file=str(tokens)) as started:
        started.kubectl("create", "serviceaccount", "default")
        yield started


async def test_controllers_that_are_killed_keep_every_promise(cluster: Cluster) -> None:
    await killed_again_and_again(cluster, kills=3)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_controllers_that_are_killed_often_keep_every_promise(cluster: Cluster) -> None:
    await killed_again_and_again(cluster, kills=30)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_two_managers_that_take_over_from_each_other_keep_every_promise(cluster: Cluster) -> None:
    await two_that_take_over(cluster, kills=15)


async def test_two_managers_that_fight_keep_what_each_can_promise(cluster: Cluster) -> None:
    await two_that_fight(cluster, images=2, kills=0)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_managers_that_fight_and_are_killed_keep_what_each_can_promise(cluster: Cluster) -> None:
    await two_that_fight(cluster, images=20, kills=15)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_flood_of_objects_loses_nothing_and_keeps_nobody_waiting(cluster: Cluster) -> None:
    await flood(cluster)


async def test_controllers_whose_informers_are_behind_keep_every_promise(
    cluster: Cluster, port: int, tmp_path: Path
) -> None:
    await told_late(cluster, port, tmp_path, delay_s=0.7, images=3)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_controllers_whose_informers_are_far_behind_keep_every_promise(
    cluster: Cluster, port: int, tmp_path: Path
) -> None:
    await told_late(cluster, port, tmp_path, delay_s=3.0, images=10)


async def test_scheduler_and_controllers_of_one_process_lead_again_after_they_lost_their_leases() -> None:
    """Nobody starts them again, as a kubelet would upstream's."""
    times = {
        "leader_elect_lease_duration_s": 8.0,
        "leader_elect_renew_deadline_s": 6.0,
        "leader_elect_retry_period_s": 0.2,
    }
    with Cluster(nodes=1, leader_elect=True, **times) as cluster:
        async with cluster.client() as client:
            thief = {"holderIdentity": "thief", "leaseDurationSeconds": 1}
            for name in ("kube-scheduler", "kube-controller-manager"):
                await client.patch(LEASES, name, {"spec": thief}, "kube-system")
            for name in ("kube-scheduler", "kube-controller-manager"):
                await until(partial(_is_held_by_another, client, name, "thief"))
            deployment = workloads()[0]
            await client.create("apps/v1/deployments", deployment, "default")
            await until(partial(_has_ready, client, REPLICAS))


async def until(look: Callable[[], Awaitable[bool]], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not await look():
        assert time.monotonic() < end
        await asyncio.sleep(0.1)


async def _is_held_by_another(client: Client, name: str, than: str) -> bool:
    spec = (await client.get(LEASES, name, "kube-system"))["spec"]
    holder: str = spec["holderIdentity"]
    return holder not in ("", than)


async def _has_ready(client: Client, count: int) -> bool:
    found = await client.get("apps/v1/deployments", "web", "default")
    ready: int = found.get("status", {}).get("readyReplicas", 0)
    return ready == count

"""`fastkube scheduler` beside the real kube-apiserver with its etcd, in JSON and in protobuf.

`make test-clients` runs it where both are on the PATH; elsewhere it is left out by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fastkube.client import Client
from fastkube.client.kubeconfig import Connection
from fastkube.errors import ApiError

Object = dict[str, Any]

ETCD, APISERVER = shutil.which("etcd"), shutil.which("kube-apiserver")
TOKEN, NAMESPACE = "token-of-the-test", "default"
START_S, TIMEOUT_S = 90.0, 60.0


class Upstream(NamedTuple):
    url: str
    kubeconfig: Path

    def client(self) -> Client:
        return Client(Connection(self.url, token=TOKEN, insecure=True), codec="json")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    folder = tmp_path_factory.mktemp("upstream")
    (folder / "tokens.csv").write_text(f'{TOKEN},test,test,"system:masters"\n')
    key, port = folder / "sa.key", free_port()
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    client, peer = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    etcd = {
        "data-dir": folder / "etcd", "listen-client-urls": client, "advertise-client-urls": client,
        "listen-peer-urls": peer, "initial-advertise-peer-urls": peer, "initial-cluster": f"default={peer}",
    }  # fmt: skip
    apiserver = {
        "etcd-servers": client, "secure-port": port, "bind-address": "127.0.0.1", "cert-dir": folder / "certs",
        "token-auth-file": folder / "tokens.csv", "authorization-mode": "Node,RBAC",
        "service-account-issuer": "https://kubernetes.default.svc", "service-account-key-file": key,
        "service-account-signing-key-file": key, "disable-admission-plugins": "ServiceAccount,TaintNodesByCondition",
    }  # fmt: skip
    url = f"https://127.0.0.1:{port}"
    told = {
        "apiVersion": "v1", "kind": "Config", "current-context": "t",
        "clusters": [{"name": "t", "cluster": {"server": url, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "t", "user": {"token": TOKEN}}],
        "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
    }  # fmt: skip
    (folder / "kubeconfig").write_text(json.dumps(told))
    with contextlib.ExitStack() as stack:
        for binary, flags in ((ETCD, etcd), (APISERVER, apiserver)):
            assert binary is not None
            log = stack.enter_context((folder / f"{Path(binary).name}.log").open("wb"))
            words = [binary, *(f"--{name}={value}" for name, value in flags.items())]
            stack.callback(_stop, subprocess.Popen(words, stdout=log, stderr=log))
        asyncio.run(_ready(url))
        yield Upstream(url, folder / "kubeconfig")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(60)


async def _ready(url: str) -> None:
    deadline = time.monotonic() + START_S
    async with Client(Connection(url, token=TOKEN, insecure=True), codec="json") as client:
        while True:
            with contextlib.suppress(ApiError):
                if (await client.raw("GET", "/readyz")).status == 200:
                    await client.get("v1/namespaces", NAMESPACE)
                    return
            assert time.monotonic() < deadline, "kube-apiserver does not get ready"
            await asyncio.sleep(0.5)


def node(name: str) -> Object:
    room = {"cpu": "2", "memory": "4Gi", "pods": "10"}
    labels = {"kubernetes.io/hostname": name}
    return {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
        "status": {"allocatable": room, "capacity": room},
    }  # fmt: skip


def pod(name: str, cpu: str, **spec: Any) -> Object:
    container = {"name": "a", "image": "a:1", "resources": {"requests": {"cpu": cpu}}}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0, **spec},
    }  # fmt: skip


@pytest.mark.clients
@pytest.mark.timeout(300)
@pytest.mark.skipif(not (ETCD and APISERVER), reason="no kube-apiserver and etcd here")
@pytest.mark.parametrize("media", ["application/json", "application/vnd.kubernetes.protobuf"])
async def test_a_real_api_server_is_scheduled_for(upstream: Upstream, media: str) -> None:
    """Pods are bound and told about, one waits with upstream's words, and one of higher priority takes its room."""
    words = ("-m", "fastkube", "scheduler", "--kubeconfig", str(upstream.kubeconfig), "--kube-api-content-type", media)
    kind = media[-4:]
    process = await asyncio.create_subprocess_exec(sys.executable, *words, "--leader-elect-resource-name", f"s-{kind}")
    try:
        async with upstream.client() as client:
            for number in range(3):
                await client.create("v1/nodes", node(f"{kind}-{number}"))
            for number in range(12):
                await client.create("v1/pods", pod(f"{kind}-{number}", "500m"), NAMESPACE)
            pods = await _until(client, lambda items: len(_bound(items)) == 12)
            per_node = [each["spec"]["nodeName"] for each in pods]
            assert {per_node.count(name) for name in per_node} == {4}
            await client.create("v1/pods", pod(f"{kind}-waits", "1"), NAMESPACE)
            pods = await _until(client, lambda items: any(_why(each) for each in items))
            assert [_why(each) for each in pods if _why(each)] == [
                "0/3 nodes are available: 3 Insufficient cpu. no new claims to deallocate, "
                "preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod."
            ]
            critical = pod(f"{kind}-critical", "1", priorityClassName="system-cluster-critical")
            await client.create("v1/pods", critical, NAMESPACE)
            pods = await _until(client, lambda items: f"{kind}-critical" in _bound(items))
            assert len(_bound(pods)) == 11  # two had to go, and no more
            selector = f"involvedObject.name={kind}-critical,reason=Scheduled"
            events = (await client.list("v1/events", NAMESPACE, field_selector=selector))["items"]
            assert all("Successfully assigned" in each["message"] for each in events)
    finally:
        async with upstream.client() as client:
            await client.delete_collection("v1/pods", NAMESPACE, grace_period_s=0)
            for number in range(3):
                await client.delete("v1/nodes", f"{kind}-{number}")
        process.terminate()
        await process.wait()


def _bound(items: list[Object]) -> list[str]:
    return [each["metadata"]["name"] for each in items if each["spec"].get("nodeName")]


def _why(obj: Object) -> str:
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((str(each.get("message", "")) for each in conditions if each.get("reason") == "Unschedulable"), "")


async def _until(client: Client, holds: Any) -> list[Object]:
    async with asyncio.timeout(TIMEOUT_S):
        while not holds(items := (await client.list("v1/pods", NAMESPACE))["items"]):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        found: list[Object] = items
        return found

"""kubernetes_asyncio and lightkube: what they are used for. The kubernetes, kr8s and kopf packages are in tests/e2e.

Not named test_*.py: the suite does not install these packages, so it must not find them; tests/clients/test_clients.py
runs this file by its name.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import kubernetes_asyncio as aio
import lightkube
import pytest
import pytest_asyncio
from lightkube.models.apps_v1 import DeploymentSpec
from lightkube.models.core_v1 import Container, PodSpec, PodTemplateSpec
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Namespace, Pod

# ---------------------------------------------------------------- kubernetes_asyncio


@pytest_asyncio.fixture
async def core(kubeconfig: str) -> AsyncIterator[Any]:
    await aio.config.load_kube_config(kubeconfig)
    async with aio.client.ApiClient() as api:
        yield aio.client.CoreV1Api(api)


@pytest_asyncio.fixture
async def namespace(core: Any) -> AsyncIterator[str]:
    made = await core.create_namespace({"metadata": {"generateName": "asyncio-"}})
    yield made.metadata.name
    await core.delete_namespace(made.metadata.name)


async def test_asyncio_create_read_patch_delete(core: Any, namespace: str) -> None:
    made = await core.create_namespaced_config_map(namespace, {"metadata": {"name": "a"}, "data": {"k": "v"}})
    patched = await core.patch_namespaced_config_map("a", namespace, {"data": {"l": "w"}})
    assert patched.data == {"k": "v", "l": "w"}
    made.data = {"k": "late"}
    with pytest.raises(aio.client.ApiException) as conflict:
        await core.replace_namespaced_config_map("a", namespace, made)
    assert conflict.value.status == 409
    await core.delete_namespaced_config_map("a", namespace)
    with pytest.raises(aio.client.ApiException) as gone:
        await core.read_namespaced_config_map("a", namespace)
    assert gone.value.status == 404


async def test_asyncio_watch(core: Any, namespace: str) -> None:
    position = (await core.list_namespaced_config_map(namespace)).metadata.resource_version

    async def write() -> None:
        await core.create_namespaced_config_map(namespace, {"metadata": {"name": "w"}})
        await core.delete_namespaced_config_map("w", namespace)

    writing = asyncio.ensure_future(write())
    seen = []
    async with aio.watch.Watch().stream(
        core.list_namespaced_config_map,
        namespace,
        resource_version=position,
        field_selector="metadata.name=w",
        timeout_seconds=20,
    ) as stream:
        async for event in stream:
            seen.append(event["type"])
            if event["type"] == "DELETED":
                break
    await writing
    assert seen == ["ADDED", "DELETED"]


# ---------------------------------------------------------------- lightkube


@pytest.fixture
def client(kubeconfig: str) -> Iterator[lightkube.Client]:
    config = lightkube.KubeConfig.from_file(kubeconfig)
    space = lightkube.Client(config).create(Namespace(metadata=ObjectMeta(generateName="light-")))
    assert space.metadata is not None
    client = lightkube.Client(config, namespace=str(space.metadata.name), field_manager="light")
    yield client
    client.delete(Namespace, client.namespace)


def test_lightkube_create_apply_patch_delete(client: lightkube.Client) -> None:
    client.create(ConfigMap(metadata=ObjectMeta(name="a", labels={"x": "y"}), data={"k": "v"}))
    applied = client.apply(ConfigMap(metadata=ObjectMeta(name="b"), data={"k": "applied"}))
    assert applied.data == {"k": "applied"}
    patched = client.patch(ConfigMap, "a", {"data": {"l": "w"}})
    assert patched.data == {"k": "v", "l": "w"}
    assert [each.metadata.name for each in client.list(ConfigMap, labels={"x": "y"})] == ["a"]
    with pytest.raises(lightkube.ApiError) as exists:
        client.create(ConfigMap(metadata=ObjectMeta(name="a")))
    assert exists.value.status.reason == "AlreadyExists"
    client.delete(ConfigMap, "a")
    with pytest.raises(lightkube.ApiError) as gone:
        client.get(ConfigMap, "a")
    assert gone.value.status.code == 404


def test_lightkube_waits_for_a_deployment(client: lightkube.Client) -> None:
    labels = {"app": "web"}
    template = PodTemplateSpec(
        metadata=ObjectMeta(labels=labels), spec=PodSpec(containers=[Container(name="c", image="nginx")])
    )
    spec = DeploymentSpec(replicas=2, selector=LabelSelector(matchLabels=labels), template=template)
    client.create(Deployment(metadata=ObjectMeta(name="web"), spec=spec))
    client.wait(Deployment, "web", for_conditions=["Available"])
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        running = [pod for pod in client.list(Pod, labels=labels) if pod.status and pod.status.phase == "Running"]
        if len(running) == 2:
            break
        time.sleep(0.05)
    assert len(running) == 2
    log = "".join(client.log(str(running[0].metadata.name)))
    assert "has started" in log

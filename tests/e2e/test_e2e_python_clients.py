"""Unmodified Python clients from PyPI against a running control plane: kubernetes, kr8s and kopf."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import kr8s
import kubernetes
import pytest
from kubectl_runner import Kubectl
from kubernetes.client.exceptions import ApiException

from fastkube.testing import Cluster


@pytest.fixture
def api(cluster: Cluster) -> Any:
    return kubernetes.config.new_client_from_config(str(cluster.kubeconfig))


def pod(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}


def test_kubernetes_create_read_patch_delete(api: Any, namespace: str) -> None:
    core = kubernetes.client.CoreV1Api(api)
    made = core.create_namespaced_config_map(namespace, {"metadata": {"name": "a"}, "data": {"k": "v"}})
    assert made.metadata.uid
    assert core.read_namespaced_config_map("a", namespace).data == {"k": "v"}
    patched = core.patch_namespaced_config_map("a", namespace, {"data": {"l": "w"}})
    assert patched.data == {"k": "v", "l": "w"}
    made.data = {"k": "late"}
    with pytest.raises(ApiException) as caught:
        core.replace_namespaced_config_map("a", namespace, made)
    assert (caught.value.status, "Conflict" in caught.value.body) == (409, True)
    core.delete_namespaced_config_map("a", namespace)
    with pytest.raises(ApiException) as caught:
        core.read_namespaced_config_map("a", namespace)
    assert caught.value.status == 404


def test_kubernetes_list_in_pages(api: Any, namespace: str) -> None:
    core = kubernetes.client.CoreV1Api(api)
    for number in range(7):
        core.create_namespaced_secret(namespace, {"metadata": {"name": f"s{number}", "labels": {"page": "me"}}})
    names, token = [], None
    while True:
        page = core.list_namespaced_secret(namespace, label_selector="page=me", limit=3, _continue=token)
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue
        if not token:
            break
    assert names == [f"s{number}" for number in range(7)]


def test_kubernetes_watch_sees_every_change_in_order(api: Any, namespace: str) -> None:
    core = kubernetes.client.CoreV1Api(api)
    position = core.list_namespaced_config_map(namespace).metadata.resource_version

    def write() -> None:
        core.create_namespaced_config_map(namespace, {"metadata": {"name": "w"}, "data": {"n": "0"}})
        for number in range(1, 5):
            core.patch_namespaced_config_map("w", namespace, {"data": {"n": str(number)}})
        core.delete_namespaced_config_map("w", namespace)

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    stream = kubernetes.watch.Watch().stream(
        core.list_namespaced_config_map,
        namespace,
        resource_version=position,
        field_selector="metadata.name=w",
        timeout_seconds=20,
    )
    for event in stream:
        seen.append((event["type"], event["object"].data["n"]))
        if event["type"] == "DELETED":
            break
    writer.join()
    changes = [("MODIFIED", str(number)) for number in range(1, 5)]
    assert seen == [("ADDED", "0"), *changes, ("DELETED", "4")]


def test_kubernetes_runs_a_pod(api: Any, namespace: str) -> None:
    core = kubernetes.client.CoreV1Api(api)
    core.create_namespaced_pod(namespace, pod("runs"))
    deadline = time.monotonic() + 20
    while core.read_namespaced_pod("runs", namespace).status.phase != "Running" and time.monotonic() < deadline:
        time.sleep(0.05)
    running = core.read_namespaced_pod("runs", namespace)
    assert running.status.phase == "Running"
    assert running.status.container_statuses[0].ready


def test_kr8s_deployment_life(cluster: Cluster, namespace: str) -> None:
    api = kr8s.api(kubeconfig=str(cluster.kubeconfig), namespace=namespace)
    deployment = kr8s.objects.Deployment(
        {
            "metadata": {"name": "web", "namespace": namespace},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "nginx"}]},
                },
            },
        },
        api=api,
    )
    deployment.create()
    deployment.wait("condition=Available", timeout=30)
    deadline = time.monotonic() + 20
    while not deployment.ready() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert deployment.ready()
    deployment.scale(3)
    assert deployment.replicas == 3
    assert {each.name.startswith("web-") for each in api.get("pods", namespace=namespace)} == {True}
    deployment.label({"tier": "front"})
    deployment.refresh()
    assert deployment.labels["tier"] == "front"
    deployment.delete()
    assert not [
        each for each in api.get("deployments", namespace=namespace) if "deletionTimestamp" not in each.metadata
    ]


def test_kopf_operator_reacts(cluster: Cluster, namespace: str, kubectl: Kubectl, tmp_path: Path) -> None:
    operator = tmp_path / "operator.py"
    operator.write_text(
        textwrap.dedent("""
        import kopf

        @kopf.on.startup()
        def configure(settings, **_):
            settings.posting.enabled = False
            settings.persistence.finalizer = "example.com/operator"

        @kopf.on.create("", "v1", "configmaps", annotations={"example.com/mine": "yes"})
        def created(body, patch, **_):
            patch.metadata.annotations["example.com/seen"] = body["data"]["k"]

        @kopf.on.delete("", "v1", "configmaps", annotations={"example.com/mine": "yes"})
        def deleted(name, **_):
            print(f"deleted {name}", flush=True)
        """)
    )
    words = [sys.executable, "-m", "kopf", "run", "--standalone", "-n", namespace, str(operator)]
    with subprocess.Popen(
        words, env=cluster.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        try:
            metadata = {"name": "c", "annotations": {"example.com/mine": "yes"}}
            manifest = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"k": "v"}})
            kubectl("create", "-f", "-", input=manifest)
            seen = "--for=jsonpath={.metadata.annotations.example\\.com/seen}=v"
            kubectl("wait", "configmap/c", seen, "--timeout=60s")
            assert kubectl.json("get", "configmap", "c")["metadata"]["finalizers"] == ["example.com/operator"]
            kubectl("delete", "configmap", "c", "--timeout=60s")
        finally:
            running.terminate()
            output, _ = running.communicate(timeout=20)
    assert "deleted c" in output

"""Clusters in files: saved, restored and replayed elsewhere, through the command and the API."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastkube.api.documents import read_files
from fastkube.cluster import StartError
from fastkube.testing import Cluster

MANIFESTS = Path(__file__).parent / "manifests"


@pytest.fixture(scope="module")
def source() -> Iterator[Cluster]:
    """A cluster that was started with manifests, and has come to rest."""
    with Cluster(nodes=2, manifests=MANIFESTS) as started:
        started.kubectl("rollout", "status", "deployment/web", "-n", "shop", "--timeout=60s")
        started.kubectl("rollout", "status", "statefulset/db", "-n", "shop", "--timeout=60s")
        started.kubectl("wait", "job/import", "-n", "shop", "--for=condition=Complete", "--timeout=60s")
        yield started


def fastkube(cluster: Cluster, *words: str, check: bool = True) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "fastkube", *words],
        env={**cluster.environment(), "FASTKUBE_CONFIG": ""},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def objects(cluster: Cluster, what: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(cluster.kubectl("get", what, "-n", "shop", "-o", "json"))["items"]
    return items


def names(cluster: Cluster, what: str) -> list[str]:
    return sorted(each["metadata"]["name"] for each in objects(cluster, what))


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


KINDS = ("pods", "replicasets", "deployments", "statefulsets", "controllerrevisions", "jobs", "services", "widgets")


@pytest.fixture(scope="module")
def snapshot(source: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("snapshot") / "shop.yaml.gz"
    told = fastkube(source, "cluster", "save", str(file))
    assert "objects of" in told
    assert "left out: 1 x secrets (--secrets takes them along)" in told
    return file


def test_manifests_of_all_kinds_are_there_from_the_beginning(source: Cluster) -> None:
    assert names(source, "widgets") == ["small"]
    assert len(names(source, "pods")) == 6


def test_a_manifest_that_cannot_be_made_keeps_a_cluster_from_starting(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("apiVersion: v1\nkind: Service\nmetadata: {name: Not-A-Name}\nspec: {ports: [{port: 80}]}\n")
    with pytest.raises(StartError, match=r"manifests: Service Not-A-Name: .*metadata.name: Invalid value"):
        Cluster(nodes=0, scheduler=False, controllers=False, manifests=file).start()
    with pytest.raises(StartError, match="No such file"):
        Cluster(nodes=0, manifests=tmp_path / "absent").start()


def check_same(source: Cluster, target: Cluster) -> None:
    """The same objects, and no controller had anything to make or take away."""
    for kind in KINDS:
        assert names(target, kind) == names(source, kind), kind
    for kind in ("pods", "replicasets"):
        uids = {each["metadata"]["uid"]: each["metadata"]["name"] for what in KINDS for each in objects(target, what)}
        for each in objects(target, kind):
            owners = each["metadata"].get("ownerReferences") or ()
            assert all(uids[owner["uid"]] == owner["name"] for owner in owners)
    here = {each["metadata"]["name"]: each for each in objects(target, "pods")}
    for each in objects(source, "pods"):
        other = here[each["metadata"]["name"]]
        assert other["spec"]["nodeName"] == each["spec"]["nodeName"]
        assert other["status"]["phase"] == each["status"]["phase"]
        assert other["metadata"]["uid"] != each["metadata"]["uid"]


def test_a_new_cluster_begins_with_a_snapshot(source: Cluster, snapshot: Path) -> None:
    with Cluster(nodes=2, restore=snapshot) as target:
        target.kubectl("rollout", "status", "deployment/web", "-n", "shop", "--timeout=60s")
        check_same(source, target)
        job = objects(target, "jobs")[0]
        assert job["status"]["succeeded"] == 1
        assert job["spec"]["suspend"] is False
        assert "secrets" not in target.kubectl("get", "secrets", "-n", "shop", "-o", "name")
        target.kubectl("scale", "deployment/web", "-n", "shop", "--replicas=4")
        target.kubectl("rollout", "status", "deployment/web", "-n", "shop", "--timeout=60s")
        assert len(names(target, "replicasets")) == 1


def test_a_snapshot_restored_beside_running_controllers(source: Cluster, snapshot: Path) -> None:
    with Cluster(nodes=2) as target:
        told = fastkube(target, "cluster", "restore", str(snapshot))
        assert "failed" not in told
        target.kubectl("rollout", "status", "deployment/web", "-n", "shop", "--timeout=60s")
        check_same(source, target)
        again = fastkube(target, "cluster", "restore", str(snapshot))
        # where the controller made an EndpointSlice of its own first, that of the file comes and goes
        assert int(again.split()[0]) <= 1, again
        check_same(source, target)


def test_a_snapshot_is_not_restored_over_a_cluster(source: Cluster, snapshot: Path) -> None:
    with pytest.raises(StartError, match="there is a cluster in"):
        Cluster(nodes=0, restore=snapshot, data_dir=source.data_dir).start()


def test_resources_and_namespaces_are_chosen(source: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    fastkube(source, "cluster", "save", str(file), "-n", "shop", "--resources", "secrets,deployments.apps")
    assert sorted(each["kind"] for each in read_files([file])) == ["Deployment", "Secret"]
    assert file.stat().st_mode & 0o777 == 0o600
    told = fastkube(source, "cluster", "save", str(file), "--resources", "gadgets", check=False)
    assert "serves no resource 'gadgets'" in told


class Recording:
    """`fastkube record` between its announcement and Ctrl-C."""

    def __init__(self, cluster: Cluster, file: Path, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fastkube", "record", str(file), *words],
            env=cluster.environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert "recording to" in self.process.stdout.readline()

    def end(self) -> str:
        os.kill(self.process.pid, signal.SIGINT)
        told, _ = self.process.communicate(timeout=30)
        assert self.process.returncode == 0
        return told


@pytest.fixture(scope="module")
def bare() -> Iterator[Cluster]:
    """A cluster to replay into: nothing acts in it by itself."""
    with Cluster(nodes=0, scheduler=False, controllers=False) as started:
        yield started


def test_changes_are_recorded_and_replayed(source: Cluster, bare: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "changes.jsonl"
    recording = Recording(source, file)
    source.kubectl("create", "namespace", "later")
    source.kubectl("create", "configmap", "one", "-n", "later", "--from-literal=a=1")
    source.kubectl("scale", "deployment/web", "-n", "shop", "--replicas=5")
    source.kubectl("rollout", "status", "deployment/web", "-n", "shop", "--timeout=60s")
    source.kubectl("delete", "statefulset/db", "-n", "shop")
    eventually(lambda: len(names(source, "pods")) == 6)
    recording.end()
    source.kubectl("scale", "deployment/web", "-n", "shop", "--replicas=2")  # while nobody records
    source.kubectl("rollout", "status", "deployment/web", "-n", "shop", "--timeout=60s")
    eventually(lambda: len(names(source, "pods")) == 3)
    recording = Recording(source, file, "--resume")
    source.kubectl("delete", "namespace", "later")
    told = recording.end()
    assert "changes" in told

    told = fastkube(bare, "replay", str(file), "--speed", "max")
    assert "failed" not in told
    for kind in ("pods", "replicasets", "deployments", "statefulsets", "jobs"):
        assert names(bare, kind) == names(source, kind), kind
    deployment = objects(bare, "deployments")[0]
    assert deployment["spec"]["replicas"] == 2
    assert deployment["status"]["readyReplicas"] == 2
    assert "later" not in bare.kubectl("get", "namespaces")
    pods = objects(bare, "pods")
    assert all(each["spec"]["nodeName"] and each["status"]["phase"] in ("Running", "Succeeded") for each in pods)


def test_a_recording_of_kwokctl_is_replayed(bare: Cluster, tmp_path: Path) -> None:
    """Strategic patches and the form of its documents, as its own recorder writes them."""
    file = tmp_path / "kwok.yaml"
    file.write_text(KWOK)
    fastkube(bare, "replay", str(file), "--speed", "100x")
    found = json.loads(bare.kubectl("get", "deployment", "app", "-n", "default", "-o", "json"))
    assert found["spec"]["replicas"] == 3
    containers = found["spec"]["template"]["spec"]["containers"]
    assert [(each["name"], each["image"]) for each in containers] == [("a", "a:2"), ("b", "b:1")]
    assert "gone" not in bare.kubectl("get", "configmaps", "-n", "default", "-o", "name")


KWOK = """
apiVersion: v1
kind: ConfigMap
metadata: {name: gone, namespace: default, uid: u-1}
---
apiVersion: action.kwok.x-k8s.io/v1alpha1
kind: ResourcePatch
resource: {group: apps, version: v1, resource: deployments}
target: {name: app, namespace: default}
durationNanosecond: 1000000000
method: create
template:
  apiVersion: apps/v1
  kind: Deployment
  metadata: {name: app, namespace: default}
  spec:
    replicas: 1
    selector: {matchLabels: {app: app}}
    template:
      metadata: {labels: {app: app}}
      spec: {containers: [{name: a, image: "a:1"}, {name: b, image: "b:1"}]}
---
apiVersion: action.kwok.x-k8s.io/v1alpha1
kind: ResourcePatch
resource: {group: apps, version: v1, resource: deployments}
target: {name: app, namespace: default}
durationNanosecond: 2000000000
method: patch
template:
  spec:
    replicas: 3
    template:
      spec:
        $setElementOrder/containers: [{name: a}, {name: b}]
        containers: [{name: a, image: "a:2"}]
---
apiVersion: action.kwok.x-k8s.io/v1alpha1
kind: ResourcePatch
resource: {version: v1, resource: configmaps}
target: {name: gone, namespace: default}
durationNanosecond: 3000000000
method: delete
"""

"""The fleet against an API server: lives that Stage files tell, seen through the API."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fastkube.cli import main
from fastkube.cluster import StartError
from fastkube.testing import Cluster

Object = dict[str, Any]
STAGES = Path(__file__).parent / "stages.yaml"


@pytest.fixture(scope="module")
def staged() -> Iterator[Cluster]:
    """A fleet whose Pods, nodes and Widgets live as a file of Stages says, on a clock driven by hand."""
    alone: dict[str, Any] = {"scheduler": False, "controllers": False, "clock": "manual"}
    with Cluster(nodes=1, **alone, stages=(str(STAGES),), manifests=STAGES.parent / "manifests") as started:
        yield started


def get(cluster: Cluster, *words: str) -> Object:
    found: Object = json.loads(cluster.kubectl("get", *words, "-o", "json", "--show-managed-fields"))
    return found


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def condition(obj: Object, kind: str) -> str:
    return next((str(each["status"]) for each in obj["status"].get("conditions") or () if each["type"] == kind), "")


def test_a_nodes_life_is_that_of_its_stages(staged: Cluster) -> None:
    eventually(lambda: condition(get(staged, "node", "node-0"), "Ready") == "True")
    node = get(staged, "node", "node-0")
    assert node["status"]["phase"] == "Running"
    assert {each["type"] for each in node["status"]["conditions"]} >= {"Ready", "MemoryPressure", "NetworkUnavailable"}
    before = node["status"]["conditions"][0]["lastHeartbeatTime"]
    staged.clock.advance(25.0)
    assert get(staged, "node", "node-0")["status"]["conditions"][0]["lastHeartbeatTime"] > before


def test_a_pod_is_made_becomes_ready_and_is_held_by_a_finalizer(staged: Cluster) -> None:
    staged.kubectl("annotate", "pod", "slow", "delay=1h")
    staged.clock.advance(1.0)
    pod = get(staged, "pod", "slow")
    assert "podIP" not in pod["status"]
    staged.clock.advance(3600.0)
    pod = get(staged, "pod", "slow")
    assert pod["status"]["phase"] == "Running"
    assert pod["status"]["podIP"].startswith("10.128.")
    assert pod["status"]["hostIP"] == get(staged, "node", "node-0")["status"]["addresses"][0]["address"]
    assert [(each["name"], each["restartCount"]) for each in pod["status"]["containerStatuses"]] == [("a", 0), ("b", 1)]
    assert pod["metadata"]["finalizers"] == ["example.com/held"]
    events = get(staged, "events", "--field-selector", "involvedObject.name=slow")["items"]
    assert [(each["reason"], each["message"], each["source"]["host"]) for each in events] == [
        ("Created", "Created container a", "node-0")
    ]
    staged.kubectl("delete", "pod", "slow", "--wait=false")
    staged.clock.advance(61.0)
    assert "slow" not in staged.kubectl("get", "pods", "-o", "name")


def test_objects_of_other_kinds_live_too(staged: Cluster) -> None:
    """By a merge patch of the status as somebody else, then an object that is applied, one at once after the other."""
    eventually(lambda: "made-by-small" in staged.kubectl("get", "configmaps", "-o", "name"))
    widget = get(staged, "widget", "small")
    assert widget["status"] == {"phase": "Ready", "size": 3}
    made = get(staged, "configmap", "made-by-small")
    assert made["data"] == {"size": "3"}
    assert made["metadata"]["ownerReferences"][0]["uid"] == widget["metadata"]["uid"]
    managers = {each["manager"] for each in made["metadata"]["managedFields"]}
    assert managers == {"fastkube-nodes"}


def test_a_stage_that_is_not_understood_keeps_the_fleet_from_starting(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(STAGES.read_text().replace("NodeConditions", "NodeConditons"))
    with pytest.raises(StartError, match=r"Stage node-initialize: function 'NodeConditons' not defined"):
        Cluster(nodes=1, scheduler=False, controllers=False, stages=(str(file),)).start()


# ---------------------------------------------------------------- the built-in life


@pytest.fixture(scope="module")
def plain() -> Iterator[Cluster]:
    """A fleet with nodes of a file, whose Pods live by scripts."""
    alone: dict[str, Any] = {"scheduler": False, "controllers": False, "clock": "manual"}
    with Cluster(nodes=1, **alone, node_template=(str(STAGES.parent / "shapes.yaml"),)) as started:
        started.kubectl("create", "serviceaccount", "default")
        yield started


def pod(name: str, node: str = "node-0", **annotations: str) -> str:
    told = {f"fastkube.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    spec = {"nodeName": node, "containers": [{"name": "a", "image": "a:1"}]}
    return json.dumps(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": told}, "spec": spec}
    )


def shown(cluster: Cluster, name: str) -> list[str]:
    """READY, STATUS and RESTARTS as kubectl prints them."""
    return cluster.kubectl("get", "pod", name, "--no-headers").split()[1:4]


def test_nodes_are_made_after_manifests(plain: Cluster) -> None:
    names = plain.kubectl("get", "nodes", "-o", "name").split()
    assert names == ["node/gpu-0", "node/gpu-1", "node/gpu-2", "node/lonely", "node/node-0"]
    gpu = get(plain, "node", "gpu-1")
    assert gpu["status"]["allocatable"]["nvidia.com/gpu"] == "8"
    assert (gpu["status"]["capacity"]["cpu"], gpu["status"]["allocatable"]["cpu"]) == ("64", "63")
    assert gpu["status"]["capacity"]["memory"] == "256Gi"
    assert {"key": "gpu", "effect": "NoSchedule"} in gpu["spec"]["taints"]
    assert gpu["metadata"]["labels"]["kind"] == "gpu"
    zones = [
        get(plain, "node", f"gpu-{number}")["metadata"]["labels"]["topology.kubernetes.io/zone"] for number in (0, 1, 2)
    ]
    assert zones == ["a", "b", "a"]
    assert "fastkube.io/count" not in gpu["metadata"]["annotations"]
    networks = {get(plain, "node", name.removeprefix("node/"))["spec"]["podCIDR"] for name in names}
    assert len(networks) == len(names)


def test_a_file_with_something_else_keeps_the_fleet_from_starting(tmp_path: Path) -> None:
    file = tmp_path / "shapes.yaml"
    for text, words in (
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: p}", "a Node with a name is expected, not Pod p"),
        (
            'apiVersion: v1\nkind: Node\nmetadata: {name: some, annotations: {fastkube.io/count: "many"}}',
            "'many', not a number",
        ),
        ("apiVersion: v1\nkind: Node\nmetadata: {name: Big_Name}", "node Big_Name: .*Invalid value"),
    ):
        file.write_text(text)
        with pytest.raises(StartError, match=words):
            Cluster(nodes=0, scheduler=False, controllers=False, node_template=(str(file),)).start()


def test_a_scripted_pod_crashes_backs_off_and_recovers(plain: Cluster) -> None:
    plain.kubectl("create", "-f", "-", input=pod("crash", pull="5s", exit="1 after 2s times 2"))
    plain.clock.advance(1.0)
    assert shown(plain, "crash") == ["0/1", "ContainerCreating", "0"]
    plain.clock.advance(5.0)
    assert shown(plain, "crash") == ["1/1", "Running", "0"]
    plain.clock.advance(4.5)
    assert shown(plain, "crash")[:2] == ["0/1", "CrashLoopBackOff"]
    plain.clock.advance(12.0)
    assert shown(plain, "crash")[:3] == ["1/1", "Running", "2"]
    events = get(plain, "events", "--field-selector", "involvedObject.name=crash")["items"]
    assert {each["reason"] for each in events} == {"Pulling", "Pulled", "Created", "Started", "BackOff"}
    assert {each["involvedObject"]["fieldPath"] for each in events} == {"spec.containers{a}"}


def test_a_scripted_pod_takes_its_time_to_end(plain: Cluster) -> None:
    plain.kubectl("create", "-f", "-", input=pod("slow", stop_after="20s"))
    plain.clock.advance(1.0)
    assert shown(plain, "slow") == ["1/1", "Running", "0"]
    plain.kubectl("delete", "pod", "slow", "--wait=false")
    plain.clock.advance(15.0)
    assert shown(plain, "slow")[1] == "Terminating"
    plain.clock.advance(10.0)
    assert "pod/slow" not in plain.kubectl("get", "pods", "-o", "name")


def test_a_script_that_is_none_is_told_in_an_event(plain: Cluster) -> None:
    plain.kubectl("create", "-f", "-", input=pod("odd", exit="soon"))
    plain.clock.advance(1.0)
    event = get(plain, "events", "--field-selector", "involvedObject.name=odd")["items"][0]
    assert (event["type"], event["reason"]) == ("Warning", "FailedStage")
    assert event["message"] == "Stage scripted: fastkube.io/exit: 'soon' is not CODE [after DURATION] [times N]"


def test_a_node_fails_and_comes_back(plain: Cluster) -> None:
    def renewed() -> str:
        lease = get(plain, "lease", "lonely", "-n", "kube-node-lease")
        return str(lease["spec"]["renewTime"])

    def run(*words: str) -> None:
        done = CliRunner().invoke(
            main, ["nodes", *words, "--kubeconfig", str(plain.kubeconfig)], catch_exceptions=False
        )
        assert done.exit_code == 0, done.output

    plain.clock.advance(4 * 3600)
    run("fail", "lonely")
    plain.clock.advance(1.0)
    before = renewed()
    plain.kubectl("create", "-f", "-", input=pod("waiting", node="lonely"))
    plain.clock.advance(4 * 3600)
    assert renewed() == before
    assert shown(plain, "waiting")[1] == "Pending"
    run("recover", "lonely")
    plain.clock.advance(1.0)
    eventually(lambda: shown(plain, "waiting")[1] == "Running")
    assert renewed() > before
    events = get(plain, "events", "--field-selector", "involvedObject.name=lonely")["items"]
    assert {each["reason"] for each in events} >= {"Starting", "NodeHasSufficientMemory", "NodeReady"}

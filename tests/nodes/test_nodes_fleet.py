"""The fleet against an API server: lives that Stage files tell, seen through the API."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

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

"""`fastkube scheduler explain` and `simulate`, as they are called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from schedobjects import node, pod

from fastkube.cli import main
from fastkube.testing import Cluster

Object = dict[str, Any]


def call(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(main, ["scheduler", *map(str, words)], env={"KUBECONFIG": ""})
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """A List as kubectl prints it, and a typed list in a second document."""
    nodes = [
        node("n1"),
        node("n2", allocatable={"cpu": "2"}),
        node("n3", taints=["k=v:NoSchedule"]),
    ]
    for each in nodes:
        del each["kind"], each["apiVersion"]
    pods = [pod("waiting", requests={"cpu": "3"}), pod("low", node="n2", requests={"cpu": "2"}, priority=1)]
    path = tmp_path / "dump.yaml"
    path.write_text(
        yaml.safe_dump_all(
            [
                {"apiVersion": "v1", "kind": "List", "items": pods},
                {"apiVersion": "v1", "kind": "NodeList", "items": nodes},
            ]
        )
    )
    return path


def deployment(tmp_path: Path, replicas: int, cpu: str, **spec: Any) -> Path:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": pod(requests={"cpu": cpu}, **spec)["spec"]}
    document = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "template": template},
    }
    path = tmp_path / "web.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_explain_says_of_each_node_what_it_thinks(dump: Path) -> None:
    assert call("explain", "waiting", "--cluster", dump).splitlines() == [
        "NODE   VERDICT   NodeResourcesFit   NodeResourcesBalancedAllocation   TaintToleration   TOTAL",
        "n1     fits      62                 56                                300               418",
        "n2     NodeResourcesFit: Insufficient cpu",
        "n3     TaintToleration: node(s) had untolerated taint(s)",
        "",
        "default/waiting goes to n1 (scheduler default-scheduler)",
    ]


def test_explain_of_a_pod_that_has_a_node_looks_at_it_as_if_it_had_none(dump: Path) -> None:
    told = json.loads(call("explain", "low", "--cluster", dump, "-o", "json"))
    assert {each["node"]: each["feasible"] for each in told["nodes"]} == {"n1": True, "n2": True, "n3": False}


def test_explain_of_a_pod_that_fits_nowhere(dump: Path, tmp_path: Path) -> None:
    path = deployment(tmp_path, 1, "64")
    text = call("explain", path, "--cluster", dump)
    assert text.endswith(
        "default/web-0 is not scheduled: 0/3 nodes are available: 1 node(s) had untolerated taint(s), "
        "2 Insufficient cpu.\n"
    )


def test_explain_asks_a_server(tmp_path: Path) -> None:
    with Cluster(nodes=2, scheduler=False) as cluster:
        cluster.kubectl("run", "p", "--image=x")
        told = json.loads(call("explain", "p", "--kubeconfig", cluster.kubeconfig, "-o", "json"))
    assert [each["feasible"] for each in told["nodes"]] == [True, True]


def test_simulate_places_pods_with_two_configurations_side_by_side(dump: Path, tmp_path: Path) -> None:
    packing = tmp_path / "packing.yaml"
    packing.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kubescheduler.config.k8s.io/v1",
                "kind": "KubeSchedulerConfiguration",
                "profiles": [
                    {
                        "plugins": {"multiPoint": {"disabled": [{"name": "NodeResourcesBalancedAllocation"}]}},
                        "pluginConfig": [
                            {"name": "NodeResourcesFit", "args": {"scoringStrategy": {"type": "MostAllocated"}}}
                        ],
                    }
                ],
            }
        )
    )
    nodes = tmp_path / "nodes.json"
    nodes.write_text(json.dumps({"kind": "List", "items": [node("n1"), node("n2")]}))
    web = deployment(tmp_path, 4, "1")
    words = ("simulate", "--cluster", nodes, "--pods", web, "--compare", packing)
    spread, packed = json.loads(call(*words, "-o", "json"))
    assert (spread["placed"], spread["nodesUsed"]) == (4, 2)
    assert (packed["placed"], packed["nodesUsed"]) == (4, 1)
    table = call(*words, "--limit", 1).splitlines()
    assert table[0].split() == ["POD", "default", str(packing), "SAME"]
    assert "... and 3 more Pods (--limit 0 shows all)" in table
    assert any(line.split() == ["nodes", "in", "use", "2", "1"] for line in table)


def test_simulate_preempts_only_when_asked(dump: Path, tmp_path: Path) -> None:
    web = deployment(tmp_path, 1, "2", priority=5, nodeSelector={"kubernetes.io/hostname": "n2"})
    words = ("simulate", "--cluster", dump, "--pods", web, "-o", "json")
    told = {each["pod"]: each for each in json.loads(call(*words))[0]["pods"]}
    assert told["default/web-0"]["node"] == ""
    told = {each["pod"]: each for each in json.loads(call(*words, "--preempt"))[0]["pods"]}
    assert (told["default/web-0"]["node"], told["default/web-0"]["victims"]) == ("n2", ["default/low"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("explain", "nobody"), 'pods "nobody" not found in namespace "default"'),
        (("explain", "waiting", "--scheduler-config", "nowhere.yaml"), "nowhere.yaml: [Errno 2] No such file"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(dump: Path, words: tuple[str, ...], message: str) -> None:
    assert message in call(*words, "--cluster", dump, code=1)


def test_a_cluster_must_be_named() -> None:
    assert "a cluster is needed" in call("explain", "p", code=1)

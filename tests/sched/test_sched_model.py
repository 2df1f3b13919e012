"""Decisions compared with a slow, obvious model on random clusters: who is refused and why, and every score."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from schedmodel import Model
from schedobjects import RandomCluster, node

from fastkube.scheduler.config import SchedulerConfig
from fastkube.scheduler.framework import Cycle
from fastkube.scheduler.offline import OfflineScheduler
from fastkube.scheduler.pods import PodInfo

Object = dict[str, Any]

WEIGHTS = {
    "NodeResourcesFit": 1,
    "NodeResourcesBalancedAllocation": 1,
    "TaintToleration": 3,
    "NodeAffinity": 2,
    "PodTopologySpread": 2,
    "InterPodAffinity": 2,
    "ImageLocality": 1,
}
ALL_NODES = SchedulerConfig(percentage=100)
PODS = 40


class Pair:
    """A scheduler and a model of the same cluster."""

    def __init__(self, seed: int) -> None:
        self.cluster = RandomCluster(seed)
        self.scheduler = OfflineScheduler(self.cluster.objects(), ALL_NODES, seed=seed)
        self.model = Model(self.cluster.nodes, self.cluster.namespaces, self.cluster.workloads)
        self.running: dict[str, Object] = {}

    def run(self, obj: Object, name: str) -> None:
        """The Pod runs on a node, for both."""
        obj["spec"]["nodeName"] = name
        self.scheduler.cache.set_pod(self.scheduler.cache.parse(obj))
        self.model.pods.append(obj)
        self.running[obj["metadata"]["uid"]] = obj

    def end(self, uid: str) -> None:
        self.scheduler.cache.remove_pod(uid)
        self.model.pods.remove(self.running.pop(uid))

    def set_node(self, obj: Object) -> None:
        self.scheduler.cache.set_node(obj)
        self.model.nodes[obj["metadata"]["name"]] = obj

    def remove_node(self, name: str) -> None:
        self.scheduler.cache.remove_node(name)
        del self.model.nodes[name]

    def compare(self, obj: Object) -> str:
        """Decide for a Pod and check everything against the model; says where it goes, "" for nowhere."""
        search = self.scheduler.profiles["default-scheduler"].search
        pod = self.scheduler.cache.parse(obj)
        refusals = {name: self.model.refusal(obj, each) for name, each in self.model.nodes.items()}
        feasible = [name for name, reasons in refusals.items() if not reasons]
        decision = self.scheduler.decide(pod)
        if not feasible:
            counts = Counter(reason for reasons in refusals.values() for reason in reasons)
            told = ", ".join(sorted(f"{count} {reason}" for reason, count in counts.items()))
            assert decision.message == f"0/{len(self.model.nodes)} nodes are available: {told}."
            return ""
        plan, extra = search.prepare(Cycle(pod))
        plan.core.search(0, len(self.model.nodes), extra)
        found = [info.name for info in search.nodes_found(plan.core)]
        assert sorted(found) == sorted(feasible)
        self._compare_scores(obj, pod, found, plan.core.scores(), decision.node)
        return decision.node

    def _compare_scores(
        self, obj: Object, pod: PodInfo, found: list[str], scores: dict[str, list[int]], chosen: str
    ) -> None:
        expected = self.model.scores(obj, [self.model.nodes[name] for name in found])
        for plugin, wanted in expected.items():
            assert scores.get(plugin, [0] * len(found)) == wanted, plugin
        assert scores.keys() <= expected.keys() | {"NodeResourcesBalancedAllocation"}
        totals = {
            name: sum(WEIGHTS[plugin] * wanted[place] for plugin, wanted in expected.items())
            for place, name in enumerate(found)
        }
        assert totals[chosen] == max(totals.values())


@pytest.mark.parametrize("seed", range(120))
def test_decisions_are_those_of_the_model(seed: int) -> None:
    compare(seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1000, 4000))
def test_decisions_on_thousands_of_clusters_are_those_of_the_model(seed: int) -> None:
    compare(seed)


def compare(seed: int) -> None:
    """Pods one after another on a random cluster that changes between them."""
    pair = Pair(seed)
    draw = random.Random(seed)
    for name in pair.model.nodes:
        if draw.random() < 0.5:
            pair.run(pair.cluster.pod(node=name), name)
    for _ in range(PODS):
        obj = pair.cluster.pod()
        name = pair.compare(obj)
        if name and draw.random() < 0.8:
            pair.run(obj, name)
        churn(pair, draw)


def churn(pair: Pair, draw: random.Random) -> None:
    """Pods end, nodes come, go and change, namespaces change their labels."""
    if pair.running and draw.random() < 0.25:
        pair.end(draw.choice(list(pair.running)))
    if draw.random() < 0.1:
        pair.set_node(pair.cluster.node(draw.randint(0, 16)))
    if draw.random() < 0.05 and len(pair.model.nodes) > 1:
        pair.remove_node(draw.choice(list(pair.model.nodes)))
    if draw.random() < 0.05:
        labels = {"team": draw.choice("xyz")}
        pair.scheduler.cache.tallies.set_namespace("other", labels)
        pair.model.namespaces["other"] = labels


def test_columns_hold_what_the_pods_request() -> None:
    """However Pods and nodes came and went."""
    from schedmodel import requests

    pair = Pair(7)
    draw = random.Random(7)
    for _ in range(200):
        obj = pair.cluster.pod()
        name = pair.compare(obj)
        if name:
            pair.run(obj, name)
        churn(pair, draw)
    cache = pair.scheduler.cache
    for name, obj in pair.model.nodes.items():
        for resource, scale in (("cpu", 1000), ("memory", 1), ("example.com/gpu", 1)):
            wanted = sum(requests(pod).get(resource, 0) for pod in pair.model.on(obj))
            assert cache.nodes.requested_of(cache.infos[name].slot, cache.column(resource)) == round(wanted * scale)


def test_a_cluster_grows_beyond_its_first_columns() -> None:
    scheduler = OfflineScheduler([node(f"n{number}") for number in range(300)], ALL_NODES)
    scheduler.add(node("special", {"only": "here"}))
    pair = RandomCluster(1)
    obj = pair.pod()
    obj["spec"] = {"containers": [{"name": "c", "image": "x"}], "nodeSelector": {"only": "here"}}
    assert scheduler.decide(scheduler.cache.parse(obj)).node == "special"

"""Preemption: who must go, who is spared, and what is told when nobody can."""

from __future__ import annotations

import random
from itertools import combinations
from typing import Any

import pytest
from schedmodel import number, requests
from schedobjects import HOST, expression, node, node_affinity, pod, pod_affinity, pod_term

from fastkube.scheduler.framework import Cycle, Nomination
from fastkube.scheduler.offline import OfflineScheduler
from fastkube.scheduler.preemption import Budget, Preemption, Preemptor
from fastkube.scheduler.search import FitError

Object = dict[str, Any]


def budget(labels: dict[str, str], allowed: int, **status: Any) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": f"pdb-{'-'.join(labels.values())}", "namespace": "default"},
        "spec": {"selector": {"matchLabels": labels}},
        "status": {"disruptionsAllowed": allowed, **status},
    }


def running(name: str, on: str, priority: int, cpu: str = "1", **more: Any) -> Object:
    started = more.pop("started", "2026-01-01T00:00:00Z")
    return pod(name, node=on, priority=priority, requests={"cpu": cpu}, status={"startTime": started}, **more)


def preempt(objects: list[Object], preemptor: Object, budgets: list[Object] = ()) -> Preemption:  # type: ignore[assignment]
    scheduler = OfflineScheduler(objects)
    told = [Budget(each) for each in budgets]
    evaluator = Preemptor(scheduler.cache, lambda: 1e9, lambda: (1, told))
    cycle = Cycle(scheduler.cache.parse(preemptor))
    search = scheduler.profiles["default-scheduler"].search
    with pytest.raises(FitError) as caught:
        search.place(cycle)
    first = evaluator.preempt(cycle, caught.value, search)
    again = evaluator.preempt(cycle, caught.value, search)
    if first.victims is None:
        assert again == first  # nothing was changed by looking
    return first


def names(found: Preemption) -> list[str]:
    assert found.victims is not None, found.message
    return [victim.name for victim in found.victims.pods]


def test_pods_of_lower_priority_make_room() -> None:
    cluster = [node("n"), running("low", "n", 1, "2"), running("high", "n", 100, "2")]
    found = preempt(cluster, pod(priority=50, requests={"cpu": "2"}))
    assert names(found) == ["low"]
    assert found.victims is not None
    assert found.victims.node.name == "n"


def test_only_as_many_as_needed_go_and_the_least_important_first() -> None:
    cluster = [node("n"), *(running(f"p{each}", "n", each) for each in range(4))]
    assert names(preempt(cluster, pod(priority=50, requests={"cpu": "2"}))) == ["p1", "p0"]


def test_a_big_victim_is_enough_and_small_ones_are_put_back() -> None:
    cluster = [node("n"), running("big", "n", 5, "3"), running("small", "n", 1, "1")]
    assert names(preempt(cluster, pod(priority=50, requests={"cpu": "3"}))) == ["big"]


def test_equal_priority_is_never_preempted() -> None:
    cluster = [node("n"), running("same", "n", 50, "4")]
    found = preempt(cluster, pod(priority=50, requests={"cpu": "2"}))
    assert found.message == "0/1 nodes are available: 1 No preemption victims found for incoming pod."


def test_nodes_that_can_never_take_the_pod_are_not_helped() -> None:
    cluster = [node("tainted", taints=["t:NoSchedule"]), node("small", allocatable={"cpu": "1"}), node("n")]
    cluster += [running("low", "n", 1, "4"), running("low2", "small", 1, "1")]
    found = preempt(cluster, pod(priority=50, requests={"cpu": "2"}))
    assert names(found) == ["low"]
    found = preempt(cluster, pod(priority=0, requests={"cpu": "2"}))
    assert found.message == (
        "0/3 nodes are available: 1 No preemption victims found for incoming pod, "
        "2 Preemption is not helpful for scheduling."
    )


def test_a_node_that_stays_too_full_tells_why() -> None:
    cluster = [node("n"), running("high", "n", 100, "3"), running("low", "n", 1, "1")]
    found = preempt(cluster, pod(priority=50, requests={"cpu": "2"}))
    assert found.message == "0/1 nodes are available: 1 Insufficient cpu."


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        pytest.param([(5, "4")], [(3, "4")], "b", id="lowest highest priority"),
        pytest.param([(5, "2"), (5, "2")], [(5, "4")], "b", id="least sum of priorities"),
        pytest.param([(5, "3"), (-(2**31), "1")], [(5, "4")], "b", id="fewest victims"),
    ],
)
def test_the_choice_of_the_node(first: list[tuple[int, str]], second: list[tuple[int, str]], chosen: str) -> None:
    cluster = [node("a"), node("b")]
    for name, pods in (("a", first), ("b", second)):
        cluster += [running(f"{name}{place}", name, *each) for place, each in enumerate(pods)]
    found = preempt(cluster, pod(priority=50, requests={"cpu": "4"}))
    assert found.victims is not None
    assert found.victims.node.name == chosen


def test_among_equals_the_node_whose_victims_started_last() -> None:
    cluster = [node("a"), node("b")]
    cluster += [running("old", "a", 1, "4"), running("new", "b", 1, "4", started="2026-02-01T00:00:00Z")]
    assert names(preempt(cluster, pod(priority=50, requests={"cpu": "4"}))) == ["new"]


def test_a_protected_pod_is_spared_when_there_is_another_choice() -> None:
    cluster = [node("a"), node("b")]
    cluster += [running("protected", "a", 1, "4", labels={"app": "db"}), running("free", "b", 9, "4")]
    found = preempt(cluster, pod(priority=50, requests={"cpu": "4"}), [budget({"app": "db"}, 0)])
    assert names(found) == ["free"]


@pytest.mark.parametrize("spared", range(0, 250, 50))
def test_however_many_nodes_are_protected_the_one_that_is_not_is_found(spared: int) -> None:
    """Though the search for candidates would end after a hundred."""
    cluster = [node(f"n{each}") for each in range(250)]
    cluster += [running(f"p{each}", f"n{each}", 1, "4", labels={"app": "db"}) for each in range(250) if each != spared]
    cluster.append(running("free", f"n{spared}", 9, "4"))
    found = preempt(cluster, pod(priority=50, requests={"cpu": "4"}), [budget({"app": "db"}, 0)])
    assert names(found) == ["free"]


def test_a_protected_pod_goes_when_nothing_else_helps() -> None:
    cluster = [node("a"), running("protected", "a", 1, "4", labels={"app": "db"})]
    found = preempt(cluster, pod(priority=50, requests={"cpu": "4"}), [budget({"app": "db"}, 0)])
    assert names(found) == ["protected"]
    assert found.victims is not None
    assert found.victims.violations == 1


def test_protected_pods_are_put_back_first() -> None:
    cluster = [node("a"), running("protected", "a", 1, "2", labels={"app": "db"}), running("other", "a", 9, "2")]
    found = preempt(cluster, pod(priority=50, requests={"cpu": "2"}), [budget({"app": "db"}, 0)])
    assert names(found) == ["other"]


def test_a_budget_allows_as_many_as_it_says() -> None:
    pods = [running(f"p{each}", "a", 1, "1", labels={"app": "db"}) for each in range(4)]
    found = preempt([node("a"), *pods], pod(priority=50, requests={"cpu": "3"}), [budget({"app": "db"}, 2)])
    assert found.victims is not None
    assert found.victims.violations == 1
    assert len(found.victims.pods) == 3


def test_candidates_are_nodes_that_may_help_this_pod() -> None:
    """What was found out about others for an equal Pod, but for its node, is none of its business."""
    scheduler = OfflineScheduler([node("a"), node("b"), running("low-a", "a", 1, "4"), running("low-b", "b", 1, "4")])
    preemptor = Preemptor(scheduler.cache, lambda: 1e9, lambda: (1, []))
    search = scheduler.profiles["default-scheduler"].search
    for name in ("a", "b", "a"):
        pinned = node_affinity({"matchFields": [expression("metadata.name", "In", name)]})
        cycle = Cycle(scheduler.cache.parse(pod(priority=50, requests={"cpu": "4"}, affinity=pinned)))
        with pytest.raises(FitError) as caught:
            search.place(cycle)
        found = preemptor.candidates(cycle, caught.value, search)
        assert not isinstance(found, Preemption)
        assert {host: [victim.name for victim in each.pods] for host, each in found.items()} == {name: [f"low-{name}"]}


def test_anti_affinity_can_be_resolved_too() -> None:
    apart = pod_affinity("podAntiAffinity", pod_term({"app": "x"}, HOST))
    cluster = [node("n"), running("low", "n", 1, "1", labels={"app": "x"})]
    assert names(preempt(cluster, pod(priority=50, affinity=apart))) == ["low"]


def test_never_preempting_and_victims_on_their_way() -> None:
    low = running("low", "n", 1, "4", deleting=True)
    low["status"] = {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]}
    scheduler = OfflineScheduler([node("n"), low])
    plugin = scheduler.profiles["default-scheduler"].plugins["DefaultPreemption"]
    search = scheduler.profiles["default-scheduler"].search

    def tell(obj: Object) -> Nomination:
        cycle = Cycle(scheduler.cache.parse(obj))
        with pytest.raises(FitError) as caught:
            search.place(cycle)
        return plugin.post_filter(cycle, caught.value, search)

    never = tell(pod(priority=50, requests={"cpu": "4"}, preemptionPolicy="Never"))
    assert never == Nomination(None, "preemption: not eligible due to preemptionPolicy=Never.")
    waiting = tell(pod(priority=50, requests={"cpu": "4"}, nominated="n"))
    assert waiting == Nomination(None, "preemption: not eligible due to a terminating pod on the nominated node.")
    assert tell(pod(priority=50, requests={"cpu": "4"})).node == "n"


def test_a_pod_that_leaves_for_other_reasons_does_not_keep_others_waiting() -> None:
    scheduler = OfflineScheduler([node("n"), running("low", "n", 1, "4", deleting=True)])
    cycle = Cycle(scheduler.cache.parse(pod(priority=50, requests={"cpu": "4"}, nominated="n")))
    profile = scheduler.profiles["default-scheduler"]
    with pytest.raises(FitError) as caught:
        profile.search.place(cycle)
    assert profile.plugins["DefaultPreemption"].post_filter(cycle, caught.value, profile.search).node == "n"


@pytest.mark.parametrize("seed", range(40))
def test_victims_are_a_minimal_set(seed: int) -> None:
    """None of them could have stayed, and no protected Pod goes where one node could do without."""
    draw = random.Random(seed)
    cluster: list[Object] = [node(f"n{each}") for each in range(draw.randint(1, 4))]
    pods: list[Object] = []
    for host in [each["metadata"]["name"] for each in cluster]:
        room = 4.0
        while room > 0.4:
            cpu = draw.choice((0.5, 1, 2))
            if cpu <= room:
                labels = {"app": draw.choice("ab")}
                pods.append(running(f"{host}-{len(pods)}", host, draw.randint(0, 9), str(cpu), labels=labels))
                room -= cpu
    budgets = [budget({"app": "a"}, 0)]
    wanted = draw.choice((2.0, 3.0, 4.0))
    found = preempt([*cluster, *pods], pod(priority=6, requests={"cpu": str(wanted)}), budgets)

    def frees(gone: tuple[Object, ...], host: str) -> bool:
        kept = [each for each in pods if each["spec"]["nodeName"] == host and each not in gone]
        return sum(requests(each)["cpu"] for each in kept) + wanted <= number("4")

    def lesser(host: str) -> list[Object]:
        return [each for each in pods if each["spec"]["nodeName"] == host and each["spec"]["priority"] < 6]

    hosts = [each["metadata"]["name"] for each in cluster]
    possible = [host for host in hosts if frees(tuple(lesser(host)), host)]
    if not possible:
        assert found.victims is None
        return
    assert found.victims is not None
    gone = tuple(each for each in pods if each["metadata"]["name"] in names(found))
    host = found.victims.node.name
    assert frees(gone, host)
    assert all(each["spec"]["priority"] < 6 for each in gone)
    assert not any(frees(fewer, host) for fewer in combinations(gone, len(gone) - 1))
    unprotected = {
        host: tuple(each for each in lesser(host) if each["metadata"]["labels"]["app"] != "a") for host in possible
    }
    if any(frees(others, host) for host, others in unprotected.items()):
        assert all(each["metadata"]["labels"]["app"] != "a" for each in gone)

"""Extenders over HTTP: what they are sent, and that their filters, scores, victims and bindings count."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from livecluster import bound, condition, configuration, create, extender, gone, scheduling, until
from schedobjects import node, pod

from fastkube.testing import Cluster

Object = dict[str, Any]

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    plugins = ("ServiceAccount", "TaintNodesByCondition", "Priority")
    with Cluster(nodes=0, scheduler=False, controllers=False, disable_admission_plugins=plugins) as started:
        yield started


async def test_filters_and_scores_by_names(cluster: Cluster) -> None:
    def answer(verb: str, body: Object) -> Any:
        if verb == "filter":
            return {"nodenames": ["n1", "n2"], "failedNodes": {"n3": "no license"}}
        return [{"host": name, "score": 10 if name == "n2" else 0} for name in body["nodenames"]]

    with extender(answer) as (url, asked):
        told = {"urlPrefix": url, "filterVerb": "filter", "prioritizeVerb": "score", "weight": 5}
        config = configuration(extenders=[{**told, "nodeCacheCapable": True}])
        async with scheduling(cluster, config) as (client, _):
            await create(client, node("n1"), node("n2"), node("n3"))
            await create(client, pod("p"))
            assert await bound(client, "p") == "n2"
    assert [verb for verb, _ in asked] == ["filter", "score"]
    assert sorted(asked[0][1]["nodenames"]) == ["n1", "n2", "n3"]
    assert (asked[0][1]["pod"]["metadata"]["name"], asked[0][1]["nodes"]) == ("p", None)
    assert sorted(asked[1][1]["nodenames"]) == ["n1", "n2"]


async def test_whole_nodes_are_sent_to_those_that_cache_none(cluster: Cluster) -> None:
    def answer(_: str, body: Object) -> Any:
        kept = [each for each in body["nodes"]["items"] if each["metadata"]["labels"].get("good")]
        return {"nodes": {"items": kept}, "failedNodes": {}}

    with extender(answer) as (url, _):
        config = configuration(extenders=[{"urlPrefix": url, "filterVerb": "filter"}])
        async with scheduling(cluster, config) as (client, _):
            await create(client, node("n1"), node("n2", {"good": "yes"}), pod("p"))
            assert await bound(client, "p") == "n2"


async def test_refusals_are_told_beside_those_of_plugins(cluster: Cluster) -> None:
    with extender(lambda *_: {"nodenames": [], "failedNodes": {"n1": "no license"}}) as (url, _):
        told = {"urlPrefix": url, "filterVerb": "filter", "nodeCacheCapable": True}
        async with scheduling(cluster, configuration(extenders=[told])) as (client, _):
            await create(client, node("n1"), node("n2", allocatable={"cpu": "1"}), pod("p", requests={"cpu": "2"}))
            message = (await condition(client, "p", "license"))["message"]
            assert message.startswith(
                "0/2 nodes are available: 1 Insufficient cpu, 1 no license. no new claims to deallocate, preem"
            )


@pytest.mark.parametrize("ignorable", [False, True])
async def test_one_that_fails(cluster: Cluster, ignorable: bool) -> None:
    with extender(lambda *_: None) as (url, _):
        told = {"urlPrefix": url, "filterVerb": "filter", "ignorable": ignorable}
        async with scheduling(cluster, configuration(extenders=[told])) as (client, _):
            await create(client, node("n1"), pod("p"))
            if ignorable:
                assert await bound(client, "p") == "n1"
            else:
                found = await condition(client, "p")
                assert found["reason"] == "SchedulerError"
                assert found["message"] == f"failed filter with extender at URL {url}/filter, code 500"


async def test_only_pods_with_its_resources_and_it_binds_them(cluster: Cluster) -> None:
    with extender(lambda *_: {}) as (url, asked):
        managed = [{"name": "example.com/chip", "ignoredByScheduler": True}]
        config = configuration(extenders=[{"urlPrefix": url, "bindVerb": "bind", "managedResources": managed}])
        async with scheduling(cluster, config) as (client, scheduler):
            chips = pod("chips")
            chips["spec"]["containers"][0]["resources"] = {
                "requests": {"example.com/chip": "1"},
                "limits": {"example.com/chip": "1"},
            }
            await create(client, node("n1"), pod("plain"), chips)
            assert await bound(client, "plain") == "n1"

            async def told() -> list[tuple[str, Object]]:
                return asked

            await until(told)
            body = asked[0][1]
            assert (body["podName"], body["podNamespace"], body["node"]) == ("chips", "default", "n1")
            assert len(asked) == 1
            assert scheduler.cache.infos["n1"].pods[body["podUID"]].name == "chips"


async def test_victims_that_it_objects_to_are_spared(cluster: Cluster) -> None:
    def answer(verb: str, body: Object) -> Any:
        if verb == "filter":
            return {"nodenames": body["nodenames"]}
        return {"nodeNameToMetaVictims": {"n2": body["nodeNameToMetaVictims"]["n2"]}}

    with extender(answer) as (url, asked):
        told = {"urlPrefix": url, "filterVerb": "filter", "preemptVerb": "preempt", "nodeCacheCapable": True}
        async with scheduling(cluster, configuration(extenders=[told])) as (client, _):
            await create(client, node("n1"), node("n2"))
            for place, priority in (("n1", 1), ("n2", 5)):
                low = pod(
                    f"low-{place}",
                    requests={"cpu": "4"},
                    priority=priority,
                    nodeSelector={"kubernetes.io/hostname": place},
                )
                await create(client, low)
                assert await bound(client, f"low-{place}") == place
            await create(client, pod("high", requests={"cpu": "4"}, priority=10))

            async def preempted() -> bool:
                return await gone(client, "low-n2") or bool(
                    (await client.get("v1/pods", "low-n2", "default"))["metadata"].get("deletionTimestamp")
                )

            await until(preempted)
            assert not (await client.get("v1/pods", "low-n1", "default"))["metadata"].get("deletionTimestamp")
    sent = next(body for verb, body in asked if verb == "preempt")
    assert sorted(sent["nodeNameToMetaVictims"]) == ["n1", "n2"]


@pytest.mark.parametrize("ignorable", [False, True])
async def test_one_that_does_not_bind(cluster: Cluster, ignorable: bool) -> None:
    """If it may be ignored the bind plugins do it."""
    with extender(lambda *_: {"error": "no ink"}) as (url, asked):
        told = {"urlPrefix": url, "bindVerb": "bind", "ignorable": ignorable}
        async with scheduling(cluster, configuration(extenders=[told])) as (client, _):
            await create(client, node("n1"), pod("p"))
            if ignorable:
                assert await bound(client, "p") == "n1"
            else:
                found = await condition(client, "p")
                assert (found["reason"], found["message"]) == ("SchedulerError", "no ink")
    assert asked[0][0] == "bind"


async def test_only_nodes_that_it_was_asked_about_count(cluster: Cluster) -> None:
    with extender(lambda *_: {"nodenames": ["n1", "n9"]}) as (url, _):
        told = {"urlPrefix": url, "filterVerb": "filter", "nodeCacheCapable": True}
        async with scheduling(cluster, configuration(extenders=[told])) as (client, _):
            await create(client, node("n1"), pod("p"))
            assert (await condition(client, "p"))["message"] == (
                f'extender "{url}" claims a filtered node "n9" which is not found in the input node list'
            )


@pytest.mark.parametrize(
    ("ignorable", "answer", "message"),
    [
        (False, {"n1": {"pods": []}}, 'expected at least one victim pod on node "n1"'),
        (True, {"n1": {"pods": []}}, "no new claims to deallocate, preemption: no candidate node for preemption"),
        (False, {"n9": {"pods": [{"uid": "a"}]}}, 'nodeinfo not found for node name "n9"'),
        (
            False,
            {"n1": {"pods": [{"uid": "a"}]}},
            "extender: {url} claims to preempt pod (UID: &{{a}}) on node: n1, but the pod is not found on that node",
        ),
    ],
)
async def test_victims_that_make_no_sense(cluster: Cluster, ignorable: bool, answer: Object, message: str) -> None:
    with extender(lambda *_: {"nodeNameToMetaVictims": answer}) as (url, _):
        told = {"urlPrefix": url, "preemptVerb": "preempt", "ignorable": ignorable}
        async with scheduling(cluster, configuration(extenders=[told])) as (client, _):
            await create(client, node("n1"), pod("low", requests={"cpu": "4"}))
            assert await bound(client, "low") == "n1"
            await create(client, pod("high", requests={"cpu": "4"}, priority=10))
            told_message = (await condition(client, "high"))["message"]
            assert told_message == f"0/1 nodes are available: 1 Insufficient cpu. {message.format(url=url)}"
            assert not (await client.get("v1/pods", "low", "default"))["metadata"].get("deletionTimestamp")

"""PodGroups: the API that feature gates bring, and gangs that are placed as a whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from livecluster import bound, condition, create, scheduling, until
from schedobjects import node, pod

from fastkube.client import Client
from fastkube.clock import RealClock
from fastkube.controllers.manager import ControllerManager
from fastkube.controllers.options import ControllerManagerOptions
from fastkube.errors import ApiError
from fastkube.scheduler.options import SchedulerOptions
from fastkube.scheduler.scheduler import Scheduler
from fastkube.testing import Cluster

Object = dict[str, Any]

GROUP = "scheduling.k8s.io/v1alpha2"
PODGROUPS, WORKLOADS = f"{GROUP}/podgroups", f"{GROUP}/workloads"
GATES = ("GenericWorkload=true", "GangScheduling=true")
NO_ADMISSION = ("ServiceAccount", "TaintNodesByCondition")
WAITING = (
    "pod group is unschedulable, waiting for minCount pods from a gang to be scheduled, "
    "one or more plugins asked to wait and no plugin rejected pod"
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    gated: Object = {"feature_gates": GATES, "runtime_config": (f"{GROUP}=true",)}
    with Cluster(
        nodes=0, scheduler=False, controllers=False, disable_admission_plugins=NO_ADMISSION, **gated
    ) as cluster:
        yield cluster


def gang(name: str, count: int) -> Object:
    return group(name, {"gang": {"minCount": count}})


def group(name: str, policy: Object, **more: Any) -> Object:
    spec = {"schedulingPolicy": policy, **more}
    return {"apiVersion": GROUP, "kind": "PodGroup", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def workload(*templates: Object, **more: Any) -> Object:
    spec = {"podGroupTemplates": list(templates), **more}
    return {"apiVersion": GROUP, "kind": "Workload", "metadata": {"name": "w", "namespace": "default"}, "spec": spec}


def member(name: str, of: str, cpu: str = "3", **more: Any) -> Object:
    return pod(name, requests={"cpu": cpu}, schedulingGroup={"podGroupName": of}, **more)


async def outcome(client: Client, name: str, *expected: str) -> None:
    """Until a PodGroup's condition has this status, reason and message."""

    async def told() -> Any:
        status = (await client.get(PODGROUPS, name, "default")).get("status") or {}
        found = (each for each in status.get("conditions") or () if each["type"] == "PodGroupScheduled")
        return any((each["status"], each["reason"], each["message"]) == expected for each in found)

    await until(told)


# -- placing -----------------------------------------------------------------------------------------------------------


async def test_a_gang_waits_until_enough_of_it_exists_and_fits(cluster: Cluster) -> None:
    async with scheduling(cluster, feature_gates=GATES) as (client, scheduler):
        await client.create(PODGROUPS, gang("three", 3), "default")
        await create(client, node("n1"), node("n2"), member("a", "three"), member("b", "three"))
        await until(lambda: _counts(scheduler, "gated", 2))
        await create(client, member("c", "three"))
        assert (await condition(client, "a"))["message"] in (WAITING, f"0/2 nodes are available: {NO_CPU}")
        await outcome(client, "three", "False", "Unschedulable", "pod group is unschedulable")
        pods = (await client.list("v1/pods", "default"))["items"]
        assert not any(each["spec"].get("nodeName") for each in pods)
        assert not scheduler.cache.assumed
        await create(client, node("n3"))
        assert {await bound(client, name) for name in "abc"} == {"n1", "n2", "n3"}
        await outcome(client, "three", "True", "Scheduled", "")
        text = scheduler.metrics.text()
        assert 'scheduler_podgroup_schedule_attempts_total{profile="default-scheduler",result="scheduled"} 1' in text


NO_CPU = (
    "2 Insufficient cpu. no new claims to deallocate, preemption: 0/2 nodes are available: "
    "2 No preemption victims found for incoming pod."
)


async def _counts(scheduler: Scheduler, queue: str, number: int) -> bool:
    return scheduler.queue.counts()[queue] == number


async def test_more_than_the_gang_needs_may_stay_behind(cluster: Cluster) -> None:
    async with scheduling(cluster, feature_gates=GATES) as (client, _):
        await client.create(PODGROUPS, gang("two", 2), "default")
        await create(client, node("n1"), node("n2"), *(member(f"m{each}", "two") for each in range(3)))

        async def placed() -> bool:
            pods = (await client.list("v1/pods", "default"))["items"]
            return sum(bool(each["spec"].get("nodeName")) for each in pods) == 2

        await until(placed)
        await outcome(client, "two", "True", "Scheduled", "")


async def test_pods_wait_for_their_group_and_basic_groups_for_nobody(cluster: Cluster) -> None:
    async with scheduling(cluster, feature_gates=GATES) as (client, scheduler):
        await create(client, node("n1"), member("alone", "late", "1"))
        await until(lambda: _counts(scheduler, "gated", 1))
        await client.create(PODGROUPS, group("late", {"basic": {}}), "default")
        assert await bound(client, "alone") == "n1"


async def test_a_group_goes_when_its_last_pod_has_ended(cluster: Cluster) -> None:
    options = ControllerManagerOptions(leader_elect=False, controllers=("podgroup-protection-controller",))
    async with scheduling(cluster, feature_gates=GATES) as (client, _):
        manager = ControllerManager(client, RealClock(), options)
        await manager.start()
        try:
            made = await client.create(PODGROUPS, group("held", {"basic": {}}), "default")
            assert made["metadata"]["finalizers"] == ["scheduling.k8s.io/podgroup-protection"]
            await create(client, node("n1"), member("one", "held", "1"), member("two", "held", "1"))
            for name in ("one", "two"):
                await bound(client, name)
            await client.delete(PODGROUPS, "held", "default")
            await client.delete("v1/pods", "one", "default", grace_period_s=0)
            left = await client.get(PODGROUPS, "held", "default")
            assert left["metadata"]["deletionTimestamp"]
            ended = {"status": {"phase": "Succeeded"}}
            await client.patch("v1/pods", "two", ended, "default", kind="strategic", subresource="status")
            await until(lambda: _is_gone(client, "held"))
        finally:
            await manager.stop()


async def _is_gone(client: Client, name: str) -> bool:
    try:
        await client.get(PODGROUPS, name, "default")
    except ApiError as error:
        return error.code == 404
    return False


async def test_pods_of_one_group_have_one_scheduler(cluster: Cluster) -> None:
    async with scheduling(cluster, feature_gates=GATES) as (client, _):
        await client.create(PODGROUPS, gang("alien", 1), "default")
        await create(client, node("n1"), member("mine", "alien", "1"), member("x", "alien", "1", schedulerName="other"))
        assert await bound(client, "mine") == "n1"


async def test_a_gang_preempts_and_is_placed_when_the_victims_are_gone(cluster: Cluster) -> None:
    async with scheduling(cluster, feature_gates=GATES) as (client, _):
        await client.create(PODGROUPS, gang("urgent", 2), "default")
        await create(client, node("n1"), node("n2"), pod("low", requests={"cpu": "3"}, terminationGracePeriodSeconds=0))
        taken = await bound(client, "low")
        classes = "scheduling.k8s.io/v1/priorityclasses"
        urgent = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "urgent"}}
        await client.create(classes, {**urgent, "value": 1000})
        await create(client, *(member(name, "urgent", priorityClassName="urgent") for name in ("u1", "u2")))
        assert {await bound(client, name) for name in ("u1", "u2")} == {"n1", "n2"}
        assert taken in ("n1", "n2")
        await client.delete(classes, "urgent")


# -- gates -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("GangScheduling=true", "GangScheduling is enabled, but depends on features that are disabled: "
         "[GenericWorkload]"),
        ("GenericWorkload", "missing bool value for GenericWorkload"),
        ("GenericWorkload=maybe", 'invalid value of GenericWorkload=maybe, err: strconv.ParseBool: parsing "maybe": '
         "invalid syntax"),
        ("NoSuch=true", "feature gate NoSuch is not supported: GenericWorkload, GangScheduling are"),
    ],
)  # fmt: skip
def test_gates_that_cannot_be(told: str, message: str) -> None:
    client = Client("http://127.0.0.1:1")
    with pytest.raises(ValueError) as caught:
        Scheduler(client, None, SchedulerOptions(feature_gates=(told,)))  # type: ignore[arg-type]
    assert str(caught.value) == message


async def test_without_gates_there_are_no_groups() -> None:
    with Cluster(nodes=0, scheduler=False, controllers=False, disable_admission_plugins=NO_ADMISSION) as plain:
        async with plain.client() as client:
            with pytest.raises(ApiError) as caught:
                await client.list(PODGROUPS, "default")
            assert caught.value.code == 404
            told = await client.create("v1/pods", {**member("p", "any"), "metadata": {"name": "p"}}, "default")
            assert "schedulingGroup" not in told["spec"]


# -- the API -----------------------------------------------------------------------------------------------------------

SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
BASIC: Object = {"schedulingPolicy": {"basic": {}}}
REFUSED = [
    pytest.param(workload(), ["spec.podGroupTemplates: Required value"], id="no templates"),
    pytest.param(
        workload(*({"name": f"t{each}", **BASIC} for each in range(9))),
        ["spec.podGroupTemplates: Too many: 9: must have at most 8 items"],
        id="many templates",
    ),
    pytest.param(
        workload(
            {"name": "A_", "schedulingPolicy": {"gang": {"minCount": 0}}},
            {"name": "b", "schedulingPolicy": {}},
            {"name": "", "schedulingPolicy": {"gang": {"minCount": 1}, "basic": {}}},
            controllerRef={"apiGroup": "Bad_", "kind": "", "name": "%"},
        ),
        [
            f'spec.controllerRef.apiGroup: Invalid value: "Bad_": {SUBDOMAIN}',
            "spec.controllerRef.kind: Required value",
            "spec.controllerRef.name: Invalid value: \"%\": may not contain '%'",
            f'spec.podGroupTemplates[0].name: Invalid value: "A_": {LABEL}',
            "spec.podGroupTemplates[0].schedulingPolicy.gang.minCount: Required value",
            'spec.podGroupTemplates[1].schedulingPolicy: Invalid value: "": must specify one of: `basic`, `gang`',
            "spec.podGroupTemplates[2].name: Required value",
            'spec.podGroupTemplates[2].schedulingPolicy: Invalid value: "{basic, gang}": '
            "must specify exactly one of: `basic`, `gang`",
        ],
        id="bad fields",
    ),
    pytest.param(
        workload({"name": "b", **BASIC}, {"name": "b", **BASIC}),
        [
            "spec.podGroupTemplates[1]: Duplicate value: "
            '{"name":"b","schedulingPolicy":{"basic":{}},"schedulingConstraints":null}'
        ],
        id="the same name",
    ),
    pytest.param(
        group("pg", {"gang": {"minCount": -1}}, podGroupTemplateRef={"workload": {"workloadName": "A_",
                                                                                "podGroupTemplateName": ""}}),
        [
            f'spec.podGroupTemplateRef.workload.workloadName: Invalid value: "A_": {SUBDOMAIN}',
            "spec.podGroupTemplateRef.workload.podGroupTemplateName: Required value",
            "spec.schedulingPolicy.gang.minCount: Invalid value: -1: must be greater than or equal to 1",
        ],
        id="a bad reference",
    ),
    pytest.param(
        group("pg", {}, podGroupTemplateRef={}),
        [
            'spec.podGroupTemplateRef: Invalid value: "": must specify one of: `workload`',
            'spec.schedulingPolicy: Invalid value: "": must specify one of: `basic`, `gang`',
        ],
        id="empty unions",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("obj", "faults"), REFUSED)
async def test_what_is_refused(cluster: Cluster, obj: Object, faults: list[str]) -> None:
    async with cluster.client() as client:
        with pytest.raises(ApiError) as caught:
            await client.create(WORKLOADS if obj["kind"] == "Workload" else PODGROUPS, obj, "default")
    told = [f"{each['field']}: {each['message']}" for each in caught.value.to_status()["details"]["causes"]]
    assert told == faults


async def test_a_group_is_made_of_a_template_that_exists_and_stays_as_it_is(cluster: Cluster) -> None:
    reference = {"workload": {"workloadName": "w", "podGroupTemplateName": "a"}}
    other = {"workload": {"workloadName": "w", "podGroupTemplateName": "b"}}
    async with cluster.client(codec="json") as client:
        with pytest.raises(ApiError, match='is forbidden: PodGroup rejected: Workload "w" not found'):
            await client.create(PODGROUPS, group("g", {"basic": {}}, podGroupTemplateRef=reference), "default")
        await client.create(WORKLOADS, workload({"name": "a", **BASIC, "priority": 5}), "default")
        kept = await client.get(WORKLOADS, "w", "default")
        assert kept["spec"]["podGroupTemplates"] == [{"name": "a", **BASIC, "schedulingConstraints": None}]
        with pytest.raises(ApiError, match='PodGroup rejected: PodGroupTemplate "b" not found in Workload "w"'):
            await client.create(PODGROUPS, group("g", {"basic": {}}, podGroupTemplateRef=other), "default")
        made = group("g", {"basic": {}}, podGroupTemplateRef=reference, disruptionMode="PodGroup", priority=7)
        told = await client.create(PODGROUPS, made, "default")
        assert told["spec"] == {"podGroupTemplateRef": reference, **BASIC, "disruptionMode": "Pod"}
        assert told["status"] == {}
        with pytest.raises(ApiError, match=r"spec\.schedulingPolicy: Invalid value: null: field is immutable"):
            await client.patch(PODGROUPS, "g", {"spec": {"schedulingPolicy": {"gang": {"minCount": 2}}}}, "default")
        with pytest.raises(ApiError, match=r"spec\.podGroupTemplates: Invalid value: null: field is immutable"):
            body = {"spec": {"podGroupTemplates": [{"name": "b", **BASIC}]}}
            await client.patch(WORKLOADS, "w", body, "default")
        await client.delete(PODGROUPS, "g", "default")
        await client.delete(WORKLOADS, "w", "default")


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({}, "spec.schedulingGroup.podGroupName: Invalid value: null: must specify one of: `podGroupName`"),
        ({"podGroupName": "A_"}, f'spec.schedulingGroup.podGroupName: Invalid value: "A_": {SUBDOMAIN}'),
    ],
)
async def test_groups_that_pods_cannot_name(cluster: Cluster, group: Object, message: str) -> None:
    async with cluster.client() as client:
        with pytest.raises(ApiError) as caught:
            obj = pod("p", schedulingGroup=group)
            await client.create("v1/pods", {**obj, "metadata": {"name": "p"}}, "default")
    assert message in caught.value.message

"""What a kubelet does not admit: Pods that were bound to a node on which they cannot run."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from fastkube.api import quantity
from fastkube.client import Client
from fastkube.testing import Cluster

Object = dict[str, Any]

NAMESPACE = "default"
ROOM = {"cpu": "2", "memory": "1Gi", "ephemeral-storage": "1Gi", "pods": "10", "example.com/gpu": "1"}
CRITICAL = "system-node-critical"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A fleet alone: Pods name their nodes."""
    plugins = ("ServiceAccount", "TaintNodesByCondition")
    with Cluster(nodes=1, scheduler=False, controllers=False, disable_admission_plugins=plugins) as started:
        yield started


def node(name: str, room: Object = ROOM, taints: list[Object] | None = None, **status: Any) -> Object:
    labels = {"fastkube.io/simulated": "true", "disk": "ssd"}
    return {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": {"taints": taints},
        "status": {"allocatable": room, "capacity": room, **status},
    }  # fmt: skip


def pod(name: str, on: str, requests: Object | None = None, labels: Object | None = None, **spec: Any) -> Object:
    resources = {"requests": requests or {}}
    if requests and any("/" in each for each in requests):
        resources["limits"] = {each: value for each, value in requests.items() if "/" in each}
    container = {"name": "a", "image": "a:1", "resources": resources, **spec.pop("container", {})}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            **({"nodeName": on} if on else {}), "containers": [container], "terminationGracePeriodSeconds": 0, **spec,
        },
    }  # fmt: skip


async def eventually(told: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(15):
        while not (found := await told()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        return found


async def settled(client: Client, name: str) -> Object:
    """The status of a Pod that runs or has failed."""

    async def phase() -> Object | None:
        found: Object = (await client.get("v1/pods", name, NAMESPACE))["status"]
        return found if found.get("phase") in ("Running", "Failed") else None

    answer: Object = await eventually(phase)
    return answer


def affinity(operator: str, *values: str) -> Object:
    expression = {"key": "disk", "operator": operator, "values": list(values)}
    required = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def taint(effect: str) -> list[Object]:
    return [{"key": "k", "value": "v", "effect": effect}]


def hosting(port: int, ip: str = "") -> Object:
    return {"ports": [{"containerPort": port, "hostPort": port, **({"hostIP": ip} if ip else {})}]}


SHORT = "Node didn't have enough resource: "
AFFINITY = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
PORTS = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
TAINTS = "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"
TABLE: dict[str, tuple[Object, Object, Object | None, str, str]] = {
    # what: (the node's own, the Pod, a Pod that is there before, reason, message); no reason: it runs
    "it fits": ({}, {"requests": {"cpu": "2", "memory": "1Gi"}}, None, "", ""),
    "cpu": ({}, {"requests": {"cpu": "1500m"}}, {"requests": {"cpu": "600m"}},
            "OutOfcpu", SHORT + "cpu, requested: 1500, used: 600, capacity: 2000"),
    "memory": ({}, {"requests": {"memory": "1G"}}, {"requests": {"memory": "512Mi"}},
               "OutOfmemory", SHORT + "memory, requested: 1000000000, used: 536870912, capacity: 1073741824"),
    "storage": ({}, {"requests": {"ephemeral-storage": "2Gi"}}, None, "OutOfephemeral-storage",
                SHORT + "ephemeral-storage, requested: 2147483648, used: 0, capacity: 1073741824"),
    "pods": ({"room": {**ROOM, "pods": "1"}}, {}, {}, "OutOfpods", SHORT + "pods, requested: 1, used: 1, capacity: 1"),
    "the first is told": ({"room": {**ROOM, "pods": "1"}}, {"requests": {"cpu": "3"}}, {},
                          "OutOfpods", SHORT + "pods, requested: 1, used: 1, capacity: 1"),
    "a device": ({}, {"requests": {"example.com/gpu": "1"}}, {"requests": {"example.com/gpu": "1"}},
                 "OutOfexample.com/gpu", SHORT + "example.com/gpu, requested: 1, used: 1, capacity: 1"),
    "a resource of the cluster": ({}, {"requests": {"example.com/licence": "1"}}, None, "", ""),
    "a sidecar counts": ({}, {"requests": {"cpu": "1"}, "initContainers": [
        {"name": "s", "image": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1500m"}}}]}, None,
        "OutOfcpu", SHORT + "cpu, requested: 2500, used: 0, capacity: 2000"),
    "selector": ({}, {"nodeSelector": {"disk": "hdd"}}, None, "NodeAffinity", AFFINITY),
    "affinity": ({}, {"affinity": affinity("NotIn", "ssd")}, None, "NodeAffinity", AFFINITY),
    "affinity that matches": ({}, {"affinity": affinity("In", "ssd")}, None, "", ""),
    "port": ({}, {"container": hosting(80)}, {"container": hosting(80, "127.0.0.1")}, "NodePorts", PORTS),
    "port of another address": ({}, {"container": hosting(80, "127.0.0.2")},
                                {"container": hosting(80, "127.0.0.1")}, "", ""),
    "taint": ({"taints": taint("NoExecute")}, {}, None, "TaintToleration", TAINTS),
    "a taint that keeps others from coming": ({"taints": taint("NoSchedule")}, {}, None, "", ""),
    "tolerated": ({"taints": taint("NoExecute")}, {"tolerations": [{"operator": "Exists"}]}, None, "", ""),
    "another system's label": ({}, {"labels": {"kubernetes.io/os": "windows"}}, None,
                               "PodOSSelectorNodeLabelDoesNotMatch",
                               "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"),
    "another system": ({}, {"os": {"name": "windows"}}, None, "PodOSNotSupported",
                       "Failed to admit pod as the OS field doesn't match node OS"),
    "groups": ({}, {"securityContext": {"supplementalGroupsPolicy": "Strict"}}, None,
               "SupplementalGroupsPolicyNotSupported", "SupplementalGroupsPolicy=Strict is not supported in this node"),
    "groups that are supported": ({"features": {"supplementalGroupsPolicy": True}},
                                  {"securityContext": {"supplementalGroupsPolicy": "Strict"}}, None, "", ""),
    "a node that tells nothing": ({"room": {}}, {"requests": {"cpu": "100"}}, None, "", ""),
}  # fmt: skip


@pytest.mark.parametrize("what", TABLE)
async def test_what_is_admitted(cluster: Cluster, what: str) -> None:
    about, wanted, before, reason, message = TABLE[what]
    on = f"n{list(TABLE).index(what)}"
    async with cluster.client() as client:
        await client.create("v1/nodes", node(on, **about))
        if before is not None:
            await client.create("v1/pods", pod(f"{on}-before", on, **before), NAMESPACE)
            assert (await settled(client, f"{on}-before"))["phase"] == "Running"
        await client.create("v1/pods", pod(f"{on}-p", on, **wanted), NAMESPACE)
        status = await settled(client, f"{on}-p")
        if not reason:
            assert status["phase"] == "Running"
            return
        told = {name: status.get(name) for name in ("phase", "reason", "message")}
        assert told == {"phase": "Failed", "reason": reason, "message": f"Pod was rejected: {message}"}
        assert "startTime" in status
        assert "containerStatuses" not in status
        selector = f"involvedObject.name={on}-p"
        events = (await client.list("v1/events", NAMESPACE, field_selector=selector))["items"]
        assert [(each["type"], each["reason"], each["message"]) for each in events] == [("Warning", reason, message)]


async def test_what_ends_or_goes_makes_room(cluster: Cluster) -> None:
    async with cluster.client() as client:
        await client.create("v1/nodes", node("room"))
        for name in ("first", "second"):
            await client.create("v1/pods", pod(name, "room", {"cpu": "1"}), NAMESPACE)
            assert (await settled(client, name))["phase"] == "Running"
        await client.delete("v1/pods", "first", NAMESPACE)
        ended = {"status": {"phase": "Succeeded"}}
        await client.patch("v1/pods", "second", ended, NAMESPACE, kind="strategic", subresource="status")
        await client.create("v1/pods", pod("third", "room", {"cpu": "2"}), NAMESPACE)
        assert (await settled(client, "third"))["phase"] == "Running"
        await client.create("v1/pods", pod("fourth", "room", {"cpu": "1m"}), NAMESPACE)
        assert (await settled(client, "fourth"))["reason"] == "OutOfcpu"


async def test_a_pod_is_resized_in_place_when_its_node_has_room(cluster: Cluster) -> None:
    def asking(cpu: str) -> Object:
        return {"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]}}

    async with cluster.client() as client:
        await client.create("v1/nodes", node("resizes"))
        await client.create("v1/pods", pod("grows", "resizes", {"cpu": "500m"}), NAMESPACE)
        await client.create("v1/pods", pod("goes", "resizes", {"cpu": "1"}), NAMESPACE)
        for name in ("grows", "goes"):
            await settled(client, name)

        async def given(cpu: str) -> Object | None:
            status: Object = (await client.get("v1/pods", "grows", NAMESPACE))["status"]
            [container] = status["containerStatuses"]
            return status if container.get("allocatedResources") == {"cpu": cpu} else None

        async def pending() -> Object | None:
            conditions = (await client.get("v1/pods", "grows", NAMESPACE))["status"]["conditions"]
            return next((each for each in conditions if each["type"] == "PodResizePending"), None)

        await client.patch("v1/pods", "grows", asking("700m"), NAMESPACE, kind="strategic", subresource="resize")
        status = await eventually(lambda: given("700m"))
        assert status["containerStatuses"][0]["resources"] == {"requests": {"cpu": "700m"}}
        assert (status["observedGeneration"], status["containerStatuses"][0]["restartCount"]) == (2, 0)
        await client.patch("v1/pods", "grows", asking("1500m"), NAMESPACE, kind="strategic", subresource="resize")
        told = await eventually(pending)
        assert (told["reason"], told["message"], told["observedGeneration"]) == (
            "Deferred", SHORT + "cpu, requested: 1500, used: 1000, capacity: 2000", 3)  # fmt: skip
        assert await given("700m")
        await client.delete("v1/pods", "goes", NAMESPACE)
        await eventually(lambda: given("1500m"))
        assert await pending() is None
        late = await settled_anew(client, pod("late", "resizes", {"cpu": "1"}))
        assert late["reason"] == "OutOfcpu"

        async def reasons() -> bool:
            events = (await client.list("v1/events", NAMESPACE))["items"]
            found = {each["reason"]: each["message"] for each in events if each["involvedObject"]["name"] == "grows"}
            return found.keys() >= {"ResizeStarted", "ResizeCompleted", "ResizeDeferred"} and found[
                "ResizeDeferred"
            ] == (
                'Pod resize Deferred: {"containers":[{"name":"a","resources":{"requests":{"cpu":"1500m"}}}],'
                f'"generation":3,"error":"{told["message"]}"}}'
            )

        await eventually(reasons)


async def settled_anew(client: Client, obj: Object) -> Object:
    await client.create("v1/pods", obj, NAMESPACE)
    return await settled(client, obj["metadata"]["name"])


async def test_a_node_that_has_grown_is_looked_at_anew(cluster: Cluster) -> None:
    """The copy of the node may be behind: nothing fails before the server has been asked."""
    async with cluster.client() as client:
        await client.create("v1/nodes", node("grows"))
        for size in range(3, 13):
            grown = {"status": {"allocatable": {"cpu": str(size)}}}
            await client.patch("v1/nodes", "grows", grown, kind="strategic", subresource="status")
            await client.create("v1/pods", pod(f"grown-{size}", "grows", {"cpu": str(size)}), NAMESPACE)
            assert (await settled(client, f"grown-{size}"))["phase"] == "Running"
            await client.delete("v1/pods", f"grown-{size}", NAMESPACE)


LIMITS = {"limits": {"cpu": "1", "memory": "10Mi"}, "requests": {"cpu": "1", "memory": "10Mi"}}
PREEMPTION: dict[str, tuple[Object, list[str]]] = {
    "the nearest of the burstable ones": ({"cpu": "300m"}, ["burstable-300m"]),
    "two together": ({"cpu": "600m"}, ["burstable-300m", "burstable-500m"]),
    "a guaranteed one where burstable ones are not enough": ({"cpu": "900m"}, ["guaranteed"]),
    "for want of a place": ({}, []),
}


@pytest.mark.parametrize("what", PREEMPTION)
async def test_a_critical_pod_gets_room(cluster: Cluster, what: str) -> None:
    wanted, expected = PREEMPTION[what]
    on = f"critical{list(PREEMPTION).index(what)}"
    async with cluster.client() as client:
        await client.create("v1/nodes", node(on))
        await client.create("v1/pods", pod(f"{on}-guaranteed", on, container={"resources": LIMITS}), NAMESPACE)
        for size in ("300m", "500m"):
            await client.create("v1/pods", pod(f"{on}-burstable-{size}", on, {"cpu": size}), NAMESPACE)
        await client.create("v1/pods", pod(f"{on}-other", on, {"cpu": "200m"}, priorityClassName=CRITICAL), NAMESPACE)
        for name in ("guaranteed", "burstable-300m", "burstable-500m", "other"):
            assert (await settled(client, f"{on}-{name}"))["phase"] == "Running"
        await client.create("v1/pods", pod(f"{on}-p", on, wanted, priorityClassName=CRITICAL), NAMESPACE)
        assert (await settled(client, f"{on}-p"))["phase"] == "Running"
        pods = [each for each in (await client.list("v1/pods", NAMESPACE))["items"] if each["spec"]["nodeName"] == on]
        gone = {each["metadata"]["name"]: each["status"] for each in pods if each["status"]["phase"] == "Failed"}
        assert sorted(gone) == [f"{on}-{name}" for name in expected]
        for status in gone.values():
            assert (status["reason"], status["message"]) == ("Preempting", "Preempted in order to admit critical pod")
            disrupted = [each for each in status["conditions"] if each["type"] == "DisruptionTarget"]
            assert [each["reason"] for each in disrupted] == ["TerminationByKubelet"]


async def test_a_critical_pod_that_is_larger_than_all_that_could_go_fails(cluster: Cluster) -> None:
    async with cluster.client() as client:
        await client.create("v1/nodes", node("narrow"))
        await client.create("v1/pods", pod("narrow-a", "narrow", {"cpu": "500m"}), NAMESPACE)
        assert (await settled(client, "narrow-a"))["phase"] == "Running"
        await client.create("v1/pods", pod("narrow-p", "narrow", {"cpu": "3"}, priorityClassName=CRITICAL), NAMESPACE)
        status = await settled(client, "narrow-p")
        assert status["reason"] == "UnexpectedAdmissionError"
        assert status["message"] == (
            "Pod was rejected: Unexpected error while attempting to recover from admission failure: preemption: "
            "error finding a set of pods to preempt: "
            "no set of running pods found to reclaim resources: [(res: cpu, q: 1000), ]"
        )
        assert (await settled(client, "narrow-a"))["phase"] == "Running"


# ---------------------------------------------------------------- two schedulers at once


def requested(pod: Object) -> int:
    return quantity.milli(pod["spec"]["containers"][0]["resources"]["requests"]["cpu"])


async def follow(client: Client, most: int) -> Counter[str]:
    """Watch until so many Pods run at a time; what runs on a node is never more than it has. Gives the reasons of
    failures."""
    reasons: Counter[str] = Counter()
    taken: dict[str, dict[str, int]] = {}
    listed = await client.list("v1/pods", NAMESPACE, limit=1)
    watch = client.watch("v1/pods", NAMESPACE, resource_version=listed["metadata"]["resourceVersion"], timeout_s=60)
    while batch := await watch.batch():
        for kind, obj in batch:
            name, phase = obj["metadata"]["name"], (obj.get("status") or {}).get("phase")
            if not name.startswith("fight-") or not (obj.get("spec") or {}).get("nodeName"):
                continue
            on = taken.setdefault(obj["spec"]["nodeName"], {})
            on.pop(name, None)
            if kind != "DELETED" and phase == "Running":
                on[name] = requested(obj)
                assert sum(on.values()) <= 2000
            if phase == "Failed":
                reasons[obj["status"]["reason"]] += 1
        if sum(map(len, taken.values())) == most:
            break
    return reasons


async def test_two_schedulers_never_overfill_a_node(cluster: Cluster) -> None:
    """Each is the only one it knows of. What one of them places too much fails at the node."""
    words = ("-m", "fastkube", "scheduler", "--kubeconfig", str(cluster.kubeconfig), "--leader-elect=false")
    async with cluster.client() as client, cluster.client() as watching:
        for name in [each["metadata"]["name"] for each in (await client.list("v1/nodes"))["items"]]:
            await client.delete("v1/nodes", name)
        for number in range(10):
            await client.create("v1/nodes", node(f"fight-{number}"))
        pipe = asyncio.subprocess.PIPE
        processes = [await asyncio.create_subprocess_exec(sys.executable, *words, stdout=pipe) for _ in range(2)]
        following = asyncio.create_task(follow(watching, 20))
        try:
            async with asyncio.timeout(60):
                for process in processes:
                    assert process.stdout is not None
                    assert b"is ready" in await process.stdout.readline()
                waiting = [pod(f"fight-{number}", "", {"cpu": "1"}) for number in range(80)]
                await asyncio.gather(*(client.create("v1/pods", each, NAMESPACE) for each in waiting))
                reasons = await following
        finally:
            for process in processes:
                process.terminate()
                await process.communicate()
        assert set(reasons) <= {"OutOfcpu"}

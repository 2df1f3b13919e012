"""Extended resources that device classes stand for, and devices that become ready only after binding has begun."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from deviceobjects import DRIVER, GROUP, allocated, claim, device, device_class, piece, prepare, user
from livecluster import bound, condition, configuration, create, gone, scheduling, until
from schedobjects import node, pod

from fastkube.client import Client
from fastkube.scheduler.dra.extended import ExtendedClasses, claim_for
from fastkube.scheduler.offline import ObjectLister, OfflineScheduler
from fastkube.testing import Cluster

Object = dict[str, Any]

GPU = "example.com/gpu"
IMPLICIT = "deviceclass.resource.kubernetes.io/gpu"
CLASS = device_class(extendedResourceName=GPU)


def asking(count: int = 1, resource: str = GPU, **more: Any) -> Object:
    obj = pod(requests={resource: str(count)}, **more)
    obj["spec"]["containers"][0]["resources"]["limits"] = {resource: str(count)}
    return obj


def devices(name: str, count: int) -> Object:
    return piece(name, *(device(f"d{number}") for number in range(count)))


WHERE = [
    ("by its devices", [CLASS, devices("n1", 1)], asking(), "n1", ""),
    ("by the name of the class", [CLASS, devices("n1", 1)], asking(resource=IMPLICIT), "n1", ""),
    ("too few devices", [CLASS, devices("n1", 1)], asking(2), "", "2 cannot allocate all claims"),
    ("a node that has it itself", [CLASS, node("n3", allocatable={GPU: "2"})], asking(2), "n3", ""),
    (
        "a node that has too little of it itself",
        [CLASS, devices("n3", 2), node("n3", allocatable={GPU: "1"})],
        asking(2),
        "",
        f"1 Insufficient {GPU}, 2 cannot allocate all claims",
    ),
    ("no class", [device_class(), devices("n1", 1)], asking(), "", f"2 Insufficient {GPU}"),
    (
        "beside a resource without a class",
        [CLASS, devices("n1", 1), devices("n3", 1), node("n3", allocatable={"example.com/nic": "1"})],
        pod(requests={GPU: "1", "example.com/nic": "1"}),
        "n3",
        "",
    ),
    (
        "with a claim of its own",
        [CLASS, devices("n1", 1), devices("n2", 2), claim()],
        user(requests={GPU: "1"}),
        "n2",
        "",
    ),
    (
        "what another claim has",
        [CLASS, devices("n1", 1), claim(allocation=allocated("d0"))],
        asking(),
        "",
        "2 cannot allocate all claims",
    ),
]


@pytest.mark.parametrize(("objects", "obj", "name", "message"), [x[1:] for x in WHERE], ids=[x[0] for x in WHERE])
def test_where_a_pod_with_an_extended_resource_goes(
    objects: list[Object], obj: Object, name: str, message: str
) -> None:
    scheduler = OfflineScheduler([node("n1"), node("n2"), *objects])
    decision = scheduler.decide(scheduler.cache.parse(obj))
    count = scheduler.cache.index.all.bit_count()
    assert (decision.node, decision.message) == (name, message and f"0/{count} nodes are available: {message}.")


def test_devices_for_extended_resources_are_used_up() -> None:
    scheduler = OfflineScheduler([node("n1"), node("n2"), CLASS, devices("n1", 2), devices("n2", 1)])
    for number in range(4):
        scheduler.add(asking(name=f"p{number}"))
    placed = [decision.node for decision in scheduler.run()]
    assert sorted(placed) == ["", "n1", "n1", "n2"] and placed[-1] == ""


def container(name: str, count: int, *others: str, **more: Any) -> Object:
    requests = {GPU: str(count), **dict.fromkeys(others, "1")}
    return {"name": name, "image": "i", "resources": {"requests": requests}, **more}


def sidecar(name: str, count: int) -> Object:
    return container(name, count, restartPolicy="Always")


MAPPED = [
    ("one container", [], [container("c", 2)], [("container-0-request-0", 2)], [("c", 0)]),
    ("by the place among its resources", [], [container("c", 2, "cpu")], [("container-0-request-1", 2)], [("c", 0)]),
    (
        "two containers",
        [],
        [container("a", 1), container("b", 2)],
        [("container-0-request-0", 1), ("container-1-request-0", 2)],
        [("a", 0), ("b", 1)],
    ),
    (
        "a container that ends first uses what the other will have",
        [container("i", 1)],
        [container("c", 2)],
        [("container-1-request-0", 2)],
        [("c", 0), ("i", 0)],
    ),
    (
        "and more",
        [container("i", 3)],
        [container("c", 2)],
        [("container-0-request-0", 1), ("container-1-request-0", 2)],
        [("c", 1), ("i", 1), ("i", 0)],
    ),
    (
        "those that end share the greatest",
        [container("i", 2), container("j", 3)],
        [container("c", 1)],
        [("container-1-request-0", 2), ("container-2-request-0", 1)],
        [("c", 1), ("i", 1), ("i", 0), ("j", 1), ("j", 0)],
    ),
    (
        "a sidecar keeps its own",
        [container("i", 1), sidecar("s", 1)],
        [container("c", 1)],
        [("container-1-request-0", 1), ("container-2-request-0", 1)],
        [("s", 0), ("c", 1), ("i", 0)],
    ),
    ("none", [], [{"name": "c", "image": "i"}], [], []),
]


@pytest.mark.parametrize(
    ("first", "containers", "requests", "mapped"), [x[1:] for x in MAPPED], ids=[x[0] for x in MAPPED]
)
def test_requests_for_containers(
    first: list[Object], containers: list[Object], requests: list[tuple[str, int]], mapped: list[tuple[str, int]]
) -> None:
    lister = ObjectLister()
    classes = ExtendedClasses(lambda resource: lister, lambda: None)
    lister.add(CLASS)
    obj = pod()
    obj["spec"] |= {"containers": containers, "initContainers": first}
    variant = claim_for(OfflineScheduler().cache.parse(obj), [GPU], classes)
    told = variant.obj["spec"]["devices"]["requests"]
    assert [(each["name"], each["exactly"]["count"]) for each in told] == requests
    expected = [{"containerName": name, "resourceName": GPU, "requestName": requests[place][0]}
                for name, place in mapped]  # fmt: skip
    assert variant.mappings == expected


def test_of_classes_for_the_same_resource_the_newest_counts() -> None:
    lister = ObjectLister()
    changes: list[int] = []
    classes = ExtendedClasses(lambda resource: lister, lambda: changes.append(1))
    for name, created in (("b", "2026-01-01T00:00:00Z"), ("c", "2026-01-02T00:00:00Z"), ("a", "2026-01-02T00:00:00Z")):
        obj = device_class(name, extendedResourceName=GPU)
        obj["metadata"]["creationTimestamp"] = created
        lister.add(obj)
    found = classes.get(GPU)
    assert found is not None and found["metadata"]["name"] == "a"
    assert len(changes) == 3


# -- beside an API server ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    plugins = ("ServiceAccount", "TaintNodesByCondition")
    with Cluster(nodes=0, scheduler=False, disable_admission_plugins=plugins) as started:
        yield started


async def claims_of(client: Client) -> list[Object]:
    return [each for each in (await client.list(f"{GROUP}/resourceclaims", "default"))["items"]
            if each["metadata"].get("generateName")]  # fmt: skip


async def clear(client: Client, name: str) -> None:
    for resource in ("deviceclasses", "resourceslices"):
        await client.delete_collection(f"{GROUP}/{resource}")
    await client.delete("v1/pods", name, "default", grace_period_s=0)

    async def left() -> bool:
        return not await claims_of(client)

    await until(left)


async def test_a_claim_is_written_for_an_extended_resource(cluster: Cluster) -> None:
    async with scheduling(cluster) as (client, scheduler):
        await create(client, node("n1"), asking(2, name="p"))
        await condition(client, "p", f"Insufficient {GPU}")
        await prepare(client, devices("n1", 2), device_class(extendedResourceName=GPU))
        assert await bound(client, "p") == "n1"
        (found,) = await claims_of(client)
        metadata, running = found["metadata"], await client.get("v1/pods", "p", "default")
        uid = running["metadata"]["uid"]
        assert metadata["generateName"] == "p-extended-resources-"
        assert metadata["annotations"] == {"resource.kubernetes.io/extended-resource-claim": "true"}
        owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": True}
        assert metadata["ownerReferences"] == [owner]
        assert metadata["finalizers"] == ["resource.kubernetes.io/delete-protection"]
        exactly = {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 2}
        assert found["spec"]["devices"]["requests"] == [{"name": "container-0-request-0", "exactly": exactly}]
        assert [each["device"] for each in found["status"]["allocation"]["devices"]["results"]] == ["d0", "d1"]
        assert found["status"]["reservedFor"] == [{"resource": "pods", "name": "p", "uid": uid}]
        mapping = {"containerName": "c", "resourceName": GPU, "requestName": "container-0-request-0"}
        told = {"requestMappings": [mapping], "resourceClaimName": metadata["name"]}
        assert running["status"]["extendedResourceClaimStatus"] == told
        assert 'scheduler_resourceclaim_creates_total{status="success"} 1' in scheduler.metrics.text()
        await create(client, asking(name="late", resource=IMPLICIT))
        await condition(client, "late", "cannot allocate all claims")
        await client.delete("v1/pods", "p", "default", grace_period_s=0)
        assert await bound(client, "late") == "n1"
        await clear(client, "late")


CONDITIONS = {"bindingConditions": ["example.com/ready"], "bindingFailureConditions": ["example.com/broken"]}


async def report(client: Client, name: str, kind: str) -> None:
    """What a driver says of the device of a claim."""
    claim = await client.get(f"{GROUP}/resourceclaims", name, "default")
    result = claim["status"]["allocation"]["devices"]["results"][0]
    told = {
        "type": kind,
        "status": "True",
        "reason": "Told",
        "message": "so",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    where = {field: result[field] for field in ("driver", "pool", "device")}
    body = {**claim, "status": {**claim["status"], "devices": [{**where, "conditions": [told]}]}}
    await client.update(f"{GROUP}/resourceclaims", body, subresource="status")


async def reserved(client: Client, name: str, device: str) -> bool:
    claim = await client.get(f"{GROUP}/resourceclaims", name, "default")
    results = (((claim.get("status") or {}).get("allocation") or {}).get("devices") or {}).get("results") or ()
    return bool(claim.get("status", {}).get("reservedFor")) and [each["device"] for each in results] == [device]


async def test_binding_waits_for_the_conditions_of_devices(cluster: Cluster) -> None:
    async with scheduling(cluster) as (client, scheduler):
        late, ready = device("a", **CONDITIONS), device("a")
        await prepare(client, device_class(), piece("n1", late), claim(name="first"))
        await create(client, node("n1"), user("first", name="p"))
        await until(lambda: reserved(client, "first", "a"))
        assert not (await client.get("v1/pods", "p", "default"))["spec"].get("nodeName")

        async def told() -> bool:
            events = (await client.list("v1/events", "default"))["items"]
            note = "waiting for binding conditions for device on node n1"
            return ("BindingConditionsPending", note) in [(each["reason"], each["message"]) for each in events]

        await until(told)
        await report(client, "first", "example.com/ready")
        assert await bound(client, "p") == "n1"
        labels = f'profile="default-scheduler",driver="{DRIVER}",status="success"'
        lines = scheduler.metrics.text().splitlines()
        assert f"scheduler_dra_bindingconditions_allocations_total{{{labels}}} 1" in lines
        assert f"scheduler_dra_bindingconditions_wait_duration_seconds_count{{{labels}}} 1" in lines
        # devices that are ready at once are taken before others
        await prepare(client, piece("zz", ready, nodeName="n1"), claim(name="second"))
        await create(client, user("second", name="q"))
        assert await bound(client, "q") == "n1"
        second = await client.get(f"{GROUP}/resourceclaims", "second", "default")
        assert second["status"]["allocation"]["devices"]["results"][0]["pool"] == "zz"
        for name in ("p", "q"):
            await client.delete("v1/pods", name, "default", grace_period_s=0)
        await client.delete_collection(f"{GROUP}/resourceclaims", "default")
        await clear(client, "q") if not await gone(client, "q") else await _clear_devices(client)


async def _clear_devices(client: Client) -> None:
    for resource in ("deviceclasses", "resourceslices"):
        await client.delete_collection(f"{GROUP}/{resource}")


async def test_another_device_is_taken_when_one_has_failed(cluster: Cluster) -> None:
    config = configuration(podInitialBackoffSeconds=1, podMaxBackoffSeconds=1)
    async with scheduling(cluster, config) as (client, _):
        await prepare(client, device_class(), piece("n1", device("a", **CONDITIONS)), claim(name="third"))
        await create(client, node("n1"), node("n2"), user("third", name="p"))
        await until(lambda: reserved(client, "third", "a"))
        await prepare(client, piece("n2", device("b")))
        await report(client, "third", "example.com/broken")
        told = await condition(client, "p", "device binding failed")
        assert (told["reason"], told["message"]) == (
            "SchedulerError",
            'running PreBind plugin "DynamicResources": device binding failed: claim=third, reason=Told, message="so"',
        )
        patch = [{"op": "add", "path": "/spec/devices/0/taints", "value": [{"key": "x", "effect": "NoSchedule"}]}]
        await client.patch(f"{GROUP}/resourceslices", "n1-1", patch, kind="json")
        assert await bound(client, "p") == "n2"
        await client.delete("v1/pods", "p", "default", grace_period_s=0)
        await _clear_devices(client)


async def test_binding_does_not_wait_for_ever(cluster: Cluster) -> None:
    profile = {"pluginConfig": [{"name": "DynamicResources", "args": {"bindingTimeout": "1s"}}]}
    async with scheduling(cluster, configuration(profiles=[profile])) as (client, _):
        await prepare(client, device_class(), piece("n1", device("a", **CONDITIONS)), claim(name="fourth"))
        await create(client, node("n1"), user("fourth", name="p"))
        told = await condition(client, "p", "device binding timeout")
        message = 'running PreBind plugin "DynamicResources": device binding timeout: claim=fourth'
        assert (told["reason"], told["message"]) == ("SchedulerError", message)
        await client.delete("v1/pods", "p", "default", grace_period_s=0)
        await _clear_devices(client)

"""DynamicResources: which devices claims get on which node, case by case, and how allocations are written."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import permutations
from typing import Any

import pytest
from deviceobjects import DRIVER, GROUP, allocated, claim, decide, device, device_class, piece, prepare, request, user
from livecluster import bound, condition, configuration, create, gone, scheduling, until
from schedobjects import expression, node

from fastkube.scheduler.offline import OfflineScheduler
from fastkube.testing import Cluster

Object = dict[str, Any]

OWN = f'device.attributes["{DRIVER}"]'


def numa(*nodes: int) -> list[Object]:
    """Devices a, b, c ... by their NUMA node."""
    return [device(name, attributes={"numa": each}) for name, each in zip("abcdef", nodes, strict=False)]


ALL_ON_N1 = [device("a", attributes={"model": "x", "numa": 0}), device("b", attributes={"model": "y", "numa": 1})]
RACK_2 = {"nodeSelectorTerms": [{"matchExpressions": [expression("rack", "In", "2")]}]}
BROKEN = 'running "DynamicResources" filter plugin: '
NONE = "0/2 nodes are available: 2 cannot allocate all claims."

FITS = [
    ("one device", [piece("n1", *ALL_ON_N1), claim()], ["a"]),
    ("two devices", [piece("n1", *ALL_ON_N1), claim(request(count=2))], ["a", "b"]),
    ("by attribute", [piece("n1", *ALL_ON_N1), claim(request("r", f'{OWN}.model == "y"'))], ["b"]),
    (
        "by capacity",
        [
            piece("n1", device("a", capacity={"memory": "8Gi"}), device("b", capacity={"memory": "16Gi"})),
            claim(request("r", f'device.capacity["{DRIVER}"].memory.compareTo(quantity("10Gi")) >= 0')),
        ],
        ["b"],
    ),
    (
        "by version",
        [
            piece("n1", *(device(v, attributes={"v": {"version": v}}) for v in ("1.9.0", "1.10.0"))),
            claim(request("r", f'{OWN}.v.isGreaterThan(semver("1.9.1"))')),
        ],
        ["1.10.0"],
    ),
    (
        "an unknown domain is empty",
        [piece("n1", *ALL_ON_N1), claim(request("r", '!("x" in device.attributes["other.example.com"])'))],
        ["a"],
    ),
    ("all of them", [piece("n1", *ALL_ON_N1), claim(request(allocationMode="All"))], ["a", "b"]),
    (
        "what another claim has is passed over",
        [piece("n1", *ALL_ON_N1), claim(name="other", allocation=allocated("a")), claim()],
        ["b"],
    ),
    (
        "admin access shares",
        [piece("n1", device("a")), claim(name="other", allocation=allocated("a")), claim(request(adminAccess=True))],
        ["a"],
    ),
    (
        "admin access takes nothing",
        [piece("n1", device("a")), claim(name="other", allocation=allocated("a", adminAccess=True)), claim()],
        ["a"],
    ),
    (
        "the same value of an attribute, by going back",
        [
            piece("n1", *numa(0, 1, 1)),
            claim(request(count=2), constraints=[{"matchAttribute": f"{DRIVER}/numa"}]),
        ],
        ["b", "c"],
    ),
    (
        "different values of an attribute",
        [
            piece("n1", *numa(0, 0, 1)),
            claim(request(count=2), constraints=[{"distinctAttribute": f"{DRIVER}/numa"}]),
        ],
        ["a", "c"],
    ),
    (
        "the first alternative that works",
        [
            piece("n1", *ALL_ON_N1),
            claim(
                {
                    "name": "r",
                    "firstAvailable": [
                        {"name": "many", "deviceClassName": "gpu", "count": 3},
                        {"name": "two", "deviceClassName": "gpu", "count": 2},
                    ],
                }
            ),
        ],
        ["a", "b"],
    ),
    (
        "a tolerated taint",
        [
            piece("n1", device("a", taints=[{"key": "broken", "value": "x", "effect": "NoSchedule"}])),
            claim(request(tolerations=[{"key": "broken", "operator": "Exists"}])),
        ],
        ["a"],
    ),
    (
        "a taint without effect",
        [piece("n1", device("a", taints=[{"key": "broken", "effect": "None"}])), claim()],
        ["a"],
    ),
    (
        "shared counters that suffice",
        [
            piece(
                "n1",
                device("big", consumesCounters=[{"counterSet": "c", "counters": {"m": {"value": "4"}}}]),
                device("small", consumesCounters=[{"counterSet": "c", "counters": {"m": {"value": "2"}}}]),
                device("tiny", consumesCounters=[{"counterSet": "c", "counters": {"m": {"value": "2"}}}]),
                nodeName="n1",
                sharedCounters=[{"name": "c", "counters": {"m": {"value": "4"}}}],
            ),
            claim(request(count=2)),
        ],
        ["small", "tiny"],
    ),
    ("devices of all nodes", [piece("net", device("a"), allNodes=True), claim()], ["a"]),
    (
        "devices of selected nodes",
        [
            piece("net", device("a"), nodeSelector=RACK_2),
            claim(),
        ],
        ["a"],
    ),
    (
        "the newest generation counts",
        [piece("n1", device("old")), piece("n1", device("new"), generation=2), claim()],
        ["new"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("objects", "devices"), [each[1:] for each in FITS], ids=[each[0] for each in FITS])
def test_claims_that_can_be_allocated(objects: list[Object], devices: list[str]) -> None:
    assert decide(objects)[1:] == ("", devices)


DOES_NOT_FIT = [
    ("no device", [claim()], NONE),
    ("too few", [piece("n1", device("a")), claim(request(count=2))], NONE),
    ("another's", [piece("n1", device("a")), claim(name="other", allocation=allocated("a")), claim()], NONE),
    (
        "all, and another has one",
        [piece("n1", *ALL_ON_N1), claim(name="other", allocation=allocated("a")), claim(request(allocationMode="All"))],
        NONE,
    ),
    ("an incomplete pool", [piece("n1", device("a"), of=2), claim()], NONE),
    (
        "the same name twice",
        [piece("n1", device("a"), device("a")), claim()],
        "0/2 nodes are available: 1 cannot allocate all claims, 1 invalid resource pools were encountered.",
    ),
    (
        "all of a pool that is being updated",
        [piece("n1", device("a"), of=2), claim(request(allocationMode="All"))],
        BROKEN + "claim default/claim, request r: asks for all devices, but resource pool gpu.example.com/n1 is "
        "currently being updated",
    ),
    (
        "all of a pool that is invalid",
        [piece("n1", device("a"), device("a")), claim(request(allocationMode="All"))],
        BROKEN + "claim default/claim, request r: asks for all devices, but resource pool gpu.example.com/n1 is "
        "currently invalid",
    ),
    (
        "all, against a constraint",
        [
            piece("n1", *numa(0, 1)),
            claim(request(allocationMode="All"), constraints=[{"matchAttribute": f"{DRIVER}/numa"}]),
        ],
        BROKEN + "claim default/claim, request r: cannot add device gpu.example.com/n1/b because a claim constraint "
        "would not be satisfied",
    ),
    (
        "more devices than an allocation may have",
        [claim(request(count=20), request("s", count=20))],
        BROKEN + "claim default/claim: number of requested devices 40 exceeds the claim limit of 32",
    ),
    (
        "counters that do not exist",
        [
            piece("n1", device("a", consumesCounters=[{"counterSet": "c", "counters": {"m": {"value": "4"}}}])),
            claim(),
        ],
        "0/2 nodes are available: 1 cannot allocate all claims, 1 invalid resource pools were encountered.",
    ),
    (
        "admin access takes counters as well",
        [
            piece(
                "n1",
                device("a", consumesCounters=[{"counterSet": "c", "counters": {"m": {"value": "4"}}}]),
                nodeName="n1",
                sharedCounters=[{"name": "c", "counters": {"m": {"value": "2"}}}],
            ),
            claim(request(adminAccess=True)),
        ],
        NONE,
    ),
    ("what a claim has for administration, another of the Pod has not",
     [piece("n1", device("a")), claim(request("r", adminAccess=True), request("s"))], NONE),
    ("a taint", [piece("n1", device("a", taints=[{"key": "k", "effect": "NoExecute"}])), claim()], NONE),
    (
        "no common value",
        [
            piece("n1", *numa(0, 1)),
            claim(request(count=2), constraints=[{"matchAttribute": f"{DRIVER}/numa"}]),
        ],
        NONE,
    ),
    (
        "an attribute that is missing",
        [piece("n1", device("a"), device("b")), claim(constraints=[{"matchAttribute": f"{DRIVER}/numa"}])],
        NONE,
    ),
    ("no such claim", [], '0/2 nodes are available: could not find ResourceClaim "default/claim".'),
    (
        "no such class",
        [piece("n1", device("a")), claim(request(deviceClassName="tpu"))],
        "0/2 nodes are available: request r: device class tpu does not exist.",
    ),
    (
        "a selector that fails",
        [piece("n1", device("a")), claim(request("r", f'device.attributes["{DRIVER}"].model == "x"'))],
        BROKEN + "claim default/claim: selector #0: CEL runtime error: no such key: model",
    ),
    (
        "a class whose selector fails",
        [
            piece("n1", device("a")),
            device_class("bad", "true", f'device.attributes["{DRIVER}"].model == "x"'),
            claim(request(deviceClassName="bad")),
        ],
        BROKEN + "class bad: selector #1: CEL runtime error: no such key: model",
    ),
    (
        "allocated on a node that is full",
        [
            claim(
                allocation={
                    **allocated("a"),
                    "nodeSelector": {
                        "nodeSelectorTerms": [{"matchFields": [expression("metadata.name", "In", "elsewhere")]}]
                    },
                }
            )
        ],
        "0/2 nodes are available: 2 resourceclaim not available on the node.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("objects", "message"), [x[1:] for x in DOES_NOT_FIT], ids=[x[0] for x in DOES_NOT_FIT])
def test_claims_that_cannot_be_allocated(objects: list[Object], message: str) -> None:
    assert decide(objects)[:2] == ("", message)


def test_devices_are_never_given_twice() -> None:
    """Pods one after another, each with a claim; found by trying all assignments whether one was possible."""
    for seed in range(60):
        draw = random.Random(seed)
        slices = []
        for name in ("n1", "n2", "n3"):
            count = draw.randint(0, 3)
            slices.append(piece(name, *(device(f"d{n}", attributes={"k": draw.randint(0, 1)}) for n in range(count))))
        wishes = [[f"{OWN}.k == {draw.randint(0, 1)}"] if draw.random() < 0.5 else [] for _ in range(6)]
        claims = [claim(request("r", *wish), name=f"c{number}") for number, wish in enumerate(wishes)]
        scheduler = OfflineScheduler([*(node(f"n{each}") for each in (1, 2, 3)), device_class(), *slices, *claims])
        for number in range(6):
            scheduler.add(user(f"c{number}"))
        free = {(each["spec"]["nodeName"], told["name"]): told for each in slices for told in each["spec"]["devices"]}
        placed = 0
        for decision in scheduler.run():
            placed += bool(decision.node)
            assert decision.node or decision.message.endswith("cannot allocate all claims.")
        assert placed <= len(free)
        if not any(wishes):
            assert placed == min(6, len(free))


@pytest.mark.parametrize("seed", range(40))
def test_a_solution_is_found_when_there_is_one(seed: int) -> None:
    """Against all permutations of the devices."""
    draw = random.Random(seed)
    devices = [device(f"d{each}", attributes={"k": draw.randint(0, 2), "z": draw.randint(0, 1)}) for each in range(5)]
    keys = [draw.randint(0, 2) for _ in range(draw.randint(1, 4))]
    requests = [request(f"r{place}", f'device.attributes["{DRIVER}"].k >= {key}') for place, key in enumerate(keys)]
    same = draw.random() < 0.7
    constraints = [{"matchAttribute": f"{DRIVER}/z"}] if same else []

    def suits(chosen: tuple[Object, ...]) -> bool:
        fits = all(each["attributes"]["k"]["int"] >= key for each, key in zip(chosen, keys, strict=True))
        return fits and (not same or len({each["attributes"]["z"]["int"] for each in chosen}) == 1)

    possible = any(suits(chosen) for chosen in permutations(devices, len(keys)))
    told = decide([piece("n1", *devices), claim(*requests, constraints=constraints)])
    assert bool(told[0]) == possible
    if possible:
        by_name = {each["name"]: each for each in devices}
        assert suits(tuple(by_name[name] for name in told[2]))
        assert len(set(told[2])) == len(keys)


# -- beside an API server ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    plugins = ("ServiceAccount", "TaintNodesByCondition")
    with Cluster(nodes=0, scheduler=False, controllers=False, disable_admission_plugins=plugins) as started:
        yield started


async def test_an_allocation_is_written_and_given_back(cluster: Cluster) -> None:
    config = [{"opaque": {"driver": DRIVER, "parameters": {"apiVersion": "x/v1", "kind": "P"}}}]
    async with scheduling(cluster) as (client, _):
        await prepare(client, device_class(config=config), piece("n1", device("a")), claim(), claim(name="second"))
        await create(client, node("n1"), node("n2"), user(name="p"))
        assert await bound(client, "p") == "n1"
        found = await client.get(f"{GROUP}/resourceclaims", "claim", "default")
        running = await client.get("v1/pods", "p", "default")
        uid = running["metadata"]["uid"]
        assert "nominatedNodeName" not in running["status"]
        assert found["metadata"]["finalizers"] == ["resource.kubernetes.io/delete-protection"]
        assert found["status"]["reservedFor"] == [{"resource": "pods", "name": "p", "uid": uid}]
        assert found["status"]["allocation"] == {
            "allocationTimestamp": found["status"]["allocation"]["allocationTimestamp"],
            "devices": {
                "results": [{"request": "r", "driver": DRIVER, "pool": "n1", "device": "a"}],
                "config": [{"source": "FromClass", "requests": ["r"], **config[0]}],
            },
            "nodeSelector": {
                "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]
            },
        }
        await create(client, user("second", name="late"))
        await condition(client, "late", "cannot allocate all claims")
        await client.delete("v1/pods", "p", "default", grace_period_s=0)
        freed = {**found, "status": {}, "metadata": {**found["metadata"]}}
        await client.update(f"{GROUP}/resourceclaims", freed, subresource="status")
        assert await bound(client, "late") == "n1"
        await client.delete("v1/pods", "late", "default", grace_period_s=0)


async def test_a_pod_waits_for_its_claim(cluster: Cluster) -> None:
    async with scheduling(cluster) as (client, scheduler):
        await create(client, node("n1"), user("to-come", name="early"))

        async def gated() -> bool:
            return scheduler.queue.counts()["gated"] == 1

        await until(gated)
        await prepare(client, claim(request(adminAccess=False), name="to-come"))
        await condition(client, "early", "cannot allocate all claims")
        assert not await gone(client, "early")


def test_the_node_with_the_preferred_alternative_is_chosen() -> None:
    alternatives = [
        {"name": "big", "deviceClassName": "gpu", "selectors": [{"cel": {"expression": f'{OWN}.model == "big"'}}]},
        {"name": "small", "deviceClassName": "gpu"},
    ]
    small = piece("n1", device("a", attributes={"model": "small"}))
    big = piece("n2", device("b", attributes={"model": "big"}))
    for seed in range(8):  # otherwise equal nodes are chosen at random
        objects = [
            node("n1"),
            node("n2"),
            device_class(),
            small,
            big,
            claim({"name": "r", "firstAvailable": alternatives}),
        ]
        scheduler = OfflineScheduler(objects, seed=seed)
        assert scheduler.decide(scheduler.cache.parse(user())).node == "n2"


def test_a_search_for_devices_ends_in_time() -> None:
    """Of 24 devices 12 are wanted, and one more that does not exist: every choice of 12 would be tried."""
    many = piece("n1", *(device(f"d{number}") for number in range(24)))
    wanted = claim(request(count=12), request("none", f'"x" in {OWN}'))
    profile = {"pluginConfig": [{"name": "DynamicResources", "args": {"filterTimeout": "1ms"}}]}
    scheduler = OfflineScheduler([node("n1"), device_class(), many, wanted], configuration(profiles=[profile]))
    decision = scheduler.decide(scheduler.cache.parse(user()))
    told = 'running "DynamicResources" filter plugin: node n1: timed out trying to allocate devices'
    assert (decision.node, decision.message) == ("", told)

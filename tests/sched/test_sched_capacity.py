"""Devices that several claims share: what of their capacity each takes, case by case, and that it never is too much."""

from __future__ import annotations

import random
from typing import Any

import pytest
from deviceobjects import DRIVER, claim, decide, device, device_class, piece, request, user
from schedobjects import node

from fastkube.api import quantity
from fastkube.scheduler.framework import Cycle
from fastkube.scheduler.offline import OfflineScheduler
from fastkube.scheduler.plugins.dynamic_resources import DynamicResources

Object = dict[str, Any]

NONE = "0/2 nodes are available: 2 cannot allocate all claims."
RANGE = {"default": "1Gi", "validRange": {"min": "1Gi", "step": "1Gi", "max": "8Gi"}}
VALUES = {"default": "1Gi", "validValues": ["1Gi", "2Gi", "6Gi"]}


def shared(name: str = "a", *, memory: str = "10Gi", policy: Object | None = None, **more: Any) -> Object:
    capacity = {"memory": {"value": memory, **({"requestPolicy": policy} if policy else {})}}
    return {"name": name, "allowMultipleAllocations": True, "capacity": capacity, **more}


def asking(amount: str | None = None, name: str = "r", **more: Any) -> Object:
    return request(name, **({"capacity": {"requests": {"memory": amount}}} if amount else {}), **more)


def held(amount: str, name: str = "other", device: str = "a") -> Object:
    """A claim that has a part of a device."""
    result: Object = {"request": "r", "driver": DRIVER, "pool": "n1", "device": device, "shareID": "s"}
    result["consumedCapacity"] = {"memory": amount}
    return claim(name=name, allocation={"devices": {"results": [result]}})


TAKES = [
    ("what is asked for", shared(), asking("3Gi"), "3Gi"),
    ("all, when nothing is asked for", shared(), asking(), "10Gi"),
    ("the default", shared(policy=RANGE), asking(), "1Gi"),
    ("at least the least", shared(policy=RANGE), asking("100Mi"), "1Gi"),
    ("whole steps", shared(policy=RANGE), asking("2500Mi"), "3Gi"),
    ("a step exactly", shared(policy=RANGE), asking("4Gi"), "4Gi"),
    ("the next value", shared(policy=VALUES), asking("1500Mi"), "2Gi"),
    ("a value exactly", shared(policy=VALUES), asking("6Gi"), "6Gi"),
    ("more than the greatest", shared(policy=RANGE), asking("9Gi"), None),
    ("more than the greatest value", shared(policy=VALUES), asking("7Gi"), None),
    ("more than there is", shared(), asking("11Gi"), None),
    ("a capacity that the device lacks", device("a", capacity={"cores": "4"}), asking("1Gi"), None),
    ("of a device for one claim alone too much", device("a", capacity={"memory": "1Gi"}), asking("2Gi"), None),
]


def consumed(objects: list[Object], obj: Object | None = None) -> list[Object]:
    """The results of a Pod's allocations."""
    scheduler = OfflineScheduler([node("n1"), node("n2"), device_class(), *objects])
    parsed = scheduler.cache.parse(obj or user())
    assert scheduler.decide(parsed).node == "n1"
    scheduler.cache.assume(parsed, "n1")
    profile = scheduler.profiles["default-scheduler"]
    cycle = Cycle(parsed)
    profile.search.prepare(cycle)
    plugin = profile.plugins["DynamicResources"]
    plugin.reserve(cycle, scheduler.cache.infos["n1"])
    allocations = cycle.state["DynamicResources"].allocations.values()
    return [result for allocation in allocations for result in allocation["devices"]["results"]]


@pytest.mark.parametrize(("one", "asked", "amount"), [each[1:] for each in TAKES], ids=[each[0] for each in TAKES])
def test_what_a_request_takes(one: Object, asked: Object, amount: str | None) -> None:
    objects = [piece("n1", one), claim(asked)]
    if amount is None:
        assert decide(objects)[:2] == ("", NONE)
        return
    (result,) = consumed(objects)
    assert result["consumedCapacity"] == {"memory": amount}
    assert result["shareID"]


def test_a_device_that_is_not_shared_has_no_share() -> None:
    (result,) = consumed([piece("n1", device("a", capacity={"memory": "4Gi"})), claim(asking("1Gi"))])
    assert result == {"request": "r", "driver": DRIVER, "pool": "n1", "device": "a"}


LEFT = [
    ("beside another", [shared()], [held("6Gi")], [asking("4Gi")], ["a"]),
    ("too little left", [shared()], [held("7Gi")], [asking("4Gi")], []),
    ("too little left of the first", [shared(), shared("b")], [held("7Gi")], [asking("4Gi")], ["b"]),
    ("one device twice", [shared()], [], [asking("4Gi", "r"), asking("6Gi", "s")], ["a", "a"]),
    ("one device twice is too much", [shared()], [], [asking("4Gi", "r"), asking("7Gi", "s")], []),
    ("two of a request are two devices", [shared(), shared("b")], [], [asking("4Gi", count=2)], ["a", "b"]),
    ("all of them", [shared(), shared("b")], [held("1Gi")], [asking("9Gi", allocationMode="All")], ["a", "b"]),
    ("all, and one has too little", [shared(), shared("b")], [held("2Gi")], [asking("9Gi", allocationMode="All")], []),
    (
        "all are those with enough capacity",
        [shared(memory="1Gi"), shared("b")],
        [],
        [asking("9Gi", allocationMode="All")],
        ["b"],
    ),
    (
        "to tell apart by an attribute",
        [shared(attributes={"k": {"int": 1}}), shared("b", attributes={"k": {"int": 2}})],
        [],
        [request("r", "device.allowMultipleAllocations", f'device.attributes["{DRIVER}"].k == 2')],
        ["b"],
    ),
]


@pytest.mark.parametrize(("devices", "others", "requests", "names"), [x[1:] for x in LEFT], ids=[x[0] for x in LEFT])
def test_what_is_left(devices: list[Object], others: list[Object], requests: list[Object], names: list[str]) -> None:
    told = decide([piece("n1", *devices), *others, claim(*requests)])
    assert told == (("n1", "", names) if names else ("", NONE, []))


def test_a_shared_device_takes_counters_once() -> None:
    counters = [{"counterSet": "c", "counters": {"m": {"value": "4"}}}]
    slices = piece(
        "n1",
        shared("a", consumesCounters=counters),
        shared("b", consumesCounters=counters),
        nodeName="n1",
        sharedCounters=[{"name": "c", "counters": {"m": {"value": "4"}}}],
    )
    assert decide([slices, claim(asking("1Gi", "r"), asking("1Gi", "s"))])[2] == ["a", "a"]
    assert decide([slices, held("9Gi"), claim(asking("1Gi"))])[2] == ["a"]
    assert decide([slices, held("9Gi"), claim(asking("2Gi"))])[1] == NONE  # b would take the counters again


@pytest.mark.parametrize("seed", range(30))
def test_no_device_is_ever_shared_too_far(seed: int) -> None:
    """Pods one after another; a claim fails only where no device of any node has as much left."""
    draw = random.Random(seed)
    nodes = [f"n{number}" for number in range(3)]
    sizes = {(name, f"d{n}"): draw.randint(2, 8) for name in nodes for n in range(draw.randint(1, 2))}
    slices = [piece(name, *(shared(each, memory=f"{size}Gi") for (at, each), size in sizes.items() if at == name))
              for name in nodes]  # fmt: skip
    wishes = [draw.randint(1, 4) for _ in range(20)]
    claims = [claim(asking(f"{wish}Gi"), name=f"c{number}") for number, wish in enumerate(wishes)]
    scheduler = OfflineScheduler([*map(node, nodes), device_class(), *slices, *claims])
    for number in range(len(wishes)):
        scheduler.add(user(f"c{number}", name=f"p{number}"))
    plugin = scheduler.profiles["default-scheduler"].plugins["DynamicResources"]
    assert isinstance(plugin, DynamicResources)
    left, catalog = dict(sizes), plugin._catalog
    for decision in scheduler.run():
        wish = wishes[int(decision.pod.name[1:])]
        if not decision.node:
            assert all(size < wish for size in left.values())
            continue
        placed = catalog.claim("default", f"c{decision.pod.name[1:]}")
        assert placed is not None
        given = placed["status"]["allocation"]["devices"]["results"]
        assert [quantity.value(each["consumedCapacity"]["memory"]) for each in given] == [wish << 30]
        left[given[0]["pool"], given[0]["device"]] -= wish
    assert min(left.values()) >= 0

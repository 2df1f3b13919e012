"""Slices, classes and claims of devices as tests write them down."""

from __future__ import annotations

from typing import Any

from schedobjects import node, pod

from fastkube.client import Client
from fastkube.scheduler.framework import Cycle
from fastkube.scheduler.offline import OfflineScheduler

Object = dict[str, Any]

GROUP = "resource.k8s.io/v1"
DRIVER = "gpu.example.com"


def device(name: str, **more: Any) -> Object:
    """`more`: attributes and capacity as plain values, and any field of a device."""
    kinds = {bool: "bool", int: "int", str: "string"}
    attributes = {key: value if isinstance(value, dict) else {kinds[type(value)]: value}
                  for key, value in more.pop("attributes", {}).items()}  # fmt: skip
    capacity = {key: {"value": value} for key, value in more.pop("capacity", {}).items()}
    return {"name": name, "attributes": attributes, "capacity": capacity, **more}


def piece(name: str, *devices: Object, pool: str = "", of: int = 1, generation: int = 1, **where: Any) -> Object:
    """A ResourceSlice; on the node that it is named after unless `where` says otherwise."""
    spec = {
        "driver": DRIVER,
        "pool": {"name": pool or name, "generation": generation, "resourceSliceCount": of},
        "devices": list(devices),
        **(where or {"nodeName": name}),
    }
    return {"apiVersion": GROUP, "kind": "ResourceSlice", "metadata": {"name": f"{name}-{generation}"}, "spec": spec}


def device_class(name: str = "gpu", *expressions: str, **more: Any) -> Object:
    selectors = [{"cel": {"expression": each}} for each in (expressions or (f'device.driver == "{DRIVER}"',))]
    spec = {"selectors": selectors, **more}
    return {"apiVersion": GROUP, "kind": "DeviceClass", "metadata": {"name": name}, "spec": spec}


def request(name: str = "r", *expressions: str, **more: Any) -> Object:
    selectors = [{"cel": {"expression": each}} for each in expressions]
    exactly = {"deviceClassName": "gpu", **({"selectors": selectors} if selectors else {}), **more}
    return {"name": name, "exactly": exactly}


def claim(*requests: Object, name: str = "claim", allocation: Object | None = None, **more: Any) -> Object:
    """`more`: further fields of spec.devices."""
    obj: Object = {
        "apiVersion": GROUP,
        "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"},
        "spec": {"devices": {"requests": list(requests or (request(),)), **more}},
    }
    if allocation is not None:
        obj["status"] = {"allocation": allocation}
    return obj


def allocated(*names: str, pool: str = "n1", **more: Any) -> Object:
    results = [{"request": "r", "driver": DRIVER, "pool": pool, "device": name, **more} for name in names]
    return {"devices": {"results": results}}


def user(*claims: str, **more: Any) -> Object:
    told = [{"name": name, "resourceClaimName": name} for name in claims or ("claim",)]
    return pod(**more, resourceClaims=told)


def decide(objects: list[Object], obj: Object | None = None) -> tuple[str, str, list[str]]:
    """(node, message, devices that are reserved)."""
    scheduler = OfflineScheduler([node("n1"), node("n2", {"rack": "2"}), device_class(), *objects])
    parsed = scheduler.cache.parse(obj or user())
    decision = scheduler.decide(parsed)
    if not decision.node:
        return "", decision.message, []
    scheduler.cache.assume(parsed, decision.node)
    profile = scheduler.profiles["default-scheduler"]
    cycle = Cycle(parsed)
    profile.search.prepare(cycle)
    plugin = profile.plugins["DynamicResources"]
    plugin.reserve(cycle, scheduler.cache.infos[decision.node])
    results = [
        result["device"]
        for allocation in cycle.state["DynamicResources"].allocations.values()
        for result in allocation["devices"]["results"]
    ]
    return decision.node, "", results


async def prepare(client: Client, *objects: Object) -> None:
    for obj in objects:
        plural = {"DeviceClass": "deviceclasses"}.get(obj["kind"], obj["kind"].lower() + "s")
        obj["metadata"].pop("uid", None)
        await client.create(f"{GROUP}/{plural}", obj, obj["metadata"].get("namespace", ""))

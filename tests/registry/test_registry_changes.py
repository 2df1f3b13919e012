"""A change that is foretold is the one that the long way would have made, and is foretold only while that holds.

Two registries over two stores with the same bytes and revisions in them: one remembers the changes before, the other is
made new for each, so that it has nothing to foretell from. What they write, answer and warn of must be the same.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
from clusters import ADMIN, APPLY, JSON_PATCH, MERGE, NOW, STRATEGIC, Cluster, refused, running

from fastkube.api import codec
from fastkube.clock import rfc3339
from fastkube.errors import ApiError
from fastkube.registry.answers import Stored
from fastkube.registry.creations import Foretold
from fastkube.registry.registry import Registry

Object = dict[str, Any]
Asked = Callable[[Cluster, Registry], Awaitable[Stored]]

ZONE = "topology.kubernetes.io/zone"


class Twins:
    """`one` remembers; `other` is asked through a registry made for the question. `foretold` counts those that were."""

    def __init__(self, one: Cluster, other: Cluster) -> None:
        self.one, self.other = one, other
        self.foretold = 0
        self.uids: list[str] = []

    async def create(self, resource: str, obj: Object) -> None:
        name = (await self.one.create(resource, obj))["metadata"]["name"]
        call = self.one.call("get", resource, name)
        key = call.rtype.key(call.namespace, call.name)
        item = self.one.store.get(key)
        assert item is not None
        assert await self.other.store.create(key, item.value) == item.mod_revision

    async def patch(self, resource: str, name: str, patch: Any, media: str = MERGE, **more: Any) -> str:
        """What was refused, or ""."""
        body = patch if isinstance(patch, bytes) else json.dumps(patch).encode()

        async def ask(cluster: Cluster, registry: Registry) -> Stored:
            call = cluster.call("patch", resource, name, **more)
            made = await self._foretold(registry, call, media, body)
            return made or (await registry.patch(call, media, body))[0]

        return await self._ask(resource, name, ask)

    async def update(self, resource: str, name: str, obj: Object, media: str = codec.JSON, **more: Any) -> str:
        body = codec.encode(obj, media)

        async def ask(cluster: Cluster, registry: Registry) -> Stored:
            call = cluster.call("update", resource, name, **more)
            made = await self._foretold(registry, call, media, body)
            if made is None:
                sent = codec.decode(body, media, call.rtype.kind, call.faults, merges=True)
                made, _ = await registry.update(call, sent, registry.change(call, media, body))
            return made

        return await self._ask(resource, name, ask)

    async def bind(self, name: str, binding: Object) -> str:
        async def ask(cluster: Cluster, registry: Registry) -> Stored:
            return await registry.create(cluster.call("create", "pods/binding", name), json.loads(json.dumps(binding)))

        return await self._ask("pods", name, ask)

    async def _foretold(self, registry: Registry, call: Any, media: str, body: bytes) -> Stored | None:
        change = registry.change(call, media, body)
        made = await registry.make(call, change) if change is not None else None
        self.foretold += made is not None
        return made

    async def _ask(self, resource: str, name: str, ask: Asked) -> str:
        outcomes = []
        for cluster in (self.one, self.other):
            registry = cluster.registry
            if cluster is self.other:
                registry = Registry(cluster.store, registry.catalog, clock=cluster.clock, admission=registry.admission)
            told, answer = "", None
            try:
                answer = await ask(cluster, registry)
            except ApiError as error:
                told = error.message
            call = cluster.call("get", resource.partition("/")[0], name)
            item = cluster.store.get(call.rtype.key(call.namespace, call.name))
            assert item is not None
            outcomes.append(
                (told, cluster.warnings, answer, msgpack.unpackb(item.value), item.value, item.mod_revision)
            )
        assert outcomes[0] == outcomes[1]
        return str(outcomes[0][0])

    async def post(self, resource: str, obj: Object, media: str = codec.JSON, **more: Any) -> str:
        """Makes an object on both; they are the same but for their uids."""
        body = codec.encode(obj, media)

        async def ask(cluster: Cluster, registry: Registry) -> Stored:
            call = cluster.call("create", resource, **more)
            cast = registry.cast(call, media, body)
            if isinstance(cast, Foretold):
                self.foretold += 1
                return Stored(cast.value, await registry.create_cast(call, cast))
            sent = codec.decode(body, media, call.rtype.kind, call.faults, merges=True)
            made = await registry.create(call, sent)
            if cast is not None:
                cast.learn(made.value, registry.timestamp(call))
            return made

        return await self._make(ask)

    async def apply(self, resource: str, name: str, config: Object, **more: Any) -> str:
        """The same by an apply to a name that there was not."""
        body = json.dumps(config).encode()

        async def ask(cluster: Cluster, registry: Registry) -> Stored:
            return (await registry.patch(cluster.call("patch", resource, name, **more), APPLY, body))[0]

        return await self._make(ask)

    async def _make(self, ask: Asked) -> str:
        outcomes: list[Any] = []
        for cluster in (self.one, self.other):
            registry = cluster.registry
            if cluster is self.other:
                registry = Registry(cluster.store, registry.catalog, clock=cluster.clock, admission=registry.admission)
            told, made = "", []
            try:
                stored = await ask(cluster, registry)
            except ApiError as error:
                told = error.message
            else:
                obj = msgpack.unpackb(stored.value)
                kinds = {"ConfigMap": "configmaps", "Deployment": "deployments.apps", "Event": "events"}
                call = cluster.call("get", kinds.get(obj["kind"], "leases.coordination.k8s.io"))
                item = cluster.store.get(call.rtype.key("default", obj["metadata"]["name"]))
                assert item is not None
                assert (item.value, item.mod_revision) == stored
                self.uids.append(obj["metadata"].pop("uid"))
                made = [json.dumps(obj), stored.revision, bool(item.lease)]
            outcomes.append((told, cluster.warnings if not told else [], made))
        assert outcomes[0] == outcomes[1]
        return str(outcomes[0][0])

    def obj(self, resource: str, name: str) -> Object:
        return self.one.get(resource, name)

    async def pass_time(self, seconds: float) -> None:
        for cluster in (self.one, self.other):
            await cluster.clock.advance(seconds)


@pytest.fixture
async def twins(tmp_path: Path) -> AsyncIterator[Twins]:
    async with running(tmp_path / "one") as one, running(tmp_path / "other") as other:
        made = Twins(one, other)
        await made.create("nodes", {"metadata": {"name": "zoned", "labels": {ZONE: "z"}}})
        yield made


def _uid(number: int) -> str:
    return f"{number:08x}-aaaa-4bbb-8ccc-dddddddddddd"


def pod(number: int, **metadata: Any) -> Object:
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"set-{number % 3}", "uid": _uid(number % 3)}
    metadata = {"name": f"pod-{number}", "labels": {"app": "a"}, "ownerReferences": [owner], **metadata}
    return {"metadata": metadata, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}


def deployment(number: int) -> Object:
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}
    spec = {"replicas": 1 + number % 2, "selector": {"matchLabels": {"app": "a"}}, "template": template}
    return {"metadata": {"name": f"deployment-{number}"}, "spec": spec}


def config_map(number: int) -> Object:
    return {"metadata": {"name": f"map-{number}"}, "data": {"key": f"value {number}"}}


def lease(number: int) -> Object:
    return {"metadata": {"name": f"lease-{number}"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15}}


MAKERS = {"pods": pod, "deployments.apps": deployment, "configmaps": config_map, "leases.coordination.k8s.io": lease}


def name_of(resource: str, number: int) -> str:
    return str(MAKERS[resource](number)["metadata"]["name"])


def status(number: int, now: str, dice: random.Random | None = None) -> Object:
    """As a kubelet sends it; `dice` change a thing here and there."""
    conditions = [
        {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
        for kind in ("Initialized", "Ready", "PodScheduled")
    ]
    state = {"running": {"startedAt": now}}
    container = {
        "name": "c",
        "image": "i:1",
        "imageID": "i@1",
        "containerID": f"containerd://{number:064x}",
        "ready": True,
    }
    container |= {"restartCount": 0, "state": state}
    address = f"10.0.{number // 250}.{number % 250 + 1}"
    found: Object = {"phase": "Running", "conditions": conditions, "startTime": now, "containerStatuses": [container]}
    found |= {"hostIP": "172.16.0.1", "hostIPs": [{"ip": "172.16.0.1"}], "podIP": address, "podIPs": [{"ip": address}]}
    for change in dice.sample(CHANCES, dice.randrange(3)) if dice else ():
        change(found)
    return {"status": found}


def _set(*path: Any) -> Callable[[Object], None]:
    def change(found: Object) -> None:
        holder: Any = found
        for key in path[:-2]:
            holder = holder[key] if holder else {}
        if holder:
            holder[path[-2]] = path[-1]

    return change


CHANCES: tuple[Callable[[Object], None], ...] = (
    _set("podIP", "10.0.0.01"),
    _set("podIP", "not an address"),
    _set("podIPs", 0, "ip", "10.9.9.9"),
    _set("podIPs", [{"ip": "10.0.0.1"}, {"ip": "::1"}]),
    _set("podIPs", []),
    _set("hostIP", "172.16.0.2"),
    _set("phase", "Succeeded"),
    _set("phase", "Failed"),
    _set("startTime", "2027-01-15T08:00:00.5Z"),
    _set("startTime", "2027-01-15T09:00:00+01:00"),
    _set("startTime", "2027-02-30T08:00:00Z"),
    _set("startTime", None),
    _set("conditions", 0, "lastTransitionTime", "2027-01-15T08:00:01Z"),
    _set("conditions", 0, "status", "False"),
    _set("conditions", 1, "message", "because"),
    _set("conditions", 1, "message", 'because of "é"'),
    _set("conditions", []),
    _set("containerStatuses", 0, "restartCount", 3),
    _set("containerStatuses", 0, "containerID", ""),
    _set("containerStatuses", 0, "state", {"terminated": {"exitCode": 1, "finishedAt": "2027-01-15T08:00:09Z"}}),
    _set("nonsense", 1),
    _set("qosClass", "Guaranteed"),
)


# ---------------------------------------------------------------- the same as the long way


async def test_what_nodes_say_of_pods(twins: Twins) -> None:
    dice = random.Random(1)
    for number in range(40):
        app = dice.choice(("a", "a", "a", f"app-{number}", f"pod-{number}", "v1.0"))
        zone = {ZONE: dice.choice(("z", f"z-{number}"))} if number % 8 == 0 else {}
        await twins.create("pods", pod(number, labels={"app": app, **zone}))
    for number in range(40):
        if dice.random() < 0.3:
            await twins.pass_time(1)
        metadata = {"name": f"pod-{number}", "uid": twins.obj("pods", f"pod-{number}")["metadata"]["uid"]}
        target = {"kind": "Node", "name": dice.choice(("zoned", "node-1", "node-2", "Not a node"))}
        assert not await twins.bind(f"pod-{number}", {"metadata": metadata, "target": target})
        assert "already assigned" in await twins.bind(f"pod-{number}", {"metadata": metadata, "target": target})
    for turn in range(600):
        number = dice.randrange(40)
        if dice.random() < 0.2:
            await twins.pass_time(dice.choice((1, 60)))
        now = rfc3339(twins.one.clock.time() - dice.choice((0, 0, 1)))
        body = status(number, now, dice if turn > 100 else None)
        uid = twins.obj("pods", f"pod-{number}")["metadata"]["uid"]
        body["metadata"] = {"uid": uid if dice.random() < 0.9 else _uid(9)}
        media = STRATEGIC if turn % 4 else MERGE
        await twins.patch("pods/status", f"pod-{number}", body, media, field_manager="nodes")
    assert twins.foretold > 20


def node(number: int, dice: random.Random) -> Object:
    odd = dice.random() < 0.1
    network = dice.choice(("10.0.0.0/24", f"10.{number}.0.0/16", "fd00::/64")) if odd else f"10.{number}.0.0/24"
    name = f"node-{number}"
    addresses = [
        {"type": "InternalIP", "address": f"172.16.0.{number}"},
        {"type": "Hostname", "address": f"172.16.0.{number}" if odd else name},
    ]
    labels = {"kubernetes.io/hostname": f"host-{number}" if odd else name, "rack": f"r-{number}"}
    spec = {"podCIDR": network, "podCIDRs": [network]}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": {"addresses": addresses}}


def _said_of_node(number: int, turn: int, now: str, dice: random.Random) -> list[tuple[str, Object]]:
    odd = dice.random() < 0.1
    taint = {"key": "k", "effect": dice.choice(("NoExecute", "Never")) if odd else "NoSchedule", "timeAdded": now}
    address = {"type": "InternalIP", "address": f"node-{number}" if odd else f"172.16.1.{number}"}
    network = dice.choice((f"10.{turn}.0.0/24", "10.0.0.1/24", "")) if odd else f"10.{number}.0.0/24"
    ready = {"type": "Ready", "status": "False" if odd else "True", "lastHeartbeatTime": now}
    return [
        ("nodes/status", {"status": {"conditions": [ready]}}),
        ("nodes/status", {"status": {"addresses": [address]}}),
        ("nodes", {"metadata": {"annotations": {"e.com/ttl": f"{turn}"}}}),
        ("nodes", {"metadata": {"labels": {"rack": f"r-{turn}", "kubernetes.io/os": "linux"}}}),
        ("nodes", {"spec": {"taints": [taint]}}),
        ("nodes", {"spec": {"podCIDR": network, "podCIDRs": [network]}}),
    ]


async def test_what_is_said_of_nodes(twins: Twins) -> None:
    """In rounds, as below."""
    dice = random.Random(7)
    for number in range(12):
        await twins.create("nodes", node(number, dice))
    for turn in range(24):
        await twins.pass_time(dice.choice((0, 1, 60)))
        for number in range(12):
            now = rfc3339(twins.one.clock.time())
            resource, patch = _said_of_node(number, turn, now, dice)[turn % 6]
            await twins.patch(resource, f"node-{number}", patch, STRATEGIC, field_manager="one")
    assert twins.foretold > 20


async def test_random_changes_of_random_kinds(twins: Twins) -> None:
    """In rounds: the same is done to all objects of a kind, with other values."""
    dice = random.Random(2)
    for turn in range(30):
        resource = list(MAKERS)[turn % len(MAKERS)]
        numbers = range(turn * 10, turn * 10 + 8)
        for number in numbers:
            await twins.create(resource, MAKERS[resource](number))
        for change in dice.sample((_annotate, _label, _put, _apply, _patch_json), 2):
            await twins.pass_time(dice.choice((0, 1, 3600)))
            more = {"field_manager": dice.choice(("one", "other")), "field_validation": dice.choice(("Warn", "Strict"))}
            for number in numbers:
                name = name_of(resource, number)
                await change(twins, dice, resource, name, twins.obj(resource, name), **more)
    assert twins.foretold > 50


async def _annotate(twins: Twins, dice: random.Random, resource: str, name: str, obj: Object, **more: Any) -> None:
    value = dice.choice(("1", "2", "3", "é", None, 'say "x"') if dice.random() < 0.3 else ("1", "2", "three"))
    patch = {"metadata": {"annotations": {"e.com/a": value, "x.k8s.io/a": "x"}}}
    await twins.patch(resource, name, patch, MERGE, **more)


async def _label(twins: Twins, dice: random.Random, resource: str, name: str, obj: Object, **more: Any) -> None:
    uid = obj["metadata"]["uid"] if dice.random() < 0.8 else _uid(1)
    patch = {"metadata": {"labels": {"e.com/l": dice.choice(("1", "1", "1", None))}, "uid": uid}}
    await twins.patch(resource, name, patch, STRATEGIC, **more)


async def _put(twins: Twins, dice: random.Random, resource: str, name: str, obj: Object, **more: Any) -> None:
    metadata = obj["metadata"]
    if dice.random() < 0.8:
        metadata.pop("managedFields", None)
    metadata["annotations"] = {**metadata.get("annotations", {}), "put": dice.choice("abcdef")}
    if dice.random() < 0.2:
        metadata["resourceVersion"] = dice.choice(("1", "", "007"))
    obj = _with_news(dice, resource, obj, twins.one.clock.time())
    await twins.update(resource, name, obj, dice.choice((codec.JSON, codec.MSGPACK)), **more)


async def _apply(twins: Twins, dice: random.Random, resource: str, name: str, obj: Object, **more: Any) -> None:
    config = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": {"name": name}}
    config["metadata"]["annotations"] = {"applied": dice.choice("abcdef")}
    config = _with_news(dice, resource, config, twins.one.clock.time())
    await twins.patch(resource, name, config, APPLY, force=dice.random() < 0.8, **more)


async def _patch_json(twins: Twins, dice: random.Random, resource: str, name: str, obj: Object, **more: Any) -> None:
    """What it tests stands at other places than in the object."""
    uid = obj["metadata"]["uid"] if dice.random() < 0.8 else _uid(1)
    patch = [{"op": "test", "path": "/metadata/uid", "value": uid}]
    patch.append({"op": "add", "path": "/metadata/labels", "value": {"j": "x"}})
    await twins.patch(resource, name, patch, JSON_PATCH, **more)


def _with_news(dice: random.Random, resource: str, obj: Object, now: float) -> Object:
    """With something of the kind's own changed."""
    spec = obj.setdefault("spec", {}) if resource not in ("configmaps", "pods") else {}
    if resource == "configmaps":
        obj["data"] = {"key": dice.choice(("a", "b", "c", "d", "")), "more": str(dice.randrange(2))}
    elif resource.startswith("deployments"):
        spec["replicas"] = dice.choice((0, 1, 2, 3, 4, 5, 3.0, -1))
    elif resource.startswith("leases"):
        spec["renewTime"] = rfc3339(now)[:-1] + dice.choice((".000001Z", ".000002Z", ".000003Z", ".1Z", "Z"))
        spec["holderIdentity"] = dice.choice(("a", "b"))
    return obj


def event(number: int) -> Object:
    """As the scheduler records it."""
    regarding = {"kind": "Pod", "namespace": "default", "name": f"pod-{number}", "uid": _uid(number)}
    return {
        "metadata": {"name": f"pod-{number}.{number:016x}", "namespace": "default"},
        "eventTime": f"2027-01-15T08:00:00.{number:06}Z",
        "reportingController": "scheduler",
        "reportingInstance": "scheduler-1",
        "action": "Binding",
        "reason": "Scheduled",
        "regarding": regarding,
        "note": f'Successfully assigned "pod-{number}"',
        "type": "Normal",
    }


def core_event(number: int) -> Object:
    involved = {"kind": "Pod", "namespace": "default", "name": f"pod-{number}", "resourceVersion": str(number + 1)}
    times = {"firstTimestamp": "2027-01-15T08:00:00Z", "lastTimestamp": "2027-01-15T08:00:01Z"}
    metadata = {"name": f"core-{number}", "namespace": "default"}
    return {
        "metadata": metadata,
        "involvedObject": involved,
        "reason": "R",
        "message": f"m {number}",
        "count": 1,
        **times,
    }


NEW = {**MAKERS, "events": core_event, "events.events.k8s.io": event}
ODD: tuple[Callable[[Object], None], ...] = (
    _set("metadata", "name", "UPPER"),
    _set("metadata", "name", "with.dots"),
    _set("metadata", "name", ""),
    _set("metadata", "generateName", "made-"),
    _set("metadata", "labels", {"a": "b"}),
    _set("metadata", "annotations", {"e.com/a": "x"}),
    _set("metadata", "resourceVersion", "7"),
    _set("metadata", "uid", _uid(7)),
    _set("metadata", "creationTimestamp", "2027-01-15T08:00:00Z"),
    _set("metadata", "namespace", "other"),
    _set("metadata", "managedFields", []),
    _set("nonsense", 1),
    _set("spec", {}),
    _set("data", {"key": "é"}),
    _set("eventTime", "2027-01-15T08:00:00Z"),
    _set("note", "x" * 1025),
    _set("lastTimestamp", None),
)


@pytest.mark.parametrize("resource", [resource for resource in NEW if resource != "pods"])
async def test_new_objects(twins: Twins, resource: str) -> None:
    dice = random.Random(3)
    for number in range(60):
        if dice.random() < 0.2:
            await twins.pass_time(1)
        media = codec.JSON if number % 3 and not resource.endswith("events.k8s.io") else codec.MSGPACK
        obj = NEW[resource](number if dice.random() < 0.9 else 1)
        if number > 20 and dice.random() < 0.3:
            dice.choice(ODD)(obj)
        if obj["metadata"].get("name"):
            await twins.post(resource, obj, media, field_manager=dice.choice(("one", "one", "other")))
    assert twins.foretold > 10
    assert len(set(twins.uids)) == len(twins.uids)


@pytest.mark.parametrize("resource", ["configmaps", "deployments.apps", "leases.coordination.k8s.io"])
async def test_applies_to_names_that_there_were_not(twins: Twins, resource: str) -> None:
    dice = random.Random(4)
    for number in range(30):
        if dice.random() < 0.2:
            await twins.pass_time(1)
        rtype = twins.one.call("get", resource).rtype
        config = {"apiVersion": rtype.api_version("v1"), "kind": rtype.kind, **MAKERS[resource](number)}
        name = config["metadata"]["name"] if dice.random() < 0.9 else "other"
        if dice.random() < 0.2:
            dice.choice(ODD)(config)
        told = await twins.apply(resource, name, config, field_manager="one", force=True)
        assert not told or number, told
    assert len(set(twins.uids)) == len(twins.uids) > 30


def _deployment(name: str, wanted: Any, labels: dict[str, str], *, expressed: bool) -> Object:
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}
    expressions = [{"key": "app", "operator": "In", "values": [wanted, "both"]}]
    selector = {"matchExpressions": expressions} if expressed else {"matchLabels": {"app": wanted}}
    spec = {"replicas": 1, "selector": selector, "template": template}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec}


@pytest.mark.parametrize("expressed", [False, True], ids=["labels", "expressions"])
async def test_selectors_are_compared_with_labels_that_differ(twins: Twins, expressed: bool) -> None:
    dice = random.Random(5)
    refusals = set()
    for number in range(60):
        label = dice.choice((f"d-{number}", f"d-{number}", f"d-{number}", "both", "Upper", "v1.0", "", "no value!"))
        wanted = label if dice.random() < 0.7 else dice.choice((f"e-{number}", "both", 7, None))
        labels = {"app": label, "app.kubernetes.io/name": f"n-{number}"}
        obj = _deployment(f"d-{number}", wanted, labels, expressed=expressed)
        if number % 2:
            told = await twins.post("deployments.apps", obj)
        else:
            config = {"apiVersion": "apps/v1", "kind": "Deployment", **obj}
            told = await twins.apply("deployments.apps", f"d-{number}", config, field_manager="one")
        refusals.add("does not match template" in told)
    assert refusals == {True, False}
    assert twins.foretold > 3


async def test_labels_that_change_are_compared_with_selectors(twins: Twins) -> None:
    dice = random.Random(6)
    refusals = set()
    for number in range(60):
        name, label = f"d-{number}", dice.choice((f"l-{number}", f"d-{number}", "both", "v1.0"))
        await twins.create("deployments.apps", _deployment(name, label, {"app": label}, expressed=False))
        other = dice.choice((label, label, f"m-{number}", "Upper"))
        labels = {"app": other, "more": f"n-{number}"}
        patch = {"metadata": {"labels": labels}, "spec": {"template": {"metadata": {"labels": labels}}}}
        refusals.add(await twins.patch("deployments.apps", name, patch) != "")
    assert refusals == {True, False}
    assert twins.foretold > 5


async def test_a_new_object_that_was_there_is_a_conflict(twins: Twins) -> None:
    for number in range(6):
        assert not await twins.post("configmaps", config_map(number))
    assert twins.foretold
    assert 'configmaps "map-3" already exists' in await twins.post("configmaps", config_map(3))


# ---------------------------------------------------------------- only while that holds


async def annotated(twins: Twins, number: int, **more: Any) -> bool:
    """Whether an annotation, another one each time, was foretold."""
    before = twins.foretold
    name = f"pod-{number % 3}"
    patch = {"metadata": {"annotations": {"e.com/a": f"value-{number}"}}}
    assert not await twins.patch("pods", name, patch, MERGE, field_manager="one", **more)
    return twins.foretold > before


@pytest.fixture
async def usual(twins: Twins) -> Twins:
    """Annotations of Pods are foretold."""
    for number in range(3):
        await twins.create("pods", pod(number))
    await twins.pass_time(1)
    for number in range(3):
        await annotated(twins, number)
    await twins.pass_time(1)
    seen = [await annotated(twins, number) for number in range(3, 12)]
    assert seen[-1]
    return twins


async def test_the_fourth_of_its_kind_is_foretold(twins: Twins) -> None:
    for number in range(5):
        await twins.create("configmaps", config_map(number))
    foretold = []
    for number in range(5):
        before = twins.foretold
        await twins.patch("configmaps", f"map-{number}", {"data": {"key": f"new {number}"}})
        foretold.append(twins.foretold > before)
    assert foretold == [False, False, False, True, True]


async def test_pods_whose_labels_differ_are_alike(twins: Twins) -> None:
    foretold = []
    for number in range(5):
        await twins.create("pods", pod(number, labels={"app": f"app-{number}"}))
        before, now = twins.foretold, rfc3339(twins.one.clock.time())
        assert not await twins.patch("pods/status", f"pod-{number}", status(number, now), STRATEGIC)
        foretold.append(twins.foretold > before)
    assert foretold[-1]


@pytest.mark.parametrize("more", [{"dry_run": True}, {"annotations": {}}, {"field_validation": "Strict"}])
async def test_other_requests_are_others(usual: Twins, more: Object) -> None:
    assert not await annotated(usual, 50, **more)


async def test_another_writer_is_another(usual: Twins) -> None:
    before = usual.foretold
    patch = {"metadata": {"annotations": {"e.com/a": "x"}}}
    assert not await usual.patch("pods", "pod-0", patch, MERGE, field_manager="two")
    assert usual.foretold == before
    entries = usual.obj("pods", "pod-0")["metadata"]["managedFields"]
    assert "two" in [entry["manager"] for entry in entries]


async def test_what_admission_looks_at_has_changed(usual: Twins) -> None:
    for cluster in (usual.one, usual.other):
        await cluster.patch("namespaces", "default", {"metadata": {"labels": {"a": "b"}}})
    assert not await annotated(usual, 50)
    assert any([await annotated(usual, number) for number in range(51, 60)])


async def test_a_quota_is_asked(usual: Twins) -> None:
    for cluster in (usual.one, usual.other):
        await cluster.create("resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "10"}}})
    await annotated(usual, 50)


async def test_the_same_value_again_writes_nothing(usual: Twins) -> None:
    patch = {"metadata": {"annotations": {"e.com/a": "same"}}}
    versions = set()
    for _ in range(6):
        await usual.pass_time(1)
        assert not await usual.patch("pods", "pod-0", patch, MERGE, field_manager="one")
        versions.add(usual.obj("pods", "pod-0")["metadata"]["resourceVersion"])
    assert len(versions) == 1


async def test_who_is_not_there_is_not_found(usual: Twins) -> None:
    async with refused(404, "NotFound", 'pods "pod-9" not found'):
        await usual.one.patch("pods", "pod-9", {"metadata": {"annotations": {"e.com/a": "x"}}})


async def test_other_ways_to_write_the_same_are_seen(usual: Twins) -> None:
    """A value that is stored already, in escapes."""
    for number in range(6):
        await annotated(usual, number)
        body = b'{"metadata":{"annotations":{"e.com/a":"value-\\u003%d"}}}' % number
        version = usual.obj("pods", f"pod-{number % 3}")["metadata"]["resourceVersion"]
        assert not await usual.patch("pods", f"pod-{number % 3}", body, MERGE, field_manager="one")
        assert usual.obj("pods", f"pod-{number % 3}")["metadata"]["resourceVersion"] == version


async def test_directives_look_elsewhere(usual: Twins) -> None:
    for number in range(6):
        assert not await usual.patch("pods/status", f"pod-{number % 3}", status(number, rfc3339(NOW)), MERGE)
        deleted = {"status": {"podIPs": [{"ip": "10.0.0.1", "$patch": "delete"}], "podIP": None}}
        await usual.patch("pods/status", f"pod-{number % 3}", deleted, STRATEGIC)


async def test_writers_at_once_lose_nothing(usual: Twins) -> None:
    import asyncio

    async def add(number: int) -> None:
        patch = {"metadata": {"annotations": {"e.com/a": f"value-{number}", f"e.com/{number}": "x"}}}
        await usual.one.patch("pods", "pod-0", patch, field_manager="one", user=ADMIN)

    await asyncio.gather(*map(add, range(8)))
    assert len(usual.obj("pods", "pod-0")["metadata"]["annotations"]) == 9

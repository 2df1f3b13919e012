"""An object that is cast is the one that the long way would have made, and is cast only while that holds."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from clusters import Cluster, refused, running

from fastkube._casts import Cast
from fastkube.api import codec
from fastkube.errors import ApiError

Object = dict[str, Any]

_new = re.compile(r'"uid": "[-0-9a-f]{36}"|kube-api-access-[a-z0-9]{5}')


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with running(tmp_path, disable=()) as made:
        await made.create("serviceaccounts", {"metadata": {"name": "default"}})
        yield made


async def post(cluster: Cluster, body: bytes, media: str = codec.JSON, **more: Any) -> tuple[Object, bool]:
    """As the server does it: the object, and whether it was cast."""
    call = cluster.call("create", "pods", **more)
    cast = cluster.registry.cast(call, media, body)
    if isinstance(cast, Cast):
        revision = await cluster.registry.create_cast(call, cast)
        shown: Object = json.loads(cast.json(revision))
        assert shown == cluster.get("pods", cast.name.decode(), namespace=call.namespace)
        cluster.warnings = call.warnings
        return shown, True
    stored = await cluster.registry.create(call, codec.decode(body, media, "Pod", call.faults, merges=True))
    if cast is not None:
        cast.learn(stored.value, cluster.registry.timestamp(call))
    return cluster.decoded(stored), False


def encoded(obj: Object, media: str = codec.JSON) -> bytes:
    return codec.encode(obj, media)


def pod(name: str, **more: Any) -> Object:
    container = {"name": "c", "image": "i:1", "resources": {"requests": {"cpu": "1m"}}}
    return {"metadata": {"name": name}, "spec": {"containers": [container]}, **more}


async def are_cast(cluster: Cluster, *objects: Object, media: str = codec.JSON, **more: Any) -> list[bool]:
    return [(await post(cluster, encoded(obj, media), media, **more))[1] for obj in objects]


# ---------------------------------------------------------------- the same as the long way

CHANCES: tuple[tuple[tuple[str, ...], Any], ...] = (
    (("metadata", "labels"), {"app": "a", "name": "x"}),
    (("metadata", "annotations"), {"e.com/note": 'say "é" \\ \u0001'}),
    (("metadata", "finalizers"), ["e.com/f"]),
    (("metadata", "ownerReferences"), [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}]),
    (("metadata", "creationTimestamp"), "2020-01-01T00:00:00Z"),
    (("metadata", "managedFields"), []),
    (("status",), {"phase": "Running"}),
    (("spec", "volumes"), [{"name": "v", "emptyDir": {}}]),
    (("spec", "volumes"), [{"name": "kube-api-access-abcde", "emptyDir": {}}]),
    (("spec", "volumes"), [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}}}]),
    (("spec", "tolerations"), [{"operator": "Exists"}]),
    (("spec", "schedulingGates"), [{"name": "e.com/gate"}]),
    (("spec", "hostNetwork"), True),
    (("spec", "restartPolicy"), "Never"),
    (("spec", "nodeSelector"), {"zone": "z"}),
    (("spec", "priorityClassName"), "system-node-critical"),
    (("spec", "automountServiceAccountToken"), False),
    (("spec", "initContainers"), [{"name": "i", "image": "busybox"}]),
    (("spec", "terminationGracePeriodSeconds"), -1),
    (("spec", "topologySpreadConstraints"), [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {}, "matchLabelKeys": ["app"]}]),
    (("spec", "affinity"), {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]}}}),
    (("spec", "nonsense"), 1),
    (("spec", "serviceAccountName"), "default"),
    (("spec", "hostname"), "Bad_"),
)  # fmt: skip


def random_pod(dice: random.Random) -> Object:
    made = pod("")
    for path, value in dice.sample(CHANCES, dice.randrange(5)):
        holder = made
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = copy.deepcopy(value)
    return made


def settled(obj: Object, name: str) -> str:
    """As text, without what is new in each object."""
    obj["metadata"].pop("resourceVersion", None)
    return _new.sub("*", json.dumps(obj).replace(f'"{name}"', '"NAME"'))


async def outcome(cluster: Cluster, obj: Object, media: str, name: str, **more: Any) -> tuple[str, list[str], bool]:
    cast = False
    try:
        made, cast = await post(cluster, encoded(obj, media), media, **more)
        told = settled(made, name or made["metadata"]["name"])
    except ApiError as error:
        told = re.sub(r"made-up-\w{5}", "NAME", error.message)
    return told, cluster.warnings, cast


async def test_what_is_cast_is_what_the_long_way_makes(cluster: Cluster) -> None:
    dice = random.Random(20)
    casts = 0
    for number in range(80):
        obj = random_pod(dice)
        media = dice.choice((codec.JSON, codec.MSGPACK))
        generated = dice.random() < 0.3
        validation = dice.choice(("Warn", "Ignore"))
        for turn in range(4):
            name = "" if generated else f"turn-{number}-{turn}"
            del obj["metadata"]["generateName" if "generateName" in obj["metadata"] else "name"]
            obj["metadata"] |= {"generateName": "made-up-"} if generated else {"name": name}
            more: dict[str, Any] = {"field_manager": "tests", "field_validation": validation}
            wanted = await outcome(cluster, obj, media, name, dry_run=True, **more)
            found = await outcome(cluster, obj, media, name, **more)
            assert found[:2] == wanted[:2]
            casts += found[2]
            await cluster.clock.advance(1)
    assert casts > 80  # of 160 that come for the third or fourth time


# ---------------------------------------------------------------- when


async def test_the_third_of_a_shape_is_cast(cluster: Cluster) -> None:
    assert await are_cast(cluster, *(pod(f"pod-{number}") for number in range(4))) == [False, False, True, True]


@pytest.mark.parametrize("media", [codec.JSON, codec.MSGPACK])
async def test_made_up_names_differ(cluster: Cluster, media: str) -> None:
    obj = {**pod(""), "metadata": {"generateName": "web-"}}
    assert await are_cast(cluster, *[obj] * 6, media=media) == [False, False, True, True, True, True]
    assert len(set(cluster.names("pods"))) == 6


async def test_a_made_up_name_that_is_taken_is_made_up_anew(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    obj = {
        **pod(""),
        "metadata": {"generateName": "web-"},
        "spec": {**pod("")["spec"], "automountServiceAccountToken": False},
    }
    names = iter(["web-11111", "web-22222", "web-11111", "web-33333"])
    monkeypatch.setattr("fastkube.api.meta.generate_name", lambda base: next(names))
    assert await are_cast(cluster, obj, obj, obj) == [False, False, True]
    assert cluster.names("pods") == ["web-11111", "web-22222", "web-33333"]


async def test_a_name_that_is_taken_is_a_conflict(cluster: Cluster) -> None:
    await are_cast(cluster, *(pod(f"pod-{number}") for number in range(3)))
    async with refused(409, "AlreadyExists", 'pods "pod-1" already exists'):
        await post(cluster, encoded(pod("pod-1")))


@pytest.mark.parametrize("name", ["Bad_", "a.b", "", "x" * 64, "-a", 'a"b', "a\\u0062"])
async def test_names_that_are_no_labels_go_the_long_way(cluster: Cluster, name: str) -> None:
    await are_cast(cluster, *(pod(f"pod-{number}") for number in range(3)))
    body = encoded(pod("NAME")).replace(b"NAME", name.encode())
    call = cluster.call("create", "pods")
    assert not isinstance(cluster.registry.cast(call, codec.JSON, body), Cast)


@pytest.mark.parametrize(
    "body",
    [
        b'{"metadata":{"name":"%b","name":"pod-%b"},"spec":{"containers":[{"name":"c","image":"i"}]}}',
        b'{"metadata":{"labels":{"name":"%b"},"name":"pod-%b"},"spec":{"containers":[{"name":"c","image":"i"}]}}',
        b'{"spec":{"containers":[{"name":"%b","image":"i"}]},"metadata":{"name":"pod-%b"}}',
    ],
)
async def test_what_only_looks_like_the_name_is_not_taken_for_it(cluster: Cluster, body: bytes) -> None:
    for turn in (b"a", b"b", b"c", b"d"):
        made, cast = await post(cluster, body % (turn, turn))
        assert (made["metadata"]["name"], cast) == (f"pod-{turn.decode()}", False)


async def test_a_name_that_stands_for_something_else_too_makes_no_mould(cluster: Cluster) -> None:
    spec = {"containers": [{"name": "web", "image": "web"}]}
    assert await are_cast(cluster, pod("web", spec=spec), pod("web-1", spec=spec), pod("web-2", spec=spec)) == [
        False,
        False,
        True,
    ]
    labels = {"containers": [{"name": "c", "image": "pod-1"}]}
    assert not any(await are_cast(cluster, *(pod(f"pod-{number}", spec=labels) for number in range(2))))


async def test_writers_and_namespaces_have_moulds_of_their_own(cluster: Cluster) -> None:
    await cluster.create("namespaces", {"metadata": {"name": "other"}})
    await cluster.create("serviceaccounts", {"metadata": {"name": "default"}}, namespace="other")
    await are_cast(cluster, *(pod(f"pod-{number}") for number in range(3)))
    assert await are_cast(cluster, pod("a1"), field_manager="somebody") == [False]
    assert await are_cast(cluster, pod("a2"), field_validation="Strict") == [False]
    assert await are_cast(cluster, pod("a3"), namespace="other") == [False]
    assert await are_cast(cluster, pod("a4"), annotations={}) == [False]
    assert await are_cast(cluster, pod("a5")) == [True]


# ---------------------------------------------------------------- for how long

CHANGES: dict[str, tuple[str, Object]] = {
    "a limit range": ("limitranges", {"metadata": {"name": "l"}, "spec": {"limits": [
        {"type": "Container", "defaultRequest": {"memory": "7Mi"}}]}}),
    "a default priority": ("priorityclasses.scheduling.k8s.io", {
        "metadata": {"name": "p"}, "value": 7, "globalDefault": True}),
    "a pull secret": ("serviceaccounts", {"metadata": {"name": "default"}, "imagePullSecrets": [{"name": "s"}]}),
}  # fmt: skip


@pytest.mark.parametrize("change", list(CHANGES))
async def test_what_admission_looks_at_has_changed(cluster: Cluster, change: str) -> None:
    await are_cast(cluster, *(pod(f"pod-{number}") for number in range(3)))
    resource, obj = CHANGES[change]
    if resource == "serviceaccounts":
        await cluster.update(resource, obj)
    else:
        await cluster.create(resource, obj)
    wanted = await outcome(cluster, pod("pod-x"), codec.JSON, "pod-x", dry_run=True)
    assert await outcome(cluster, pod("pod-x"), codec.JSON, "pod-x") == wanted
    assert await are_cast(cluster, pod("pod-y")) == [True]


async def test_a_quota_is_charged(cluster: Cluster) -> None:
    await are_cast(cluster, *(pod(f"pod-{number}") for number in range(3)))
    await cluster.create("resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "4"}}})
    quota = cluster.get("resourcequotas", "q")
    await cluster.update("resourcequotas/status", {**quota, "status": {"hard": {"pods": "4"}, "used": {"pods": "3"}}})
    assert await are_cast(cluster, pod("fourth")) == [False]
    async with refused(403, "Forbidden", "exceeded quota: q, requested: pods=1, used: pods=4, limited: pods=4"):
        await post(cluster, encoded(pod("fifth")))


async def test_nothing_is_cast_into_a_namespace_that_is_going(cluster: Cluster) -> None:
    await cluster.create("namespaces", {"metadata": {"name": "other"}})
    await cluster.create("serviceaccounts", {"metadata": {"name": "default"}}, namespace="other")
    await are_cast(cluster, *(pod(f"pod-{number}") for number in range(3)), namespace="other")
    await cluster.delete("namespaces", "other")
    async with refused(403, "Forbidden", "because it is being terminated"):
        await post(cluster, encoded(pod("late")), namespace="other")


async def test_a_stricter_pod_security_level_counts_at_once(cluster: Cluster) -> None:
    await are_cast(cluster, *(pod(f"pod-{number}") for number in range(3)))
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    await cluster.patch("namespaces", "default", {"metadata": {"labels": labels}})
    async with refused(403, "Forbidden", 'violates PodSecurity "restricted:latest"'):
        await post(cluster, encoded(pod("late")))

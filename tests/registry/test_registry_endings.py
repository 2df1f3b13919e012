"""An end that is made in the encoded object is the one that a closer look would have made.

Two registries over two stores with the same bytes and revisions. In the other one somebody attends to each kind,
so nothing is foretold there. What they write, answer and refuse must be the same.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from clusters import ADMIN, Cluster, config_map, pod, running

from fastkube.errors import ApiError
from fastkube.registry.deletion import DeleteOptions
from fastkube.registry.registry import Registry
from fastkube.registry.strategy import Call

Object = dict[str, Any]
KINDS = ("pods", "configmaps", "secrets", "jobs.batch", "deployments.apps", "serviceaccounts", "events")


class Bystander:
    """Attends, and does nothing."""

    def on_create(self, call: Call, obj: Object) -> None:
        """Nothing."""

    def on_update(self, call: Call, new: Object, old: Object) -> None:
        """Nothing."""

    def on_delete(self, call: Call, old: Object) -> None:
        """Nothing."""


@pytest.fixture
async def clusters(tmp_path: Path) -> AsyncIterator[tuple[Cluster, Cluster]]:
    async with running(tmp_path / "one") as one, running(tmp_path / "other") as other:
        attended = {(kind.partition(".")[2], kind.partition(".")[0]): Bystander() for kind in KINDS}
        registry = other.registry
        other.registry = Registry(
            other.store, registry.catalog, clock=other.clock, admission=registry.admission, attendants=attended
        )
        yield one, other


async def place(cluster: Cluster, resource: str, obj: Object) -> None:
    """An object as it is stored, so that it is the same in both."""
    call = cluster.call("get", resource, obj["metadata"]["name"])
    await cluster.store.put(call.rtype.key(call.namespace, call.name), msgpack.packb(obj))


def made(dice: random.Random, number: int) -> tuple[str, Object]:
    resource = dice.choice(("pods", "pods", *KINDS))
    obj = pod(f"a-{number}") if resource == "pods" else config_map(f"a-{number}")
    uid = f"{number:08}-aaaa-4bbb-8ccc-dddddddddddd"
    obj["metadata"] |= {"namespace": "default", "uid": uid, "creationTimestamp": "2027-01-15T07:00:00Z"}
    metadata = obj["metadata"]
    if dice.random() < 0.5:
        metadata["generation"] = dice.choice((0, 1, 7, 127, 128, 70000))
    if dice.random() < 0.2:
        metadata["finalizers"] = dice.choice(([], ["e.com/f"], ["orphan"], ["foregroundDeletion"]))
    if dice.random() < 0.3:
        grace = dice.choice((0, 0, 1, 30))
        metadata |= {"deletionTimestamp": "2027-01-15T08:00:20Z", "deletionGracePeriodSeconds": grace}
    metadata |= {f"annotations-{extra}": {} for extra in range(dice.choice((0, 0, 0, 8, 12)))}
    if resource == "pods":
        obj["spec"]["terminationGracePeriodSeconds"] = dice.choice((0, 1, 30))
        if dice.random() < 0.6:
            obj["spec"]["nodeName"] = dice.choice(("", "n1", "n1"))
        if dice.random() < 0.5:
            obj["status"] = {"phase": dice.choice(("Pending", "Running", "Succeeded", "Failed"))}
    return resource, obj


def options(dice: random.Random, uid: str) -> Object:
    chosen: Object = {}
    if dice.random() < 0.7:
        chosen["gracePeriodSeconds"] = dice.choice((0, 0, 1, 5, 30, 60, -1))
    if dice.random() < 0.3:
        chosen["propagationPolicy"] = dice.choice(("Background", "Foreground", "Orphan"))
    elif dice.random() < 0.2:
        chosen["orphanDependents"] = dice.choice((True, False))
    if dice.random() < 0.3:
        chosen["preconditions"] = dice.choice(({"uid": uid}, {"uid": "other"}, {"resourceVersion": "7"}))
    return chosen


async def told(cluster: Cluster, resource: str, name: str, body: Object, *, dry_run: bool) -> Any:
    """The answer or the refusal, the warnings, and what the store's log has of it."""
    before = cluster.store.revision
    call = cluster.call("delete", resource, name)
    call.user, call.dry_run = ADMIN, dry_run
    answer: Any
    try:
        answer = await cluster.registry.delete(call, DeleteOptions.read(body)[0])
    except ApiError as refusal:
        answer = (refusal.code, refusal.reason, refusal.message)
    key = call.rtype.key(call.namespace, call.name)
    return answer, call.warnings, cluster.store.get(key), cluster.store.events(b"/", b"0", before + 1)


@pytest.mark.parametrize("seed", range(4))
async def test_ends_are_the_same(clusters: tuple[Cluster, Cluster], seed: int) -> None:
    dice = random.Random(seed)
    answers = []
    for number in range(150):
        resource, obj = made(dice, number)
        for cluster in clusters:
            await place(cluster, resource, obj)
        for _ in range(dice.choice((1, 1, 2))):
            if dice.random() < 0.3:
                for cluster in clusters:
                    await cluster.clock.advance(1)
            body, dry_run = options(dice, obj["metadata"]["uid"]), dice.random() < 0.1
            name = obj["metadata"]["name"]
            one, other = [await told(cluster, resource, name, body, dry_run=dry_run) for cluster in clusters]
            assert one == other, (resource, obj, body)
            answers.append(one)
    lengths = {len(events.events) for *_, events in answers}
    assert lengths == {0, 1, 2}


async def test_many_deletes_of_one_object_end_it_once(clusters: tuple[Cluster, Cluster]) -> None:
    cluster = clusters[0]
    await cluster.create("pods", pod())
    before = cluster.store.revision
    outcomes = await asyncio.gather(
        *(cluster.delete("pods", "p", {"gracePeriodSeconds": 0}) for _ in range(10)), return_exceptions=True
    )
    refused = [each.code for each in outcomes if isinstance(each, ApiError)]
    assert refused == [404] * 9
    assert cluster.store.revision == before + 2

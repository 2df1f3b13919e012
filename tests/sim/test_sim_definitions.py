"""Of several servers the one that leads does the work of definitions; the others only follow."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from quiet import Cluster
from simloop import SimClock
from simserver import SimServer

from fastkube.api.catalog import Catalog
from fastkube.registry.custom.keeper import PREFIX, Keeper

KEY = PREFIX + b"widgets.example.com"
PLURAL = ("example.com", "widgets")


def definition() -> dict[str, Any]:
    schema = {"openAPIV3Schema": {"type": "object"}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com", "uid": "1", "creationTimestamp": "2024-01-02T03:04:05Z"},
        "spec": {
            "group": "example.com",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "scope": "Namespaced",
            "conversion": {"strategy": "None"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
        "status": {"conditions": [], "storedVersions": ["v1"]},
    }


class Keepers:
    """A keeper with its catalog at each server."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.catalogs: dict[int, Catalog] = {}
        for server in cluster.net.servers.values():
            self.start(server)

    def start(self, server: SimServer) -> None:
        catalog = self.catalogs[server.id] = Catalog.builtin()

        async def begin(store: Any) -> Keeper:
            return Keeper(store, catalog, SimClock(server.loop), lambda *_: pytest.fail("nothing converts here"))

        self.cluster.ask(server, begin)

    def serving(self) -> list[bool]:
        alive = [one.id for one in self.cluster.net.servers.values() if one.store is not None]
        return [self.catalogs[id].get(*PLURAL) is not None for id in alive]


@pytest.fixture
def keepers() -> Iterator[Keepers]:
    with tempfile.TemporaryDirectory(prefix="fastkube-sim-") as path:
        cluster = Cluster(Path(path))
        yield Keepers(cluster)
        cluster.end()


async def create(store: Any) -> None:
    await store.create(KEY, msgpack.packb(definition()))


def test_only_the_leader_proposes(keepers: Keepers) -> None:
    cluster = keepers.cluster
    leader = cluster.leader()
    before = leader.store.applied, leader.store.revision
    cluster.ask(cluster.follower(), create)
    cluster.run(5)
    assert keepers.serving() == [True] * 3
    entries, revisions = leader.store.applied - before[0], leader.store.revision - before[1]
    assert entries == revisions > 1  # every entry of the log was a change: nobody else tried the same


def test_what_the_old_leader_left_undone_the_new_one_does(keepers: Keepers) -> None:
    cluster = keepers.cluster
    leader = cluster.leader()
    cluster.ask(leader, create)
    leader.crash(power=True)
    cluster.run(5)
    assert keepers.serving() == [True] * 2

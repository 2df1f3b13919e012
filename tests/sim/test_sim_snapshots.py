"""A follower that is far behind gets a snapshot, also when its disk has no room for one at first."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from quiet import Cluster
from simserver import SimServer

WRITES = 80  # more than the entries that are kept for who is behind


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="fastkube-sim-") as path:
        made = Cluster(Path(path))
        yield made
        made.end()


async def write_much(store: Any) -> None:
    for number in range(WRITES):
        await store.put(b"key-%d" % number, b"value" * 100)


async def write_later(store: Any) -> None:
    await store.put(b"later", b"x")


def behind(cluster: Cluster) -> SimServer:
    """A follower that missed what the others no longer have as entries; it is down."""
    follower = cluster.follower()
    follower.crash(power=False)
    cluster.ask(cluster.leader(), write_much)
    cluster.run(5)
    return follower


def is_whole(cluster: Cluster, follower: SimServer) -> bool:
    """It serves, has what the others have, and takes part in what comes."""
    cluster.ask(cluster.leader(), write_later)
    cluster.run(2)
    assert follower.store is not None and follower.received > 0
    return follower.store.status().health == "serving" and cluster.has(b"key-7") == cluster.has(b"later") == [True] * 3


def fill(cluster: Cluster, follower: SimServer, late: bool) -> None:
    """Its disk, when a snapshot has come."""
    cluster.world.run_until(cluster.world.now + 5, lambda: follower.received > 0)
    follower.fills_late, follower.data_full = late, not late


def health(follower: SimServer) -> str:
    assert follower.store is not None
    return str(follower.store.status().health)


def test_a_follower_far_behind_gets_a_snapshot(cluster: Cluster) -> None:
    follower = behind(cluster)
    follower.start()
    cluster.run(5)
    assert is_whole(cluster, follower)


@pytest.mark.parametrize("late", [False, True], ids=["before", "at the end"])
def test_without_room_for_a_snapshot_it_waits_and_says_so(cluster: Cluster, late: bool) -> None:
    follower = behind(cluster)
    follower.start()
    fill(cluster, follower, late)
    cluster.run(5)
    assert health(follower) == "no space"
    assert cluster.has(b"key-7").count(True) == 2
    follower.empty_disks()
    cluster.run(5)
    assert is_whole(cluster, follower)


@pytest.mark.parametrize("late", [False, True], ids=["before", "at the end"])
def test_a_server_that_waits_for_room_can_be_stopped_and_started(cluster: Cluster, late: bool) -> None:
    follower = behind(cluster)
    follower.start()
    fill(cluster, follower, late)
    cluster.run(5)
    assert health(follower) == "no space"
    cluster.ask(follower, lambda store: store.close())
    follower.empty_disks()
    follower.crash(power=False)
    follower.start()
    cluster.run(5)
    assert is_whole(cluster, follower)

"""Leases of a replicated store: the leader keeps the time, whoever is asked, and the next one goes on from there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from quiet import Cluster

from fastkube.store import LeaseNotFound


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="fastkube-sim-") as path:
        made = Cluster(Path(path))
        yield made
        made.end()


async def grant(store: Any, ttl_s: int) -> int:
    lease: int = await store.lease_grant(ttl_s)
    await store.create(b"leased", b"x", lease)
    return lease


def test_a_lease_lives_while_any_server_keeps_it_alive(cluster: Cluster) -> None:
    follower = cluster.follower()
    lease = cluster.ask(follower, lambda store: grant(store, 5))
    for _ in range(4):
        cluster.run(3)
        assert cluster.ask(follower, lambda store: store.lease_keepalive(lease)) == 5
    info = cluster.ask(follower, lambda store: store.lease_info(lease))
    assert (info.granted_s, info.keys) == (5, [b"leased"])
    assert 3 < info.left_s <= 5
    assert cluster.has(b"leased") == [True] * 3
    cluster.run(8)
    assert cluster.has(b"leased") == [False] * 3
    with pytest.raises(LeaseNotFound):
        cluster.ask(follower, lambda store: store.lease_keepalive(lease))


def test_a_new_leader_gives_a_lease_its_time_again_and_then_ends_it(cluster: Cluster) -> None:
    leader = cluster.leader()
    cluster.ask(cluster.follower(), lambda store: grant(store, 6))
    cluster.run(4)
    leader.crash(power=True)
    cluster.run(4)  # eight seconds after the grant, but the new leader has counted less than six
    assert cluster.has(b"leased") == [True] * 2
    leader.start()
    cluster.run(8)
    assert cluster.has(b"leased") == [False] * 3
    revisions = {one.store.revision for one in cluster.net.servers.values() if one.store is not None}
    assert len(revisions) == 1


def test_what_is_left_of_a_long_lease_survives_the_leader(cluster: Cluster) -> None:
    leader = cluster.leader()
    lease = cluster.ask(leader, lambda store: grant(store, 1000))
    cluster.run(650)  # two checkpoints
    leader.crash(power=False)
    cluster.run(5)
    info = cluster.ask(cluster.leader(), lambda store: store.lease_info(lease))
    assert 300 < info.left_s < 450
    assert cluster.ask(cluster.follower(), lambda store: store.lease_keepalive(lease)) == 1000
    cluster.run(1)
    assert cluster.ask(cluster.leader(), lambda store: store.lease_info(lease)).left_s > 990

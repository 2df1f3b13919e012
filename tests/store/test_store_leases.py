"""Leases: granted, kept alive, run out, revoked, and remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fastkube.clock import ManualClock
from fastkube.store import DELETE, InvalidRequest, LeaseExists, LeaseNotFound, Put, Store, Write

OpenStore = Callable[..., Awaitable[Store]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(open_store: OpenStore, clock: ManualClock) -> Store:
    return await open_store(clock=clock)


async def gone(store: Store, key: bytes) -> int:
    """Wait for the delete of `key`; its revision."""
    async for batch in store.watch(key, None, max(store.compacted, 2)):
        for event in batch:
            if event.type == DELETE:
                return event.revision
    raise AssertionError("the watch ended")


async def test_a_lease_is_granted_under_a_drawn_or_a_given_id(store: Store) -> None:
    drawn = await store.lease_grant(10)
    assert drawn > 0
    assert await store.lease_grant(20, 7) == 7
    with pytest.raises(LeaseExists):
        await store.lease_grant(20, 7)
    assert store.leases() == sorted([drawn, 7])
    assert store.lease_ttl(7) == (7, 20.0, 20, [])
    assert store.revision == 1
    for ttl_s, lease in ((0, 1), (-1, 1), (10_000_000_000, 1), (5, -1)):
        with pytest.raises(InvalidRequest):
            await store.lease_grant(ttl_s, lease)


async def test_keys_go_with_their_lease_in_one_revision(store: Store) -> None:
    lease = await store.lease_grant(10)
    await store.create(b"b", b"1", lease)
    await store.create(b"a", b"1", lease)
    await store.create(b"c", b"1")
    assert store.lease_ttl(lease).keys == [b"a", b"b"]
    watcher = store.watch(b"a", b"z")
    assert await store.lease_revoke(lease) == 5
    assert [(event.key, event.type, event.revision) for event in await anext(watcher)] == [
        (b"a", DELETE, 5),
        (b"b", DELETE, 5),
    ]
    assert [item.key for item in store.range(b"a", b"z").items] == [b"c"]
    assert store.leases() == []
    with pytest.raises(LeaseNotFound):
        await store.lease_revoke(lease)


async def test_a_key_belongs_to_the_lease_of_its_last_write(store: Store) -> None:
    first, second = await store.lease_grant(10), await store.lease_grant(10)
    revision = await store.create(b"a", b"1", first)
    assert store.get(b"a").lease == first
    revision = await store.update(b"a", b"2", revision, second)
    await store.lease_revoke(first)
    assert store.get(b"a").lease == second
    await store.update(b"a", b"3", revision)
    await store.lease_revoke(second)
    assert store.get(b"a").lease == 0
    third = await store.lease_grant(10)
    await store.txn([], [Put(b"a", b"4", third)])
    await store.delete(b"a")
    assert store.lease_ttl(third).keys == []


async def test_a_write_under_an_unknown_lease_is_refused(store: Store) -> None:
    with pytest.raises(LeaseNotFound):
        await store.create(b"a", b"1", 99)
    results = await store.write([Write(b"a", b"1", lease=99), Write(b"b", b"1")])
    assert isinstance(results[0], LeaseNotFound)
    assert results[1] == 2
    for call in (store.lease_keepalive(99), store.lease_revoke(99)):
        with pytest.raises(LeaseNotFound):
            await call
    with pytest.raises(LeaseNotFound):
        store.lease_ttl(99)


async def test_a_lease_that_runs_out_deletes_its_keys(store: Store, clock: ManualClock) -> None:
    lease = await store.lease_grant(10)
    await store.create(b"a", b"1", lease)
    await clock.advance(9)
    assert store.lease_ttl(lease).left_s == 1
    assert store.get(b"a") is not None
    await clock.advance(1)
    assert await asyncio.wait_for(gone(store, b"a"), 30) == 3
    assert store.leases() == []


async def test_keepalive_begins_the_time_again(store: Store, clock: ManualClock) -> None:
    lease = await store.lease_grant(10)
    await store.create(b"a", b"1", lease)
    for _ in range(5):
        await clock.advance(6)
        assert await store.lease_keepalive(lease) == 10
    assert store.get(b"a") is not None
    await clock.advance(10)
    with pytest.raises(LeaseNotFound):
        await store.lease_keepalive(lease)
    await asyncio.wait_for(gone(store, b"a"), 30)


async def test_a_shorter_lease_granted_later_runs_out_first(store: Store, clock: ManualClock) -> None:
    long, short = await store.lease_grant(100), await store.lease_grant(5)
    await store.create(b"long", b"1", long)
    await store.create(b"short", b"1", short)
    await clock.advance(5)
    await asyncio.wait_for(gone(store, b"short"), 30)
    assert store.leases() == [long]
    await clock.advance(95)
    await asyncio.wait_for(gone(store, b"long"), 30)


async def test_leases_outlive_the_process_and_begin_their_time_again(open_store: OpenStore, clock: ManualClock) -> None:
    store = await open_store(clock=clock)
    lease = await store.lease_grant(10)
    await store.create(b"a", b"1", lease)
    await clock.advance(8)
    await store.close()
    store = await open_store(clock=clock)
    assert store.lease_ttl(lease) == (lease, 10.0, 10, [b"a"])
    await clock.advance(9)
    assert store.get(b"a") is not None
    await clock.advance(1)
    await asyncio.wait_for(gone(store, b"a"), 30)

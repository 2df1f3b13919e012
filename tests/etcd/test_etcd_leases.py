"""Lease, Lock, Election, Cluster and Maintenance over gRPC."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

from wire import Client, of, put_op

from fastkube.etcd import messages as m
from fastkube.etcd.backup import load
from fastkube.store import Store, check

NOT_FOUND = ("NOT_FOUND", "etcdserver: requested lease not found")


async def time_to_live(client: Client, lease: int) -> Any:
    path = "/etcdserverpb.Lease/LeaseTimeToLive"
    words = {"id": lease, "keys": True}
    return await client.call(path, m.LEASE_TIME_TO_LIVE_REQUEST, m.LEASE_TIME_TO_LIVE_RESPONSE, **words)


async def keep_alive(client: Client, *leases: int) -> list[tuple[int, int]]:
    path = "/etcdserverpb.Lease/LeaseKeepAlive"
    answers = client.stream(path, m.LEASE_ID, m.LEASE_RESPONSE, *map(m.LeaseId, leases))
    return [(answer.id, answer.ttl) async for answer in answers]


async def revoke(client: Client, lease: int) -> Any:
    return await client.call("/etcdserverpb.Lease/LeaseRevoke", m.LEASE_ID, m.HEADER_ONLY, id=lease)


async def lock(client: Client, name: bytes, lease: int = 0) -> Any:
    return await client.call("/v3lockpb.Lock/Lock", m.LOCK_REQUEST, m.LOCK_RESPONSE, name=name, lease=lease)


async def test_a_lease_takes_its_keys_with_it(client: Client) -> None:
    granted = await client.grant(100, 4711)
    assert (granted.id, granted.ttl) == (4711, 100)
    assert await client.refused(client.grant(100, 4711)) == ("FAILED_PRECONDITION", "etcdserver: lease already exists")
    await client.txn([], [put_op(b"l1/a", lease=4711), put_op(b"l1/b", lease=4711)])
    found = await time_to_live(client, 4711)
    assert (found.granted_ttl, found.keys, 98 <= found.ttl <= 100) == (100, [b"l1/a", b"l1/b"], True)
    listed = await client.call("/etcdserverpb.Lease/LeaseLeases", m.EMPTY, m.LEASE_LEASES_RESPONSE)
    assert m.LeaseId(4711) in listed.leases
    stream = client.watch()
    await stream.create(b"l1/", b"l10")
    revision = (await revoke(client, 4711)).header.revision
    told = await stream.read()
    assert [(item.key, item.mod_revision) for _, item, _ in told.events] == [(b"l1/a", revision), (b"l1/b", revision)]
    assert (await time_to_live(client, 4711)).ttl == -1
    assert await client.refused(revoke(client, 4711)) == NOT_FOUND
    assert await client.refused(client.put(b"l1/c", lease=4711)) == NOT_FOUND


async def test_keepalives_are_answered_in_their_turn(client: Client) -> None:
    first, second = (await client.grant(50)).id, (await client.grant(60)).id
    assert await keep_alive(client, first, 99, second, first) == [(first, 50), (99, 0), (second, 60), (first, 50)]


async def test_a_lease_that_nobody_keeps_runs_out(client: Client) -> None:
    granted = await client.grant(1)
    assert granted.ttl == 2, "etcd's least"
    stream = client.watch()
    await stream.create(b"l2")
    await client.put(b"l2", lease=granted.id)
    assert await stream.keys(2) == [(0, b"l2"), (1, b"l2")]


async def test_a_lock_is_held_by_one_and_handed_on(client: Client) -> None:
    leases = [(await client.grant(60)).id for _ in range(3)]
    held = await lock(client, b"lock", leases[0])
    assert held.key == b"lock/%x" % leases[0]
    assert (await lock(client, b"lock", leases[0])).key == held.key, "again by the same owner"
    stream = client.watch()
    await stream.create(b"lock/", b"lock0")
    waiting = [asyncio.ensure_future(lock(client, b"lock", lease)) for lease in leases[1:]]
    claims = {key: kind for kind, key in await stream.keys(2)}
    assert claims == {b"lock/%x" % lease: 0 for lease in leases[1:]}
    waiting[0].cancel()  # one who gives up leaves no key behind
    assert await stream.keys(1) == [(1, b"lock/%x" % leases[1])]
    assert not waiting[1].done()
    await client.call("/v3lockpb.Lock/Unlock", m.UNLOCK_REQUEST, m.HEADER_ONLY, key=held.key)
    assert (await waiting[1]).key == b"lock/%x" % leases[2]


async def test_an_election_has_one_leader_and_tells_who_it_is(client: Client) -> None:
    async def campaign(value: bytes) -> Any:
        lease = (await client.grant(60)).id
        words = {"name": b"post", "lease": lease, "value": value}
        path = "/v3electionpb.Election/Campaign"
        return await client.call(path, m.CAMPAIGN_REQUEST, m.CAMPAIGN_RESPONSE, **words)

    observed = client.stream(
        "/v3electionpb.Election/Observe", m.LEADER_REQUEST, m.LEADER_RESPONSE, m.LeaderRequest(b"post")
    )
    first = (await campaign(b"one")).leader
    assert (await anext(observed)).kv.value == b"one"
    second = asyncio.ensure_future(campaign(b"two"))
    await client.call(
        "/v3electionpb.Election/Proclaim", m.PROCLAIM_REQUEST, m.HEADER_ONLY, leader=first, value=b"one, again"
    )
    assert (await anext(observed)).kv.value == b"one, again"
    assert not second.done()
    await client.call("/v3electionpb.Election/Resign", m.RESIGN_REQUEST, m.HEADER_ONLY, leader=first)
    assert (await second).leader.name == b"post"
    assert (await anext(observed)).kv.value == b"two"
    late = client.call(
        "/v3electionpb.Election/Proclaim", m.PROCLAIM_REQUEST, m.HEADER_ONLY, leader=first, value=b"no more"
    )
    assert await client.refused(late) == ("UNKNOWN", "election: not leader")
    nobody = client.call("/v3electionpb.Election/Leader", m.LEADER_REQUEST, m.LEADER_RESPONSE, name=b"nobody")
    assert await client.refused(nobody) == ("UNKNOWN", "election: no leader")


async def test_who_is_there_without_others(client: Client, url: str) -> None:
    words = {"linearizable": True}
    listed = await client.call("/etcdserverpb.Cluster/MemberList", m.MEMBER_LIST_REQUEST, m.MEMBERS_RESPONSE, **words)
    status = await client.status()
    assert [(member.name, member.client_urls) for member in listed.members] == [("default", [url])]
    assert status.leader == status.header.member_id == listed.members[0].id
    assert (status.errors, status.raft_term, status.raft_index) == ([], 2, status.raft_applied_index)
    unknown = client.call("/etcdserverpb.Cluster/MemberRemove", m.MEMBER_ID, m.MEMBERS_RESPONSE, id=5)
    assert await client.refused(unknown) == ("NOT_FOUND", "etcdserver: member not found")


async def test_a_snapshot_is_etcds_file_with_its_checksum_behind_it(client: Client, tmp_path: Path) -> None:
    await client.put(b"s1", b"kept")
    answers = client.stream("/etcdserverpb.Maintenance/Snapshot", m.EMPTY, m.SNAPSHOT_RESPONSE, m.Empty())
    pieces = [answer async for answer in answers]
    data = b"".join(answer.blob for answer in pieces)
    assert data[-32:] == hashlib.sha256(data[:-32]).digest()
    assert pieces[0].remaining_bytes == len(data) - 32 - len(pieces[0].blob)
    (tmp_path / "file").write_bytes(data[:-32])
    load(tmp_path / "file", tmp_path / "store")
    assert check.check(tmp_path / "store").ok
    store = await Store.open(tmp_path / "store", sync=False)
    kept = store.get(b"\x01s1")
    await store.close()
    assert kept is not None and kept.value == b"kept"
    hashed = await client.call("/etcdserverpb.Maintenance/Hash", m.EMPTY, m.HASH_RESPONSE)
    at = await client.call("/etcdserverpb.Maintenance/HashKV", m.HASH_KV_REQUEST, m.HASH_KV_RESPONSE)
    assert (hashed.hash, hashed.header.revision) == (at.hash, at.hash_revision)
    assert of(m.HASH_KV_REQUEST).revision == 0

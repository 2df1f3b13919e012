"""The store on an etcd cluster: what a real etcd, its absence and its compaction make of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgpack
import pytest
from etcds import Etcd, fresh_prefix, open_store
from proxies import Proxy

from fastkube.server import pki
from fastkube.store import (
    ANY,
    DELETE,
    PUT,
    TO_THE_END,
    Compacted,
    Compare,
    Delete,
    Event,
    InvalidRequest,
    KeyExists,
    KeyMissing,
    LeaseNotFound,
    Put,
    Range,
    RevisionMismatch,
    Store,
    StoreClosed,
    StoreUnavailable,
    Write,
    prefix_end,
)

MAPS = b"/registry/configmaps/default/"


def value(text: str = "") -> bytes:
    packed: bytes = msgpack.packb({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": text}})
    return packed


@pytest.fixture
async def store(tmp_path: Path, etcd: Etcd) -> AsyncIterator[Store]:
    opened = await open_store(tmp_path, etcd)
    yield opened
    await opened.close()


async def reaches(store: Store, revision: int) -> None:
    reached = asyncio.Event()
    subscription = store.subscribe(b"/", TO_THE_END, lambda events, now: now < revision or reached.set(), always=True)
    if store.revision < revision:
        await asyncio.wait_for(reached.wait(), 30)
    subscription.cancel()


# ---------------------------------------------------------------- writes


async def test_writes_and_their_refusals(store: Store) -> None:
    a, b = MAPS + b"a", MAPS + b"b"
    first = await store.create(a, value("1"))
    with pytest.raises(KeyExists) as exists:
        await store.create(a, value("2"))
    assert (exists.value.item.mod_revision, exists.value.item.value) == (first, value("1"))
    second = await store.update(a, value("2"), first)
    with pytest.raises(RevisionMismatch) as stale:
        await store.update(a, value("3"), first)
    assert stale.value.item is not None and stale.value.item.mod_revision == second
    with pytest.raises(RevisionMismatch):
        await store.update(b, value("1"), 1)
    with pytest.raises(KeyMissing):
        await store.delete(b)
    gone = await store.delete(a, second)
    assert (gone.value, gone.create_revision, gone.version) == (value("2"), first, 2)
    assert store.get(a) is None and store.get(a, second) is not None
    results = await store.write([Write(a, value("3")), Write(a, value("4"), 0), Write(b, value("1"), 0)])
    assert [type(each) for each in results] == [int, KeyExists, int]


async def test_a_last_version_is_seen_before_the_end(store: Store) -> None:
    a = MAPS + b"a"
    first = await store.create(a, value("1"))
    with pytest.raises(RevisionMismatch):
        await store.retire(a, value("2"), first + 1000)
    with pytest.raises(KeyMissing):
        await store.delete(MAPS + b"b")
    gone = await store.retire(a, value("2"), first)
    assert (gone.value, store.get(a)) == (value("2"), None)
    events = store.events(a, None, first + 1).events
    assert [(event.type, event.prev and event.prev.value) for event in events] == [(0, value("1")), (1, value("2"))]


async def test_writes_of_one_key_in_one_call_keep_their_order(store: Store) -> None:
    chain = [Write(MAPS + b"chain", value(str(number)), ANY if number else 0) for number in range(40)]
    others = [Write(MAPS + b"other%d" % number, value("1"), 0) for number in range(40)]
    results = await store.write([each for pair in zip(chain, others, strict=True) for each in pair])
    revisions = [each for each in results[::2] if isinstance(each, int)]
    assert revisions == sorted(revisions) and len(revisions) == len(set(revisions)) == 40
    last = store.get(MAPS + b"chain")
    assert last is not None and (last.version, last.value) == (40, value("39"))


async def test_a_thousand_writes_of_one_key_that_etcd_cannot_be_asked_for(store: Store) -> None:
    results = await store.write([Write(MAPS + b"none", b"\xc1")] * 1024)
    assert {type(each) for each in results} == {InvalidRequest} and len(results) == 1024
    assert store.get(MAPS + b"none") is None


async def test_a_transaction(store: Store) -> None:
    a, b = MAPS + b"a", MAPS + b"b"
    await store.create(a, value("1"))
    done = await store.txn([Compare(b, "mod", "=", 0)], [Put(b, value("2")), Delete(a)], [Range(b)])
    assert done.succeeded and done.responses[1].deleted[0].value == value("1")  # type: ignore[union-attr]
    done = await store.txn(
        [Compare(b, "version", ">", 7)], [Delete(b)], [Range(MAPS, prefix_end(MAPS)), Put(a, value())]
    )
    assert not done.succeeded and [item.key for item in done.responses[0].items] == [b]  # type: ignore[union-attr]
    assert store.get(a) is not None
    with pytest.raises(InvalidRequest, match="values"):
        await store.txn([Compare(b, "value", "=", value("2"))], [Delete(b)])
    with pytest.raises(InvalidRequest, match="no prefix"):
        await store.txn([], [Delete(a, MAPS + b"z")])


async def test_large_values_pass(store: Store) -> None:
    """More than a window of HTTP/2 at once, both ways."""
    large = value("x" * 1_000_000)
    await asyncio.gather(*(store.create(MAPS + b"%d" % number, large) for number in range(24)))
    assert [item.value for item in store.range(MAPS, prefix_end(MAPS)).items] == [large] * 24
    with pytest.raises(InvalidRequest, match="request is too large"):
        await store.create(MAPS + b"larger", value("x" * 2_000_000))


async def test_leases_are_those_of_etcd(store: Store) -> None:
    lease = await store.lease_grant(100)
    await store.create(MAPS + b"leased", value(), lease)
    info = await store.lease_info(lease)
    assert (info.granted_s, info.keys, info.left_s > 90) == (100, [MAPS + b"leased"], True)
    assert await store.lease_keepalive(lease) == 100
    await store.lease_revoke(lease)
    await store.read_barrier()  # type: ignore[misc]
    assert store.get(MAPS + b"leased") is None
    for missing in (store.lease_keepalive(lease), store.lease_info(lease)):
        with pytest.raises(LeaseNotFound):
            await missing
    with pytest.raises(LeaseNotFound):
        await store.create(MAPS + b"late", value(), lease)


# ---------------------------------------------------------------- the copy


async def test_a_store_that_was_closed_is_closed(tmp_path: Path, etcd: Etcd) -> None:
    prefix = fresh_prefix()
    store = await open_store(tmp_path, etcd, prefix)
    watcher = store.watch(MAPS, prefix_end(MAPS))
    revision = await store.create(MAPS + b"a", value())
    await anext(watcher)
    await store.close()
    with pytest.raises(StopAsyncIteration):
        await anext(watcher)
    with pytest.raises(StoreClosed):
        store.get(MAPS + b"a")
    again = await open_store(tmp_path, etcd, prefix)  # in the same folder: nothing holds its lock
    found = again.get(MAPS + b"a")
    assert found is not None and found.mod_revision == revision
    await again.close()


async def test_the_copy_has_etcds_revisions(store: Store, etcd: Etcd) -> None:
    """Also where others write to the same etcd, which is seen as a step of the revision alone."""
    watcher = store.watch(MAPS, prefix_end(MAPS))
    first = await store.create(MAPS + b"a", value("1"))
    etcd.ctl("put", "/elsewhere", "x")
    await store.read_barrier()  # type: ignore[misc]
    assert store.revision == first + 1
    second = await store.update(MAPS + b"a", value("2"), first)
    assert second == first + 2
    seen: list[Event] = []
    while len(seen) < 2:
        seen += await asyncio.wait_for(anext(watcher), 30)
    assert [(event.type, event.revision, event.version) for event in seen] == [(PUT, first, 1), (PUT, second, 2)]
    assert (await store.check()).problems == []


async def test_a_server_that_was_cut_off_while_etcd_compacted(tmp_path: Path, etcd: Etcd) -> None:
    prefix = fresh_prefix()
    proxy = Proxy(0, etcd.port)
    await proxy.start()
    near, far = await open_store(tmp_path / "near", etcd, prefix), await open_store(tmp_path / "far", proxy, prefix)
    try:
        pictured: dict[bytes, bytes] = {}

        def picture(events: list[Event], revision: int) -> None:
            for event in events:
                if event.type == DELETE:
                    del pictured[event.key]
                else:
                    pictured[event.key] = event.value

        far.subscribe(MAPS, prefix_end(MAPS), picture)
        await near.create(MAPS + b"gone", value("1"))
        revision = await near.create(MAPS + b"kept", value("1"))
        await reaches(far, revision)
        watcher = far.watch(MAPS, prefix_end(MAPS), revision)
        await anext(watcher)
        proxy.close()
        await near.delete(MAPS + b"gone")
        await near.update(MAPS + b"kept", value("2"), revision)
        await near.create(MAPS + b"new", value("1"))
        revision = await near.create(MAPS + b"newer", value("1"))
        etcd.ctl("compact", str(revision))
        proxy.open()
        await reaches(far, revision)
        assert pictured == {item.key: item.value for item in near.range(MAPS, prefix_end(MAPS)).items}
        with pytest.raises(Compacted):
            await anext(watcher)
        again = await far.create(MAPS + b"after", value())
        assert pictured[MAPS + b"after"] == value()
        await reaches(near, again)
    finally:
        await far.close()
        await near.close()
        proxy.stop()


async def test_another_endpoint_is_asked_when_one_is_gone(tmp_path: Path, etcd: Etcd) -> None:
    proxies = [Proxy(0, etcd.port), Proxy(0, etcd.port)]
    for proxy in proxies:
        await proxy.start()
    store = await open_store(tmp_path, proxies)
    try:
        for number in range(4):
            closed = proxies[number % 2]
            closed.close()
            async with asyncio.timeout(20):
                while True:
                    try:
                        await store.create(MAPS + b"%d" % number, value())
                        break
                    except (StoreUnavailable, KeyExists):  # it was under way, and may be done
                        if store.get(MAPS + b"%d" % number) is not None:
                            break
            closed.open()
        assert len(store.range(MAPS, prefix_end(MAPS)).items) == 4
    finally:
        await store.close()
        for proxy in proxies:
            proxy.stop()


async def test_tls_with_certificates_on_both_sides(tmp_path: Path) -> None:
    files = pki.prepare_peers(tmp_path / "pki", ("127.0.0.1",), time.time())
    trusted = ("--trusted-ca-file", files.ca_cert, "--client-cert-auth")
    own = Etcd(tmp_path, "--cert-file", files.cert, "--key-file", files.key, *trusted, scheme="https")
    own.start()
    try:
        with pytest.raises(StoreUnavailable, match="CERTIFICATE"):
            await open_store(tmp_path / "a", own)
        options = {"etcd_cafile": files.ca_cert, "etcd_certfile": files.cert, "etcd_keyfile": files.key}
        store = await open_store(tmp_path / "b", own, **options)
        await store.create(MAPS + b"a", value())
        assert store.get(MAPS + b"a") is not None
        await store.close()
    finally:
        own.stop()

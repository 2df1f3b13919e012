"""Reads: ranges, old revisions, compaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fastkube.store import TO_THE_END, Compacted, FutureRevision, InvalidRequest, Store, Write, prefix_end

OpenStore = Callable[..., Awaitable[Store]]


async def fill(store: Store, keys: int = 10) -> None:
    """Keys k0, k1, ... at revisions 2, 3, ..."""
    await store.write([Write(b"k%d" % n, b"v%d" % n) for n in range(keys)])


def keys_of(result: object) -> list[bytes]:
    return [item.key for item in result.items]  # type: ignore[attr-defined]


async def test_a_range_excludes_its_end(store: Store) -> None:
    await fill(store)
    assert keys_of(store.range(b"k2", b"k5")) == [b"k2", b"k3", b"k4"]
    assert keys_of(store.range(b"k8", prefix_end(b"k"))) == [b"k8", b"k9"]
    assert keys_of(store.range(b"k8", TO_THE_END)) == [b"k8", b"k9"]
    assert keys_of(store.range(b"", TO_THE_END))[:2] == [b"k0", b"k1"]
    assert keys_of(store.range(b"x", b"z")) == []
    assert keys_of(store.range(b"k5", b"k2")) == []


@pytest.mark.parametrize("revision", [0, 11, 8])
async def test_limit_more_and_count(store: Store, revision: int) -> None:
    await fill(store)
    await store.write([Write(b"k0", None), Write(b"k0", b"again")])
    expected = [b"k%d" % n for n in range(7 if revision == 8 else 10)]
    whole = store.range(b"k", b"l", revision=revision)
    assert keys_of(whole) == expected
    assert (whole.more, whole.count, whole.revision) == (False, len(expected), 13)
    first = store.range(b"k", b"l", revision=revision, limit=3)
    assert keys_of(first) == expected[:3]
    assert (first.more, first.count) == (True, len(expected))
    exact = store.range(b"k", b"l", revision=revision, limit=len(expected))
    assert (exact.more, exact.count) == (False, len(expected))
    assert store.range(b"k", b"l", revision=revision, count_only=True) == ([], False, len(expected), 13)


@pytest.mark.parametrize("revision", [0, 9])
async def test_a_reversed_range(store: Store, revision: int) -> None:
    await fill(store)
    await store.update(b"k5", b"new", 7)
    await store.delete(b"k3")
    expected = [b"k6", b"k5", b"k4", b"k2"] if not revision else [b"k6", b"k5", b"k4", b"k3", b"k2"]
    assert keys_of(store.range(b"k2", b"k7", reverse=True, revision=revision)) == expected
    assert keys_of(store.range(b"k2", b"k7", reverse=True, limit=2, revision=revision)) == expected[:2]
    if not revision:
        assert keys_of(store.range(b"k8", TO_THE_END, reverse=True)) == [b"k9", b"k8"]


async def test_keys_only_leaves_the_values_out(store: Store) -> None:
    await fill(store, 2)
    assert [(item.key, item.value, item.mod_revision) for item in store.range(b"k", b"l", keys_only=True).items] == [
        (b"k0", b"", 2),
        (b"k1", b"", 3),
    ]


async def test_every_old_revision_can_be_read(store: Store) -> None:
    await store.create(b"a", b"1")  # 2
    await store.create(b"b", b"1")  # 3
    await store.update(b"a", b"2", 2)  # 4
    await store.delete(b"b")  # 5
    await store.create(b"b", b"2")  # 6
    await store.delete(b"a")  # 7
    expected = {
        1: {},
        2: {b"a": b"1"},
        3: {b"a": b"1", b"b": b"1"},
        4: {b"a": b"2", b"b": b"1"},
        5: {b"a": b"2"},
        6: {b"a": b"2", b"b": b"2"},
        7: {b"b": b"2"},
    }
    for revision, values in expected.items():
        result = store.range(b"a", b"z", revision=revision)
        assert {item.key: item.value for item in result.items} == values
        assert {item.key: item.value for item in store.scan(b"a", b"z", revision=revision)} == values
        for key in (b"a", b"b", b"c"):
            item = store.get(key, revision)
            assert (item.value if item else None) == values.get(key)


async def test_pages_of_one_revision_say_how_many_keys_are_left(store: Store) -> None:
    for number in range(25):
        await store.create(b"k%03d" % number, b"v")
    revision = store.revision
    for round_ in range(2):
        start, left = b"k", 25
        while left > 4:
            page = store.range(start, b"l", revision=revision, limit=4)
            assert (page.more, page.count, len(page.items)) == (True, left, 4)
            start, left = page.items[-1].key + b"\0", left - 4
            await store.create(b"k%03d-%d" % (left, round_), b"later")
            if round_:
                await store.delete(b"k%03d" % left)
        page = store.range(start, b"l", revision=revision, limit=4)
        assert (page.more, page.count, len(page.items)) == (False, left, left)
    assert store.range(b"k", b"l", limit=1).count == store.range(b"k", b"l", count_only=True).count


async def test_neighbours_with_a_common_prefix_are_told_apart_in_history(store: Store) -> None:
    for key in (b"a", b"a\x00", b"a\x00\x00\x00\x00\x00\x00\x00\x00\x05", b"ab"):
        await store.update(key, b"2", await store.create(key, b"1"))
        await store.delete(key)
    assert keys_of(store.range(b"a", b"b", revision=3)) == [b"a"]
    assert store.get(b"a", 4) is None
    assert store.get(b"a\x00", 6).value == b"2"
    assert keys_of(store.range(b"a\x00", b"b", revision=12)) == [b"ab"]


async def test_a_future_revision_is_refused(store: Store) -> None:
    await store.create(b"a", b"1")
    for read in (
        lambda: store.get(b"a", 3),
        lambda: store.range(b"a", b"b", revision=3),
        lambda: store.scan(b"a", b"b", revision=3),
    ):
        with pytest.raises(FutureRevision) as refusal:
            read()
        assert refusal.value.revision == 2


async def test_compaction_keeps_what_can_be_read_from_its_revision_on(store: Store) -> None:
    await store.create(b"a", b"1")  # 2
    await store.update(b"a", b"2", 2)  # 3
    await store.create(b"b", b"1")  # 4
    await store.update(b"a", b"3", 3)  # 5
    await store.delete(b"b")  # 6
    await store.compact(4, physical=True)
    assert store.compacted == 4
    assert store.get(b"a", 4).value == b"2"
    assert store.get(b"b", 4).value == b"1"
    assert keys_of(store.range(b"a", b"z", revision=5)) == [b"a", b"b"]
    for read in (
        lambda: store.get(b"a", 3),
        lambda: store.range(b"a", b"z", revision=3),
        lambda: store.scan(b"a", b"z", revision=3),
    ):
        with pytest.raises(Compacted) as refusal:
            read()
        assert refusal.value.revision == 4
    with pytest.raises(Compacted):
        await store.compact(4)
    with pytest.raises(FutureRevision):
        await store.compact(7)
    with pytest.raises(InvalidRequest):
        await store.compact(0)
    await store.compact(6, physical=True)
    assert keys_of(store.range(b"a", b"z")) == [b"a"]


async def test_compaction_frees_the_room_in_the_background(store: Store) -> None:
    revision = await store.create(b"a", b"x" * 1000)
    for _ in range(5):
        for n in range(200):
            last = store.update(b"a", b"x" * 1000, revision + n)
        revision = await last
    filled = store.status().live_bytes
    await store.compact(store.revision)
    await store.create(b"b", b"1")  # writes go on meanwhile
    await store.compact(store.revision, physical=True)
    status = store.status()
    assert status.live_bytes < filled / 10
    assert not status.trimming


async def test_trimming_goes_on_after_opening_again(open_store: OpenStore) -> None:
    store = await open_store()
    for n in range(1500):
        last = store.create(b"a%d" % n, b"1")
    await last
    await store.compact(store.revision)
    await store.close()
    store = await open_store()
    assert store.compacted == 1501
    await store.create(b"b", b"1")
    await store.compact(store.revision, physical=True)
    assert not store.status().trimming


async def test_a_scan_stays_at_its_revision(store: Store) -> None:
    await fill(store, 50)
    scan = store.scan(b"k", b"l")
    first = next(scan)
    await store.write([Write(b"k%d" % n, None) for n in range(50)])
    assert first.key == b"k0"
    assert len(list(scan)) == 49
    assert store.range(b"k", b"l").count == 0


async def test_reads_see_what_was_acknowledged(store: Store) -> None:
    async def write_and_read(n: int) -> None:
        for turn in range(20):
            key = b"%d-%d" % (n, turn)
            revision = await store.create(key, b"v")
            assert store.get(key).mod_revision == revision
            assert store.revision >= revision

    await asyncio.gather(*(write_and_read(n) for n in range(20)))

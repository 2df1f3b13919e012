"""Writes: conditions, revisions and transactions as etcd has them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastkube.store import (
    ABSENT,
    ANY,
    Compacted,
    Compare,
    Delete,
    DeleteResponse,
    DuplicateKey,
    FutureRevision,
    InvalidRequest,
    Item,
    KeyExists,
    KeyMissing,
    LeaseNotFound,
    Put,
    PutResponse,
    Range,
    RevisionMismatch,
    Store,
    StoreClosed,
    TxnResult,
    Write,
)
from fastkube.store.records import escape, history_key, split_history_key


async def test_an_empty_store_is_at_revision_one(store: Store) -> None:
    assert store.revision == 1
    assert store.compacted == 0
    assert store.get(b"a") is None
    assert store.range(b"a", b"z") == ([], False, 0, 1)


async def test_create_update_and_delete_count_revisions_and_versions(store: Store) -> None:
    assert await store.create(b"a", b"1") == 2
    assert store.get(b"a") == Item(b"a", b"1", 2, 2, 1, 0)
    assert await store.create(b"b", b"1") == 3
    assert await store.update(b"a", b"2", 2) == 4
    assert store.get(b"a") == Item(b"a", b"2", 2, 4, 2, 0)
    deleted = await store.delete(b"a", 4)
    assert deleted == (b"a", b"2", 2, 4, 2, 0, 5)
    assert deleted.delete_revision == 5
    assert store.get(b"a") is None
    assert await store.create(b"a", b"3") == 6
    assert store.get(b"a") == Item(b"a", b"3", 6, 6, 1, 0)


async def test_a_last_version_and_its_end_are_two_revisions_or_nothing(store: Store) -> None:
    assert await store.create(b"a", b"1") == 2
    with pytest.raises(RevisionMismatch):
        await store.retire(b"a", b"2", 1)
    with pytest.raises(KeyMissing):
        await store.retire(b"b", b"2", 2)
    with pytest.raises(InvalidRequest):
        await store.retire(b"", b"2", 2)
    assert store.revision == 2
    assert await store.retire(b"a", b"2", 2) == (b"a", b"2", 2, 3, 2, 0, 4)
    assert store.get(b"a") is None
    assert [store.get(b"a", revision) for revision in (2, 3, 4)] == [
        Item(b"a", b"1", 2, 2, 1, 0),
        Item(b"a", b"2", 2, 3, 2, 0),
        None,
    ]
    events = store.events(b"a", None, 3).events
    assert [(event.type, event.revision, event.prev and event.prev.value) for event in events] == [
        (0, 3, b"1"),
        (1, 4, b"2"),
    ]
    assert (await store.check()).ok


async def test_writers_at_once_retire_a_key_once(store: Store) -> None:
    revision = await store.create(b"a", b"1")
    both = await asyncio.gather(
        store.retire(b"a", b"2", revision),
        store.update(b"a", b"3", revision),
        store.retire(b"a", b"4", revision),
        store.create(b"a", b"5"),
        return_exceptions=True,
    )
    assert [type(each).__name__ for each in both] == ["Deleted", "RevisionMismatch", "KeyMissing", "int"]
    assert store.revision == revision + 3


async def test_a_write_whose_condition_fails_changes_nothing(store: Store) -> None:
    revision = await store.create(b"a", b"1")
    with pytest.raises(KeyExists) as exists:
        await store.create(b"a", b"2")
    assert exists.value.item == Item(b"a", b"1", 2, 2, 1, 0)
    with pytest.raises(RevisionMismatch) as mismatch:
        await store.update(b"a", b"2", revision + 1)
    assert mismatch.value.item == store.get(b"a")
    with pytest.raises(RevisionMismatch) as missing:
        await store.update(b"b", b"2", revision)
    assert missing.value.item is None
    with pytest.raises(RevisionMismatch):
        await store.delete(b"a", revision + 1)
    with pytest.raises(KeyMissing):
        await store.delete(b"b")
    assert store.revision == revision


async def test_many_writes_in_one_call_are_independent(store: Store) -> None:
    await store.create(b"a", b"1")
    results = await store.write(
        [
            Write(b"b", b"1", ABSENT),
            Write(b"a", b"2", ABSENT),
            Write(b"a", b"2", 2),
            Write(b"c", b"1", ANY),
            Write(b"c", b"2", ANY),
            Write(b"x", None, ANY),
            Write(b"b", None, ANY),
        ]
    )
    assert results[0] == 3
    assert isinstance(results[1], KeyExists)
    assert results[2:5] == [4, 5, 6]
    assert isinstance(results[5], KeyMissing)
    assert results[6] == (b"b", b"1", 3, 3, 1, 0, 7)
    assert store.get(b"c") == Item(b"c", b"2", 5, 6, 2, 0)


async def test_writes_of_one_loop_turn_are_done_in_their_order(store: Store) -> None:
    futures = [store.create(b"%03d" % n, b"v") for n in range(300)]
    assert await asyncio.gather(*futures) == list(range(2, 302))


async def test_a_write_sees_those_before_it_in_the_same_commit(store: Store) -> None:
    created = store.create(b"a", b"1")
    again = store.create(b"a", b"2")
    updated = store.update(b"a", b"3", 2)
    deleted = store.delete(b"a")
    anew = store.create(b"a", b"4")
    assert await created == 2
    with pytest.raises(KeyExists):
        await again
    assert await updated == 3
    assert (await deleted).delete_revision == 4
    assert await anew == 5


async def test_a_cancelled_caller_does_not_disturb_the_others(store: Store) -> None:
    first = asyncio.ensure_future(store.create(b"a", b"1"))
    second = store.create(b"b", b"1")
    first.cancel()
    assert await second == 3
    assert store.get(b"a") is not None


async def test_a_transaction_is_one_revision(store: Store) -> None:
    await store.create(b"x", b"0")
    result = await store.txn([], [Put(b"b", b"1"), Delete(b"x"), Put(b"a", b"2")])
    assert result == TxnResult(
        True,
        3,
        [PutResponse(None, 3), DeleteResponse([Item(b"x", b"0", 2, 2, 1, 0)], 3), PutResponse(None, 3)],
    )
    assert [item.mod_revision for item in store.range(b"a", b"c").items] == [3, 3]
    assert store.revision == 3


async def test_a_transaction_that_changes_nothing_makes_no_revision(store: Store) -> None:
    assert await store.txn([], [Delete(b"a", b"z")]) == TxnResult(True, 1, [DeleteResponse([], 1)])
    assert await store.txn([Compare(b"a", "version", ">", 0)], [Put(b"a", b"1")]) == TxnResult(False, 1, [])
    assert store.revision == 1


async def test_ranges_inside_a_transaction_see_what_it_has_done_so_far(store: Store) -> None:
    await store.create(b"a", b"1")
    result = await store.txn(
        [],
        [
            Range(b"a", b"z"),
            Put(b"b", b"2"),
            Range(b"a", b"z"),
            Range(b"a", b"z", revision=2),
            Range(b"b", revision=2),
            Delete(b"a"),
            Range(b"a", b"z"),
        ],
    )
    before, _, after, old, old_b, _, last = result.responses
    assert [item.key for item in before.items] == [b"a"]
    assert [(item.key, item.mod_revision) for item in after.items] == [(b"a", 2), (b"b", 3)]
    assert [item.key for item in old.items] == [b"a"]
    assert old_b.items == []
    assert [item.key for item in last.items] == [b"b"]


async def test_a_delete_of_a_range_ends_every_key_of_it(store: Store) -> None:
    await store.write([Write(b"k%d" % n, b"v", ABSENT) for n in range(5)])
    result = await store.txn([], [Delete(b"k1", b"k4")])
    assert [item.key for item in result.responses[0].deleted] == [b"k1", b"k2", b"k3"]
    assert [item.key for item in store.range(b"k", b"l").items] == [b"k0", b"k4"]
    assert store.revision == 7


@pytest.mark.parametrize(
    ("target", "op", "value", "holds"),
    [
        ("create", "=", 2, True),
        ("create", "!=", 2, False),
        ("mod", "=", 3, True),
        ("mod", ">", 2, True),
        ("mod", ">", 3, False),
        ("mod", "<", 4, True),
        ("version", "=", 2, True),
        ("version", "<", 2, False),
        ("value", "=", b"v2", True),
        ("value", "!=", b"v2", False),
        ("value", ">", b"v1", True),
        ("value", "<", b"v10", False),
        ("lease", "=", 0, True),
        ("lease", "!=", 0, False),
    ],
)
async def test_compare_targets(store: Store, target: str, op: str, value: Any, holds: bool) -> None:
    await store.update(b"k", b"v2", await store.create(b"k", b"v1"))
    result = await store.txn([Compare(b"k", target, op, value)], [Put(b"t", b"")], [Put(b"f", b"")])
    assert result.succeeded is holds
    assert store.get(b"t" if holds else b"f") is not None


@pytest.mark.parametrize(
    ("compare", "holds"),
    [
        (Compare(b"none", "create", "=", 0), True),
        (Compare(b"none", "mod", "<", 1), True),
        (Compare(b"none", "version", "!=", 0), False),
        (Compare(b"none", "lease", "=", 0), True),
        (Compare(b"none", "value", "=", b""), False),
        (Compare(b"none", "value", "!=", b"x"), False),
    ],
)
async def test_a_missing_key_compares_as_zero_and_its_value_as_nothing(
    store: Store, compare: Compare, holds: bool
) -> None:
    assert (await store.txn([compare], [])).succeeded is holds


async def test_a_compare_on_a_range_must_hold_for_every_key(store: Store) -> None:
    await store.write([Write(b"a", b"1", ABSENT), Write(b"b", b"1", ABSENT)])
    assert (await store.txn([Compare(b"a", "version", "=", 1, b"z")], [])).succeeded
    await store.update(b"b", b"2", 3)
    assert not (await store.txn([Compare(b"a", "version", "=", 1, b"z")], [])).succeeded
    assert (await store.txn([Compare(b"x", "version", "=", 0, b"z")], [])).succeeded


async def test_all_compares_must_hold(store: Store) -> None:
    await store.create(b"a", b"1")
    compares = [Compare(b"a", "mod", "=", 2), Compare(b"b", "mod", "=", 0)]
    assert (await store.txn(compares, [Put(b"b", b"1")])).succeeded
    assert not (await store.txn(compares, [Put(b"b", b"2")])).succeeded
    assert store.get(b"b").value == b"1"


async def test_compares_are_decided_before_the_transaction_changes_anything(store: Store) -> None:
    """Of two transactions in one commit, the second sees the first, and neither sees itself."""
    take = [Compare(b"lock", "create", "=", 0)]
    first = store.txn(take, [Put(b"lock", b"one")], [Range(b"lock")])
    second = store.txn(take, [Put(b"lock", b"two")], [Range(b"lock")])
    assert (await first).succeeded
    result = await second
    assert not result.succeeded
    assert result.responses[0].items[0].value == b"one"


async def test_a_transaction_may_not_change_a_key_twice(store: Store) -> None:
    with pytest.raises(DuplicateKey):
        await store.txn([], [Put(b"a", b"1"), Put(b"a", b"2")])
    with pytest.raises(DuplicateKey):
        await store.txn([], [Put(b"b", b"1"), Delete(b"a", b"c")])
    with pytest.raises(DuplicateKey):
        await store.txn([], [], [Delete(b"b"), Put(b"b", b"1")])
    assert (await store.txn([], [Delete(b"a", b"c"), Delete(b"b", b"d")])).succeeded
    assert store.revision == 1


async def test_a_transaction_that_cannot_be_done_whole_is_not_done_at_all(store: Store) -> None:
    await store.create(b"a", b"1")
    with pytest.raises(LeaseNotFound):
        await store.txn([], [Put(b"b", b"1"), Put(b"c", b"1", 77)])
    with pytest.raises(FutureRevision):
        await store.txn([], [Put(b"b", b"1"), Range(b"a", revision=9)])
    await store.create(b"x", b"1")
    await store.compact(3)
    with pytest.raises(Compacted):
        await store.txn([], [Put(b"b", b"1"), Range(b"a", revision=2)])
    assert store.get(b"b") is None
    assert store.revision == 3


async def test_a_transaction_that_only_reads_needs_no_commit(store: Store) -> None:
    await store.create(b"a", b"1")
    result = await store.txn([Compare(b"a", "mod", "=", 2)], [Range(b"a")], [Range(b"b")])
    assert result == TxnResult(True, 2, [([Item(b"a", b"1", 2, 2, 1, 0)], False, 1, 2)])
    with pytest.raises(FutureRevision):
        await store.txn([], [Range(b"a", revision=3)])
    assert store.status().applied == 1


@pytest.mark.parametrize("key", [b"", b"k" * 501, b"\x00a" * 200])
async def test_keys_that_do_not_fit_are_refused(store: Store, key: bytes) -> None:
    for attempt in (
        lambda: store.create(key, b""),
        lambda: store.delete(key),
        lambda: store.write([Write(key, b"")]),
        lambda: store.txn([], [Put(key, b"")]),
        lambda: store.txn([Compare(key, "mod", "=", 0)], []),
    ):
        with pytest.raises(InvalidRequest):
            await attempt()


async def test_the_longest_keys_and_odd_bytes_are_stored(store: Store) -> None:
    keys = [
        b"k" * 500,
        b"\x00",
        b"\x00" * 500,
        b"\x00" * 127,
        b"\x00" * 128,
        b"\x00" * 127 + b"a",
        b"\x00a" * 160,
        b"a\x00b",
        b"a\x00\xff",
        b"a",
        b"a\x00",
        b"\xff" * 500,
    ]
    for key in keys:
        revision = await store.create(key, key)
        await store.update(key, b"new", revision)
        assert store.get(key, revision) == Item(key, key, revision, revision, 1, 0)
    assert [item.key for item in store.range(b"\x00", b"\x00").items] == sorted(keys)


async def test_wrong_types_and_compares_are_refused_by_name(store: Store) -> None:
    for compare in (
        Compare(b"a", "size", "=", 1),
        Compare(b"a", "mod", "==", 1),
        Compare(b"a", "mod", "=", b"1"),
        Compare(b"a", "value", "=", 1),
    ):
        with pytest.raises(InvalidRequest):
            await store.txn([compare], [])
    with pytest.raises(InvalidRequest):
        await store.create(b"a", "text")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        await store.create("a", b"")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        await store.update(b"a", b"1", 0)
    with pytest.raises(InvalidRequest):
        await store.create(b"a", bytes(17 << 20))


async def test_a_large_value_is_stored(store: Store) -> None:
    value = bytes(range(256)) * 40_000
    revision = await store.create(b"a", value)
    assert store.get(b"a").value == value
    await store.update(b"a", b"", revision)
    assert store.get(b"a", revision).value == value


async def test_a_closed_store_says_so(store: Store) -> None:
    waiting = store.create(b"a", b"1")
    await store.close()
    assert await waiting == 2
    for attempt in (lambda: store.get(b"a"), lambda: store.range(b"a", b"b"), lambda: store.watch(b"a", None)):
        with pytest.raises(StoreClosed):
            attempt()
    with pytest.raises(StoreClosed):
        await store.create(b"b", b"1")
    await store.close()


@pytest.mark.parametrize("sync", [True, False])
async def test_everything_is_there_after_opening_again(open_store: Any, sync: bool) -> None:
    store = await open_store(sync=sync)
    await store.create(b"a", b"1")
    await store.update(b"a", b"2", 2)
    await store.create(b"b", b"1")
    await store.close()
    store = await open_store(sync=sync)
    assert store.revision == 4
    assert store.get(b"a") == Item(b"a", b"2", 2, 3, 2, 0)
    assert store.get(b"a", 2) == Item(b"a", b"1", 2, 2, 1, 0)
    assert await store.create(b"c", b"1") == 5


_RUNS = st.sampled_from([b"\x00", b"\x00" * 127, b"\x00" * 128, b"\x00" * 300, b"\x01", b"a", b"\xff"])
_KEYS = st.lists(_RUNS, min_size=1, max_size=6).map(b"".join)


@settings(deadline=None)
@given(_KEYS, _KEYS, st.integers(0, 9), st.integers(0, 9))
def test_history_keys_keep_the_order_of_keys(one: bytes, other: bytes, first: int, second: int) -> None:
    assert ((one, first) < (other, second)) == (history_key(one, first) < history_key(other, second))
    assert (one < other) == (history_key(one, first) < escape(other)), "as the bound of a range"
    assert split_history_key(history_key(one, first)) == (one, first)

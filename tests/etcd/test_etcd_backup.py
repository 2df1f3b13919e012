"""Snapshots in etcd's form. That etcd itself takes them, and fastkube its, is in test_etcd_etcdctl.py."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fastkube.etcd.backup import load
from fastkube.etcd.bolt import Malformed, Pair, Reader, Writer
from fastkube.store import TO_THE_END, Delete, Item, Put, Store
from fastkube.store.check import check
from fastkube.store.errors import CorruptStore
from fastkube.store.snapshot import backup

BUCKETS: dict[str, list[Pair]] = {
    "nothing": [],
    "one": [(b"k", b"v")],
    "no value": [(b"k", b"")],
    "one page, to the last byte": [(b"k", b"v" * (4096 - 16 - 16 - 1))],
    "one byte more": [(b"k", b"v" * (4096 - 16 - 16))],
    "larger than pages among small ones": [(b"a", b"1"), (b"b", b"v" * 100_000), (b"c", b"3")],
    "many leaves": [(b"%06d" % number, b"v" * (number % 97)) for number in range(5_000)],
    "three levels of branches": [(b"%06d" % number + b"k" * 1_500, b"v" * 2_000) for number in range(60)],
}


def made(path: Path, buckets: dict[bytes, list[Pair]]) -> Path:
    with path.open("wb") as file:
        writer = Writer(file)
        for name, pairs in sorted(buckets.items()):
            writer.bucket(name, pairs)
        writer.close()
    return path


@pytest.mark.parametrize("name", BUCKETS)
def test_buckets_are_read_as_they_were_written(tmp_path: Path, name: str) -> None:
    path = made(tmp_path / "file", {b"before": [(b"x", b"y")], b"it": BUCKETS[name], b"last": []})
    assert path.stat().st_size % 4096 == 0
    with path.open("rb") as file:
        reader = Reader(file)
        assert list(reader.bucket(b"it")) == BUCKETS[name]
        assert list(reader.bucket(b"before")) == [(b"x", b"y")]
        assert list(reader.bucket(b"last")) == list(reader.bucket(b"none")) == []
        reader.close()


@pytest.mark.parametrize("spoil", ["empty", "cut", "both metas", "a page's number", "an element"])
def test_damage_is_seen(tmp_path: Path, spoil: str) -> None:
    path = made(tmp_path / "file", {b"it": BUCKETS["many leaves"]})
    data = bytearray(path.read_bytes())
    if spoil == "empty":
        data.clear()
    elif spoil == "cut":
        del data[-4096:]
    elif spoil == "both metas":
        data[40] ^= 1
        data[4096 + 40] ^= 1
    elif spoil == "a page's number":
        data[5 * 4096] ^= 1
    else:
        data[5 * 4096 + 16 + 11] ^= 0x7F
    path.write_bytes(data)
    with path.open("rb") as file, pytest.raises(Malformed):
        list(Reader(file).bucket(b"it"))


def test_one_spoilt_meta_is_not_the_end(tmp_path: Path) -> None:
    path = made(tmp_path / "file", {b"it": [(b"k", b"v")]})
    data = bytearray(path.read_bytes())
    data[4096 + 40] ^= 1
    path.write_bytes(data)
    with path.open("rb") as file:
        assert list(Reader(file).bucket(b"it")) == [(b"k", b"v")]


def test_a_tree_may_lie_where_new_files_have_their_free_pages(tmp_path: Path) -> None:
    """etcd writes no list of free pages: page 2 is then one like any other."""
    path = made(tmp_path / "file", {b"it": [(b"k", b"v")]})
    data = bytearray(path.read_bytes())
    (root,) = struct.unpack_from("<Q", data, 16 + 16)
    data[2 * 4096 : 3 * 4096] = struct.pack("<Q", 2) + data[root * 4096 + 8 : (root + 1) * 4096]
    for page in range(2):
        body = bytearray(data[page * 4096 + 16 : page * 4096 + 16 + 56])
        struct.pack_into("<Q", body, 16, 2)  # the root
        struct.pack_into("<Q", body, 32, 2**64 - 1)  # no list
        data[page * 4096 + 16 : page * 4096 + 16 + 64] = body + struct.pack("<Q", fnv(bytes(body)))
    path.write_bytes(data)
    with path.open("rb") as file:
        assert list(Reader(file).bucket(b"it")) == [(b"k", b"v")]


def fnv(data: bytes) -> int:
    """FNV-1a of 64 bits."""
    found = 0xCBF29CE484222325
    for code in data:
        found = (found ^ code) * 0x100000001B3 % 2**64
    return found


@asynccontextmanager
async def store_at(path: Path) -> AsyncIterator[Store]:
    store = await Store.open(path, sync=False)
    try:
        yield store
    finally:
        await store.close()


async def test_a_store_becomes_an_etcds_file_and_a_store_again(tmp_path: Path) -> None:
    async with store_at(tmp_path / "first") as store:
        lease = await store.lease_grant(600)
        await store.put(b"/registry/pods/default/a", b"not etcd's")
        for number in range(3):
            await store.put(b"\x01a", b"%d" % number)
        await store.txn((), [Put(b"\x01b", b"1", lease), Put(b"\x01c", b"2"), Put(b"\x01\x00\x00", b"3")])
        await store.txn((), [Delete(b"\x01c"), Put(b"\x01d", b"x" * 9_000)])
        await store.put(b"/registry/pods/default/b", b"nor this")
        await backup(store.path, tmp_path / "file", "fastkube.etcd.backup")  # as the endpoint does
        revision = store.revision
        known = [item for item in store.range(b"", TO_THE_END).items if item.key.startswith(b"\x01")]
    assert load(tmp_path / "file", tmp_path / "second") == f"revision {revision}: 4 keys, 1 leases"
    assert check(tmp_path / "second").problems == []
    async with store_at(tmp_path / "second") as store:
        assert store.range(b"", TO_THE_END).items == known
        assert known[1] == Item(b"\x01a", b"2", 3, 5, 3, 0)
        assert (store.revision, store.compacted) == (revision, revision)
        assert store.lease_ttl(lease).keys == [b"\x01b"]
        assert await store.put(b"\x01e", b"") == revision + 1
        await store.lease_revoke(lease)
        assert store.get(b"\x01b") is None
    assert check(tmp_path / "second").problems == []


def key_values(*records: tuple[int, bool, bytes]) -> list[Pair]:
    """(revision, deleted, the encoded value)."""
    return [
        (number.to_bytes(8, "big") + b"_" + bytes(8) + b"t" * deleted, raw) for number, deleted, raw in sorted(records)
    ]


async def test_older_versions_and_deletes_of_an_etcd_are_passed_over(tmp_path: Path) -> None:
    a, b = b"\x0a\x01a", b"\x0a\x01b"
    one, two = (b"\x10\x02\x18%c\x20%c\x2a\x01v" % (mod, version) for mod, version in ((2, 1), (5, 2)))
    records = key_values((2, False, a + one), (3, False, b + one), (4, True, b), (5, False, a + two))
    made(tmp_path / "file", {b"key": records})
    assert load(tmp_path / "file", tmp_path / "store") == "revision 5: 1 keys, 0 leases"
    assert check(tmp_path / "store").problems == []
    async with store_at(tmp_path / "store") as store:
        assert store.range(b"", TO_THE_END).items == [Item(b"\x01a", b"v", 2, 5, 2, 0)]


def test_what_ends_with_a_delete_or_is_empty_is_sound(tmp_path: Path) -> None:
    put, gone = b"\x0a\x01a\x10\x02\x18\x02\x20\x01", b"\x0a\x01a"
    for name, records in (("deleted", [(2, False, put), (3, True, gone)]), ("empty", [])):
        made(tmp_path / "file", {b"key": key_values(*records)})
        load(tmp_path / "file", tmp_path / name)
        assert check(tmp_path / name).problems == []


@pytest.mark.parametrize(
    ("buckets", "told"),
    [
        ({b"authUsers": [(b"root", b"x")]}, "has users"),
        ({b"key": key_values((2, False, b"\x0a\xf4\x03" + b"k" * 500))}, "revision 2: .*500 bytes"),
        ({b"key": [(b"no revision at all", b"")]}, "is no revision"),
        ({b"key": [(b"short", b"")]}, "damaged"),
        ({b"key": key_values((2, False, b"\x0a\x7f"))}, "damaged"),
    ],
)
def test_what_cannot_be_taken_is_refused(tmp_path: Path, buckets: dict[bytes, list[Pair]], told: str) -> None:
    with pytest.raises(CorruptStore, match=told):
        load(made(tmp_path / "file", buckets), tmp_path / "store")

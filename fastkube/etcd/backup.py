"""Snapshots in etcd's own form: what its clients see of a store as a file of etcd's, and such a file as a store.

    snapshot save (etcdctl) → write → a file that etcdctl, etcdutl and etcd know: status, restore
    fastkube snapshot restore → load, of a file of ours or of an etcd's

The file has the newest version of each key with its revisions, as after a compaction, and the leases. The buckets are
those of etcd 3.4 and later: `key` by revision (8 bytes, "_", 8 bytes of the place in it, "t" behind a delete), `lease`,
and `meta`. Members, users and roles are not in it: a restore makes members anew.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from fastkube._messages import Shape
from fastkube.etcd.bolt import Malformed, Pair, Reader, Writer
from fastkube.etcd.keys import END, PREFIX, stored
from fastkube.etcd.messages import KEY_VALUE
from fastkube.etcd.refusals import Refusal
from fastkube.store.engine import Engine
from fastkube.store.errors import CorruptStore
from fastkube.store.mvcc import Reading
from fastkube.store.records import I64, U64, Item
from fastkube.store.snapshot import Change, load_changes

_REVISION = struct.Struct(">QcQ")
_DELETED = b"t"
_REVISION_BYTES = _REVISION.size
_BEFORE_KEY = (b"alarm", b"auth", b"authRoles", b"authUsers", b"cluster")  # buckets that etcd expects, empty here
_BEFORE_META = (b"members", b"members_removed")


class _Lease(NamedTuple):
    id: int
    ttl_s: int
    left_s: int


_LEASE = Shape(_Lease, [(1, "int"), (2, "int"), (3, "int")])


def write(path: Path, target: Path) -> None:
    """Of the store at `path`, which may be served by another process."""
    engine = Engine(path, readonly=True, sync=True, map_bytes=0, max_bytes=1 << 62)
    try:
        with target.open("wb") as file:
            txn = engine.read()
            try:
                _write(Reading(txn, engine.databases, engine.state(txn)), engine.state(txn).applied, file)
            finally:
                txn.abort()
            os.fsync(file.fileno())
    finally:
        engine.close()


def _write(reading: Reading, applied: int, file: BinaryIO) -> None:
    writer = Writer(file)
    for name in _BEFORE_KEY:
        writer.bucket(name, ())
    writer.bucket(b"key", _versions(reading))
    writer.bucket(b"lease", _leases(reading))
    for name in _BEFORE_META:
        writer.bucket(name, ())
    compacted = _revision_key(reading.revision, 0)
    known = {
        b"consistent_index": U64.pack(applied),
        b"finishedCompactRev": compacted,
        b"scheduledCompactRev": compacted,
        b"term": U64.pack(1),
    }
    writer.bucket(b"meta", known.items())
    writer.close()


def _revision_key(revision: int, place: int) -> bytes:
    return _REVISION.pack(revision, b"_", place)


def _versions(reading: Reading) -> Iterator[Pair]:
    """By revision, and within one by key."""
    order = sorted((item.mod_revision, item.key) for item in reading.items(PREFIX, END))
    last = place = 0
    for revision, key in order:
        place = place + 1 if revision == last else 0
        last = revision
        item = reading.get(key)
        assert item is not None
        yield _revision_key(revision, place), KEY_VALUE.encode(item._replace(key=key[len(PREFIX) :]))


def _leases(reading: Reading) -> Iterator[Pair]:
    left = reading.lease_checkpoints()
    for lease, ttl_s in reading.leases().items():
        yield I64.pack(lease), _LEASE.encode(_Lease(lease, ttl_s, left.get(lease, 0)))


def load(file: Path, path: Path) -> str:
    """Makes a store at `path` of what is in an etcd's file; what it has, in words. Raises CorruptStore."""
    with file.open("rb") as source:
        try:
            reader = Reader(source)
            try:
                return _load(reader, path)
            finally:
                reader.close()
        except (ValueError, struct.error) as problem:
            raise CorruptStore(f"{file}: not a snapshot of etcd, or damaged: {problem}") from problem


def _load(reader: Reader, path: Path) -> str:
    meta = dict(reader.bucket(b"meta"))
    if any(True for _ in reader.bucket(b"authUsers")):
        raise CorruptStore("the snapshot has users: fastkube has no etcd Auth, and would let everybody in")
    compacted = meta.get(b"finishedCompactRev") or _revision_key(1, 0)
    leases = {found.id: found.ttl_s for _, raw in reader.bucket(b"lease") for found in (_LEASE.decode(raw),)}
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = Engine(path, readonly=False, sync=False, map_bytes=0, max_bytes=1 << 40)
    try:
        revision = load_changes(engine, _changes(reader), leases, _REVISION.unpack_from(compacted)[0])
        with engine.env.begin(db=engine.databases.current) as txn:
            keys = txn.stat()["entries"]
        engine.env.sync(True)
    finally:
        engine.close()
    return f"revision {revision}: {keys} keys, {len(leases)} leases"


def _changes(reader: Reader) -> Iterator[Change]:
    for key, raw in reader.bucket(b"key"):
        revision, mark, _ = _REVISION.unpack_from(key)
        if mark != b"_":
            raise Malformed(f"{key!r} is no revision")
        item: Item = KEY_VALUE.decode(raw)
        try:
            name = stored(item.key)
        except Refusal as refusal:
            raise CorruptStore(f"revision {revision}: {refusal.text}") from None
        deleted = key[_REVISION_BYTES:] == _DELETED
        yield Change(revision, name, None if deleted else item._replace(key=name))


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))

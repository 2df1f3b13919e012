"""fastkube's API servers on fastkube's own etcd API: the client of the one and the server of the other."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import NamedTuple

import msgpack
import pytest
from etcds import fresh_prefix, open_store

from fastkube.store import Compacted, KeyExists, Store, prefix_end

MAPS = b"/registry/configmaps/default/"
VALUE: bytes = msgpack.packb({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}})


class Way(NamedTuple):
    url: str


async def current(store: Store) -> int:
    barrier = store.read_barrier()
    assert barrier is not None
    await barrier
    return store.revision


async def test_two_stores_share_it(tmp_path: Path, url: str) -> None:
    prefix = fresh_prefix()
    a = await open_store(tmp_path / "a", Way(url), prefix)
    b = await open_store(tmp_path / "b", Way(url), prefix)
    try:
        watcher = b.watch(MAPS, prefix_end(MAPS))
        first = await a.create(MAPS + b"m", VALUE)
        assert await current(b) >= first
        with pytest.raises(KeyExists):
            await b.create(MAPS + b"m", VALUE)
        second = await b.update(MAPS + b"m", VALUE, first)
        seen = await anext(watcher)
        if len(seen) < 2:
            seen += await anext(watcher)
        assert [event.revision for event in seen] == [first, second]
        lease = await a.lease_grant(50)
        last = await a.create(MAPS + b"leased", VALUE, lease)
        await b.lease_revoke(lease)
        assert await current(a) > last and a.get(MAPS + b"leased") is None
        await a.compact(await current(a))
        with pytest.raises(Compacted):
            a.watch(MAPS, prefix_end(MAPS), first)
    finally:
        await a.close()
        await b.close()


async def test_what_others_write_there_is_no_obstacle(tmp_path: Path, url: str) -> None:
    """Nothing comes of it by the watch, so a read that must be current asks how far that is."""
    store = await open_store(tmp_path / "a", Way(url))
    try:
        before = await current(store)
        for number in range(3):
            words = ["etcdctl", "--endpoints", url, "put", "/elsewhere", str(number)]
            await asyncio.to_thread(subprocess.run, words, check=True, capture_output=True)
            assert await current(store) > before + number
    finally:
        await store.close()

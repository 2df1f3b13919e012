"""A store that is not synced, after a loss of power: whatever pages reached the disk, the last checkpoint is there."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from fastkube.store.check import check
from fastkube.store.checkpoint import CHECKPOINT_FILE, Checkpoints, put_back
from fastkube.store.engine import DATA_FILE, Engine
from fastkube.store.mvcc import Writing

PAGE = 4096


def write(engine: Engine, chooser: random.Random, index: int) -> None:
    """A transaction of many changes, with compaction, so that pages are freed and used again."""
    with engine.env.begin(write=True) as txn:
        writing = Writing(txn, engine.databases, engine.state(txn))
        for _ in range(20):
            key = b"key-%d" % chooser.randrange(500)
            writing.put(key, chooser.randbytes(chooser.randrange(5000)), 0, writing.get(key))
            writing.close_revision()
        if writing.revision - 60 > writing.compacted:
            writing.compact(writing.revision - 50)
            writing.trim(200)
        writing.applied = index
        writing.save_state()


def opened(path: Path) -> Engine:
    return Engine(path, readonly=False, sync=False, map_bytes=0, max_bytes=1 << 30)


def applied(path: Path) -> int:
    engine = opened(path)
    try:
        with engine.env.begin() as txn:
            return engine.state(txn).applied
    finally:
        engine.close()


def lose_power(path: Path, synced: bytes, target: Path, chooser: random.Random) -> None:
    """What the disk may have: each page as it was synced, or as it was written since."""
    written = (path / DATA_FILE).read_bytes()
    target.mkdir()
    shutil.copy(path / CHECKPOINT_FILE, target)
    with open(target / DATA_FILE, "wb") as data:
        for at in range(0, len(written), PAGE):
            before = synced[at : at + PAGE]
            data.write(before if before and chooser.random() < 0.5 else written[at : at + PAGE])


@pytest.mark.parametrize("seed", range(4))
def test_the_last_checkpoint_is_whole_whatever_reached_the_disk(tmp_path: Path, seed: int) -> None:
    chooser = random.Random(seed)
    path = tmp_path / "store"
    engine = opened(path)
    checkpoints = Checkpoints(engine, "boot-1")
    checkpoints.now()
    for turn in range(4):
        for number in range(10):
            write(engine, chooser, turn * 100 + number)
        checkpoints.now()
        synced = (path / DATA_FILE).read_bytes()
        for number in range(10, 40):
            write(engine, chooser, turn * 100 + number)
        target = tmp_path / f"after-{turn}"
        lose_power(path, synced, target, chooser)
        assert put_back(target, "boot-2")
        assert applied(target) == turn * 100 + 9
        assert check(target).ok
    checkpoints.release()
    engine.close()


def test_the_death_of_the_process_alone_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store"
    engine = opened(path)
    checkpoints = Checkpoints(engine, "boot-1")
    checkpoints.now()
    write(engine, random.Random(1), 7)
    checkpoints.release()
    engine.close()
    assert not put_back(path, "boot-1")
    assert applied(path) == 7


def test_a_late_checkpoint_does_not_take_the_place_of_a_newer_one(tmp_path: Path) -> None:
    path = tmp_path / "store"
    engine = opened(path)
    checkpoints = Checkpoints(engine, "boot-1")
    checkpoints.now()
    late = checkpoints.begin()
    write(engine, random.Random(1), 7)
    checkpoints.now()
    checkpoints.record(late)
    checkpoints.end(late, False)
    checkpoints.release()
    engine.close()
    assert put_back(path, "boot-2")
    assert applied(path) == 7
    assert os.path.getsize(path / CHECKPOINT_FILE) > PAGE

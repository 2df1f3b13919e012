"""Random lives against the model, and the compiled core against the same source interpreted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from randomnet import RandomNet

from fastkube import _raft, _raftconf, _raftlog

SCRIPT = """
import sys
from randomnet import RandomNet
from fastkube import _raft, _raftconf, _raftlog
print(_raft.COMPILED, _raftconf.COMPILED, _raftlog.COMPILED)
for seed in range(int(sys.argv[1])):
    life = RandomNet(seed)
    life.run(1500)
    print(seed, life.digest, len(life.model.committed))
"""


def lives(first: int, count: int, steps: int) -> int:
    committed = 0
    for seed in range(first, first + count):
        life = RandomNet(seed)
        try:
            life.run(steps)
            life.settle()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        committed += len(life.model.committed)
    return committed


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_random_lives_keep_the_papers_promises(first: int) -> None:
    assert lives(first, 20, 2000) > 1000


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_random_lives() -> None:
    assert lives(1000, 3000, 4000) > 100_000


def told(seeds: int, *, pure: bool) -> list[str]:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(seeds)],
        env={
            **os.environ,
            "FASTKUBE_PURE": "1" if pure else "0",
            "PYTHONPATH": os.pathsep.join((str(root), str(Path(__file__).parent))),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    compiled, *lines = done.stdout.splitlines()
    assert compiled == f"{not pure} {not pure} {not pure}"
    return lines


@pytest.mark.skipif(
    not (_raft.COMPILED and _raftconf.COMPILED and _raftlog.COMPILED),
    reason="there is only the interpreted build here",
)
def test_both_builds_do_the_same() -> None:
    assert told(8, pure=False) == told(8, pure=True)

"""Lives of whole clusters, each from its seed. A failure prints what is needed to see it again:

FASTKUBE_SIM_SEED=1234 pytest tests/sim      one seed, the long way
make test-sim                                10,000 seeds
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from linearizable import Operation, explain
from simulation import simulate

ROOT = Path(__file__).parents[2]
SHORT_S = 4.0
LONG_S = 12.0


def run(seed: int, duration_s: float) -> int:
    """Operations that were checked."""
    try:
        life = simulate(seed, duration_s)
    except BaseException as error:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()
        error.add_note(f"commit {commit or 'unknown'}, seed {seed}, {duration_s:.0f} s: FASTKUBE_SIM_SEED={seed}")
        raise
    return len(life.checker.history)


@pytest.mark.parametrize("first", range(0, 200, 10))
def test_seeds(first: int) -> None:
    chosen = os.environ.get("FASTKUBE_SIM_SEED")
    if chosen:
        assert run(int(chosen), LONG_S) > 0
        return
    assert sum(run(seed, SHORT_S) for seed in range(first, first + 10)) > 250


@pytest.mark.long
@pytest.mark.timeout(6 * 3600)
def test_ten_thousand_seeds() -> None:
    first = int(os.environ.get("FASTKUBE_SIM_FIRST", "1000"))
    count = int(os.environ.get("FASTKUBE_SIM_COUNT", "10000"))
    assert sum(run(seed, LONG_S) for seed in range(first, first + count)) > 100 * count


# ---------------------------------------------------------------- the checker of histories itself


def operation(kind: str, argument: object, result: object, invoked: float, returned: float | None) -> Operation:
    return Operation(b"k", kind, argument, result, invoked, returned)


@pytest.mark.parametrize(
    ("history", "is_fine"),
    [
        ([("put", "a", None, 0, 1), ("read", None, "a", 2, 3)], True),
        ([("put", "a", None, 0, 1), ("read", None, None, 2, 3)], False),  # stale
        ([("put", "a", None, 0, 3), ("read", None, None, 1, 2)], True),  # not yet
        ([("put", "a", None, 0, 9), ("read", None, "a", 1, 2), ("read", None, None, 3, 4)], False),  # back again
        ([("put", "a", None, 0, None), ("read", None, "a", 5, 6)], True),  # never answered, and done
        ([("put", "a", None, 0, None), ("read", None, None, 5, 6), ("read", None, "a", 7, 8)], True),  # done late
        ([("put", "a", None, 0, 1), ("put", "b", None, 2, 3), ("read", None, "a", 4, 5)], False),  # lost
        ([("put", "a", None, 0, 1), ("swap", ("a", "b"), None, 2, 3), ("swap", ("a", "c"), None, 2, 3)], False),
        ([("put", "a", None, 0, 1), ("swap", ("a", "b"), None, 2, 3), ("swap", ("a", "c"), ("b",), 2, 3)], True),
        ([("put", "a", None, 0, 1), ("swap", ("x", "b"), ("b",), 2, 3)], False),
    ],
)
def test_histories(history: list[tuple[str, object, object, float, float | None]], is_fine: bool) -> None:
    assert (explain([operation(*each) for each in history]) == "") == is_fine

"""The compiled cores and the same sources interpreted decide alike, ties included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastkube import _sched, _scores

SCRIPT = """
import json, sys
from schedobjects import RandomCluster, node
from fastkube import _sched, _scores
from fastkube.scheduler.offline import OfflineScheduler

told = []
for seed in range(int(sys.argv[1])):
    cluster = RandomCluster(seed)
    scheduler = OfflineScheduler(cluster.objects(), seed=seed)
    for number in range(200):
        if number % 50 == 0:
            scheduler.add(node(f"more-{number}", {"disk": "ssd", "rack": "1"}))
        scheduler.add(cluster.pod())
    told += [(decision.pod.name, decision.node, decision.message) for decision in scheduler.run()]
print(json.dumps({"compiled": [_sched.COMPILED, _scores.COMPILED], "told": told}))
"""


def decide(seeds: int, *, pure: bool) -> dict[str, list[object]]:
    environment = {**os.environ, "FASTKUBE_PURE": "1" if pure else "0", "PYTHONPATH": str(Path(__file__).parent)}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r})\n{SCRIPT}", str(seeds)],
        env=environment,
        capture_output=True,
        check=True,
    )
    found: dict[str, list[object]] = json.loads(done.stdout)
    assert found["compiled"] == [not pure, not pure]
    return found


@pytest.mark.skipif(not (_sched.COMPILED and _scores.COMPILED), reason="there is only the interpreted build here")
def test_both_builds_decide_alike() -> None:
    assert decide(12, pure=False)["told"] == decide(12, pure=True)["told"]

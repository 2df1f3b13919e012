"""The life of a server: start, memory against the number of objects, restart with data, and rest."""

from __future__ import annotations

import statistics
import time
from typing import Any

from bench import load
from bench.contenders import Contender, Launch
from bench.subjects.requests import Measured, Step

STARTS = 3
OBJECTS = (0, 10_000, 20_000, 30_000)
_REST_S = 3.0


def measure(launch: Launch, step: Step, *, grow: bool) -> Measured:
    """`grow`: fill the server up to the last of OBJECTS, and start it again with that."""
    starts = []
    for _ in range(STARTS):
        step("start")
        with launch() as contender:
            starts.append(contender.ready_s)
    with launch() as contender:
        found = Measured(contender, step)
        found.figures["start"] = statistics.median(starts)
        found.details["starts"] = [round(start, 4) for start in starts]
        _rest(found)
        if grow:
            _grow(found)
            if contender.restart is not None:
                step("restart")
                found.figures["restart"] = contender.restart()
    return found


def whole(launch: Launch, step: Step) -> Measured:
    """The start of the whole control plane, and the memory of all its processes when it has come to rest."""
    starts, used, memory = [], [], []
    for _ in range(STARTS):
        step("start of all")
        with launch() as contender:
            starts.append(contender.ready_s)
            used.append(contender.cpu_s())
            time.sleep(_REST_S)
            memory.append(_memory(contender))
    found = Measured(contender, step)
    found.figures |= {
        "up_start": statistics.median(starts),
        "up_cpu": statistics.median(used),
        "up_memory": statistics.median(memory),
    }
    found.details["up_starts"] = [round(start, 4) for start in starts]
    return found


def _rest(found: Measured) -> None:
    step = found.step
    step("rest")
    time.sleep(0.5)
    before, began = found.contender.cpu_s(), time.monotonic()
    time.sleep(_REST_S)
    found.figures["idle_cpu"] = 100 * (found.contender.cpu_s() - before) / (time.monotonic() - began)
    found.figures["memory_idle"] = _memory(found.contender)


def _memory(contender: Contender) -> float:
    """MB of all processes: resident, shared pages and mapped pages of the store included."""
    return sum(usage.rss_mb for usage in contender.usage())


def _grow(found: Measured) -> None:
    points: list[dict[str, Any]] = []
    made = 0
    for objects in OBJECTS:
        found.step(f"memory at {objects:,} Pods")
        if objects > made:
            load.run(
                found.contender.target,
                load.create_pods,
                connections=64,
                count=objects - made,
                namespace="default",
                prefix=f"grow{objects}",
                scheduler="none",
            )
            made = objects
        usage = found.contender.usage()
        points.append(
            {
                "objects": objects,
                "rss_mb": round(sum(one.rss_mb for one in usage), 1),
                "uss_mb": round(sum(one.uss_mb for one in usage), 1),
            }
        )
    found.figures["memory_full"] = points[-1]["rss_mb"]
    found.details["memory"] = points

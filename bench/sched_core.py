"""Decisions a second, without an API server: queue, search, scores, choice and assume, for Pods already parsed.

    python -m bench.sched_core [--nodes 100,1000,5000] [--pods 10000] [--workload basic,...] [--json FILE]

Workloads have the shape of scheduler_perf's. Under FASTKUBE_PURE=1 the same cores run interpreted.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import psutil

from fastkube import __version__, _sched
from fastkube.process import settled
from fastkube.scheduler.framework import Cycle
from fastkube.scheduler.offline import OfflineScheduler
from fastkube.scheduler.preemption import Preemptor
from fastkube.scheduler.search import FitError

Object = dict[str, Any]

ZONES = 10


def node(number: int) -> Object:
    name = f"node-{number}"
    labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": f"zone-{number % ZONES}"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"}},
    }


def pod(number: int, labels: dict[str, str] | None = None, *, requests: Object | None = None, **spec: Any) -> Object:
    asked = requests or {"cpu": "100m", "memory": "500Mi"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"pod-{number}", "namespace": "default", "uid": f"uid-{number}", "labels": labels or {}},
        "spec": {"containers": [{"name": "c", "image": "pause", "resources": {"requests": asked}}], **spec},
    }


def _pod_term(labels: dict[str, str], key: str) -> Object:
    return {"labelSelector": {"matchLabels": labels}, "topologyKey": key}


def _zone_spread(hard: bool) -> list[Object]:
    return [
        {
            "maxSkew": 5,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "DoNotSchedule" if hard else "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"color": "blue"}},
        }
    ]


def basic(count: int, nodes: int) -> Iterator[Object]:
    return (pod(n) for n in range(count))


def node_affinity(count: int, nodes: int) -> Iterator[Object]:
    term = {
        "matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["zone-1", "zone-2"]}]
    }
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
    return (pod(n, requests={"cpu": "10m", "memory": "50Mi"}, affinity=affinity) for n in range(count))


def spreading(count: int, nodes: int) -> Iterator[Object]:
    return (pod(n, {"color": "blue"}, topologySpreadConstraints=_zone_spread(True)) for n in range(count))


def preferred_spreading(count: int, nodes: int) -> Iterator[Object]:
    return (pod(n, {"color": "blue"}, topologySpreadConstraints=_zone_spread(False)) for n in range(count))


def anti_affinity(count: int, nodes: int) -> Iterator[Object]:
    term = _pod_term({"color": "green"}, "kubernetes.io/hostname")
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    return (pod(n, {"color": "green"}, affinity=affinity) for n in range(min(count, nodes)))


def affinity(count: int, nodes: int) -> Iterator[Object]:
    term = _pod_term({"color": "blue"}, "topology.kubernetes.io/zone")
    wish = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    return (pod(n, {"color": "blue"}, requests={"cpu": "10m", "memory": "50Mi"}, affinity=wish) for n in range(count))


def preferred_affinity(count: int, nodes: int) -> Iterator[Object]:
    term = {"weight": 1, "podAffinityTerm": _pod_term({"color": "red"}, "kubernetes.io/hostname")}
    wish = {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}}
    return (pod(n, {"color": "red"}, affinity=wish) for n in range(count))


def preferred_anti_affinity(count: int, nodes: int) -> Iterator[Object]:
    term = {"weight": 1, "podAffinityTerm": _pod_term({"color": "yellow"}, "kubernetes.io/hostname")}
    wish = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}}
    return (pod(n, {"color": "yellow"}, affinity=wish) for n in range(count))


def unschedulable(count: int, nodes: int) -> Iterator[Object]:
    """Every other Pod asks for more than any node has."""
    return (pod(n, requests={"cpu": "100"} if n % 2 else None) for n in range(count))


def distinct(count: int, nodes: int) -> Iterator[Object]:
    """No two Pods are alike: nothing can be shared."""
    return (pod(n, {"n": str(n)}, requests={"cpu": f"{10 + n % 997}m", "memory": f"{n}Ki"}) for n in range(count))


WORKLOADS: dict[str, Callable[[int, int], Iterator[Object]]] = {
    "basic": basic,
    "node-affinity": node_affinity,
    "spreading": spreading,
    "preferred-spreading": preferred_spreading,
    "anti-affinity": anti_affinity,
    "affinity": affinity,
    "preferred-affinity": preferred_affinity,
    "preferred-anti-affinity": preferred_anti_affinity,
    "unschedulable": unschedulable,
    "distinct": distinct,
}


class Outcome(NamedTuple):
    tried: int
    placed: int
    elapsed_s: float
    cpu_s: float


class Stopwatch:
    """Time on the wall and of this process."""

    def __init__(self) -> None:
        self._start, self._cpu = time.perf_counter(), time.process_time()

    def elapsed(self) -> float:
        return time.perf_counter() - self._start

    def outcome(self, tried: int, placed: int) -> Outcome:
        return Outcome(tried, placed, self.elapsed(), time.process_time() - self._cpu)


def preemption(nodes: int, pods: int, seconds_max: float) -> Outcome:
    """Nodes full of Pods of low priority; each new one must find victims, which leave at once."""
    scheduler = OfflineScheduler(map(node, range(nodes)))
    for n in range(4 * nodes):
        scheduler.add(pod(n, requests={"cpu": "900m", "memory": "500Mi"}, nodeName=f"node-{n % nodes}"))
    wanted = [
        scheduler.cache.parse(pod(n + 4 * nodes, requests={"cpu": "3"}, priority=10)) for n in range(min(pods, nodes))
    ]
    search = scheduler.profiles["default-scheduler"].search
    preemptor = Preemptor(scheduler.cache, time.time, lambda: (1, []))
    tried = placed = 0
    clock = Stopwatch()
    for each in wanted:
        try:
            search.place(Cycle(each))
        except FitError as error:
            victims = preemptor.preempt(Cycle(each), error, search).victims
            if victims is not None:
                scheduler.cache.nominate(each, victims.node.name)
                for victim in victims.pods:
                    scheduler.cache.remove_pod(victim.uid)
                scheduler.cache.assume(each, search.place(Cycle(each)).node.name)
                placed += 1
        tried += 1
        if tried % 64 == 0 and clock.elapsed() > seconds_max:
            break
    return clock.outcome(tried, placed)


CHURN, PREEMPTION = "churn", "preemption"
CHURN_EVERY = 500
"""Pods between two changes of the cluster; scheduler_perf makes one each second."""


def churn(nodes: int, pods: int, seconds_max: float) -> Outcome:
    """Basic Pods while a node, a Service and a Pod that fits nowhere are made and deleted again and again."""
    scheduler = OfflineScheduler(map(node, range(nodes)))
    for obj in basic(pods, nodes):
        scheduler.add(obj)
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "default"}, "spec": {}}
    tried = placed = 0
    clock = Stopwatch()
    for decision in scheduler.run():
        tried += 1
        placed += bool(decision.node)
        if tried % CHURN_EVERY == 0:
            scheduler.add(pod(pods + tried, requests={"cpu": "100"}, priority=10))
            scheduler.cache.set_node(node(nodes))
            scheduler.add(service)
            if tried % (2 * CHURN_EVERY) == 0:
                scheduler.cache.remove_node(f"node-{nodes}")
        if tried % 64 == 0 and clock.elapsed() > seconds_max:
            break
    return clock.outcome(tried, placed)


def place(workload: str, nodes: int, pods: int, seconds_max: float) -> Outcome:
    scheduler = OfflineScheduler(map(node, range(nodes)))
    for obj in WORKLOADS[workload](pods, nodes):
        scheduler.add(obj)
    tried = placed = 0
    clock = Stopwatch()
    for decision in scheduler.run():
        tried += 1
        placed += bool(decision.node)
        if tried % 64 == 0 and clock.elapsed() > seconds_max:
            break
    return clock.outcome(tried, placed)


def measure(workload: str, nodes: int, pods: int, seconds_max: float) -> Object:
    gc.collect()
    settled()  # as in the processes: what other workloads have left is not looked through again
    if workload == PREEMPTION:
        outcome = preemption(nodes, pods, seconds_max)
    elif workload == CHURN:
        outcome = churn(nodes, pods, seconds_max)
    else:
        outcome = place(workload, nodes, pods, seconds_max)
    return {
        "workload": workload,
        "nodes": nodes,
        "pods": outcome.tried,
        "placed": outcome.placed,
        "per_second": round(outcome.tried / outcome.elapsed_s),
        "cpu_us": round(outcome.cpu_s / outcome.tried * 1e6, 1),
        "rss_mb": round(psutil.Process().memory_info().rss / 2**20),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", default="1000,5000", help="numbers of nodes, separated by commas")
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--workload", default=",".join((*WORKLOADS, CHURN, PREEMPTION)))
    parser.add_argument("--seconds", type=float, default=10.0, help="end a workload after so long")
    parser.add_argument("--json", default="", help="write the results to this file too")
    options = parser.parse_args()
    build = "compiled" if _sched.COMPILED else "pure"
    results = []
    titles = ("workload", "nodes", "pods", "placed", "decisions/s", "CPU us", "MB")
    print("{:24} {:>6} {:>6} {:>6} {:>11} {:>8} {:>5}".format(*titles), f"  ({build})")
    for nodes in map(int, options.nodes.split(",")):
        for workload in options.workload.split(","):
            told = measure(workload, nodes, options.pods, options.seconds)
            results.append(told)
            line = f"{workload:24} {nodes:6} {told['pods']:6} {told['placed']:6} {told['per_second']:11,}"
            print(f"{line} {told['cpu_us']:8} {told['rss_mb']:5}", flush=True)
    if options.json:
        document = {"fastkube": __version__, "python": sys.version.split()[0], "build": build, "results": results}
        with open(options.json, "w") as file:
            json.dump(document, file, indent=1)


if __name__ == "__main__":
    main()

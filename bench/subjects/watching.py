"""Watches: how fast events reach many watchers, and how soon one sees what was sent."""

from __future__ import annotations

import statistics

from bench import load, watch
from bench.contenders import Contender
from bench.subjects.requests import Measured, Step

WATCHERS = 100
EVENTS = 2000
LAG_PODS = 300


def measure(contender: Contender, step: Step) -> Measured:
    found = Measured(contender, step)
    _fan_out(found)
    _lag(found)
    return found


def _fan_out(found: Measured) -> None:
    """Config maps, written at 64 connections, to WATCHERS streams that only count."""
    found.step("watch fan-out")
    target = found.contender.target
    readers = watch.Fanout(target, "/api/v1/namespaces/default/configmaps?watch=true", WATCHERS, EVENTS)
    before = found.contender.cpu_s()
    load.run(target, load.create_config_maps, connections=64, count=EVENTS, namespace="default", prefix="fan")
    events, first, last, cpu_s = readers.result()
    used = found.contender.cpu_s() - before
    rate = events / max(1e-9, last - first)
    found.figures["fanout"] = rate
    found.details["fanout"] = {
        "events": events,
        "seconds": round(last - first, 4),
        "server_cpu_us": round(used * 1e6 / events, 2),
        "client_cpu_s": round(cpu_s, 3),
    }
    if cpu_s > 0.9 * (last - first):
        found.notes.append("fanout: the reader of the streams was at its limit; the server may be faster")


def _lag(found: Measured) -> None:
    """From the moment a create is sent to the moment a watcher in another process has its event."""
    found.step("watch lag")
    target = found.contender.target
    watcher = watch.PodWatcher(target, "kube-public", LAG_PODS, "created", 60)
    sent = load.run(
        target,
        load.create_pods,
        connections=1,
        count=LAG_PODS,
        namespace="kube-public",
        prefix="lag",
        scheduler="none",
    )
    seen, _ = watcher.result()
    lags = sorted(
        (seen["created"][name] - at) * 1e3
        for number, at in enumerate(sent.started)
        if (name := f"lag-{number:07d}") in seen["created"]
    )
    if len(lags) < LAG_PODS:
        raise RuntimeError(f"the watcher saw {len(lags)} of {LAG_PODS} Pods")
    found.figures |= {"lag_p50": statistics.median(lags), "lag_p99": lags[int(0.99 * len(lags))]}

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
    created = load.run(target, load.create_config_maps, connections=64, count=EVENTS, namespace="default", prefix="fan")
    if created.errors:
        raise RuntimeError(f"fanout: {created.errors} requests failed: {created.statuses}")
    seen = readers.result()
    used = found.contender.cpu_s() - before
    wall_s = max(1e-9, seen.last - seen.first)
    found.figures |= {"fanout": seen.events / wall_s, "fanout_cpu": used * 1e6 / seen.events}
    found.details["fanout"] = {
        "events": seen.events,
        "seconds": round(wall_s, 4),
        "creates_rate": round(created.rate, 1),
        "server_cpu_us": round(used * 1e6 / seen.events, 2),
        "client_cpu_s": round(seen.cpu_s, 3),
        "streams_ended": seen.ended,
    }
    if seen.ended:
        found.notes.append(f"fanout: the server ended {seen.ended} streams as too slow; they went on where they were")
    if seen.cpu_s > 0.9 * wall_s:
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

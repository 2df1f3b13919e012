"""The whole control plane: Pods bound by the scheduler, and a Deployment of thousands of Pods until all of them run."""

from __future__ import annotations

import time

from bench import load, watch
from bench.contenders import Contender
from bench.subjects.requests import Measured, Step

BOUND_PODS = 5000
ROLLOUT_PODS = 5000


def bound(contender: Contender, step: Step) -> Measured:
    """Pods a second from the first request to the last binding that a watcher saw."""
    found = Measured(contender, step)
    step("create to bound")
    watcher = watch.PodWatcher(contender.target, "default", BOUND_PODS, "bound", 240)
    created = load.run(
        contender.target,
        load.create_pods,
        connections=64,
        count=BOUND_PODS,
        namespace="default",
        prefix="sched",
        scheduler="default-scheduler",
    )
    seen, _ = watcher.result()
    if len(seen["bound"]) < BOUND_PODS:
        raise RuntimeError(f"{len(seen['bound'])} of {BOUND_PODS} Pods were bound")
    found.figures["bound"] = BOUND_PODS / (max(seen["bound"].values()) - min(created.started))
    return found


def rollout(contender: Contender, step: Step) -> Measured:
    """Seconds from the request for a Deployment to the last of its Pods being seen Running."""
    found = Measured(contender, step)
    step("rollout")
    watcher = watch.PodWatcher(contender.target, "default", ROLLOUT_PODS, "running", 240)
    began = time.monotonic()
    load.run(
        contender.target, load.create_deployment, connections=1, count=1, namespace="default", replicas=ROLLOUT_PODS
    )
    seen, _ = watcher.result()
    if len(seen["running"]) < ROLLOUT_PODS:
        raise RuntimeError(f"{len(seen['running'])} of {ROLLOUT_PODS} Pods run")
    found.figures["rollout"] = max(seen["running"].values()) - began
    found.details["rollout"] = {
        state: round(max(times.values()) - began, 3) for state, times in seen.items() if len(times) >= ROLLOUT_PODS
    }
    return found

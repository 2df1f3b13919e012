"""How many replicas a metric asks for: ratios, Pods that are not ready or not measured, tolerance.

Source: "Horizontal Pod Autoscaling, algorithm details" in the Kubernetes documentation. A Pod that is not ready is
taken to use nothing when scaling up; one without a measurement nothing when scaling up and all it may when scaling
down. If that turns the direction round, nothing is done.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from fastkube.api import quantity
from fastkube.controllers.autoscaling_metrics import Sample, Samples, Unknown
from fastkube.controllers.common import Object, Objects, condition, is_ready, is_terminating, phase, seconds

_NO_PODS = "no pods returned by selector while calculating replica count"
_NOT_RECEIVED = "did not receive metrics for targeted pods (pods might be unready)"


class Tolerances(NamedTuple):
    """Ratios so close to 1 are not acted upon."""

    down: float
    up: float

    def cover(self, ratio: float) -> bool:
        return 1.0 - self.down <= ratio <= 1.0 + self.up


class Timing(NamedTuple):
    """How long a starting Pod's CPU is looked at with suspicion."""

    now: float
    cpu_initialization_s: float
    initial_readiness_s: float


class Proposal(NamedTuple):
    replicas: int
    average: int
    """Of the metric over the Pods (over the replicas, where it is not one of Pods), in thousandths."""
    utilization: int = 0
    """In per cent of what is requested."""


class Groups(NamedTuple):
    """The Pods of a target, by what is known of them."""

    ready: int
    unready: set[str]
    missing: set[str]
    ignored: set[str]


def group(pods: Objects, samples: Samples, resource: str, timing: Timing) -> Groups:
    groups = Groups(0, set(), set(), set())
    ready = 0
    for pod in pods:
        name = pod["metadata"]["name"]
        if is_terminating(pod) or phase(pod) == "Failed":
            groups.ignored.add(name)
        elif phase(pod) == "Pending":
            groups.unready.add(name)
        elif name not in samples:
            groups.missing.add(name)
        elif resource == "cpu" and _is_starting(pod, samples[name], timing):
            groups.unready.add(name)
        else:
            ready += 1
    return groups._replace(ready=ready)


def _is_starting(pod: Object, sample: Sample, timing: Timing) -> bool:
    """Whether the CPU of a Pod tells of its start rather than of its load."""
    found, started_text = condition(pod, "Ready"), (pod.get("status") or {}).get("startTime")
    if found is None or not started_text:
        return True
    started, changed = seconds(started_text), seconds(found["lastTransitionTime"])
    if started + timing.cpu_initialization_s > timing.now:
        return found["status"] == "False" or sample.at < changed + sample.window_s
    return found["status"] == "False" and started + timing.initial_readiness_s > changed


# ---------------------------------------------------------------- metrics of Pods


class _Ratio(NamedTuple):
    value: float
    average: int
    utilization: int = 0


def by_average(
    replicas: int, pods: Objects, samples: Samples, target: int, resource: str, tolerances: Tolerances, timing: Timing
) -> Proposal:
    """Replicas so that the Pods use `target` each, on average; raises Unknown."""

    def ratio(measured: Samples) -> _Ratio:
        average = sum(sample.value for sample in measured.values()) // len(measured)
        return _Ratio(average / target, average)

    def assumed(_name: str) -> int:
        return target

    return _propose(replicas, pods, samples, resource, tolerances, timing, ratio, assumed)


def by_utilization(
    replicas: int,
    pods: Objects,
    samples: Samples,
    target: int,
    resource: str,
    container: str,
    tolerances: Tolerances,
    timing: Timing,
) -> Proposal:
    """Replicas so that the Pods use `target` per cent of what they request, in all; raises Unknown."""
    requests = {pod["metadata"]["name"]: _requested(pod, resource, container) for pod in pods}

    def ratio(measured: Samples) -> _Ratio:
        known = {name: sample for name, sample in measured.items() if name in requests}
        asked = sum(requests[name] for name in known)
        if not asked:
            raise Unknown("no metrics returned matched known pods")
        used = sum(sample.value for sample in known.values())
        percent = used * 100 // asked
        return _Ratio(percent / target, used // len(known), percent)

    def assumed(name: str) -> int:
        return requests[name] * max(100, target) // 100

    return _propose(replicas, pods, samples, resource, tolerances, timing, ratio, assumed)


def _requested(pod: Object, resource: str, container: str) -> int:
    spec = pod["spec"]
    whole = ((spec.get("resources") or {}).get("requests") or {}).get(resource)
    if whole is not None and not container:
        return quantity.milli(whole)
    sidecars = [found for found in spec.get("initContainers") or () if found.get("restartPolicy") == "Always"]
    total = 0
    for found in [*(spec.get("containers") or ()), *sidecars]:
        if container and found["name"] != container:
            continue
        amount = ((found.get("resources") or {}).get("requests") or {}).get(resource)
        if amount is None:
            name = pod["metadata"]["name"]
            raise Unknown(f"missing request for {resource} in container {found['name']} of Pod {name}")
        total += quantity.milli(amount)
    return total


def _propose(
    replicas: int,
    pods: Objects,
    samples: Samples,
    resource: str,
    tolerances: Tolerances,
    timing: Timing,
    ratio_of: Callable[[Samples], _Ratio],
    assumed: Callable[[str], int],
) -> Proposal:
    if not pods:
        raise Unknown(_NO_PODS)
    groups = group(pods, samples, resource, timing)
    out = groups.ignored | groups.unready
    measured = {name: sample for name, sample in samples.items() if name not in out}
    if not measured:
        raise Unknown(_NOT_RECEIVED)
    first = ratio_of(measured)
    stay = Proposal(replicas, first.average, first.utilization)
    with_unready = bool(groups.unready) and first.value > 1.0
    if not with_unready and not groups.missing:
        if tolerances.cover(first.value):
            return stay
        return stay._replace(replicas=math.ceil(first.value * groups.ready))
    for name in groups.missing:
        if first.value < 1.0:
            measured[name] = Sample(assumed(name))
        elif first.value > 1.0:
            measured[name] = Sample(0)
    if with_unready:
        measured |= dict.fromkeys(groups.unready, Sample(0))
    second = ratio_of(measured).value
    if tolerances.cover(second) or (first.value < 1.0 < second) or (second < 1.0 < first.value):
        return stay
    wanted = math.ceil(second * len(measured))
    if (second < 1.0 and wanted > replicas) or (second > 1.0 and wanted < replicas):
        return stay
    return stay._replace(replicas=wanted)


# ---------------------------------------------------------------- metrics of something else


def by_value(replicas: int, pods: Objects, usage: int, target: int, tolerances: Tolerances) -> Proposal:
    """Replicas so that a metric which is shared by all becomes `target`; raises Unknown."""
    ratio = usage / target
    if replicas == 0:
        return Proposal(math.ceil(ratio), usage)
    if tolerances.cover(ratio):
        return Proposal(replicas, usage)
    if not pods:
        raise Unknown(_NO_PODS)
    ready = sum(phase(pod) == "Running" and is_ready(pod) for pod in pods)
    return Proposal(math.ceil(ratio * ready), usage)


def by_share(replicas: int, usage: int, target: int, tolerances: Tolerances) -> Proposal:
    """Replicas so that each has a share of `target` in the metric."""
    wanted = replicas
    if not replicas or not tolerances.cover(usage / (target * replicas)):
        wanted = math.ceil(usage / target)
    return Proposal(wanted, math.ceil(usage / replicas) if replicas else 0)

"""How fast an autoscaler may follow what its metrics ask for: stabilisation, rates, limits.

What was recommended and what was done lately is the autoscaler's memory. It is lost with the process, as upstream's is:
until it has filled again, rates are counted from nothing.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from fastkube.controllers.common import Object, Objects

_LIMIT_MIN = 4
_LIMIT_FACTOR = 2
"""Without a behaviour a scale-up may not do more than double, but it may always reach four."""


class Recommendation(NamedTuple):
    at: float
    replicas: int


class Change(NamedTuple):
    at: float
    replicas: int


class Memory(NamedTuple):
    """What an autoscaler remembers of its past, the latest last."""

    recommendations: tuple[Recommendation, ...] = ()
    ups: tuple[Change, ...] = ()
    downs: tuple[Change, ...] = ()


class Limits(NamedTuple):
    current: int
    least: int
    most: int
    now: float
    down_window_s: float
    """Of an autoscaler that names none."""


class Told(NamedTuple):
    """A number of replicas, and what conditions say of how it came about."""

    replicas: int
    reason: str
    message: str


_STAYED = ("ReadyForNewScale", "recommended size matches current size")
_UP_STAYED = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
)
_DOWN_STAYED = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
)
_WITHIN = ("DesiredWithinRange", "the desired count is within the acceptable range")
_TOO_FEW = ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
_TOO_MANY = ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
_TOO_FAST_UP = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
_TOO_FAST_DOWN = ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate")


def stabilize(desired: int, behavior: Object | None, memory: Memory, limits: Limits) -> Told:
    """The recommendation that recent ones allow."""
    if behavior is None:
        since = limits.now - limits.down_window_s
        highest = max((past.replicas for past in memory.recommendations if past.at > since), default=desired)
        wanted = max(desired, highest)
        return Told(wanted, *(_STAYED if wanted == desired else _DOWN_STAYED))
    up_since = limits.now - float(behavior["scaleUp"].get("stabilizationWindowSeconds") or 0)
    down_s = behavior["scaleDown"].get("stabilizationWindowSeconds")
    down_since = limits.now - (limits.down_window_s if down_s is None else float(down_s))
    lowest = min([desired, *(past.replicas for past in memory.recommendations if past.at > up_since)])
    highest = max([desired, *(past.replicas for past in memory.recommendations if past.at > down_since)])
    wanted = min(max(limits.current, lowest), highest)
    if wanted == desired:
        return Told(wanted, *_STAYED)
    return Told(wanted, *(_UP_STAYED if desired >= limits.current else _DOWN_STAYED))


def limit(desired: int, behavior: Object | None, memory: Memory, limits: Limits) -> Told:
    """The number of replicas that rates, minimum and maximum allow."""
    if behavior is None:
        fastest = max(_LIMIT_FACTOR * limits.current, _LIMIT_MIN)
        if desired < limits.least:
            return Told(limits.least, *_TOO_FEW)
        if desired > min(limits.most, fastest):
            return Told(fastest, *_TOO_FAST_UP) if limits.most > fastest else Told(limits.most, *_TOO_MANY)
        return Told(desired, *_WITHIN)
    if desired > limits.current:
        fastest = max(_rate(behavior["scaleUp"], memory, limits, up=True), limits.current)
        if desired > min(limits.most, fastest):
            return Told(fastest, *_TOO_FAST_UP) if limits.most > fastest else Told(limits.most, *_TOO_MANY)
    elif desired < limits.current:
        lowest = min(_rate(behavior["scaleDown"], memory, limits, up=False), limits.current)
        if desired < max(limits.least, lowest):
            return Told(lowest, *_TOO_FAST_DOWN) if limits.least < lowest else Told(limits.least, *_TOO_FEW)
    return Told(desired, *_WITHIN)


def _rate(rules: Object, memory: Memory, limits: Limits, *, up: bool) -> int:
    """How many replicas the policies allow now: of several the widest, unless selectPolicy says the narrowest."""
    select = rules.get("selectPolicy") or "Max"
    if select == "Disabled":
        return limits.current
    found = [_allowed(policy, memory, limits, up=up) for policy in rules.get("policies") or ()]
    highest = (select == "Max") == up
    return max(found) if highest else min(found)


def _allowed(policy: Object, memory: Memory, limits: Limits, *, up: bool) -> int:
    since = limits.now - float(policy["periodSeconds"])
    added = sum(change.replicas for change in memory.ups if change.at > since)
    removed = sum(change.replicas for change in memory.downs if change.at > since)
    start, value = limits.current - added + removed, int(policy["value"])
    if policy["type"] == "Pods":
        return start + value if up else start - value
    return math.ceil(start * (1 + value / 100)) if up else int(start * (1 - value / 100))


def remember(memory: Memory, desired: int, before: int, after: int, behavior: Object | None, limits: Limits) -> Memory:
    """What is to be known next time: what was recommended and done, without what is too old to matter."""
    window = limits.down_window_s
    longest = 0.0
    if behavior is not None:
        policies: Objects = [
            policy for key in ("scaleUp", "scaleDown") for policy in behavior[key].get("policies") or ()
        ]
        longest = max((float(policy["periodSeconds"]) for policy in policies), default=0.0)
        window = max([window, *(float(behavior[k].get("stabilizationWindowSeconds") or 0) for k in behavior)])
    kept = tuple(past for past in memory.recommendations if past.at > limits.now - window)
    ups = tuple(change for change in memory.ups if change.at > limits.now - longest)
    downs = tuple(change for change in memory.downs if change.at > limits.now - longest)
    if behavior is not None and after > before:
        ups = (*ups, Change(limits.now, after - before))
    elif behavior is not None and after < before:
        downs = (*downs, Change(limits.now, before - after))
    return Memory((*kept, Recommendation(limits.now, desired)), ups, downs)

"""Feature gates of Kubernetes: those that change what fastkube does. All are off unless they are named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

GENERIC_WORKLOAD = "GenericWorkload"
"""The API server keeps spec.schedulingGroup of Pods, and serves PodGroups and Workloads where `--runtime-config` says
so; the scheduler tries the Pods of a PodGroup together."""
GANG_SCHEDULING = "GangScheduling"
"""The plugin GangScheduling: of a PodGroup with the gang policy at least minCount Pods run, or none."""

NEEDS: Mapping[str, tuple[str, ...]] = {GENERIC_WORKLOAD: (), GANG_SCHEDULING: (GENERIC_WORKLOAD,)}
"""Each gate, and those without which it cannot be on."""


def parse(told: Iterable[str]) -> frozenset[str]:
    """The gates that are on, of `Name=true` and `Name=false`; raises ValueError."""
    states: dict[str, bool] = {}
    for each in told:
        name, equals, value = each.partition("=")
        if not equals:
            raise ValueError(f"missing bool value for {name}")
        if value.lower() not in ("true", "false", "1", "0", "t", "f"):
            raise ValueError(
                f'invalid value of {name}={value}, err: strconv.ParseBool: parsing "{value}": invalid syntax'
            )
        if name not in NEEDS:
            raise ValueError(f"feature gate {name} is not supported: {', '.join(NEEDS)} are")
        states[name] = value.lower() in ("true", "1", "t")
    on = frozenset(name for name, state in states.items() if state)
    for name in sorted(on):
        missing = [each for each in NEEDS[name] if each not in on]
        if missing:
            raise ValueError(f"{name} is enabled, but depends on features that are disabled: [{' '.join(missing)}]")
    return on


GATED_VERSIONS = {"scheduling.k8s.io/v1alpha2": GENERIC_WORKLOAD}
"""Versions of the API that are served only when asked for, and only with a gate."""


def versions(runtime_config: Iterable[str], on: frozenset[str]) -> frozenset[str]:
    """The gated versions to serve, of `group/version=true`; raises ValueError."""
    served = set()
    for each in runtime_config:
        name, _, value = each.partition("=")
        if name not in GATED_VERSIONS or value not in ("", "true", "false"):
            raise ValueError(f"runtime-config {each} is not supported: {', '.join(GATED_VERSIONS)}=true is")
        if value != "false" and GATED_VERSIONS[name] in on:
            served.add(name)
    return frozenset(served)
